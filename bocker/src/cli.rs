//! What was typed, before any of it means anything.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand};

use crate::Failure;
use crate::flags::{Flags, Limits};
use crate::values::truth;

const AFTER: &str = "\
Leading --NAME=value options set BOCKER_NAME for this one command, as in
  bocker --CPU_SHARE=1024 --MEM_LIMIT=1024 run img_42150 cat /proc/1/cgroup

Environment:
  BOCKER_ROOT       the store, a btrfs file system (default /var/bocker)
  BOCKER_SUBNET     addresses of containers (default 10.0.0.0/24)
  BOCKER_CPU_SHARE  cpu shares of a container (default 512)
  BOCKER_MEM_LIMIT  memory of a container, in units of 1,000,000 bytes (default 512)";

/// Docker's main commands as pipelines of small tools
#[derive(Debug, Parser)]
#[command(name = "bocker", version, after_help = AFTER, disable_help_subcommand = true)]
pub struct Cli {
    /// How, not what.
    #[command(flatten)]
    pub how: How,
    /// The command; none: help.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Act, act and show, or only show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub struct How {
    /// Print the command as a POSIX shell script and do nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Print each step on stderr as it runs, as `set -x` does
    #[arg(long, global = true)]
    pub trace: bool,
}

/// Arguments that are made only where the command that has them was typed: `run` and `create` have more than all others together.
#[derive(Debug)]
pub struct Deferred<T>(pub Box<T>);

impl<T: Args> Args for Deferred<T> {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.defer(|command| {
            // What the command is for, and not what these are.
            let (about, long) = (command.get_about().cloned(), command.get_long_about().cloned());
            let mut command = T::augment_args(command).long_about(None::<&str>);
            if let Some(about) = about {
                command = command.about(about);
            }
            if let Some(long) = long {
                command = command.long_about(long);
            }
            command
        })
    }
    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl<T: FromArgMatches> FromArgMatches for Deferred<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        T::from_arg_matches(matches).map(|typed| Self(Box::new(typed)))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

/// The script's functions, and `setup`, which its README left to the reader.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pull an image from a registry
    #[command(about = "Pull an image from a registry: bocker pull NAME[:TAG|@DIGEST], or NAME TAG")]
    Pull {
        /// Image, as centos, centos:7, localhost:5000/a/b, host/name@sha256:…
        name: OsString,
        /// Tag, where NAME has none
        tag: Option<OsString>,
    },
    /// Create an image from a directory
    Init {
        /// Its content becomes the image's root directory
        directory: OsString,
    },
    /// Create an image from a tar archive of a root file system on stdin
    #[command(override_usage = "bocker import - [NAME] < ROOTFS.tar")]
    Import {
        /// `-`: stdin, plain, by gzip or by zstd; a directory, as for init
        from: OsString,
        /// Its name
        name: Option<OsString>,
    },
    /// Write a root file system to stdout as a tar archive
    Export {
        /// A container, or an image
        id: OsString,
    },
    /// Write images with their names as an archive that bocker load, docker load, skopeo and others read
    Save {
        /// Write to this file instead of stdout
        #[arg(long, short, value_name = "FILE")]
        output: Option<OsString>,
        /// The images, by id or name
        #[arg(required = true)]
        images: Vec<OsString>,
    },
    /// Read images with their names from an archive (docker save's, an oci-archive) or an OCI layout's directory
    Load {
        /// Read this file or directory instead of stdin
        #[arg(long, short, value_name = "FILE")]
        input: Option<OsString>,
    },
    /// List images
    Images {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// List containers
    #[command(args_override_self = true)]
    Ps(Ps),
    /// Print what is known of images and containers
    Inspect {
        /// One JSON object for each
        #[arg(long)]
        json: bool,
        /// Ids, or names of images
        #[arg(required = true)]
        ids: Vec<OsString>,
    },
    /// List the steps of an image's making, the last one first
    History {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// The image, by id or name
        image: OsString,
    },
    /// Create a container and run a command in it
    #[command(after_help = "\
Several words are an argument vector. One word that holds white space or shell
characters is a line for the image's /bin/sh. No words: the image's own command.")]
    #[command(
        override_usage = "bocker run [OPTIONS] IMAGE [COMMAND]...",
        disable_help_flag = true,
        args_override_self = true
    )]
    Run {
        /// In the background: print the id
        #[arg(long, short, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth, value_name = "BOOL")]
        detach: Option<bool>,
        #[command(flatten)]
        #[allow(missing_docs)]
        flags: Deferred<Flags>,
        /// Print help
        #[arg(long, action = ArgAction::Help, display_order = 999)]
        help: Option<bool>,
        /// The image, by id or name as printed by `bocker images`, then the command
        #[arg(trailing_var_arg = true, required = true, value_name = "IMAGE COMMAND")]
        words: Vec<OsString>,
    },
    /// Create a container for `bocker start`: as run, but it does not begin
    #[command(
        override_usage = "bocker create [OPTIONS] IMAGE [COMMAND]...",
        disable_help_flag = true,
        args_override_self = true
    )]
    Create {
        #[command(flatten)]
        #[allow(missing_docs)]
        flags: Deferred<Flags>,
        /// Print help
        #[arg(long, action = ArgAction::Help, display_order = 999)]
        help: Option<bool>,
        /// As for run
        #[arg(trailing_var_arg = true, required = true, value_name = "IMAGE COMMAND")]
        words: Vec<OsString>,
    },
    /// Start containers that do not run, with what they were created with
    Start {
        /// In the foreground, as run
        #[arg(long, short)]
        attach: bool,
        /// In the foreground, with our stdin
        #[arg(long, short)]
        interactive: bool,
        /// By id or name
        #[arg(required = true)]
        containers: Vec<OsString>,
    },
    /// Stop containers: their stop signal, and KILL after a time
    Stop {
        #[command(flatten)]
        #[allow(missing_docs)]
        how: Stopping,
        /// By id or name
        #[arg(required = true)]
        containers: Vec<OsString>,
    },
    /// Stop containers and start them again
    Restart {
        #[command(flatten)]
        #[allow(missing_docs)]
        how: Stopping,
        /// By id or name
        #[arg(required = true)]
        containers: Vec<OsString>,
    },
    /// Send a signal to the first process of containers
    Kill {
        /// Its name or number
        #[arg(long, short, value_name = "SIGNAL", default_value = "KILL")]
        signal: OsString,
        /// By id or name
        #[arg(required = true)]
        containers: Vec<OsString>,
    },
    /// Wait until containers have ended; print their exit statuses
    Wait {
        /// By id or name
        #[arg(required = true)]
        containers: Vec<OsString>,
    },
    /// Attach to a container that was started in the background
    Attach {
        /// Keys that end it, and not the container
        #[arg(long, value_name = "KEYS")]
        detach_keys: Option<OsString>,
        /// Only look
        #[arg(long)]
        no_stdin: bool,
        /// Whether signals go to the container
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth)]
        sig_proxy: Option<bool>,
        /// By id or name
        container: OsString,
    },
    /// Stop the processes of containers where they are
    Pause {
        /// By id or name
        #[arg(required = true)]
        containers: Vec<OsString>,
    },
    /// Let the processes of containers go on
    Unpause {
        /// By id or name
        #[arg(required = true)]
        containers: Vec<OsString>,
    },
    /// Give a container another name
    Rename {
        /// By id or name
        container: OsString,
        /// The new one
        name: OsString,
    },
    /// Run a command in a running container
    #[command(override_usage = "bocker exec [OPTIONS] CONTAINER COMMAND...", args_override_self = true)]
    Exec {
        #[command(flatten)]
        #[allow(missing_docs)]
        flags: Box<ExecFlags>,
        /// The container, as printed by `bocker ps`, then the command, an argument vector
        #[arg(trailing_var_arg = true, required = true, value_name = "CONTAINER COMMAND")]
        words: Vec<OsString>,
    },
    /// Print what a container has written, its stderr to stderr
    #[command(args_override_self = true)]
    Logs {
        /// Go on with what comes
        #[arg(long, short)]
        follow: bool,
        /// The last lines only
        #[arg(long, short = 'n', value_name = "N")]
        tail: Option<OsString>,
        /// Since a time, or as long ago as 10m
        #[arg(long, value_name = "TIME")]
        since: Option<OsString>,
        /// Until a time
        #[arg(long, value_name = "TIME")]
        until: Option<OsString>,
        /// Each line with its time
        #[arg(long, short)]
        timestamps: bool,
        /// By id or name
        container: OsString,
    },
    /// List the processes of a container, as the host sees them
    Top {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// By id or name
        container: OsString,
    },
    /// Print what containers use, each second: a table on a terminal, else lines
    Stats {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// Only once
        #[arg(long)]
        no_stream: bool,
        /// By id or name; none: all
        containers: Vec<OsString>,
    },
    /// Change limits of containers
    #[command(args_override_self = true)]
    Update {
        #[command(flatten)]
        #[allow(missing_docs)]
        limits: Box<Limits>,
        /// By id or name
        #[arg(required = true)]
        containers: Vec<OsString>,
    },
    /// Copy files out of a container, into one, or from one to another; -: a tar archive
    #[command(
        override_usage = "bocker cp [OPTIONS] CONTAINER:PATH DEST|-\n       bocker cp [OPTIONS] SOURCE|- CONTAINER:PATH\n       bocker cp [OPTIONS] CONTAINER:PATH CONTAINER:PATH"
    )]
    Cp {
        /// Owners as they are, by number
        #[arg(long, short)]
        archive: bool,
        /// Where the source is a link: what it leads to
        #[arg(long, short = 'L')]
        follow_link: bool,
        /// As docker's: says nothing, as is the default
        #[arg(long, short, hide = true)]
        quiet: bool,
        /// What is copied
        source: OsString,
        /// Where to
        destination: OsString,
    },
    /// What is left of a detached container that has ended goes: bocker-exec becomes this
    #[command(hide = true)]
    Ended {
        /// Its id
        container: OsString,
    },
    /// Replace an image by a container's content, or make one of that name
    Commit {
        /// Where the content comes from
        container: OsString,
        /// The image that is replaced, or a name for the new one
        image: OsString,
    },
    /// Give an image a name, or one more
    Tag {
        /// The image
        image: OsString,
        /// As debian:12 or localhost:5000/group/name:tag
        name: OsString,
    },
    /// Delete images or containers; of an image with several names, only the one given
    #[command(visible_alias = "rmi")]
    Rm {
        /// An image by its id with all its names, too; a container that runs
        #[arg(long, short)]
        force: bool,
        /// With a container its volumes go whose name nobody chose
        #[arg(long, short)]
        volumes: bool,
        /// As printed by `bocker images` or `bocker ps`
        #[arg(required = true)]
        ids: Vec<OsString>,
    },
    /// List what a container has changed: A (added), C (changed) or D (deleted), and the path
    Diff {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// As printed by `bocker ps`
        container: OsString,
    },
    /// Print where the ports of a container are published, as 80/tcp -> 0.0.0.0:8080
    Port {
        /// By id or name
        container: OsString,
        /// Only of this one
        #[arg(value_name = "PORT[/PROTOCOL]")]
        port: Option<OsString>,
    },
    /// Networks: who reaches whom, by which name
    #[command(subcommand)]
    Network(crate::net::Network),
    /// Volumes: what containers share and leave behind
    #[command(subcommand)]
    Volume(Volume),
    /// The store as a whole
    #[command(subcommand)]
    System(System),
    /// List what nobody needs any more, with the bytes that it takes, or remove it
    Prune(Prune),
    /// Remove what a crash left half-made in the store
    Gc,
    /// Say what this host has for containers and what it lacks, and the way out: ok, warn or bad, WHAT, DETAIL
    Doctor,
    /// Prepare this host (store, bridge, forwarding, NAT), or take it back
    Setup {
        /// Take back what setup made, images, containers and volumes included
        #[arg(long)]
        undo: bool,
    },
    /// Print this message
    Help,
}

/// How a container is stopped.
#[derive(Debug, Clone, Default, Args)]
pub struct Stopping {
    /// How long until KILL; -1: for ever [default: as it was created with, else 10]
    #[arg(long, short, visible_alias = "timeout", value_name = "SECONDS", allow_negative_numbers = true)]
    pub time: Option<i32>,
    /// In place of its stop signal
    #[arg(long, short, value_name = "SIGNAL")]
    pub signal: Option<OsString>,
}

/// Which containers are listed, and how: options of bocker-store ps.
#[derive(Debug, Clone, Default, Args)]
pub struct Ps {
    /// As is the default: those that have ended, too
    #[arg(long, short)]
    pub all: bool,
    /// Ids only
    #[arg(long, short)]
    pub quiet: bool,
    /// The N that were made last
    #[arg(long, short = 'n', value_name = "N")]
    pub last: Option<OsString>,
    /// The one that was made last
    #[arg(long, short)]
    pub latest: bool,
    /// Commands in full
    #[arg(long)]
    pub no_trunc: bool,
    /// As docker's, status=running
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub filter: Vec<OsString>,
    /// As docker's: table, json, or a template
    #[arg(long)]
    pub format: Option<OsString>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Flags of `exec`.
#[derive(Debug, Clone, Default, Args)]
pub struct ExecFlags {
    /// In the background
    #[arg(long, short, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth, value_name = "BOOL")]
    pub detach: Option<bool>,
    /// In the foreground the command has our stdin, unless this is false
    #[arg(long, short, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth, value_name = "BOOL")]
    pub interactive: Option<bool>,
    /// Give it a terminal
    #[arg(long, short, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth, value_name = "BOOL")]
    pub tty: Option<bool>,
    /// With all capabilities
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth, value_name = "BOOL")]
    pub privileged: Option<bool>,
    /// Environment; without a value: the caller's
    #[arg(long, short, value_name = "NAME[=VALUE]", allow_hyphen_values = true)]
    pub env: Vec<OsString>,
    /// Environment of this file first
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    pub env_file: Vec<OsString>,
    /// Its user
    #[arg(long, short, value_name = "USER[:GROUP]", allow_hyphen_values = true)]
    pub user: Option<OsString>,
    /// Its working directory
    #[arg(long, short, value_name = "DIR", allow_hyphen_values = true)]
    pub workdir: Option<OsString>,
}

/// What can be asked of the store, and done to it.
#[derive(Debug, Subcommand)]
pub enum System {
    /// Print the bytes of each image, container, layer and volume: alone, and shared with others
    Df {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// As `bocker prune`
    Prune(Prune),
}

/// What may go: containers that have ended, images that have lost their name.
#[derive(Debug, Clone, Copy, Args)]
pub struct Prune {
    /// Remove it; else it is only listed
    #[arg(long, short)]
    pub force: bool,
    /// All images that no container was made from
    #[arg(long, short)]
    pub all: bool,
    /// Volumes without a chosen name that no container has
    #[arg(long)]
    pub volumes: bool,
}

/// What can be done to volumes.
#[derive(Debug, Subcommand)]
pub enum Volume {
    /// Create a volume, unless it is there
    Create {
        /// Its name; none: a random one
        name: Option<OsString>,
    },
    /// List volumes
    #[command(visible_alias = "list")]
    Ls {
        /// One JSON object a line
        #[arg(long, conflicts_with = "quiet")]
        json: bool,
        /// Names only
        #[arg(long, short)]
        quiet: bool,
    },
    /// Delete volumes that no container has
    Rm {
        /// One that is not there is no error
        #[arg(long, short)]
        force: bool,
        /// As printed by `bocker volume ls`
        #[arg(required = true)]
        names: Vec<OsString>,
    },
    /// List volumes without a chosen name that no container has, with their bytes, or remove them
    Prune {
        /// Those with a chosen name, too
        #[arg(long, short)]
        all: bool,
        /// Remove them; else they are only listed
        #[arg(long, short)]
        force: bool,
    },
    /// Print what is known of volumes
    Inspect {
        /// One JSON object for each
        #[arg(long)]
        json: bool,
        /// As printed by `bocker volume ls`
        #[arg(required = true)]
        names: Vec<OsString>,
    },
}

impl Command {
    /// Whether it runs a command for the caller: its own failures are then 125.
    pub fn runs_a_command(&self) -> bool {
        match self {
            Self::Run { .. } | Self::Create { .. } | Self::Exec { .. } => true,
            Self::Start { attach, interactive, .. } => *attach || *interactive,
            _ => false,
        }
    }
}

/// The first word, then the rest, without the `--` that may stand between them. From the first word on all words are
/// the command's: `bocker run IMAGE --help` runs `--help`.
///
/// # Errors
/// There is no first word; what is asked then.
pub fn first(words: Vec<OsString>, question: &str) -> Result<(OsString, Vec<OsString>), Failure> {
    let mut words = words.into_iter().peekable();
    let first = words.next().ok_or_else(|| Failure::usage(question).status(125))?;
    words.next_if(|word| word == "--");
    Ok((first, words.collect()))
}

/// Takes the original's leading `--NAME=value` (or `--NAME`, meaning `x`) options out of the words:
/// the words without them, and `BOCKER_NAME` with its value.
pub fn leading_options(words: Vec<OsString>) -> (Vec<OsString>, Vec<(String, OsString)>) {
    let mut rest = Vec::with_capacity(words.len());
    let mut env = Vec::new();
    let mut words = words.into_iter();
    rest.extend(words.next());
    for word in words.by_ref() {
        if let Some(setting) = setting(&word) {
            env.push(setting);
            continue;
        }
        let is_option = word.as_bytes().starts_with(b"--");
        rest.push(word);
        if !is_option {
            break;
        }
    }
    rest.extend(words);
    (rest, env)
}

/// `--CPU_SHARE=1024` is `BOCKER_CPU_SHARE` with 1024. Lower-case options are ours.
fn setting(word: &OsString) -> Option<(String, OsString)> {
    let option = word.as_bytes().strip_prefix(b"--")?;
    let (name, value) = match option.iter().position(|b| *b == b'=') {
        Some(at) => (option.get(..at)?, option.get(at + 1..)?),
        None => (option, &b"x"[..]),
    };
    let first_ok = name.first().is_some_and(|b| b.is_ascii_uppercase() || *b == b'_');
    if !first_ok || !name.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_') {
        return None;
    }
    Some((format!("BOCKER_{}", String::from_utf8_lossy(name)), OsString::from_vec(value.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(words: &[&str]) -> (Vec<String>, Vec<String>) {
        let (rest, env) = leading_options(words.iter().map(OsString::from).collect());
        (
            rest.iter().map(|w| w.to_string_lossy().into_owned()).collect(),
            env.iter().map(|(n, v)| format!("{n}={}", v.to_string_lossy())).collect(),
        )
    }

    #[test]
    fn leading_options_become_environment() {
        let (rest, env) = split(&["bocker", "--CPU_SHARE=1024", "--trace", "--X", "run", "img_42150", "--MEM_LIMIT=1"]);
        assert_eq!(rest, ["bocker", "--trace", "run", "img_42150", "--MEM_LIMIT=1"]);
        assert_eq!(env, ["BOCKER_CPU_SHARE=1024", "BOCKER_X=x"]);
    }

    #[test]
    fn a_value_may_hold_an_equals_sign_and_a_name_may_not_be_odd() {
        assert_eq!(split(&["bocker", "--A=b=c", "ps"]).1, ["BOCKER_A=b=c"]);
        for odd in ["--", "--=x", "--cpu_share=1", "--A-B=1", "--1A=1", "-A=1"] {
            assert_eq!(split(&["bocker", odd, "ps"]).1, Vec::<String>::new(), "{odd}");
        }
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
