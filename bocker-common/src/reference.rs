//! The grammar of image names, `[host[:port]/]repository[:tag][@digest]`, as distribution/reference has it. What a name
//! means is its reader's to say: where a registry is, or which image of a store.

use std::net::Ipv6Addr;

/// The registry of names without a host, as people call it.
pub const HUB: &str = "docker.io";
/// Its names in the network.
const ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];
/// Longest host and longest repository, in bytes.
const NAME_MAX: usize = 255;
/// Longest tag, in bytes.
const TAG_MAX: usize = 128;

/// A name in its parts, each of them good but for the digest, of which nothing is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts<'a> {
    /// All but tag and digest, as typed.
    pub path: &'a str,
    /// `host[:port]` in lower case; none: the name begins with the repository.
    pub host: Option<String>,
    /// `library/centos`
    pub repository: &'a str,
    /// What stands after the last colon.
    pub tag: Option<&'a str>,
    /// What stands after `@`.
    pub digest: Option<&'a str>,
}

impl<'a> Parts<'a> {
    /// Takes a name apart.
    ///
    /// # Errors
    /// The reason, as the end of a sentence.
    pub fn read(name: &'a str) -> Result<Self, String> {
        if name.is_empty() {
            return Err("it is empty".into());
        }
        let (rest, digest) = name.split_once('@').map_or((name, None), |(rest, digest)| (rest, Some(digest)));
        // A colon after the last slash begins a tag; before it, a port.
        let leaf = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match rest.get(leaf..).and_then(|leaf| leaf.split_once(':')) {
            Some((last, tag)) => (rest.get(..leaf + last.len()).unwrap_or(rest), Some(tag)),
            None => (rest, None),
        };
        tag.map_or(Ok(()), check_tag)?;
        // The first part is a host if it cannot be part of a repository's name.
        let (host, repository) = match path.split_once('/') {
            Some((first, below)) if first.contains(['.', ':', '[']) || first == "localhost" => {
                (Some(first.to_ascii_lowercase()), below)
            }
            _ => (None, path),
        };
        host.as_deref().map_or(Ok(()), check_host)?;
        check_repository(repository)?;
        Ok(Self { path, host, repository, tag, digest })
    }
}

/// The host as people know it: the hub has several names.
pub fn known_host(host: &str) -> &str {
    if ALIASES.contains(&host) { HUB } else { host }
}

/// The repository in full: the hub's own images lie in `library/`.
pub fn in_full(host: &str, repository: &str) -> String {
    let library = if known_host(host) == HUB && !repository.contains('/') { "library/" } else { "" };
    format!("{library}{repository}")
}

/// A domain name or an IP address, with or without a port.
///
/// # Errors
/// The reason.
pub fn check_host(host: &str) -> Result<(), String> {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let good = match literal {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => name.split('.').all(label),
    };
    let good_port = port
        .is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0));
    if good && good_port && host.len() <= NAME_MAX {
        return Ok(());
    }
    Err("its host is neither a domain name nor an IP address, with or without :port".into())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/…)*`, at most 255 bytes.
///
/// # Errors
/// The reason.
pub fn check_repository(repository: &str) -> Result<(), String> {
    if repository.len() > NAME_MAX {
        return Err(format!("it is longer than {NAME_MAX} bytes"));
    }
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("names are in lower case".into());
    }
    if repository.split('/').all(is_component) {
        return Ok(());
    }
    Err("the parts of a name are letters and digits, joined by single . _ __ or -".into())
}

fn is_component(part: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = |b: Option<&u8>| b.copied().is_some_and(word);
    let bytes = part.as_bytes();
    ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .split(|&b| word(b))
            .all(|joint| matches!(joint, b"" | b"." | b"_" | b"__") || joint.iter().all(|&b| b == b'-'))
}

/// `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`
///
/// # Errors
/// The reason.
pub fn check_tag(tag: &str) -> Result<(), String> {
    if tag.len() > TAG_MAX {
        return Err(format!("its tag is longer than {TAG_MAX} bytes"));
    }
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = tag.bytes().next().is_some_and(word) && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if good { Ok(()) } else { Err("a tag is letters, digits, . _ and -, and starts with neither . nor -".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_its_parts() {
        for (name, host, repository, tag, digest) in [
            ("centos", None, "centos", None, None),
            ("a/b:7", None, "a/b", Some("7"), None),
            ("Quay.IO:5000/a/b:7@x", Some("quay.io:5000"), "a/b", Some("7"), Some("x")),
            ("localhost/a", Some("localhost"), "a", None, None),
            ("localhost:5000", None, "localhost", Some("5000"), None),
            ("[::1]:5000/a", Some("[::1]:5000"), "a", None, None),
        ] {
            let parts = Parts::read(name).unwrap();
            assert_eq!(
                (parts.host.as_deref(), parts.repository, parts.tag, parts.digest),
                (host, repository, tag, digest)
            );
        }
        assert!(Parts::read(".new_x/a").is_err() && Parts::read("a:b:c").is_err());
        assert_eq!(Parts::read(&"a".repeat(256)).unwrap_err(), "it is longer than 255 bytes");
    }

    #[test]
    fn the_corpus() {
        for (file, good, bytes) in
            crate::corpus::files(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/reference").into())
        {
            for name in std::str::from_utf8(&bytes).unwrap().lines() {
                assert_eq!(Parts::read(name).is_ok(), good, "{file}: {name}");
            }
            for near in crate::corpus::near(&bytes, 2_000) {
                for name in String::from_utf8_lossy(&near).lines() {
                    // What is taken has no part that could be another name's, or a path's.
                    if let Ok(Parts { repository, tag, .. }) = Parts::read(name) {
                        assert!(repository.split('/').all(|part| !part.is_empty() && !part.starts_with('.')), "{name}");
                        assert!(tag.is_none_or(|tag| !tag.contains('/')), "{name}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_hub_has_many_names() {
        for host in [HUB, "index.docker.io", "registry-1.docker.io"] {
            assert_eq!(
                (known_host(host), in_full(host, "a"), in_full(host, "b/a")),
                (HUB, "library/a".into(), "b/a".into())
            );
        }
        assert_eq!((known_host("h.example"), in_full("h.example", "a")), ("h.example", "a".into()));
    }
}
