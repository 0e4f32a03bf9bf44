//! Talks to registries: names in, verified blobs out. Filters:
//!
//! - `manifest`: a reference becomes the records of one image;
//! - `fetch`: the records become an OCI image layout as a tar stream;
//! - `archive`: an archive or a directory of images becomes such streams, without a registry;
//! - `digest`, `config`, `tags`, `blob`: each answers one question.
#![forbid(unsafe_code)]

mod archive;
mod auth;
mod cache;
pub mod challenge;
mod config;
pub mod digest;
mod download;
mod endpoint;
pub mod fetch;
pub mod layout;
pub mod manifest;
mod origin;
pub mod platform;
mod progress;
mod query;
pub mod record;
pub mod reference;
mod registry;
pub mod resolve;
mod shell;
mod stdout;
#[cfg(test)]
mod testing;

use std::io::{BufRead as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use bocker_common::diag::USAGE;
use bocker_common::say::Explain;
use bocker_common::{Error, Result};
use clap::{Parser, Subcommand};

use cache::Cache;
use config::Config;
use fetch::Manner;
use layout::Layout;
use platform::Platform;
use progress::Progress;
use record::{FAILED, Image};
use reference::Reference;

/// Talks to registries: names in, verified blobs out
#[derive(Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = false, after_help = HELP)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const HELP: &str = "Environment:
  BOCKER_PULL_INSIDE   HOST,HOST…: where a registry outside may lead inside this network (default: nowhere)
  BOCKER_PULL_TIMEOUT  seconds to wait for the next byte (default 30)";

#[derive(Subcommand)]
enum Verb {
    /// Resolve a name to one image's manifest; print it as records that fetch reads
    ///
    /// bocker-pull manifest centos 7 | awk -F'\t' '$1 == "layer" { s += $4 } END { print s }'
    Manifest {
        /// The reference
        #[arg(help = "[host[:port]/]name[:tag][@digest]")]
        name: String,
        /// The tag as a word of its own
        tag: Option<String>,
        /// Choose from an index, instead of this machine's [OS/ARCH[/VARIANT]]
        #[arg(long)]
        platform: Option<String>,
        /// Print the manifest itself
        #[arg(long)]
        raw: bool,
        #[command(flatten)]
        explain: Explain,
    },
    /// Read records on stdin, fetch what they name; write an OCI image layout as a tar stream
    ///
    /// bocker-pull manifest centos:7 | bocker-pull fetch > image.tar; skopeo inspect oci-archive:image.tar
    Fetch {
        /// No progress bars
        #[arg(short, long)]
        quiet: bool,
        /// Write lines "DIGEST  GOT  TOTAL" to this open descriptor
        #[arg(long, value_name = "N", value_parser = descriptor)]
        progress_fd: Option<u32>,
        /// Fetch so many blobs at once
        #[arg(long, value_name = "N", default_value = "3", value_parser = jobs)]
        jobs: usize,
        /// Keep what an interrupted fetch had here, and go on from there
        #[arg(long, value_name = "DIR")]
        cache: Option<PathBuf>,
        /// Most bytes that older interrupted fetches keep; the oldest leave
        #[arg(long, value_name = "SIZE", default_value = "10G", value_parser = size, requires = "cache")]
        cache_max: u64,
        #[command(flatten)]
        explain: Explain,
    },
    /// Read an archive (docker save's, an oci-archive; plain, by gzip or by zstd) or an OCI layout; write an OCI image layout for each image in it
    ///
    /// docker save debian:12 | bocker-pull archive | bocker-store load
    Archive {
        /// Most bytes of a pipe, or of what is compressed, that are kept in $TMPDIR meanwhile
        #[arg(long, value_name = "SIZE", default_value = "10G", value_parser = size)]
        keep_max: u64,
        /// A file, a directory, or - for stdin
        #[arg(default_value = "-")]
        from: PathBuf,
    },
    /// Print the canonical name of what a name stands for now: name@sha256:…
    ///
    /// bocker-pull digest centos 7 > pinned; bocker-pull manifest "$(cat pinned)"
    Digest {
        #[command(flatten)]
        names: Names,
        /// Of the image for this platform, instead of the whole index [OS/ARCH[/VARIANT]]
        #[arg(long)]
        platform: Option<String>,
        #[command(flatten)]
        explain: Explain,
    },
    /// Print an image's configuration, JSON
    ///
    /// bocker-pull config centos 7 | jq .config.Cmd
    Config {
        #[command(flatten)]
        names: Names,
        /// Choose from an index, instead of this machine's [OS/ARCH[/VARIANT]]
        #[arg(long)]
        platform: Option<String>,
        #[command(flatten)]
        explain: Explain,
    },
    /// Print the tags of a repository, one a line
    ///
    /// bocker-pull tags centos | sort -V | tail -n 1
    Tags {
        /// The reference, without tag
        #[arg(help = "[host[:port]/]name")]
        name: String,
        #[command(flatten)]
        explain: Explain,
    },
    /// Print one blob of a repository; status 0 says that it is what its digest says
    ///
    /// bocker-pull manifest centos:7 | awk -F'\t' '$1 == "layer" { print $3; exit }' | xargs bocker-pull blob centos:7 | tar tz
    Blob {
        /// The reference
        #[arg(help = "[host[:port]/]name")]
        name: String,
        /// sha256:…
        digest: String,
        #[command(flatten)]
        explain: Explain,
    },
}

/// A name, or `-` for lines of them.
#[derive(clap::Args)]
struct Names {
    /// The reference; - reads names on stdin, one a line
    #[arg(help = "[host[:port]/]name[:tag][@digest], or - for lines of them on stdin")]
    name: String,
    /// The tag as a word of its own
    tag: Option<String>,
}

impl Names {
    /// Does `act` for each of the names; the first error ends it.
    fn each(&self, config: &Config, mut act: impl FnMut(Reference) -> Result<()>) -> Result<()> {
        if self.name != "-" || self.tag.is_some() {
            return act(refer(&self.name, self.tag.as_deref(), config)?);
        }
        for line in std::io::stdin().lock().take(NAMES_MAX).lines() {
            let line = line.map_err(|e| Error::new("read", "stdin", e))?;
            let mut words = line.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (None, ..) => {}
                (Some(name), tag, None) => act(refer(name, tag, config)?)?,
                _ => return Err(refer(&line, None, config).err().unwrap_or_else(Error::explained_elsewhere)),
            }
        }
        Ok(())
    }
}

fn descriptor(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("'{text}' is not the number of a descriptor"))
}

fn jobs(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=16).contains(number));
    number.ok_or_else(|| format!("'{text}' is not a number of blobs at once (1 to 16)"))
}

fn size(text: &str) -> Result<u64, String> {
    let size = parse_size::Config::new().with_binary().parse_size(text);
    size.map_err(|_| format!("'{text}' is not a size (they look like 10G)"))
}

/// Most bytes of names on stdin.
const NAMES_MAX: u64 = 64 << 20;

/// Runs the tool with the words of the command line.
///
/// # Errors
/// One line for stderr. The stage after us, if there is one, has been told.
pub fn main() -> Result<ExitCode> {
    let cli: Cli = bocker_common::entry::parse(|_| None).inspect_err(|_| {
        if stdout::is_pipe() {
            match std::env::args_os().nth(1) {
                Some(verb) if verb == "fetch" || verb == "archive" => {
                    drop(stdout::file().map(|file| Layout::new(file).fail()))
                }
                _ => drop(print(FAILED.as_bytes())),
            }
        }
    })?;
    match cli.verb {
        Verb::Manifest { name, tag, platform, raw, explain } => {
            let go = || {
                let config = Config::from_env()?;
                let reference = refer(&name, tag.as_deref(), &config)?;
                let platform = platform.as_deref().map_or_else(|| Ok(Platform::here()), str::parse)?;
                resolve::run(reference, platform, raw, &config, explain)
            };
            go().inspect_err(|_| {
                if stdout::is_pipe() {
                    let _ = match (explain.dry_run, raw) {
                        (true, _) => print(b"exit 1\n"),
                        (false, true) => Ok(()),
                        (false, false) => print(FAILED.as_bytes()),
                    };
                }
            })?;
        }
        Verb::Digest { names, platform, explain } => {
            let config = Config::from_env()?;
            let platform = platform.as_deref().map(str::parse::<Platform>).transpose()?;
            names.each(&config, |reference| query::digest(reference, platform.clone(), &config, explain))?;
        }
        Verb::Config { names, platform, explain } => {
            let config = Config::from_env()?;
            let platform = platform.as_deref().map_or_else(|| Ok(Platform::here()), str::parse)?;
            let several = names.name == "-";
            names.each(&config, |reference| {
                query::config(reference, platform.clone(), &config, explain)?;
                // One a line: the bytes themselves need not end with a line break.
                if several && !explain.dry_run { print(b"\n") } else { Ok(()) }
            })?;
        }
        Verb::Tags { name, explain } => {
            let config = Config::from_env()?;
            query::tags(&name, refer(&name, None, &config)?, &config, explain)?;
        }
        Verb::Blob { name, digest, explain } => {
            let config = Config::from_env()?;
            let digest = digest.parse().map_err(|reason: String| {
                let shown: String = digest.chars().take(64).collect();
                Error::plain(format!("'{shown}' is not a digest: {reason}")).status(USAGE)
            })?;
            if stdout::is_terminal() && !explain.dry_run {
                return Err(Error::plain("blob: stdout is a terminal (its bytes go to a file or a pipe)"));
            }
            query::blob(refer(&name, None, &config)?, digest, &config, explain)?;
        }
        Verb::Archive { keep_max, from } => {
            if stdout::is_terminal() {
                return Err(Error::plain("archive: stdout is a terminal (an archive goes to a file or a pipe)"));
            }
            let mut layout = Layout::new(stdout::file()?);
            archive::run(&from, keep_max, &mut layout).inspect_err(|_| {
                if stdout::is_pipe() {
                    layout.fail();
                }
            })?;
        }
        Verb::Fetch { quiet, progress_fd, jobs, cache, cache_max, explain } => {
            if stdout::is_terminal() && !explain.dry_run {
                return Err(Error::plain("fetch: stdout is a terminal (an archive goes to a file or a pipe)"));
            }
            let mut layout = Layout::new(stdout::file()?);
            let go = |layout: &mut _| {
                let progress = Progress::new(quiet, progress_fd)?;
                let cache = cache.filter(|_| !explain.dry_run).map(|dir| Cache::open(&dir, cache_max)).transpose()?;
                let manner = Manner { jobs, cache, progress };
                let image = Image::read(std::io::stdin().lock())?;
                fetch::run(&image, layout, manner, &Config::from_env()?, explain)
            };
            go(&mut layout).inspect_err(|_| {
                if stdout::is_pipe() {
                    if explain.dry_run { drop(print(b"exit 1\n")) } else { layout.fail() }
                }
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The reference that a person typed. Where a file of theirs makes it something else than it looks, that is said.
fn refer(name: &str, tag: Option<&str>, config: &Config) -> Result<Reference> {
    let reference = Reference::parse_with(name, tag, &config.short)?;
    let plain = Reference::parse(name, tag)?;
    if plain.logical_name() != reference.logical_name() {
        let short = plain.typed().split(['@', ':']).next().unwrap_or_default();
        let file = config.short.full(short).map(|(_, file)| format!(" ({})", file.display())).unwrap_or_default();
        remark(format!("{short} is {} here{file}", reference.logical_name()));
    }
    Ok(reference)
}

/// One line on stderr that is no error.
pub(crate) fn remark(line: String) {
    let _ = std::io::stderr().write_all(format!("bocker-pull: {}\n", bocker_common::diag::printable(&line)).as_bytes());
}

fn print(bytes: &[u8]) -> Result<()> {
    stdout::file()?.write_all(bytes).map_err(|e| Error::stdout(&e))
}
