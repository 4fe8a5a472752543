//! Linking works for a user: a second crate, outside this tree, that depends on this one by path,
//! trains, and prints what comes out.

use std::path::Path;
use std::process::Command;

const MAIN: &str = r#"
use gemmprop::{Bias, Dataset, Mlp, Model, Sgd, SquaredError};
use ndarray::{Array1, Array2};

fn main() -> Result<(), gemmprop::Error> {
    let x = Array2::from_shape_fn((64, 3), |(i, j)| ((i * (j + 2)) % 9) as f64 / 4.0 - 1.0);
    let y = Array1::from_shape_fn(64, |i| 1.0 + x[(i, 0)] - 2.0 * x[(i, 1)] + 0.5 * x[(i, 2)]);
    let mut mlp = Mlp::<f64>::he(&[3, 1], Bias::None, 1)?;
    let losses = Sgd::new(8, 0.1, 1)?.train(&mut mlp, x.view(), y.view(), &SquaredError, 300)?;
    assert!(losses[299] < losses[0]);
    let theta: Vec<String> = mlp.parameters().iter().map(|p| format!("{p:.6}")).collect();
    println!("theta {}", theta.join(" "));
    let model = Model::from(mlp);
    let residuals = model.predict_one(x.view())? - &y;
    let loss = model.evaluate(Dataset::new(x.view(), y.view()), &SquaredError)?;
    assert!((residuals.dot(&residuals) / 128.0 - loss).abs() < 1e-12);
    println!("by {}", gemmprop::blas_description());
    Ok(())
}
"#;

#[test]
fn a_second_crate_links_and_trains() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Outside the package's tree, so that no workspace or lint setting of its reaches in.
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    std::fs::create_dir(path("src")).unwrap();
    std::fs::write(path("src/main.rs"), MAIN).unwrap();
    let manifest = format!(
        "[package]\nname = \"user\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\ngemmprop = {{ path = {package:?} }}\nndarray = \"0.17\"\n"
    );
    std::fs::write(path("Cargo.toml"), manifest).unwrap();
    // The versions that are on this machine already.
    std::fs::copy(package.join("Cargo.lock"), path("Cargo.lock")).unwrap();
    let this = std::env::current_exe().unwrap();
    let target = this.ancestors().nth(3).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet"])
        .current_dir(place.path())
        // It has some of the dependencies compiled already.
        .env("CARGO_TARGET_DIR", target)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    // The line that the data lie on, and the bias b.
    assert!(out.contains("theta 1.000000 -2.000000 0.500000 1.000000"), "{out}");
    assert!(out.contains("OpenBLAS"), "{out}");
}
