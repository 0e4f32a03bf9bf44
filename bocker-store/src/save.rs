//! `save`: images as one archive, an OCI layout that also is what `docker load` reads. The same images give the same bytes.
//!
//! The store has no layers' archives, only what is in them. So each is written again, from a layer's subvolume and the one
//! below: what differs, and whiteouts for what is gone. What was in the archive once and cannot be seen any more (the order
//! of its entries, names of owners, a file that was as it is now) is not in it again, so its digest is another one, and so
//! is the image's. Content and names are the same.
//!
//! A layer's size and digest stand before its bytes. So each is written twice, the first time to nowhere.

use std::borrow::BorrowMut;
use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bocker_common::{Error, Id, Kind, Result};
use rustix::fs::{FileType, Mode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::diff::touched;
use crate::export::{DIRECTORY, Entry, Exporter, MAX_DEPTH, headers};
use crate::oci::{Config, Digest};
use crate::reference::Reference;
use crate::store::{LAYERS, Store, to_nix};

const BLOCK: u64 = 512;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer: a tree, and the one below it.
struct Layer {
    tree: OwnedFd,
    below: Option<OwnedFd>,
    /// Inodes that may differ between them, where that is known.
    touched: Option<HashSet<u64>>,
    digest: Digest,
    size: u64,
}

/// An image: its documents, and the digests of its layers, lowest first.
struct Image {
    id: Id,
    names: Vec<Reference>,
    config: Vec<u8>,
    manifest: Vec<u8>,
    layers: Vec<Digest>,
}

/// Counts and hashes what it passes on.
struct Summed<W> {
    to: W,
    hasher: Sha256,
    count: u64,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Layer {
    /// The layer between two subvolumes.
    fn between(below: Option<&OwnedFd>, subvolume: &OwnedFd, is_written: bool, name: &str) -> Result<Self> {
        let fail = |e| Error::new("look into", name, to_nix(e));
        let root = |of: &OwnedFd| rustix::fs::openat(of, "rootfs", DIRECTORY, Mode::empty()).map_err(fail);
        let touched = match below.filter(|_| is_written) {
            Some(below) => touched(below, subvolume).map_err(|e| Error::new("look into", name, e))?,
            None => None,
        };
        let below = below.map(root).transpose()?;
        let mut layer = Self { tree: root(subvolume)?, below, touched, digest: Digest::of(b""), size: 0 };
        let sum = layer.write(io::sink())?;
        (layer.size, layer.digest) = (sum.count, Digest::finish(sum.hasher));
        Ok(layer)
    }

    fn write<W: Write>(&self, to: W) -> Result<Summed<W>> {
        let summed = Summed { to, hasher: Sha256::new(), count: 0 };
        let mut exporter = Exporter::of_a_layer(summed, Error::stdout);
        match &self.below {
            Some(below) => exporter.changes(below, &self.tree, self.touched.as_ref(), b"", MAX_DEPTH)?,
            None => exporter.directory(&self.tree, b"", MAX_DEPTH)?,
        }
        exporter.end()
    }

    /// Whether nothing differs: its archive is an end mark.
    fn is_empty(&self) -> bool {
        self.size == 2 * BLOCK
    }
}

/// What is to be written, each layer once.
struct Plan<'a> {
    store: &'a Store,
    /// A transaction is in an inode's item once it is written; on a full disk it may never be.
    is_written: bool,
    images: Vec<Image>,
    layers: Vec<Layer>,
    /// Digests of the store's layers, by chain id.
    known: HashMap<String, Digest>,
}

impl Plan<'_> {
    fn subvolume(&self, name: &str) -> Result<OwnedFd> {
        let fd = rustix::fs::openat(self.store.dir(), name, DIRECTORY, Mode::empty());
        fd.map_err(to_nix).map_err(self.store.fail("open", name))
    }

    fn add(&mut self, word: &str) -> Result<()> {
        let id = self.store.find(Kind::Image, word)?;
        // By a name it has that name, by its id all that it has.
        let names = match word.parse::<Id>() {
            Ok(_) => self.store.names_of(id)?,
            Err(_) => vec![word.parse()?],
        };
        if let Some(image) = self.images.iter_mut().find(|image| image.id == id) {
            let more: Vec<_> = names.into_iter().filter(|name| !image.names.contains(name)).collect();
            image.names.extend(more);
            return Ok(());
        }
        let list = self.store.text(id, "layers");
        let mut layers = Vec::new();
        let mut below = None;
        for chain in String::from_utf8_lossy(&list).lines() {
            let name = format!("{LAYERS}/{chain}");
            let subvolume = self.subvolume(&name)?;
            let digest = match self.known.get(chain) {
                Some(digest) => digest.clone(),
                None => {
                    let digest = self.push(Layer::between(below.as_ref(), &subvolume, self.is_written, &name)?);
                    self.known.insert(chain.to_owned(), digest.clone());
                    digest
                }
            };
            layers.push(digest);
            below = Some(subvolume);
        }
        // What a commit brought, or all of an image without layers.
        let last = Layer::between(below.as_ref(), &self.subvolume(&id.to_string())?, self.is_written, &id.to_string())?;
        if below.is_none() || !last.is_empty() {
            layers.push(self.push(last));
        }
        let config =
            config(&self.store.bytes(id, "config"), &layers).map_err(|e| Error::new("save", id, e.to_string()))?;
        let size =
            |digest: &Digest| self.layers.iter().find(|layer| layer.digest == *digest).map_or(0, |layer| layer.size);
        let described: Vec<_> = layers.iter().map(|digest| descriptor(LAYER, digest, size(digest))).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &Digest::of(&config), config.len() as u64),
            "layers": described,
        });
        let manifest = manifest.to_string().into_bytes();
        self.images.push(Image { id, names, config, manifest, layers });
        Ok(())
    }

    /// Two layers may hold the same.
    fn push(&mut self, layer: Layer) -> Digest {
        let digest = layer.digest.clone();
        if self.layers.iter().all(|known| known.digest != digest) {
            self.layers.push(layer);
        }
        digest
    }

    fn write(&self, out: &mut Out<impl Write>) -> Result<()> {
        out.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let mut there = HashSet::new();
        for document in self.images.iter().flat_map(|image| [&image.manifest, &image.config]) {
            let digest = Digest::of(document);
            if there.insert(digest.clone()) {
                out.file(&path(&digest), document)?;
            }
        }
        for layer in &self.layers {
            out.begin(&path(&layer.digest), layer.size)?;
            let sum = layer.write(&mut *out)?;
            if Digest::finish(sum.hasher) != layer.digest {
                return Err(Error::new("save", &layer.digest, "the image changed while it was read"));
            }
            out.pad()?;
        }
        // The one that docker reads, then that of the layout: without it the archive is not whole.
        let saved = self.images.iter().map(|image| {
            let tags: Vec<_> = image.names.iter().map(Reference::familiar).collect();
            json!({
                "Config": path(&Digest::of(&image.config)),
                "RepoTags": if tags.is_empty() { Value::Null } else { tags.into() },
                "Layers": image.layers.iter().map(path).collect::<Vec<_>>(),
            })
        });
        out.file("manifest.json", Value::from_iter(saved).to_string().as_bytes())?;
        let mut listed = Vec::new();
        for image in &self.images {
            let entry = descriptor(MANIFEST, &Digest::of(&image.manifest), image.manifest.len() as u64);
            for name in &image.names {
                let mut entry = entry.clone();
                entry["annotations"] = json!({
                    "io.containerd.image.name": name.to_string(),
                    "org.opencontainers.image.ref.name": name.familiar(),
                });
                listed.push(entry);
            }
            if image.names.is_empty() {
                listed.push(entry);
            }
        }
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": listed,
        });
        out.file("index.json", index.to_string().as_bytes())?;
        out.end()
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/{}", digest.as_str().replace(':', "/"))
}

fn descriptor(kind: &str, digest: &Digest, size: u64) -> Value {
    json!({ "mediaType": kind, "digest": digest.as_str(), "size": size })
}

/// The configuration with the layers that there are now. Where a history does not tell of the last ones, they are told of.
fn config(bytes: &[u8], layers: &[Digest]) -> Result<Vec<u8>> {
    Config::parse(bytes)?;
    let mut config: Value = serde_json::from_slice(bytes).map_err(|e| Error::plain(e.to_string()))?;
    config["rootfs"] = json!({ "type": "layers", "diff_ids": layers.iter().map(Digest::as_str).collect::<Vec<_>>() });
    if let Some(history) = config.get_mut("history").and_then(Value::as_array_mut) {
        let told = history.iter().filter(|step| step["empty_layer"] != true).count();
        history.extend((told..layers.len()).map(|_| json!({ "created_by": "bocker commit" })));
    }
    Ok(config.to_string().into_bytes())
}

/// The archive, entry by entry.
struct Out<W: Write> {
    to: BufWriter<W>,
    /// Bytes that the entry being written still owes, its padding not counted.
    owed: u64,
    padding: u64,
}

impl<W: Write> Out<W> {
    fn new(to: W) -> Self {
        Self { to: BufWriter::with_capacity(256 << 10, to), owed: 0, padding: 0 }
    }

    fn begin(&mut self, name: &str, size: u64) -> Result<()> {
        let head = headers(&Entry::file(name, size)).map_err(|e| Error::new("write", name, e))?;
        self.to.write_all(&head).map_err(|e| Error::stdout(&e))?;
        (self.owed, self.padding) = (size, size.next_multiple_of(BLOCK) - size);
        Ok(())
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.begin(name, bytes.len() as u64)?;
        self.write_all(bytes).map_err(|e| Error::stdout(&e))?;
        self.pad()
    }

    fn pad(&mut self) -> Result<()> {
        let padding = std::mem::take(&mut self.padding) as usize;
        self.to.write_all(&[0; BLOCK as usize][..padding]).map_err(|e| Error::stdout(&e))
    }

    fn end(&mut self) -> Result<()> {
        self.to.write_all(&[0; 2 * BLOCK as usize]).and_then(|()| self.to.flush()).map_err(|e| Error::stdout(&e))
    }

    /// Ends the archive with an entry that says that we failed and said why; what the entry before owes comes first.
    fn fail(&mut self) -> Result<()> {
        let zeros = [0; 64 << 10];
        while self.owed > 0 {
            let some = self.owed.min(zeros.len() as u64) as usize;
            self.write_all(&zeros[..some]).map_err(|e| Error::stdout(&e))?;
        }
        self.pad()?;
        self.file("failed", b"")?;
        self.end()
    }
}

/// The bytes of an entry, no more of them than were announced.
impl<W: Write> Write for Out<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.owed {
            return Err(io::Error::other("a layer became longer while it was read"));
        }
        let written = self.to.write(bytes)?;
        self.owed -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// `save`: to stdout, or to a file, which is there afterwards only if it is whole.
#[expect(clippy::disallowed_methods, reason = "--output FILE, the user's own word")]
pub(crate) fn save(open: impl FnOnce() -> Result<Store>, words: &[String], output: Option<&Path>) -> Result<()> {
    let stdout = io::stdout();
    let Some(file) = output else {
        if stdout.is_terminal() {
            let way_out = format!("bocker-store save {} > FILE", words.join(" "));
            return Err(Error::plain("stdout is a terminal").hint(way_out));
        }
        let is_pipe =
            rustix::fs::fstat(&stdout).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        let mut out = Out::new(stdout.lock());
        return open().and_then(|store| write(&store, words, || Ok(&mut out))).inspect_err(|_| {
            // Who reads the pipe need not guess why it ended.
            if is_pipe {
                let _ = out.fail();
            }
        });
    };
    let mut made = false;
    let create = || {
        // What is in an image is not everybody's.
        let to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file);
        let to = to.map_err(|e| Error::new("write", file.display(), e))?;
        made = to.metadata().is_ok_and(|meta| meta.is_file());
        Ok(Out::new(to))
    };
    let done = open().and_then(|store| write(&store, words, create));
    if done.is_err() && made {
        let _ = std::fs::remove_file(file);
    }
    done
}

fn write<W: Write, O: BorrowMut<Out<W>>>(
    store: &Store,
    words: &[String],
    out: impl FnOnce() -> Result<O>,
) -> Result<()> {
    // Nothing is removed that an image needs which is there now.
    let _held = store.layers()?.map(|_| store.hold_layers()).transpose()?;
    let is_written = rustix::fs::syncfs(store.dir()).is_ok();
    let mut plan = Plan { store, is_written, images: Vec::new(), layers: Vec::new(), known: HashMap::new() };
    words.iter().try_for_each(|word| plan.add(word))?;
    plan.write(out()?.borrow_mut())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_tells_of_all_its_layers() {
        let layers = [Digest::of(b"1"), Digest::of(b"2")];
        let bytes = br#"{"history":[{"created_by":"a"},{"created_by":"b","empty_layer":true}],"x":1.5,"rootfs":{}}"#;
        let text = String::from_utf8(config(bytes, &layers).unwrap()).unwrap();
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["rootfs"]["diff_ids"][1], layers[1].as_str());
        assert_eq!((read["history"][2]["created_by"].as_str(), &read["x"]), (Some("bocker commit"), &json!(1.5)));
        // Where nobody told, nobody tells.
        assert!(!String::from_utf8(config(br#"{"rootfs":{}}"#, &layers).unwrap()).unwrap().contains("history"));
        assert!(config(b"{}", &layers).is_err() && config(b"<html>", &layers).is_err());
    }

    #[test]
    fn a_failure_is_the_last_entry_wherever_it_happens() {
        for written in [0_usize, 1, 700, 1000] {
            let mut archive = Vec::new();
            let mut out = Out::new(&mut archive);
            out.begin("blob", 1000).unwrap();
            out.write_all(&vec![7; written]).unwrap();
            assert!(out.write(&[0; 1001]).is_err(), "more than was announced");
            out.fail().unwrap();
            drop(out);
            let mut reader = bocker_common::tarball::Reader::new(&archive[..]);
            assert_eq!(reader.next_entry().unwrap().unwrap().size, 1000);
            assert_eq!(reader.next_entry().unwrap().unwrap().path, b"failed");
            assert!(reader.next_entry().unwrap().is_none() && reader.has_end_mark());
        }
    }
}
