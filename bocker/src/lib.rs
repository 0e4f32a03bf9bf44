//! `bocker` itself does nothing: each subcommand is a plan of the tools beside it,
//! which is carried out or printed as shell.

pub mod cli;
pub mod commands;
mod cp;
pub mod execute;
pub mod flags;
mod life;
pub mod net;
pub mod plan;
mod run;
pub mod shell;
mod sys;
mod terminal;
pub mod values;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

/// An error of `bocker`'s own: one line and an exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    line: String,
    status: u8,
}

impl Failure {
    /// Status 1.
    pub fn new(line: impl Into<String>) -> Self {
        Self { line: line.into(), status: 1 }
    }

    /// Status 2: the words make no sense.
    pub fn usage(line: impl Into<String>) -> Self {
        Self { line: line.into(), status: 2 }
    }

    /// The same with another status.
    #[must_use]
    pub fn status(self, status: u8) -> Self {
        Self { status, ..self }
    }

    /// Prints the line on stderr.
    pub fn say(&self) {
        let printable: String = self
            .line
            .chars()
            .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
            .collect();
        let _ = writeln!(std::io::stderr(), "bocker: {printable}");
    }
}

/// Runs `bocker` with these words (the program's name first).
pub fn main(words: impl Iterator<Item = OsString>) -> ExitCode {
    match run(words.collect()) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            failure.say();
            ExitCode::from(failure.status)
        }
    }
}

fn run(words: Vec<OsString>) -> Result<u8, Failure> {
    let (words, env) = cli::leading_options(words);
    let cli = match cli::Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &words),
    };
    let command = cli.command.unwrap_or(cli::Command::Help);
    let own_failure = command.runs_a_command().then_some(125);
    let setting = |name: &str| {
        let option = env.iter().rev().find(|(option, _)| option == name).map(|(_, value)| value.clone());
        option.or_else(|| std::env::var_os(name)).filter(|value| !value.is_empty())
    };
    let own = |failure: Failure| match own_failure {
        Some(status) => failure.status(status),
        None => failure,
    };
    let mut plan = commands::plan(command, &setting).map_err(own)?;
    plan.env = env;
    let tools = tools_directory().map_err(own)?;
    if cli.how.dry_run {
        return print(&shell::script(&plan, &tools)).map_err(own);
    }
    execute::execute(&plan, &tools, cli.how.trace)
}

/// The directory of this very program: the tools that it starts are the ones it was installed with.
fn tools_directory() -> Result<PathBuf, Failure> {
    let me = std::env::current_exe().map_err(|e| Failure::new(format!("/proc/self/exe: {}", execute::reason(&e))))?;
    me.parent().map(PathBuf::from).ok_or_else(|| Failure::new("/proc/self/exe: no directory"))
}

fn print(text: &str) -> Result<u8, Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("write stdout: {}", execute::reason(&e))))
        }
        _ => Ok(0),
    }
}

/// Help and version go to stdout; a mistake is one line on stderr with 2, or 125 where a command was to be run.
fn usage(error: &clap::Error, words: &[OsString]) -> Result<u8, Failure> {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return print(&error.render().to_string());
    }
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    // A list of what is missing follows on lines of its own.
    let missing: Vec<_> = text.lines().skip(1).take_while(|l| !l.is_empty()).map(str::trim).collect();
    let line = [line, missing.join(" ")].join(" ").trim_end().to_owned();
    let runs = words.iter().skip(1).find(|w| !w.to_string_lossy().starts_with('-'));
    let status = if runs.is_some_and(|w| w == "run" || w == "create" || w == "exec") { 125 } else { 2 };
    Err(Failure::usage(format!("{line} (see bocker --help)")).status(status))
}
