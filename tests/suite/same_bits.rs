//! With native products, a training run has the same bits on every CPU: SHA-256 of its parameters
//! and of its history are constants. `ci/test` runs these tests with every vector extension that the
//! CPU has, and `ci/aarch64` on another architecture.

use gemmprop::{
    Bias, Dataset, LearningRate, Logistic, Loss, Mlp, Optimizer, Products, Scalar, Sgd, SoftmaxCrossEntropy,
    SquaredError, Trainer, Training, set_threads,
};
use ndarray::{Array1, Array2, Axis, s};
use sha2::{Digest, Sha256};

/// The first digits in file order, pixels from 0 to 1.
fn digits<F: Scalar>(samples: usize) -> (Array2<F>, Array1<usize>) {
    let data = smartcore::dataset::digits::load_dataset();
    let pixels = data.data.iter().map(|&pixel| F::from_f64(f64::from(pixel) / 16.0)).collect();
    let x = Array2::from_shape_vec((data.num_samples, data.num_features), pixels).unwrap();
    let labels: Array1<usize> = data.target.iter().map(|&label| label as usize).collect();
    (x.slice(s![..samples, ..]).to_owned(), labels.slice(s![..samples]).to_owned())
}

/// 200 steps: the digest of all parameters, and of loss and norm of each epoch.
fn digest<F: Scalar, L: Loss<F>>(loss: L, outputs: usize, y: &Array1<L::Target>, training: Training) -> String {
    let (x, _) = digits::<F>(640);
    let mlp = Mlp::<F>::he(&[64, 45, 32, outputs], Bias::EveryLayer, 5).unwrap();
    let mlp = mlp.with_products(Products::Native).unwrap();
    let training = Training { epochs: 10, batch: 32, seed: 1, standardize: true, ..training };
    let mut trainer = Trainer::new(mlp, loss, training).unwrap();
    trainer.fit(Dataset::new(x.view(), y.view()), None, &mut ()).unwrap();
    assert_eq!(trainer.steps(), 200);
    let mut sha = Sha256::new();
    trainer.model().mlp.parameters().iter().for_each(|p| sha.update(p.to_f64().to_bits().to_le_bytes()));
    for record in &trainer.history().records {
        for number in [record.loss, record.gradient_norm, record.learning_rate] {
            assert!(number.is_finite());
            sha.update(number.to_bits().to_le_bytes());
        }
    }
    sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Each loss, each optimiser, clipping, SAM, weight decay and schedules.
fn digests<F: Scalar>() -> Vec<(&'static str, String)> {
    let (_, labels) = digits::<F>(640);
    let real = labels.mapv(|label| F::from_f64(label as f64 / 9.0));
    let odd = labels.mapv(|label| F::from_f64((label % 2) as f64));
    let eta = LearningRate::constant;
    let plain = || Training { learning_rate: eta(0.05), ..Training::default() };
    let momentum = Optimizer::Momentum { mu: 0.9 };
    let adam = Training { optimizer: Optimizer::adam(), learning_rate: eta(0.002), ..Training::default() };
    vec![
        ("squared error", digest::<F, _>(SquaredError, 1, &real, plain())),
        ("logistic", digest::<F, _>(Logistic, 1, &odd, plain())),
        ("softmax", digest::<F, _>(SoftmaxCrossEntropy, 10, &labels, plain())),
        ("weight decay", digest::<F, _>(SoftmaxCrossEntropy, 10, &labels, Training { weight_decay: 0.01, ..plain() })),
        (
            "cosine",
            digest::<F, _>(
                SoftmaxCrossEntropy,
                10,
                &labels,
                Training { learning_rate: LearningRate::cosine(0.1, 0.001), ..plain() },
            ),
        ),
        ("clipping", digest::<F, _>(SoftmaxCrossEntropy, 10, &labels, Training { clip_norm: Some(0.5), ..plain() })),
        ("SAM", digest::<F, _>(SoftmaxCrossEntropy, 10, &labels, Training { sam: Some(0.05), ..plain() })),
        (
            "momentum",
            digest::<F, _>(
                SquaredError,
                1,
                &real,
                Training { optimizer: momentum, learning_rate: eta(0.01), ..plain() },
            ),
        ),
        (
            "Nesterov",
            digest::<F, _>(
                Logistic,
                1,
                &odd,
                Training { optimizer: Optimizer::Nesterov { mu: 0.9 }, learning_rate: eta(0.01), ..plain() },
            ),
        ),
        ("Adam", digest::<F, _>(SoftmaxCrossEntropy, 10, &labels, adam)),
        (
            "AdamW, clipped, SAM",
            digest::<F, _>(
                SoftmaxCrossEntropy,
                10,
                &labels,
                Training { weight_decay: 0.01, clip_norm: Some(1.0), sam: Some(0.02), ..adam },
            ),
        ),
    ]
}

fn are<F: Scalar>(expected: &[&str]) {
    let found = digests::<F>();
    let printed: Vec<String> = found.iter().map(|(name, digest)| format!("        \"{digest}\", // {name}")).collect();
    let same = found.iter().map(|(_, digest)| digest).eq(expected.iter());
    assert!(same, "found\n{}", printed.join("\n"));
}

#[test]
fn digests_of_runs_in_single_precision() {
    are::<f32>(&SINGLE);
}

#[test]
fn digests_of_runs_in_double_precision() {
    are::<f64>(&DOUBLE);
}

const SINGLE: [&str; 0] = [];
const DOUBLE: [&str; 0] = [];

/// A row alone, in batches of each size from 1 to 70, and in one of 1,000.
fn a_row_has_one_output<F: Scalar>() {
    let (x, _) = digits::<F>(1000);
    let mlp = Mlp::<F>::he(&[64, 45, 129, 10], Bias::EveryLayer, 2).unwrap();
    let mlp = mlp.with_products(Products::Native).unwrap();
    let all = mlp.predict(x.view()).unwrap();
    for samples in 1..=70 {
        let first = 7 * samples;
        let rows = mlp.predict(x.slice(s![first..first + samples, ..])).unwrap();
        assert!(rows == all.slice(s![first..first + samples, ..]), "{samples} rows");
    }
    for row in [0, 499, 999] {
        let alone = mlp.predict(x.slice(s![row..=row, ..])).unwrap();
        assert!(alone == all.select(Axis(0), &[row]), "row {row}");
    }
}

#[test]
fn a_row_has_the_same_output_alone_and_in_any_batch() {
    a_row_has_one_output::<f32>();
    a_row_has_one_output::<f64>();
}

/// Widths and batches at and beside the sizes of vectors, panels and tiles; two epochs with a
/// smaller last batch.
fn threads_do_not_matter<F: Scalar>(widths: &[usize], batch: usize, samples: usize) {
    let x =
        Array2::from_shape_fn((samples, widths[0]), |(i, j)| F::from_f64(((i * 31 + j * 17) % 97) as f64 / 48.5 - 0.9));
    let y = Array2::from_shape_fn((samples, widths[widths.len() - 1]), |(i, k)| {
        F::from_f64(((i * 7 + k) % 13) as f64 / 13.0)
    });
    let run = |threads| {
        set_threads(Some(threads));
        let mut mlp = Mlp::<F>::he(widths, Bias::EveryLayer, 1).unwrap().with_products(Products::Native).unwrap();
        let losses = Sgd::new(batch, 1e-3, 3).unwrap().train(&mut mlp, x.view(), y.view(), &SquaredError, 2).unwrap();
        set_threads(None);
        (losses, mlp.parameters().clone())
    };
    let one = run(1);
    for threads in [2, 3] {
        assert!(run(threads) == one, "{widths:?}, batches of {batch}, {threads} threads");
    }
}

#[test]
fn runs_have_the_same_bits_with_any_number_of_threads() {
    for (widths, batch, samples) in [
        (&[16, 16, 16, 1][..], 32, 100),
        (&[45, 46, 45, 10], 45, 100),
        (&[129, 300, 257, 1], 129, 200),
        (&[64, 256, 256, 1], 64, 150),
        (&[300, 300, 20], 1, 3),
        (&[600, 600, 2], 8, 20),
        (&[5, 40, 7, 3], 3000, 5000),
    ] {
        threads_do_not_matter::<f32>(widths, batch, samples);
        threads_do_not_matter::<f64>(widths, batch, samples);
    }
}
