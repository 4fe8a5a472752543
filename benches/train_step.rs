//! Criterion group `train_step`: one step of SGD on networks from tiny to large, in floating-point
//! operations per second.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gemmprop::{Bias, Mlp, Sgd, SquaredError};
use ndarray::{Array1, Array2};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Widths, input and output included, and the batch.
const SHAPES: [(&[usize], usize); 4] =
    [(&[16, 16, 16, 1], 32), (&[64, 64, 64, 1], 32), (&[64, 256, 256, 1], 64), (&[784, 512, 512, 1], 128)];

/// Multiplications and additions of the products of a step: forward, backward and gradient have as
/// many each, and the gradient of the input is not needed.
fn flops(widths: &[usize], batch: usize) -> usize {
    let product = |d: &[usize]| 2 * batch * d[0] * d[1];
    3 * widths.windows(2).map(product).sum::<usize>() - product(widths)
}

fn train_step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("train_step");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    for (widths, batch) in SHAPES {
        let mut generator = ChaCha8Rng::seed_from_u64(0);
        let mut number = || generator.random_range(-1.0..1.0);
        let x = Array2::<f32>::from_shape_simple_fn((batch, widths[0]), &mut number);
        let y = Array1::<f32>::from_shape_simple_fn(batch, &mut number);
        let mut mlp = Mlp::<f32>::he(widths, Bias::Input, 0).expect("valid widths");
        let mut sgd = Sgd::new(batch, 1e-3, 0).expect("valid hyperparameters");
        let mut step = || sgd.step(&mut mlp, x.view(), y.view(), &SquaredError).expect("valid data, no divergence");
        let first = step();
        let tenth = (0..9).fold(first, |_, _| step());
        assert!(tenth < first, "steps descend: ℓ = {first} and, nine steps later, {tenth}");
        group.throughput(Throughput::Elements(flops(widths, batch) as u64));
        let name = widths.iter().map(usize::to_string).collect::<Vec<_>>().join("-");
        group.bench_function(BenchmarkId::new(name, batch), |bencher| bencher.iter(&mut step));
    }
    group.finish();
}

// Criterion draws no plots here, since the bench `figures` does.
criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = train_step
}
criterion_main!(benches);
