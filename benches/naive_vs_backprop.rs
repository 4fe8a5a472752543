//! Criterion group `naive_vs_backprop`: the four rungs side by side on a few networks, in samples
//! per second.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rungs::{Rung, assert_agreement, equal_widths, integers};

fn naive_vs_backprop(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("naive_vs_backprop");
    // The naive rung takes a tenth of a second on the widest of them.
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for n in [16, 32, 64] {
        let (mlp, x) = integers::<f32>(&equal_widths(n));
        assert_agreement(&Rung::ALL, &mlp, x.view());
        let mut g = mlp.zero_gradient();
        for rung in Rung::ALL {
            group.throughput(Throughput::Elements(rung.batch() as u64));
            group.bench_function(BenchmarkId::new(rung.name(), n), |bencher| {
                bencher.iter(|| rung.gradient(&mlp, x.view(), black_box(&mut g)));
            });
        }
    }
    group.finish();
}

// Criterion draws no plots here, since the bench `figures` does.
criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = naive_vs_backprop
}
criterion_main!(benches);
