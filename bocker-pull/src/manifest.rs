//! Manifests, indexes and image configurations (image-spec; Docker's "image manifest, version 2, schema 2").

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::digest::Descriptor;
use crate::platform::Platform;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// An artifact's configuration where it has none; its manifest's `artifactType` says what it is then.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Layers of a file system, packed as bocker-store reads them. Nothing else is handed on: attestations, for one, have an
/// image's configuration and layers of another type.
pub(crate) const LAYERS: [&str; 10] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// All that we can read, for `Accept`.
pub const ACCEPT: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
/// Most bytes of a manifest, an index or a configuration.
pub const SIZE_MAX: u64 = 4 << 20;
/// Most layers of an image, as elsewhere.
const LAYERS_MAX: usize = 127;

/// What a registry gives for a tag or a digest.
#[derive(Debug)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Images for several platforms.
    Index(Index),
}

/// One image: its configuration and its layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The manifest's own media type.
    pub media_type: String,
    /// The image configuration.
    pub config: Descriptor,
    /// Lowest first.
    pub layers: Vec<Descriptor>,
}

/// Images for several platforms.
#[derive(Debug)]
pub struct Index(Vec<RawEntry>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawEntry>>,
    fs_layers: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: String,
    digest: String,
    size: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEntry {
    media_type: Option<String>,
    artifact_type: Option<String>,
    digest: String,
    size: u64,
    platform: Option<RawPlatform>,
}

#[derive(Debug, Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

/// Reads a manifest or an index. `content_type` is the registry's word, or that of the index which it is in: used where the
/// document has none, and none that makes it something else (distribution-spec: they have to match).
///
/// # Errors
/// The reason, without the name.
pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Document, String> {
    let said = content_type.map(|text| text.split(';').next().unwrap_or("").trim().to_ascii_lowercase());
    let raw: RawDocument = serde_json::from_slice(bytes).map_err(|e| match said.as_deref() {
        Some(said) if !said.ends_with("json") => format!("it is {said}, not a manifest"),
        _ => format!("it is not a manifest: {e}"),
    })?;
    if raw.schema_version == Some(1) || raw.fs_layers.is_some() {
        return Err("it is in the old format, schema 1, whose content cannot be verified".into());
    }
    // A document that is both could be read as one thing here and as another elsewhere (CVE-2021-41190).
    if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some()) {
        return Err("it claims to be both an index and a manifest".into());
    }
    let said = said.filter(|said| ACCEPT.contains(&said.as_str()));
    if let (Some(own), Some(said)) = (&raw.media_type, &said)
        && is_index(own) != is_index(said)
    {
        return Err(format!("it is {own}, and called {said}"));
    }
    let media_type = raw.media_type.or(said);
    match (raw.manifests, raw.config, raw.layers) {
        (Some(entries), ..) if media_type.as_deref().is_none_or(is_index) => Ok(Document::Index(Index(entries))),
        (None, Some(config), Some(layers)) if !media_type.as_deref().is_some_and(is_index) => {
            let media_type = media_type.unwrap_or_else(|| OCI_MANIFEST.to_owned());
            let artifact = raw.artifact_type.as_deref().filter(|_| config.media_type == EMPTY);
            image(media_type, &config, artifact, &layers).map(Document::Manifest)
        }
        _ => Err("it is neither an image manifest nor an index".into()),
    }
}

fn is_index(media_type: &str) -> bool {
    [OCI_INDEX, DOCKER_LIST].contains(&media_type)
}

fn image(
    media_type: String,
    config: &RawDescriptor,
    artifact: Option<&str>,
    layers: &[RawDescriptor],
) -> Result<Manifest, String> {
    let descriptor = |raw: &RawDescriptor| Descriptor::new(&raw.media_type, &raw.digest, raw.size);
    if ![OCI_MANIFEST, DOCKER_MANIFEST].contains(&media_type.as_str()) {
        return Err(format!("its media type {media_type} is not an image's"));
    }
    let config = descriptor(config)?;
    if !CONFIGS.contains(&config.media_type.as_str()) {
        let holds: String = artifact.unwrap_or(&config.media_type).chars().take(100).collect();
        return Err(format!("it is not a container image but holds {holds}"));
    }
    if config.size > SIZE_MAX {
        return Err(format!("its configuration has {} bytes, more than {SIZE_MAX}", config.size));
    }
    if layers.len() > LAYERS_MAX {
        return Err(format!("it has {} layers, more than {LAYERS_MAX}", layers.len()));
    }
    let layers = layers.iter().map(descriptor).collect::<Result<Vec<_>, _>>()?;
    if let Some(other) = layers.iter().find(|layer| !LAYERS.contains(&layer.media_type.as_str())) {
        return Err(format!("it is not a container image: what would be a layer is {}", other.media_type));
    }
    if layers.iter().try_fold(config.size, |sum, layer| sum.checked_add(layer.size)).is_none() {
        return Err("its sizes are impossible".into());
    }
    Ok(Manifest { media_type, config, layers })
}

impl Index {
    /// The entry for `platform`.
    ///
    /// # Errors
    /// The platforms that there are.
    pub fn choose(&self, platform: &Platform) -> Result<Descriptor, String> {
        let one_of = |kind: &Option<String>, all: &[&str]| kind.as_deref().is_none_or(|kind| all.contains(&kind));
        // Entries that are no images stand beside them: attestations (their platform is unknown/unknown), signatures, charts.
        let images = || {
            self.0.iter().filter(|entry| one_of(&entry.media_type, &ACCEPT) && one_of(&entry.artifact_type, &CONFIGS))
        };
        let matches = |entry: &&RawEntry, variant: &str| {
            entry
                .platform
                .as_ref()
                .is_some_and(|p| p.os == platform.os && p.architecture == platform.arch && p.variant == variant)
        };
        let chosen = platform
            .variants()
            .into_iter()
            .find_map(|variant| images().find(|entry| matches(entry, variant)))
            // An entry may leave its platform out; then it is for all.
            .or_else(|| images().find(|entry| entry.platform.is_none()));
        let Some(entry) = chosen else {
            let mut there: Vec<String> = Vec::new();
            for p in images().filter_map(|entry| entry.platform.as_ref()) {
                let variant = if p.variant.is_empty() { String::new() } else { format!("/{}", p.variant) };
                let name: String = format!("{}/{}{variant}", p.os, p.architecture).chars().take(40).collect();
                if name != "unknown/unknown" && !there.contains(&name) && there.len() < 12 {
                    there.push(name);
                }
            }
            let there = if there.is_empty() { "nothing".into() } else { there.join(", ") };
            return Err(format!("it has no image for {platform}, only for {there}"));
        };
        if entry.size > SIZE_MAX {
            return Err(format!("the manifest for {platform} has {} bytes, more than {SIZE_MAX}", entry.size));
        }
        Descriptor::new(entry.media_type.as_deref().unwrap_or(OCI_MANIFEST), &entry.digest, entry.size)
    }
}

/// Checks that the bytes are an image configuration for `layers` layers.
///
/// # Errors
/// The reason.
pub fn check_config(bytes: &[u8], layers: usize) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Config {
        rootfs: RootFs,
    }
    #[derive(Deserialize)]
    struct RootFs {
        diff_ids: Vec<String>,
    }
    let config: Config = serde_json::from_slice(bytes).map_err(|e| format!("it is not an image configuration: {e}"))?;
    let ids = config.rootfs.diff_ids.len();
    if ids == layers { Ok(()) } else { Err(format!("it names {ids} layers, the manifest {layers}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Image;
    use crate::reference::Reference;
    use crate::testing::Noise;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(kind: &str, config: &str, layers: usize) -> String {
        let layer =
            format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:{HEX}","size":0}}"#);
        let layers = vec![layer; layers].join(",");
        format!(
            r#"{{"schemaVersion":2,{kind}"config":{{"mediaType":"{config}","digest":"sha256:{HEX}","size":0}},"layers":[{layers}]}}"#
        )
    }

    fn index(entries: &[(&str, &str, u64)]) -> String {
        let entries: Vec<String> = entries
            .iter()
            .map(|(arch, variant, size)| {
                let os = if *arch == "unknown" { "unknown" } else { "linux" };
                format!(
                    r#"{{"mediaType":"{OCI_MANIFEST}","digest":"sha256:{HEX}","size":{size},"platform":{{"os":"{os}","architecture":"{arch}","variant":"{variant}"}}}}"#
                )
            })
            .collect();
        format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#, entries.join(","))
    }

    fn choose(entries: &[(&str, &str, u64)], platform: &str) -> Result<u64, String> {
        let Ok(Document::Index(index)) = parse(index(entries).as_bytes(), None) else { panic!("not an index") };
        index.choose(&platform.parse().unwrap()).map(|entry| entry.size)
    }

    #[test]
    fn reads_both_families() {
        for (kind, config) in [(OCI_MANIFEST, CONFIGS[0]), (DOCKER_MANIFEST, CONFIGS[1])] {
            let text = manifest(&format!(r#""mediaType":"{kind}","#), config, 3);
            let Ok(Document::Manifest(image)) = parse(text.as_bytes(), None) else { panic!("{kind}") };
            assert_eq!((image.media_type.as_str(), image.layers.len()), (kind, 3));
        }
        for layer in LAYERS {
            let text = manifest("", CONFIGS[0], 1).replace(LAYERS[0], layer);
            let Ok(Document::Manifest(image)) = parse(text.as_bytes(), None) else { panic!("{layer}") };
            assert_eq!(image.layers[0].media_type, layer);
        }
        // An OCI manifest may leave its type to the header.
        let bare = manifest("", CONFIGS[0], 1);
        assert!(matches!(parse(bare.as_bytes(), Some(OCI_MANIFEST)), Ok(Document::Manifest(_))));
        assert!(matches!(parse(bare.as_bytes(), Some("application/json; charset=utf-8")), Ok(Document::Manifest(_))));
    }

    #[test]
    fn refuses_what_is_no_image() {
        let both = manifest(r#""manifests":[],"#, CONFIGS[0], 1);
        let as_index = manifest(&format!(r#""mediaType":"{OCI_INDEX}","#), CONFIGS[0], 1);
        let twice = manifest(r#""layers":[],"#, CONFIGS[0], 1);
        let chart = manifest("", "application/vnd.cncf.helm.config.v1+json", 1);
        let artifact = manifest(r#""artifactType":"text/x-recipe","#, EMPTY, 1);
        let attestation = manifest("", CONFIGS[0], 2).replacen(LAYERS[0], "application/vnd.in-toto+json", 1);
        let encrypted = manifest("", CONFIGS[0], 1).replace(LAYERS[0], &format!("{}+encrypted", LAYERS[1]));
        let sha512 = manifest("", CONFIGS[0], 1).replace(&format!("sha256:{HEX}"), &format!("sha512:{HEX}{HEX}"));
        let many = manifest("", CONFIGS[0], 128);
        let negative = manifest("", CONFIGS[0], 1).replace("\"size\":0", "\"size\":-1");
        let huge = manifest("", CONFIGS[0], 2).replace("\"size\":0", "\"size\":18446744073709551615");
        let path = manifest("", CONFIGS[0], 1).replace(HEX, "../../etc/passwd");
        let schema1 = r#"{"schemaVersion":1,"name":"a","fsLayers":[{"blobSum":"x"}]}"#;
        for (text, reason) in [
            ("<html>", "not a manifest"),
            ("", "not a manifest"),
            ("[]", "not a manifest"),
            ("{}", "neither"),
            (schema1, "schema 1"),
            (&both, "both"),
            (&as_index, "neither"),
            (&twice, "duplicate"),
            (&chart, "not a container image but holds application/vnd.cncf.helm.config.v1+json"),
            (&artifact, "not a container image but holds text/x-recipe"),
            (&attestation, "what would be a layer is application/vnd.in-toto+json"),
            (&encrypted, "what would be a layer is application/vnd.oci.image.layer.v1.tar+gzip+encrypted"),
            (&sha512, "only sha256 digests are known here"),
            (&many, "128 layers"),
            (&negative, "not a manifest"),
            (&huge, "more than"),
            (&path, "hexadecimal"),
            (&"[".repeat(100_000), "not a manifest"),
        ] {
            let error = parse(text.as_bytes(), None).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert_eq!(parse(b"<html>", Some("text/html; charset=x")).unwrap_err(), "it is text/html, not a manifest");
    }

    #[test]
    fn a_document_is_what_it_is_called() {
        let image = manifest(&format!(r#""mediaType":"{OCI_MANIFEST}","#), CONFIGS[0], 1);
        let bare = manifest("", CONFIGS[0], 1);
        let index = index(&[("amd64", "", 1)]);
        for (text, good, bad) in [
            (&image, [OCI_MANIFEST, DOCKER_MANIFEST], [OCI_INDEX, DOCKER_LIST]),
            (&bare, [OCI_MANIFEST, DOCKER_MANIFEST], [OCI_INDEX, DOCKER_LIST]),
            (&index, [OCI_INDEX, DOCKER_LIST], [OCI_MANIFEST, DOCKER_MANIFEST]),
        ] {
            for called in good.iter().chain(&["text/plain", "application/json; charset=utf-8", ""]) {
                assert!(parse(text.as_bytes(), Some(called)).is_ok(), "{called}: {text}");
            }
            for called in bad {
                assert!(parse(text.as_bytes(), Some(called)).is_err(), "{called}: {text}");
            }
        }
    }

    #[test]
    fn chooses_the_platform() {
        let many = [("unknown", "", 1), ("arm", "v6", 2), ("arm", "v7", 3), ("arm64", "v8", 4), ("amd64", "", 5)];
        for (platform, size) in [
            ("linux/amd64", 5),
            ("linux/amd64/v1", 5),
            ("linux/arm64", 4),
            ("linux/arm64/v8", 4),
            ("linux/arm", 3),
            ("linux/arm/v6", 2),
        ] {
            assert_eq!(choose(&many, platform), Ok(size), "{platform}");
        }
        let none = choose(&many, "linux/s390x").unwrap_err();
        assert_eq!(
            none,
            "it has no image for linux/s390x, only for linux/arm/v6, linux/arm/v7, linux/arm64/v8, linux/amd64"
        );
        assert!(choose(&many, "windows/amd64").is_err());
        assert!(choose(&[("unknown", "", 1)], "linux/amd64").unwrap_err().ends_with("only for nothing"));
        assert!(choose(&[("amd64", "", SIZE_MAX + 1)], "linux/amd64").is_err());
    }

    #[test]
    fn an_artifact_in_an_index_is_no_image() {
        let entry = |more: &str, size: u64| {
            format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"sha256:{HEX}","size":{size}{more}}}"#)
        };
        let chosen = |entries: &[String]| {
            let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
            let Ok(Document::Index(index)) = parse(text.as_bytes(), None) else { panic!("not an index") };
            index.choose(&"linux/amd64".parse().unwrap()).map(|entry| entry.size)
        };
        let signature = entry(r#","artifactType":"application/vnd.dev.cosign.artifact.sig.v1+json""#, 1);
        let said = entry(&format!(r#","artifactType":"{}""#, CONFIGS[0]), 2);
        assert_eq!(chosen(&[signature.clone(), said]), Ok(2));
        assert_eq!(chosen(&[signature.clone(), entry("", 3)]), Ok(3));
        assert!(chosen(&[signature]).unwrap_err().ends_with("only for nothing"));
    }

    #[test]
    fn a_config_fits_its_manifest() {
        let config = br#"{"architecture":"amd64","rootfs":{"type":"layers","diff_ids":["sha256:0"]}}"#;
        assert_eq!(check_config(config, 1), Ok(()));
        assert!(check_config(config, 2).is_err());
        assert!(check_config(b"{}", 0).is_err());
    }

    #[test]
    fn the_corpus() {
        use bocker_common::corpus;
        for (file, good, bytes) in corpus::files(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/manifest").into()) {
            assert_eq!(parse(&bytes, None).is_ok(), good, "{file}: {:?}", parse(&bytes, None));
            for near in corpus::near(&bytes, 500) {
                match parse(&near, None) {
                    Ok(Document::Manifest(image)) => {
                        assert!(image.layers.iter().all(|layer| LAYERS.contains(&layer.media_type.as_str())), "{file}");
                        assert!(CONFIGS.contains(&image.config.media_type.as_str()), "{file}");
                        // What comes through goes through a pipe as it is.
                        let name = Reference::parse("h.example/a", None).unwrap();
                        let sent = Image::new(&name, near.clone(), image.clone()).unwrap().write();
                        assert_eq!(Image::read(sent.as_bytes()).unwrap().manifest, image, "{file}");
                        // And it is no index, whoever calls it one.
                        assert!(parse(&near, Some(OCI_INDEX)).is_err(), "{file}");
                    }
                    Ok(Document::Index(index)) => {
                        if let Ok(chosen) = index.choose(&"linux/amd64".parse().unwrap()) {
                            assert!(chosen.size <= SIZE_MAX && ACCEPT.contains(&chosen.media_type.as_str()), "{file}");
                        }
                        assert!(parse(&near, Some(OCI_MANIFEST)).is_err(), "{file}");
                    }
                    Err(_) => {}
                }
            }
        }
        for (file, good, bytes) in corpus::files(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/config").into()) {
            assert_eq!(check_config(&bytes, 2).is_ok(), good, "{file}: {:?}", check_config(&bytes, 2));
            for near in corpus::near(&bytes, 500) {
                assert!(check_config(&near, 2).is_err() || check_config(&near, 3).is_err(), "{file}");
            }
        }
    }

    #[test]
    fn ends_on_any_input() {
        let mut noise = Noise::new(3);
        let good = [manifest("", CONFIGS[0], 2), index(&[("amd64", "", 1), ("arm", "v7", 2)])];
        for _ in 0..5_000 {
            for text in &good {
                if let Ok(Document::Index(index)) = parse(&noise.spoil(text.as_bytes()), None) {
                    let _ = index.choose(&Platform::here());
                }
            }
        }
    }
}
