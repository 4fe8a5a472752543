//! Signals that end a run after its current batch, with a checkpoint. A second signal ends it at
//! once.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The number of the signal that was received, or 0.
static RECEIVED: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// A signal that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signal(u8);

/// Installs the handlers. Before this call, a signal ends the program as usual, and nothing is
/// lost.
pub(crate) fn watch() -> io::Result<()> {
    let one_has_come = Arc::new(AtomicBool::new(false));
    for signal in signals() {
        // The actions run in the order of these calls.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&one_has_come))?;
        flag::register(signal, Arc::clone(&one_has_come))?;
        flag::register_usize(signal, Arc::clone(&RECEIVED), signal as usize)?;
    }
    Ok(())
}

pub(crate) fn received() -> Option<Signal> {
    match RECEIVED.load(Ordering::Relaxed) {
        0 => None,
        number => Some(Signal(number as u8)),
    }
}

impl Signal {
    /// The exit code that a shell reports for a program that was ended by this signal.
    pub(crate) fn exit_code(self) -> u8 {
        128 + self.0
    }

    pub(crate) fn name(self) -> &'static str {
        match i32::from(self.0) {
            SIGINT => "Ctrl-C",
            SIGTERM => "SIGTERM",
            _ => "SIGHUP",
        }
    }
}

#[cfg(unix)]
fn signals() -> Vec<i32> {
    use signal_hook::consts::SIGHUP;

    let mut signals = vec![SIGINT, SIGTERM];
    // A SIGHUP that nohup has set to be ignored stays ignored.
    if !ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    signals
}

#[cfg(not(unix))]
fn signals() -> Vec<i32> {
    vec![SIGINT, SIGTERM]
}

/// Whether the parent process has set this signal to be ignored. Only Linux tells without an unsafe
/// call.
#[cfg(unix)]
fn ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
