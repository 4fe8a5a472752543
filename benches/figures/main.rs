//! Measures what the README claims and draws it: `cargo bench`, or with fewer points `cargo bench -- --quick`.
//!
//! Each figure is a module that measures, and describes its figure as data; `plot` draws any of them, `page` shows them all.
//! Everything goes to `target/figures/`, as SVG, PNG and CSV.

// A program, and its output is its purpose.
#![allow(clippy::print_stdout)]

mod bare;
mod complexity;
mod fit;
mod font;
mod hessian;
mod learning;
mod machine;
mod mnist;
mod page;
mod peers;
mod plot;
mod progress;
mod rungs;
mod step;
mod training;

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde::Serialize;

use page::Entry;

/// What `cargo bench` passes to every bench. Other flags are criterion's, and then the figures are not asked for.
#[derive(Parser)]
struct Arguments {
    /// Fewer points, for a look in a minute
    #[arg(long)]
    quick: bool,
    /// Passed by `cargo bench`; without it nothing is measured
    #[arg(long, hide = true)]
    bench: bool,
    /// A folder with MNIST's files in IDX format, for the figure of that name
    #[arg(long)]
    mnist: Option<PathBuf>,
    /// Only figures whose name contains this: digits, wine, complexity, step, training; or peers, which is only drawn by this name
    filter: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            eprintln!("figures: skipped, since it knows only --quick and a filter");
            return Ok(());
        }
        Err(help) => help.exit(),
    };
    if !arguments.bench {
        return Ok(());
    }
    let quick = arguments.quick;
    let asked_for = |name: &str| arguments.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()));
    let directory = directory();
    std::fs::create_dir_all(&directory)?;
    let facts = machine::facts();
    let mut entries = Vec::new();

    if asked_for("digits") {
        let digits = learning::digits();
        write_csv(&directory, "digits", &digits)?;
        entries.push(Entry {
            figure: learning::digits_figure(&digits, &facts),
            tables: vec![learning::digits_table(&digits)],
        });
    }
    if asked_for("wine") {
        let (wine, baseline) = learning::wine();
        write_csv(&directory, "wine", &wine)?;
        entries.push(Entry { figure: learning::wine_figure(&wine, baseline, &facts), tables: vec![] });
    }
    if asked_for("complexity") {
        let plan = if quick { complexity::QUICK } else { complexity::FULL };
        let points = complexity::measure(&plan);
        write_csv(&directory, "complexity", &points)?;
        let speedups = complexity::speedups(&points);
        write_csv(&directory, "speedup", &speedups)?;
        entries.push(Entry {
            figure: complexity::figure(&plan, &points, &facts),
            tables: vec![complexity::table(&points, &speedups)],
        });
        entries.push(Entry { figure: complexity::speedup_figure(&speedups, &facts), tables: vec![] });
    }
    if asked_for("step") {
        let rows = step::measure(quick);
        write_csv(&directory, "step", &rows)?;
        write_csv(&directory, "gflops", &rows)?;
        entries.push(Entry { figure: step::ratio_figure(&rows, &facts), tables: vec![step::table(&rows)] });
        entries.push(Entry { figure: step::gflops_figure(&rows, &facts), tables: vec![] });
    }
    if asked_for("training") {
        let rows = training::measure(quick);
        write_csv(&directory, "training", &rows)?;
        let products = hessian::measure(quick);
        write_csv(&directory, "hessian", &products)?;
        let tables = vec![training::table(&rows), hessian::table(&products)];
        entries.push(Entry { figure: training::figure(&rows, &facts), tables });
    }
    // Needs a folder that not everybody has.
    if let Some(folder) = arguments.mnist.as_deref().filter(|_| arguments.filter.as_deref() == Some("mnist")) {
        let rows = mnist::measure(folder, &directory.with_file_name("peers"), quick)?;
        write_csv(&directory, "mnist", &rows)?;
        entries.push(Entry { figure: mnist::figure(&rows, &facts), tables: vec![mnist::table(&rows)] });
    }
    // Needs what `ci/peers` has built.
    if arguments.filter.as_deref() == Some("peers") {
        let measured = peers::measure(&directory.with_file_name("peers"), quick)?;
        write_csv(&directory, "peers", &measured.rows)?;
        entries.push(Entry { figure: measured.figure(&facts), tables: vec![measured.table()] });
    }
    if entries.is_empty() {
        return Ok(());
    }
    for entry in &entries {
        entry.figure.save(&directory)?;
    }
    // A run of some figures leaves the page over all of them as it is.
    let name = arguments.filter.as_deref().unwrap_or("index");
    let page = directory.join(name).with_extension("html");
    page::write(&page, &entries, &facts)?;
    let tables: String = entries.iter().flat_map(|entry| &entry.tables).map(|table| format!("{table}\n")).collect();
    let summary = format!("{facts}\n{tables}");
    // Also kept, so that `ci/bench` can show it after criterion's output.
    std::fs::write(directory.join("summary.txt"), &summary)?;
    println!("\n{summary}{}", page.display());
    Ok(())
}

/// `figures` in the directory that cargo builds into; a relative one is taken from the package's root.
fn directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Path::new(env!("CARGO_MANIFEST_DIR")).join(target).join("figures")
}

fn write_csv(directory: &Path, name: &str, rows: &[impl Serialize]) -> Result<(), csv::Error> {
    let mut writer = csv::Writer::from_path(directory.join(name).with_extension("csv"))?;
    rows.iter().try_for_each(|row| writer.serialize(row))?;
    writer.flush()?;
    Ok(())
}
