//! `bocker-pull fetch`: from records to an OCI layout, each blob verified as it passes.

use std::fs::File;

use bocker_common::say::{Act, Explain, Said, tell};
use bocker_common::{Error, Result};

use crate::config::{Config, Want};
use crate::digest::{Descriptor, Digest};
use crate::download::{Sources, Transfer};
use crate::layout::{Layout, MARKER};
use crate::manifest;
use crate::progress::Progress;
use crate::record::Image;
use crate::reference::Reference;
use crate::registry::block_on;
use crate::shell::{self, Bases, Place};

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
    let Image { reference, bytes, manifest, have } = image;
    let index = index(image);
    let wanted = |blob: &&Descriptor| !have.contains(&blob.digest);
    let config = Some(&manifest.config).filter(wanted);
    let layers: Vec<_> = manifest.layers.iter().filter(wanted).collect();
    let mut names = vec![MARKER.0.to_owned(), path(&Digest::of(bytes))];
    names.extend(config.iter().chain(&layers).map(|blob| path(&blob.digest)));
    names.push("index.json".into());
    let mut plan = vec![Step::Start(reference.clone(), places), Step::Manifest(bytes.clone())];
    plan.extend(config.map(|config| Step::Config(config.clone(), manifest.layers.len(), bases.clone())));
    plan.extend(layers.into_iter().map(|layer| Step::Layer(layer.clone(), bases.clone())));
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
    progress: &Progress,
    config: &Config,
    explain: Explain,
) -> Result<()> {
    let endpoints = config.endpoints(&image.reference, Want::Blobs)?;
    let plan = plan(image, shell::places(&endpoints, config, explain)?);
    let mut source = Source { sources: Sources::new(endpoints, config), progress };
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

async fn apply(step: &Step, source: &mut Source<'_>, layout: &mut Layout<File>) -> Result<()> {
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

/// Where blobs come from, and who is told how far they are.
struct Source<'a> {
    sources: Sources,
    progress: &'a Progress,
}

impl Source<'_> {
    /// Hands the blob's bytes to `sink` piece by piece. They are right if this returns without error, and not before.
    async fn blob(&self, blob: &Descriptor, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut transfer = Transfer::of(blob);
        let mut bar = self.progress.begin(blob);
        let url = self
            .sources
            .blob(&mut transfer, &mut async |piece: &[u8], transfer: &Transfer| {
                bar.at(transfer.got);
                sink(piece)
            })
            .await?;
        transfer.verify().map_err(|other| Error::new("get", url, format!("what came is {other}")))?;
        bar.finish();
        Ok(())
    }
}
