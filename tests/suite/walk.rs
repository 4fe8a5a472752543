//! `docs/backprop.html` is what `examples/walk` writes, to the byte, on every CPU. What the page
//! makes of it, `ci/walk` tests.
//!
//! The program is built by `cargo test --features progress` (`ci/test` does that), before the tests
//! run; for this file alone: `cargo build --example walk` first. After a change,
//! `cargo run --example walk` writes the page anew.

// As for `program`: the runs without `progress` build no examples.
#![cfg(all(feature = "files", feature = "progress"))]

use std::path::Path;
use std::process::Command;

#[test]
#[cfg_attr(not(repository), ignore = "the package is without docs/")]
fn the_page_is_what_the_example_writes() {
    let mut program = std::env::current_exe().unwrap();
    program.pop();
    program.pop();
    program.extend(["examples".to_owned(), format!("walk{}", std::env::consts::EXE_SUFFIX)]);
    assert!(program.exists(), "{} is not built", program.display());
    let folder = tempfile::tempdir().unwrap();
    let written = folder.path().join("page.html");
    let output = Command::new(program).arg(&written).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let written = std::fs::read_to_string(written).unwrap();
    assert!(written.len() < 500_000, "{} bytes", written.len());
    assert_eq!(external(&written), None, "a page that needs nothing but itself");
    let kept = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/backprop.html")).unwrap();
    // Not the pages themselves: a message of a megabyte helps nobody.
    let differs = written.lines().zip(kept.lines()).position(|(written, kept)| written != kept);
    assert!(written == kept, "docs/backprop.html is older, from line {differs:?} on: cargo run --example walk");
}

/// What a page would fetch, if it does.
fn external(page: &str) -> Option<&str> {
    ["http://", "https://", "src=", "href=", "url(", "@import", "fetch("].into_iter().find(|call| page.contains(call))
}
