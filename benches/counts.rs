//! Makes training steps on the native engine with one thread, for `ci/counts` to count their
//! instructions: `counts WIDTHS BATCH EPOCHS`, where an epoch has eight steps and the widths are
//! given as in 64-64-64-1.

use gemmprop::{Bias, Mlp, Products, Sgd, SquaredError, set_threads};
use ndarray::Array2;

const BATCHES: usize = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [widths, batch, epochs] = &arguments[..] else { return Err("counts WIDTHS BATCH EPOCHS".into()) };
    let widths = widths.split('-').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let (batch, epochs): (usize, usize) = (batch.parse()?, epochs.parse()?);
    set_threads(Some(1));
    let numbers = |columns: usize| {
        Array2::from_shape_fn((BATCHES * batch, columns), |(i, j)| ((i * 31 + j * 17) % 97) as f32 / 48.5 - 1.0)
    };
    let (x, y) = (numbers(widths[0]), numbers(widths[widths.len() - 1]));
    let mut mlp = Mlp::<f32>::he(&widths, Bias::Input, 1)?.with_products(Products::Native)?;
    // So small a learning rate that the work stays the same.
    Sgd::new(batch, 1e-9, 1)?.train(&mut mlp, x.view(), y.view(), &SquaredError, epochs)?;
    Ok(())
}
