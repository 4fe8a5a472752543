//! Writes `docs/backprop.html`, the page that walks through backpropagation: two small networks are
//! trained, and what the crate computes in chosen training steps is put into the page, which plays
//! it.
//!
//! ```text
//! cargo run --release --example walk                 # docs/backprop.html
//! cargo run --release --example walk -- page.html
//! ```
//!
//! The networks are trained by the native engine, so the page is the same to the byte on every CPU.

mod counts;
mod page;
mod problem;
mod trace;

use std::error::Error;
use std::path::PathBuf;

use gemmprop::{Logistic, SquaredError};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("docs/backprop.html"), PathBuf::from);
    let traces = [trace::record(&problem::xor(), &SquaredError)?, trace::record(&problem::spirals(), &Logistic)?];
    let page = page::with(&serde_json::to_string(&traces)?);
    std::fs::write(&path, &page).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("{}: {} bytes", path.display(), page.len());
    Ok(())
}
