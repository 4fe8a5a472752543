//! The page over all figures.

use std::path::Path;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::plot::Figure;

/// A table that is shown at the end of a run, and on the page.
#[derive(Debug)]
pub struct Table {
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    fn markup(&self) -> Markup {
        html! {
            div.table { table {
                thead { tr { @for cell in &self.header { th { (cell) } } } }
                tbody { @for row in &self.rows { tr { @for cell in row { td { (cell) } } } } }
            } }
        }
    }
}

/// The table as text for a terminal.
impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED).set_header(&self.header).add_rows(&self.rows);
        write!(f, "{table}")
    }
}

/// A figure on the page, with the tables under it.
#[derive(Debug)]
pub struct Entry {
    pub figure: Figure,
    pub tables: Vec<Table>,
}

const STYLE: &str = "
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #222; background: #f6f6f4; margin: 0; }
main { max-width: 1100px; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.9rem; margin: 0 0 .3rem; }
section { background: #fff; border: 1px solid #e0e0dc; border-radius: 10px; padding: 1.4rem; margin-top: 1.6rem; }
svg { display: block; width: 100%; height: auto; }
.table { overflow-x: auto; margin-top: 1rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid #e6e6e2; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
p.caption { color: #555; font-size: .88rem; }
a { color: #0072b2; }
nav a { margin-right: 1rem; }
";

/// Writes a page beside the figures that were saved there. Needs no other file: each SVG is part of
/// it, with its title, its caption, and the description for those who do not see it.
pub fn write(page: &Path, entries: &[Entry], facts: &str) -> std::io::Result<()> {
    let mut sections = Vec::new();
    for Entry { figure, tables } in entries {
        let svg = std::fs::read_to_string(page.with_file_name(figure.name).with_extension("svg"))?;
        sections.push(html! {
            section #(figure.name) {
                (PreEscaped(svg))
                @for table in tables { (table.markup()) }
                p { "Data and images: "
                    @for extension in ["csv", "svg", "png"] {
                        a href={ (figure.name) "." (extension) } { (figure.name) "." (extension) } " "
                    }
                }
            }
        });
    }
    let text = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "gemmprop: figures" }
                style { (PreEscaped(STYLE)) }
            }
            body { main {
                h1 { "gemmprop: figures" }
                p.caption { (facts) }
                nav { @for entry in entries { a href={ "#" (entry.figure.name) } { (entry.figure.name) } } }
                @for section in sections { (section) }
            } }
        }
    };
    std::fs::write(page, text.into_string())
}
