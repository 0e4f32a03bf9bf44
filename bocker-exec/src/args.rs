//! The command line: what was typed, checked, nothing done.

use std::ffi::OsString;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use bocker_common::diag::OWN_FAILURE;
use bocker_common::entry::one_line;
use bocker_common::say::Explain;
use bocker_common::{Error, Result};
use clap::{Parser, ValueEnum};

/// Run a command in namespaces of its own, on the root file system DIR; or join such a command.
#[derive(Debug, Parser)]
#[command(name = "bocker-exec", version, max_term_width = 110)]
struct Typed {
    /// The directory that becomes /
    #[arg(long, value_name = "DIR", required_unless_present = "join")]
    root: Option<PathBuf>,
    /// Join the running container whose status file this is
    #[arg(long, value_name = "STATUSFILE", conflicts_with_all = ["root", "log", "status", "hostname", "address", "nameserver", "cgroupns"])]
    join: Option<PathBuf>,
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
    /// The container's address, for /etc/hosts
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// A name server, for /etc/resolv.conf; repeatable [default: 8.8.8.8]
    #[arg(long, value_name = "IP")]
    nameserver: Vec<IpAddr>,
    /// A cgroup namespace of its own, or the caller's; auto: private on cgroup v2, host on v1
    #[arg(long, value_enum, default_value = "auto", value_name = "auto|host|private", hide_possible_values = true)]
    cgroupns: Cgroupns,
    /// Add to the environment, or replace in it; repeatable
    #[arg(long, value_name = "K=V")]
    env: Vec<OsString>,
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
    pub address: Option<IpAddr>,
    pub nameservers: Vec<IpAddr>,
    pub cgroupns: Cgroupns,
    pub env: Vec<OsString>,
    pub workdir: Option<OsString>,
    pub user: Option<String>,
    pub die_with_parent: Option<Option<i32>>,
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
    let typed = match Typed::try_parse_from(words) {
        Ok(typed) => typed,
        Err(told) if !told.use_stderr() => {
            // A closed stdout ends quietly.
            let _ = write!(std::io::stdout(), "{told}");
            return Ok(None);
        }
        Err(error) => return Err(usage(one_line(&error.to_string()))),
    };
    let mode = match (typed.root, typed.join) {
        (_, Some(status)) => Mode::Join(status),
        (Some(root), None) => Mode::Run(root),
        (None, None) => return Err(usage("--root DIR is needed".to_owned())),
    };
    if let Some(name) = &typed.hostname {
        // It goes into a file of lines and words: hostname(7)'s letters, and Linux's length.
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if name.is_empty() || name.len() > 64 || name.starts_with('-') || !name.bytes().all(fine) {
            return Err(usage(format!("--hostname {name}: not a host name")));
        }
    }
    Ok(Some(Args {
        mode,
        config: typed.config,
        log: typed.log,
        status: typed.status,
        hostname: typed.hostname,
        address: typed.address,
        nameservers: typed.nameserver,
        cgroupns: typed.cgroupns,
        env: typed.env,
        workdir: typed.workdir,
        user: typed.user,
        die_with_parent: typed.die_with_parent,
        explain: typed.explain,
        command: typed.command,
    }))
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
            &["--root", "/r", "--cgroupns", "mine"],
            &["--root", "/r", "words", "without", "dashes"],
        ] {
            let error = parse_words(words).unwrap_err();
            assert_eq!(error.exit_status(), 125, "{words:?}");
            let line = bocker_common::diag::printable(&error.to_string());
            assert!(!line.contains("error:") && line.len() < 300, "{line}");
        }
    }
}
