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
    /// The last part of a captured path, as `${dir##*/}`: a container's directory has its id as name.
    Last(Var),
    /// A captured line with something on both sides, as `bocker-$id.service`.
    Between(&'static str, Var, &'static str),
    /// One word of several, as `network=container:$net`.
    Joined(Vec<Self>),
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
    /// `bocker-store`, …; or a program of the host's: `tar`, `systemctl`.
    pub name: &'static str,
    /// The words after the name.
    pub words: Vec<Word>,
    /// Its stdin is /dev/null, whatever ours is.
    pub no_stdin: bool,
    /// What a descriptor of its has to read: these words, each with a NUL after it. Not on the command line, which all users can read.
    pub told: Option<(i32, Vec<OsString>)>,
}

impl Tool {
    /// The tool with these words.
    pub fn new(name: &'static str, words: impl IntoIterator<Item = impl Into<Word>>) -> Self {
        Self { name, words: words.into_iter().map(Into::into).collect(), no_stdin: false, told: None }
    }

    /// Adds words.
    #[must_use]
    pub fn and(mut self, words: impl IntoIterator<Item = impl Into<Word>>) -> Self {
        self.words.extend(words.into_iter().map(Into::into));
        self
    }

    /// Whether a word of it is our own number.
    pub(crate) fn names_us(&self) -> bool {
        self.words.iter().any(|word| matches!(word, Word::Me(_)))
    }

    /// `self … -- next …`: a link of a chain that execs the next.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        let told = next.told;
        Self { told, ..self.and(["--"]).and([Word::Tool(next.name)]).and(next.words) }
    }

    /// With something to read there, if there is something.
    #[must_use]
    pub fn told(self, descriptor: i32, words: Vec<OsString>) -> Self {
        Self { told: (!words.is_empty()).then_some((descriptor, words)), ..self }
    }

    /// With our stdin, or with /dev/null.
    #[must_use]
    pub fn stdin(self, ours: bool) -> Self {
        Self { no_stdin: !ours, ..self }
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

/// What a choice depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The job succeeds. Where it fails it has said why.
    Done(Job),
    /// The job succeeds; it says nothing, and its failure is an answer.
    Quietly(Job),
    /// Something has one of these paths; the parts of each are joined.
    There(Vec<Vec<Word>>),
}

/// One form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Do the jobs, at the same time: none needs another of them.
    Do(Vec<Job>),
    /// However the plan ends from here on: one group after the other, run those tools whose variable has got its value.
    /// At the same time within a group. What fails has said so.
    OnExit(Vec<Vec<(Var, Tool)>>),
    /// What [`Step::OnExit`] named before stays, however the plan ends from here on.
    Keep,
    /// Give the variable this value.
    Let(Var, Word),
    /// Print a line on stdout.
    Say(Vec<Word>),
    /// Make a file of this path (its parts are joined) and content, mode 0644. One that is there already: as a failed tool.
    Write(Vec<Word>, Vec<Word>),
    /// The first steps if it is so, else the second.
    If(Condition, Vec<Step>, Vec<Step>),
    /// Run each, one after the other, whatever becomes of those before it. If one has failed: end, as after a failed tool.
    Each(Vec<Tool>),
    /// Print a line of ours on stderr and end, as after a failed tool.
    Fail(String),
    /// End, as after a failed tool, which has said why.
    Stop,
    /// Run the tool; where it fails its status is the plan's: it is that of a command which could not be started.
    Begin(Tool),
    /// Run the tool; its status is the plan's. The last step.
    Hand(Tool),
    /// Become the tool, `execve(2)`: nothing is left to do after it, and nothing to take down. The last step.
    Become(Tool),
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

    /// Whether it leaves something to be done at the end.
    fn takes_down(&self) -> bool {
        match self {
            Self::OnExit(_) => true,
            Self::If(_, yes, no) => yes.iter().chain(no).any(Self::takes_down),
            _ => false,
        }
    }
}

/// The steps; where the last one only runs a tool, nobody has to wait for it. One that names us is to be our child.
#[must_use]
pub fn becoming(mut steps: Vec<Step>) -> Vec<Step> {
    let waits = steps.iter().any(Step::takes_down);
    let alone = |job: &Job| job.var.is_none() && matches!(&job.pipe[..], [tool] if !tool.names_us());
    let tool = match steps.last_mut() {
        Some(Step::Do(jobs)) if !waits && matches!(&jobs[..], [job] if alone(job)) => {
            jobs.pop().and_then(|mut job| job.pipe.pop())
        }
        _ => return steps,
    };
    steps.pop();
    steps.extend(tool.map(Step::Become));
    steps
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
