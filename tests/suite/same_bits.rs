//! With native products, a training run has the same bits on every CPU: SHA-256 of its parameters
//! and of its history are constants. `ci/test` runs these tests with every vector extension that
//! the CPU has, and `ci/aarch64` on another architecture.

use gemmprop::{
    Bias, Dataset, LearningRate, Logistic, Loss, Mlp, Optimizer, Products, Scalar, Sgd, SoftmaxCrossEntropy,
    SquaredError, Trainer, TrainingSettings, set_threads,
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
fn digest<F: Scalar, L: Loss<F>>(loss: L, outputs: usize, y: &Array1<L::Target>, training: TrainingSettings) -> String {
    let (x, _) = digits::<F>(640);
    let mlp = Mlp::<F>::he(&[64, 45, 32, outputs], Bias::EveryLayer, 5).unwrap();
    let mlp = mlp.with_products(Products::Native).unwrap();
    let training = TrainingSettings { epochs: 10, batch: 32, seed: 1, standardize: true, ..training };
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
    let plain = || TrainingSettings { learning_rate: eta(0.05), ..TrainingSettings::default() };
    let momentum = Optimizer::Momentum { mu: 0.9 };
    let adam =
        || TrainingSettings { optimizer: Optimizer::adam(), learning_rate: eta(0.002), ..TrainingSettings::default() };
    vec![
        ("squared error", digest::<F, _>(SquaredError, 1, &real, plain())),
        ("logistic", digest::<F, _>(Logistic, 1, &odd, plain())),
        ("softmax", digest::<F, _>(SoftmaxCrossEntropy, 10, &labels, plain())),
        (
            "weight decay",
            digest::<F, _>(SoftmaxCrossEntropy, 10, &labels, TrainingSettings { weight_decay: 0.01, ..plain() }),
        ),
        (
            "cosine",
            digest::<F, _>(
                SoftmaxCrossEntropy,
                10,
                &labels,
                TrainingSettings { learning_rate: LearningRate::cosine(0.1, 0.001), ..plain() },
            ),
        ),
        (
            "clipping",
            digest::<F, _>(SoftmaxCrossEntropy, 10, &labels, TrainingSettings { clip_norm: Some(0.5), ..plain() }),
        ),
        ("SAM", digest::<F, _>(SoftmaxCrossEntropy, 10, &labels, TrainingSettings { sam: Some(0.05), ..plain() })),
        (
            "momentum",
            digest::<F, _>(
                SquaredError,
                1,
                &real,
                TrainingSettings { optimizer: momentum, learning_rate: eta(0.01), ..plain() },
            ),
        ),
        (
            "Nesterov",
            digest::<F, _>(
                Logistic,
                1,
                &odd,
                TrainingSettings { optimizer: Optimizer::Nesterov { mu: 0.9 }, learning_rate: eta(0.01), ..plain() },
            ),
        ),
        ("Adam", digest::<F, _>(SoftmaxCrossEntropy, 10, &labels, adam())),
        (
            "AdamW, clipped, SAM",
            digest::<F, _>(
                SoftmaxCrossEntropy,
                10,
                &labels,
                TrainingSettings { weight_decay: 0.01, clip_norm: Some(1.0), sam: Some(0.02), ..adam() },
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

/// Printed by the first version.
const SINGLE: [&str; 11] = [
    "392bd54c98c6077a2ac1cfa9b4e71b1c8e2c97b2bc95d459b676d406ddc80ebf", // squared error
    "f8717111a9da4305140e64497a8c8bdf3741a8490056059c9135b8c556a9f225", // logistic
    "d4c0c27c3f40452f9191d0fec1a1ef7d4dff6be66260463f4161a38891f84af5", // softmax
    "2d25efbd65c88b26d4322f53ea21f3d72d4a2fbe94ac5040c8451b062bbbc266", // weight decay
    "2b8998f24be18d2d582cf9c1083b63ada7447adb84f56b2e4599bd9563e25ccb", // cosine
    "f7da908c98d1522b9e28a54ad655dd6438a3285dd28f52a1aec5847559b30348", // clipping
    "397b33e9699d3a0e3e1e301a768b35aa8be1cb33db7adc4392827028788f8e35", // SAM
    "37f6297ef88ed7804d0ea3469d48f66076e0d9881e9ccfec946e3616d553f0fb", // momentum
    "61eef0d1e2e8a47da2ec93ca8581b8dc1274babfc2b13f22ead3bb77a4793c8f", // Nesterov
    "84c3a66f34f97d7f801008bb2f582a51b8283e71905885bdf3c01e3e09d24bd1", // Adam
    "ab858afa0f8289575e171da7fd798f069b7034900988b6fd35d7d085f8e2b443", // AdamW, clipped, SAM
];
const DOUBLE: [&str; 11] = [
    "b2bf7c1905409b7aa1da9d58e12e6cd468f6c387ecaba078fa14bde852af630b", // squared error
    "036f144ab690722f9a8a5f18e0553ef49782faa40c7c9bfa27d1dd9538423177", // logistic
    "14399fd278424cb31b81c7ea4aeb92417ef32c9d951312709f75ce0561745321", // softmax
    "d5c04b12dfff7414892334d55498fbe932fd201a0ecada42be69ebc220370f50", // weight decay
    "08f085843a580e411356acf796c1f866d8173cd9c99c316f41964111c610b57a", // cosine
    "1504a4cbe782290dcd5299c57d2ccc389b32104fc0e5661d7f4205155526d939", // clipping
    "50e4b6bca1bc9bb1f0ea4149e749fec04e9fcf32c985bb83c163d896fce7bbf9", // SAM
    "5f0b22d3e6a61175393fee718c3eb2f6af8fe3901aa61a37a1186afc60c70b7e", // momentum
    "be8f1a757fc28fc2bd01c1043efa76233daefb64bd7e40efef47bc66c88ce7d7", // Nesterov
    "bf0da28b406b1e8c8c1d8b014b5c72d17744a68e8a580f4f11f897e26d601ddf", // Adam
    "ee833f8350a51851c1f46423d9e2a092c955d5a20bdbd7222db5742d24b27d2b", // AdamW, clipped, SAM
];

/// A row alone, in batches of each size from 1 to 70, and in one of 1,001, which is predicted in a
/// block of 501 and one of 500.
fn a_row_has_one_output<F: Scalar>() {
    let (x, _) = digits::<F>(1001);
    let mlp = Mlp::<F>::he(&[64, 45, 129, 10], Bias::EveryLayer, 2).unwrap();
    let mlp = mlp.with_products(Products::Native).unwrap();
    let all = mlp.predict(x.view()).unwrap();
    for samples in 1..=70 {
        let first = 7 * samples;
        let rows = mlp.predict(x.slice(s![first..first + samples, ..])).unwrap();
        assert!(rows == all.slice(s![first..first + samples, ..]), "{samples} rows");
    }
    for row in [0, 500, 501, 1000] {
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
