//! Learns handwritten digits: 1437 to train on, 360 to be tested with, a network 64-64-64-10.
//!
//! ```text
//! cargo run --release --example digits
//! ```

use gemmprop::{Bias, Mlp, Result, Sgd, SoftmaxCrossEntropy};
use ndarray::{Array1, Array2, s};
use smartcore::dataset::digits;

fn main() -> Result<()> {
    let data = digits::load_dataset();
    let x = Array2::from_shape_fn((data.num_samples, data.num_features), |(i, j)| {
        data.data[i * data.num_features + j] / 16.0
    });
    let labels: Array1<usize> = data.target.iter().map(|&label| label as usize).collect();
    let (train, test) = (s![..1437, ..], s![1437.., ..]);
    let (train_labels, test_labels) = (labels.slice(s![..1437]), labels.slice(s![1437..]));

    let mut mlp = Mlp::<f32>::he(&[64, 64, 64, 10], Bias::EveryLayer, 1)?;
    let mut sgd = Sgd::new(32, 0.1, 1)?;
    println!("epoch   training loss   test accuracy");
    for epoch in (10..=60).step_by(10) {
        let history = sgd.train(&mut mlp, x.slice(train), train_labels, &SoftmaxCrossEntropy, 10)?;
        let classes = mlp.classify(x.slice(test))?;
        let right = classes.iter().zip(test_labels).filter(|(class, label)| class == label).count();
        let accuracy = right as f64 / test_labels.len() as f64;
        println!("{epoch:>5}   {:>13.4}   {accuracy:>13.3}", history[9]);
    }
    Ok(())
}
