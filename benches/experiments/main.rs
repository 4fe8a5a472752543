//! Experiments, with controls, on whether SGD finds flat minima and whether they generalise better.
//! `ci/experiments` runs them.
//!
//! Each experiment is a module that trains, measures, and describes its figures as data; the
//! drawing is that of the other figures, from the CSV files that the experiment wrote. Everything
//! goes to `target/experiments/`, as CSV, SVG and PNG, with a page over it. `--draw FOLDER` redraws
//! the figures from the CSV files in a folder.

// Printing is the purpose of this program.
#![allow(clippy::print_stdout)]

mod batch;
mod edge;
mod exact;
mod generalisation;
mod invariance;
mod keskar;
mod picture;
mod run;

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use serde::Serialize;

use report::page::Entry;
use report::results::{Results, directory};
use report::{machine, page};

/// What `cargo bench` passes to every bench. Other flags are criterion's, and with these the
/// experiments do not run.
#[derive(Parser)]
struct Arguments {
    /// Fewer and shorter runs, for a look in two minutes; the numbers mean little
    #[arg(long)]
    quick: bool,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
    /// A folder with MNIST's files in IDX format, for Keskar's table and for generalisation
    #[arg(long)]
    mnist: Option<PathBuf>,
    /// Runs the experiments, which a plain `cargo bench` leaves out
    #[arg(long, hide = true)]
    run: bool,
    /// Redraws the figures from the CSV files in a folder and the facts in its `facts.csv`, without
    /// training
    #[arg(long, value_name = "FOLDER")]
    draw: Option<PathBuf>,
    /// Only experiments whose name contains this: edge_of_stability, batch_size, generalisation,
    /// invariance, keskar, picture
    filter: Option<String>,
}

/// The settings of an experiment, and where its results go.
struct Context {
    quick: bool,
    mnist: Option<PathBuf>,
    results: Results,
    facts: String,
    start: Instant,
}

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

impl Context {
    /// Saves results; `about` adds what their rows do not say.
    fn keep(&mut self, name: &str, rows: &[impl Serialize], about: &str) -> Outcome {
        let quick = if self.quick { " A quick look: the numbers mean little." } else { "" };
        let facts = format!("{about} Ran for {} s.{quick} {}", self.start.elapsed().as_secs(), self.facts);
        self.results.keep(name, rows, &facts)
    }
}

/// An experiment: the function that runs it, the names of its results, and the function that draws
/// one.
type Experiment =
    (&'static str, fn(&mut Context) -> Outcome, &'static [&'static str], fn(&Results, &str) -> Outcome<Entry>);

const EXPERIMENTS: [Experiment; 6] = [
    ("edge_of_stability", edge::experiment, &["edge_of_stability", "edge_of_stability_course"], edge::entry),
    ("batch_size", batch::experiment, &["batch_size", "controls"], batch::entry),
    ("generalisation", generalisation::experiment, &["generalisation", "verdicts", "sam"], generalisation::entry),
    ("invariance", invariance::experiment, &["invariance"], invariance::entry),
    ("keskar", keskar::experiment, &["keskar"], keskar::entry),
    ("picture", picture::experiment, &["interpolation", "landscape"], picture::entry),
];

fn main() -> Outcome {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) if arguments.run || arguments.draw.is_some() => arguments,
        Err(error) if !error.use_stderr() => error.exit(),
        _ => return Ok(()),
    };
    // Cargo runs a bench in its package's folder, and paths are given from the repository's.
    std::env::set_current_dir(report::ROOT)?;
    let Arguments { quick, mnist, draw, filter, .. } = arguments;
    let asked_for = |name: &str| filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()));
    if let Some(folder) = draw {
        let results = Results::open(&folder)?;
        for (_, _, names, entry) in EXPERIMENTS {
            for name in results.measured(names).into_iter().filter(|name| asked_for(name)) {
                entry(&results, name)?.figure.save(&folder)?;
            }
        }
        return Ok(());
    }
    // The runs go side by side, each on one thread; the bits are the same for any number.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global()?;
    let (facts, start) = (machine::facts(gemmprop::blas_description(), gemmprop::native_kernels()), Instant::now());
    let mut context = Context { quick, mnist, results: Results::open(&directory("experiments"))?, facts, start };
    let mut entries = Vec::new();
    for (name, experiment, names, entry) in EXPERIMENTS {
        if asked_for(name) {
            context.start = Instant::now();
            experiment(&mut context)?;
            for name in names {
                entries.push(entry(&context.results, name)?);
            }
        }
    }
    if entries.is_empty() {
        return Err("no experiment has such a name".into());
    }
    let directory = context.results.directory();
    for entry in &entries {
        entry.figure.save(directory)?;
    }
    // A run of some experiments leaves the page over all of them as it is.
    let page = directory.join(filter.as_deref().unwrap_or("index")).with_extension("html");
    page::write(&page, &entries, &context.facts)?;
    let tables: String = entries.iter().flat_map(|entry| &entry.tables).map(|table| format!("{table}\n")).collect();
    let summary = format!("{}\nAll of it ran for {} s.\n{tables}", context.facts, start.elapsed().as_secs());
    std::fs::write(directory.join("summary.txt"), &summary)?;
    println!("\n{summary}{}", page.display());
    Ok(())
}
