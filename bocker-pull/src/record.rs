//! The lines between `manifest` and `fetch`: tab-separated, read by their first word.

use std::io::BufRead;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bocker_common::{Error, Result};

use crate::digest::{Descriptor, Digest};
use crate::manifest::{self, Document, Manifest};
use crate::reference::Reference;

/// Most bytes of all records: a manifest of 4 MiB in base64, and room.
const SIZE_MAX: u64 = 8 << 20;
/// The last record of a stage that failed and has said why.
pub const FAILED: &str = "failed\n";

/// One image: from where, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Pinned: it has a digest, which is the manifest's.
    pub reference: Reference,
    /// What it was asked for by, in full, if that was a tag: the name that it has in an archive.
    pub name: Option<String>,
    /// The manifest as the registry sent it.
    pub bytes: Vec<u8>,
    /// The manifest as we read it.
    pub manifest: Manifest,
    /// Blobs that whoever reads the layout has, and wants no more.
    pub have: Vec<Digest>,
}

impl Image {
    /// The image whose manifest has these bytes, in the repository of `reference`.
    ///
    /// # Errors
    /// The reason.
    pub fn new(reference: &Reference, bytes: Vec<u8>, manifest: Manifest) -> Result<Self> {
        let pinned = format!("{}@{}", reference.name(), Digest::of(&bytes));
        let name = reference.logical_tag();
        Ok(Self { reference: Reference::parse(&pinned, None)?, name, bytes, manifest, have: Vec::new() })
    }

    /// The manifest as a descriptor.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.manifest.media_type.clone(),
            digest: Digest::of(&self.bytes),
            size: self.bytes.len() as u64,
        }
    }

    /// The records, complete with `end`.
    pub fn write(&self) -> String {
        let line = |word: &str, d: &Descriptor| format!("{word}\t{}\t{}\t{}", d.media_type, d.digest, d.size);
        let mut lines = vec![format!("image\t{}", self.reference)];
        lines.extend(self.name.iter().map(|name| format!("name\t{name}")));
        lines.push(format!("{}\t{}", line("manifest", &self.descriptor()), BASE64.encode(&self.bytes)));
        lines.push(line("config", &self.manifest.config));
        lines.extend(self.manifest.layers.iter().map(|layer| line("layer", layer)));
        lines.extend(self.have.iter().map(|digest| format!("have\t{digest}")));
        lines.push("end\n".into());
        lines.join("\n")
    }

    /// Reads records up to `end` and checks that the manifest is what its digest says and that the other records say
    /// what the manifest says.
    ///
    /// # Errors
    /// One line; silence if the records end with `failed`.
    pub fn read(input: impl BufRead) -> Result<Self> {
        let wrong = |reason: &str| Error::new("read", "records", reason).hint("bocker-pull manifest NAME makes them");
        let mut input = input.take(SIZE_MAX);
        let (mut reference, mut name, mut own, mut config) = (None, None, None, None);
        let (mut layers, mut have) = (Vec::new(), Vec::new());
        loop {
            let mut line = Vec::new();
            input.read_until(b'\n', &mut line).map_err(|e| Error::new("read", "records", e))?;
            if line.pop() != Some(b'\n') {
                return Err(match input.limit() {
                    0 => wrong("they are longer than 8 MiB"),
                    _ => wrong("they end before 'end'"),
                });
            }
            let line = std::str::from_utf8(&line).map_err(|_| wrong("they are not text"))?;
            let mut words = line.split('\t');
            match words.next().unwrap_or("") {
                "image" => {
                    let name = words.next().unwrap_or("");
                    reference = Some(Reference::parse(name, None).map_err(|e| wrong(&e.to_string()))?);
                }
                "name" => {
                    let full = words.next().and_then(|name| Reference::parse(name, None).ok()?.logical_tag());
                    name = Some(full.ok_or_else(|| wrong("'name' is not an image's"))?);
                }
                "manifest" => {
                    let descriptor = descriptor(&mut words).map_err(|e| wrong(&e))?;
                    let bytes =
                        BASE64.decode(words.next().unwrap_or("")).map_err(|_| wrong("the manifest is not base64"))?;
                    own = Some((descriptor, bytes));
                }
                "config" => config = Some(descriptor(&mut words).map_err(|e| wrong(&e))?),
                "have" => have.push(words.next().unwrap_or("").parse().map_err(|_| wrong("'have' names no digest"))?),
                "layer" => layers.push(descriptor(&mut words).map_err(|e| wrong(&e))?),
                "failed" => return Err(Error::explained_elsewhere()),
                "end" => break,
                _ => {}
            }
        }
        let (Some(reference), Some((own, bytes)), Some(config)) = (reference, own, config) else {
            return Err(wrong("image, manifest or config is missing"));
        };
        if Digest::of(&bytes) != own.digest || bytes.len() as u64 != own.size {
            return Err(wrong("the manifest is not what its digest and size say"));
        }
        let manifest = match manifest::parse(&bytes, Some(&own.media_type)).map_err(|e| wrong(&e))? {
            Document::Manifest(manifest) => manifest,
            Document::Index(_) => return Err(wrong("the manifest is an index")),
        };
        if reference.digest() != Some(own.digest) || manifest.config != config || manifest.layers != layers {
            return Err(wrong("they do not say what their manifest says"));
        }
        Ok(Self { reference, name, bytes, manifest, have })
    }
}

/// `MEDIATYPE  DIGEST  SIZE`
fn descriptor<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Descriptor, String> {
    let mut word = || words.next().ok_or("a record is too short");
    let (media_type, digest, size) = (word()?, word()?, word()?);
    Descriptor::new(media_type, digest, size.parse().map_err(|_| "a size is not a number")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Noise;

    fn image() -> Image {
        let d = |n: u64| format!(r#""digest":"{}","size":{n}}}"#, Digest::of(&n.to_le_bytes()));
        let layer = |n| format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip",{}"#, d(n));
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json",{},"layers":[{},{}]}}"#,
            d(1),
            layer(2),
            layer(3)
        );
        let Document::Manifest(manifest) = manifest::parse(text.as_bytes(), None).unwrap() else { panic!("index") };
        Image::new(&Reference::parse("localhost:5000/a:7", None).unwrap(), text.into_bytes(), manifest).unwrap()
    }

    fn error(text: &str) -> String {
        Image::read(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn reads_what_it_writes() {
        let image = image();
        let text = image.write();
        assert!(text.starts_with("image\tlocalhost:5000/a@sha256:"), "{text}");
        assert_eq!(Image::read(text.as_bytes()).unwrap(), image);
        // Whoever asks by a digest has no name for it; a name is one of an image, with a tag.
        assert_eq!(image.name.as_deref(), Some("localhost:5000/a:7"));
        let pinned = Image::new(&image.reference, image.bytes.clone(), image.manifest.clone()).unwrap();
        assert_eq!(Image::read(pinned.write().as_bytes()).unwrap().name, None);
        for bad in ["", "../a", "A", "a b", &format!("a@{}", Digest::of(b""))] {
            assert!(error(&text.replace("localhost:5000/a:7", bad)).contains("read records: "), "{bad}");
        }
        // Unknown words are for later versions; what follows `end` is not ours.
        assert_eq!(Image::read(format!("signature\tx\n{text}failed\n").as_bytes()).unwrap(), image);
    }

    #[test]
    fn notices_every_change() {
        let text = image().write();
        assert!(error("").contains("before 'end'"));
        assert!(error("end\n").contains("missing"));
        for cut in 0..text.len() - 1 {
            assert!(error(&text[..cut]).contains("before 'end'"));
        }
        for gone in ["image", "manifest", "config", "layer"] {
            let less: String = text.split_inclusive('\n').filter(|line| !line.starts_with(gone)).collect();
            let _ = error(&less);
        }
        let other = Digest::of(&2u64.to_le_bytes());
        assert!(
            error(&text.replace(&other.to_string(), &Digest::of(b"x").to_string()))
                .contains("what their manifest says")
        );
        assert!(error(&text.replace("\t3\n", "\t4\n")).contains("what their manifest says"));
        assert!(error(&text.replace("\tey", "\tfy")).contains("digest"));
    }

    #[test]
    fn a_failure_before_is_not_told_again() {
        assert_eq!(error(FAILED), "");
        assert_eq!(error(&image().write().replace("end\n", FAILED)), "");
    }

    #[test]
    fn ends_on_any_input() {
        let text = image().write();
        let mut noise = Noise::new(5);
        for _ in 0..2_000 {
            if let Ok(read) = Image::read(noise.spoil(text.as_bytes()).as_slice()) {
                assert_eq!(read.manifest, image().manifest);
            }
        }
        assert!(error(&"x".repeat(9 << 20)).contains("8 MiB"));
    }
}
