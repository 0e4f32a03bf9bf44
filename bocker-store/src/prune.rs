//! `prune`: what nobody needs any more, and how much room it takes; goes only when that is said.

use std::io::Write;

use bocker_common::say::Explain;
use bocker_common::{Id, Kind, Result};

use crate::names::NAMED;
use crate::store::{LAYERS, Store};
use crate::usage::{Usage, layers};
use crate::verbs::{self, print};
use crate::volumes::{self, Volume};

/// What may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Wanted {
    /// Containers that have ended, too
    #[arg(long)]
    pub(crate) containers: bool,
    /// All images that no container was made from, those that have a name or never had one, too
    #[arg(long, short)]
    pub(crate) all: bool,
    /// Volumes without a chosen name that no container has, too
    #[arg(long)]
    pub(crate) volumes: bool,
    #[command(flatten)]
    pub(crate) how: How,
}

/// Only look, or do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct How {
    /// Remove it; else it is only listed
    #[arg(long, short)]
    pub(crate) force: bool,
    /// One JSON object a line: name, bytes
    #[arg(long)]
    pub(crate) json: bool,
}

/// One thing that goes.
enum Gone {
    Of(Id),
    Volume(Volume),
}

fn list(store: &Store, wanted: Wanted) -> Result<Vec<Gone>> {
    let mut containers = Vec::new();
    if wanted.containers {
        for id in store.list(Kind::Container)? {
            if verbs::has_ended(store, id)? {
                containers.push(id);
            }
        }
    }
    let mut stays = store.list(Kind::Container)?;
    stays.retain(|id| !containers.contains(id));
    let used: Vec<_> = stays.iter().map(|id| store.text(*id, "image")).collect();
    let named: Vec<_> = store.image_names()?.into_iter().map(|(_, id)| id).collect();
    let mut images = store.list(Kind::Image)?;
    images.retain(|id| {
        // Whose containers stay is needed to tell what they have changed.
        let free = !used.iter().any(|image| image == id.to_string().as_bytes());
        let nameless = !named.contains(id) && store.open_text(*id, NAMED).is_ok();
        free && (nameless || wanted.all)
    });
    let mut gone: Vec<_> = containers.into_iter().chain(images).map(Gone::Of).collect();
    if wanted.volumes {
        gone.extend(unused_volumes(store, &stays, false)?);
    }
    Ok(gone)
}

/// Volumes that none of these containers has; those with a chosen name only if all are meant.
fn unused_volumes(store: &Store, containers: &[Id], all: bool) -> Result<Vec<Gone>> {
    let mut unused = Vec::new();
    for volume in store.volumes()?.into_iter().filter(|volume| all || volume.is_anonymous()) {
        if !store.users_of(&volume)?.iter().any(|user| containers.contains(user)) {
            unused.push(Gone::Volume(volume));
        }
    }
    Ok(unused)
}

/// Layers that only images in `gone` list.
fn layers_without(store: &Store, gone: &[Id]) -> Result<Vec<String>> {
    let mut all = layers(store)?;
    for id in store.list(Kind::Image)?.iter().filter(|id| !gone.contains(id)) {
        let listed = store.text(*id, "layers");
        all.retain(|layer| !listed.split(|b| *b == b'\n').any(|line| line == layer.as_bytes()));
    }
    Ok(all.iter().map(|layer| format!("{LAYERS}/{layer}")).collect())
}

/// `prune`: images that have lost their name, and what else is wanted.
pub(crate) fn prune(store: &Store, wanted: Wanted, explain: Explain) -> Result<()> {
    remove(store, &list(store, wanted)?, wanted.how, explain)
}

/// `volume prune`: volumes without a chosen name, or all, that no container has.
pub(crate) fn prune_volumes(store: &Store, all: bool, how: How, explain: Explain) -> Result<()> {
    let containers = store.list(Kind::Container)?;
    remove(store, &unused_volumes(store, &containers, all)?, how, explain)
}

/// Prints `NAME\tBYTES` of each, the bytes that are free when it goes after those before it; removes it if that is said.
fn remove(store: &Store, gone: &[Gone], how: How, explain: Explain) -> Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    let usage = Usage::of(store)?;
    let (mut names, mut ids, mut before, mut lines) = (Vec::new(), Vec::new(), 0, Vec::new());
    for one in gone {
        let name = match one {
            Gone::Of(id) => {
                ids.push(*id);
                id.to_string()
            }
            Gone::Volume(volume) => volume.subvolume(),
        };
        names.push(name.clone());
        let all = [names.clone(), layers_without(store, &ids)?].concat();
        let after = usage.freed(&all);
        let bytes = after - before;
        lines.push(match how.json {
            true => format!("{}\n", serde_json::json!({ "name": name, "bytes": bytes })),
            false => format!("{name}\t{bytes}\n"),
        });
        before = after;
    }
    if !how.force && !explain.dry_run {
        print(lines.concat().as_bytes())?;
        let count = lines.len();
        let things = if count == 1 { "thing" } else { "things" };
        let _ = writeln!(
            std::io::stderr(),
            "bocker-store: nothing was removed: {count} {things}, {before} bytes (--force removes)"
        );
        return Ok(());
    }
    for (one, line) in gone.iter().zip(lines) {
        match one {
            Gone::Of(id) => {
                verbs::rm(store, &id.to_string(), verbs::Removal { force: true, ..Default::default() }, None, explain)?
            }
            // In words: the containers that go before it are there still.
            Gone::Volume(volume) if explain.dry_run => volumes::remove(store, volume, explain)?,
            Gone::Volume(volume) => match volumes::remove_unused(store, volume, explain) {
                Ok(None) => {}
                // A container has got it meanwhile, or somebody else has removed it.
                Ok(Some(_)) => continue,
                Err(_) if !store.has_volume(volume)? => continue,
                Err(error) => return Err(error),
            },
        }
        if !explain.dry_run {
            print(line.as_bytes())?;
        }
    }
    Ok(())
}
