//! Image references: `[host[:port]/]name[:tag][@digest]`, distribution-spec "Pulling manifests".

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use bocker_common::Error;
use bocker_common::diag::USAGE;
use bocker_common::reference::{self, Parts, check_host, check_repository, check_tag, in_full, known_host};
use reqwest::Url;

use crate::auth::host_of;
use crate::digest::Digest;
use crate::endpoint::{self, Endpoint};

/// Where Docker Hub's registry listens; `docker.io` is only its name.
pub(crate) const HUB: &str = "registry-1.docker.io";

/// A name for an image, made complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `host` or `host:port`.
    registry: String,
    /// `library/centos`.
    repository: String,
    /// Absent only where a digest is given.
    tag: Option<String>,
    digest: Option<Digest>,
    /// As the user wrote it, `:latest` added where neither tag nor digest was given.
    typed: String,
    /// Where that is, as long as no configuration says otherwise.
    endpoint: Box<Endpoint>,
}

/// What names without a registry stand for.
#[derive(Debug, Default)]
pub(crate) struct ShortNames {
    /// Full names, and the file that says so.
    pub(crate) aliases: BTreeMap<String, (String, PathBuf)>,
    /// A registry instead of docker.io, and the file that says so.
    pub(crate) registry: Option<(String, PathBuf)>,
}

impl ShortNames {
    /// What `path`, a name without tag and registry, is in full, and which file says so.
    pub(crate) fn full(&self, path: &str) -> Option<(String, &Path)> {
        let alias = || self.aliases.get(path).map(|(full, file)| (full.clone(), file.as_path()));
        let searched = || {
            let (registry, file) = self.registry.as_ref()?;
            // docker.io needs `library/`, which is not for us to add.
            (host_of(registry) != "docker.io").then(|| (format!("{registry}/{path}"), file.as_path()))
        };
        alias().or_else(searched)
    }
}

impl Reference {
    /// Reads `name`, with the tag as a word of its own if there is one: `centos 7` is `centos:7`.
    ///
    /// # Errors
    /// One line with status 2.
    pub fn parse(name: &str, tag: Option<&str>) -> Result<Self, Error> {
        Self::parse_with(name, tag, &ShortNames::default())
    }

    /// The same where names without a registry have a meaning of their own.
    ///
    /// # Errors
    /// As [`Reference::parse`].
    pub(crate) fn parse_with(name: &str, tag: Option<&str>, short: &ShortNames) -> Result<Self, Error> {
        read(name, tag, short).map_err(|reason| {
            let shown: String = name.chars().take(64).collect();
            Error::plain(format!("'{shown}' is not an image name: {reason}"))
                .hint("they look like centos:7 or localhost:5000/group/name:tag")
                .status(USAGE)
        })
    }

    /// The digest if there is one, else the tag: what comes last in the manifest's URL.
    pub fn pointer(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".into(),
        }
    }

    /// The digest that the user asks for. It wins over a tag.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// `library/centos`
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `registry-1.docker.io/library/centos`
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// As the user wrote it.
    pub fn typed(&self) -> &str {
        &self.typed
    }

    /// `docker.io/library/centos`: the name that configuration knows it by.
    pub(crate) fn logical_name(&self) -> String {
        format!("{}/{}", host_of(&self.registry), self.repository)
    }

    /// `docker.io/library/centos:7`, where it is a tag that is asked for, and no digest.
    pub(crate) fn logical_tag(&self) -> Option<String> {
        let tag = self.tag.as_ref().filter(|_| self.digest.is_none())?;
        Some(format!("{}:{tag}", self.logical_name()))
    }

    /// Where its content is, as long as no configuration says otherwise but whether TLS has to be good.
    pub(crate) fn endpoint(&self, insecure: Option<bool>) -> Endpoint {
        // Cannot fail: registry and repository have been checked.
        Endpoint::new(&self.registry, &self.repository, insecure).unwrap_or_else(|_| (*self.endpoint).clone())
    }
}

/// `registry/repository@digest` where there is a digest, else `registry/repository:tag`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.digest.is_some() { '@' } else { ':' };
        write!(f, "{}{mark}{}", self.name(), self.pointer())
    }
}

fn read(name: &str, tag_word: Option<&str>, short: &ShortNames) -> Result<Reference, String> {
    let Parts { path, host, repository, tag, digest } = Parts::read(name)?;
    let digest = digest.map(str::parse::<Digest>).transpose()?;
    let tag = match (tag, tag_word) {
        (None, word) if digest.is_none() => word,
        (tag, None) => tag,
        _ => return Err("the tag is given twice".into()),
    };
    tag.map_or(Ok(()), check_tag)?;
    let full = if host.is_none() { short.full(repository) } else { None };
    let (host, repository) = match &full {
        Some((full, file)) => endpoint::split(full)
            .and_then(|(host, repository)| check_repository(repository).map(|()| (host, repository)))
            .map_err(|reason| format!("{} makes it '{full}': {reason}", file.display()))?,
        None => (host.unwrap_or_else(|| reference::HUB.to_owned()), repository),
    };
    let repository = in_full(&host, repository);
    let registry = if known_host(&host) == reference::HUB { HUB.to_owned() } else { host };
    let endpoint = Box::new(Endpoint::new(&registry, &repository, None)?);
    let tag = match (tag, digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    let typed = match (&digest, &tag) {
        (None, Some(tag)) => format!("{path}:{tag}"),
        _ => name.to_owned(),
    };
    Ok(Reference { registry, repository, tag, digest, typed, endpoint })
}

/// `scheme://host[:port]/` for a checked host.
pub(crate) fn url_of(scheme: &str, registry: &str) -> Result<Url, String> {
    check_host(registry)?;
    // The URL parser knows that 127.1 and 0x7f000001 are 127.0.0.1, as the resolver would.
    Url::parse(&format!("{scheme}://{registry}/")).map_err(|_| "its host is none".to_owned())
}

/// Whether packets to `host`, as the URL parser wrote it, stay on this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse() == Ok(Ipv6Addr::LOCALHOST),
        None => host == "localhost" || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Noise;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn full(name: &str) -> String {
        Reference::parse(name, None).unwrap().to_string()
    }

    #[test]
    fn makes_names_complete() {
        for (typed, complete) in [
            ("centos", "registry-1.docker.io/library/centos:latest"),
            ("centos:7", "registry-1.docker.io/library/centos:7"),
            ("docker.io/centos", "registry-1.docker.io/library/centos:latest"),
            ("index.docker.io/a/b:c", "registry-1.docker.io/a/b:c"),
            ("registry-1.docker.io/library/centos", "registry-1.docker.io/library/centos:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("localhost:5000", "registry-1.docker.io/library/localhost:5000"),
            ("Quay.IO/a", "quay.io/a:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("a/b-c/d--e/f__g.h", "registry-1.docker.io/a/b-c/d--e/f__g.h:latest"),
        ] {
            assert_eq!(full(typed), complete, "{typed}");
        }
        assert_eq!(full(&format!("centos:7@{DIGEST}")), format!("registry-1.docker.io/library/centos@{DIGEST}"));
    }

    #[test]
    fn takes_the_tag_as_a_word() {
        let two = Reference::parse("localhost:5000/centos", Some("7")).unwrap();
        assert_eq!(two, Reference::parse("localhost:5000/centos:7", None).unwrap());
        assert_eq!(two.typed(), "localhost:5000/centos:7");
        assert_eq!(Reference::parse("centos", None).unwrap().typed(), "centos:latest");
        for name in ["centos:7", &format!("centos@{DIGEST}")] {
            assert_eq!(Reference::parse(name, Some("7")).unwrap_err().exit_status(), USAGE);
        }
    }

    #[test]
    fn short_names_are_what_the_files_say() {
        let mut short = ShortNames::default();
        let alias = |full: &str| (full.to_owned(), PathBuf::from("f"));
        short.aliases.insert("centos".into(), alias("quay.example/centos/centos"));
        short.aliases.insert("debian".into(), alias("docker.io/library/debian"));
        short.aliases.insert("bad".into(), alias("nothing"));
        let full = |name: &str, short: &_| Reference::parse_with(name, None, short).map(|it| it.to_string());
        assert_eq!(full("centos:7", &short).unwrap(), "quay.example/centos/centos:7");
        assert_eq!(full("debian", &short).unwrap(), "registry-1.docker.io/library/debian:latest");
        assert_eq!(full("docker.io/centos", &short).unwrap(), "registry-1.docker.io/library/centos:latest");
        assert_eq!(full("group/centos", &short).unwrap(), "registry-1.docker.io/group/centos:latest");
        assert!(full("bad", &short).unwrap_err().to_string().contains("f makes it 'nothing'"));
        assert_eq!(Reference::parse_with("centos", None, &short).unwrap().typed(), "centos:latest");
        short.registry = Some(alias("h.example:5000"));
        assert_eq!(full("a/b", &short).unwrap(), "h.example:5000/a/b:latest");
        assert_eq!(full("centos", &short).unwrap(), "quay.example/centos/centos:latest");
        short.registry = Some(alias("docker.io"));
        assert_eq!(full("a", &short).unwrap(), "registry-1.docker.io/library/a:latest");
    }

    #[test]
    fn http_on_loopback_only() {
        for (name, scheme) in [
            ("localhost/a", "http"),
            ("127.0.0.1:5000/a", "http"),
            ("127.200.3.4/a", "http"),
            ("127.1:5000/a", "http"),
            ("[::1]/a", "http"),
            ("a", "https"),
            ("10.0.0.1:5000/a", "https"),
            ("localhost.example.com/a", "https"),
            ("127.0.0.1.example.com/a", "https"),
            ("[::2]/a", "https"),
        ] {
            assert_eq!(Reference::parse(name, None).unwrap().endpoint(None).origin.scheme(), scheme, "{name}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        let long = "a".repeat(10_000);
        let long_tag = format!("a:{}", "b".repeat(129));
        for name in [
            "",
            ".",
            "..",
            "../a",
            "a/../b",
            "/",
            "/a",
            "a/",
            "a//b",
            "-x",
            "a-",
            "_a",
            "a..b",
            "a___b",
            "a._b",
            "Centos",
            "library/CentOS",
            "a b",
            "a\nb",
            "a\n",
            "a\0",
            "a%2fb",
            "é",
            "ａ",
            "a:",
            "a:-x",
            "a:.x",
            "a:b:c",
            "a:b c",
            "a@",
            "a@sha256:00",
            "a@sha512:00",
            "@sha256:00",
            "host:5000/",
            "host:0/a",
            "host:65536/a",
            "host:/a",
            "host:+80/a",
            "host:80:80/a",
            "256.256.256.256/a",
            "-h.example/a",
            "h..example/a",
            "user@host.example/a",
            "[::1/a",
            "[::g]/a",
            "http://a/b",
            "https://registry.example/a",
            &long,
            &long_tag,
            &format!("{long}.example/a"),
        ] {
            let error = Reference::parse(name, None).unwrap_err();
            assert_eq!(error.exit_status(), USAGE, "{name:?}");
            assert!(error.to_string().len() < 300, "the message stays one short line");
        }
    }

    #[test]
    fn whatever_is_accepted_reads_back_and_stays_in_its_url() {
        let mut noise = Noise::new(7);
        let mut accepted = 0;
        for _ in 0..20_000 {
            let name = noise.text("ab7A.:/@_-%[]\\\n\0 é0", 24);
            let Ok(reference) = Reference::parse(&name, None) else { continue };
            accepted += 1;
            let again = Reference::parse(&reference.to_string(), None).unwrap();
            assert_eq!(again.to_string(), reference.to_string(), "{name:?}");
            let url =
                Url::parse(&format!("{}/manifests/{}", reference.endpoint(None).base(), reference.pointer())).unwrap();
            assert_eq!(url.path(), format!("/v2/{}/manifests/{}", reference.repository(), reference.pointer()));
            assert_eq!(url.origin(), reference.endpoint(None).origin.origin());
        }
        assert!(accepted > 100, "only {accepted} names were good");
    }
}
