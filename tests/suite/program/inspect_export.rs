//! The commands `inspect` and `export`.

use std::fs;

use ndarray::Array2;

use super::{FLOWERS, Folder, json, table};
use crate::common::gamma;
use crate::onnx::evaluate;

#[test]
fn a_checkpoint_is_shown_and_exported() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    folder.fine("train --csv flowers.csv --target species --widths 5 --epochs 3 --checkpoint run");
    let text = folder.fine("inspect --checkpoint run").stdout;
    for part in [
        "network 2-5-3, 33 parameters in f32",
        "layer 1: weights 3 x 5, norm ",
        "column \"width\": a number",
        "bias: every_layer; products: ",
        "inputs are standardised\n\ntraining by softmax_cross_entropy: 9 steps\n  batch: 32\n  decay_biases: true\n",
        "3 epochs of 3",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let shown = json(&folder.fine("inspect --checkpoint run --json").stdout);
    let model = folder.model("run");
    for (i, (w, c)) in model.mlp.parameters().layers().enumerate() {
        let norm = |numbers: &mut dyn Iterator<Item = &f32>| numbers.map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        assert_eq!(shown["layers"][i]["weight"], serde_json::json!(w.shape()));
        for (what, norm) in [("weight_norm", norm(&mut w.iter())), ("bias_norm", norm(&mut c.iter()))] {
            assert_eq!(shown["layers"][i][what].as_f64(), Some(norm));
        }
    }
    assert_eq!(shown["run"]["history"].as_array().map(Vec::len), Some(3));

    let run = folder.fine("export --checkpoint run --onnx flowers.onnx");
    assert_eq!(run.stderr, "flowers.onnx: x has 2 columns: \"length\", \"width\"\n");
    let bytes = fs::read(folder.path("flowers.onnx")).unwrap();
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("Softmax") && has("Sub") && has(r#"["aster","lily","rose"]"#));
    folder.refused("export --checkpoint run --onnx none/a.onnx", 1, "none: there is no such folder");
    folder.refused("inspect --checkpoint none", 1, "none");
}

/// Scales before and behind a linear network become its weights and those of the standardiser.
#[test]
fn what_is_exported_predicts_what_the_program_does() {
    let folder = Folder::new();
    // Whole numbers, which f32 has exactly, far from 0 and on different scales.
    let x = Array2::from_shape_fn((40, 2), |(i, j)| [1e5 + (i * i % 17) as f32, 3.0 * (i % 7) as f32][j]);
    let rows = |i: usize| format!("{},{},{}", x[(i, 0)], x[(i, 1)], 5000 + 300 * (i * i % 17) + 77 * (i % 7));
    folder.write("a.csv", table("a,b,y", (0..40).map(rows)));
    folder.fine("train --csv a.csv --target y --loss squared --widths none --epochs 30 --rate 0.05 --checkpoint run");
    folder.fine("export --checkpoint run --onnx a.onnx");
    let (exported, _) = evaluate(&fs::read(folder.path("a.onnx")).unwrap(), x.view());
    let predicted = folder.fine("predict --checkpoint run --csv a.csv").stdout;
    let predicted: Vec<f64> = predicted.lines().skip(1).map(|line| line.parse().unwrap()).collect();
    let (task, model) = (folder.task("run"), folder.model("run"));
    let scale = |what: &str, i: usize| [0, 1].map(|part| task[what][i][part].as_f64().unwrap());
    let ([mean, deviation], theta) = (scale("scale", 0), model.mlp.parameters());
    let alpha = theta.alpha();
    assert!(mean > 5000.0 && deviation > 1000.0);
    for ((x, &exported), predicted) in x.outer_iter().zip(&exported).zip(predicted) {
        // With ŷ = s (Σ α z + b) + m: each z, s α and s b + m is rounded once to f32, and so are n
        // products and sums, in both; what is done in f64 is less than two roundings more.
        let terms = x.iter().zip(alpha.row(0)).enumerate().map(|(i, (&x, &alpha))| {
            let [mean, deviation] = scale("inputs", i);
            (f64::from(alpha) * (f64::from(x) - mean) / deviation).abs()
        });
        let size = deviation * (terms.sum::<f64>() + f64::from(theta.b()[0]).abs()) + mean.abs();
        let bound = gamma(2 * (2 + 1) + 4 + 2, f64::from(f32::EPSILON) / 2.0) * size;
        assert!((exported - predicted).abs() <= bound, "{exported} {predicted} {bound}");
    }
}
