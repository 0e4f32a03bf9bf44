//! Names of images: `[host[:port]/]repository[:tag]`, as distribution/reference has them.
//!
//! A name in full has all three parts, `docker.io/library/debian:12`; what a person types and reads is `debian:12`.
//! Its parts are safe as components of a path: none is empty, begins with a dot or holds a slash.

use std::fmt;
use std::str::FromStr;

use bocker_common::diag::USAGE;
use bocker_common::reference::{HUB, Parts, in_full, known_host};
use bocker_common::{Error, Id};

/// A name in full.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    host: String,
    repository: String,
    tag: String,
}

impl Reference {
    /// As people write it: without `docker.io/`, and `library/` after it, where that means the same.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let Some(rest) = full.strip_prefix("docker.io/") else { return full };
        let short = rest.strip_prefix("library/").filter(|short| !short.contains('/')).unwrap_or(rest);
        // docker.io/a.b/c is not a.b/c.
        if short.parse().as_ref() == Ok(self) { short.to_owned() } else { full }
    }

    /// The components of its path below `names/`; the last one holds the only colon after the host.
    pub fn components(&self) -> Vec<String> {
        let full = self.to_string();
        full.split('/').map(str::to_owned).collect()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.host, self.repository, self.tag)
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        read(text).map_err(|reason| {
            Error::plain(format!("'{}' is not an image's name: {reason}", crate::store::short(text)))
                .hint("they look like debian:12 or localhost:5000/group/name:tag")
                .status(USAGE)
        })
    }
}

fn read(text: &str) -> Result<Reference, String> {
    let Parts { host, repository, tag, digest, .. } = Parts::read(text)?;
    if digest.is_some() {
        return Err("a digest names one image for ever, and needs no other name".into());
    }
    let tag = tag.unwrap_or("latest");
    let host = known_host(host.as_deref().unwrap_or(HUB)).to_owned();
    if host == HUB && looks_like_an_id(repository) {
        return Err("it looks like an id".into());
    }
    let repository = in_full(&host, repository);
    // Both are one component of a path.
    if repository.rsplit('/').next().map_or(0, str::len) + 1 + tag.len() > 255 {
        return Err("its last part and the tag are longer than 255 bytes together".into());
    }
    Ok(Reference { host, repository, tag: tag.to_owned() })
}

/// Whether somebody could take it for an id of ours (or mean one: img_42150x), or for one of docker's.
fn looks_like_an_id(repository: &str) -> bool {
    let path = repository.strip_prefix("library/").unwrap_or(repository);
    let number = path.strip_prefix("img_").or_else(|| path.strip_prefix("ps_"));
    path.parse::<Id>().is_ok()
        || number.is_some_and(|number| number.bytes().next().is_none_or(|b| b.is_ascii_digit()))
        || (path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn full_and_familiar_forms() {
        for (typed, complete, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c", "a/b:c"),
            ("registry-1.docker.io/library/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000/a/b:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
            ("Quay.IO/a", "quay.io/a:latest", "quay.io/a:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
            ("a/b-c/d--e/f__g.h:T_1.x-", "docker.io/a/b-c/d--e/f__g.h:T_1.x-", "a/b-c/d--e/f__g.h:T_1.x-"),
        ] {
            assert_eq!(full(typed), complete, "{typed}");
            assert_eq!(typed.parse::<Reference>().unwrap().familiar(), familiar, "{typed}");
        }
        let name: Reference = "localhost:5000/a/b:1".parse().unwrap();
        assert_eq!(name.components(), ["localhost:5000", "a", "b:1"]);
    }

    #[test]
    fn refuses_everything_else() {
        let hex = "0".repeat(64);
        let long = "a".repeat(256);
        let long_tag = format!("a:{}", "b".repeat(129));
        let together = format!("{}:{}", "a".repeat(200), "b".repeat(100));
        for text in [
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
            "Debian",
            "a/B",
            "a b",
            "a\nb",
            "a\n",
            "a\0",
            "a%2fb",
            "é",
            "a:",
            "a:-x",
            "a:.x",
            "a:b:c",
            "a:b c",
            "a@",
            "a@sha256:00",
            "host:5000/",
            "host:0/a",
            "host:65536/a",
            "host:/a",
            "host:+80/a",
            "host:80:80/a",
            "-h.example/a",
            "h..example/a",
            "../../etc/a",
            ".new_x/a",
            "user@h.example/a",
            "[::1/a",
            "http://a/b",
            "img_42150",
            "ps_42045",
            "img_42150:latest",
            "docker.io/library/img_42150:1",
            "library/ps_1",
            "img_42150x",
            "ps_1.2",
            "img_",
            &hex,
            &long,
            &long_tag,
            &together,
            &format!("{long}.example/a"),
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert_eq!(error.exit_status(), USAGE, "{text:?}");
            assert!(error.to_string().len() < 300, "the message stays one short line");
        }
        // Elsewhere than on the hub nobody takes it for an id.
        assert_eq!(full("localhost:5000/img_42150"), "localhost:5000/img_42150:latest");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_accepted_is_one_name_and_stays_in_its_place(text in "[a-bA1.:/_\\-@\\[\\]%\\n é]{1,24}") {
            if let Ok(name) = text.parse::<Reference>() {
                prop_assert_eq!(name.to_string().parse::<Reference>(), Ok(name.clone()));
                prop_assert_eq!(name.familiar().parse::<Reference>(), Ok(name.clone()));
                prop_assert!(name.familiar().parse::<Id>().is_err());
                let parts = name.components();
                prop_assert!(parts.len() >= 2);
                for (at, part) in parts.iter().enumerate() {
                    prop_assert!(!part.is_empty() && !part.starts_with('.') && part.len() <= 255);
                    // No directory has the name of a link.
                    prop_assert!(at == 0 || part.contains(':') == (at == parts.len() - 1));
                }
            }
        }
    }
}
