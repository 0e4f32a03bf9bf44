//! What a tool's `doctor` prints: lines `ok|warn|bad`, WHAT and DETAIL, parted by tabs.

use std::fmt::Display;
use std::io::Write;

use crate::diag::{Error, Result, printable};

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Ok,
    /// Something goes without.
    Warn,
    /// Something does not work.
    Bad,
}

/// The lines, in the order in which they were found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings(Vec<(State, String, String)>);

impl Findings {
    /// All is well with it.
    pub fn ok(&mut self, what: impl Display, detail: impl Display) {
        self.add(State::Ok, what, detail);
    }

    /// It works without; the detail has the way out.
    pub fn warn(&mut self, what: impl Display, detail: impl Display) {
        self.add(State::Warn, what, detail);
    }

    /// It does not work without; the detail has the way out.
    pub fn bad(&mut self, what: impl Display, detail: impl Display) {
        self.add(State::Bad, what, detail);
    }

    /// Any of them.
    pub fn add(&mut self, state: State, what: impl Display, detail: impl Display) {
        self.0.push((state, what.to_string(), detail.to_string()));
    }

    /// The lines.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let word = |state| match state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Bad => "bad",
        };
        self.0
            .iter()
            .map(move |(state, what, detail)| format!("{}\t{}\t{}", word(*state), printable(what), printable(detail)))
    }

    /// Prints them on stdout.
    ///
    /// # Errors
    /// Something is bad, which has been said; stdout cannot be written to.
    pub fn print(&self) -> Result<()> {
        let text: String = self.lines().map(|line| line + "\n").collect();
        std::io::stdout().write_all(text.as_bytes()).map_err(|e| Error::stdout(&e))?;
        let is_bad = self.0.iter().any(|(state, ..)| *state == State::Bad);
        if is_bad { Err(Error::explained_elsewhere()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_words_a_line() {
        let mut findings = Findings::default();
        findings.ok("a", "b");
        findings.warn("c\td", "e\nf");
        findings.bad("g", 1);
        assert_eq!(findings.lines().collect::<Vec<_>>(), ["ok\ta\tb", "warn\tc\\td\te\\nf", "bad\tg\t1"]);
    }
}
