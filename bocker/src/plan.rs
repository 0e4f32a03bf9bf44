//! A command is a value: what a subcommand does, in few forms. [`crate::execute`]
//! carries a plan out and [`crate::shell`] prints it; there is no third description.

use std::ffi::OsString;

/// A variable of a plan, as `id` in `id=$(…)`.
pub type Var = &'static str;

/// One word of a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// These bytes.
    Text(OsString),
    /// A tool of ours as a command for the link before it: found beside `bocker`, not through PATH.
    Tool(&'static str),
    /// A captured line.
    Var(Var),
    /// A captured line with something after it, as `$dir/rootfs`.
    VarWith(Var, &'static str),
}

impl From<&str> for Word {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Word {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<OsString> for Word {
    fn from(text: OsString) -> Self {
        Self::Text(text)
    }
}

/// A tool and its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// `bocker-store`, …
    pub name: &'static str,
    /// The words after the name.
    pub words: Vec<Word>,
}

impl Tool {
    /// The tool with these words.
    pub fn new(name: &'static str, words: impl IntoIterator<Item = impl Into<Word>>) -> Self {
        Self { name, words: words.into_iter().map(Into::into).collect() }
    }

    /// Adds words.
    #[must_use]
    pub fn and(mut self, words: impl IntoIterator<Item = impl Into<Word>>) -> Self {
        self.words.extend(words.into_iter().map(Into::into));
        self
    }

    /// `self … -- next …`: a link of a chain that execs the next.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        self.and(["--"]).and([Word::Tool(next.name)]).and(next.words)
    }
}

/// One form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Run the tool.
    Run(Tool),
    /// Keep the one line that the tool, or the last of a pipe, prints.
    Capture(Var, Vec<Tool>),
    /// Start the tools, do the steps, wait for the tools.
    Together(Vec<Tool>, Vec<Self>),
    /// However the plan ends from here on: run these, at the same time.
    OnExit(Vec<Tool>),
    /// Print a line on stdout.
    Say(Vec<Word>),
    /// Run the tool; its status is the plan's. The last step.
    Hand(Tool),
}

/// What a subcommand does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// Environment for every tool, from the leading `--NAME=value` options.
    pub env: Vec<(String, OsString)>,
    /// The status when a step before the last fails; none: as the tool's.
    pub failure: Option<u8>,
}
