//! Does SGD find flat minima, and do they generalise better? Each claim is measured, with controls: `ci/experiments`.
//!
//! Each experiment is a module that trains, measures, and describes its figure as data; the drawing is that of the other figures.
//! Everything goes to `target/experiments/`, as CSV, SVG and PNG, with a page over it.

// A program, and its output is its purpose.
#![allow(clippy::print_stdout)]

mod batch;
mod edge;
mod generalisation;
mod invariance;
mod keskar;
mod picture;
mod run;
mod statistics;

#[path = "../figures/font.rs"]
mod font;
#[path = "../figures/machine.rs"]
mod machine;
#[path = "../figures/page.rs"]
mod page;
#[allow(dead_code, reason = "not all that the other figures are drawn with is used here")]
#[path = "../figures/plot.rs"]
mod plot;
#[path = "../figures/progress.rs"]
mod progress;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use serde::Serialize;

use page::Entry;

/// What `cargo bench` passes to every bench. Other flags are criterion's, and then the experiments are not asked for.
#[derive(Parser)]
struct Arguments {
    /// Fewer and shorter runs, for a look in two minutes; the numbers mean little
    #[arg(long)]
    quick: bool,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
    /// A folder with MNIST's files in IDX format, for Keskar's table
    #[arg(long)]
    mnist: Option<PathBuf>,
    /// Makes the experiments: a plain `cargo bench` leaves them out
    #[arg(long, hide = true)]
    run: bool,
    /// Only experiments whose name contains this: edge_of_stability, batch_size, generalisation, invariance, keskar, picture
    filter: Option<String>,
}

/// What an experiment is told.
struct Context {
    quick: bool,
    mnist: Option<PathBuf>,
    directory: PathBuf,
    facts: String,
    start: Instant,
}

type Outcome = Result<Vec<Entry>, Box<dyn Error>>;

impl Context {
    fn csv(&self, name: &str, rows: &[impl Serialize]) -> Result<(), csv::Error> {
        let mut writer = csv::Writer::from_path(self.directory.join(name).with_extension("csv"))?;
        rows.iter().try_for_each(|row| writer.serialize(row))?;
        writer.flush()?;
        Ok(())
    }

    /// The end of a caption: how long the experiment ran, and on what.
    fn facts(&self) -> String {
        let quick = if self.quick { " A quick look: the numbers mean little." } else { "" };
        format!("Ran for {} s.{quick} {}", self.start.elapsed().as_secs(), self.facts)
    }
}

type Experiment = (&'static str, fn(&Context) -> Outcome);

const EXPERIMENTS: [Experiment; 6] = [
    ("edge_of_stability", edge::experiment),
    ("batch_size", batch::experiment),
    ("generalisation", generalisation::experiment),
    ("invariance", invariance::experiment),
    ("keskar", keskar::experiment),
    ("picture", picture::experiment),
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) if arguments.run => arguments,
        Err(error) if !error.use_stderr() => error.exit(),
        _ => return Ok(()),
    };
    // The runs go side by side, each on one thread; the bits are the same for any number.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global()?;
    let directory = directory();
    std::fs::create_dir_all(&directory)?;
    let (facts, start) = (machine::facts(), Instant::now());
    let Arguments { quick, mnist, filter, .. } = arguments;
    let mut context = Context { quick, mnist, directory, facts, start };
    let mut entries = Vec::new();
    for (name, experiment) in EXPERIMENTS {
        if filter.as_ref().is_none_or(|filter| name.contains(filter.as_str())) {
            context.start = Instant::now();
            entries.extend(experiment(&context)?);
        }
    }
    if entries.is_empty() {
        return Err("no experiment has such a name".into());
    }
    for entry in &entries {
        entry.figure.save(&context.directory)?;
    }
    // A run of some experiments leaves the page over all of them as it is.
    let page = context.directory.join(filter.as_deref().unwrap_or("index")).with_extension("html");
    page::write(&page, &entries, &context.facts)?;
    let tables: String = entries.iter().flat_map(|entry| &entry.tables).map(|table| format!("{table}\n")).collect();
    let summary = format!("{}\nAll of it ran for {} s.\n{tables}", context.facts, start.elapsed().as_secs());
    std::fs::write(context.directory.join("summary.txt"), &summary)?;
    println!("\n{summary}{}", page.display());
    Ok(())
}

/// `experiments` in the directory that cargo builds into; a relative one is taken from the package's root.
fn directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Path::new(env!("CARGO_MANIFEST_DIR")).join(target).join("experiments")
}
