//! The command line: what was typed, checked, nothing done.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use bocker_common::diag::OWN_FAILURE;
use bocker_common::entry::one_line;
use bocker_common::say::Explain;
use bocker_common::userns::Userns;
use bocker_common::{Error, Result};
use clap::{Parser, ValueEnum};

use crate::mounts;
use crate::process;
use crate::resolver::{self, Resolver};
use crate::walls::Walls;
use crate::words::{For, Words};

/// Run a command in namespaces of its own, on the root file system DIR; or join such a command.
#[derive(Debug, Parser)]
#[command(name = "bocker-exec", version, max_term_width = 110, args_override_self = true)]
struct Typed {
    /// The directory that becomes /
    #[arg(long, value_name = "DIR", required_unless_present_any = ["join", "attach", "kill", "stop", "wait", "doctor"])]
    root: Option<PathBuf>,
    /// Join the running container whose status file this is
    #[arg(long, value_name = "STATUSFILE", conflicts_with_all = ["root", "log", "status", "hostname", "address", "add_host", "hosts", "host_names", "nameserver", "dns_search", "dns_option", "cgroupns", "userns", "uids"])]
    join: Option<PathBuf>,
    /// Say what this host has for containers and what it lacks, and the way out: ok, warn or bad, WHAT, DETAIL
    #[arg(long, exclusive = true)]
    doctor: bool,
    /// The OCI image configuration (JSON)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Copy stdout and stderr to the end of FILE
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Keep `running PID`, then `exited N`, in FILE, and a lock on it while the container lives
    #[arg(long, value_name = "FILE")]
    status: Option<PathBuf>,
    /// The host name inside [default: as outside]
    #[arg(long)]
    hostname: Option<String>,
    #[command(flatten)]
    resolver: Resolver,
    /// A cgroup namespace of its own, or the caller's; auto: private on cgroup v2, host on v1
    #[arg(long, value_enum, default_value = "auto", value_name = "auto|host|private", hide_possible_values = true)]
    cgroupns: Cgroupns,
    /// Users of the container's own (a user namespace, the files mapped to it), or the caller's
    #[arg(long, value_enum, default_value = "private", value_name = "private|host", hide_possible_values = true)]
    userns: Userns,
    /// The first of the 65536 host's ids that the container's users are [default: of its network namespace, or a free range]
    #[arg(long, value_name = "START", value_parser = clap::value_parser!(u32).range(1..=4_294_836_224))]
    uids: Option<u32>,
    /// Add to the environment, or replace in it; repeatable
    #[arg(long, value_name = "K=V")]
    env: Vec<OsString>,
    /// Variables K=V from this descriptor, each with a NUL after it as in /proc/PID/environ: on a command line all could read them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    env_fd: Option<i32>,
    /// The working directory; made if missing [default: the image's, or /]
    #[arg(long, value_name = "DIR")]
    workdir: Option<OsString>,
    /// NAME|UID[:GROUP|GID] [default: the image's, or root]
    #[arg(long)]
    user: Option<String>,
    /// Kill the container when the process that started this one dies; with PID: do not begin if that was not PID
    #[arg(long, value_name = "PID", num_args = 0..=1, require_equals = true)]
    die_with_parent: Option<Option<i32>>,
    #[command(flatten)]
    walls: Walls,
    #[command(flatten)]
    mounts: mounts::Mounts,
    #[command(flatten)]
    terminal: crate::terminal::TerminalOptions,
    #[command(flatten)]
    attach: crate::attach::AttachOptions,
    #[command(flatten)]
    process: process::Options,
    #[command(flatten)]
    explain: Explain,
    /// The command and its arguments [default: the image's ENTRYPOINT and CMD]
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// `--cgroupns`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Cgroupns {
    /// Private on v2, the host's on v1.
    Auto,
    /// The caller's.
    Host,
    /// A new one.
    Private,
}

/// Which of the two things.
#[derive(Debug)]
pub enum Mode {
    /// A new container on this directory.
    Run(PathBuf),
    /// Into the container of this status file.
    Join(PathBuf),
    /// `--attach`
    Attach(PathBuf),
    /// `--kill`
    Kill(PathBuf),
    /// `--stop`
    Stop(PathBuf),
    /// `--wait`
    Wait(PathBuf),
    /// `--doctor`
    Doctor,
}

/// What the command line means. Fields as the options of the same name.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Args {
    pub mode: Mode,
    pub config: Option<PathBuf>,
    pub log: Option<PathBuf>,
    pub status: Option<PathBuf>,
    pub hostname: Option<String>,
    pub resolver: Resolver,
    pub cgroupns: Cgroupns,
    pub userns: Userns,
    /// The container to join was told to have users of its own, by its words.
    pub joins_own_users: bool,
    pub uids: Option<u32>,
    pub env: Vec<OsString>,
    pub env_fd: Option<i32>,
    pub workdir: Option<OsString>,
    pub user: Option<String>,
    pub die_with_parent: Option<Option<i32>>,
    pub walls: Walls,
    pub terminal: crate::terminal::TerminalOptions,
    pub attach: crate::attach::AttachOptions,
    pub process: process::Options,
    pub mounts: mounts::Mounts,
    pub explain: Explain,
    pub command: Vec<OsString>,
}

/// Parses this process's arguments; `None` when they asked for the help or the version, which is printed.
///
/// # Errors
/// Words that make no sense, with status 125.
pub fn parse() -> Result<Option<Args>> {
    parse_from(std::env::args_os())
}

fn parse_from(words: impl IntoIterator<Item = OsString>) -> Result<Option<Args>> {
    let words: Vec<OsString> = words.into_iter().collect();
    let mut typed = match Typed::try_parse_from(&words) {
        Ok(typed) => typed,
        Err(told) if !told.use_stderr() => {
            // A closed stdout ends quietly.
            let _ = write!(std::io::stdout(), "{told}");
            return Ok(None);
        }
        Err(error) => return Err(mistake(&error)),
    };
    let mut joins_own_users = false;
    if let Some(file) = &typed.process.words {
        let (program, rest) = words.split_at(words.len().min(1));
        let file = match (Words::read(file), &typed.process.stop) {
            // It was there when its path was asked for.
            (Err(_), Some(status)) if crate::manage::is_gone(status) => return Ok(None),
            (read, _) => read.map_err(|e| e.status(OWN_FAILURE))?,
        };
        joins_own_users = file.own_users();
        let file = file.only(typed.what());
        let all = program.iter().chain(&file.options).chain(rest);
        typed = Typed::try_parse_from(all).map_err(|e| mistake(&e))?;
        if typed.command.is_empty() {
            typed.command = file.command;
        }
    }
    let process = &mut typed.process;
    let mode = match (typed.root, typed.join, process.kill.take(), process.stop.take(), process.wait.take()) {
        (_, Some(status), ..) => Mode::Join(status),
        (_, _, Some(status), ..) => Mode::Kill(status),
        (_, _, _, Some(status), _) => Mode::Stop(status),
        (.., Some(status)) => Mode::Wait(status),
        (Some(root), ..) => Mode::Run(root),
        _ if typed.doctor => Mode::Doctor,
        _ => match typed.attach.attach.take() {
            Some(status) => Mode::Attach(status),
            None => return Err(usage("--root DIR is needed".to_owned())),
        },
    };
    if let Some(name) = &typed.hostname {
        // Linux's length.
        if !resolver::is_name(name, 64) {
            return Err(usage(format!("--hostname {name}: not a host name")));
        }
    }
    Ok(Some(Args {
        mode,
        config: typed.config,
        log: typed.log,
        status: typed.status,
        hostname: typed.hostname,
        resolver: typed.resolver,
        cgroupns: typed.cgroupns,
        userns: typed.userns,
        joins_own_users,
        uids: typed.uids,
        env: typed.env,
        env_fd: typed.env_fd,
        workdir: typed.workdir,
        user: typed.user,
        die_with_parent: typed.die_with_parent,
        walls: typed.walls,
        terminal: typed.terminal,
        attach: typed.attach,
        process: typed.process,
        mounts: typed.mounts,
        explain: typed.explain,
        command: typed.command,
    }))
}

impl Typed {
    /// Which of a container's words count.
    fn what(&self) -> For {
        match (&self.root, &self.join) {
            (Some(_), _) => For::Run,
            (_, Some(_)) => For::Join,
            _ => For::Stop,
        }
    }
}

fn mistake(error: &clap::Error) -> Error {
    usage(one_line(&error.to_string()))
}

fn usage(line: String) -> Error {
    Error::plain(line).hint("see bocker-exec --help").status(OWN_FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<Option<Args>> {
        parse_from(std::iter::once("bocker-exec").chain(words.iter().copied()).map(OsString::from))
    }

    #[test]
    fn the_command_is_what_follows_the_dashes() {
        let args = parse_words(&["--root", "/r", "--", "--root", "-x"]).unwrap().unwrap();
        assert_eq!(args.command, ["--root", "-x"]);
    }

    #[test]
    fn nonsense_is_one_line_with_125() {
        for words in [
            &["--root"][..],
            &[],
            &["--root", "/r", "--join", "/s"],
            &["--root", "/r", "--hostname", "a b"],
            &["--root", "/r", "--hostname", "a\nb"],
            &["--root", "/r", "--address", "10.0.0.256"],
            &["--root", "/r", "--add-host", "a:10.0.0.1\n6.6.6.6 bank"],
            &["--root", "/r", "--dns-search", "a b"],
            &["--join", "/s", "--add-host", "a:10.0.0.1"],
            &["--root", "/r", "--cgroupns", "mine"],
            &["--root", "/r", "--cap-add", "NET_FOO"],
            &["--root", "/r", "--ulimit", "files=1"],
            &["--root", "/r", "--device", "/dev/null:/etc/null"],
            &["--root", "/r", "--oom-score-adj", "1001"],
            &["--root", "/r", "--volume", "data:/data"],
            &["--root", "/r", "--mount", "type=bind,target=/data"],
            &["--root", "/r", "--tmpfs", "/"],
            &["--root", "/r", "words", "without", "dashes"],
            &["--root", "/r", "--kill", "/s"],
            &["--doctor", "--root", "/r"],
            &["--stop", "/s", "--wait", "/s"],
            &["--stop", "/s", "--", "true"],
            &["--kill", "/s", "--signal", "NOPE"],
            &["--root", "/r", "--detach", "--die-with-parent"],
            &["--root", "/r", "--then", "true"],
            // It would run in the container's mount namespace.
            &["--join", "/s", "--detach", "--then", "true", "--", "true"],
            &["--root", "/r", "--log-size", "12"],
            &["--root", "/r", "--log-files", "0"],
            &["--root", "/r", "--status-fd", "-1"],
            &["--root", "/r", "--words", "/nonexistent"],
        ] {
            let error = parse_words(words).unwrap_err();
            assert_eq!(error.exit_status(), 125, "{words:?}");
            let line = bocker_common::diag::printable(&error.to_string());
            assert!(!line.contains("error:") && line.len() < 300, "{line}");
        }
    }

    #[test]
    fn what_is_typed_overrides_the_words_of_a_file() {
        let path = std::env::temp_dir().join(format!("bocker-exec-words-{}", std::process::id()));
        std::fs::write(&path, "--env=A=1\n--env=B=1\n--user=5\n--hostname=h\n--stop-timeout=7\n--\nsh\n-c\nx\n")
            .unwrap();
        let file = path.to_str().unwrap();
        let args = parse_words(&["--words", file, "--root", "/r"]).unwrap().unwrap();
        assert_eq!(args.env, ["A=1", "B=1"]);
        assert_eq!(args.command, ["sh", "-c", "x"]);
        let typed = ["--root", "/r", "--words", file, "--user", "6", "--env", "B=2", "--user=7", "--", "true"];
        let args = parse_words(&typed).unwrap().unwrap();
        assert_eq!((args.user.as_deref(), args.hostname.as_deref()), (Some("7"), Some("h")));
        assert_eq!(args.env, ["A=1", "B=1", "B=2"], "of two with one name the later counts");
        assert_eq!(args.command, ["true"]);
        // Options of a container that a join has not, and its command.
        let args = parse_words(&["--join", "/s", "--words", file, "--", "id"]).unwrap().unwrap();
        assert_eq!((args.user.as_deref(), args.hostname.as_deref()), (Some("5"), None));
        assert_eq!(args.command, ["id"]);
        let args = parse_words(&["--stop", "/s", "--words", file]).unwrap().unwrap();
        assert_eq!((args.process.stop_timeout, args.user), (Some(7), None));
        std::fs::write(&path, "--nonsense=1\n").unwrap();
        assert_eq!(parse_words(&["--words", file, "--root", "/r"]).unwrap_err().exit_status(), 125);
        std::fs::remove_file(&path).unwrap();
    }
}
