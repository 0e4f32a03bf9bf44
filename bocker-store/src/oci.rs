//! The JSON of an OCI image, read strictly: what two parsers could read differently is refused.
//!
//! image-spec manifest.md, config.md, image-layout.md; also Docker's schema 2, which has the same fields.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use bocker_common::{Error, Result};

/// Bytes of a manifest, configuration or index, at most, as registries have it.
pub const MAX_JSON: u64 = 4 << 20;
/// Layers of an image, at most, as Docker has it.
pub const MAX_LAYERS: usize = 127;

/// `sha256:` and 64 hexadecimal digits, lower case; nothing else exists, so it is safe as a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    /// The digest of what the hasher has seen.
    pub fn finish(hasher: Sha256) -> Self {
        let mut text = String::from("sha256:");
        for byte in hasher.finalize() {
            text.push_str(&format!("{byte:02x}"));
        }
        Self(text)
    }

    /// With the algorithm.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `sha256:` and twelve digits, for messages.
    pub fn short(&self) -> &str {
        &self.0[..19]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        match text.strip_prefix("sha256:") {
            Some(digits) if digits.len() == 64 && digits.bytes().all(hex) => Ok(Self(text.to_owned())),
            _ => {
                let shown: String = text.chars().take(80).collect();
                Err(Error::plain(format!("'{shown}' is not a digest (sha256: and 64 hexadecimal digits)")))
            }
        }
    }
}

/// The chain ids of layers with these diff ids: each names a layer with all below it (config.md, "Layer ChainID").
pub fn chain(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::new();
    for diff in diff_ids {
        let next = match chain.last() {
            None => diff.clone(),
            Some(below) => Digest::of(format!("{below} {diff}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

/// What a manifest or an index says about a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Its media type, empty if none is given.
    pub media_type: String,
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The image's configuration.
    pub config: Descriptor,
    /// Lowest first.
    pub layers: Vec<Descriptor>,
}

fn wrong(what: &str, why: impl fmt::Display) -> Error {
    Error::new("read", what, format!("{why}"))
}

/// JSON in which no object has the same key twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Strict;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_bool<E>(self, v: bool) -> std::result::Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_i64<E>(self, v: i64) -> std::result::Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_u64<E>(self, v: u64) -> std::result::Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_f64<E>(self, v: f64) -> std::result::Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_str<E>(self, v: &str) -> std::result::Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_unit<E>(self) -> std::result::Result<Strict, E> {
                Ok(Strict(Value::Null))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Strict, A::Error> {
                let mut all = Vec::new();
                while let Some(Strict(one)) = seq.next_element()? {
                    all.push(one);
                }
                Ok(Strict(all.into()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Strict, A::Error> {
                let mut all = Map::new();
                while let Some((key, Strict(value))) = map.next_entry::<String, Strict>()? {
                    if all.insert(key, value).is_some() {
                        return Err(serde::de::Error::custom("a key occurs twice"));
                    }
                }
                Ok(Strict(all.into()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// An object without repeated keys, at any depth.
fn object(what: &str, bytes: &[u8]) -> Result<Map<String, Value>> {
    match serde_json::from_slice::<Strict>(bytes).map_err(|e| wrong(what, e))?.0 {
        Value::Object(map) => Ok(map),
        _ => Err(wrong(what, "not a JSON object")),
    }
}

/// Refuses a key that is one of ours but for upper and lower case: Go's parser takes `Layers` for `layers`.
fn exact_keys(what: &str, map: &Map<String, Value>, ours: &[&str]) -> Result<()> {
    for key in map.keys() {
        if ours.iter().any(|known| known.eq_ignore_ascii_case(key) && known != key) {
            return Err(wrong(what, format_args!("the key '{key}' differs from a known one in case only")));
        }
    }
    Ok(())
}

fn text<'a>(what: &str, map: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>> {
    match map.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(what, format_args!("{key} is not a string"))),
    }
}

fn descriptor(what: &str, value: &Value) -> Result<Descriptor> {
    let Value::Object(map) = value else { return Err(wrong(what, "a descriptor is not an object")) };
    exact_keys(what, map, &["mediaType", "digest", "size"])?;
    let digest = text(what, map, "digest")?.ok_or_else(|| wrong(what, "a descriptor without digest"))?;
    let size = map.get("size").and_then(Value::as_u64).ok_or_else(|| wrong(what, "a descriptor without size"))?;
    let media_type = text(what, map, "mediaType")?.unwrap_or_default().to_owned();
    Ok(Descriptor { digest: digest.parse().map_err(|e| wrong(what, e))?, size, media_type })
}

fn descriptors(what: &str, map: &Map<String, Value>, key: &str) -> Result<Vec<Descriptor>> {
    match map.get(key) {
        Some(Value::Array(list)) => list.iter().map(|one| descriptor(what, one)).collect(),
        _ => Err(wrong(what, format_args!("{key} is not a list"))),
    }
}

impl Manifest {
    /// True for a JSON object with layers and a configuration: it means to be an image manifest.
    pub fn resembles(bytes: &[u8]) -> bool {
        let parsed: Option<Map<String, Value>> = serde_json::from_slice(bytes).ok();
        parsed.is_some_and(|map| map.contains_key("layers") && map.contains_key("config"))
    }

    /// Reads an image manifest.
    ///
    /// # Errors
    /// What is none, or could be taken for something else as well (CVE-2021-41190).
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let what = "manifest";
        let map = object(what, bytes)?;
        let ours = ["schemaVersion", "mediaType", "config", "layers", "manifests", "fsLayers", "artifactType"];
        exact_keys(what, &map, &ours)?;
        if map.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
            return Err(wrong(what, "schemaVersion is not 2"));
        }
        if map.contains_key("manifests") || map.contains_key("fsLayers") {
            return Err(wrong(what, "it is an image and something else at once"));
        }
        let types =
            ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
        if let Some(media_type) = text(what, &map, "mediaType")?
            && !types.contains(&media_type)
        {
            return Err(wrong(what, format_args!("'{media_type}' is not an image manifest's type")));
        }
        let config = descriptor(what, map.get("config").unwrap_or(&Value::Null))?;
        let layers = descriptors(what, &map, "layers")?;
        if layers.len() > MAX_LAYERS {
            return Err(wrong(what, "more than 127 layers"));
        }
        if config.size > MAX_JSON {
            return Err(wrong(what, "its configuration is larger than 4 MiB"));
        }
        let kinds = [
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.docker.container.image.v1+json",
            "application/octet-stream",
            "",
        ];
        if !kinds.contains(&config.media_type.as_str()) {
            let kind = &config.media_type;
            return Err(wrong(what, format_args!("not a container image: its configuration is of type '{kind}'")));
        }
        for layer in &layers {
            let kind = layer.media_type.as_str();
            let tar =
                [".tar", ".tar+gzip", ".tar.gzip", ".tar+zstd", ".tar.zstd"].iter().any(|end| kind.ends_with(end));
            let image = kind.starts_with("application/vnd.oci.image.layer.")
                || kind.starts_with("application/vnd.docker.image.rootfs.");
            if !(kind.is_empty() || tar && image) {
                return Err(wrong(what, format_args!("'{kind}' is not a layer's type")));
            }
        }
        Ok(Self { config, layers })
    }
}

/// What the store needs of an image's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Digests of the layers' tar archives, lowest first.
    pub diff_ids: Vec<Digest>,
    /// ENTRYPOINT and CMD as one list of words.
    pub command: Vec<String>,
    /// Where it wants volumes, as it says: nothing is known of these paths.
    pub volumes: Vec<String>,
}

impl Config {
    /// Reads an image's configuration.
    ///
    /// # Errors
    /// What is none.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let what = "config";
        let map = object(what, bytes)?;
        exact_keys(what, &map, &["rootfs", "config"])?;
        let Some(Value::Object(rootfs)) = map.get("rootfs") else { return Err(wrong(what, "it has no rootfs")) };
        exact_keys(what, rootfs, &["diff_ids", "type"])?;
        let list = match rootfs.get("diff_ids") {
            Some(Value::Array(list)) => list.as_slice(),
            None | Some(Value::Null) => &[],
            Some(_) => return Err(wrong(what, "diff_ids is not a list")),
        };
        let diff = |one: &Value| one.as_str().unwrap_or_default().parse().map_err(|e| wrong(what, e));
        let diff_ids = list.iter().map(diff).collect::<Result<_>>()?;
        let mut command = Vec::new();
        if let Some(Value::Object(config)) = map.get("config") {
            for key in ["Entrypoint", "Cmd"] {
                match config.get(key) {
                    None | Some(Value::Null) => {}
                    Some(Value::Array(words)) => {
                        for word in words {
                            let word =
                                word.as_str().ok_or_else(|| wrong(what, format_args!("{key} holds no words")))?;
                            command.push(word.to_owned());
                        }
                    }
                    Some(_) => return Err(wrong(what, format_args!("{key} is not a list"))),
                }
            }
        }
        let volumes = match map.get("config").and_then(|config| config.get("Volumes")) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(volumes)) => volumes.keys().cloned().collect(),
            Some(_) => return Err(wrong(what, "Volumes is not an object")),
        };
        Ok(Self { diff_ids, command, volumes })
    }
}

/// A configuration for a root file system that nobody described.
pub fn plain_config() -> Vec<u8> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    };
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [] },
    });
    config.to_string().into_bytes()
}

/// `index.json`: the manifests it lists, and the names that they carry.
///
/// # Errors
/// What is none.
pub fn index(bytes: &[u8]) -> Result<(Vec<Descriptor>, Vec<String>)> {
    let what = "index.json";
    let map = object(what, bytes)?;
    exact_keys(what, &map, &["schemaVersion", "manifests", "layers", "config"])?;
    if map.contains_key("layers") || map.contains_key("config") {
        return Err(wrong(what, "it is an index and something else at once"));
    }
    let manifests = descriptors(what, &map, "manifests")?;
    let name = |one: &Value| one["annotations"]["org.opencontainers.image.ref.name"].as_str().map(str::to_owned);
    let names = map["manifests"].as_array().into_iter().flatten().filter_map(name).collect();
    Ok((manifests, names))
}

/// `oci-layout`: the one version there is.
///
/// # Errors
/// Another version.
pub fn layout(bytes: &[u8]) -> Result<()> {
    let map = object("oci-layout", bytes)?;
    match map.get("imageLayoutVersion").and_then(Value::as_str) {
        Some("1.0.0") => Ok(()),
        _ => Err(wrong("oci-layout", "its imageLayoutVersion is not 1.0.0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(extra: &str, layers: &str) -> String {
        format!(r#"{{"schemaVersion":2,"config":{{"digest":"{D}","size":2}},"layers":[{layers}]{extra}}}"#)
    }

    #[test]
    fn digests_are_names_of_one_spelling() {
        assert_eq!(Digest::of(b"").as_str(), D);
        let upper = D.to_uppercase();
        for text in ["", "sha256:", "sha512:00", "sha256:../../etc/passwd", &upper, &D[..70], &format!("{D}0")] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn chain_ids_as_the_specification_has_them() {
        let one = Digest::of(b"1");
        let two = Digest::of(b"2");
        let chain = chain(&[one.clone(), two.clone()]);
        assert_eq!(chain[0], one);
        assert_eq!(chain[1], Digest::of(format!("{one} {two}").as_bytes()));
    }

    #[test]
    fn manifests_that_mean_one_thing() {
        let layer = |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"{D}","size":3}}"#);
        let oci = layer("application/vnd.oci.image.layer.v1.tar+gzip");
        let docker = layer("application/vnd.docker.image.rootfs.diff.tar.gzip");
        let zstd = layer("application/vnd.oci.image.layer.v1.tar+zstd");
        let parsed = Manifest::parse(manifest("", &format!("{oci},{docker},{zstd}")).as_bytes()).unwrap();
        assert_eq!((parsed.config.size, parsed.layers.len()), (2, 3));

        let many = vec![oci.clone(); 128].join(",");
        for (text, why) in [
            (manifest(r#","manifests":[]"#, ""), "something else"),
            (manifest(r#","fsLayers":[]"#, ""), "something else"),
            (manifest(r#","layers":[]"#, ""), "twice"),
            (manifest(r#","Layers":[]"#, ""), "in case only"),
            (manifest(r#","annotations":{"a":"b","a":"c"}"#, ""), "twice"),
            (manifest(r#","mediaType":"application/vnd.oci.image.index.v1+json""#, ""), "not an image manifest"),
            (manifest("", &layer("application/vnd.oci.image.layer.v1.tar+xz")), "not a layer"),
            (manifest("", &layer("application/wasm")), "not a layer"),
            (manifest("", &many), "127"),
            (manifest("", r#"{"digest":"sha256:../x","size":3}"#), "not a digest"),
            (manifest("", &format!(r#"{{"digest":"{D}","size":-1}}"#)), "without size"),
            (manifest("", &format!(r#"{{"digest":"{D}","size":1e3}}"#)), "without size"),
            (manifest("", "[]"), "not an object"),
            ("[]".into(), "not a JSON object"),
            ("{}".into(), "schemaVersion"),
            ("<html>".into(), "expected value"),
            ("[".repeat(100_000), "recursion limit"),
        ] {
            let error = Manifest::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{error} / {why}");
        }
    }

    #[test]
    fn configurations() {
        let config = format!(
            r#"{{"config":{{"Entrypoint":["/bin/sh","-c"],"Cmd":["a b"],"Labels":{{"A":"1","a":"2"}}}},"rootfs":{{"type":"layers","diff_ids":["{D}"]}}}}"#
        );
        let parsed = Config::parse(config.as_bytes()).unwrap();
        assert_eq!(parsed.command, ["/bin/sh", "-c", "a b"]);
        assert_eq!(parsed.diff_ids.len(), 1);
        assert!(Config::parse(&plain_config()).unwrap().diff_ids.is_empty());
        for text in ["{}", "[]", r#"{"rootfs":{"diff_ids":[1]}}"#, r#"{"rootfs":{},"config":{"Cmd":"x"}}"#] {
            assert!(Config::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_corpus() {
        use bocker_common::corpus;
        let at = |kind| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(kind);
        for (file, good, bytes) in corpus::files(at("manifest")) {
            assert_eq!(Manifest::parse(&bytes).is_ok(), good, "{file}: {:?}", Manifest::parse(&bytes));
            corpus::near(&bytes, 500).for_each(|near| drop(Manifest::parse(&near)));
        }
        for (file, good, bytes) in corpus::files(at("config")) {
            assert_eq!(Config::parse(&bytes).is_ok(), good, "{file}: {:?}", Config::parse(&bytes));
            corpus::near(&bytes, 500).for_each(|near| drop(Config::parse(&near)));
        }
    }

    #[test]
    fn any_bytes_are_an_error_at_worst() {
        let seed = manifest("", "").into_bytes();
        for at in 0..seed.len() {
            for byte in [0, b'"', b'{', b'9', 0xff] {
                let mut bytes = seed.clone();
                bytes[at] = byte;
                let _ = (Manifest::parse(&bytes), Config::parse(&bytes), index(&bytes), layout(&bytes));
                let _ = Manifest::parse(&seed[..at]);
            }
        }
    }
}
