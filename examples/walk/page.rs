//! The page: a template with a style and a script, in one file, and the trace inside it.

const PAGE: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");
/// One script, in which each part uses those before it.
const SCRIPT: [&str; 9] = [
    include_str!("page/state.js"),
    include_str!("page/numbers.js"),
    include_str!("page/net.js"),
    include_str!("page/plane.js"),
    include_str!("page/matrices.js"),
    include_str!("page/loops.js"),
    include_str!("page/chain.js"),
    include_str!("page/words.js"),
    include_str!("page/player.js"),
];

/// The page that plays this trace, which is JSON.
pub(crate) fn with(trace: &str) -> String {
    // In a script element, only this would end it.
    let trace = trace.replace("</", "<\\/");
    let (before, rest) = halves(PAGE, "{style}");
    let (between, rest) = halves(rest, "{trace}");
    let (last, after) = halves(rest, "{script}");
    [before, STYLE, between, &trace, last, &SCRIPT.join("\n"), after].concat()
}

fn halves<'a>(text: &'a str, mark: &str) -> (&'a str, &'a str) {
    text.split_once(mark).unwrap_or_else(|| panic!("page/index.html has {mark}"))
}
