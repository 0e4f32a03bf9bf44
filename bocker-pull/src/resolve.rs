//! `bocker-pull manifest`: from a name to one image's manifest.

use std::io::Write;

use bocker_common::diag::printable;
use bocker_common::say::{Act, Explain, Said, perform};
use bocker_common::{Error, Result};
use reqwest::StatusCode;

use crate::config::{Config, Want};
use crate::digest::Digest;
use crate::endpoint::Endpoint;
use crate::manifest::{self, Document};
use crate::platform::Platform;
use crate::record::Image;
use crate::reference::Reference;
use crate::registry::{Patience, Registry, after_mirrors, block_on};
use crate::shell::Place;
use crate::{shell, stdout};

/// An index may name an index; more than this deep is no index that anybody made.
const DEPTH_MAX: usize = 3;

/// What `bocker-pull manifest` does.
#[derive(Debug)]
enum Step {
    /// Ask the first of these places that has it, through an index if there is one.
    Ask(Reference, Vec<Place>, Platform),
    /// Print the records. With it, the shell's temporary files.
    Records(Reference, String),
    /// Print the manifest's own bytes.
    Raw(String),
}

impl Act for Step {
    fn say(&self) -> Said {
        match self {
            Self::Ask(reference, places, platform) => Said::new(
                shell::ask(reference, places, platform),
                "the manifest lists an image's layers; an index lists manifests, one for each platform",
            ),
            Self::Records(reference, temporary) => Said::new(
                shell::records(reference, temporary),
                "the name pinned by digest, then what fetch needs, one line each",
            ),
            Self::Raw(temporary) => {
                Said::new(format!("cat \"$m\"\nrm \"$m\"{temporary}"), "its digest is that of these very bytes")
            }
        }
    }
}

/// Resolves `reference` for `platform` and prints the records, or the manifest itself if `raw`.
///
/// # Errors
/// One line; nothing was printed then.
pub(crate) fn run(
    reference: Reference,
    platform: Platform,
    raw: bool,
    config: &Config,
    explain: Explain,
) -> Result<()> {
    let endpoints = config.endpoints(&reference, Want::of(&reference))?;
    let places = shell::places(&endpoints, config, explain)?;
    let temporary = shell::temporary(&places);
    let last = if raw { Step::Raw(temporary) } else { Step::Records(reference.clone(), temporary) };
    let mut found = None;
    perform(&[Step::Ask(reference, places, platform), last], explain, |step| {
        let image: &Image = match step {
            Step::Ask(reference, _, platform) => {
                found = Some(block_on(first(&endpoints, config, reference, platform))?);
                return Ok(());
            }
            Step::Records(..) | Step::Raw(_) => found.as_ref().ok_or_else(Error::explained_elsewhere)?,
        };
        let bytes = if raw { image.bytes.clone() } else { image.write().into_bytes() };
        stdout::file()?.write_all(&bytes).map_err(|e| Error::stdout(&e))
    })
}

/// The image from the first endpoint that has it. If none has, the last one's reason, which is the registry's own.
async fn first(endpoints: &[Endpoint], config: &Config, reference: &Reference, platform: &Platform) -> Result<Image> {
    let mut before: Vec<Error> = Vec::new();
    for endpoint in endpoints {
        let registry = Registry::new(endpoint.clone(), config.places.clone(), Patience::from_env());
        match ask(&registry, reference, platform).await {
            Ok(image) => return Ok(image),
            Err(error) => before.push(error),
        }
    }
    let last = before.pop().unwrap_or_else(|| Error::plain("there is nowhere to ask"));
    Err(after_mirrors(last, &before))
}

async fn ask(registry: &Registry, reference: &Reference, platform: &Platform) -> Result<Image> {
    let wrong = |reason: String| Error::new("read", format!("manifest of {}", reference.typed()), printable(&reason));
    let accept = manifest::ACCEPT.join(", ");
    let mut pointer = reference.pointer();
    let mut expected = reference.digest().map(|digest| (digest, None));
    for _ in 0..DEPTH_MAX {
        let url = registry.url(&format!("manifests/{pointer}")).await?;
        let answer = registry.manifest(&url, &accept, manifest::SIZE_MAX).await;
        let answer = answer.map_err(|failure| match failure.status() {
            Some(StatusCode::NOT_FOUND) => Error::plain(format!("No image named '{}' exists", reference.typed())),
            _ => failure.at(&url),
        })?;
        // HTML instead of JSON is a truer complaint than its digest.
        let document = manifest::parse(&answer.bytes, answer.content_type.as_deref());
        if let Some((digest, size)) = expected {
            if let Err(reason) = &document {
                if answer.content_type.is_some_and(|kind| kind.starts_with("text/")) {
                    return Err(wrong(reason.clone()));
                }
            }
            let (length, got) = (answer.bytes.len() as u64, Digest::of(&answer.bytes));
            if size.is_some_and(|size| size != length) {
                return Err(wrong(format!("it has {length} bytes, not {}", size.unwrap_or(0))));
            }
            if got != digest {
                return Err(wrong(format!("what came is {got}, not {digest}")));
            }
        }
        match document.map_err(wrong)? {
            Document::Manifest(manifest) => return Image::new(reference, answer.bytes, manifest),
            Document::Index(index) => {
                let chosen = index.choose(platform).map_err(|reason| match reason.contains("only for") {
                    true => wrong(reason).hint("choose one with --platform"),
                    false => wrong(reason),
                })?;
                pointer = chosen.digest.to_string();
                expected = Some((chosen.digest, Some(chosen.size)));
            }
        }
    }
    Err(wrong(format!("indexes are nested more than {DEPTH_MAX} deep")))
}
