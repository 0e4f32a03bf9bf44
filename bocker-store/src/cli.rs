//! The words of the command line.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bocker_common::diag::USAGE;
use bocker_common::entry::{need_root, one_line};
use bocker_common::id::{FIRST, LAST};
use bocker_common::say::Explain;
use bocker_common::{Error, Result};
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::store::{Store, parse_range};
use crate::{have, pool, unpack, verbs};

const DEFAULT_ROOT: &str = "/var/bocker";

/// Images and containers as btrfs subvolumes
#[derive(Debug, Parser)]
#[command(name = "bocker-store", version, disable_help_subcommand = true)]
struct Cli {
    /// The store [default: $BOCKER_ROOT, else /var/bocker]
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Copy, Args)]
struct Setup {
    /// Make the store first where there is none
    #[arg(long)]
    setup: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the store: btrfs in a sparse file, mounted; or mount it again
    Init {
        /// Size of the file, as 10G; it takes room as it is filled
        #[arg(long, value_parser = pool::parse_size, default_value = "10G", conflicts_with = "undo")]
        size: u64,
        /// Unmount it and remove it with all in it
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        explain: Explain,
    },
    /// Make an image from a directory; prints its id
    Import {
        /// What `images` shows [default: DIR]
        #[arg(long)]
        source: Option<String>,
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
        /// The root directory of the image to be
        dir: OsString,
    },
    /// Make an image from an OCI layout, a tar stream on stdin; prints its id
    Unpack {
        /// What `images` shows [default: the name in index.json]
        #[arg(long)]
        source: Option<String>,
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
    },
    /// Pass the records of `bocker-pull manifest` on, and name the blobs that need not be fetched
    Have,
    /// Make a container, a snapshot of an image; prints its id
    Snapshot {
        /// Numbers that the id may have
        #[arg(long, value_name = "A-B", value_parser = parse_range)]
        ids: Option<(u32, u32)>,
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
        /// The image's id, then the command that it is for, as `ps` shows it
        #[arg(trailing_var_arg = true, required = true, value_name = "IMAGE [--] COMMAND")]
        words: Vec<OsString>,
    },
    /// Replace an image by a snapshot of a container
    Commit {
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
        /// The container's id
        container: OsString,
        /// The image's id
        image: OsString,
    },
    /// Delete an image, or a container that does not run
    Rm {
        /// Only a container in which nothing ever ran; else do nothing
        #[arg(long)]
        unstarted: bool,
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
        /// Its id
        id: OsString,
    },
    /// Print where an image or a container lies
    Path {
        /// Only if it is a container that runs
        #[arg(long)]
        running: bool,
        /// Only if it does not run, and the names that follow from its id are its own
        #[arg(long, conflicts_with = "running")]
        stopped: bool,
        #[command(flatten)]
        setup: Setup,
        /// Its id
        id: OsString,
    },
    /// List the images
    Images {
        /// One JSON object a line: id, source
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        setup: Setup,
    },
    /// List the containers
    Ps {
        /// One JSON object a line: id, command, image, running
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        setup: Setup,
    },
    /// Print a text file of an image or a container: log, cmd, source, config, …
    Cat {
        #[command(flatten)]
        setup: Setup,
        /// Its id
        id: OsString,
        /// The file's name
        file: OsString,
    },
    /// Of the ids on stdin, one a line, print those of containers that have ended or are in no store of this host
    Orphans {
        #[command(flatten)]
        setup: Setup,
    },
    /// Remove what a crash left half-made, and layers that no image needs; prints the names
    Gc {
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
    },
}

/// Parses, then acts.
///
/// # Errors
/// One line, with the status that goes with it.
pub fn main() -> Result<ExitCode> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    run(cli).map(|()| ExitCode::SUCCESS)
}

/// Help goes to stdout; a wrong word is one line and status 2.
fn usage(error: &clap::Error) -> Result<ExitCode> {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = write!(std::io::stdout(), "{error}");
        return Ok(ExitCode::SUCCESS);
    }
    let text = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "a verb is missing".to_owned()
        }
        _ => crate::tarball::shown(one_line(&error.to_string()).as_bytes()),
    };
    Err(Error::plain(text).hint("bocker-store --help").status(USAGE))
}

/// The store's absolute path, as it was given but for doubled slashes and a last one.
fn root(given: Option<PathBuf>) -> Result<PathBuf> {
    let given = given.or_else(|| std::env::var_os("BOCKER_ROOT").filter(|value| !value.is_empty()).map(PathBuf::from));
    let path = given.unwrap_or_else(|| PathBuf::from(DEFAULT_ROOT));
    let path = std::path::absolute(&path).map_err(|e| Error::new("use", path.display(), e))?;
    // `x/` and `x` are one store, and `x.btrfs` lies beside it.
    Ok(path.components().collect())
}

/// Opens the store; where there is none and that is wanted, makes it first.
fn open(root: &Path, setup: Setup, explain: Explain) -> Result<Store> {
    if setup.setup && !pool::ready(root)? {
        init(root, pool::DEFAULT_SIZE, explain)?;
    }
    Store::open(root)
}

/// Makes or mounts the store; says in one line what it did, or what it will not touch. Silent where nothing was to do.
fn init(root: &Path, size: u64, explain: Explain) -> Result<()> {
    let file = pool::file_of(root);
    let known = file.exists();
    let changed = pool::init(root, size, explain)?;
    if explain.dry_run {
        return Ok(());
    }
    let made_file = file.exists();
    let (root, file) = (root.display(), file.display());
    let line = match (changed, known, made_file) {
        (true, true, _) => format!("mounted {file} on {root}"),
        (true, false, true) => format!("made the store {root}, a btrfs in {file} (undo: bocker-store init --undo)"),
        (true, false, false) => format!("made the store {root} in the btrfs that is there"),
        (false, _, false) => format!("{root} is a btrfs that init did not make; it is used, and stays"),
        (false, _, true) => return Ok(()),
    };
    let _ = writeln!(std::io::stderr(), "bocker-store: {line}");
    Ok(())
}

fn run(cli: Cli) -> Result<()> {
    let root = root(cli.root)?;
    need_root("bocker-store")?;
    let none = Explain::default();
    match cli.verb {
        Verb::Init { undo: true, explain, .. } => pool::undo(&root, explain),
        Verb::Init { size, explain, .. } => init(&root, size, explain),
        Verb::Import { source, setup, explain, dir } => {
            verbs::import(|| open(&root, setup, explain), Path::new(&dir), source.as_deref(), explain)
        }
        Verb::Unpack { source, setup, explain } => {
            let id = unpack::unpack(&open(&root, setup, explain)?, source.as_deref(), explain)?;
            if explain.dry_run { Ok(()) } else { verbs::print(format!("{id}\n").as_bytes()) }
        }
        Verb::Snapshot { ids, setup, explain, words } => {
            let ids = ids.unwrap_or((FIRST, LAST));
            let mut words = words.into_iter().peekable();
            let image = words.next().unwrap_or_default();
            words.next_if(|word| word == "--");
            let words: Vec<_> = words.collect();
            verbs::snapshot(&open(&root, setup, explain)?, &image.to_string_lossy(), ids, &words, explain)
        }
        Verb::Commit { setup, explain, container, image } => {
            let store = open(&root, setup, explain)?;
            verbs::commit(&store, &container.to_string_lossy(), &image.to_string_lossy(), explain)
        }
        Verb::Rm { unstarted, setup, explain, id } => {
            verbs::rm(&open(&root, setup, explain)?, &id.to_string_lossy(), unstarted, explain)
        }
        Verb::Path { running, stopped, setup, id } => {
            let must = match (running, stopped) {
                (true, _) => verbs::Must::Run,
                (_, true) => verbs::Must::Stand,
                _ => verbs::Must::Be,
            };
            verbs::path(&open(&root, setup, none)?, &id.to_string_lossy(), must)
        }
        Verb::Have => {
            // Nothing is there where there is no store.
            let store = if pool::ready(&root)? { Some(Store::open(&root)?) } else { None };
            verbs::print(&have::filter(store.as_ref(), std::io::stdin().lock())?)
        }
        Verb::Orphans { setup } => verbs::orphans(&open(&root, setup, none)?),
        Verb::Images { json, setup } => verbs::images(&open(&root, setup, none)?, json),
        Verb::Ps { json, setup } => verbs::ps(&open(&root, setup, none)?, json),
        Verb::Cat { setup, id, file } => {
            verbs::cat(&open(&root, setup, none)?, &id.to_string_lossy(), &file.to_string_lossy())
        }
        Verb::Gc { setup, explain } => verbs::gc(&open(&root, setup, explain)?, explain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn words_after_the_mark_are_the_commands() {
        let cli = Cli::try_parse_from(["bocker-store", "snapshot", "img_42002", "--", "ls", "--setup", "-x"]).unwrap();
        let Verb::Snapshot { words, setup, .. } = cli.verb else { panic!() };
        assert_eq!((words.len(), setup.setup), (5, false));
        let error = usage(&Cli::try_parse_from(["bocker-store", "snapshot"]).unwrap_err()).unwrap_err();
        assert_eq!(error.exit_status(), USAGE);
        assert!(!error.to_string().contains('\n'), "{error}");
    }

    #[test]
    fn one_store_has_one_path() {
        assert_eq!(root(Some("/var//bocker/".into())).unwrap(), Path::new("/var/bocker"));
        assert!(root(Some("x".into())).unwrap().is_absolute());
    }
}
