//! `docs/trust.md` names the tests that keep the promises: each promise stands in the text it is
//! quoted from, and each test is one.

use std::fs;
use std::path::Path;

/// The text on one line: without the marks of comments, and with single blanks.
fn on_one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim_start);
    let lines = lines.map(|line| line.strip_prefix("//!").or(line.strip_prefix("///")).unwrap_or(line));
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

/// The text of Markdown without its links, whose targets in Rust's documentation are no files.
fn without_links(text: &str) -> String {
    let mut parts = text.split("](");
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| part.split_once(')').map_or(part, |(_, behind)| behind));
    (first + &rest.collect::<String>()).replace(['[', ']'], "")
}

/// Whether a file in Rust has a test of this name.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    lines.iter().enumerate().filter(|(_, line)| line.starts_with(&format!("fn {name}("))).any(|(i, _)| {
        let above = lines[..i].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        above.into_iter().any(|line| *line == "#[test]")
    })
}

#[test]
#[cfg_attr(not(repository), ignore = "the package is without docs/")]
fn each_promise_stands_where_it_is_quoted_from_and_each_test_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let page = read("docs/trust.md");
    let (mut source, mut wrong, mut promises) = (String::new(), Vec::new(), 0);
    for line in page.lines() {
        if let Some(path) = line.strip_prefix("## From `").and_then(|line| line.strip_suffix('`')) {
            source = without_links(&on_one_line(&read(path)));
        } else if line.starts_with("## ") {
            source.clear();
        }
        let Some(row) = line.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")) else { continue };
        if source.is_empty() || row == "promise | kept by" {
            continue;
        }
        let (promise, kept_by) = row.split_once(" | ").unwrap_or_else(|| panic!("not two columns: {row}"));
        promises += 1;
        if !source.contains(&without_links(promise)) {
            wrong.push(format!("not in its text: {promise}"));
        }
        let tests: Vec<&str> = kept_by.split('`').skip(1).step_by(2).collect();
        if tests.is_empty() {
            wrong.push(format!("without a test: {promise}"));
        }
        for test in tests {
            let fine = match test.split_once("::") {
                Some((path, name)) => has_test(&read(path), name),
                None => root.join(test).exists(),
            };
            if !fine {
                wrong.push(format!("no such test: {test}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(promises > 60, "{promises} promises");
}
