//! What the container's resolver reads, resolv.conf(5) and hosts(5): names and addresses that the caller gives.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use bocker_common::{Error, Result};

/// The original's.
const NAMESERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8));

/// The most that a file of the host's may have, bytes: it is copied into the container's memory.
const MOST: u64 = 7 << 20;

/// The options, as they are typed.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Resolver {
    /// The container's address, for /etc/hosts; -: it has none
    #[arg(long, value_name = "IP|-", value_parser = address)]
    address: Option<Address>,
    /// A line more in /etc/hosts, as db:10.0.0.5; host-gateway is the gateway of its network; repeatable
    #[arg(long, value_name = "NAME:IP", value_parser = host)]
    add_host: Vec<Host>,
    /// Where this file is there, it is /etc/hosts, read-only and as it changes, and nothing of ours is in it
    #[arg(long, value_name = "FILE")]
    hosts: Option<PathBuf>,
    /// With what this host's own /etc/resolv.conf and /etc/hosts say, where nothing else is given: for one on its network
    #[arg(long)]
    host_names: bool,
    /// A name server, for /etc/resolv.conf; repeatable [default: 8.8.8.8]
    #[arg(long, value_name = "IP")]
    nameserver: Vec<IpAddr>,
    /// Where a short name is looked for, for /etc/resolv.conf; repeatable; `.`: nowhere
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    dns_search: Vec<String>,
    /// An option of resolv.conf(5), as ndots:2; repeatable
    #[arg(long, value_name = "OPTION", value_parser = option)]
    dns_option: Vec<String>,
}

/// An address, or that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Address(Option<IpAddr>);

/// A name and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    name: String,
    /// None: the gateway.
    at: Option<IpAddr>,
}

fn address(text: &str) -> Result<Address, String> {
    match text {
        "-" => Ok(Address(None)),
        text => ip(text).map(|ip| Address(Some(ip))),
    }
}

fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("'{text}' is no address"))
}

/// hostname(7)'s letters, and the underscore that docker's names have: each goes into a file of lines and words.
pub(crate) fn is_name(name: &str, most: usize) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    !name.is_empty() && name.len() <= most && !name.starts_with('-') && name.bytes().all(fine)
}

/// `NAME:IP`, or docker's `NAME=IP`; of IPv6 with brackets or without.
fn host(text: &str) -> Result<Host, String> {
    let wrong = "NAME:IP is wanted, as db:10.0.0.5 or gate:host-gateway";
    let (name, at) = text.split_once([':', '=']).ok_or(wrong)?;
    if !is_name(name, 255) {
        return Err(format!("'{name}' is no host name"));
    }
    let bare = at.strip_prefix('[').and_then(|at| at.strip_suffix(']')).unwrap_or(at);
    let at = if at == "host-gateway" { None } else { Some(ip(bare)?) };
    Ok(Host { name: name.to_owned(), at })
}

fn domain(text: &str) -> Result<String, String> {
    if is_name(text, 255) { Ok(text.to_owned()) } else { Err("no domain's name".to_owned()) }
}

fn option(text: &str) -> Result<String, String> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    let is = !text.is_empty() && text.len() <= 255 && text.bytes().all(fine);
    if is { Ok(text.to_owned()) } else { Err("one word, as ndots:2".to_owned()) }
}

impl Resolver {
    /// `--hosts`, where it is there.
    #[expect(clippy::disallowed_methods, reason = "the caller's word")]
    pub(crate) fn hosts_file(&self) -> Option<&Path> {
        self.hosts.as_deref().filter(|file| file.exists())
    }

    /// The text of /etc/resolv.conf.
    ///
    /// # Errors
    /// The host's is wanted, and cannot be read.
    pub(crate) fn resolv_conf(&self) -> Result<String> {
        let own = if self.host_names { own("/etc/resolv.conf")? } else { None };
        Ok(self.resolv_conf_over(own.as_deref().unwrap_or_default()))
    }

    /// What is given replaces what another file says of it.
    fn resolv_conf_over(&self, other: &str) -> String {
        let kept = |line: &&str| match line.split_whitespace().next() {
            Some("nameserver") => self.nameserver.is_empty(),
            Some("search" | "domain") => self.dns_search.is_empty(),
            Some("options") => self.dns_option.is_empty(),
            Some("sortlist") => true,
            _ => false,
        };
        let kept: Vec<&str> = other.lines().filter(kept).collect();
        let knows = kept.iter().any(|line| line.trim_start().starts_with("nameserver"));
        let default = if self.nameserver.is_empty() && !knows { &[NAMESERVER][..] } else { &self.nameserver };
        let mut text: String = default.iter().map(|ip| format!("nameserver {ip}\n")).collect();
        kept.iter().for_each(|line| text += &format!("{line}\n"));
        // docker's way to say that there is none.
        if !self.dns_search.is_empty() && !self.dns_search.iter().any(|domain| domain == ".") {
            text += &format!("search {}\n", self.dns_search.join(" "));
        }
        if !self.dns_option.is_empty() {
            text += &format!("options {}\n", self.dns_option.join(" "));
        }
        text
    }

    /// The text of /etc/hosts.
    ///
    /// # Errors
    /// A gateway is asked for, and there is none; the host's is wanted, and cannot be read.
    pub(crate) fn hosts_text(&self, hostname: &str) -> Result<String> {
        let own = if self.host_names { own("/etc/hosts")? } else { None };
        let mut text =
            own.unwrap_or_else(|| "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".into());
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        if let Some(Address(Some(address))) = self.address {
            text += &format!("{address}\t{hostname}\n");
        }
        for Host { name, at } in &self.add_host {
            let at = match at {
                Some(at) => *at,
                // Nobody reads this then: a network without a way out has a gateway that only the file's writer knows.
                None if self.hosts_file().is_some() => continue,
                None => gateway()?.into(),
            };
            text += &format!("{at}\t{name}\n");
        }
        Ok(text)
    }
}

/// A file of the host's, if there is one; what is no UTF-8 in it is nobody's name.
#[expect(clippy::disallowed_methods, reason = "the host's own")]
fn own(path: &str) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes));
    match read {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::new("read", path, e)),
        Ok(_) if bytes.len() as u64 > MOST => Err(Error::new("read", path, format!("larger than {} MiB", MOST >> 20))),
        Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
    }
}

/// The gateway of the network namespace that we are in, which is the container's.
#[expect(clippy::disallowed_methods, reason = "/proc of the host")]
fn gateway() -> Result<Ipv4Addr> {
    const FILE: &str = "/proc/self/net/route";
    let table = std::fs::read_to_string(FILE).map_err(|e| Error::new("read", FILE, e))?;
    default_route(&table).ok_or_else(|| {
        Error::plain("--add-host: host-gateway: there is no gateway on its network").hint("an address in its place")
    })
}

/// Where what is nobody's goes: destination and mask 0. The numbers are as the kernel has them in memory, in hexadecimal.
fn default_route(table: &str) -> Option<Ipv4Addr> {
    let number = |word: Option<&&str>| u32::from_str_radix(word?, 16).ok();
    table.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (to, gateway, mask) = (number(words.get(1))?, number(words.get(2))?, number(words.get(7))?);
        (to == 0 && mask == 0 && gateway != 0).then(|| Ipv4Addr::from(gateway.to_ne_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        resolver: Resolver,
    }

    fn read(words: &str) -> std::result::Result<Resolver, String> {
        Typed::try_parse_from(std::iter::once("x").chain(words.split('|')))
            .map(|typed| typed.resolver)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_asked_for_stands_in_the_files() {
        let none = Resolver::default();
        assert_eq!(none.resolv_conf().unwrap(), "nameserver 8.8.8.8\n");
        let local = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
        assert_eq!(none.hosts_text("h").unwrap(), local);
        let all = read(
            "--address|10.0.0.45|--add-host|db:10.0.0.5|--add-host=six:::2|--add-host=b_x=[fe80::1]|--nameserver|1.1.1.1|--nameserver|::1\
             |--dns-search|a.example|--dns-search|b|--dns-option|ndots:2|--dns-option|rotate",
        )
        .unwrap();
        assert_eq!(
            all.resolv_conf().unwrap(),
            "nameserver 1.1.1.1\nnameserver ::1\nsearch a.example b\noptions ndots:2 rotate\n"
        );
        let hosts = all.hosts_text("h").unwrap();
        assert_eq!(hosts, format!("{local}10.0.0.45\th\n10.0.0.5\tdb\n::2\tsix\nfe80::1\tb_x\n"));
        assert_eq!(read("--address|-").unwrap().hosts_text("h").unwrap(), local);
        assert!(!read("--dns-search|.").unwrap().resolv_conf().unwrap().contains("search"));
    }

    #[test]
    fn what_is_given_replaces_what_the_host_says_of_it() {
        let host = "# by resolvconf\nnameserver 127.0.0.53\n\tnameserver ::1\ndomain corp\nsearch corp.example\noptions edns0\nfamily inet6\n";
        let over = |words: &str| read(words).unwrap().resolv_conf_over(host);
        assert_eq!(
            over("--host-names"),
            "nameserver 127.0.0.53\n\tnameserver ::1\ndomain corp\nsearch corp.example\noptions edns0\n"
        );
        assert_eq!(
            over("--nameserver|1.1.1.1"),
            "nameserver 1.1.1.1\ndomain corp\nsearch corp.example\noptions edns0\n"
        );
        assert_eq!(
            over("--dns-search|a|--dns-option|rotate"),
            "nameserver 127.0.0.53\n\tnameserver ::1\nsearch a\noptions rotate\n"
        );
        assert_eq!(read("--host-names").unwrap().resolv_conf_over("search x\n"), "nameserver 8.8.8.8\nsearch x\n");
    }

    #[test]
    fn what_would_be_another_line_or_word_is_refused() {
        for words in [
            "--address|10.0.0.256",
            "--address|",
            "--add-host|db",
            "--add-host|:10.0.0.1",
            "--add-host|a b:10.0.0.1",
            "--add-host|a\nb:10.0.0.1",
            "--add-host|-a:10.0.0.1",
            "--add-host|a:10.0.0.1\n6.6.6.6 bank",
            "--add-host|a:10.0.0.1 bank",
            "--add-host|a:",
            "--add-host|a:[10.0.0.1",
            "--add-host|a:gateway",
            "--nameserver|dns.example",
            "--nameserver|1.1.1.1\noptions x",
            "--dns-search|a b",
            "--dns-search|a\nnameserver 6.6.6.6",
            "--dns-search|",
            "--dns-option|a b",
            "--dns-option|\n",
            "--dns-option|",
        ] {
            assert!(read(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn the_gateway_is_the_default_routes() {
        // As the kernel prints it on a little-endian machine; on the other kind the bytes stand the other way round.
        let word = |ip: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(ip));
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let net = format!("eth0\t{}\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", word([10, 0, 0, 0]));
        let default = format!("eth0\t00000000\t{}\t0003\t0\t0\t0\t00000000\t0\t0\t0\n", word([10, 0, 0, 1]));
        assert_eq!(default_route(&format!("{head}{net}{default}")), Some(Ipv4Addr::new(10, 0, 0, 1)));
        for none in ["", head, &format!("{head}{net}"), &format!("{head}eth0\tx\n")] {
            assert_eq!(default_route(none), None, "{none}");
        }
    }
}
