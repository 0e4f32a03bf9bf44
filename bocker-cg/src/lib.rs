//! Limits of containers: what the script did by `cgcreate`, `cgset`, `cgexec` and `cgdelete`.
//!
//! A container's cgroup is `/ID` in each hierarchy that counts or limits: cpu, cpuacct and
//! memory on version 1 (and pids, devices, freezer, blkio where they are), the one tree on version 2. A cgroup is a directory,
//! a limit a file in it: everything here can be read with `ls` and `cat`, but for version 2's rules for devices, which are
//! a program.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use bocker_common::diag::OWN_FAILURE;
use bocker_common::entry::{self, Uninterrupted};
use bocker_common::id::{BUSY, end_lines};
use bocker_common::say::{self, Explain};
use bocker_common::{Error, Ids, Result};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

mod act;
mod chain;
mod devices;
mod doctor;
mod freeze;
mod group;
mod key;
mod layout;
mod limits;
mod name;
mod run;
mod set;
mod show;
mod stat;
mod stats;
mod sys;
mod systemd;
mod top;

use act::Act;
use group::For;
use key::Key;
use layout::Layout;
use limits::{Limit, Limits};
use name::Name;
use stat::Killed;

/// Control groups of containers, versions 1 and 2
#[derive(Debug, Parser)]
#[command(name = "bocker-cg", version, disable_help_subcommand = true, after_help = key::HELP)]
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
        id: Name,
        /// Limits, as cpu.shares=512 memory=512M; without them pids=2048 and devices=default
        #[arg(value_name = "KEY=VALUE")]
        limits: Vec<Limit>,
        /// Limits of this file first, one KEY=VALUE a line
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        #[command(flatten)]
        explain: Explain,
    },
    /// Change limits of a cgroup that is there: all of them, or none
    Set {
        /// The cgroup
        id: Name,
        /// As for create
        #[arg(value_name = "KEY=VALUE", required = true)]
        limits: Vec<Limit>,
        #[command(flatten)]
        explain: Explain,
    },
    /// Stop its processes where they are; returns when the last has stopped
    Freeze {
        /// The cgroup
        id: Name,
        #[command(flatten)]
        explain: Explain,
    },
    /// Let them go on
    Thaw {
        /// The cgroup
        id: Name,
        #[command(flatten)]
        explain: Explain,
    },
    /// Print what containers use at this moment: lines, or a table on a terminal
    Stats {
        /// Cgroups; none: all
        ids: Vec<Name>,
        #[command(flatten)]
        how: stats::How,
    },
    /// Print all figures of a cgroup: what it uses, used at most, may use, waits for, and what befell it
    Stat {
        /// The cgroup
        id: Name,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print PID, PPID, USER, TIME and COMMAND of its processes, as the host sees them
    Top {
        /// The cgroup
        id: Name,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Join the cgroup everywhere and become the command
    Exec(Exec),
    /// Run a command of the host's in a cgroup of its own, which goes with it; exits as the command does
    #[command(override_usage = "bocker-cg run [OPTIONS] [KEY=VALUE]... -- COMMAND...")]
    Run {
        /// Limits, as memory=64M; nothing is limited that is not asked for
        #[arg(value_name = "KEY=VALUE")]
        limits: Vec<Limit>,
        #[command(flatten)]
        explain: Explain,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Remove it everywhere; already gone is no error
    Delete {
        /// The cgroup; or -: those whose ids are on stdin, one a line. Then the names of what is gone are printed
        #[arg(value_name = "ID|-")]
        ids: Which,
        /// Kill what is in it first. A container that has ended can have left processes, where bocker-exec was killed by force
        #[arg(long)]
        kill: bool,
        /// Note in DIR/oom that the kernel killed processes of it for want of memory; else that file goes
        #[arg(long, value_name = "DIR")]
        record: Option<OsString>,
        #[command(flatten)]
        explain: Explain,
    },
    /// Remove cgroups that `run` left because it was killed, with what is in them; prints their names
    Gc {
        #[command(flatten)]
        explain: Explain,
    },
    /// Print the ids that have a cgroup, and the names of those that `run` made
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// Only those of containers; say `busy` after those that a process is in, and `failed` where not all can be told
        #[arg(long)]
        busy: bool,
    },
    /// Print the limits that the kernel has, in the words of `set`: KEY and VALUE, or of one key the value
    Get {
        /// The cgroup
        id: Name,
        /// As for create; none: all
        keys: Vec<Key>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Say what this host has for limits and what it lacks, and the way out: ok, warn or bad, WHAT, DETAIL
    Doctor,
}

#[derive(Debug, Args)]
struct Exec {
    /// A descriptor that the command has as well; it has no other but stdin, stdout and stderr
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    keep_fd: Option<i32>,
    /// The cgroup
    id: Name,
    /// Die when the process with this number does, which is our parent
    #[arg(long, value_name = "PID", hide = true)]
    die_with_parent: Option<i32>,
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
            exec.keep_fd.into_iter().for_each(entry::keep_on_exec);
            chain::exec(&layout, exec.id, &exec.command, exec.die_with_parent, exec.explain)
        }
        (Verb::Run { limits, explain, command }, layout) => {
            let layout = layout.map_err(|error| error.status(OWN_FAILURE))?;
            return run::run(&cli.root, layout, limits, &command, explain);
        }
        (Verb::Doctor, layout) => doctor::doctor(&cli.root, layout),
        (Verb::List { json, busy: true }, layout) => end_lines(layout.and_then(|layout| list(&layout, json, true))),
        (Verb::Delete { ids, kill, record, explain }, layout) => delete(layout, ids, kill, record.as_deref(), explain),
        (_, Err(error)) => Err(error),
        (Verb::Create { id, limits, from, explain }, Ok(layout)) => create(&layout, id, limits, from, explain),
        (Verb::Set { id, limits, explain }, Ok(layout)) => set::set(&layout, id, Limits::of(limits), explain),
        (Verb::Freeze { id, explain }, Ok(layout)) => freeze(&layout, id, true, explain),
        (Verb::Thaw { id, explain }, Ok(layout)) => freeze(&layout, id, false, explain),
        (Verb::Stats { ids, how }, Ok(layout)) => stats::print(&layout, &ids, how),
        (Verb::Stat { id, json }, Ok(layout)) => print(&stat::stat(&layout, id, json)?),
        (Verb::Gc { explain }, Ok(layout)) => gc(&layout, explain),
        (Verb::Top { id, json }, Ok(layout)) => {
            let processes = top::processes(&layout, id)?;
            print(&processes.iter().map(|process| process.line(json)).collect::<Result<Vec<_>>>()?)
        }
        (Verb::List { json, busy: false }, Ok(layout)) => list(&layout, json, false),
        (Verb::Get { id, keys, json }, Ok(layout)) => print(&show::get(&layout, id, &keys, json)?),
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
            verb => return matches!(verb, Some("exec" | "run")),
        }
    }
    false
}

/// All or nothing; prints the cgroup's name.
fn create(layout: &Layout, id: Name, typed: Vec<Limit>, from: Option<PathBuf>, explain: Explain) -> Result<()> {
    let remembered = from.map_or_else(|| Ok(Vec::new()), |file| limits::read(&file))?;
    let plan = group::plan_create(layout, id, Limits::of(remembered.into_iter().chain(typed)), For::Container)?;
    if let Some(warning) = plan.warning {
        // A closed stderr leaves nobody to tell.
        let _ = writeln!(io::stderr(), "bocker-cg: {warning}");
    }
    say::perform_whole(&plan.acts, explain, |act| act.apply(layout, id), Act::undo)
}

/// A signal in the middle ends the tool, and the group stays as it is then: asking again comes to the same.
fn freeze(layout: &Layout, id: Name, frozen: bool, explain: Explain) -> Result<()> {
    say::perform(&freeze::plan(layout, id, frozen)?, explain, |act| act.apply(layout, id))
}

/// As much as can be removed, whatever fails on the way.
fn delete(layout: Result<Layout>, which: Which, kill: bool, record: Option<&OsStr>, explain: Explain) -> Result<()> {
    // First: what is wrong here may be what the tool before us has said.
    let all = which.all()?;
    let layout = &layout?;
    let _whole = Uninterrupted::begin();
    let (mut failures, mut gone) = (Vec::new(), Vec::new());
    for id in all {
        let before = failures.len();
        let plan = group::plan_delete(layout, id, kill)?;
        if !explain.dry_run {
            let killed = Killed::of(layout, id);
            if let Some(killed) = &killed {
                // A closed stderr leaves nobody to tell.
                let _ = writeln!(io::stderr(), "bocker-cg: {id}: out of memory: {}", killed.line());
            }
            failures.extend(record.and_then(|dir| stat::record(dir, killed.as_ref()).err()).map(|e| e.to_string()));
        }
        for act in &plan {
            say::tell(act, explain)?;
            if !explain.dry_run {
                failures.extend(act.apply(layout, id).err().map(|e| e.to_string()));
            }
        }
        if which == Which::Stdin && !plan.is_empty() && failures.len() == before && !explain.dry_run {
            gone.push(format!("/{id}"));
        }
    }
    print(&gone)?;
    if failures.is_empty() { Ok(()) } else { Err(Error::plain(failures.join("; "))) }
}

/// What `run` left: the processes that were it have ended.
fn gc(layout: &Layout, explain: Explain) -> Result<()> {
    let _whole = Uninterrupted::begin();
    let (mut failures, mut gone) = (Vec::new(), Vec::new());
    // A process that this PID namespace does not see is another's, and so may be the one that the name tells of.
    let is_ours = |name: &Name| name.is_left() && !group::has_unseen(layout, *name);
    for name in group::all(layout)?.into_iter().filter(is_ours) {
        let before = failures.len();
        for act in group::plan_delete(layout, name, true)? {
            say::tell(&act, explain)?;
            if !explain.dry_run {
                failures.extend(act.apply(layout, name).err().map(|e| e.to_string()));
            }
        }
        if failures.len() == before && !explain.dry_run {
            gone.push(format!("/{name}"));
        }
    }
    print(&gone)?;
    if failures.is_empty() { Ok(()) } else { Err(Error::plain(failures.join("; "))) }
}

/// One, or containers whose ids are on stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    One(Name),
    Stdin,
}

impl FromStr for Which {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "-" { Ok(Self::Stdin) } else { text.parse().map(Self::One) }
    }
}

impl Which {
    fn all(self) -> Result<Vec<Name>> {
        match self {
            Self::One(name) => Ok(vec![name]),
            Self::Stdin => Ok(Ids::Stdin.all()?.into_iter().map(Name::Container).collect()),
        }
    }
}

fn list(layout: &Layout, json: bool, busy: bool) -> Result<()> {
    #[derive(Serialize)]
    struct Entry {
        id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        busy: Option<bool>,
    }
    let mut ids = group::all(layout)?;
    // Others read these lines as ids.
    ids.retain(|name| !busy || matches!(name, Name::Container(_)));
    let line = |id: &Name| {
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
    fn exec_and_run_run_a_command() {
        let runs = |words: &[&str]| runs_a_command(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(runs(&["bocker-cg", "exec"]));
        assert!(runs(&["bocker-cg", "--root", "/x", "exec", "ps_42045"]));
        assert!(runs(&["bocker-cg", "run", "pids=5", "--", "true"]));
        assert!(!runs(&["bocker-cg", "--root", "exec", "list"]));
        assert!(!runs(&["bocker-cg", "create", "exec"]));
    }
}
