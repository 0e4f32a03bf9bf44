//! One place where a repository's content is: a registry, or a mirror of it.

use std::path::PathBuf;

use bocker_common::reference::check_repository;
use reqwest::Url;

use crate::auth::host_of;
use crate::reference::{HUB, is_loopback, url_of};

/// Where, and whom we trust there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `host[:port]`, as logins and certificates are kept for it.
    pub(crate) registry: String,
    /// `library/centos`
    pub(crate) repository: String,
    /// Scheme, host and port that credentials are bound to.
    pub(crate) origin: Url,
    /// Plain HTTP will do where there is no HTTPS, and any certificate: the user says so.
    pub(crate) insecure: bool,
    /// Authorities for this host, beside the system's.
    pub(crate) roots: Vec<PathBuf>,
    /// Our certificate and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

impl Endpoint {
    /// The endpoint of `host[:port]/repository`.
    ///
    /// # Errors
    /// The reason.
    pub(crate) fn parse(text: &str, insecure: Option<bool>) -> Result<Self, String> {
        let (host, repository) = split(text)?;
        Self::new(&host, repository, insecure)
    }

    /// HTTPS, but plain HTTP for a loopback host unless `insecure` is set to no.
    ///
    /// # Errors
    /// The reason.
    pub(crate) fn new(registry: &str, repository: &str, insecure: Option<bool>) -> Result<Self, String> {
        check_repository(repository)?;
        let registry = if host_of(registry) == "docker.io" { HUB } else { registry };
        let https = url_of("https", registry)?;
        let loopback = https.host_str().is_some_and(is_loopback);
        let origin = if loopback && insecure.is_none() { url_of("http", registry)? } else { https };
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            origin,
            insecure: insecure == Some(true),
            roots: Vec::new(),
            identity: None,
        })
    }

    /// `https://registry-1.docker.io/v2/library/centos`: every request starts with this.
    pub(crate) fn base(&self) -> String {
        format!("{}v2/{}", self.origin, self.repository)
    }

    /// The same over plain HTTP.
    pub(crate) fn plain(&self) -> Self {
        let mut plain = self.clone();
        if let Ok(origin) = url_of("http", &self.registry) {
            plain.origin = origin;
        }
        plain
    }

    /// Whether its host is this machine, which no proxy leads to.
    pub(crate) fn is_loopback(&self) -> bool {
        self.origin.host_str().is_some_and(is_loopback)
    }
}

/// Host, with its port if there is one, and path of a location. The host is checked.
///
/// # Errors
/// The reason.
pub(crate) fn split(location: &str) -> Result<(String, &str), String> {
    let (host, path) = location.split_once('/').unwrap_or((location, ""));
    let host = host.to_ascii_lowercase();
    url_of("https", &host)?;
    Ok((host, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_where_it_may_be() {
        for (text, insecure, base) in [
            ("h.example/a", None, "https://h.example/v2/a"),
            ("h.example/a", Some(true), "https://h.example/v2/a"),
            ("localhost:5000/a", None, "http://localhost:5000/v2/a"),
            ("localhost:5000/a", Some(false), "https://localhost:5000/v2/a"),
            ("localhost:5000/a", Some(true), "https://localhost:5000/v2/a"),
            ("docker.io/library/a", None, "https://registry-1.docker.io/v2/library/a"),
            ("plainname/a", None, "https://plainname/v2/a"),
        ] {
            let endpoint = Endpoint::parse(text, insecure).unwrap();
            assert_eq!(endpoint.base(), base, "{text}");
            assert_eq!(endpoint.insecure, insecure == Some(true));
            assert!(endpoint.plain().base().starts_with("http://"));
        }
        for bad in
            ["", "h.example", "h.example/", "h.example/../a", "h.example/A", "-h/a", "h.example:0/a", "http://h/a"]
        {
            assert!(Endpoint::parse(bad, None).is_err(), "{bad}");
        }
    }
}
