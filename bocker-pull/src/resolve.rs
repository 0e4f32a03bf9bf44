//! `bocker-pull manifest`: from a name to one image's manifest.

use bocker_common::diag::printable;
use bocker_common::say::{Act, Explain, Said, perform};
use bocker_common::{Error, Result};
use reqwest::StatusCode;

use crate::config::{Config, Want};
use crate::digest::Digest;
use crate::download::Sources;
use crate::manifest::{self, Document};
use crate::platform::Platform;
use crate::record::Image;
use crate::reference::Reference;
use crate::registry::{Registry, block_on};
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
                shell::ask(reference, places, Some(platform)),
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
    let sources = Sources::new(endpoints, config);
    let mut found = None;
    perform(&[Step::Ask(reference, places, platform), last], explain, |step| {
        let image: &Image = match step {
            Step::Ask(reference, _, platform) => {
                found = Some(block_on(sources.first(async |registry| ask(registry, reference, platform).await))?);
                return Ok(());
            }
            Step::Records(..) | Step::Raw(_) => found.as_ref().ok_or_else(Error::explained_elsewhere)?,
        };
        let bytes = if raw { image.bytes.clone() } else { image.write().into_bytes() };
        if raw { stdout::text(&bytes) } else { crate::print(&bytes) }
    })
}

/// The image that `reference` names, at one registry.
///
/// # Errors
/// One line.
pub(crate) async fn ask(registry: &Registry, reference: &Reference, platform: &Platform) -> Result<Image> {
    let mut pointer = reference.pointer();
    let mut expected = reference.digest().map(|digest| (digest, None));
    let mut called: Option<String> = None;
    for _ in 0..DEPTH_MAX {
        let (bytes, document) = document(registry, reference, &pointer, expected).await?;
        // The index has a word on it, too.
        if let Some(called) = &called {
            manifest::parse(&bytes, Some(called)).map_err(|reason| wrong(reference, &reason))?;
        }
        match document {
            Document::Manifest(manifest) => return Image::new(reference, bytes, manifest),
            Document::Index(index) => {
                let chosen = index.choose(platform).map_err(|reason| match reason.contains("only for") {
                    true => wrong(reference, &reason).hint("choose one with --platform"),
                    false => wrong(reference, &reason),
                })?;
                pointer = chosen.digest.to_string();
                expected = Some((chosen.digest, Some(chosen.size)));
                called = Some(chosen.media_type);
            }
        }
    }
    Err(wrong(reference, &format!("indexes are nested more than {DEPTH_MAX} deep")))
}

/// The digest of the manifest or the index that `reference` names, at one registry.
///
/// # Errors
/// One line.
pub(crate) async fn pin(registry: &Registry, reference: &Reference) -> Result<Digest> {
    let expected = reference.digest().map(|digest| (digest, None));
    let (bytes, _) = document(registry, reference, &reference.pointer(), expected).await?;
    Ok(Digest::of(&bytes))
}

/// One manifest or index, with the bytes that it is; those that are expected where something is.
async fn document(
    registry: &Registry,
    reference: &Reference,
    pointer: &str,
    expected: Option<(Digest, Option<u64>)>,
) -> Result<(Vec<u8>, Document)> {
    let url = registry.url(&format!("manifests/{pointer}")).await?;
    let answer = registry.manifest(&url, &manifest::ACCEPT.join(", "), manifest::SIZE_MAX).await;
    let answer = answer.map_err(|failure| match failure.status() {
        Some(StatusCode::NOT_FOUND) => Error::plain(format!("No image named '{}' exists", reference.typed())),
        _ => failure.at(&url),
    })?;
    let document = manifest::parse(&answer.bytes, answer.content_type.as_deref());
    if let Some((digest, size)) = expected {
        // HTML instead of JSON is a truer complaint than its digest.
        if let (Err(reason), Some("text/")) = (&document, answer.content_type.as_deref().and_then(|kind| kind.get(..5)))
        {
            return Err(wrong(reference, reason));
        }
        let (length, got) = (answer.bytes.len() as u64, Digest::of(&answer.bytes));
        if let Some(size) = size.filter(|&size| size != length) {
            return Err(wrong(reference, &format!("it has {length} bytes, not {size}")));
        }
        if got != digest {
            return Err(wrong(reference, &format!("what came is {got}, not {digest}")));
        }
    }
    let document = document.map_err(|reason| wrong(reference, &reason))?;
    Ok((answer.bytes, document))
}

fn wrong(reference: &Reference, reason: &str) -> Error {
    Error::new("read", format!("manifest of {}", reference.typed()), printable(reason))
}
