//! Talks to registries: names in, verified blobs out. Two filters:
//!
//! - `manifest`: a reference becomes the records of one image;
//! - `fetch`: the records become an OCI image layout as a tar stream.
#![forbid(unsafe_code)]

pub mod challenge;
pub mod digest;
pub mod fetch;
pub mod layout;
pub mod manifest;
mod origin;
pub mod platform;
mod progress;
pub mod record;
pub mod reference;
pub mod registry;
pub mod resolve;
mod shell;
mod stdout;
#[cfg(test)]
mod testing;

use std::io::Write;
use std::process::ExitCode;

use bocker_common::diag::USAGE;
use bocker_common::say::Explain;
use bocker_common::{Error, Result};
use clap::{Parser, Subcommand};

use layout::Layout;
use platform::Platform;
use record::{FAILED, Image};
use reference::Reference;

/// Talks to registries: names in, verified blobs out
#[derive(Parser)]
#[command(version, max_term_width = 100)]
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
        /// [host[:port]/]name[:tag][@digest]
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
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            print(error.render().to_string().as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => {
            let fetch = std::env::args_os().nth(1).is_some_and(|verb| verb == "fetch");
            if stdout::is_pipe() {
                if fetch { Layout::new(stdout::file()?).fail() } else { print(FAILED.as_bytes())? }
            }
            return Err(usage(&error));
        }
    };
    match cli.verb {
        Verb::Manifest { name, tag, platform, raw, explain } => {
            let go = || {
                let reference = Reference::parse(&name, tag.as_deref())?;
                let platform = platform.as_deref().map_or_else(|| Ok(Platform::here()), str::parse)?;
                resolve::run(reference, platform, raw, explain)
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
                fetch::run(&image, layout, quiet, explain)
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

fn print(bytes: &[u8]) -> Result<()> {
    stdout::file()?.write_all(bytes).map_err(|e| stdout::error(&e))
}

/// clap's complaint in one line.
fn usage(error: &clap::Error) -> Error {
    let text = error.render().to_string();
    let lines: Vec<&str> = text.lines().take_while(|line| !line.starts_with("Usage:")).map(str::trim).collect();
    let line = lines.join(" ").trim().trim_start_matches("error: ").chars().take(300).collect::<String>();
    let line = if line.is_empty() || line.contains("Talks to registries") { "a verb is missing".into() } else { line };
    Error::plain(line).hint("bocker-pull --help").status(USAGE)
}
