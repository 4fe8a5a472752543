//! The machine and the versions that were measured: the facts under each figure.

use std::process::Command;

use sysinfo::{CpuRefreshKind, RefreshKind, System};

/// Facts, as sentences of one caption: `blas` names the library that is linked and its kernels,
/// `kernels` the native ones.
pub fn facts(blas: &str, kernels: &str) -> String {
    let system = System::new_with_specifics(RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()));
    let cpu = system.cpus().first().map_or("", |cpu| cpu.brand().trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{} ({}), {cores} {}. {blas}. Native kernels: {kernels}. Threads: rayon {}, BLAS 1. {}. gemmprop {} at commit {}. {}.",
        if cpu.is_empty() { "CPU of unknown name" } else { cpu },
        std::env::consts::ARCH,
        if cores == 1 { "core" } else { "cores" },
        rayon::current_num_threads(),
        output("rustc", &["--version"]).unwrap_or_else(|| "rustc of unknown version".to_owned()),
        env!("CARGO_PKG_VERSION"),
        commit(),
        jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
    )
}

/// The files that are compiled into what is measured.
const MEASURED: [&str; 6] = ["src", "benches", "examples", "build.rs", "Cargo.toml", "Cargo.lock"];

/// The short name of the commit, marked if what is measured has uncommitted changes.
pub fn commit() -> String {
    match output("git", &["rev-parse", "--short", "HEAD"]) {
        Some(commit) => match output("git", &[&["status", "--porcelain", "--"], &MEASURED[..]].concat()).as_deref() {
            Some("") => commit,
            _ => format!("{commit}-dirty"),
        },
        None => "unknown".to_owned(),
    }
}

/// The output of a command, or nothing if it cannot be run.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir(crate::ROOT).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
