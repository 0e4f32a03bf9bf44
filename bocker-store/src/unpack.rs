//! An image from an OCI layout that comes as a tar stream on stdin, read once.
//!
//! What `bocker-pull fetch` writes has manifest, configuration and layers in the order in which they are needed, so
//! layers are applied as they arrive. A blob that comes early (as skopeo orders its archives) waits in an unnamed file.
//! Every blob's size and digest is checked, and each layer's digest after decompression (its diff id). Other threads make
//! the layers while the stream is read on ([`crate::maker`]). A layer gets its name when both were right and its data is
//! on the disk ([`crate::namer`]); the image gets its own when the stream was whole, too.
//!
//! A layer remembers the blob that it came from and the layer below: so `bocker-store have` knows, before anything is
//! fetched, which blobs nobody needs.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Seek, Write};
use std::os::fd::AsFd;

use bocker_common::diag::printable;
use bocker_common::id::{FIRST, LAST};
use bocker_common::reference::Parts;
use bocker_common::say::{Explain, perform};
use bocker_common::{Error, Id, Kind, Result};
use rustix::fs::{Mode, OFlags};

use crate::layer::failed;
use crate::maker::{Maker, Order, Place, Stopped};
use crate::namer::Top;
use crate::names;
use crate::oci::{self, Config, Descriptor, Digest, MAX_JSON, Manifest};
use crate::pipeline::Hashed;
use crate::reference::Reference;
use crate::signal::{Interrupt, Interruptible};
use crate::store::{Building, ORIGIN, Step, Store};
use bocker_common::tarball::{self, shown};

/// Bytes after the end of a layer's archive, at most. Tar pads to 10 kB.
pub(crate) const MAX_TAIL: u64 = 16 << 20;
/// Entries of the stream, at most.
const MAX_BLOBS: usize = 10_000;

/// What is known of the image so far.
struct Unpacker<'scope, 'a> {
    place: Place<'a>,
    /// Makes the layers.
    maker: Option<Maker<'scope>>,
    /// Verified blobs that wait.
    waiting: HashMap<Digest, File>,
    manifest: Option<(Digest, Manifest)>,
    config: Option<(Vec<u8>, Config)>,
    /// Chain ids, lowest first.
    chain: Vec<Digest>,
    /// Layers that are there, or ordered.
    done: usize,
    index: Option<(Vec<Descriptor>, Vec<String>)>,
    layout: bool,
    /// A blob's bytes were not what its digest says.
    damaged: Cell<bool>,
}

fn reading(error: io::Error) -> Error {
    Error::new("read", "stdin", error)
}

/// Reads stdin, makes the image. With a dry run reads nothing and says what would be done.
///
/// # Errors
/// Whatever is wrong with the stream; then nothing of it is left in the store.
pub(crate) fn unpack(store: &Store, source: Option<&str>, explain: Explain) -> Result<Id> {
    if explain.dry_run {
        let plan = |new: &str| {
            let text = source.map_or_else(String::new, printable) + "\n";
            let mut steps = vec![Step::Subvolume(new.to_owned()), Step::Unpack(new.to_owned())];
            steps.extend([Step::Write(format!("{new}/source"), text.into()), Step::Sync]);
            steps
        };
        return store.create(Kind::Image, (FIRST, LAST), explain, plan, |_, _| Ok(false));
    }
    let interrupt = Interrupt::listen()?;
    let mut input = stdin(&interrupt)?;
    let (id, _) = one(store, &mut input, false, source, explain, &interrupt)?;
    Ok(id)
}

/// Reads layouts from stdin, one after the other, makes the image of each, and gives it the names that it has there;
/// `told` gets each image with its names. With a dry run as [`unpack`].
///
/// # Errors
/// Whatever is wrong with a layout; the images before it are there.
pub(crate) fn load(
    store: &Store,
    explain: Explain,
    mut told: impl FnMut(Id, &[Reference]) -> Result<()>,
) -> Result<()> {
    if explain.dry_run {
        return unpack(store, None, explain).map(drop);
    }
    let interrupt = Interrupt::listen()?;
    let mut input = stdin(&interrupt)?;
    loop {
        let (id, all) = one(store, &mut input, true, None, explain, &interrupt)?;
        let all: Vec<Reference> = all.iter().filter_map(|name| complete(name)).collect();
        if !all.is_empty() {
            let _held = names::hold(store, explain)?;
            let ties: Vec<_> = all.iter().map(|name| store.act(Step::Tie(name.clone(), id))).collect();
            perform(&ties, explain, |act| store.apply(act.step()))?;
        }
        told(id, &all)?;
        if input.fill_buf().map_err(reading)?.is_empty() {
            return Ok(());
        }
    }
}

/// What names an image for people. A name without a tag is a repository's, or a tag alone.
fn complete(name: &str) -> Option<Reference> {
    Parts::read(name).ok()?.tag?;
    name.parse().ok()
}

/// What comes on stdin, until a signal does.
fn stdin(interrupt: &Interrupt) -> Result<BufReader<Interruptible<'_>>> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(Error::plain("stdin is a terminal")
            .hint("bocker-pull manifest NAME | bocker-pull fetch | bocker-store unpack"));
    }
    let stdin = stdin.as_fd().try_clone_to_owned().map_err(reading)?;
    // For headers. What is read in larger pieces passes it by.
    Ok(BufReader::with_capacity(16 << 10, Interruptible::new(stdin, interrupt)))
}

/// The image of the next layout, and the names that it has there. Only where there may be `several` something follows.
fn one(
    store: &Store,
    input: &mut impl BufRead,
    several: bool,
    source: Option<&str>,
    explain: Explain,
    interrupt: &Interrupt,
) -> Result<(Id, Vec<String>)> {
    let budget = store.budget()?;
    let layers = store.hold_layers()?;
    let top = Top::default();
    let done = std::thread::scope(|scope| {
        let place = Place { store, layers: &layers, budget: &budget, top: &top, explain };
        let unpacker = Unpacker {
            place,
            maker: Some(Maker::start(scope, place)),
            waiting: HashMap::new(),
            manifest: None,
            config: None,
            chain: Vec::new(),
            done: 0,
            index: None,
            layout: false,
            damaged: Cell::new(false),
        };
        unpacker.run(input, several, source, interrupt)
    });
    drop(layers);
    if done.as_ref().is_err_and(|error| !error.is_explained_elsewhere() && interrupt.check().is_ok()) {
        // Nobody lists its layers. Where the registry went away or somebody said stop they stay until the next gc, for the
        // next try goes on from there.
        let _ = store.prune(None, Explain::default(), |_| Ok(()));
    }
    done.map_err(|error| interrupt.or(error))
}

impl Unpacker<'_, '_> {
    fn mismatch(&self, expected: &Digest, actual: &Digest) -> Error {
        self.damaged.set(true);
        Error::new("verify", format_args!("blob {expected}"), format!("its bytes have the digest {actual}"))
    }

    fn run(
        mut self,
        input: &mut impl BufRead,
        several: bool,
        source: Option<&str>,
        interrupt: &Interrupt,
    ) -> Result<(Id, Vec<String>)> {
        let done = self.receive(input, several).and_then(|()| self.configure_from_an_image());
        // What is complete gets its name, for the next try, too.
        match (done, self.made()) {
            (Ok(()), Ok(dropped)) => self.publish(&dropped, source, interrupt),
            (Ok(()), Err(stopped)) => Err(stopped.error),
            // It led to ours, unless it is the layer whose blob we did not come to the end of.
            (Err(error), Err(stopped))
                if !error.is_explained_elsewhere() && self.chain.get(self.done) != Some(&stopped.chain) =>
            {
                Err(stopped.error)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Reads the stream to its end.
    fn receive(&mut self, input: &mut impl BufRead, several: bool) -> Result<()> {
        let mut stream = tarball::Reader::new(&mut *input);
        let mut count = 0;
        while let Some(entry) = stream.next_entry().map_err(reading)? {
            count += 1;
            if count > MAX_BLOBS {
                return Err(Error::new("read", "stdin", "more than 10,000 entries"));
            }
            if let Err(error) = self.entry(&entry, &mut stream) {
                // Where the stage before us failed within a blob, it fills the blob up and says so in the next entry.
                if self.damaged.get()
                    && let Ok(Some(next)) = stream.next_entry()
                    && next.path == b"failed"
                {
                    return Err(Error::explained_elsewhere());
                }
                return Err(error);
            }
        }
        if count == 0 {
            return Err(Error::new("read", "stdin", "it is empty").hint("bocker-pull fetch writes what unpack reads"));
        }
        // Tar pads with zeros; what comes then is the next archive, or not part of one.
        loop {
            let bytes = input.fill_buf().map_err(reading)?;
            let zeros = bytes.iter().take_while(|b| **b == 0).count();
            if bytes.is_empty() || zeros < bytes.len() && several {
                input.consume(zeros);
                return Ok(());
            }
            if zeros < bytes.len() {
                return Err(Error::new("read", "stdin", "there is data after the end of the archive"));
            }
            input.consume(zeros);
        }
    }

    fn entry(&mut self, entry: &tarball::Entry, data: &mut impl Read) -> Result<()> {
        let wrong = |why: &str| Error::new("read", "stdin", format!("'{}' {why}", shown(&entry.path)));
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let path = path.trim_start_matches("./").trim_end_matches('/');
        // The stage before us has said why.
        if path == "failed" {
            return Err(Error::explained_elsewhere());
        }
        if entry.kind == tarball::Kind::Directory && matches!(path, "" | "." | "blobs" | "blobs/sha256") {
            return Ok(());
        }
        if entry.kind != tarball::Kind::File || entry.sparse.is_some() {
            return Err(wrong("is not a plain file"));
        }
        if let Some(hex) = path.strip_prefix("blobs/sha256/") {
            return self.blob(format!("sha256:{hex}").parse()?, entry.size, data);
        }
        let mut text = || {
            if entry.size > MAX_JSON {
                return Err(wrong("is larger than 4 MiB"));
            }
            let mut bytes = Vec::new();
            data.read_to_end(&mut bytes).map_err(reading)?;
            Ok(bytes)
        };
        match path {
            "oci-layout" if !self.layout => {
                oci::layout(&text()?)?;
                self.layout = true;
                Ok(())
            }
            "index.json" if self.index.is_none() => {
                self.index = Some(oci::index(&text()?)?);
                self.consider_waiting()
            }
            "oci-layout" | "index.json" => Err(wrong("occurs twice")),
            // docker save puts them beside its OCI layout.
            "manifest.json" | "repositories" => Ok(()),
            _ => Err(wrong("does not belong into an OCI layout")),
        }
    }

    /// The next layer to order, once manifest and configuration are known.
    fn next_layer(&self) -> Option<&Descriptor> {
        self.config.as_ref()?;
        self.manifest.as_ref()?.1.layers.get(self.done)
    }

    /// True if a layer after the next one has the same bytes.
    fn again(&self, digest: &Digest) -> bool {
        let Some((_, manifest)) = &self.manifest else { return false };
        manifest.layers.iter().skip(self.done + 1).any(|layer| layer.digest == *digest)
    }

    fn blob(&mut self, digest: Digest, size: u64, data: &mut impl Read) -> Result<()> {
        if self.maker.as_ref().is_some_and(Maker::has_stopped) {
            return Err(self.stopped().error);
        }
        if self.next_layer().is_some_and(|layer| layer.digest == digest) && !self.again(&digest) {
            self.layer(&digest, size, data, "stdin")?;
            return self.advance();
        }
        let layer =
            self.manifest.as_ref().map(|(_, manifest)| manifest.layers.iter().any(|layer| layer.digest == digest));
        let mut data = Hashed::new(data);
        let needed = self.manifest.as_ref().is_none_or(|(_, manifest)| {
            let later = manifest.layers.iter().skip(self.done).any(|layer| layer.digest == digest);
            later || self.config.is_none() && manifest.config.digest == digest
        });
        if self.waiting.contains_key(&digest)
            || layer == Some(true) && !needed
            || layer == Some(false) && size > MAX_JSON
        {
            // Here already, or nothing of ours: only its word is checked.
            let actual = data.finish().map_err(reading)?;
            return if actual == digest { Ok(()) } else { Err(self.mismatch(&digest, &actual)) };
        }
        self.place.budget.spend_aside(size)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.place.store.dir(), ".", flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| failed("create", "a temporary file", e))?;
        let mut file = File::from(file);
        copy(&mut data, &mut file)?;
        self.place.budget.spend_aside(0)?;
        let actual = data.finish().map_err(reading)?;
        if actual != digest {
            return Err(self.mismatch(&digest, &actual));
        }
        self.waiting.insert(digest, file);
        self.consider_waiting()
    }

    /// The bytes of a waiting blob that is a JSON document; None if it is too large for one.
    fn document(&mut self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.waiting.get_mut(digest) else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = file.rewind().and_then(|()| file.take(MAX_JSON + 1).read_to_end(&mut bytes));
        read.map_err(|e| Error::new("read", format_args!("blob {digest}"), e))?;
        Ok((bytes.len() as u64 <= MAX_JSON).then_some(bytes))
    }

    /// Looks whether what waits is the manifest or the configuration, then orders the layers that can be made.
    fn consider_waiting(&mut self) -> Result<()> {
        if self.manifest.is_none() {
            let mut known: Vec<_> = self.waiting.keys().cloned().collect();
            if let Some((manifests, _)) = &self.index {
                known.retain(|digest| manifests.iter().any(|one| one.digest == *digest));
            }
            for digest in known {
                if let Some(bytes) = self.document(&digest)?
                    && Manifest::resembles(&bytes)
                {
                    let manifest = Manifest::parse(&bytes)?;
                    self.manifest = Some((digest, manifest));
                    break;
                }
            }
        }
        if self.config.is_none()
            && let Some(wanted) = self.manifest.as_ref().map(|(_, manifest)| manifest.config.clone())
            && let Some(bytes) = self.document(&wanted.digest)?
        {
            if bytes.len() as u64 != wanted.size {
                return Err(Error::new(
                    "verify",
                    format_args!("blob {}", wanted.digest),
                    "its size is not the manifest's",
                ));
            }
            self.configure(bytes)?;
        }
        self.advance()
    }

    /// The configuration says which layers the blobs are.
    fn configure(&mut self, bytes: Vec<u8>) -> Result<()> {
        let config = Config::parse(&bytes)?;
        let layers = self.manifest.as_ref().map_or(0, |(_, manifest)| manifest.layers.len());
        if config.diff_ids.len() != layers {
            let diffs = config.diff_ids.len();
            return Err(Error::new("read", "config", format!("{diffs} diff_ids for {layers} layers")));
        }
        self.chain = oci::chain(&config.diff_ids);
        self.config = Some((bytes, config));
        Ok(())
    }

    /// Orders the layers whose blobs wait, as far as their order allows.
    fn advance(&mut self) -> Result<()> {
        while let Some(digest) = self.next_layer().map(|layer| layer.digest.clone()) {
            // The store has the layer: its blob is not needed, whether it comes or not.
            if self.place.layers.open(self.chain[self.done].as_str())?.is_some() {
                self.done += 1;
                continue;
            }
            let Some(mut file) = self.waiting.remove(&digest) else { break };
            let again = self.again(&digest);
            let size = file.rewind().and_then(|()| file.metadata()).map_err(|e| Error::new("read", &digest, e))?.len();
            self.layer(&digest, size, &file, "a temporary file")?;
            if again {
                self.waiting.insert(digest, file);
            }
        }
        Ok(())
    }

    /// Orders the next layer and feeds it with the blob.
    fn layer(&mut self, digest: &Digest, size: u64, blob: impl Read, from: &str) -> Result<()> {
        let Some(descriptor) = self.next_layer() else { return Ok(()) };
        if descriptor.size != size {
            return Err(Error::new("verify", format_args!("blob {digest}"), "its size is not the manifest's"));
        }
        let chain = self.chain[self.done].clone();
        let below = self.done.checked_sub(1).map(|below| self.chain[below].clone());
        let Some(diff_id) = self.config.as_ref().and_then(|(_, config)| config.diff_ids.get(self.done)) else {
            return Ok(());
        };
        let order = Order { digest: digest.clone(), diff_id: diff_id.clone(), chain: chain.clone(), below };
        let mut blob = Hashed::new(blob);
        let reading = |e| Error::new("read", from, e);
        let taken = self.maker.as_ref().map_or(Ok(false), |maker| maker.take(order, &mut blob)).map_err(reading)?;
        if !taken {
            let stopped = self.stopped();
            // Damaged bytes are the better reason for what they led to.
            return Err(match (stopped.chain == chain).then(|| blob.finish()) {
                Some(Ok(actual)) if actual != *digest => self.mismatch(digest, &actual),
                _ => stopped.error,
            });
        }
        let actual = blob.finish().map_err(reading)?;
        if actual != *digest {
            return Err(self.mismatch(digest, &actual));
        }
        if let Some(maker) = &self.maker {
            maker.confirm();
        }
        self.done += 1;
        Ok(())
    }

    /// A configuration that did not come: an image that is there has it, so `bocker-store have` said that it need not. What it is
    /// worth its digest says.
    fn configure_from_an_image(&mut self) -> Result<()> {
        let Some((digest, manifest)) = self.manifest.as_ref().filter(|_| self.config.is_none()) else { return Ok(()) };
        if let Some(image) = self.place.store.images_of(digest)?.first() {
            let bytes = self.place.store.bytes(*image, "config");
            if Digest::of(&bytes) == manifest.config.digest {
                self.configure(bytes)?;
                self.advance()?;
            }
        }
        Ok(())
    }

    /// Why no more layers are made.
    fn stopped(&mut self) -> Stopped {
        self.made().err().unwrap_or_else(|| Stopped {
            chain: Digest::of(b""),
            error: Error::new("make", "layers", "the thread that makes them has ended"),
        })
    }

    /// Every layer that was ordered is made and has its name.
    fn made(&mut self) -> Result<BTreeSet<String>, Stopped> {
        self.maker.take().map_or_else(|| Ok(BTreeSet::new()), Maker::finish)
    }

    /// The image: a writable snapshot of the top layer, with its texts.
    fn publish(
        mut self,
        dropped: &BTreeSet<String>,
        source: Option<&str>,
        interrupt: &Interrupt,
    ) -> Result<(Id, Vec<String>)> {
        let incomplete = |what: String| Error::new("read", "stdin", format!("the image is incomplete: {what}"));
        let (manifests, names) = self.index.take().ok_or_else(|| incomplete("no index.json".into()))?;
        if !self.layout {
            return Err(incomplete("no oci-layout".into()));
        }
        // One image with several names is listed once for each.
        let listed = manifests.first().filter(|first| manifests.iter().all(|other| other.digest == first.digest));
        let Some(listed) = listed else {
            let error = Error::new("read", "index.json", format!("it lists {} images, not one", manifests.len()));
            return Err(error.hint("bocker load takes several"));
        };
        let (digest, manifest) =
            self.manifest.take().ok_or_else(|| incomplete(format!("no manifest {}", listed.digest)))?;
        if listed.digest != digest {
            return Err(Error::new("read", "index.json", "it lists another manifest than the one that came"));
        }
        let there = self.place.store.images_of(&digest)?;
        let (config, _) =
            self.config.take().ok_or_else(|| incomplete(format!("no configuration {}", manifest.config.digest)))?;
        if let Some(layer) = manifest.layers.get(self.done) {
            return Err(incomplete(format!("no layer {}", layer.digest)));
        }
        interrupt.check()?;
        if !dropped.is_empty() {
            let names: Vec<_> = dropped.iter().take(8).map(|name| printable(name)).collect();
            let more = if dropped.len() > names.len() { ", …" } else { "" };
            let _ = writeln!(io::stderr(), "bocker-store: warning: attributes left out: {}{more}", names.join(", "));
        }
        let name = names.first().map(|name| complete(name).map_or_else(|| name.clone(), |name| name.familiar()));
        let source = source.map(str::to_owned).or(name).unwrap_or_else(|| digest.to_string());
        let source = printable(&source);
        if let Some(image) =
            there.into_iter().find(|image| self.place.store.text(*image, "source") == source.as_bytes())
        {
            let _ = writeln!(io::stderr(), "bocker-store: {image} is {source} already");
            return Ok((image, names));
        }
        let top = self.chain.last();
        let list: String = self.chain.iter().map(|chain| format!("{chain}\n")).collect();
        let plan = |new: &str| {
            let mut steps = match &top {
                Some(top) => vec![Step::Snapshot(format!("layers/{top}"), new.to_owned())],
                None => vec![Step::Subvolume(new.to_owned()), Step::Directory(format!("{new}/rootfs"))],
            };
            steps.extend([
                Step::Forget(vec![format!("{new}/{ORIGIN}")]),
                Step::Write(format!("{new}/source"), format!("{source}\n").into()),
                Step::Write(format!("{new}/manifest"), format!("{digest}\n").into()),
                Step::Write(format!("{new}/config"), config.clone()),
                Step::Write(format!("{new}/layers"), list.clone().into()),
                Step::Sync,
            ]);
            steps
        };
        let whole = |_: &Step, _: &Building<'_>| interrupt.check().map(|()| false);
        Ok((self.place.store.create(Kind::Image, (FIRST, LAST), self.place.explain, plan, whole)?, names))
    }
}

/// Copies what is read, with the reader's and the writer's errors told apart.
fn copy(from: &mut impl Read, to: &mut File) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read]).map_err(|e| failed("write", "a temporary file", e))?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(reading(e)),
        }
    }
}
