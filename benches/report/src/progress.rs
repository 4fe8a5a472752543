//! Progress: a bar on a terminal, a line for each step elsewhere.

use indicatif::{ProgressBar, ProgressStyle};

#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    pub fn new(name: &str, steps: usize) -> Self {
        let bar = ProgressBar::new(steps as u64);
        let style = "{prefix:>12} {bar:30} {pos}/{len} {elapsed:>4}  {msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("a valid template"));
        bar.set_prefix(name.to_owned());
        Self(bar)
    }

    /// Reports that a step begins.
    pub fn begin(&self, what: String) {
        if self.0.is_hidden() {
            let length = self.0.length().unwrap_or(0);
            eprintln!("{:>12} {}/{length}  {what}", self.0.prefix(), self.0.position() + 1);
        }
        self.0.set_message(what);
        self.0.tick();
    }

    /// Reports that the step has ended.
    pub fn end(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_with_message("");
    }
}
