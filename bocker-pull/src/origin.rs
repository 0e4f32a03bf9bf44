//! Where a registry may send us: its token server and its redirects are its word, and we stand inside the host's network.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::reference::{is_loopback, url_of};

/// The setting that names hosts which a registry may lead to although they are inside.
pub(crate) const ALLOWED: &str = "BOCKER_PULL_INSIDE";

/// Whether credentials for one URL may go to the other: the same scheme, host and port.
pub(crate) fn same(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

/// Checks a URL that the registry at `home` sends us to. The registry's own host and port are always right, and the only
/// place for plain HTTP; anywhere else is HTTPS to a public host.
///
/// What names lead to is for [`Outside`] to look at.
///
/// # Errors
/// The reason.
pub(crate) fn may_visit(home: &Url, next: &Url, allowed: &Allowed) -> Result<(), String> {
    if !next.username().is_empty() || next.password().is_some() {
        return Err("it holds a user name".into());
    }
    if same(home, next) {
        return Ok(());
    }
    if next.scheme() != "https" {
        return Err("it is not https".into());
    }
    let own = next.host_str() == home.host_str() && next.port_or_known_default() == home.port_or_known_default();
    let host = next.host_str().unwrap_or_default();
    if own || allowed.has(host) || !host.is_empty() && !is_inside(host) {
        return Ok(());
    }
    Err(format!("it is an address inside this network{}", way_out(host)))
}

/// Hosts inside that a registry outside may lead to, over https: its user says so, for these and no others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Allowed(BTreeSet<String>);

impl Allowed {
    /// `HOST,HOST…`, names or addresses, each as the URL parser writes it. Nothing stands for several of them.
    ///
    /// # Errors
    /// The reason.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let words = text.split([',', ' ']).filter(|word| !word.is_empty());
        words
            .map(|word| host_of(word).ok_or_else(|| format!("'{word}' is not a host")))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn has(&self, host: &str) -> bool {
        self.0.contains(host)
    }
}

/// A word that is a host and nothing more, without a port, as the URL parser writes it.
fn host_of(word: &str) -> Option<String> {
    let word = if word.parse::<Ipv6Addr>().is_ok() { format!("[{word}]") } else { word.to_owned() };
    let url = url_of("https", &word.to_ascii_lowercase()).ok()?;
    // A port that is https's own is none to the URL parser.
    let port = word.rsplit_once(']').map_or(word.as_str(), |(_, rest)| rest).contains(':');
    url.host_str().filter(|_| !port).map(str::to_owned)
}

/// What to type where a host is inside and should be; nothing for what is no plain host, which could be a shell's words.
fn way_out(host: &str) -> String {
    match host_of(host) {
        Some(host) => format!(" (if it should be: {ALLOWED}={host})"),
        None => String::new(),
    }
}

/// Resolves the names of other hosts than the registry's own: those that it leads to. From a public registry none leads
/// inside (TLS would tell that the host there is another one, but only after the connection). One that is inside itself, as a
/// company's is, may have its token server there, too.
#[derive(Debug)]
pub(crate) struct Outside {
    /// The registry's own host.
    pub(crate) home: String,
    /// The proxies' hosts: where they are is their user's word.
    pub(crate) proxies: Vec<String>,
    /// What may be inside all the same.
    pub(crate) allowed: Allowed,
}

/// A name that leads inside.
#[derive(Debug)]
pub(crate) struct Inside(String);

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it leads to {}, which is an address inside this network{}", self.0, way_out(&self.0))
    }
}

impl std::error::Error for Inside {}

impl Resolve for Outside {
    fn resolve(&self, name: Name) -> Resolving {
        let home = self.home.clone();
        let trusted = self.proxies.iter().any(|proxy| proxy == name.as_str()) || self.allowed.has(name.as_str());
        Box::pin(async move {
            let mut found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if !trusted && found.iter().any(is_inside_address) && !leads_inside(&home).await {
                found.retain(|address| !is_inside_address(address));
                if found.is_empty() {
                    return Err(Inside(name.as_str().to_owned()).into());
                }
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// All of its addresses: one of them could be there for this question only.
async fn leads_inside(host: &str) -> bool {
    let inside = |found: &[SocketAddr]| !found.is_empty() && found.iter().all(is_inside_address);
    is_inside(host) || tokio::net::lookup_host((host, 0)).await.is_ok_and(|found| inside(&found.collect::<Vec<_>>()))
}

fn is_inside_address(address: &SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(address) => is_inside_v4(address),
        IpAddr::V6(address) => is_inside_v6(address),
    }
}

/// Whether a host, as the URL parser wrote it, is an address that is not for the public.
fn is_inside(host: &str) -> bool {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match literal.parse::<IpAddr>() {
        Ok(address) => is_inside_address(&(address, 0).into()),
        Err(_) => is_loopback(host) || host.trim_end_matches('.').ends_with("localhost"),
    }
}

fn is_inside_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        // Carrier-grade NAT, RFC 6598, and benchmarking, RFC 2544.
        || a == 100 && (64..128).contains(&b)
        || a == 198 && (18..20).contains(&b)
}

fn is_inside_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, .., y, z] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    // ::a.b.c.d, ::ffff:a.b.c.d (mapped) and 64:ff9b::a.b.c.d (NAT64) are IPv4 inside.
    let holds_v4 = address.segments().iter().take(5).all(|&s| s == 0) || (a, b) == (0x64, 0xff9b);
    address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_unique_local()
        || address.is_unicast_link_local()
        || holds_v4 && is_inside_v4(v4(y, z))
        // 6to4, and what was site-local.
        || a == 0x2002 && is_inside_v4(v4(b, c))
        || a & 0xffc0 == 0xfec0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(home: &str, next: &str) -> bool {
        may_visit(&Url::parse(home).unwrap(), &Url::parse(next).unwrap(), &Allowed::default()).is_ok()
    }

    #[test]
    fn a_public_registry_leads_to_public_hosts_over_https() {
        let home = "https://registry.example/";
        for next in [
            "https://auth.example/token",
            "https://registry.example/x",
            "https://8.8.8.8/",
            "https://[2606:4700::1]/",
            "https://[2002:808:808::1]/",
            "https://registry.example:8443/",
        ] {
            assert!(visit(home, next), "{next}");
        }
        for next in [
            "http://registry.example/",
            "http://auth.example/",
            "ftp://auth.example/",
            "file:///etc/passwd",
            "https://user@auth.example/",
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0/",
            "https://localhost/",
            "https://localhost./",
            "https://x.localhost/",
            "https://10.0.0.1/",
            "https://172.16.0.1/",
            "https://192.168.1.1:8443/",
            "https://169.254.169.254/latest/meta-data",
            "https://100.64.0.1/",
            "https://255.255.255.255/",
            "https://[::1]/",
            "https://[::]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:a9fe:a9fe]/",
            "https://[64:ff9b::10.0.0.1]/",
            "https://[fe80::1]/",
            "https://[fd00::1]/",
            "https://017700000001/",
            "https://LocalHost:8443/",
            "https://[::127.0.0.1]/",
            "https://[::ffff:0:0]/",
            "https://[2002:a9fe:a9fe::]/",
            "https://[fec0::1]/",
            "https://[ff02::1]/",
            "https://224.0.0.1/",
            "https://[0:0:0:0:0:0:0:1]:443/",
        ] {
            assert!(!visit(home, next), "{next}");
        }
    }

    #[test]
    fn a_loopback_registry_leads_to_itself_only() {
        let home = "http://127.0.0.1:5000/";
        assert!(visit(home, "http://127.0.0.1:5000/token"));
        assert!(visit(home, "https://127.0.0.1:5000/token"));
        assert!(visit(home, "https://auth.example/token"));
        for next in
            ["http://127.0.0.1:5001/token", "http://localhost:5000/", "https://127.0.0.1:5001/", "http://auth.example/"]
        {
            assert!(!visit(home, next), "{next}");
        }
        assert!(visit("https://10.0.0.5:5000/", "https://10.0.0.5:5000/token"));
        assert!(!visit("https://10.0.0.5:5000/", "https://10.0.0.5:5001/token"));
    }

    #[test]
    fn what_is_named_may_be_inside_and_nothing_else() {
        let allowed = Allowed::parse("Auth.Example, 10.0.0.7,fd00::1 [fd00::2]").unwrap();
        let visit = |next: &str| {
            may_visit(&Url::parse("https://registry.example/").unwrap(), &Url::parse(next).unwrap(), &allowed)
        };
        for next in [
            "https://10.0.0.7/x",
            "https://10.0.0.7:8443/x",
            "https://0xa000007/",
            "https://[fd00::1]/",
            "https://[fd00::2]/",
        ] {
            assert_eq!(visit(next), Ok(()), "{next}");
        }
        let hint =
            |host| Err(format!("it is an address inside this network (if it should be: BOCKER_PULL_INSIDE={host})"));
        for (next, host) in [
            ("https://10.0.0.8/", "10.0.0.8"),
            ("https://127.1/", "127.0.0.1"),
            ("https://[fd00::3]/", "[fd00::3]"),
            ("https://LocalHost/", "localhost"),
        ] {
            assert_eq!(visit(next), hint(host), "{next}");
        }
        assert_eq!(visit("http://10.0.0.7/"), Err("it is not https".into()));
        assert_eq!(visit("https://user@10.0.0.7/"), Err("it holds a user name".into()));
        assert!(allowed.has("auth.example") && !allowed.has("x.auth.example") && !allowed.has("example"));
        assert_eq!(Allowed::parse(" , "), Ok(Allowed::default()));
        for bad in [
            "*",
            "*.example",
            "https://h.example",
            "h.example:443",
            "[fd00::1]:443",
            "h.example/x",
            "user@h",
            "10.0.0.0/8",
            "-h",
            "a;b",
        ] {
            assert_eq!(Allowed::parse(bad), Err(format!("'{bad}' is not a host")));
        }
        // The line is for a person to copy.
        let line = Inside("a$(id).example".into()).to_string();
        assert_eq!(line, "it leads to a$(id).example, which is an address inside this network");
    }
}
