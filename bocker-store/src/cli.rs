//! The words of the command line.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bocker_common::diag::{Reason, USAGE};
use bocker_common::entry::{need_root, one_line};
use bocker_common::id::{BASE, FIRST, LAST, end_lines};
use bocker_common::say::Explain;
use bocker_common::userns::Ranges;
use bocker_common::{Error, Kind, Result};
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::holder::Holder;
use crate::remember::Remembered;
use crate::store::{Store, parse_range};
use crate::{
    called, cp, diff, doctor, export, from_tar, fsck, have, inspect, logs, names, network, partials, pool, prune, ps,
    save, unpack, update, usage, verbs, volumes,
};

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

#[derive(Debug, Clone, Copy, Args)]
struct Held {
    /// The container is held for this process, else for our parent, while that lives: nobody else removes it
    #[arg(long, value_name = "PID", num_args = 0..=1, require_equals = true)]
    holder: Option<Option<i32>>,
}

impl Held {
    fn holder(self) -> Option<Holder> {
        self.holder.and_then(Holder::of)
    }
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
        /// With --undo: only see whether it would be refused
        #[arg(long, requires = "undo")]
        check: bool,
        #[command(flatten)]
        explain: Explain,
    },
    /// Make an image from a directory, or from a tar archive on stdin; prints its id
    Import {
        /// Where it comes from; a name, as debian:12, becomes the image's [default: DIR]
        #[arg(long)]
        source: Option<String>,
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
        /// The root directory of the image to be; -: a tar archive of one on stdin, plain, by gzip or by zstd
        dir: OsString,
    },
    /// Write a root file system to stdout as a tar archive; the same tree gives the same bytes
    Export {
        /// No time in it is later than this, seconds since 1970 [default: $SOURCE_DATE_EPOCH]
        #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
        source_date_epoch: Option<i64>,
        #[command(flatten)]
        setup: Setup,
        /// An image's id or name, or a container's id
        id: OsString,
    },
    /// Make an image from an OCI layout, a tar stream on stdin; prints its id
    Unpack {
        /// Where it comes from; a name, as debian:12, becomes the image's [default: the name in index.json]
        #[arg(long)]
        source: Option<String>,
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
    },
    /// Write images with their names to stdout as an archive, an OCI layout that docker load reads, too; the same images give
    /// the same bytes
    Save {
        /// Write to this file instead
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        setup: Setup,
        /// Their ids or names
        #[arg(required = true)]
        images: Vec<OsString>,
    },
    /// Make an image of each of the OCI layouts, one after the other on stdin, with its names there; tells of them as docker
    Load {
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
        remembered: Remembered,
        #[command(flatten)]
        held: Held,
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
        /// The image's id or name, then the command that it is for, as `ps` shows it
        #[arg(trailing_var_arg = true, required = true, value_name = "IMAGE [--] COMMAND")]
        words: Vec<OsString>,
    },
    /// Replace an image by a snapshot of a container; by name: make one of that name, and print its id
    Commit {
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
        /// The container's id or name
        container: OsString,
        /// The image's id, or a name
        image: OsString,
    },
    /// Print the id of a container, or an image, by its name or the beginning of its id
    Id {
        /// Only of a container
        #[arg(long)]
        container: bool,
        /// Print nothing, and succeed only where it is certain that there is no such image
        #[arg(long, conflicts_with = "container")]
        missing: bool,
        #[command(flatten)]
        setup: Setup,
        /// A name; ps_42 or 42 where one container's id begins so
        name: OsString,
    },
    /// Give a container another name
    Rename {
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
        /// Its id or name
        container: OsString,
        /// The new one
        name: OsString,
    },
    /// Print a container's limits, or change what it gets at its next start
    Limits {
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
        /// Its id or name
        container: OsString,
        #[command(flatten)]
        wanted: update::Wanted,
    },
    /// Print what a container tells bocker-net at its next start, or let it join and leave networks then
    Network {
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
        /// Its id or name
        container: OsString,
        #[command(flatten)]
        wanted: network::Wanted,
    },
    /// Give an image a name, or one more; the image that had it loses it
    Tag {
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
        /// Its id, or a name that it has
        image: OsString,
        /// As debian:12 or localhost:5000/group/name:tag
        name: OsString,
    },
    /// Take a name away; the image stays
    Untag {
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
        /// The name
        name: OsString,
    },
    /// Delete an image, or a container that does not run; by an image's name: the name, and the image if it has no other
    Rm {
        #[command(flatten)]
        what: verbs::Removal,
        #[command(flatten)]
        held: Held,
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
        /// Its id or name
        id: OsString,
    },
    /// Print where an image or a container lies
    Path {
        /// Only if it is a container
        #[arg(long)]
        container: bool,
        /// Only if it is a container that runs
        #[arg(long)]
        running: bool,
        /// Only if it does not run, and the names that follow from its id are its own
        #[arg(long, conflicts_with = "running")]
        stopped: bool,
        /// With --stopped: wait for another process that has it, and not only ten seconds
        #[arg(long, requires = "stopped")]
        wait: bool,
        #[command(flatten)]
        held: Held,
        #[command(flatten)]
        setup: Setup,
        /// Its id or name
        id: OsString,
    },
    /// List the images
    Images {
        /// One JSON object a line: id, names, source
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        setup: Setup,
    },
    /// List the containers
    Ps {
        #[command(flatten)]
        wanted: ps::Wanted,
        #[command(flatten)]
        setup: Setup,
    },
    /// Print what is known of images and containers
    Inspect {
        /// One JSON object for each, with the whole configuration
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        setup: Setup,
        /// Their ids or names
        #[arg(required = true)]
        ids: Vec<OsString>,
    },
    /// List the steps of an image's making, the last one first: layer, time, command, comment
    History {
        /// One JSON object a line: layer, created, created_by, comment
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        setup: Setup,
        /// The image's id, or a name
        image: OsString,
    },
    /// Print a text file of an image or a container: log, cmd, source, config, …
    Cat {
        #[command(flatten)]
        setup: Setup,
        /// Its id or name
        id: OsString,
        /// The file's name
        file: OsString,
    },
    /// Print what a container has written: its stdout to stdout, its stderr to stderr
    Logs {
        #[command(flatten)]
        wanted: logs::Wanted,
        #[command(flatten)]
        setup: Setup,
        /// The container's id
        id: OsString,
    },
    /// Write a file or a directory of a container to stdout, a tar archive; PATH/. is what is in a directory
    CpOut {
        #[command(flatten)]
        how: cp::Out,
        #[command(flatten)]
        setup: Setup,
        /// The container's id
        id: OsString,
        /// The path inside
        path: OsString,
    },
    /// Put what a tar archive on stdin holds, plain, by gzip or by zstd, into a directory of a container; where PATH is none, the
    /// archive's one thing gets its name
    CpIn {
        #[command(flatten)]
        how: cp::In,
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
        /// The container's id
        id: OsString,
        /// The path inside
        path: OsString,
    },
    /// Print what is at a path of a container, as `directory 755 4096` with tabs; none: nothing, and it could be made
    CpStat {
        /// Where PATH is a link: what it leads to
        #[arg(long, short = 'L')]
        follow_link: bool,
        /// Nothing there is an error
        #[arg(long)]
        existing: bool,
        #[command(flatten)]
        setup: Setup,
        /// The container's id
        id: OsString,
        /// The path inside
        path: OsString,
    },
    /// Volumes: what containers share and leave behind
    #[command(subcommand)]
    Volume(Volume),
    /// List what a container has changed since it was made: A (added), C (changed) or D (deleted), and the path
    Diff {
        /// One JSON object a line: change, path
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        setup: Setup,
        /// The container's id or name
        container: OsString,
    },
    /// Print the bytes on the disk of each image, container, layer and volume: alone, and shared with others
    Df {
        /// One JSON object a line: name, exclusive, shared
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        setup: Setup,
    },
    /// Say in what state the store is and what this host has for it, and the way out: ok, warn or bad, WHAT, DETAIL
    Doctor,
    /// Look whether names, text files and subvolumes say the same; prints what does not, changes nothing
    Fsck {
        /// One JSON object a line: name, finding
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        setup: Setup,
    },
    /// List what nobody needs any more, with the bytes that it takes, or remove it: images that have lost their name and
    /// that no container was made from
    Prune {
        #[command(flatten)]
        wanted: prune::Wanted,
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
    },
    /// Of the ids on stdin, one a line, print those of containers that have ended, or that are in no store of this host
    /// and are not busy
    Orphans {
        #[command(flatten)]
        setup: Setup,
    },
    /// Remove what a crash left half-made, layers that no image needs, and what interrupted pulls had; prints the names
    Gc {
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
    },
}

#[derive(Debug, Subcommand)]
enum Volume {
    /// Make an empty volume, unless it is there; prints its name
    Create {
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
        /// Its name [default: 64 random digits]
        name: Option<OsString>,
    },
    /// List the volumes
    #[command(visible_alias = "list")]
    Ls {
        /// One JSON object a line: name, driver, mountpoint, created, containers
        #[arg(long, conflicts_with = "quiet")]
        json: bool,
        /// Names only
        #[arg(long, short)]
        quiet: bool,
        #[command(flatten)]
        setup: Setup,
    },
    /// Delete volumes that no container has; prints their names
    Rm {
        /// One that is not there is no error
        #[arg(long, short)]
        force: bool,
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
        /// Their names
        #[arg(required = true)]
        names: Vec<OsString>,
    },
    /// List volumes without a chosen name that no container has, with their bytes, or remove them
    Prune {
        /// Those with a chosen name, too
        #[arg(long, short)]
        all: bool,
        #[command(flatten)]
        how: prune::How,
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        explain: Explain,
    },
    /// Print what is known of volumes
    Inspect {
        /// One JSON object for each
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        setup: Setup,
        /// Their names
        #[arg(required = true)]
        names: Vec<OsString>,
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
        _ => bocker_common::tarball::shown(one_line(&error.to_string()).as_bytes()),
    };
    Err(Error::plain(text).hint("bocker-store --help").status(USAGE))
}

/// The store's absolute path, without links and `..`: what lies beside it, what is mounted at it and whose an id is are
/// all found by this name.
#[expect(clippy::disallowed_methods, reason = "where the store is")]
fn root(given: Option<PathBuf>) -> Result<PathBuf> {
    let given = given.or_else(|| std::env::var_os("BOCKER_ROOT").filter(|value| !value.is_empty()).map(PathBuf::from));
    let path = given.unwrap_or_else(|| PathBuf::from(DEFAULT_ROOT));
    let fail = |why: Reason| Error::new("use", path.display(), why);
    // `x/` and `x` are one store, and `x.btrfs` lies beside it.
    let absolute: PathBuf = std::path::absolute(&path).map_err(|e| fail(e.into()))?.components().collect();
    let real = match (absolute.canonicalize(), absolute.parent(), absolute.file_name()) {
        (Err(e), Some(parent), Some(name)) if e.kind() == std::io::ErrorKind::NotFound => {
            if absolute.is_symlink() {
                return Err(fail("it is a link that leads nowhere".into()));
            }
            // Not made yet. Where its parent is not either, whoever makes it says so.
            parent.canonicalize().map_or_else(|_| absolute.clone(), |parent| parent.join(name))
        }
        // No directory on the way there, or one that is closed: whoever opens it says so.
        (Err(_), ..) => absolute,
        (Ok(real), ..) => real,
    };
    if real.as_os_str().as_bytes().contains(&b'\n') {
        return Err(
            fail("there is a line break in its name, and paths are told as lines".into()).hint("another BOCKER_ROOT")
        );
    }
    Ok(real)
}

/// Opens the store; where there is none and that is wanted, makes it first.
fn open(root: &Path, setup: Setup, explain: Explain) -> Result<Store> {
    if setup.setup && !pool::complete(root)? {
        init(root, pool::DEFAULT_SIZE, explain)?;
    }
    Store::open(root)
}

/// Makes or mounts the store; says in one line what it did, or what it will not touch. Silent where nothing was to do.
#[expect(clippy::disallowed_methods, reason = "whether the pool is there")]
fn init(root: &Path, size: u64, explain: Explain) -> Result<()> {
    let file = pool::file_of(root);
    let (known, open) = (file.exists(), pool::ready(root)?);
    let changed = pool::init(root, size, explain)?;
    if explain.dry_run {
        return Ok(());
    }
    let made_file = file.exists();
    let (root, file) = (root.display(), file.display());
    let line = match (changed, known, made_file) {
        (true, ..) if open => format!("{root} was open to others; its mode is 700 now"),
        (true, true, _) => format!("mounted {file} on {root}"),
        (true, false, true) => format!("made the store {root}, a btrfs in {file} (undo: bocker-store init --undo)"),
        (true, false, false) => format!("made the store {root} in the btrfs that is there"),
        (false, _, false) => format!("{root} is a btrfs that init did not make; it is used, and stays"),
        (false, _, true) => return Ok(()),
    };
    let _ = writeln!(std::io::stderr(), "bocker-store: {line}");
    Ok(())
}

fn texts(words: &[OsString]) -> Vec<String> {
    words.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

fn volume(root: &Path, verb: Volume) -> Result<()> {
    let none = Explain::default();
    match verb {
        Volume::Create { setup, explain, name } => {
            let name = name.map(|name| name.to_string_lossy().into_owned());
            volumes::create(&open(root, setup, explain)?, name.as_deref(), explain)
        }
        Volume::Ls { json, quiet, setup } => volumes::ls(&open(root, setup, none)?, json, quiet),
        Volume::Rm { force, setup, explain, names } => {
            volumes::rm(&open(root, setup, explain)?, &texts(&names), force, explain)
        }
        Volume::Prune { all, how, setup, explain } => {
            prune::prune_volumes(&open(root, setup, explain)?, all, how, explain)
        }
        Volume::Inspect { json, setup, names } => volumes::inspect(&open(root, setup, none)?, &texts(&names), json),
    }
}

fn run(cli: Cli) -> Result<()> {
    need_root("bocker-store")?;
    let root = root(cli.root)?;
    let none = Explain::default();
    match cli.verb {
        Verb::Init { check: true, .. } => pool::check_undo(&root),
        Verb::Init { undo: true, explain, .. } => {
            pool::undo(&root, explain)?;
            partials::sweep(&root, explain, |_| Ok(()))
        }
        Verb::Init { size, explain, .. } => init(&root, size, explain),
        Verb::Import { source, setup, explain, dir } if dir == "-" => {
            from_tar::refuse_terminal(explain)?;
            let store = open(&root, setup, explain)?;
            let id = from_tar::import(&store, source.as_deref(), explain)?;
            names::name_by_source(&store, id, source.as_deref(), explain)?;
            if explain.dry_run { Ok(()) } else { verbs::print(format!("{id}\n").as_bytes()) }
        }
        Verb::Export { source_date_epoch, setup, id } => {
            export::export(&open(&root, setup, none)?, &id.to_string_lossy(), source_date_epoch)
        }
        Verb::Import { source, setup, explain, dir } => {
            verbs::import(|| open(&root, setup, explain), Path::new(&dir), source.as_deref(), explain)
        }
        Verb::Unpack { source, setup, explain } => {
            let store = open(&root, setup, explain)?;
            let id = unpack::unpack(&store, source.as_deref(), explain)?;
            names::name_by_source(&store, id, source.as_deref(), explain)?;
            if explain.dry_run { Ok(()) } else { verbs::print(format!("{id}\n").as_bytes()) }
        }
        Verb::Save { output, setup, images } => {
            save::save(|| open(&root, setup, none), &texts(&images), output.as_deref())
        }
        Verb::Load { setup, explain } => unpack::load(&open(&root, setup, explain)?, explain, |id, names| {
            let mut out: String = names.iter().map(|name| format!("Loaded image: {}\n", name.familiar())).collect();
            if names.is_empty() {
                out = format!("Loaded image ID: {id}\n");
            }
            verbs::print(out.as_bytes())
        }),
        Verb::Snapshot { ids, remembered, held, setup, explain, words } => {
            let ids = ids.unwrap_or((FIRST, LAST));
            let mut words = words.into_iter().peekable();
            let image = words.next().unwrap_or_default();
            words.next_if(|word| word == "--");
            let words: Vec<_> = words.collect();
            let remembered = remembered.with_stdin()?;
            let ids = if remembered.own_users() { with_users(ids, Ranges::read(Path::new("/etc"))?)? } else { ids };
            let store = open(&root, setup, explain)?;
            verbs::snapshot(&store, &image.to_string_lossy(), ids, &words, remembered, held.holder(), explain)
        }
        Verb::Commit { setup, explain, container, image } => {
            let store = open(&root, setup, explain)?;
            verbs::commit(&store, &container.to_string_lossy(), &image.to_string_lossy(), explain)
        }
        Verb::Tag { setup, explain, image, name } => {
            names::tag(&open(&root, setup, explain)?, &image.to_string_lossy(), &name.to_string_lossy(), explain)
        }
        Verb::Untag { setup, explain, name } => {
            names::untag(&open(&root, setup, explain)?, &name.to_string_lossy(), explain)
        }
        Verb::Id { missing: true, setup, name, .. } => {
            names::is_missing(&open(&root, setup, none)?, &name.to_string_lossy())
        }
        Verb::Id { container, setup, name, .. } => {
            let (store, name) = (open(&root, setup, none)?, name.to_string_lossy());
            let id = if container { store.find(Kind::Container, &name) } else { store.find_any(&name) }?;
            verbs::print(format!("{id}\n").as_bytes())
        }
        Verb::Limits { setup, explain, container, wanted } => {
            update::limits(&open(&root, setup, explain)?, &container.to_string_lossy(), &wanted, explain)
        }
        Verb::Network { setup, explain, container, wanted } => {
            network::network(&open(&root, setup, explain)?, &container.to_string_lossy(), &wanted, explain)
        }
        Verb::Rename { setup, explain, container, name } => called::rename(
            &open(&root, setup, explain)?,
            &container.to_string_lossy(),
            &name.to_string_lossy(),
            explain,
        ),
        Verb::Rm { what, held, setup, explain, id } => {
            verbs::rm(&open(&root, setup, explain)?, &id.to_string_lossy(), what, held.holder(), explain)
        }
        Verb::Path { container, running, stopped, wait, held, setup, id } => {
            let must = match (running, stopped) {
                (true, _) => verbs::Must::Run,
                (_, true) => verbs::Must::Stand { wait },
                _ => verbs::Must::Be,
            };
            let store = open(&root, setup, none)?;
            let name = id.to_string_lossy();
            let id = if container || running { store.find(Kind::Container, &name)? } else { store.find_any(&name)? };
            verbs::path(&store, id, must, held.holder())
        }
        Verb::Have => {
            // Nothing is there where there is no store.
            let store = if pool::ready(&root)? { Some(Store::open(&root)?) } else { None };
            verbs::print(&have::filter(store.as_ref(), std::io::stdin().lock())?)
        }
        Verb::Volume(verb) => volume(&root, verb),
        Verb::Diff { json, setup, container } => {
            diff::diff(&open(&root, setup, none)?, &container.to_string_lossy(), json)
        }
        Verb::Df { json, setup } => usage::df(&open(&root, setup, none)?, json),
        Verb::Doctor => doctor::doctor(&root),
        Verb::Fsck { json, setup } => fsck::fsck(&open(&root, setup, none)?, json),
        Verb::Prune { wanted, setup, explain } => prune::prune(&open(&root, setup, explain)?, wanted, explain),
        Verb::Orphans { setup } => end_lines(open(&root, setup, none).and_then(|store| verbs::orphans(&store))),
        Verb::Images { json, setup } => verbs::images(&open(&root, setup, none)?, json),
        Verb::Ps { wanted, setup } => ps::ps(&open(&root, setup, none)?, &wanted),
        Verb::Inspect { json, setup, ids } => inspect::inspect(&open(&root, setup, none)?, &texts(&ids), json),
        Verb::History { json, setup, image } => {
            inspect::history(&open(&root, setup, none)?, &image.to_string_lossy(), json)
        }
        Verb::Cat { setup, id, file } => {
            verbs::cat(&open(&root, setup, none)?, &id.to_string_lossy(), &file.to_string_lossy())
        }
        Verb::CpOut { how, setup, id, path } => cp::out(&open(&root, setup, none)?, &id.to_string_lossy(), &path, &how),
        Verb::CpIn { how, setup, explain, id, path } => {
            cp::into(&open(&root, setup, explain)?, &id.to_string_lossy(), &path, how, explain)
        }
        Verb::CpStat { follow_link, existing, setup, id, path } => {
            cp::stat(&open(&root, setup, none)?, &id.to_string_lossy(), &path, follow_link, existing)
        }
        Verb::Logs { wanted, setup, id } => logs::logs(&open(&root, setup, none)?, &id.to_string_lossy(), &wanted),
        Verb::Gc { setup, explain } => verbs::gc(&open(&root, setup, explain)?, explain),
    }
}

/// Of these ids those that have users of their own: a wide subnet has more ids than there are ranges of them.
fn with_users((first, last): (u32, u32), ranges: Ranges) -> Result<(u32, u32)> {
    let last = last.min(BASE + ranges.most().saturating_sub(1));
    if first <= last {
        return Ok((first, last));
    }
    let error = Error::plain(format!("snapshot: no user ids for containers from ps_{first} on"));
    Err(error.hint("a line bocker:START:COUNT in /etc/subuid and /etc/subgid, or --userns=host"))
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
    fn no_more_ids_than_user_ids() {
        let dir = tempfile::tempdir().unwrap();
        let ranges = |count: u32| {
            let line = format!("bocker:1000000:{}\n", count * 65_536);
            ["subuid", "subgid"].iter().for_each(|name| std::fs::write(dir.path().join(name), &line).unwrap());
            Ranges::read(dir.path()).unwrap()
        };
        // 64 of them are for who has no id.
        assert_eq!(with_users((42_002, 107_534), ranges(4094)).unwrap(), (42_002, 46_029));
        assert_eq!(with_users((42_002, 42_254), ranges(4094)).unwrap(), (42_002, 42_254));
        assert_eq!(with_users((42_002, 42_254), ranges(67)).unwrap(), (42_002, 42_002));
        assert!(with_users((42_002, 42_254), ranges(66)).is_err());
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
        let host = tempfile::tempdir().unwrap();
        let top = host.path().canonicalize().unwrap();
        std::fs::create_dir(top.join("real")).unwrap();
        std::os::unix::fs::symlink("real", top.join("link")).unwrap();
        let of = |name: &str| root(Some(top.join(name)));
        for (name, path) in [
            ("real", "real"),
            ("real/", "real"),
            (".//real/.", "real"),
            ("real/../real", "real"),
            ("link", "real"),
            ("link/../link/", "real"),
            // Not made yet.
            ("new", "new"),
            ("real/../new", "new"),
            ("link/new", "real/new"),
            // Nor can it be.
            ("no/such/place", "no/such/place"),
        ] {
            assert_eq!(of(name).unwrap(), top.join(path), "{name}");
        }
        assert!(root(Some("x".into())).unwrap().is_absolute());
        std::os::unix::fs::symlink("nowhere", top.join("dangling")).unwrap();
        assert!(of("dangling").unwrap_err().to_string().ends_with("it is a link that leads nowhere"));
        assert!(of("a\nb").unwrap_err().to_string().contains("line break"));
    }
}
