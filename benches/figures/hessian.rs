//! A product of the Hessian with a direction, compared with a gradient step over the same samples.

use std::time::Instant;

use gemmprop::{Bias, Dataset, Mlp, Sgd, SoftmaxCrossEntropy, curvature::Hessian};
use ndarray::{Array1, Array2};
use rayon::ThreadPoolBuilder;
use serde::{Deserialize, Serialize};

use crate::step::{ENGINES, median};
use report::page::Table;
use report::progress::Progress;

/// A shape with a number of threads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// `blas` or `native`.
    engine: String,
    widths: String,
    samples: usize,
    threads: usize,
    /// `Sgd::step` over all samples: the gradient with its update.
    gradient_seconds: f64,
    product_seconds: f64,
    /// The median over the rounds of one divided by the other.
    ratio: f64,
    /// Multiplications of one divided by those of the other.
    predicted: f64,
}

const SHAPES: [(&[usize], usize); 2] = [(&[64, 64, 64, 10], 1437), (&[784, 512, 512, 10], 2000)];

pub(crate) fn measure(quick: bool) -> Vec<Row> {
    let rounds = if quick { 3 } else { 7 };
    let progress = Progress::new("hessian", SHAPES.len() * ENGINES.len() * 2);
    let mut rows = Vec::new();
    for (widths, samples) in SHAPES {
        let name = widths.iter().map(usize::to_string).collect::<Vec<_>>().join("-");
        let x = Array2::from_shape_fn((samples, widths[0]), |(i, j)| ((i * 31 + j * 17) % 97) as f32 / 48.5 - 1.0);
        let labels = Array1::from_shape_fn(samples, |i| i % 10);
        let product = |t: usize| (widths[t] * widths[t + 1]) as f64;
        let edges: f64 = (0..widths.len() - 1).map(product).sum();
        for (engine, products, threads) in
            ENGINES.iter().flat_map(|&(engine, products)| [1, 2].map(|n| (engine, products, n)))
        {
            progress.begin(format!("{name}, {engine}, {threads} threads"));
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let mlp = Mlp::<f32>::he(widths, Bias::EveryLayer, 1).and_then(|mlp| mlp.with_products(products));
            let mlp = mlp.expect("valid widths, and a BLAS");
            let (mut stepped, mut sgd) = (mlp.clone(), Sgd::new(samples, 1e-9, 1).expect("valid"));
            let mut hessian =
                Hessian::new(&mlp, Dataset::new(x.view(), labels.view()), &SoftmaxCrossEntropy).expect("fits");
            let (v, mut hv) = (hessian.gradient().clone(), mlp.zero_gradient());
            let mut seconds = [Vec::new(), Vec::new()];
            pool.install(|| {
                for _ in 0..=rounds {
                    let start = Instant::now();
                    sgd.step(&mut stepped, x.view(), labels.view(), &SoftmaxCrossEntropy).expect("a finite loss");
                    seconds[0].push(start.elapsed().as_secs_f64());
                    let start = Instant::now();
                    hessian.apply(&v, &mut hv).expect("fits");
                    seconds[1].push(start.elapsed().as_secs_f64());
                }
            });
            // The first of each fills the caches.
            let [gradient, hessian] = seconds.map(|seconds| seconds[1..].to_vec());
            rows.push(Row {
                engine: engine.to_owned(),
                widths: name.clone(),
                samples,
                threads,
                ratio: median(hessian.iter().zip(&gradient).map(|(h, g)| h / g).collect()),
                gradient_seconds: median(gradient),
                product_seconds: median(hessian),
                predicted: (6.0 * edges - 4.0 * product(0)) / (3.0 * edges - product(0)),
            });
            progress.end();
        }
    }
    rows
}

pub(crate) fn table(rows: &[Row]) -> Table {
    let header =
        ["engine", "widths", "samples", "threads", "gradient step", "Hessian product", "ratio", "by multiplications"];
    let rows = rows.iter().map(|row| {
        vec![
            row.engine.clone(),
            row.widths.clone(),
            row.samples.to_string(),
            row.threads.to_string(),
            format!("{:.2} ms", row.gradient_seconds * 1e3),
            format!("{:.2} ms", row.product_seconds * 1e3),
            format!("{:.2}", row.ratio),
            format!("{:.2}", row.predicted),
        ]
    });
    Table { header: header.map(str::to_owned).to_vec(), rows: rows.collect() }
}
