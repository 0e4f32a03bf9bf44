//! Names for layers: each gets its own as soon as the disk has it, on a thread of its own while the next one comes. So
//! whoever is killed loses none of those that were made before.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use bocker_common::Result;
use bocker_common::say::{Explain, tell};

use crate::oci::Digest;
use crate::store::{Building, LayerStore, Step, Store};
use crate::sys;

/// A complete layer that waits for its name.
#[derive(Debug)]
pub(crate) struct Made<'a> {
    pub(crate) building: Building<'a>,
    /// The name that it has.
    pub(crate) new: String,
    /// That of its name.
    pub(crate) chain: Digest,
}

/// The layer that was made last, and the name that it has now. It is another one once the disk has the layer, so it is held
/// while somebody goes by it.
#[derive(Debug, Default)]
pub(crate) struct Top(Mutex<Option<(Digest, String)>>);

impl Top {
    pub(crate) fn hold(&self) -> MutexGuard<'_, Option<(Digest, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread, and the way to it.
#[derive(Debug)]
pub(crate) struct Namer<'scope, 'a> {
    to: Sender<Made<'a>>,
    thread: ScopedJoinHandle<'scope, Result<()>>,
}

impl<'scope, 'a: 'scope> Namer<'scope, 'a> {
    /// Begins to wait for layers.
    pub(crate) fn start(
        scope: &'scope Scope<'scope, '_>,
        (store, layers): (&'a Store, &'a LayerStore),
        top: &'a Top,
        explain: Explain,
    ) -> Self {
        let (to, made) = channel();
        Self { to, thread: scope.spawn(move || name_all(store, layers, top, explain, &made)) }
    }

    /// Takes a layer that is complete. False: the thread has failed, and [`Namer::finish`] says why.
    pub(crate) fn take(&self, made: Made<'a>) -> bool {
        self.to.send(made).is_ok()
    }

    /// All that it took have their names.
    ///
    /// # Errors
    /// Why one has not.
    pub(crate) fn finish(self) -> Result<()> {
        drop(self.to);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn name_all(store: &Store, layers: &LayerStore, top: &Top, explain: Explain, made: &Receiver<Made<'_>>) -> Result<()> {
    let tell = |step| tell(&store.act(step), explain);
    let at = |name: &str| format!("layers/{name}");
    while let Ok(first) = made.recv() {
        // Those that have been completed meanwhile wait for the disk together.
        let all: Vec<_> = std::iter::once(first).chain(made.try_iter()).collect();
        tell(Step::Sync)?;
        store.apply(&Step::Sync)?;
        for Made { building, new, chain } in all {
            let mut top = top.hold();
            tell(Step::Seal(at(&new)))?;
            sys::subvolume_set_read_only(building.fd()).map_err(store.fail("seal", &at(&new)))?;
            tell(Step::Publish(at(&new), at(chain.as_str())))?;
            if layers.publish(&new, chain.as_str())? {
                building.keep();
            }
            if let Some((_, name)) = top.as_mut().filter(|(_, name)| *name == new) {
                *name = chain.to_string();
            }
        }
    }
    Ok(())
}
