//! What the program writes: lines for people on stderr, results as JSON on stdout.

use std::error::Error;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

static QUIET: AtomicBool = AtomicBool::new(false);

/// From now on, only errors and warnings are written to stderr.
pub(crate) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Writes an error or a warning to stderr, which may be closed.
pub(crate) fn warn(line: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "{}", line.as_ref());
}

/// Writes a line to stderr, unless the program is to be quiet.
pub(crate) fn say(line: impl AsRef<str>) {
    if !is_quiet() {
        warn(line);
    }
}

/// Standard output. That a reader has closed the pipe because it has read enough is no error: what
/// follows is dropped.
pub(crate) fn stdout() -> impl Write {
    io::BufWriter::new(UntilClosed(io::stdout().lock()))
}

struct UntilClosed<W>(W);

impl<W: Write> Write for UntilClosed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.flush() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            flushed => flushed,
        }
    }
}

/// Writes to [`stdout`].
pub(crate) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result {
    let mut stdout = stdout();
    Ok(write(&mut stdout).and_then(|()| stdout.flush())?)
}

/// Writes a line of JSON to stdout.
pub(crate) fn print_json(value: &impl Serialize) -> Result {
    let line = serde_json::to_string(value)?;
    print(|stdout| writeln!(stdout, "{line}"))
}

/// The error and its causes in one line, without the causes that the error states itself.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}

/// A number with its noun, such as "1 sample" or "2 samples".
pub(crate) fn counted(number: usize, thing: &str) -> String {
    let plural = if thing.ends_with('s') { "es" } else { "s" };
    format!("{number} {thing}{}", if number == 1 { "" } else { plural })
}

/// Names in quotes, with commas between them.
pub(crate) fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

/// A loss for a progress line: four decimals, with an exponent where they would otherwise be zeros.
pub(crate) fn short(loss: f64) -> String {
    let plain = loss == 0.0 || !loss.is_finite() || (1e-3..1e9).contains(&loss.abs());
    if plain { format!("{loss:.4}") } else { format!("{loss:.4e}") }
}
