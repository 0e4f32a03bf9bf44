//! NAT, published ports, the firewall of containers and the guard on the bridge: by the `nft` tool, in two tables of our own.
//! (Elements that come and go with a run, published ports and who may speak, are netfilter.rs's; here they are said.)
//! What is made can be read (`nft list table ip bocker`) and removed by hand, and nobody else's table is touched.

use std::fmt::{self, Write as _};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};

use bocker_common::id::{BASE, FIRST, HIGHEST};
use bocker_common::{Id, Kind};

use crate::cable;
use crate::netfilter;
use crate::network::{DEFAULT, Network};
use crate::publish::Port;
use crate::subnet::Mac;

/// The tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// NAT, published ports, and who may reach a container.
    Ip,
    /// The guard: what a container may send into the bridge.
    Bridge,
}

/// Of a table of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Absent,
    /// With other rules than ours: somebody has flushed it, or it is an older version's.
    Changed,
    Whole,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ip => "ip bocker",
            Self::Bridge => "bridge bocker",
        })
    }
}

/// What the tables hold beside their rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct World {
    /// That have a bridge.
    pub(crate) networks: Vec<Network>,
    /// That do not follow from an id.
    pub(crate) stations: Vec<Station>,
    pub(crate) ports: Vec<Port>,
}

/// Who may speak as whom: a port of a bridge, and a container's MAC and address behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Station {
    pub(crate) port: String,
    pub(crate) mac: Mac,
    pub(crate) address: IpAddr,
}

const SETS: &str = r#"add table ip bocker
add set ip bocker bridges { type ifname; }
add set ip bocker subnets { type ipv4_addr; flags interval; }
add set ip bocker within { type ifname . ifname; }
add set ip bocker internal { type ifname; }
add map ip bocker everywhere { type inet_proto . inet_service : ipv4_addr . inet_service; counter; }
add map ip bocker somewhere { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; counter; }
"#;

/// Localhost is the relay's: a packet to 127.0.0.0/8 that leaves this host would need `route_localnet`, which opens every
/// service on it to the neighbours (CVE-2020-8558). `fib … local`: what only passes through the host is not ours, whatever its
/// port (CVE-2025-67499). Into a bridge comes what a container asked for, what was published, and its own traffic; nothing else.
const IP: &str = r#"add chain ip bocker raw { type filter hook prerouting priority raw; policy accept; }
add chain ip bocker published
add chain ip bocker prerouting { type nat hook prerouting priority dstnat; policy accept; }
add chain ip bocker output { type nat hook output priority -100; policy accept; }
add chain ip bocker forward { type filter hook forward priority filter; policy accept; }
add chain ip bocker postrouting { type nat hook postrouting priority srcnat; policy accept; }
flush chain ip bocker raw
flush chain ip bocker published
flush chain ip bocker prerouting
flush chain ip bocker output
flush chain ip bocker forward
flush chain ip bocker postrouting
flush map ip bocker everywhere
flush map ip bocker somewhere
add rule ip bocker raw iifname != "lo" ip daddr 127.0.0.0/8 drop
add rule ip bocker published ip daddr 127.0.0.0/8 return
add rule ip bocker published dnat ip to ip daddr . meta l4proto . th dport map @somewhere
add rule ip bocker published dnat ip to meta l4proto . th dport map @everywhere
add rule ip bocker prerouting fib daddr type local jump published
add rule ip bocker output fib daddr type local jump published
add rule ip bocker forward iifname . oifname @within accept
add rule ip bocker forward iifname @internal drop
add rule ip bocker forward oifname @internal drop
add rule ip bocker forward oifname != @bridges accept
add rule ip bocker forward ct state established,related accept
add rule ip bocker forward ct status dnat accept
add rule ip bocker forward drop
add rule ip bocker postrouting ip saddr @subnets oifname != @bridges masquerade
add rule ip bocker postrouting ip saddr @subnets ct status dnat masquerade
"#;

/// A container speaks by its own MAC and its own addresses, in IP and in ARP; nothing else: no tags of 802.1Q, and of IPv6, where
/// the network has it, no word as a router, and as a neighbour only of its own addresses: of what an advertisement is the target, RFC 4861
/// 4.4, bytes 8 to 23. Frames to 01:80:c2:00:00:0e (LLDP) never come by here: so the bridge does not learn
/// from them (`no_linklocal_learn`). PORTS: the names of a container's cables.
const GUARD: &str = r#"add table bridge bocker
add set bridge bocker stations { type ifname . ether_addr . ipv4_addr; }
add set bridge bocker stations6 { type ifname . ether_addr . ipv6_addr; }
add set bridge bocker targets6 { typeof iifname . ether saddr . @th,64,128; }
add chain bridge bocker port
add chain bridge bocker prerouting { type filter hook prerouting priority -300; policy accept; }
flush chain bridge bocker port
flush chain bridge bocker prerouting
add rule bridge bocker prerouting iifname { PORTS } goto port
add rule bridge bocker port ether type ip iifname . ether saddr . ip saddr @stations accept
add rule bridge bocker port ether type arp iifname . ether saddr . arp saddr ip @stations iifname . arp saddr ether . arp saddr ip @stations accept
add rule bridge bocker port ether type ip6 icmpv6 type { nd-router-advert, nd-redirect } drop
add rule bridge bocker port ether type ip6 icmpv6 type nd-neighbor-advert iifname . ether saddr . @th,64,128 != @targets6 drop
add rule bridge bocker port ether type ip6 iifname . ether saddr . ip6 saddr @stations6 accept
add rule bridge bocker port drop
"#;

/// The guard's set that nft knows of since 1.0.3.
pub(crate) const TARGETS: &str = "targets6";

/// For an older nft: a packet's own bytes are no part of a key for it.
fn without_targets(text: &str) -> String {
    let (mut kept, mut within) = (String::new(), false);
    for line in text.lines() {
        let is_of_it = within || line.contains(TARGETS);
        within = if within { line != "}" } else { is_of_it && line.ends_with('{') };
        if !is_of_it {
            kept += line;
            kept.push('\n');
        }
    }
    kept
}

fn guard() -> String {
    let ports: Vec<String> = cable::all_ends().map(|end| format!("\"{end}*\"")).collect();
    GUARD.replace("PORTS", &ports.join(", "))
}

impl Table {
    pub(crate) const ALL: [Self; 2] = [Self::Ip, Self::Bridge];

    /// What a host goes without where it cannot have it.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Ip => "NAT",
            Self::Bridge => "guard",
        }
    }

    /// And what that means.
    pub(crate) fn without_it(self) -> &'static str {
        match self {
            Self::Ip => "containers will not reach beyond this host",
            Self::Bridge => "a container can speak for another one",
        }
    }

    fn family(self) -> u8 {
        match self {
            Self::Ip => netfilter::IPV4,
            Self::Bridge => netfilter::BRIDGE,
        }
    }

    fn rules(self) -> &'static str {
        match self {
            Self::Ip => IP,
            Self::Bridge => GUARD,
        }
    }

    /// Looks at it, by a question to the kernel.
    pub(crate) fn state(self) -> State {
        if self.is_whole() {
            State::Whole
        } else if netfilter::has(self.family(), "bocker") {
            State::Changed
        } else {
            State::Absent
        }
    }

    /// Whether it has as many rules as we made.
    pub(crate) fn is_whole(self) -> bool {
        self.has_all_rules().unwrap_or(false)
    }

    /// Whether elements are to be put there, or taken away: where the kernel does not answer it will have to say why.
    pub(crate) fn has_elements(self) -> bool {
        self.has_all_rules().unwrap_or(true)
    }

    fn has_all_rules(self) -> rustix::io::Result<bool> {
        let own = self.rules().lines().filter(|line| line.starts_with("add rule ")).count();
        let there = netfilter::rules(self.family(), "bocker")?;
        // By an old nft without the one for neighbour advertisements.
        let by_old = || self == Self::Bridge && there + 1 == own && !netfilter::has_set(self.family(), TARGETS);
        Ok(there == own || by_old())
    }

    /// Makes it, or completes it.
    ///
    /// # Errors
    /// nft's complaint.
    pub(crate) fn make(self, world: &World) -> Result<(), String> {
        let text = self.text(world);
        run(&text).or_else(|why| match self {
            // What there is to guard against without it takes IPv6.
            Self::Bridge => run(&without_targets(&text)).map_err(|_| why),
            Self::Ip => Err(why),
        })
    }

    /// One transaction; says the same however often it is run.
    pub(crate) fn text(self, world: &World) -> String {
        match self {
            Self::Ip => {
                let networks: String = world.networks.iter().map(|network| elements_of("add", network)).collect();
                // What they have sent on before nobody knows, when the table is made anew: something ([`netfilter::unpublish`]).
                let ports = elements("add", &world.ports).replace(" : ", " counter packets 1 bytes 0 : ");
                format!("{SETS}{IP}{networks}{ports}")
            }
            Self::Bridge => {
                let known: Vec<Station> = world.bridge0().into_iter().flat_map(all_by_function).collect();
                format!("{}{}{}", guard(), stations("add", &known), stations("add", &world.stations))
            }
        }
    }

    /// The same in shell; the stations that follow from their number by a loop.
    pub(crate) fn shell(self, world: &World) -> String {
        let without = format!("|| echo 'no {}' >&2", self.what());
        let (Self::Bridge, Some(default)) = (self, world.bridge0()) else {
            return format!("nft -f - <<'EOF' {without}\n{}EOF", self.text(world));
        };
        let subnet = default.subnet;
        let [a, b, ..] = subnet.gateway().octets();
        let (first, last) = (low(subnet.gateway()) + 1, low(subnet.last()));
        let [m, n] = Mac::PREFIX;
        let id = i64::from(BASE + 2) - i64::from(first);
        let (bytes, numbers) = ("$((n >> 8)) $((n & 255))", "%d.%d");
        let mac = format!("{m:02x}:{n:02x}:{a:02x}:{b:02x}:%02x:%02x");
        // What IPv6 there is, is listed: its addresses have no form that printf makes.
        let six: Vec<Station> = all_by_function(default).filter(|station| station.address.is_ipv6()).collect();
        format!(
            "{{ cat <<'EOF'\n{}{}{}EOF\nfor n in $(seq {first} {last}); do\n\
             \x20 printf 'add element bridge bocker stations {{ \"veth0_ps_%d\" . {mac} . {a}.{b}.{numbers} }}\\n' \\\n\
             \x20   $((n + {id})) {bytes} {bytes}\n\
             done; }} | nft -f - {without}",
            guard(),
            stations("add", &six),
            stations("add", &world.stations),
        )
    }
}

impl World {
    /// With bridge0's, first.
    pub(crate) fn with(&self, network: Network) -> Self {
        let networks = std::iter::once(network).chain(self.networks.iter().cloned()).collect();
        Self { networks, ..self.clone() }
    }

    fn bridge0(&self) -> Option<&Network> {
        self.networks.iter().find(|network| network.name == DEFAULT)
    }
}

fn low(address: Ipv4Addr) -> u32 {
    u32::from(address) & 0xffff
}

/// A network in the sets of the chains, which are the same for all.
fn elements_of(verb: &str, network: &Network) -> String {
    let (bridge, subnet) = (&network.bridge, network.subnet);
    let mut text = format!(
        "{verb} element ip bocker bridges {{ \"{bridge}\" }}\n\
         {verb} element ip bocker within {{ \"{bridge}\" . \"{bridge}\" }}\n"
    );
    let _ = match network.internal {
        true => writeln!(text, "{verb} element ip bocker internal {{ \"{bridge}\" }}"),
        false => writeln!(text, "{verb} element ip bocker subnets {{ {subnet} }}"),
    };
    text
}

/// One more network. Where somebody else's bridge0 is used there is no table yet.
pub(crate) fn network(network: &Network) -> String {
    let rules = if Table::Ip.is_whole() { "" } else { IP };
    format!("{SETS}{rules}{}", elements_of("add", network))
}

/// And one less, whether it is there or not.
pub(crate) fn no_network(network: &Network) -> String {
    format!("{SETS}{}{}", elements_of("add", network), elements_of("delete", network))
}

/// Every container that the default network has an address for: nothing is left to do for the guard when one starts.
fn all_by_function(network: &Network) -> impl Iterator<Item = Station> {
    let ids = (FIRST..=HIGHEST).map_while(|number| Id::new(Kind::Container, number));
    ids.map(|id| by_function(network, id)).take_while(|stations| !stations.is_empty()).flatten()
}

/// One of them; none where the network has no address for it.
pub(crate) fn by_function(network: &Network, id: Id) -> Vec<Station> {
    let address = network.subnet.address(id).ok();
    let six = network.subnet6.map(|subnet| subnet.address(id));
    address.map(|address| of_end(&id.veth(), Mac::from(address), address, six)).unwrap_or_default()
}

/// One end of a cable: its addresses, with the one of IPv6 that the kernel makes of a MAC, RFC 4291.
pub(crate) fn of_end(port: &str, mac: Mac, address: Ipv4Addr, address6: Option<Ipv6Addr>) -> Vec<Station> {
    let Mac([a, b, c, d, e, f]) = mac;
    let own = Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    let six = address6.into_iter().flat_map(|address| [address, own]).map(IpAddr::V6);
    let all = std::iter::once(IpAddr::V4(address)).chain(six);
    all.map(|address| Station { port: port.to_owned(), mac, address }).collect()
}

/// Elements of the guard's sets, one transaction. What is compared with the bytes of a packet is a number to nft.
pub(crate) fn stations(verb: &str, all: &[Station]) -> String {
    type Shown = fn(&IpAddr) -> Option<String>;
    let sets: [(&str, Shown); 3] = [
        ("stations", |address| address.is_ipv4().then(|| address.to_string())),
        ("stations6", |address| address.is_ipv6().then(|| address.to_string())),
        (TARGETS, |address| match address {
            IpAddr::V6(address) => Some(format!("{:#034x}", u128::from(*address))),
            IpAddr::V4(_) => None,
        }),
    ];
    let mut text = String::new();
    for (set, shown) in sets {
        let mut own = all.iter().filter_map(|station| Some((station, shown(&station.address)?))).peekable();
        if own.peek().is_some() {
            let _ = writeln!(text, "{verb} element bridge bocker {set} {{");
            own.for_each(|(Station { port, mac, .. }, address)| {
                let _ = writeln!(text, "\"{port}\" . {mac} . {address},");
            });
            text += "}\n";
        }
    }
    text
}

/// What takes them away, whether they are there or not.
pub(crate) fn no_stations(all: &[Station]) -> String {
    stations("add", all) + &stations("delete", all)
}

/// Published ports as elements of the maps.
pub(crate) fn elements(verb: &str, ports: &[Port]) -> String {
    let mut text = String::new();
    for (proto, (at, to)) in ports.iter().filter_map(|port| Some((port.protocol, netfilter::mapped(port)?))) {
        let (host, to, inside) = (at.port(), to.ip(), to.port());
        let _ = match *at.ip() {
            Ipv4Addr::UNSPECIFIED => {
                writeln!(text, "{verb} element ip bocker everywhere {{ {proto} . {host} : {to} . {inside} }}")
            }
            at => writeln!(text, "{verb} element ip bocker somewhere {{ {at} . {proto} . {host} : {to} . {inside} }}"),
        };
    }
    text
}

/// What takes them away, whether they are there or not.
pub(crate) fn no_elements(ports: &[Port]) -> String {
    elements("add", ports) + &elements("delete", ports)
}

/// One transaction; nft's complaint, if it has one.
pub(crate) fn run(text: &str) -> Result<(), String> {
    nft(&["-f", "-"], text).unwrap_or_else(|| Err("no nft".into())).map(drop)
}

/// Deletes the table.
pub(crate) fn delete(table: impl fmt::Display) -> Result<(), String> {
    run(&format!("delete table {table}\n"))
}

/// Runs nft: its stdout, or the first line of its complaint; `None` where there is no nft.
pub(crate) fn nft(arguments: &[&str], input: &str) -> Option<Result<String, String>> {
    // Never by PATH: this runs as root.
    let program = ["/usr/sbin/nft", "/sbin/nft"].into_iter().find(|path| std::path::Path::new(path).exists())?;
    let run = || {
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // nft that ends early says why on stderr.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    };
    Some(match run() {
        Err(e) => Err(e.to_string()),
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let line = said.lines().next().unwrap_or("failed");
            Err(line.rsplit("Error: ").next().unwrap_or(line).to_owned())
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::network;

    fn port(line: &str) -> Port {
        line.parse().unwrap()
    }

    #[test]
    fn published_ports_are_elements_but_for_those_of_the_relay() {
        let ports = [
            port("tcp\t0.0.0.0:8080\t10.0.0.45:80"),
            port("udp\t192.0.2.1:53\t10.0.0.45:5353"),
            port("tcp\t127.0.0.1:8081\t10.0.0.45:80"),
            port("tcp\t[::]:8080\t10.0.0.45:80"),
        ];
        assert_eq!(
            elements("add", &ports),
            "add element ip bocker everywhere { tcp . 8080 : 10.0.0.45 . 80 }\n\
             add element ip bocker somewhere { 192.0.2.1 . udp . 53 : 10.0.0.45 . 5353 }\n"
        );
        assert_eq!(no_elements(&ports).lines().count(), 4);
    }

    fn default(subnet: &str, subnet6: Option<&str>) -> Network {
        network::default_with(subnet.parse().unwrap(), subnet6.map(|text| text.parse().unwrap()))
    }

    fn text_of(network: &Network) -> String {
        stations("add", &all_by_function(network).collect::<Vec<_>>())
    }

    #[test]
    fn every_container_of_the_subnet_is_a_station() {
        let text = text_of(&default("10.0.0.0/24", None));
        assert_eq!(text.lines().count(), 253 + 2);
        assert!(text.contains("\n\"veth0_ps_42045\" . 02:42:0a:00:00:2d . 10.0.0.45,\n"), "{text}");
        let text = text_of(&default("10.7.0.8/29", None));
        assert_eq!(text.lines().nth(1), Some("\"veth0_ps_42002\" . 02:42:0a:07:00:0a . 10.7.0.10,"));
        assert_eq!(text.lines().nth(5), Some("\"veth0_ps_42006\" . 02:42:0a:07:00:0e . 10.7.0.14,"));
        assert_eq!(text.lines().count(), 5 + 2);
        let text = text_of(&default("10.0.0.0/24", Some("fd00::/64")));
        assert!(text.contains("\n\"veth0_ps_42045\" . 02:42:0a:00:00:2d . fd00::2d,\n"), "{text}");
        assert!(text.contains("\n\"veth0_ps_42045\" . 02:42:0a:00:00:2d . fe80::42:aff:fe00:2d,\n"), "{text}");
    }

    #[test]
    fn an_old_nft_is_told_nothing_of_targets() {
        let network = default("10.7.0.8/29", Some("fd00::/64"));
        let text = Table::Bridge.text(&World { networks: vec![network], ..World::default() });
        let old = without_targets(&text);
        assert!(text.contains("@th,64,128") && text.contains("targets6 {\n") && !old.contains("targets6"));
        let lines = |text: &str| text.lines().filter(|line| line.contains("stations")).count();
        assert_eq!(lines(&text), lines(&old));
        // A set, a rule, five containers with two addresses each in braces; nothing else.
        assert_eq!(text.lines().count() - old.lines().count(), 1 + 1 + 10 + 2);
    }

    #[test]
    fn the_shell_loop_makes_the_same_stations() {
        for (subnet, six) in [
            ("10.0.0.0/24", None),
            ("10.7.0.8/29", None),
            ("10.7.255.0/24", None),
            ("172.30.4.0/22", Some("fd00::/64")),
        ] {
            let network = default(subnet, six);
            let own: HashSet<String> = text_of(&network).lines().map(str::to_owned).collect();
            let world = World { networks: vec![network], ..World::default() };
            let shell = Table::Bridge.shell(&world).replace("| nft -f -", "| grep veth0_ps_[0-9]");
            let mut sh = Command::new("/bin/sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut stdin = sh.stdin.take().unwrap();
            let writer = std::thread::spawn(move || stdin.write_all(shell.as_bytes()).unwrap());
            let made = sh.wait_with_output().unwrap();
            writer.join().unwrap();
            let bare = |line: &str| line.trim_start_matches("add element bridge bocker stations { ").replace(" }", ",");
            let made: HashSet<String> = String::from_utf8(made.stdout).unwrap().lines().map(bare).collect();
            let own: HashSet<String> = own.into_iter().filter(|line| line.starts_with('"')).collect();
            assert_eq!(made, own, "{subnet}");
        }
    }
}
