//! Layers out of their archives, lowest first, on a thread of its own: while one is made, and while the kernel writes it out
//! before the next can be its snapshot, what comes after it is read, verified and inflated already.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::thread::{Scope, ScopedJoinHandle};

use bocker_common::say::{Explain, tell};
use bocker_common::tarball;
use bocker_common::{Error, Result};
use rustix::fs::Mode;

use crate::layer::{Applier, Budget, failed};
use crate::namer::{Made, Namer, Top};
use crate::oci::Digest;
use crate::pipeline::{self, Feed};
use crate::store::{LayerStore, ORIGIN, Step, Store};
use crate::unpack::MAX_TAIL;
use crate::writeback::Writeback;

/// A layer to be made of the archive that comes after this.
#[derive(Debug)]
pub(crate) struct Order {
    /// Its blob.
    pub(crate) digest: Digest,
    /// What its archive's digest must be.
    pub(crate) diff_id: Digest,
    /// Its name.
    pub(crate) chain: Digest,
    /// That of the layer below, which is there, or was ordered before.
    pub(crate) below: Option<Digest>,
}

/// What it needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) store: &'a Store,
    pub(crate) layers: &'a LayerStore,
    pub(crate) budget: &'a Budget,
    pub(crate) top: &'a Top,
    pub(crate) explain: Explain,
}

/// The thread, and the way to it.
#[derive(Debug)]
pub(crate) struct Maker<'scope> {
    to: Feed<Order>,
    thread: ScopedJoinHandle<'scope, Result<BTreeSet<String>, Stopped>>,
}

/// Why no more layers are made.
#[derive(Debug)]
pub(crate) struct Stopped {
    /// At which of them.
    pub(crate) chain: Digest,
    pub(crate) error: Error,
}

impl<'scope> Maker<'scope> {
    /// Begins to wait for orders.
    pub(crate) fn start<'a: 'scope>(scope: &'scope Scope<'scope, '_>, place: Place<'a>) -> Self {
        let (to, blobs) = pipeline::feed();
        let archives = pipeline::inflate(scope, blobs);
        let namer = Namer::start(scope, (place.store, place.layers), place.top, place.explain);
        let writeback = Writeback::start(scope);
        Self { to, thread: scope.spawn(move || make_all(place, namer, archives, &writeback)) }
    }

    /// Takes an order, with the blob, once there is room for it. False: it has stopped, and [`Maker::finish`] says why.
    ///
    /// # Errors
    /// The blob cannot be read.
    pub(crate) fn take(&self, order: Order, blob: &mut impl Read) -> io::Result<bool> {
        Ok(self.to.begin(order) && self.to.all(blob)?)
    }

    /// The blob was what it should be. Else no layer is made of it.
    pub(crate) fn confirm(&self) {
        self.to.end();
    }

    /// It takes no more, and [`Maker::finish`] says why.
    pub(crate) fn has_stopped(&self) -> bool {
        self.thread.is_finished()
    }

    /// All that was ordered is made and has its name. Returns the names of the attributes left out.
    ///
    /// # Errors
    /// Why one has not.
    pub(crate) fn finish(self) -> Result<BTreeSet<String>, Stopped> {
        drop(self.to);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

type Archives = pipeline::Archives<Order>;

fn make_all<'a>(
    place: Place<'a>,
    namer: Namer<'_, 'a>,
    mut archives: Archives,
    writeback: &Writeback,
) -> Result<BTreeSet<String>, Stopped> {
    let mut dropped = BTreeSet::new();
    let (mut last, mut stopped) = (None, None);
    while let Some(order) = archives.next() {
        let chain = order.chain.clone();
        match place.make(order, &mut archives, writeback) {
            Ok((made, attributes)) => {
                dropped.extend(attributes);
                last = Some(chain);
                if !namer.take(made) {
                    break;
                }
            }
            Err(error) => {
                stopped = Some(Stopped { chain, error });
                break;
            }
        }
    }
    // What is complete gets its name, for the next try. Where that fails it led to what came after.
    if let (Err(error), Some(chain)) = (namer.finish(), last) {
        stopped = Some(Stopped { chain, error });
    }
    stopped.map_or(Ok(dropped), Err)
}

impl<'a> Place<'a> {
    /// Makes the layer's subvolume. Returns it with the names of the attributes left out.
    fn make(
        &self,
        order: Order,
        archive: &mut Archives,
        writeback: &Writeback,
    ) -> Result<(Made<'a>, BTreeSet<String>)> {
        let Order { digest, diff_id, chain, below } = order;
        let new = Store::new_layer_name(chain.as_str());
        let at = |name: &str| format!("layers/{name}");
        let top = self.top.hold();
        // The one that we made last may not have its name yet.
        let name = below.as_ref().map(|below| match &*top {
            Some((chain, name)) if chain == below => name.as_str(),
            _ => below.as_str(),
        });
        self.tell(match name {
            Some(name) => Step::Snapshot(at(name), at(&new)),
            None => Step::Subvolume(at(&new)),
        })?;
        let building = self.store.claim_layer(self.layers, name, &new)?;
        drop(top);
        if below.is_none() {
            rustix::fs::mkdirat(building.fd(), "rootfs", Mode::from_raw_mode(0o755))
                .map_err(|e| failed("create", "rootfs", e))?;
        }
        self.tell(Step::Layer(digest.to_string(), at(&new)))?;
        let applier = Applier::new(building.rootfs()?, self.budget).writing_back(writeback);
        let (diff, dropped) = apply(archive, applier)?;
        if diff != diff_id {
            return Err(Error::new(
                "verify",
                format_args!("layer {digest}"),
                format!("its diff id is {diff}, not the configuration's"),
            ));
        }
        let below = below.as_ref().map_or("-", Digest::as_str);
        let origin = Step::Write(at(&format!("{new}/{ORIGIN}")), format!("{digest}\t{below}\n").into());
        // The snapshot brought that of the layer below.
        for step in [Step::Forget(vec![at(&format!("{new}/{ORIGIN}"))]), origin] {
            self.tell(step.clone())?;
            self.store.apply(&step)?;
        }
        *self.top.hold() = Some((chain.clone(), new.clone()));
        Ok((Made { building, new, chain }, dropped))
    }

    fn tell(&self, step: Step) -> Result<()> {
        tell(&self.store.act(step), self.explain)
    }
}

/// Applies a layer's archive. Returns its diff id and the attributes left out.
fn apply(archive: &mut Archives, applier: Applier<'_>) -> Result<(Digest, BTreeSet<String>)> {
    let bad = |e| Error::new("unpack", "layer", e);
    let dropped = applier.apply(&mut tarball::Reader::new(&mut *archive))?;
    let diff = archive.finish(MAX_TAIL).map_err(bad)?;
    let diff = diff.ok_or_else(|| Error::new("unpack", "layer", "16 MiB and more after the end of its archive"))?;
    Ok((diff, dropped))
}
