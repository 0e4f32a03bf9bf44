//! `bocker-pull archive`: images from an archive or a directory instead of a registry. What `docker save` writes (the old
//! form and the new), an oci-archive, an OCI layout; each image goes out as `fetch` would write it, one layout after the
//! other.
//!
//! An archive may have its entries in any order, and its list of images at the end. So one from a pipe, or one that is
//! compressed, is kept first, in a file without a name; a file that can be read anywhere is not. Nothing goes out before
//! every digest of every image was right: half a load is worse than none.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::rc::Rc;

use bocker_common::packed::{self, Opened};
use bocker_common::reference::Parts;
use bocker_common::tarball::{Kind, Reader, bad, shown};
use bocker_common::{Error, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::digest::{Descriptor, Digest};
use crate::fetch::{path, unnamed};
use crate::layout::{Layout, MARKER};
use crate::manifest::{self, Document, SIZE_MAX};
use crate::platform::Platform;

/// Entries of an archive, and images in it, at most.
const ENTRIES_MAX: usize = 10_000;
const IMAGES_MAX: usize = 1000;
/// Bytes of a name in an archive, at most.
const NAME_MAX: usize = 1024;
/// Bytes of all manifests, at most: they are held until all is verified.
const MANIFESTS_MAX: usize = 32 << 20;
/// Indexes within indexes, at most.
const DEPTH_MAX: usize = 4;
/// Links from one name in an archive to the next, at most.
const LINKS_MAX: usize = 8;
/// Bytes that headers and padding add to the files of an archive, at most: 35 MB for so many entries with such names.
const AROUND: u64 = 64 << 20;
const CHUNK: usize = 256 << 10;

/// The name of an image in `index.json`: containerd's and docker's, then the specification's.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Where the files are.
enum Files {
    /// In a tar archive that can be read anywhere.
    Archive(Rc<File>, HashMap<String, Item>),
    /// In a directory.
    Directory(OwnedFd),
}

/// An entry of an archive.
enum Item {
    /// Where its bytes are, and how many.
    File(u64, u64),
    /// Another name, as docker wrote for a layer that is there already.
    Link(String),
}

/// The bytes of one file, read from where we are.
struct Part {
    file: Rc<File>,
    at: u64,
    size: u64,
}

impl Read for Part {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.size).unwrap_or(usize::MAX).min(into.len());
        let read = self.file.read_at(into.get_mut(..most).unwrap_or_default(), self.at)?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        self.size -= read as u64;
        Ok(read)
    }
}

/// Counts what is read through it, up to `most`: what is compressed may hold anything.
struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
    most: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.count.set(self.count.get() + read as u64);
        if self.count.get() > self.most {
            return Err(bad("it unpacks to more than --keep-max allows"));
        }
        Ok(read)
    }
}

/// One image of the archive: all that its layout holds, and where.
struct Image {
    /// Complete names, with a tag.
    names: Vec<String>,
    manifest: Vec<u8>,
    own: Descriptor,
    /// Configuration and layers, each once, in the order in which they go out.
    blobs: Vec<(Descriptor, String)>,
}

/// A file, a directory or stdin, and what it is called in messages.
struct Archive {
    name: String,
    files: Files,
}

/// Writes each image of `from` (a file, a directory, or `-`: stdin) to `layout`. No more than `most` bytes of a pipe are
/// kept meanwhile.
///
/// # Errors
/// One line; nothing was written yet but where reading an archive fails that could be read before.
pub(crate) fn run(from: &Path, most: u64, layout: &mut Layout<File>) -> Result<()> {
    let archive = Archive::open(from, most)?;
    for image in archive.images()? {
        layout.file(MARKER.0, MARKER.1)?;
        layout.file(&path(&image.own.digest), &image.manifest)?;
        for (blob, name) in &image.blobs {
            let mut part = archive.part(name)?;
            layout.begin(&path(&blob.digest), blob.size)?;
            let mut buffer = vec![0; CHUNK];
            loop {
                let read = part.read(&mut buffer).map_err(|e| archive.wrong(e))?;
                if read == 0 {
                    break;
                }
                layout.write(buffer.get(..read).unwrap_or_default())?;
            }
        }
        layout.file("index.json", &image.index())?;
        layout.end()?;
    }
    Ok(())
}

impl Archive {
    #[expect(clippy::disallowed_methods, reason = "the user's own word, once; all below goes by descriptor")]
    fn open(from: &Path, most: u64) -> Result<Self> {
        let name = if from == Path::new("-") { "stdin".to_owned() } else { from.display().to_string() };
        let fail = |e: io::Error| Error::new("read", &name, e);
        let file = if from == Path::new("-") {
            if io::stdin().is_terminal() {
                return Err(Error::plain("archive: stdin is a terminal").hint("bocker-pull archive < FILE"));
            }
            File::from(io::stdin().as_fd().try_clone_to_owned().map_err(fail)?)
        } else {
            File::open(from).map_err(fail)?
        };
        let kind = file.metadata().map_err(fail)?.file_type();
        let files = if kind.is_dir() {
            Files::Directory(file.into())
        } else {
            // What can be read anywhere need not be kept.
            entries(file, kind.is_file(), most).map_err(|e| match e {
                Unread::Archive(e) => fail(e),
                Unread::Temporary(e) => e,
            })?
        };
        Ok(Self { name, files })
    }

    fn wrong(&self, reason: impl Into<bocker_common::diag::Reason>) -> Error {
        Error::new("read", &self.name, reason)
    }

    /// The bytes of a file; none: it is not there.
    fn find(&self, name: &str) -> Result<Option<Part>> {
        match &self.files {
            Files::Archive(file, items) => {
                let mut name = name.to_owned();
                for _ in 0..LINKS_MAX {
                    match items.get(&name) {
                        None => return Ok(None),
                        Some(Item::File(at, size)) => {
                            return Ok(Some(Part { file: file.clone(), at: *at, size: *size }));
                        }
                        Some(Item::Link(target)) => {
                            let target = beside(&name, target);
                            name = target.ok_or_else(|| self.wrong(format!("'{name}' leads out of it")))?;
                        }
                    }
                }
                Err(self.wrong(format!("'{name}' is a link in a circle")))
            }
            Files::Directory(dir) => {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
                    Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
                    file => File::from(file.map_err(|e| self.wrong(format!("'{name}': {}", io::Error::from(e))))?),
                };
                let meta = file.metadata().map_err(|e| self.wrong(e))?;
                if !meta.is_file() {
                    return Err(self.wrong(format!("'{name}' is not a plain file")));
                }
                Ok(Some(Part { file: Rc::new(file), at: 0, size: meta.len() }))
            }
        }
    }

    fn part(&self, name: &str) -> Result<Part> {
        self.find(name)?.ok_or_else(|| self.wrong(format!("there is no '{}' in it", shown(name.as_bytes()))))
    }

    /// A JSON document; none: it is not there. No link is one: who looks only at files would not see it.
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        if let Files::Archive(_, items) = &self.files
            && matches!(items.get(name), Some(Item::Link(_)))
        {
            return Err(self.wrong(format!("'{}' is not a plain file", shown(name.as_bytes()))));
        }
        let Some(mut part) = self.find(name)? else { return Ok(None) };
        if part.size > SIZE_MAX {
            return Err(self.wrong(format!("'{}' is larger than 4 MiB", shown(name.as_bytes()))));
        }
        let mut bytes = Vec::new();
        part.read_to_end(&mut bytes).map_err(|e| self.wrong(e))?;
        Ok(Some(bytes))
    }

    /// A JSON document that must be there, and be what a digest says.
    fn blob(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        let name = path(&blob.digest);
        let bytes = self.document(&name)?.ok_or_else(|| self.wrong(format!("there is no '{name}' in it")))?;
        let actual = Digest::of(&bytes);
        if actual != blob.digest || bytes.len() as u64 != blob.size {
            return Err(self.wrong(format!("'{name}' has the digest {actual} and {} bytes", bytes.len())));
        }
        Ok(bytes)
    }

    /// All images, every digest in them verified.
    fn images(&self) -> Result<Vec<Image>> {
        // Docker's new archives are both; the layout says more.
        let images = if let Some(marker) = self.document(MARKER.0)? {
            let version: Version = self.json(MARKER.0, &marker)?;
            if version.image_layout_version != "1.0.0" {
                return Err(self.wrong("its oci-layout is not of version 1.0.0"));
            }
            self.layout()?
        } else if let Some(list) = self.document("manifest.json")? {
            self.docker(&list)?
        } else {
            let neither = "it is neither an archive of docker save, nor an OCI layout: no oci-layout, no manifest.json";
            return Err(self.wrong(neither));
        };
        if images.is_empty() {
            return Err(self.wrong("there is no image in it"));
        }
        let mut known = HashMap::new();
        for (blob, name) in images.iter().flat_map(|image| &image.blobs) {
            if known.insert(name, blob) != Some(blob) {
                let (actual, size) = self.digest(name)?;
                if (actual, size) != (blob.digest, blob.size) {
                    return Err(self.wrong(format!("'{name}' has the digest {actual} and {size} bytes")));
                }
            }
        }
        Ok(images)
    }

    fn json<'a, T: Deserialize<'a>>(&self, name: &str, bytes: &'a [u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|e| self.wrong(format!("'{name}' is not what it should be: {e}")))
    }

    /// Digest and size of a file.
    fn digest(&self, name: &str) -> Result<(Digest, u64)> {
        let mut part = self.part(name)?;
        let size = part.size;
        let (mut hasher, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
        loop {
            match part.read(&mut buffer).map_err(|e| self.wrong(e))? {
                0 => return Ok((Digest::from_hasher(hasher), size)),
                read => hasher.update(buffer.get(..read).unwrap_or_default()),
            }
        }
    }

    /// The images of an OCI layout: those that have names, or the one for this machine.
    fn layout(&self) -> Result<Vec<Image>> {
        let bytes = self.document("index.json")?.ok_or_else(|| self.wrong("there is no 'index.json' in it"))?;
        let Listing { manifests } = self.json("index.json", &bytes)?;
        let mut found: BTreeMap<usize, (Descriptor, Vec<String>)> = BTreeMap::new();
        for (at, one) in manifests.iter().enumerate() {
            let kind = one.media_type.as_deref().unwrap_or(manifest::OCI_MANIFEST);
            let blob =
                Descriptor::new(kind, &one.digest, one.size).map_err(|e| self.wrong(format!("index.json: {e}")))?;
            let name =
                NAMES.iter().find_map(|key| one.annotations.as_ref()?.get(*key)).filter(|name| is_complete(name));
            // An image with several names is listed once for each.
            let same = found.values_mut().find(|(known, _)| known.digest == blob.digest);
            match (same, name) {
                (Some((_, names)), name) => names.extend(name.cloned()),
                (None, name) => drop(found.insert(at, (blob, name.cloned().into_iter().collect()))),
            }
        }
        if found.len() > 1 && found.values().all(|(_, names)| names.is_empty()) {
            // Not several images, but one for several machines; or a list that cannot be told from that.
            let Document::Index(index) =
                manifest::parse(&bytes, Some(manifest::OCI_INDEX)).map_err(|e| self.wrong(e))?
            else {
                return Err(self.wrong("index.json is no index"));
            };
            let chosen = index.choose(&Platform::here()).map_err(|e| self.wrong(e))?;
            found = BTreeMap::from([(0, (chosen, Vec::new()))]);
        }
        if found.len() > IMAGES_MAX {
            return Err(self.wrong("more than 1,000 images"));
        }
        let mut held = 0;
        let image = |(blob, names)| {
            let image = self.listed(blob, names)?;
            held += image.manifest.len();
            if held > MANIFESTS_MAX { Err(self.wrong("more than 32 MiB of manifests")) } else { Ok(image) }
        };
        found.into_values().map(image).collect()
    }

    /// The image that a descriptor leads to, through an index if there is one.
    fn listed(&self, mut own: Descriptor, names: Vec<String>) -> Result<Image> {
        for _ in 0..DEPTH_MAX {
            let bytes = self.blob(&own)?;
            let of = |reason: String| self.wrong(format!("{}: {reason}", own.digest));
            match manifest::parse(&bytes, Some(&own.media_type)).map_err(of)? {
                Document::Index(index) => own = index.choose(&Platform::here()).map_err(of)?,
                Document::Manifest(manifest) => {
                    let config = self.blob(&manifest.config)?;
                    manifest::check_config(&config, manifest.layers.len()).map_err(of)?;
                    own.media_type.clone_from(&manifest.media_type);
                    let place = |blob: &Descriptor| (blob.clone(), path(&blob.digest));
                    let blobs = std::iter::once(&manifest.config).chain(&manifest.layers).map(place).collect();
                    return Ok(Image::new(names, bytes, own, blobs));
                }
            }
        }
        Err(self.wrong("an index within an index within an index"))
    }

    /// The images of docker's list. There are no manifests: ours name what is there.
    fn docker(&self, list: &[u8]) -> Result<Vec<Image>> {
        let list: Vec<Saved> = self.json("manifest.json", list)?;
        if list.len() > IMAGES_MAX {
            return Err(self.wrong("more than 1,000 images"));
        }
        let mut known: HashMap<String, (Digest, u64)> = HashMap::new();
        list.into_iter().map(|saved| self.saved(saved, &mut known)).collect()
    }

    fn saved(&self, saved: Saved, known: &mut HashMap<String, (Digest, u64)>) -> Result<Image> {
        let Saved { config, repo_tags, layers } = saved;
        let layers = layers.unwrap_or_default();
        let bytes = self.document(&config)?;
        let bytes = bytes.ok_or_else(|| self.wrong(format!("there is no '{}' in it", shown(config.as_bytes()))))?;
        let digest = Digest::of(&bytes);
        // Docker calls it by its digest; others may call it what they like.
        let hex = config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        if format!("sha256:{hex}").parse::<Digest>().is_ok_and(|named| named != digest) {
            return Err(self.wrong(format!("'{config}' has the digest {digest}")));
        }
        let of = |reason: String| self.wrong(format!("'{}': {reason}", shown(config.as_bytes())));
        manifest::check_config(&bytes, layers.len()).map_err(of)?;
        let Configuration { rootfs } = self.json(&config, &bytes)?;
        let size = bytes.len() as u64;
        let mut blobs =
            vec![(Descriptor { media_type: manifest::CONFIGS[0].to_owned(), digest, size }, config.clone())];
        for (name, diff) in layers.into_iter().zip(rootfs.diff_ids) {
            let (digest, size) = match known.get(&name) {
                Some(known) => *known,
                None => self.digest(&name)?,
            };
            known.insert(name.clone(), (digest, size));
            let mut start = Vec::new();
            self.part(&name)?.take(4).read_to_end(&mut start).map_err(|e| self.wrong(e))?;
            let packed = match start.as_slice() {
                [0x1f, 0x8b, ..] => "+gzip",
                [0x28, 0xb5, 0x2f, 0xfd] => "+zstd",
                // Of a packed layer the diff id is known when it has been opened, and bocker-store looks then.
                _ if diff != digest.to_string() => {
                    let name = shown(name.as_bytes());
                    return Err(self.wrong(format!("'{name}' has the digest {digest}, not the configuration's {diff}")));
                }
                _ => "",
            };
            blobs.push((Descriptor { media_type: format!("{}{packed}", manifest::LAYERS[0]), digest, size }, name));
        }
        let mut names = Vec::new();
        for name in repo_tags.unwrap_or_default() {
            // What is there by a digest only has no name.
            let parts = Parts::read(&name).map_err(|e| self.wrong(format!("'{}': {e}", shown(name.as_bytes()))))?;
            if parts.digest.is_none() {
                names.push(name);
            }
        }
        let told = |(blob, _): &(Descriptor, String)| serde_json::json!({ "mediaType": blob.media_type, "digest": blob.digest.to_string(), "size": blob.size });
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": manifest::OCI_MANIFEST,
            "config": blobs.first().map(told),
            "layers": blobs.iter().skip(1).map(told).collect::<Vec<_>>(),
        });
        let bytes = manifest.to_string().into_bytes();
        let size = bytes.len() as u64;
        let own = Descriptor { media_type: manifest::OCI_MANIFEST.to_owned(), digest: Digest::of(&bytes), size };
        Ok(Image::new(names, bytes, own, blobs))
    }
}

impl Image {
    fn new(names: Vec<String>, manifest: Vec<u8>, own: Descriptor, mut blobs: Vec<(Descriptor, String)>) -> Self {
        let mut seen = std::collections::HashSet::new();
        blobs.retain(|(blob, _)| seen.insert(blob.digest));
        Self { names, manifest, own, blobs }
    }

    /// Its manifest, once for each name.
    fn index(&self) -> Vec<u8> {
        let Descriptor { media_type, digest, size } = &self.own;
        let entry = |name: Option<&String>| {
            let mut entry = serde_json::json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size });
            if let Some(name) = name {
                entry["annotations"] = serde_json::json!({ NAMES[1]: name });
            }
            entry
        };
        let mut entries: Vec<_> = self.names.iter().map(|name| entry(Some(name))).collect();
        if entries.is_empty() {
            entries.push(entry(None));
        }
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": entries,
        });
        index.to_string().into_bytes()
    }
}

/// Whether it names an image for people: `12` alone, as in a layout of umoci's, is a tag of nothing, and a digest no name.
fn is_complete(name: &str) -> bool {
    Parts::read(name).is_ok_and(|parts| parts.tag.is_some() && parts.digest.is_none())
}

/// The name that a link leads to, within the archive.
fn beside(link: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Why an archive cannot be read.
enum Unread {
    Archive(io::Error),
    /// It is not the archive's fault; or somebody else has said why.
    Temporary(Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Archive(error)
    }
}

/// What lies where in an archive. If it cannot be read anywhere its files are copied to one that can.
fn entries(mut file: File, anywhere: bool, most: u64) -> Result<Files, Unread> {
    let start = if anywhere { file.stream_position()? } else { 0 };
    let own = file.try_clone()?;
    let mut input = BufReader::with_capacity(CHUNK, file);
    if input.fill_buf()?.is_empty() {
        return Err(bad("it is empty").into());
    }
    let opened = packed::open(input)?;
    let packed = matches!(opened, Opened::Packed(_));
    let input = opened.reader();
    let anywhere = anywhere && !packed;
    // Where the bytes are in the end.
    let mut whole = if anywhere { own } else { unnamed().map_err(Unread::Temporary)? };
    let count = Rc::new(Cell::new(start));
    let limit = if packed { most.saturating_add(AROUND) } else { u64::MAX };
    let mut reader = Reader::new(Counted { inner: input, count: count.clone(), most: limit });
    let (mut items, mut used, mut seen) = (HashMap::new(), 0_u64, 0);
    while let Some(entry) = reader.next_entry()? {
        seen += 1;
        if seen > ENTRIES_MAX {
            return Err(bad("more than 10,000 entries").into());
        }
        let told = shown(&entry.path);
        let name = std::str::from_utf8(&entry.path).ok().filter(|name| name.len() <= NAME_MAX);
        let name = name.ok_or_else(|| bad(format!("'{told}' is no name of ours")))?;
        let name = name.strip_prefix("./").unwrap_or(name).trim_end_matches('/').to_owned();
        if name.starts_with('/') || name.split('/').any(|part| part == "..") {
            return Err(bad(format!("'{told}' leads out of it")).into());
        }
        // The stage before us has said why.
        if name == "failed" {
            return Err(Unread::Temporary(Error::explained_elsewhere()));
        }
        let item = match entry.kind {
            Kind::Directory => continue,
            Kind::File if entry.sparse.is_none() => {
                if anywhere {
                    Item::File(count.get(), entry.size)
                } else {
                    // The size is only a claim: looked at before any of it comes.
                    let end = used.checked_add(entry.size).filter(|end| *end <= most);
                    let end = end.ok_or_else(|| bad(format!("it holds more than {most} bytes (--keep-max)")))?;
                    copy(&mut reader, &mut whole)?;
                    Item::File(std::mem::replace(&mut used, end), entry.size)
                }
            }
            Kind::Symlink => {
                let target = std::str::from_utf8(&entry.link).ok().filter(|target| target.len() <= NAME_MAX);
                Item::Link(target.ok_or_else(|| bad(format!("'{told}' leads to no name of ours")))?.to_owned())
            }
            _ => return Err(bad(format!("'{told}' is not a plain file")).into()),
        };
        if items.insert(name, item).is_some() {
            return Err(bad(format!("'{told}' occurs twice")).into());
        }
    }
    if !reader.has_end_mark() {
        return Err(bad("it has no end mark: it was cut off").into());
    }
    if !anywhere {
        // Whoever writes it is not to find that nobody reads; and what is compressed has its sum at the end.
        io::copy(&mut reader.into_inner(), &mut io::sink())?;
    }
    Ok(Files::Archive(Rc::new(whole), items))
}

/// Copies an entry, with the reader's and the writer's errors told apart.
fn copy(from: &mut impl Read, to: &mut File) -> Result<(), Unread> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        let written = to.write_all(buffer.get(..read).unwrap_or_default());
        written.map_err(|e| Unread::Temporary(Error::new("write", "a temporary file", e).hint("TMPDIR says where")))?;
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    image_layout_version: String,
}

#[derive(Deserialize)]
struct Listing {
    manifests: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    media_type: Option<String>,
    digest: String,
    size: u64,
    annotations: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Configuration {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Noise;
    use bocker_common::tarball::samples::raw;

    /// An archive of two images as `docker save` wrote them, layers of a few bytes.
    fn old() -> Vec<u8> {
        let layer = raw(b"f", b'0', b"", b"x");
        let config = format!(r#"{{"rootfs":{{"diff_ids":["{}"]}}}}"#, Digest::of(&layer));
        let list = r#"[{"Config":"c.json","RepoTags":["a:1","b:2"],"Layers":["1/layer.tar"]},{"Config":"c.json","Layers":["2/layer.tar"]}]"#;
        let mut archive = [
            raw(b"1/layer.tar", b'0', b"", &layer),
            raw(b"2/layer.tar", b'2', b"../1/layer.tar", b""),
            raw(b"c.json", b'0', b"", config.as_bytes()),
            raw(b"manifest.json", b'0', b"", list.as_bytes()),
        ]
        .concat();
        archive.resize(archive.len() + 1024, 0);
        archive
    }

    fn read(bytes: &[u8], anywhere: bool) -> Result<Vec<Image>, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let files = entries(file, anywhere, 1 << 20).map_err(|e| match e {
            Unread::Archive(e) => e.to_string(),
            Unread::Temporary(e) => e.to_string(),
        })?;
        Archive { name: "it".into(), files }.images().map_err(|e| e.to_string())
    }

    #[test]
    fn reads_what_docker_wrote() {
        for anywhere in [true, false] {
            let images = read(&old(), anywhere).unwrap();
            assert_eq!(images.len(), 2);
            assert_eq!((&images[0].names[..], images[1].names.len()), (&["a:1".to_owned(), "b:2".to_owned()][..], 0));
            assert_eq!(images[0].manifest, images[1].manifest, "the second layer is a link to the first");
            let manifest::Document::Manifest(read) = manifest::parse(&images[0].manifest, None).unwrap() else {
                panic!()
            };
            assert_eq!(read.layers.len(), 1);
            let index: serde_json::Value = serde_json::from_slice(&images[0].index()).unwrap();
            assert_eq!(index["manifests"][1]["annotations"][NAMES[1]], "b:2");
        }
    }

    #[test]
    fn cut_off_anywhere_it_is_none() {
        let whole = old();
        for at in 0..whole.len() {
            assert!(read(&whole[..at], at % 2 == 0).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn ends_on_any_input() {
        let mut noise = Noise::new(11);
        let whole = old();
        for _ in 0..2_000 {
            if let Ok(images) = read(&noise.spoil(&whole), true) {
                // Whatever was spoilt was nothing that counts.
                assert!(images.iter().all(|image| image.blobs.len() == 2));
            }
        }
    }

    #[test]
    fn a_link_stays_inside() {
        for (link, target, leads) in [
            ("a/layer.tar", "../b/layer.tar", Some("b/layer.tar")),
            ("a/b/c", "../../d", Some("d")),
            ("a/b", "./x/../y//z", Some("a/y/z")),
            ("a", "b", Some("b")),
            ("a/b", "../../etc/passwd", None),
            ("a", "..", None),
            ("a", "/etc/passwd", None),
        ] {
            assert_eq!(beside(link, target).as_deref(), leads, "{link} -> {target}");
        }
    }

    #[test]
    fn a_name_has_a_tag() {
        for (name, is) in [("a:1", true), ("h.example:5000/a:b", true), ("12", false), ("docker.io/library/a", false)] {
            assert_eq!(is_complete(name), is, "{name}");
        }
        assert!(!is_complete(&format!("a:1@{}", Digest::of(b""))) && !is_complete("A B:1"));
    }
}
