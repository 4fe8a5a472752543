//! Reporting for the benches: figures, the page over the figures, the facts of the machine,
//! progress, results as files, and the statistics of the experiments.

// The program draws with it too, and a published crate cannot depend on this one.
#[path = "../../../src/bin/gemmprop/plot/mod.rs"]
pub mod plot;
pub mod statistics;

#[cfg(feature = "run")]
pub mod machine;
#[cfg(feature = "run")]
pub mod page;
#[cfg(feature = "run")]
pub mod progress;
#[cfg(feature = "run")]
pub mod results;

/// The repository's folder.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
