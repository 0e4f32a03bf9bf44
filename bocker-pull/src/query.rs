//! The verbs that answer one question each: `config`, `digest`, `tags`, `blob`.

use std::io::Write;

use bocker_common::diag::USAGE;
use bocker_common::reference::check_tag;
use bocker_common::say::{Act, Explain, Said, perform};
use bocker_common::{Error, Result};
use reqwest::StatusCode;
use serde::Deserialize;

use crate::config::{Config, Want};
use crate::digest::Digest;
use crate::download::{Sources, Transfer};
use crate::manifest;
use crate::platform::Platform;
use crate::record::Image;
use crate::reference::Reference;
use crate::registry::{Registry, block_on};
use crate::shell::{self, Bases, Place};
use crate::{resolve, stdout};

/// Most pages of tags: a million tags.
const PAGES_MAX: usize = 1000;

/// What these verbs do.
#[derive(Debug)]
enum Step {
    /// The image's manifest.
    Ask(Reference, Vec<Place>, Platform),
    /// Its configuration, printed. With it, the shell's temporary files.
    Config(Bases, String),
    /// What the name stands for, printed: of this platform if there is one.
    Digest(Reference, Vec<Place>, Option<Platform>),
    /// All tags, printed.
    Tags(Reference, Vec<Place>),
    /// One blob, printed.
    Blob(Reference, Digest, Vec<Place>),
}

impl Act for Step {
    fn say(&self) -> Said {
        match self {
            Self::Ask(reference, places, platform) => Said::new(
                shell::ask(reference, places, Some(platform)),
                "the manifest names the configuration by its digest",
            ),
            Self::Config(bases, temporary) => {
                Said::new(shell::config(bases, temporary), "what the image is to run, and how its layers came about")
            }
            Self::Digest(reference, places, platform) => Said::new(
                shell::digest(reference, places, platform.as_ref()),
                "a name that stands for these very bytes, whatever the tag becomes",
            ),
            Self::Tags(reference, places) => {
                Said::new(shell::tags(reference, places), "a page names the next one in its Link header")
            }
            Self::Blob(reference, digest, places) => {
                Said::new(shell::one_blob(reference, *digest, places), "what its name says, or nothing")
            }
        }
    }
}

/// Prints the image's configuration, as it is in the registry.
///
/// # Errors
/// One line; nothing was printed then.
pub(crate) fn config(reference: Reference, platform: Platform, config: &Config, explain: Explain) -> Result<()> {
    let endpoints = config.endpoints(&reference, Want::of(&reference))?;
    let places = shell::places(&endpoints, config, explain)?;
    let last = Step::Config(shell::bases(&places), shell::temporary(&places));
    let sources = Sources::new(endpoints, config);
    perform(&[Step::Ask(reference, places, platform), last], explain, |step| {
        let Step::Ask(reference, _, platform) = step else { return Ok(()) };
        let bytes = block_on(async {
            let image: Image =
                sources.first(async |registry| resolve::ask(registry, reference, platform).await).await?;
            let mut transfer = Transfer::of(&image.manifest.config);
            let mut bytes = Vec::new();
            let mut keep = async |piece: &[u8], _: &Transfer| {
                bytes.extend_from_slice(piece);
                Ok(())
            };
            let url = sources.blob(&mut transfer, &mut keep).await?;
            transfer.verify().map_err(|other| Error::new("get", url, format!("what came is {other}")))?;
            let config = &image.manifest.config;
            manifest::check_config(&bytes, image.manifest.layers.len())
                .map_err(|reason| Error::new("read", config.digest, reason))?;
            Ok(bytes)
        })?;
        stdout::text(&bytes)
    })
}

/// Prints `docker.io/library/centos@sha256:…`: what the name stands for now, or its image for `platform`.
///
/// # Errors
/// One line; nothing was printed then.
pub(crate) fn digest(
    reference: Reference,
    platform: Option<Platform>,
    config: &Config,
    explain: Explain,
) -> Result<()> {
    let endpoints = config.endpoints(&reference, Want::of(&reference))?;
    let places = shell::places(&endpoints, config, explain)?;
    let sources = Sources::new(endpoints, config);
    perform(&[Step::Digest(reference, places, platform)], explain, |step| {
        let Step::Digest(reference, _, platform) = step else { return Ok(()) };
        let digest = block_on(sources.first(async |registry| match platform {
            Some(platform) => Ok(resolve::ask(registry, reference, platform).await?.descriptor().digest),
            None => resolve::pin(registry, reference).await,
        }))?;
        crate::print(format!("{}@{digest}\n", reference.logical_name()).as_bytes())
    })
}

/// Prints the repository's tags, one a line, in the registry's order.
///
/// # Errors
/// One line. Whole pages may have been printed.
pub(crate) fn tags(name: &str, reference: Reference, config: &Config, explain: Explain) -> Result<()> {
    if reference.typed() == name {
        let shown: String = name.chars().take(64).collect();
        return Err(Error::plain(format!("'{shown}' names one tag or digest")).hint("a name without").status(USAGE));
    }
    let endpoints = config.endpoints(&reference, Want::Tag)?;
    let places = shell::places(&endpoints, config, explain)?;
    let sources = Sources::new(endpoints, config);
    perform(&[Step::Tags(reference, places)], explain, |step| {
        let Step::Tags(reference, _) = step else { return Ok(()) };
        block_on(sources.first(async |registry| all_tags(registry, reference).await))
    })
}

async fn all_tags(registry: &Registry, reference: &Reference) -> Result<()> {
    let mut out = stdout::file()?;
    let mut url = registry.url("tags/list?n=1000").await?;
    for _ in 0..PAGES_MAX {
        let (body, next) = registry.page(&url, manifest::SIZE_MAX).await.map_err(|failure| match failure.status() {
            Some(StatusCode::NOT_FOUND) => {
                let name = reference.typed().strip_suffix(":latest").unwrap_or(reference.typed());
                Error::plain(format!("No image named '{name}' exists"))
            }
            _ => failure.at(&url),
        })?;
        let lines = tag_lines(&body).map_err(|reason| Error::new("read", &url, reason))?;
        out.write_all(lines.as_bytes()).map_err(|e| Error::stdout(&e))?;
        match next {
            Some(next) if next != url => url = next,
            _ => return Ok(()),
        }
    }
    Err(Error::new("read", url, format!("there are more than {PAGES_MAX} pages of tags")))
}

/// A page's tags, one a line.
fn tag_lines(body: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Page {
        tags: Option<Vec<String>>,
    }
    let page: Page = serde_json::from_slice(body).map_err(|e| format!("it is not a list of tags: {e}"))?;
    let mut lines = String::new();
    for tag in page.tags.unwrap_or_default() {
        check_tag(&tag).map_err(|_| "one of its tags is none")?;
        lines.push_str(&tag);
        lines.push('\n');
    }
    Ok(lines)
}

/// Prints one blob of the repository. Its last bytes are out when it turns out whether they are right.
///
/// # Errors
/// One line.
pub(crate) fn blob(reference: Reference, digest: Digest, config: &Config, explain: Explain) -> Result<()> {
    let endpoints = config.endpoints(&reference, Want::Blobs)?;
    let places = shell::places(&endpoints, config, explain)?;
    let sources = Sources::new(endpoints, config);
    perform(&[Step::Blob(reference, digest, places)], explain, |step| {
        let Step::Blob(..) = step else { return Ok(()) };
        let mut out = stdout::file()?;
        let mut transfer = Transfer::new(digest, None);
        let url = block_on(sources.blob(&mut transfer, &mut async |piece: &[u8], _: &Transfer| {
            out.write_all(piece).map_err(|e| Error::stdout(&e))
        }))?;
        transfer.verify().map_err(|other| Error::new("get", url, format!("what came is {other}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Noise;

    #[test]
    fn tags_are_lines() {
        assert_eq!(tag_lines(br#"{"name":"a","tags":["7","latest"]}"#).unwrap(), "7\nlatest\n");
        assert_eq!(tag_lines(br#"{"name":"a","tags":null}"#).unwrap(), "");
        assert_eq!(tag_lines(br#"{"name":"a"}"#).unwrap(), "");
        for bad in [r#"{"tags":["a\nb"]}"#, r#"{"tags":[""]}"#, r#"{"tags":["-x"]}"#, r#"{"tags":"a"}"#, "<html>", ""] {
            assert!(tag_lines(bad.as_bytes()).is_err(), "{bad}");
        }
        let mut noise = Noise::new(43);
        for _ in 0..5_000 {
            let spoilt = noise.spoil(br#"{"name":"a","tags":["7","latest"]}"#);
            if let Ok(lines) = tag_lines(&spoilt) {
                assert!(lines.lines().all(|line| check_tag(line).is_ok()), "{lines:?}");
            }
        }
    }
}
