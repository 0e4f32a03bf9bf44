//! `bocker-pull fetch`: from records to an OCI layout, each blob verified as it passes.

use std::cell::Cell;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::rc::Rc;

use bocker_common::say::{Act, Explain, Said, tell};
use bocker_common::{Error, Result};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::LocalSet;

use crate::cache::{Cache, Partial};
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
    let Image { reference, bytes, manifest, have, .. } = image;
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

/// One manifest, with the name that skopeo and `bocker load` give it.
fn index(image: &Image) -> Vec<u8> {
    let own = image.descriptor();
    let name = image.name.clone().unwrap_or_else(|| image.reference.name());
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": own.media_type,
            "digest": own.digest.to_string(),
            "size": own.size,
            "annotations": { "org.opencontainers.image.ref.name": name },
        }],
    })
    .to_string()
    .into_bytes()
}

pub(crate) fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// How to fetch.
#[derive(Debug)]
pub(crate) struct Manner {
    /// So many blobs at once.
    pub(crate) jobs: usize,
    /// Where blobs that did not come to their end are kept.
    pub(crate) cache: Option<Cache>,
    /// Who is told how far they are.
    pub(crate) progress: Progress,
}

/// Fetches what the image needs into `layout`: several blobs at once, their bytes in order. The first blob whose turn has
/// not come flows at once; those after it wait in files that have no name.
///
/// # Errors
/// One line. The layout has no `index.json` then.
pub(crate) fn run(
    image: &Image,
    layout: &mut Layout<File>,
    manner: Manner,
    config: &Config,
    explain: Explain,
) -> Result<()> {
    let endpoints = config.endpoints(&image.reference, Want::Blobs)?;
    let plan = plan(image, shell::places(&endpoints, config, explain)?);
    if explain.dry_run {
        return plan.iter().try_for_each(|step| tell(step, explain));
    }
    let (out, records) = mpsc::channel(QUEUE);
    let fetch = Rc::new(Fetch {
        sources: Sources::new(endpoints, config),
        manner,
        permits: Semaphore::new(0),
        turn: Cell::new(0),
        turned: Notify::new(),
        out,
    });
    // A reader that is slow, or stopped for a while, must not keep us from the network: it has a thread of its own.
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || write(records, layout));
        let fetched = block_on(LocalSet::new().run_until(follow(fetch, plan, explain)));
        let written = writer.join().unwrap_or_else(|_| Err(Error::plain("write stdout: the writer panicked")));
        // The stage after us may have gone: then its silence is the reason, and not that we noticed.
        written.and(fetched)
    })
}

/// Pieces of the stream that wait for the writer. One is what the network brings at once, up to some 100 KiB.
const QUEUE: usize = 8;
/// What is read at once of what waits in a file.
const CHUNK: usize = 256 << 10;

/// A piece of the stream.
enum Piece {
    File(String, Vec<u8>),
    Begin(String, u64),
    Bytes(Vec<u8>),
    /// All bytes before are written: nobody needs their file any more. Not sooner: where the reader has died, the next pull does.
    Written(Partial),
    End,
}

/// Writes pieces until there are no more.
fn write(mut pieces: mpsc::Receiver<Piece>, layout: &mut Layout<File>) -> Result<()> {
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::File(name, bytes) => layout.file(&name, &bytes)?,
            Piece::Begin(name, size) => layout.begin(&name, size)?,
            Piece::Bytes(bytes) => layout.write(&bytes)?,
            Piece::Written(partial) => partial.remove(),
            Piece::End => layout.end()?,
        }
    }
    Ok(())
}

/// Does the steps in order; the blobs are on their way from the first of them on.
async fn follow(fetch: Rc<Fetch>, plan: Vec<Step>, explain: Explain) -> Result<()> {
    let (done, mut ends) = mpsc::unbounded_channel();
    let blobs = plan.iter().filter_map(|step| match step {
        Step::Config(blob, layers, _) => Some((blob.clone(), Some(*layers))),
        Step::Layer(blob, _) => Some((blob.clone(), None)),
        _ => None,
    });
    for (turn, (blob, layers)) in blobs.enumerate() {
        let (fetch, done) = (fetch.clone(), done.clone());
        tokio::task::spawn_local(async move {
            let end = match layers {
                Some(layers) => fetch.config(turn, &blob, layers).await,
                None => fetch.layer(turn, &blob).await,
            };
            // Nobody listens any more after another's failure.
            let _ = done.send(end);
        });
    }
    drop(done);
    for step in plan {
        tell(&step, explain)?;
        match step {
            Step::Start(..) => fetch.send(Piece::File(MARKER.0.to_owned(), MARKER.1.to_vec())).await?,
            Step::Manifest(bytes) => {
                fetch.send(Piece::File(path(&Digest::of(&bytes)), bytes)).await?;
                // What comes before the blobs is on its way: they may begin.
                fetch.permits.add_permits(fetch.manner.jobs);
            }
            // They end in their order; the first failure, whosever it is, ends all.
            Step::Config(..) | Step::Layer(..) => {
                ends.recv().await.unwrap_or_else(|| Err(Error::explained_elsewhere()))?
            }
            Step::Finish(index, ..) => {
                fetch.send(Piece::File("index.json".into(), index)).await?;
                fetch.send(Piece::End).await?;
            }
        }
    }
    Ok(())
}

/// What all blobs of one image share.
#[derive(Debug)]
struct Fetch {
    sources: Sources,
    manner: Manner,
    /// One for each blob that is on its way. Given out in the blobs' order, so that the one whose turn it is has one.
    permits: Semaphore,
    /// Which blob's bytes are next.
    turn: Cell<usize>,
    turned: Notify,
    out: mpsc::Sender<Piece>,
}

impl Fetch {
    async fn send(&self, piece: Piece) -> Result<()> {
        // The writer has said why it is gone.
        self.out.send(piece).await.map_err(|_| Error::explained_elsewhere())
    }

    async fn my_turn(&self, turn: usize) {
        while self.turn.get() != turn {
            self.turned.notified().await;
        }
    }

    fn next_turn(&self) {
        self.turn.set(self.turn.get() + 1);
        self.turned.notify_waiters();
    }

    /// The configuration, small enough to be looked at before it goes on.
    async fn config(&self, turn: usize, blob: &Descriptor, layers: usize) -> Result<()> {
        let permit = self.permits.acquire().await.map_err(|_| Error::explained_elsewhere())?;
        let mut transfer = Transfer::of(blob);
        let mut bar = self.manner.progress.begin(blob);
        let mut bytes = Vec::new();
        let mut keep = async |piece: &[u8], transfer: &Transfer| {
            bar.at(transfer.got);
            bytes.extend_from_slice(piece);
            Ok(())
        };
        let url = self.sources.blob(&mut transfer, &mut keep).await?;
        transfer.verify().map_err(|other| wrong(&url, other))?;
        drop(permit);
        bar.finish();
        manifest::check_config(&bytes, layers).map_err(|reason| Error::new("read", blob.digest, reason))?;
        self.my_turn(turn).await;
        self.send(Piece::File(path(&blob.digest), bytes)).await?;
        self.next_turn();
        Ok(())
    }

    /// A layer: straight through if it is its turn, else to a file until it is.
    async fn layer(&self, turn: usize, blob: &Descriptor) -> Result<()> {
        let permit = self.permits.acquire().await.map_err(|_| Error::explained_elsewhere())?;
        let mut bar = self.manner.progress.begin(blob);
        let mut outlet = Outlet { fetch: self, turn, blob, store: Store::None, stored: 0, sent: None, straight: true };
        let mut transfer = Transfer::of(blob);
        if let Some(cache) = &self.manner.cache {
            let mut partial = cache.partial(blob.digest, blob.size).await?;
            partial.resume(&mut transfer).await?;
            outlet.stored = transfer.got;
            // What somebody else wrote may be wrong: then it begins again, which it cannot once it has been sent.
            outlet.straight = transfer.got == 0;
            outlet.store = Store::Kept(partial);
        }
        loop {
            let mut sink = async |piece: &[u8], transfer: &Transfer| {
                bar.at(transfer.got);
                outlet.put(piece).await
            };
            let from = match transfer.got == blob.size && blob.size > 0 {
                true => None,
                false => Some(self.sources.blob(&mut transfer, &mut sink).await?),
            };
            let Err(other) = transfer.verify() else { break };
            if let Store::Kept(partial) = &outlet.store {
                partial.clear()?;
            }
            match from {
                Some(url) if outlet.straight => {
                    outlet.remove();
                    return Err(wrong(&url, other));
                }
                _ => {}
            }
            transfer = Transfer::of(blob);
            (outlet.stored, outlet.straight) = (0, true);
        }
        if let Store::Kept(partial) = &outlet.store {
            partial.unlock();
        }
        drop(permit);
        bar.finish();
        self.my_turn(turn).await;
        outlet.catch_up(outlet.stored).await?;
        if let Store::Kept(partial) = outlet.store {
            self.send(Piece::Written(partial)).await?;
        }
        self.next_turn();
        Ok(())
    }
}

fn wrong(url: &reqwest::Url, other: Digest) -> Error {
    Error::new("get", url, format!("what came is {other}"))
}

/// Where a layer's bytes go.
struct Outlet<'a> {
    fetch: &'a Fetch,
    turn: usize,
    blob: &'a Descriptor,
    store: Store,
    /// How many bytes the store has.
    stored: u64,
    /// How many bytes are in the stream; `None` before the entry has begun.
    sent: Option<u64>,
    /// The bytes may go into the stream before all of them are known to be right.
    straight: bool,
}

/// The bytes of a layer whose turn has not come.
enum Store {
    /// None was needed yet.
    None,
    /// A file without a name.
    Unnamed(File),
    /// A file that outlives us, with all the bytes.
    Kept(Partial),
}

impl Outlet<'_> {
    async fn put(&mut self, piece: &[u8]) -> Result<()> {
        let now = self.straight && self.fetch.turn.get() == self.turn;
        let before = self.stored;
        if !now || matches!(self.store, Store::Kept(_)) {
            match self.store(piece) {
                Ok(()) if !now => return Ok(()),
                Ok(()) => {}
                // No room for what comes early is no reason to stop: it waits for its turn.
                Err(_) if self.straight => {
                    self.fetch.my_turn(self.turn).await;
                    self.catch_up(before).await?;
                    self.remove();
                    self.store = Store::None;
                }
                Err(error) => return Err(error),
            }
        }
        self.catch_up(before).await?;
        self.fetch.send(Piece::Bytes(piece.to_vec())).await?;
        self.sent = self.sent.map(|sent| sent + piece.len() as u64);
        Ok(())
    }

    /// Appends to the store.
    fn store(&mut self, piece: &[u8]) -> Result<()> {
        if matches!(self.store, Store::None) {
            self.store = Store::Unnamed(unnamed()?);
        }
        let (mut file, path) = match &self.store {
            Store::None => return Ok(()),
            Store::Unnamed(file) => (file, None),
            Store::Kept(partial) => (&partial.file, Some(partial.path())),
        };
        match file.write_all(piece) {
            Ok(()) => {
                self.stored += piece.len() as u64;
                Ok(())
            }
            Err(e) => {
                // Half a piece is none.
                let _ = file.set_len(self.stored);
                let name = path.map_or_else(|| "a temporary file".into(), |path| path.display().to_string());
                Err(Error::new("write", name, e))
            }
        }
    }

    /// Sends what the stream has not of the store's first `all` bytes.
    async fn catch_up(&mut self, all: u64) -> Result<()> {
        let mut sent = match self.sent {
            Some(sent) => sent,
            None => {
                self.fetch.send(Piece::Begin(path(&self.blob.digest), self.blob.size)).await?;
                0
            }
        };
        self.sent = Some(sent);
        let file = match &self.store {
            Store::None => return Ok(()),
            Store::Unnamed(file) | Store::Kept(Partial { file, .. }) => file,
        };
        while sent < all {
            let mut bytes = vec![0; CHUNK.min((all - sent) as usize)];
            file.read_exact_at(&mut bytes, sent).map_err(|e| Error::new("read", "what was fetched before", e))?;
            sent += bytes.len() as u64;
            self.fetch.send(Piece::Bytes(bytes)).await?;
            self.sent = Some(sent);
        }
        Ok(())
    }

    /// It is no good, or is in the way: nobody needs it any more.
    fn remove(&self) {
        if let Store::Kept(partial) = &self.store {
            partial.remove();
        }
    }
}

/// A file without a name in `$TMPDIR`, or in /var/tmp, which is no memory.
pub(crate) fn unnamed() -> Result<File> {
    let dir = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/var/tmp".into());
    tempfile::tempfile_in(&dir).map_err(|e| Error::new("write", Path::new(&dir).display(), e))
}
