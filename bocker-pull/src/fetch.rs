//! `bocker-pull fetch`: from records to an OCI layout, each blob verified as it passes.

use std::fs::File;
use std::time::Instant;

use bocker_common::say::{Act, Explain, Said, tell};
use bocker_common::{Error, Result};
use reqwest::{Response, Url};
use sha2::{Digest as _, Sha256};

use crate::config::{Config, Want};
use crate::digest::{Descriptor, Digest};
use crate::layout::{Layout, MARKER};
use crate::manifest;
use crate::record::Image;
use crate::reference::Reference;
use crate::registry::{Failure, Patience, Registry, after_mirrors, block_on};
use crate::shell::{Bases, Place};
use crate::{progress, shell};

/// A blob must bring this much in each period of patience.
const LEAST: u64 = 16 << 10;

/// What `bocker-pull fetch` does.
#[derive(Debug)]
enum Step {
    /// The file that says what the stream is.
    Start(Reference, Vec<Place>),
    /// The manifest, which came with the records.
    Manifest(Vec<u8>),
    /// The configuration of an image with so many layers.
    Config(Descriptor, usize, Bases),
    /// One layer.
    Layer(Descriptor, Bases),
    /// `index.json`: all that it names is there. With it, the names of all entries in order, and the shell's temporary files.
    Finish(Vec<u8>, Vec<String>, String),
}

impl Act for Step {
    fn say(&self) -> Said {
        match self {
            Self::Start(reference, logins) => Said::new(
                shell::layout(reference, logins),
                "a token if the registry wants one, and an OCI image layout",
            ),
            Self::Manifest(bytes) => {
                Said::new(shell::have(bytes, &Digest::of(bytes).hex()), "the manifest came with the records")
            }
            Self::Config(blob, _, bases) => {
                Said::new(shell::blob(blob, bases), "environment, command and the layers' contents by digest")
            }
            Self::Layer(blob, bases) => Said::new(shell::blob(blob, bases), "a layer: what its name says, or nothing"),
            Self::Finish(index, names, temporary) => Said::new(
                shell::finish(index, names, temporary),
                "index.json is the last entry: without it the layout is incomplete",
            ),
        }
    }
}

fn plan(image: &Image, places: Vec<Place>) -> Vec<Step> {
    let (bases, temporary) = (shell::bases(&places), shell::temporary(&places));
    let Image { reference, bytes, manifest } = image;
    let index = index(image);
    let mut names = vec![MARKER.0.to_owned(), path(&Digest::of(bytes)), path(&manifest.config.digest)];
    names.extend(manifest.layers.iter().map(|layer| path(&layer.digest)));
    names.push("index.json".into());
    let mut plan = vec![
        Step::Start(reference.clone(), places),
        Step::Manifest(bytes.clone()),
        Step::Config(manifest.config.clone(), manifest.layers.len(), bases.clone()),
    ];
    plan.extend(manifest.layers.iter().map(|layer| Step::Layer(layer.clone(), bases.clone())));
    plan.push(Step::Finish(index, names, temporary));
    plan
}

/// One manifest, named as skopeo knows it.
fn index(image: &Image) -> Vec<u8> {
    let own = image.descriptor();
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": own.media_type,
            "digest": own.digest.to_string(),
            "size": own.size,
            "annotations": { "org.opencontainers.image.ref.name": image.reference.name() },
        }],
    })
    .to_string()
    .into_bytes()
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Fetches what the image needs into `layout`.
///
/// # Errors
/// One line. The layout has no `index.json` then.
pub(crate) fn run(
    image: &Image,
    layout: &mut Layout<File>,
    quiet: bool,
    config: &Config,
    explain: Explain,
) -> Result<()> {
    let endpoints = config.endpoints(&image.reference, Want::Blobs)?;
    let plan = plan(image, shell::places(&endpoints, config, explain)?);
    let patience = Patience::from_env();
    let registries = endpoints.into_iter().map(|it| Registry::new(it, config.places.clone(), patience)).collect();
    let mut source = Source { registries, quiet };
    block_on(async {
        for step in plan {
            tell(&step, explain)?;
            if !explain.dry_run {
                apply(&step, &mut source, layout).await?;
            }
        }
        Ok(())
    })
}

async fn apply(step: &Step, source: &mut Source, layout: &mut Layout<File>) -> Result<()> {
    match step {
        Step::Start(..) => layout.file(MARKER.0, MARKER.1),
        Step::Manifest(bytes) => layout.file(&path(&Digest::of(bytes)), bytes),
        Step::Config(blob, layers, _) => {
            // Small enough to look at before it goes on.
            let mut bytes = Vec::new();
            source
                .blob(blob, |piece| {
                    bytes.extend_from_slice(piece);
                    Ok(())
                })
                .await?;
            manifest::check_config(&bytes, *layers).map_err(|reason| Error::new("read", blob.digest, reason))?;
            layout.file(&path(&blob.digest), &bytes)
        }
        Step::Layer(blob, _) => {
            layout.begin(&path(&blob.digest), blob.size)?;
            source.blob(blob, |piece| layout.write(piece)).await
        }
        Step::Finish(index, ..) => {
            layout.file("index.json", index)?;
            layout.end()
        }
    }
}

/// Where blobs come from.
struct Source {
    /// Mirrors first, the registry itself last. One that does not answer is not asked again.
    registries: Vec<Registry>,
    quiet: bool,
}

/// How far a blob has come.
struct Progress {
    hasher: Sha256,
    got: u64,
    bar: indicatif::ProgressBar,
}

/// What ends one stretch of a blob: the network, or somebody else with a line of their own.
enum Stop {
    Network(Failure),
    Other(Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Network(failure)
    }
}

impl Source {
    /// Hands the blob's bytes to `sink` piece by piece. They are right if this returns without error, and not before.
    async fn blob(&mut self, blob: &Descriptor, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut progress = Progress { hasher: Sha256::new(), got: 0, bar: progress::bar(blob, self.quiet) };
        let mut before: Vec<Error> = Vec::new();
        let mut at = 0;
        while let Some(registry) = self.registries.get(at) {
            let url = registry.url(&format!("blobs/{}", blob.digest)).await?;
            match self.whole(registry, &url, blob, &mut progress, &mut sink).await {
                Ok(()) => {
                    progress.bar.finish();
                    let digest = Digest::from_hasher(progress.hasher);
                    if digest != blob.digest {
                        return Err(Error::new("get", url, format!("what came is {digest}")));
                    }
                    return Ok(());
                }
                Err(Stop::Other(error)) => return Err(error),
                Err(Stop::Network(failure)) => {
                    let gone = matches!(failure, Failure::Broken { .. }) && at + 1 < self.registries.len();
                    before.push(failure.at(&url));
                    if gone { drop(self.registries.remove(at)) } else { at += 1 }
                }
            }
        }
        progress.bar.abandon();
        let last = before.pop().unwrap_or_else(|| Error::plain("there is nowhere to ask"));
        Err(after_mirrors(last, &before))
    }

    /// What is missing of the blob, from one registry, in as many stretches as it takes.
    async fn whole(
        &self,
        registry: &Registry,
        url: &Url,
        blob: &Descriptor,
        progress: &mut Progress,
        sink: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<(), Stop> {
        let mut tries = 1;
        while let Err(stop) = self.stretch(registry, url, blob, progress, sink).await {
            let Stop::Network(failure) = stop else { return Err(stop) };
            match failure.pause(tries) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(failure.into()),
            }
            tries += 1;
        }
        Ok(())
    }

    /// One request's part of the blob: all of it, or what is missing after a connection broke.
    async fn stretch(
        &self,
        registry: &Registry,
        url: &Url,
        blob: &Descriptor,
        progress: &mut Progress,
        sink: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<(), Stop> {
        let wrong_size =
            |got: u64| Failure::Refused(format!("it has {got} bytes or more, where the manifest says {}", blob.size));
        let (mut response, start): (Response, u64) = registry.blob(url, progress.got, blob.size).await?;
        if let Some(length) = response.content_length() {
            if length != blob.size - start {
                return Err(Failure::Refused(format!(
                    "{length} bytes are announced, where the manifest says {}",
                    blob.size - start
                ))
                .into());
            }
        }
        // A registry that knows no ranges starts again: skip what we have.
        let mut skip = progress.got - start;
        let mut at = start;
        let mut period = (Instant::now(), at);
        let ends = |got: u64, why: &str| Failure::broken(format!("it ends after {got} of {} bytes{why}", blob.size));
        loop {
            let piece = match registry.chunk(&mut response).await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(Failure::Broken { reason, passing: true }) => return Err(ends(at, &format!(": {reason}")).into()),
                Err(failure) => return Err(failure.into()),
            };
            let piece = piece.as_ref();
            at += piece.len() as u64;
            if at > blob.size {
                return Err(wrong_size(at).into());
            }
            let known = skip.min(piece.len() as u64);
            skip -= known;
            let fresh = piece.get(known as usize..).unwrap_or_default();
            progress.hasher.update(fresh);
            progress.got += fresh.len() as u64;
            progress.bar.set_position(progress.got);
            sink(fresh).map_err(Stop::Other)?;
            if period.0.elapsed() > registry.patience().idle {
                if at - period.1 < LEAST && at < blob.size {
                    return Err(registry.too_slow().into());
                }
                period = (Instant::now(), at);
            }
        }
        if progress.got < blob.size {
            return Err(ends(progress.got, "").into());
        }
        Ok(())
    }
}
