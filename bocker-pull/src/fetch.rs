//! `bocker-pull fetch`: from records to an OCI layout, each blob verified as it passes.

use std::fs::File;
use std::time::Instant;

use bocker_common::say::{Act, Explain, Said, tell};
use bocker_common::{Error, Result};
use reqwest::{Response, Url};
use sha2::{Digest as _, Sha256};

use crate::digest::{Descriptor, Digest};
use crate::layout::{Layout, MARKER};
use crate::manifest;
use crate::record::Image;
use crate::reference::Reference;
use crate::registry::{Failure, Patience, Registry};
use crate::{progress, shell};

/// A blob must bring this much in each period of patience.
const LEAST: u64 = 16 << 10;

/// What `bocker-pull fetch` does.
#[derive(Debug)]
enum Step {
    /// The file that says what the stream is.
    Start(Reference),
    /// The manifest, which came with the records.
    Manifest(Vec<u8>),
    /// The configuration of an image with so many layers.
    Config(Descriptor, usize),
    /// One layer.
    Layer(Descriptor),
    /// `index.json`: all that it names is there. Below it, the names of all entries in order.
    Finish(Vec<u8>, Vec<String>),
}

impl Act for Step {
    fn say(&self) -> Said {
        match self {
            Self::Start(reference) => {
                Said::new(shell::layout(reference), "a token if the registry wants one, and an OCI image layout")
            }
            Self::Manifest(bytes) => {
                Said::new(shell::have(bytes, &Digest::of(bytes).hex()), "the manifest came with the records")
            }
            Self::Config(blob, _) => {
                Said::new(shell::blob(blob), "environment, command and the layers' contents by digest")
            }
            Self::Layer(blob) => Said::new(shell::blob(blob), "a layer: what its name says, or nothing"),
            Self::Finish(index, names) => Said::new(
                shell::finish(index, names),
                "index.json is the last entry: without it the layout is incomplete",
            ),
        }
    }
}

fn plan(image: &Image) -> Vec<Step> {
    let Image { reference, bytes, manifest, have } = image;
    let index = index(image);
    let wanted = |blob: &&Descriptor| !have.contains(&blob.digest);
    let config = Some(&manifest.config).filter(wanted);
    let layers: Vec<_> = manifest.layers.iter().filter(wanted).collect();
    let mut names = vec![MARKER.0.to_owned(), path(&Digest::of(bytes))];
    names.extend(config.iter().chain(&layers).map(|blob| path(&blob.digest)));
    names.push("index.json".into());
    let mut plan = vec![Step::Start(reference.clone()), Step::Manifest(bytes.clone())];
    plan.extend(config.map(|config| Step::Config(config.clone(), manifest.layers.len())));
    plan.extend(layers.into_iter().cloned().map(Step::Layer));
    plan.push(Step::Finish(index, names));
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
pub fn run(image: &Image, layout: &mut Layout<File>, quiet: bool, explain: Explain) -> Result<()> {
    let registry = Registry::new(&image.reference, Patience::from_env())?;
    let mut source = Source { registry, quiet };
    for step in plan(image) {
        tell(&step, explain)?;
        if !explain.dry_run {
            apply(&step, &mut source, layout)?;
        }
    }
    Ok(())
}

fn apply(step: &Step, source: &mut Source, layout: &mut Layout<File>) -> Result<()> {
    match step {
        Step::Start(_) => layout.file(MARKER.0, MARKER.1),
        Step::Manifest(bytes) => layout.file(&path(&Digest::of(bytes)), bytes),
        Step::Config(blob, layers) => {
            // Small enough to look at before it goes on.
            let mut bytes = Vec::new();
            source.blob(blob, |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })?;
            manifest::check_config(&bytes, *layers).map_err(|reason| Error::new("read", blob.digest, reason))?;
            layout.file(&path(&blob.digest), &bytes)
        }
        Step::Layer(blob) => {
            layout.begin(&path(&blob.digest), blob.size)?;
            source.blob(blob, |piece| layout.write(piece))
        }
        Step::Finish(index, _) => {
            layout.file("index.json", index)?;
            layout.end()
        }
    }
}

/// Where blobs come from.
struct Source {
    registry: Registry,
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
    fn blob(&mut self, blob: &Descriptor, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let url = self.registry.url(&format!("blobs/{}", blob.digest))?;
        let mut progress = Progress { hasher: Sha256::new(), got: 0, bar: progress::bar(blob, self.quiet) };
        let mut tries = 1;
        while let Err(stop) = self.stretch(&url, blob, &mut progress, &mut sink) {
            let failure = match stop {
                Stop::Network(failure) => failure,
                Stop::Other(error) => return Err(error),
            };
            let Some(pause) = failure.pause(tries) else {
                progress.bar.abandon();
                return Err(failure.at(&url));
            };
            std::thread::sleep(pause);
            tries += 1;
        }
        progress.bar.finish();
        let digest = Digest::from_hasher(progress.hasher);
        if digest != blob.digest {
            return Err(Error::new("get", url, format!("what came is {digest}")));
        }
        Ok(())
    }

    /// One request's part of the blob: all of it, or what is missing after a connection broke.
    fn stretch(
        &self,
        url: &Url,
        blob: &Descriptor,
        progress: &mut Progress,
        sink: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<(), Stop> {
        let wrong_size =
            |got: u64| Failure::Refused(format!("it has {got} bytes or more, where the manifest says {}", blob.size));
        let (mut response, start): (Response, u64) = self.registry.blob(url, progress.got, blob.size)?;
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
            let piece = match self.registry.chunk(&mut response) {
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
            if period.0.elapsed() > self.registry.patience().idle {
                if at - period.1 < LEAST && at < blob.size {
                    return Err(self.registry.too_slow().into());
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
