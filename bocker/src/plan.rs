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
    /// An option whose value is the number of the process that carries the plan out.
    Me(&'static str),
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

/// A pipe whose last line of output may be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Where the one line that the pipe prints is kept; none: its output is ours.
    pub var: Option<Var>,
    /// Each reads what the one before it prints.
    pub pipe: Vec<Tool>,
}

impl Job {
    /// Run the tool.
    pub fn run(tool: Tool) -> Self {
        Self { var: None, pipe: vec![tool] }
    }

    /// Keep the line that the tool prints.
    pub fn capture(var: Var, tool: Tool) -> Self {
        Self { var: Some(var), pipe: vec![tool] }
    }
}

/// One form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Do the jobs, at the same time: none needs another of them.
    Do(Vec<Job>),
    /// However the plan ends from here on: one group after the other, run those tools whose variable has got its value.
    /// At the same time within a group. What fails has said so.
    OnExit(Vec<Vec<(Var, Tool)>>),
    /// Print a line on stdout.
    Say(Vec<Word>),
    /// Run the tool; its status is the plan's. The last step.
    Hand(Tool),
}

impl Step {
    /// Run the tool.
    pub fn run(tool: Tool) -> Self {
        Self::Do(vec![Job::run(tool)])
    }

    /// Run the pipe.
    pub fn pipe(pipe: Vec<Tool>) -> Self {
        Self::Do(vec![Job { var: None, pipe }])
    }

    /// Keep the line that the pipe prints.
    pub fn capture(var: Var, pipe: Vec<Tool>) -> Self {
        Self::Do(vec![Job { var: Some(var), pipe }])
    }
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
