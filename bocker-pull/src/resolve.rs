//! `bocker-pull manifest`: from a name to one image's manifest.

use std::io::Write;
use std::rc::Rc;

use bocker_common::diag::printable;
use bocker_common::say::{Act, Explain, Said, perform};
use bocker_common::{Error, Result};
use reqwest::StatusCode;

use crate::auth::{Login, Places};
use crate::digest::Digest;
use crate::manifest::{self, Document};
use crate::platform::Platform;
use crate::record::Image;
use crate::reference::Reference;
use crate::registry::{Patience, Registry, block_on};
use crate::{shell, stdout};

/// An index may name an index; more than this deep is no index that anybody made.
const DEPTH_MAX: usize = 3;

/// What `bocker-pull manifest` does.
#[derive(Debug)]
enum Step {
    /// Ask the registry, through an index if there is one; with one of the logins if it wants one.
    Ask(Reference, Vec<Login>, Platform),
    /// Print the records.
    Records(Reference),
    /// Print the manifest's own bytes.
    Raw,
}

impl Act for Step {
    fn say(&self) -> Said {
        match self {
            Self::Ask(reference, logins, platform) => Said::new(
                shell::ask(reference, logins, platform),
                "the manifest lists an image's layers; an index lists manifests, one for each platform",
            ),
            Self::Records(reference) => {
                Said::new(shell::records(reference), "the name pinned by digest, then what fetch needs, one line each")
            }
            Self::Raw => Said::new("cat \"$m\"; rm \"$m\" \"$h\"", "its digest is that of these very bytes"),
        }
    }
}

/// Resolves `reference` for `platform` and prints the records, or the manifest itself if `raw`.
///
/// # Errors
/// One line; nothing was printed then.
pub fn run(reference: Reference, platform: Platform, raw: bool, explain: Explain) -> Result<()> {
    let last = if raw { Step::Raw } else { Step::Records(reference.clone()) };
    let mut found = None;
    let places = Rc::new(Places::new(|name| std::env::var_os(name)));
    let logins = places.to_say(&reference, explain)?;
    perform(&[Step::Ask(reference, logins, platform), last], explain, |step| {
        let image: &Image = match step {
            Step::Ask(reference, _, platform) => {
                found = Some(block_on(async {
                    let registry = Registry::new(reference.endpoint(), places.clone(), Patience::from_env());
                    ask(&registry, reference, platform).await
                })?);
                return Ok(());
            }
            Step::Records(_) | Step::Raw => found.as_ref().ok_or_else(Error::explained_elsewhere)?,
        };
        let bytes = if raw { image.bytes.clone() } else { image.write().into_bytes() };
        stdout::file()?.write_all(&bytes).map_err(|e| Error::stdout(&e))
    })
}

async fn ask(registry: &Registry, reference: &Reference, platform: &Platform) -> Result<Image> {
    let wrong = |reason: String| Error::new("read", format!("manifest of {}", reference.typed()), printable(&reason));
    let accept = manifest::ACCEPT.join(", ");
    let mut pointer = reference.pointer();
    let mut expected = reference.digest().map(|digest| (digest, None));
    for _ in 0..DEPTH_MAX {
        let url = registry.url(&format!("manifests/{pointer}"))?;
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
