//! What was typed, before any of it means anything.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Args, Parser, Subcommand};

use crate::Failure;

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
    Ps {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
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
    #[command(override_usage = "bocker run IMAGE [COMMAND]...")]
    Run {
        /// The image, by id or name as printed by `bocker images`, then the command
        #[arg(trailing_var_arg = true, required = true, value_name = "IMAGE COMMAND")]
        words: Vec<OsString>,
    },
    /// Run a command in a running container
    #[command(override_usage = "bocker exec CONTAINER COMMAND...")]
    Exec {
        /// The container, as printed by `bocker ps`, then the command, an argument vector
        #[arg(trailing_var_arg = true, required = true, value_name = "CONTAINER COMMAND")]
        words: Vec<OsString>,
    },
    /// Print what a container has written
    Logs {
        /// As printed by `bocker ps`
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
        /// An image by its id with all its names, too
        #[arg(long, short)]
        force: bool,
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
    /// Prepare this host (store, bridge, forwarding, NAT), or take it back
    Setup {
        /// Take back what setup made, images, containers and volumes included
        #[arg(long)]
        undo: bool,
    },
    /// Print this message
    Help,
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
        matches!(self, Self::Run { .. } | Self::Exec { .. })
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
