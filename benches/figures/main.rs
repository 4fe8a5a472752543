//! Measures what the README claims and draws it: `cargo bench`, or with fewer points
//! `cargo bench -- --quick`.
//!
//! Each figure is a module that measures, and describes its figure as data; `results` keeps what
//! was measured as CSV, `plot` draws any figure from that, `page` shows them all. Everything goes
//! to `target/figures/`, as SVG, PNG and CSV. `--draw FOLDER` redraws the figures from the CSV
//! files in a folder, without measuring.

// Printing is the purpose of this program.
#![allow(clippy::print_stdout)]

mod bare;
mod bare_blas;
mod bounds;
mod complexity;
mod cores;
mod fit;
mod hessian;
mod learning;
mod mnist;
mod peers;
mod scale;
mod step;
mod training;

/// What the tests compare with.
#[path = "../../tests/suite/common/exact.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod exact;

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;

use report::page::Entry;
use report::results::{Results, directory};
use report::{machine, page};

/// What `cargo bench` passes to every bench. Other flags are criterion's, and with these the
/// figures are not drawn.
#[derive(Parser)]
struct Arguments {
    /// Measures fewer points, for a first look within a minute
    #[arg(long)]
    quick: bool,
    /// Passed by `cargo bench`; without it nothing is measured
    #[arg(long, hide = true)]
    bench: bool,
    /// A folder with MNIST's files in IDX format, for the figure of that name
    #[arg(long)]
    mnist: Option<PathBuf>,
    /// Redraws the figures from the CSV files in a folder and the facts in its `facts.csv`, without
    /// measuring
    #[arg(long, value_name = "FOLDER")]
    draw: Option<PathBuf>,
    /// Checks what `peers` runs of gemmprop itself, and draws nothing
    #[arg(long)]
    check_our_peers: bool,
    /// Only figures whose name contains this: digits, wine, complexity, bounds, step, training; or
    /// cores, peers or scale, which are only drawn by these names
    filter: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            eprintln!("figures: skipped, since it knows only --quick, --draw and a filter");
            return Ok(());
        }
        Err(help) => help.exit(),
    };
    if !arguments.bench {
        return Ok(());
    }
    // Cargo runs a bench in its package's folder, and paths are given from the repository's.
    std::env::set_current_dir(report::ROOT)?;
    let filter = arguments.filter.as_deref();
    if let Some(folder) = &arguments.draw {
        let results = Results::open(folder)?;
        let asked_for = |name: &&str| filter.is_none_or(|filter| name.contains(filter));
        return results.measured(&RESULTS).into_iter().filter(asked_for).try_for_each(|name| draw(&results, name));
    }
    if arguments.check_our_peers {
        return peers::check_ours(&directory("peers"));
    }
    let facts = machine::facts(gemmprop::blas_description(), gemmprop::native_kernels());
    let mut results = Results::open(&directory("figures"))?;
    let (measured, left_out) = measure(&mut results, &arguments, &facts)?;
    if measured.is_empty() {
        return Ok(());
    }
    let mut all = Vec::new();
    for name in measured {
        all.extend(entries(&results, name)?);
    }
    // A run of some figures leaves the page over all of them as it is.
    let page = results.directory().join(filter.unwrap_or("index")).with_extension("html");
    page::write(&page, &all, &facts)?;
    let tables: String = all.iter().flat_map(|entry| &entry.tables).map(|table| format!("{table}\n")).collect();
    let summary = format!("{facts}\n{tables}");
    // Also kept, so that `ci/bench` can show it after criterion's output.
    std::fs::write(results.directory().join("summary.txt"), &summary)?;
    println!("\n{summary}{}", page.display());
    left_out.iter().for_each(|peer| eprintln!("left out: {peer}"));
    Ok(())
}

/// The names of the results, and the peers that could not be measured.
type Measured = (Vec<&'static str>, Vec<String>);

/// Measures what is asked for. Each part is drawn as soon as it is measured, the README's figure
/// first.
fn measure(results: &mut Results, arguments: &Arguments, facts: &str) -> Result<Measured, Box<dyn Error>> {
    let (quick, filter) = (arguments.quick, arguments.filter.as_deref());
    let asked_for = |name: &str| filter.is_none_or(|filter| name.contains(filter));
    let (mut measured, mut left_out, mut start) = (Vec::new(), Vec::new(), Instant::now());
    let mut done = |results: &Results, names: &[&'static str]| {
        names.iter().try_for_each(|name| draw(results, name))?;
        measured.extend(names);
        eprintln!("figures: {} took {:.0} s", names.join(" and "), start.elapsed().as_secs_f64());
        start = Instant::now();
        Ok::<(), Box<dyn Error>>(())
    };
    if asked_for("complexity") {
        let plan = if quick { complexity::QUICK } else { complexity::FULL };
        let points = complexity::measure(&plan);
        results.keep("complexity", &points, &format!("{} {facts}", complexity::about(&plan)))?;
        results.keep("speedup", &complexity::speedups(&points), facts)?;
        done(results, &["complexity", "speedup"])?;
    }
    if asked_for("digits") {
        results.keep("digits", &learning::digits(), facts)?;
        done(results, &["digits"])?;
    }
    if asked_for("wine") {
        results.keep("wine", &learning::wine(), facts)?;
        done(results, &["wine"])?;
    }
    if asked_for("bounds") {
        results.keep("bounds", &bounds::measure(quick), facts)?;
        done(results, &["bounds"])?;
    }
    if asked_for("step") {
        for (set, rows) in step::measure(quick) {
            let name = if set == step::Set::Table { "step" } else { "gflops" };
            results.keep(name, &rows, facts)?;
        }
        done(results, &["step", "gflops"])?;
    }
    // Minutes for a figure that few ask for.
    if filter == Some("cores") {
        results.keep("cores", &cores::measure(quick), facts)?;
        done(results, &["cores"])?;
    }
    if asked_for("training") {
        results.keep("hessian", &hessian::measure(quick), facts)?;
        done(results, &["hessian"])?;
        results.keep("training", &training::measure(quick), facts)?;
        done(results, &["training"])?;
    }
    // Measured only if the folder with MNIST is given.
    if let Some(folder) = arguments.mnist.as_deref().filter(|_| filter == Some("mnist")) {
        let rows = mnist::measure(folder, &directory("peers"), quick)?;
        results.keep("mnist", &rows, facts)?;
        done(results, &["mnist"])?;
    }
    // `ci/cluster --measure` has measured.
    if filter == Some("scale") {
        let rows: Vec<scale::Row> = Results::open(&directory("scale"))?.read("scale")?;
        results.keep("scale", &rows, facts)?;
        done(results, &["scale"])?;
    }
    // Needs what `ci/peers` has built.
    if filter == Some("peers") {
        let peers::Measured { rows, about, left_out: missing } = peers::measure(&directory("peers"), quick)?;
        results.keep("peers", &rows, &format!("{about} {facts}"))?;
        let bare = bare_blas::measure(&directory("peers"), quick)?;
        results.keep("bare_blas", &bare.rows, &format!("{} {facts}", bare.about))?;
        done(results, &["peers"])?;
        left_out = [missing, bare.left_out].concat();
    }
    Ok((measured, left_out))
}

/// Draws the figures of some results beside them.
fn draw(results: &Results, name: &str) -> Result<(), Box<dyn Error>> {
    entries(results, name)?.iter().try_for_each(|entry| entry.figure.save(results.directory()))
}

/// All that can be drawn.
const RESULTS: [&str; 12] = [
    "digits",
    "wine",
    "complexity",
    "speedup",
    "bounds",
    "step",
    "gflops",
    "cores",
    "training",
    "mnist",
    "peers",
    "scale",
];

/// The figures of some results, with their tables.
fn entries(results: &Results, name: &str) -> Result<Vec<Entry>, Box<dyn Error>> {
    let facts = results.facts(name);
    let entry = |figure, tables| vec![Entry { figure, tables }];
    Ok(match name {
        "digits" => {
            let rows = results.read(name)?;
            entry(learning::digits_figure(&rows, facts), vec![learning::digits_table(&rows)])
        }
        "wine" => entry(learning::wine_figure(&results.read(name)?, facts), vec![]),
        "complexity" => {
            let points = results.read(name)?;
            let speedups = complexity::speedups(&points);
            entry(complexity::figure(&points, facts), vec![complexity::table(&points, &speedups)])
        }
        "speedup" => entry(complexity::speedup_figure(&results.read(name)?, facts), vec![]),
        "bounds" => {
            let rows = results.read(name)?;
            entry(bounds::figure(&rows, facts), vec![bounds::table(&rows)])
        }
        "step" => {
            let rows = results.read(name)?;
            entry(step::share_figure(&rows, facts), vec![step::table(&rows)])
        }
        "cores" => {
            let rows = results.read(name)?;
            entry(cores::figure(&rows, facts), vec![cores::table(&rows)])
        }
        "gflops" => entry(step::gflops_figure(&results.read(name)?, facts), vec![]),
        "training" => {
            let rows = results.read(name)?;
            let mut tables = vec![training::table(&rows)];
            if !results.measured(&["hessian"]).is_empty() {
                tables.push(hessian::table(&results.read("hessian")?));
            }
            entry(training::figure(&rows, facts), tables)
        }
        "mnist" => {
            let rows = results.read(name)?;
            entry(mnist::figure(&rows, facts), vec![mnist::table(&rows)])
        }
        "peers" => {
            let rows = results.read(name)?;
            let mut tables = vec![peers::table(&rows)];
            if !results.measured(&["bare_blas"]).is_empty() {
                tables.push(bare_blas::table(&results.read("bare_blas")?));
            }
            entry(peers::figure(&rows, facts), tables)
        }
        "scale" => {
            let rows: Vec<scale::Row> = results.read(name)?;
            entry(scale::figure(&rows, facts), vec![scale::table(&rows), scale::predictions(&rows)])
        }
        _ => vec![],
    })
}
