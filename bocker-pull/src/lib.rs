//! Talks to registries: names in, verified blobs out. Two filters:
//!
//! - `manifest`: a reference becomes the records of one image;
//! - `fetch`: the records become an OCI image layout as a tar stream.
#![forbid(unsafe_code)]

mod auth;
pub mod challenge;
mod config;
pub mod digest;
mod endpoint;
pub mod fetch;
pub mod layout;
pub mod manifest;
mod origin;
pub mod platform;
mod progress;
pub mod record;
pub mod reference;
mod registry;
pub mod resolve;
mod shell;
mod stdout;
#[cfg(test)]
mod testing;

use std::io::Write;
use std::process::ExitCode;

use bocker_common::say::Explain;
use bocker_common::{Error, Result};
use clap::{Parser, Subcommand};

use config::Config;
use layout::Layout;
use platform::Platform;
use record::{FAILED, Image};
use reference::Reference;

/// Talks to registries: names in, verified blobs out
#[derive(Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = false)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

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
        #[command(flatten)]
        explain: Explain,
    },
}

/// Runs the tool with the words of the command line.
///
/// # Errors
/// One line for stderr. The stage after us, if there is one, has been told.
pub fn main() -> Result<ExitCode> {
    let cli: Cli = bocker_common::entry::parse(|_| None).inspect_err(|_| {
        if stdout::is_pipe() {
            match std::env::args_os().nth(1) {
                Some(verb) if verb == "fetch" => drop(stdout::file().map(|file| Layout::new(file).fail())),
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
        Verb::Fetch { quiet, explain } => {
            if stdout::is_terminal() && !explain.dry_run {
                return Err(Error::plain("fetch: stdout is a terminal (an archive goes to a file or a pipe)"));
            }
            let mut layout = Layout::new(stdout::file()?);
            let go = |layout: &mut _| {
                let image = Image::read(std::io::stdin().lock())?;
                fetch::run(&image, layout, quiet, &Config::from_env()?, explain)
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
