//! Limits of containers: what the script did by `cgcreate`, `cgset`, `cgexec` and `cgdelete`.
//!
//! A container's cgroup is `/ID` in each hierarchy that counts or limits: cpu, cpuacct and
//! memory on version 1, the one tree on version 2. A cgroup is a directory, a limit a file in
//! it: everything here can be read with `ls` and `cat`.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use bocker_common::diag::OWN_FAILURE;
use bocker_common::entry::{self, Uninterrupted};
use bocker_common::id::{BUSY, end_lines};
use bocker_common::say::{self, Explain};
use bocker_common::{Error, Id, Ids, Result};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

mod act;
mod chain;
mod group;
mod layout;
mod limits;

use act::Act;
use layout::Layout;
use limits::Limit;

/// Control groups of containers, versions 1 and 2
#[derive(Debug, Parser)]
#[command(name = "bocker-cg", version, disable_help_subcommand = true, after_help = limits::HELP)]
struct Cli {
    /// Where the hierarchies are mounted
    #[arg(long, global = true, value_name = "DIR", default_value = "/sys/fs/cgroup")]
    root: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a cgroup /ID in each hierarchy, with limits
    Create {
        /// As ps_42045
        id: Id,
        /// Limits, as cpu.shares=512 memory=512M
        #[arg(value_name = "KEY=VALUE")]
        limits: Vec<Limit>,
        #[command(flatten)]
        explain: Explain,
    },
    /// Join the cgroup everywhere and become the command
    Exec(Exec),
    /// Remove it everywhere; already gone is no error
    Delete {
        /// The cgroup; or -: those whose ids are on stdin, one a line. Then the names of what is gone are printed
        #[arg(value_name = "ID|-")]
        ids: Ids,
        /// Kill what is in it first. A container that has ended can have left processes, where bocker-exec was killed by force
        #[arg(long)]
        kill: bool,
        #[command(flatten)]
        explain: Explain,
    },
    /// Print the ids that have a cgroup
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// Say `busy` after those that a process is in, and `failed` where not all can be told
        #[arg(long)]
        busy: bool,
    },
    /// Print one limit as the kernel has it
    Get {
        /// The cgroup
        id: Id,
        /// As for create
        key: limits::Key,
    },
}

#[derive(Debug, Args)]
struct Exec {
    /// The cgroup
    id: Id,
    #[command(flatten)]
    explain: Explain,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The whole tool.
///
/// # Errors
/// One line for stderr, with its exit status.
pub fn main() -> Result<ExitCode> {
    let cli: Cli = entry::parse(|words| runs_a_command(words).then_some(OWN_FAILURE))?;
    match (cli.verb, Layout::find(&cli.root)) {
        (Verb::Exec(exec), layout) => {
            let layout = layout.map_err(|error| error.status(OWN_FAILURE))?;
            chain::exec(&layout, exec.id, &exec.command, exec.explain)
        }
        (Verb::List { json, busy: true }, layout) => end_lines(layout.and_then(|layout| list(&layout, json, true))),
        (Verb::Delete { ids, kill, explain }, layout) => delete(layout, ids, kill, explain),
        (_, Err(error)) => Err(error),
        (Verb::Create { id, limits, explain }, Ok(layout)) => create(&layout, id, &limits, explain),
        (Verb::List { json, busy: false }, Ok(layout)) => list(&layout, json, false),
        (Verb::Get { id, key }, Ok(layout)) => print(&[limits::get(&layout, id, key)?]),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// The verb is the first word that is no option; `--root` takes the word after it.
fn runs_a_command(words: &[OsString]) -> bool {
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--root") => drop(words.next()),
            Some(option) if option.starts_with('-') => {}
            verb => return verb == Some("exec"),
        }
    }
    false
}

/// All or nothing; prints the cgroup's name.
fn create(layout: &Layout, id: Id, limits: &[Limit], explain: Explain) -> Result<()> {
    let plan = group::plan_create(layout, id, limits)?;
    say::perform_whole(&plan, explain, |act| act.apply(layout, id), Act::undo)
}

/// As much as can be removed, whatever fails on the way.
fn delete(layout: Result<Layout>, ids: Ids, kill: bool, explain: Explain) -> Result<()> {
    // First: what is wrong here may be what the tool before us has said.
    let all = ids.all()?;
    let layout = &layout?;
    let _whole = Uninterrupted::begin();
    let (mut failures, mut gone) = (Vec::new(), Vec::new());
    for id in all {
        let before = failures.len();
        let plan = group::plan_delete(layout, id, kill)?;
        for act in &plan {
            say::tell(act, explain)?;
            if !explain.dry_run {
                failures.extend(act.apply(layout, id).err().map(|e| e.to_string()));
            }
        }
        if ids == Ids::Stdin && !plan.is_empty() && failures.len() == before && !explain.dry_run {
            gone.push(format!("/{id}"));
        }
    }
    print(&gone)?;
    if failures.is_empty() { Ok(()) } else { Err(Error::plain(failures.join("; "))) }
}

fn list(layout: &Layout, json: bool, busy: bool) -> Result<()> {
    #[derive(Serialize)]
    struct Entry {
        id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        busy: Option<bool>,
    }
    let ids = group::all(layout)?;
    let line = |id: &Id| {
        let entry =
            Entry { id: id.to_string(), busy: if busy { Some(group::is_inhabited(layout, *id)?) } else { None } };
        if json {
            serde_json::to_string(&entry).map_err(|e| Error::new("write", "JSON", e.to_string()))
        } else {
            Ok(if entry.busy == Some(true) { format!("{id}\t{BUSY}") } else { entry.id })
        }
    };
    print(&ids.iter().map(line).collect::<Result<Vec<_>>>()?)
}

/// Lines on stdout. A reader that has gone away is no error.
fn print(lines: &[String]) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = lines.iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
    match written {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::new("write", "stdout", e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn only_exec_runs_a_command() {
        let runs = |words: &[&str]| runs_a_command(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(runs(&["bocker-cg", "exec"]));
        assert!(runs(&["bocker-cg", "--root", "/x", "exec", "ps_42045"]));
        assert!(!runs(&["bocker-cg", "--root", "exec", "list"]));
        assert!(!runs(&["bocker-cg", "create", "exec"]));
    }
}
