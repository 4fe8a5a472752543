//! The bare BLAS calls of a training step in several libraries, each in a process of its own, which
//! take turns as the peers do: what an engine over such calls is bounded by. `bare` makes the same
//! calls in our own process, of the BLAS that is linked there.

use std::path::Path;
use std::process::Command;

use report::page::Table;

use crate::peers::{Measured, Peers, Result, Row, plan, time};

/// What the loader finds, and what stands before the names of its functions.
const LIBRARIES: [(&str, &str, &str); 3] = [
    ("the system's OpenBLAS", "libopenblas.so", ""),
    ("a newer OpenBLAS", "libscipy_openblas.so", "scipy_"),
    ("BLIS", "libblis.so", ""),
];

/// Times the calls with one thread, and with as many as there are cores.
pub(crate) fn measure(programs: &Path, quick: bool) -> Result<Measured> {
    let (shapes, rounds) = plan(quick);
    let about = format!("The bare BLAS calls of a step, with nothing between them; medians of {rounds} rounds.");
    let mut measured = Measured { rows: Vec::new(), about, left_out: Vec::new() };
    let mut counts = vec![1, std::thread::available_parallelism()?.get()];
    counts.dedup();
    for threads in counts {
        let mut peers = Peers::new(threads);
        for (name, library, prefix) in LIBRARIES {
            let mut command = Command::new(programs.join("c/blas"));
            // `ci/peers` links to the library there that the loader would not find.
            command.env("LD_LIBRARY_PATH", programs.join("c")).args([library, prefix]);
            peers.start_with_blas(name, &mut command)?;
        }
        let rows = peers.compare(shapes, rounds)?;
        measured.rows.extend(rows.into_iter().map(|row| Row { peer: with_number(&row.version), ..row }));
        measured.left_out.append(&mut peers.left_out);
    }
    Ok(measured)
}

/// A library's name and number, with which its version begins.
fn with_number(version: &str) -> String {
    version.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A column for each library and number of threads.
pub(crate) fn table(rows: &[Row]) -> Table {
    let columns = distinct(rows.iter().map(|row| (&row.peer, row.threads)));
    let shapes = distinct(rows.iter().map(|row| (&row.widths, row.batch)));
    let cell = |column, shape| {
        let row = rows.iter().find(|row| (&row.peer, row.threads) == column && (&row.widths, row.batch) == shape);
        row.map_or("missing".to_owned(), |row| time(row.step_seconds))
    };
    let lines = shapes.iter().map(|&shape| {
        let cells = columns.iter().map(|&column| cell(column, shape));
        [shape.0.clone(), shape.1.to_string()].into_iter().chain(cells).collect()
    });
    let header = columns.iter().map(|(peer, threads)| format!("{peer}, bare calls, threads: {threads}"));
    Table {
        header: ["widths".to_owned(), "batch".to_owned()].into_iter().chain(header).collect(),
        rows: lines.collect(),
    }
}

/// Each once, in the order in which they first occur.
fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    all.fold(Vec::new(), |mut found, next| {
        if !found.contains(&next) {
            found.push(next);
        }
        found
    })
}
