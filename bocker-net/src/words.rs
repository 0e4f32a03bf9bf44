//! The words of `up`: `KEY=VALUE`, typed or one a line of a file.
//!
//! What goes into a name of the kernel's, into a file or to nft is one of the types here: nothing else gets there.

use std::fmt;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bocker_common::diag::USAGE;
use bocker_common::words::unescape;
use bocker_common::{Error, Id, Kind, Result};

use crate::subnet::Mac;

/// What a container joins first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Network {
    /// `bridge`: bridge0.
    #[default]
    Bridge,
    /// A network of that name.
    Named(Name),
    /// A namespace with lo only.
    None,
    /// The host's own namespace.
    Host,
    /// That container's namespace.
    Container(Id),
    /// Any namespace that has a path.
    Path(PathBuf),
}

impl Network {
    /// Whether the container gets an interface of ours, and so can have an address, names and published ports.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, Self::Bridge | Self::Named(_))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.write_str("bridge"),
            Self::Named(name) => name.fmt(f),
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container(id) => write!(f, "container:{id}"),
            Self::Path(path) => write!(f, "ns:{}", path.display()),
        }
    }
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(id) = text.strip_prefix("container:") {
            let id: Id = id.parse()?;
            return match id.kind() {
                Kind::Container => Ok(Self::Container(id)),
                Kind::Image => Err(bad(text, "an image has no network")),
            };
        }
        if let Some(path) = text.strip_prefix("ns:") {
            let path = Path::new(path);
            return match path.is_absolute() {
                true => Ok(Self::Path(path.into())),
                false => Err(bad(text, "not an absolute path (as in ns:/run/netns/blue)")),
            };
        }
        Ok(match text {
            "bridge" => Self::Bridge,
            "none" => Self::None,
            "host" => Self::Host,
            name => Self::Named(name.parse()?),
        })
    }
}

/// A name of a network, of a container or beside it: docker's grammar, so that it can stand in a file of names, in hosts(5) and in a shell.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
        let fits = text.bytes().all(inner) && text.starts_with(|c: char| c.is_ascii_alphanumeric());
        match fits && text.len() <= 128 {
            true => Ok(Self(text.to_owned())),
            false => Err(bad(text, "not a name (letters, digits, then also _ . -, 128 at most)")),
        }
    }
}

/// A further network and what is special there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connect {
    pub(crate) network: Network,
    pub(crate) end: End,
}

/// What one end of a cable is told to be; what is not said follows from the id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct End {
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) ip6: Option<Ipv6Addr>,
    pub(crate) mac: Option<Mac>,
    pub(crate) aliases: Vec<Name>,
}

impl FromStr for Connect {
    type Err = Error;

    /// `NAME[,ip=A][,ip6=A][,mac=M][,alias=N]…`
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(',');
        let network: Network = parts.next().unwrap_or_default().parse()?;
        if !network.is_ours() {
            return Err(bad(text, "not a network that one can be connected to"));
        }
        let mut end = End::default();
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(|| bad(part, "not KEY=VALUE"))?;
            if !end.take(key, value)? {
                return Err(bad(part, "not one of ip=, ip6=, mac=, alias="));
            }
        }
        Ok(Self { network, end })
    }
}

impl End {
    /// Whether the key is one of its own.
    pub(crate) fn take(&mut self, key: &str, value: &str) -> Result<bool> {
        match key {
            "ip" => self.ip = Some(value.parse().map_err(|_| bad(value, "not an IPv4 address"))?),
            "ip6" => self.ip6 = Some(value.parse().map_err(|_| bad(value, "not an IPv6 address"))?),
            "mac" => self.mac = Some(value.parse()?),
            "alias" => self.aliases.push(value.parse()?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(bad(text, "not tcp or udp")),
        }
    }
}

/// Ports of a container, 1 to 65535: `PORT[-PORT][/tcp|udp]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) ports: RangeInclusive<u16>,
    pub(crate) protocol: Protocol,
}

impl FromStr for Ports {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (ports, protocol) = match text.split_once('/') {
            Some((ports, protocol)) => (ports, protocol.parse()?),
            None => (text, Protocol::Tcp),
        };
        Ok(Self { ports: range(ports)?, protocol })
    }
}

/// `A` or `A-B`.
fn range(text: &str) -> Result<RangeInclusive<u16>> {
    let port = |digits: &str| {
        let plain = digits.bytes().all(|c| c.is_ascii_digit()) && !digits.starts_with('0');
        digits.parse().ok().filter(|_| plain)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(_), Some(_)) => Err(bad(text, "the range ends before it begins")),
        _ => Err(bad(text, "not a port (1 to 65535) or a range of them (8000-8010)")),
    }
}

/// One port of the container's, and where the host is to have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    /// Of the host; `None`: all of IPv4.
    pub(crate) address: Option<IpAddr>,
    /// The first free one of these; `None`: the kernel's choice.
    pub(crate) host: Option<RangeInclusive<u16>>,
    pub(crate) inside: u16,
    pub(crate) protocol: Protocol,
}

/// `[IP:][HOST]:INSIDE[/tcp|udp]` or `INSIDE`, with ranges of one length; or one port inside for a range: the first that is free.
fn publish(text: &str) -> Result<Vec<Publish>> {
    let (front, inside) = text.rsplit_once(':').unwrap_or(("", text));
    let Ports { ports, protocol } = inside.parse()?;
    // An address of IPv6 has colons of its own, so it stands in brackets.
    let (address, host) = match front.strip_prefix('[') {
        Some(rest) => {
            let (address, host) = rest.split_once(']').ok_or_else(|| bad(text, "no ] after ["))?;
            let address: Ipv6Addr = address.parse().map_err(|_| bad(address, "not an IPv6 address"))?;
            let host = host.strip_prefix(':').ok_or_else(|| bad(text, "after the address is no port (IP::INSIDE)"))?;
            (Some(IpAddr::V6(address)), host)
        }
        None => match front.rsplit_once(':') {
            Some((address, host)) => {
                let address: Ipv4Addr = address.parse().map_err(|_| {
                    bad(address, "not an IPv4 address of this host (or IPv6 in brackets, as [::1]:8080:80)")
                })?;
                (Some(IpAddr::V4(address)), host)
            }
            None => (None, front),
        },
    };
    if address.is_some_and(|address| address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)) {
        return Err(bad(text, "not an address of one host"));
    }
    let one = |host, inside| Publish { address, host, inside, protocol };
    let host = if host.is_empty() { None } else { Some(range(host)?) };
    match host {
        None => Ok(ports.map(|inside| one(None, inside)).collect()),
        Some(host) if host.len() == ports.len() => {
            Ok(host.zip(ports).map(|(host, inside)| one(Some(host..=host), inside)).collect())
        }
        Some(host) if ports.len() == 1 => Ok(vec![one(Some(host), *ports.start())]),
        Some(_) => Err(bad(text, "the two ranges are not of one length")),
    }
}

/// A name that only the container itself knows; without an address it is the gateway's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) name: Name,
    pub(crate) at: Option<IpAddr>,
}

impl FromStr for Host {
    type Err = Error;

    /// `NAME:IP`, `NAME:host-gateway`
    fn from_str(text: &str) -> Result<Self> {
        let (name, at) = text.split_once(':').ok_or_else(|| bad(text, "not NAME:IP"))?;
        let at = match at {
            "host-gateway" => None,
            at => Some(at.parse().map_err(|_| bad(at, "not an address, nor host-gateway"))?),
        };
        Ok(Self { name: name.parse()?, at })
    }
}

/// One word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    Network(Network),
    /// `ip=`, `ip6=`, `mac=` or `alias=`, on the first network.
    End(End),
    Name(Name),
    Host(Host),
    Connect(Connect),
    Publish(Vec<Publish>),
    PublishAll(bool),
    Expose(Ports),
    Config(PathBuf),
}

impl FromStr for Word {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        const KEYS: &str = "network ip ip6 mac alias name host connect publish publish-all expose config";
        let (key, value) = text.split_once('=').ok_or_else(|| bad(text, "not KEY=VALUE (as publish=8080:80)"))?;
        let mut end = End::default();
        if end.take(key, value)? {
            return Ok(Self::End(end));
        }
        Ok(match key {
            "network" => Self::Network(value.parse()?),
            "name" => Self::Name(value.parse()?),
            "host" => Self::Host(value.parse()?),
            "connect" => Self::Connect(value.parse()?),
            "publish" => Self::Publish(publish(value)?),
            "publish-all" => match value {
                "yes" => Self::PublishAll(true),
                "no" => Self::PublishAll(false),
                _ => return Err(bad(text, "yes or no")),
            },
            "expose" => Self::Expose(value.parse()?),
            "config" if value.is_empty() => return Err(bad(text, "no file")),
            "config" => Self::Config(value.into()),
            _ => return Err(bad(key, &format!("no such key (there are: {KEYS})"))),
        })
    }
}

/// All words of one `up`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Words {
    pub(crate) network: Network,
    /// On the first network.
    pub(crate) end: End,
    /// What the container is called.
    pub(crate) name: Option<Name>,
    /// For its own hosts file.
    pub(crate) hosts: Vec<Host>,
    pub(crate) connect: Vec<Connect>,
    pub(crate) publish: Vec<Publish>,
    /// Whether what `expose` and `config` name is published, too, each at a free port.
    pub(crate) publish_all: bool,
    pub(crate) expose: Vec<Ports>,
    /// An image's configuration; it names the ports that it serves.
    pub(crate) config: Option<PathBuf>,
}

impl Words {
    /// In order: of a key that there is one of, the last counts.
    ///
    /// # Errors
    /// They contradict each other: a usage error.
    pub(crate) fn of(words: impl IntoIterator<Item = Word>) -> Result<Self> {
        let mut all = Self::default();
        for word in words {
            match word {
                Word::Network(network) => all.network = network,
                Word::End(End { ip, ip6, mac, aliases }) => {
                    all.end.ip = ip.or(all.end.ip);
                    all.end.ip6 = ip6.or(all.end.ip6);
                    all.end.mac = mac.or(all.end.mac);
                    all.end.aliases.extend(aliases);
                }
                Word::Name(name) => all.name = Some(name),
                Word::Host(host) => all.hosts.push(host),
                Word::Connect(connect) => all.connect.push(connect),
                Word::Publish(publish) => all.publish.extend(publish),
                Word::PublishAll(yes) => all.publish_all = yes,
                Word::Expose(ports) => all.expose.push(ports),
                Word::Config(file) => all.config = Some(file),
            }
        }
        all.check()
    }

    fn check(self) -> Result<Self> {
        let needs_one = [
            ("publish", !self.publish.is_empty() || self.publish_all),
            ("ip, ip6, mac and alias", self.end != End::default()),
            ("connect", !self.connect.is_empty()),
        ];
        match needs_one.iter().find(|(_, is_there)| *is_there && !self.network.is_ours()) {
            Some((key, _)) => {
                Err(bad(&format!("network={}", self.network), &format!("there is no interface of ours for {key}")))
            }
            None => Ok(self),
        }
    }
}

/// A file with a word a line, written as `bocker_common::words` has it; none where it is not there.
///
/// # Errors
/// It cannot be read, is longer than 1 MiB, or a line makes no sense.
pub(crate) fn read(file: &Path) -> Result<Vec<Word>> {
    const MOST: u64 = 1 << 20;
    let fail = |why: String| Error::new("read", file.display(), why);
    let mut bytes = Vec::new();
    match std::fs::File::open(file).and_then(|opened| opened.take(MOST + 1).read_to_end(&mut bytes)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::new("read", file.display(), e)),
        _ => {}
    }
    if bytes.len() as u64 > MOST {
        return Err(fail("longer than 1 MiB".into()));
    }
    let lines = bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(at, line)| {
            let word = unescape(line).and_then(|word| String::from_utf8(word).ok());
            let word = word.ok_or_else(|| fail(format!("line {}: not a word", at + 1)))?;
            word.parse().map_err(|e: Error| fail(format!("line {}: {e}", at + 1)).status(USAGE))
        })
        .collect()
}

fn bad(text: &str, why: &str) -> Error {
    let shown: String = text.chars().take(64).collect();
    Error::plain(format!("'{shown}': {why}")).status(USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(texts: &[&str]) -> Result<Words> {
        Words::of(texts.iter().map(|text| text.parse()).collect::<Result<Vec<Word>>>()?)
    }

    fn one(text: &str) -> Publish {
        let [one] = <[_; 1]>::try_from(publish(text).unwrap()).unwrap();
        one
    }

    #[test]
    fn every_key_is_taken() {
        let all = words(&[
            "network=back",
            "ip=10.1.0.9",
            "ip6=fd00::9",
            "mac=02:42:00:00:00:09",
            "alias=db",
            "alias=sql",
            "name=my_db.1",
            "host=store:10.0.0.5",
            "host=six:fd00::5",
            "host=gate:host-gateway",
            "connect=front,ip=10.2.0.9,alias=web",
            "connect=bridge",
            "publish=8080:80",
            "publish-all=yes",
            "expose=53/udp",
            "expose=9000-9010",
            "config=/a/config",
        ])
        .unwrap();
        assert_eq!(all.network.to_string(), "back");
        assert_eq!((all.end.ip, all.end.ip6), ("10.1.0.9".parse().ok(), "fd00::9".parse().ok()));
        assert_eq!(all.end.mac.unwrap().to_string(), "02:42:00:00:00:09");
        assert_eq!(all.end.aliases.iter().map(Name::as_str).collect::<Vec<_>>(), ["db", "sql"]);
        assert_eq!(all.name.unwrap().as_str(), "my_db.1");
        let hosts: Vec<_> = all.hosts.iter().map(|host| (host.name.as_str(), host.at)).collect();
        assert_eq!(hosts, [("store", "10.0.0.5".parse().ok()), ("six", "fd00::5".parse().ok()), ("gate", None)]);
        assert_eq!(all.connect[0].end.aliases[0].as_str(), "web");
        assert_eq!((all.connect.len(), all.connect[1].network.clone()), (2, Network::Bridge));
        assert_eq!((all.publish.len(), all.publish_all), (1, true));
        assert_eq!(all.expose[0], Ports { ports: 53..=53, protocol: Protocol::Udp });
        assert_eq!(all.expose[1].ports, 9000..=9010);
        assert_eq!(all.config.unwrap(), Path::new("/a/config"));
        assert_eq!(words(&[]).unwrap(), Words::default());
        // Of one kind the last counts.
        assert_eq!(words(&["network=a", "network=none"]).unwrap().network, Network::None);
    }

    #[test]
    fn networks() {
        let id = "ps_42045".parse().unwrap();
        for (text, network) in [
            ("bridge", Network::Bridge),
            ("none", Network::None),
            ("host", Network::Host),
            ("container:ps_42045", Network::Container(id)),
            ("ns:/proc/1/ns/net", Network::Path("/proc/1/ns/net".into())),
        ] {
            assert_eq!(text.parse(), Ok(network.clone()));
            assert_eq!(network.to_string(), text);
        }
        for text in ["", "-a", ".", "..", "a/b", "a b", "a\nb", "container:", "container:img_42045", "ns:", "ns:a", "é"]
        {
            assert_eq!(text.parse::<Network>().unwrap_err().exit_status(), USAGE, "{text:?}");
        }
    }

    #[test]
    fn where_there_is_no_interface_of_ours_nothing_is_asked_of_it() {
        for network in ["none", "host", "container:ps_42045", "ns:/x"] {
            let network = format!("network={network}");
            words(&[&network, "name=a", "expose=80"]).unwrap();
            for word in
                ["publish=80", "publish-all=yes", "ip=10.0.0.9", "mac=02:00:00:00:00:01", "alias=a", "connect=b"]
            {
                assert_eq!(words(&[&network, word]).unwrap_err().exit_status(), USAGE, "{network} {word}");
            }
        }
    }

    #[test]
    fn ports_are_published_as_docker_writes_them() {
        let tcp = |address: Option<&str>, host: Option<RangeInclusive<u16>>, inside| Publish {
            address: address.map(|text| text.parse().unwrap()),
            host,
            inside,
            protocol: Protocol::Tcp,
        };
        assert_eq!(one("80"), tcp(None, None, 80));
        assert_eq!(one(":80"), tcp(None, None, 80));
        assert_eq!(one("8080:80"), tcp(None, Some(8080..=8080), 80));
        assert_eq!(one("8080:80/tcp"), one("8080:80"));
        assert_eq!(one("8000-8010:80"), tcp(None, Some(8000..=8010), 80));
        assert_eq!(one("127.0.0.1:8080:80"), tcp(Some("127.0.0.1"), Some(8080..=8080), 80));
        assert_eq!(one("127.0.0.1::80"), tcp(Some("127.0.0.1"), None, 80));
        assert_eq!(one("[::1]:8080:80"), tcp(Some("::1"), Some(8080..=8080), 80));
        assert_eq!(one("[::]::80"), tcp(Some("::"), None, 80));
        assert_eq!(one("53:53/udp").protocol, Protocol::Udp);
        let range = publish("0.0.0.0:8000-8002:80-82/udp").unwrap();
        assert_eq!(range.iter().map(|one| one.inside).collect::<Vec<_>>(), [80, 81, 82]);
        assert_eq!(range[2].host, Some(8002..=8002));
        assert_eq!(publish("80-82").unwrap().len(), 3);
        assert_eq!(publish("1-65535:1-65535").unwrap().len(), 65_535);
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in [
            "",
            ":",
            "0",
            "65536",
            "+80",
            "-80",
            "80-",
            "80 ",
            "80/sctp",
            "80/TCP",
            "80/",
            "8080:",
            "8080:80:",
            "0:80",
            "8002-8000:80-82",
            "8000-8001:80-82",
            "8000:80-81",
            "localhost:8080:80",
            "::1:8080:80",
            "[::1]80",
            "[::1:8080:80",
            "[127.0.0.1]:80:80",
            "224.0.0.1:80:80",
            "255.255.255.255:80:80",
            "1.2.3.4.5:80:80",
            "0.0.0.0:8080:80 ; drop",
            "0x50:80",
            "080:80",
            "८०",
        ] {
            assert_eq!(publish(text).unwrap_err().exit_status(), USAGE, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_word_is_refused_in_one_short_line() {
        let long = "a".repeat(10_000);
        for text in [
            "",
            "publish",
            "=80",
            "Publish=80",
            "fly=1",
            "ip=10.0.0",
            "ip=::1",
            "ip6=1.2.3.4",
            "mac=01:00:5e:00:00:01",
            "mac=00:00:00:00:00:00",
            "mac=2:42:0a:00:00:2d",
            "mac=02:42:0a:00:00:2d:00",
            "mac=02:42:0a:00:00:+1",
            "alias=-x",
            "alias=a b",
            "alias=a\tb",
            "name=",
            "name=a\n10.0.0.1 evil",
            "connect=host",
            "connect=a,b",
            "connect=a,publish=80",
            "publish-all=1",
            "expose=a",
            "config=",
            &format!("name={long}"),
            &long,
        ] {
            let error = text.parse::<Word>().unwrap_err();
            assert_eq!(error.exit_status(), USAGE, "{text:?}");
            assert!(error.to_string().len() < 300, "{error}");
        }
    }

    #[test]
    fn a_file_has_a_word_a_line() {
        let file = std::env::temp_dir().join(format!("bocker-net-words-{}", std::process::id()));
        std::fs::write(&file, "publish=8080:80\n\nconfig=/a\\nb\n").unwrap();
        let read_back = Words::of(read(&file).unwrap()).unwrap();
        assert_eq!((read_back.publish.len(), read_back.config), (1, Some("/a\nb".into())));
        std::fs::write(&file, "name=a\nfly=1\n").unwrap();
        let error = read(&file).unwrap_err();
        assert!(error.to_string().contains("line 2: 'fly'"), "{error}");
        assert_eq!(error.exit_status(), USAGE);
        std::fs::remove_file(&file).unwrap();
    }
}
