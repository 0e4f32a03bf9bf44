//! Networks with names: a bridge of its own for each, apart from all others.
//!
//! A network is a file, /etc/bocker/networks/NAME, so it outlives a reboot. Its bridge is made when a container first needs it,
//! and its alias says which file it was made from, as bridge0's says what it was made with.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use bocker_common::diag::USAGE;
use bocker_common::entry::need_root;
use bocker_common::say::{self, Explain, Said, quote};
use bocker_common::{Error, Id, Result};
use nix::fcntl::{Flock, FlockArg};
use rtnetlink::packet_route::link::InfoKind;
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec};
use serde::Serialize;

use crate::act::Act;
use crate::bridge::{self, BRIDGE};
use crate::kernel::{Kernel, said};
use crate::netlink::{Address, Link};
use crate::subnet::{Mac, Subnet, Subnet6};
use crate::words::{self, Name};
use crate::{nft, route, state};

/// What bridge0's network is called.
pub(crate) const DEFAULT: &str = "bridge";
/// What else is no network's name: `up` takes them for something else.
const RESERVED: [&str; 3] = [DEFAULT, "host", "none"];
/// The longest name of one, in bytes.
const LONGEST: usize = 64;
/// All bridges of named networks begin so: rules tell them from the host's own.
const PREFIX: &str = "bkr";
/// Where free subnets are looked for, 10.64.0.0/10: away from what homes, clouds and docker take.
const POOL: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 64, 0, 0), 10);

/// One network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) name: String,
    pub(crate) bridge: String,
    pub(crate) subnet: Subnet,
    pub(crate) subnet6: Option<Subnet6>,
    /// No way out, and none in but from the host itself.
    pub(crate) internal: bool,
    /// In bytes; none: the uplink's.
    pub(crate) mtu: Option<u32>,
}

/// bridge0's, from the environment.
pub(crate) fn default() -> Result<Network> {
    Ok(default_with(Subnet::from_environment()?, Subnet6::from_environment()?))
}

/// bridge0's with these subnets.
pub(crate) fn default_with(subnet: Subnet, subnet6: Option<Subnet6>) -> Network {
    Network { name: DEFAULT.into(), bridge: BRIDGE.into(), subnet, subnet6, internal: false, mtu: None }
}

/// The one that a word means.
///
/// # Errors
/// There is none of that name.
pub(crate) fn find(word: &words::Network) -> Result<Network> {
    match word {
        words::Network::Bridge => default(),
        words::Network::Named(name) => read(name.as_str()),
        other => Err(Error::plain(format!("{other} is no network to be connected to")).status(USAGE)),
    }
}

/// The named ones, sorted.
///
/// # Errors
/// A file that makes no sense.
pub(crate) fn named() -> Result<Vec<Network>> {
    let directory = directory();
    let entries = match std::fs::read_dir(&directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|e| Error::new("read", directory.display(), e))?,
    };
    // A name that no network can have is somebody's note, or a file that is being written.
    let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut names: Vec<Name> = names.collect();
    names.sort();
    names.iter().map(|name| read(name.as_str())).collect()
}

/// `BOCKER_NETWORKS`, or /etc/bocker/networks.
fn directory() -> PathBuf {
    let directory = std::env::var_os("BOCKER_NETWORKS").filter(|text| !text.is_empty());
    directory.map_or_else(|| "/etc/bocker/networks".into(), PathBuf::from)
}

fn read(name: &str) -> Result<Network> {
    let path = directory().join(name);
    let text = std::fs::read_to_string(&path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            Error::plain(format!("no network {name}")).hint(format!("bocker-net network create {name} makes it"))
        }
        _ => Error::new("read", path.display(), e),
    })?;
    parse(name, &text).map_err(|why| Error::new("read", path.display(), why))
}

/// The file's text: `KEY=VALUE`, one a line.
pub(crate) fn parse(name: &str, text: &str) -> Result<Network, String> {
    let (mut subnet, mut subnet6, mut internal, mut mtu) = (None, None, false, None);
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.split_once('=') {
            Some(("subnet", value)) => subnet = Some(value.parse().map_err(|e: Error| e.to_string())?),
            Some(("subnet6", value)) => subnet6 = Some(value.parse().map_err(|e: Error| e.to_string())?),
            Some(("internal", "yes")) => internal = true,
            Some(("internal", "no")) => internal = false,
            Some(("mtu", value)) => mtu = Some(parse_mtu(value).map_err(|e| e.to_string())?),
            _ => return Err(format!("'{line}' is none of subnet=, subnet6=, internal=yes|no, mtu=")),
        }
    }
    let subnet = subnet.ok_or("no subnet=")?;
    Ok(Network { name: name.into(), bridge: bridge_of(name), subnet, subnet6, internal, mtu })
}

/// Bytes of a packet: what IPv4 asks of every link, to what a bridge takes.
pub(crate) fn parse_mtu(text: &str) -> Result<u32> {
    let mtu = text.parse().ok().filter(|mtu| (68..=65_535).contains(mtu) && !text.starts_with('+'));
    mtu.ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        Error::plain(format!("'{shown}': not an MTU (68 to 65535)")).status(USAGE)
    })
}

/// The bridge's name: `bkr_NAME`; of one that is too long (15 bytes) the beginning and a hash.
fn bridge_of(name: &str) -> String {
    if name.len() <= 11 {
        return format!("{PREFIX}_{name}");
    }
    // FNV-1a: the same on every machine and in every version.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // `.` where the others have `_`, so it is nobody else's.
    format!("{PREFIX}.{}{hash:08x}", name.get(..3).unwrap_or_default())
}

impl Network {
    fn file(&self) -> PathBuf {
        directory().join(&self.name)
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("subnet={}", self.subnet)];
        lines.extend(self.subnet6.map(|subnet| format!("subnet6={subnet}")));
        lines.extend(self.internal.then(|| "internal=yes".to_owned()));
        lines.extend(self.mtu.map(|mtu| format!("mtu={mtu}")));
        lines
    }

    /// What the bridge's alias says; it makes the bridge ours.
    fn alias(&self) -> String {
        format!("bocker network {} {}", self.name, self.lines().join(" "))
    }

    /// The rules: this network is apart from the others and from the world, and what leaves its subnet bears the host's address. One
    /// transaction, which says the same however often it is run.
    fn rules(&self) -> String {
        let four = if self.name == DEFAULT { String::new() } else { nft::network(self) };
        four + &self.subnet6.map(|subnet| self.rules6(subnet)).unwrap_or_default()
    }

    /// Chains of its own; for IPv4 all networks share some.
    fn rules6(&self, subnet: Subnet6) -> String {
        let own = &self.bridge;
        let (forward, leave) = (format!("forward_{own}"), format!("postrouting_{own}"));
        let mut rules = "add table ip6 bocker\n".to_owned();
        let mut chain = |name: &str, hook: &str, all: &[String]| {
            rules +=
                &format!("add chain ip6 bocker {name} {{ {hook}; policy accept; }}\nflush chain ip6 bocker {name}\n");
            rules.extend(all.iter().map(|rule| format!("add rule ip6 bocker {name} {rule}\n")));
        };
        let into = format!("oifname \"{own}\" iifname != \"{own}\" drop");
        let apart = match self.internal {
            true => vec![format!("iifname \"{own}\" oifname != \"{own}\" drop"), into],
            // What it asked for, and what is published.
            false => vec!["ct state established,related accept".into(), "ct status dnat accept".into(), into],
        };
        chain(&forward, "type filter hook forward priority filter", &apart);
        if !self.internal {
            let masquerade = format!("ip6 saddr {subnet} oifname != \"{own}\" masquerade");
            chain(&leave, "type nat hook postrouting priority srcnat", &[masquerade]);
        }
        rules
    }

    /// Chains are made first, so that none that is missing keeps the others from going.
    fn without_rules(&self) -> String {
        let mut text = nft::no_network(self);
        if self.subnet6.is_some() {
            text += "add table ip6 bocker\n";
            for chain in [format!("forward_{}", self.bridge), format!("postrouting_{}", self.bridge)] {
                let chain = format!("chain ip6 bocker {chain}");
                text += &format!("add {chain}\nflush {chain}\ndelete {chain}\n");
            }
        }
        text
    }

    /// The state of its bridge.
    fn look(&self, link: Option<&Link>) -> Result<Made> {
        let Some(link) = link else { return Ok(Made::Not) };
        let foreign = || {
            Error::plain(format!("{}: {} is not bocker's", self.name, self.bridge))
                .hint(format!("ip link delete {}", self.bridge))
        };
        if link.kind != Some(InfoKind::Bridge) {
            return Err(foreign());
        }
        match link.alias.as_deref() {
            Some(alias) if alias == self.alias() => Ok(if link.up { Made::Whole(link.mtu) } else { Made::Partly }),
            Some(alias) if alias.starts_with(&format!("bocker network {} ", self.name)) => Ok(Made::Partly),
            // Killed before it was written.
            None if !link.up && link.mac.starts_with(&Mac::PREFIX) => Ok(Made::Partly),
            _ => Err(foreign()),
        }
    }

    /// The bridge's MTU, if it is there and complete.
    pub(crate) fn ready(&self, kernel: &Kernel) -> Result<Option<u32>> {
        let link = kernel.host.link(&self.bridge).map_err(|e| Error::new("look at", &self.bridge, e))?;
        match self.look(link.as_ref())? {
            Made::Whole(mtu) => Ok(Some(mtu)),
            _ => Ok(None),
        }
    }

    /// Makes its bridge where there is none, as it is to be.
    ///
    /// # Errors
    /// Somebody else has its name or its addresses; what it was made from has changed while it is in use.
    pub(crate) fn plan(&self, seen: &bridge::Seen) -> Result<Vec<Act>> {
        let link = seen.links.iter().find(|link| link.name == self.bridge);
        let mut plan = Vec::new();
        match self.look(link)? {
            Made::Whole(_) => return Ok(plan),
            Made::Not => {}
            Made::Partly => {
                let index = link.map(|link| link.index);
                if let Some(port) = seen.links.iter().find(|port| port.controller.is_some() && port.controller == index)
                {
                    let (file, bridge) = (self.file(), &self.bridge);
                    return Err(Error::plain(format!("{bridge} was not made from what {} says now", file.display()))
                        .hint(format!("first stop who is on it: {}", port.name)));
                }
                plan.push(Act::Network(Step::DeleteBridge(self.bridge.clone())));
            }
        }
        if let Some((what, who)) =
            taken(self.subnet, &seen.addresses, &seen.links).filter(|(_, who)| *who != self.bridge)
        {
            return Err(Error::plain(format!("network {}: {} overlaps {what} of {who}", self.name, self.subnet)));
        }
        let of = |step: fn(Self) -> Step| Act::Network(step(self.clone()));
        plan.extend([of(Step::AddBridge), Act::Network(Step::Describe(self.clone(), self.mtu.unwrap_or(seen.mtu)))]);
        plan.push(of(Step::AddGateway));
        plan.extend(seen.ipv6.is_some().then(|| of(Step::Ipv6)));
        plan.push(of(Step::Rules));
        if self.subnet6.is_some() && !self.internal {
            plan.extend(bridge::plan_forwarding6(seen)?);
        }
        plan.push(of(Step::BridgeUp));
        Ok(plan)
    }
}

/// How far a bridge is.
enum Made {
    Not,
    Partly,
    /// With its MTU.
    Whole(u32),
}

/// Who has addresses of the subnet.
fn taken(subnet: Subnet, addresses: &[Address], links: &[Link]) -> Option<(String, String)> {
    let one = addresses.iter().find(|one| subnet.overlaps(one.address, one.prefix))?;
    let name = links.iter().find(|link| link.index == one.index).map_or("?", |link| &link.name);
    Some((format!("{}/{}", one.address, one.prefix), name.to_owned()))
}

/// A change of a network: of its bridge, its rules, its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    AddBridge(Network),
    /// With the MTU.
    Describe(Network, u32),
    AddGateway(Network),
    /// Off, or with its gateway.
    Ipv6(Network),
    Rules(Network),
    BridgeUp(Network),
    /// By name.
    DeleteBridge(String),
    DropRules(Network),
    /// The MTU of a bridge by name.
    Mtu(String, u32),
    Forwarding6(bool),
    /// The table of IPv6.
    DropTable6,
    WriteFile(Network),
    RemoveFile(String),
}

impl Step {
    pub(crate) fn undo(&self) -> Option<Self> {
        match self {
            Self::AddBridge(network) => Some(Self::DeleteBridge(network.bridge.clone())),
            Self::Rules(network) if network.name != DEFAULT => Some(Self::DropRules(network.clone())),
            Self::Forwarding6(on) => Some(Self::Forwarding6(!on)),
            _ => None,
        }
    }

    pub(crate) fn say(&self) -> Said {
        match self {
            Self::AddBridge(network) => Said::new(
                format!(
                    "ip link add {} address {} type bridge no_linklocal_learn 1",
                    network.bridge,
                    Mac::from(network.subnet.gateway())
                ),
                format!("the switch of the network {}", network.name),
            ),
            Self::Describe(network, mtu) => Said::new(
                format!("ip link set {} mtu {mtu} alias {}", network.bridge, quote(network.alias())),
                "whose it is, and what it was made from; an MTU that is set stays as ports come and go",
            ),
            Self::AddGateway(network) => Said::new(
                format!("ip address add {} brd + dev {}", network.subnet.gateway_with_prefix(), network.bridge),
                "the subnet's first address is the host's own",
            ),
            Self::Ipv6(network) => {
                let set = |key, value| sysctl(&network.bridge, key, value);
                match network.subnet6 {
                    None => Said::new(set("disable_ipv6", "1"), "no subnet, no IPv6"),
                    Some(subnet) => Said::new(
                        format!(
                            "{}\n{}\nip address add {} dev {} nodad",
                            set("disable_ipv6", "0"),
                            set("accept_ra", "0"),
                            subnet.gateway_with_prefix(),
                            network.bridge
                        ),
                        "IPv6 with routes of ours only: no container is the host's router",
                    ),
                }
            }
            Self::Rules(network) => Said::new(
                format!("nft -f - <<'EOF'\n{}EOF", network.rules()),
                "networks are apart; what leaves for the world bears the host's address",
            ),
            Self::BridgeUp(network) => {
                Said::new(format!("ip link set {} up", network.bridge), "last: a bridge that is up is complete")
            }
            Self::DeleteBridge(bridge) => {
                Said::new(format!("ip link delete {bridge}"), "its addresses and routes go with it")
            }
            Self::DropRules(network) => {
                Said::new(format!("nft -f - <<'EOF'\n{}EOF", network.without_rules()), "its chains, and only those")
            }
            Self::Mtu(bridge, mtu) => Said::new(
                format!("ip link set {bridge} mtu {mtu}"),
                "as the way out has it, so nothing need be cut to fit",
            ),
            Self::Forwarding6(on) => Said::new(
                format!("sysctl -qw net.ipv6.conf.all.forwarding={}", u8::from(*on)),
                if *on { "let IPv6 pass between the bridge and the world" } else { "as it was before" },
            ),
            Self::DropTable6 => Said::new("nft delete table ip6 bocker", "the rules for IPv6, and only ours"),
            Self::WriteFile(network) => {
                let (directory, lines) = (directory(), network.lines());
                let lines: Vec<String> = lines.iter().map(quote).collect();
                Said::new(
                    format!(
                        "mkdir -p {}\n( set -C; printf '%s\\n' {} > {} )",
                        quote(&directory),
                        lines.join(" "),
                        quote(network.file())
                    ),
                    "the network; its bridge is made when a container first needs it",
                )
            }
            Self::RemoveFile(name) => Said::new(format!("rm {}", quote(directory().join(name))), "the network itself"),
        }
    }

    pub(crate) fn apply(&self, kernel: &Kernel) -> Result<()> {
        let host = &kernel.host;
        let on = |what: &dyn fmt::Display, network: &Network| format!("{what} to {}", network.bridge);
        match self {
            Self::AddBridge(network) => {
                let mac = Mac::from(network.subnet.gateway()).0.to_vec();
                let bridge =
                    LinkMessageBuilder::<LinkBridge>::new(&network.bridge).no_linklocal_learn(true).address(mac);
                said("create", &network.bridge, host.add_link(bridge.build()))
            }
            Self::Describe(network, mtu) => {
                let message = LinkUnspec::new_with_name(&network.bridge).mtu(*mtu).alias(network.alias()).build();
                said("set the alias of", &network.bridge, host.set_link(message))
            }
            Self::AddGateway(network) => {
                let (gateway, prefix) = (network.subnet.gateway(), network.subnet.prefix());
                let added = host.add_address(&network.bridge, IpAddr::V4(gateway), prefix);
                said("add address", &on(&gateway, network), added)
            }
            Self::Ipv6(network) => match network.subnet6 {
                None => write_sysctl(&network.bridge, "disable_ipv6", "1"),
                Some(subnet) => {
                    write_sysctl(&network.bridge, "disable_ipv6", "0")?;
                    write_sysctl(&network.bridge, "accept_ra", "0")?;
                    let added = host.add_address(&network.bridge, IpAddr::V6(subnet.gateway()), subnet.prefix());
                    said("add address", &on(&subnet.gateway(), network), added)
                }
            },
            Self::Rules(network) => nft::run(&network.rules()).map_err(|why| {
                Error::new("write the rules of", format!("the network {}", network.name), why)
                    .hint("without nft networks would not be apart")
            }),
            Self::BridgeUp(network) => said("set up", &network.bridge, host.link_up(&network.bridge)),
            Self::DeleteBridge(bridge) => said("delete", bridge, host.delete_link(bridge)),
            Self::DropRules(network) => nft::run(&network.without_rules())
                .map_err(|why| Error::new("remove the rules of", format!("the network {}", network.name), why)),
            Self::Mtu(bridge, mtu) => {
                said("set the MTU of", bridge, host.set_link(LinkUnspec::new_with_name(bridge).mtu(*mtu).build()))
            }
            Self::Forwarding6(on) => std::fs::write(FORWARDING6, if *on { "1\n" } else { "0\n" })
                .map_err(|e| Error::new("write", FORWARDING6, e)),
            Self::DropTable6 => nft::delete("ip6 bocker").map_err(|why| Error::new("delete table", "ip6 bocker", why)),
            Self::WriteFile(network) => write_file(network),
            Self::RemoveFile(name) => {
                let path = directory().join(name);
                std::fs::remove_file(&path).map_err(|e| Error::new("remove", path.display(), e))
            }
        }
    }
}

/// net.ipv6.conf.all.forwarding
pub(crate) const FORWARDING6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// The table of ours for IPv6, as nft prints it.
pub(crate) fn table6() -> Option<String> {
    nft::nft(&["list", "table", "ip6", "bocker"], "")?.ok()
}

/// Those with names that have a bridge.
pub(crate) fn made(kernel: &Kernel) -> Result<Vec<Network>> {
    // Somebody else's bridge is none of theirs.
    Ok(named()?.into_iter().filter(|network| matches!(network.ready(kernel), Ok(Some(_)))).collect())
}

/// An interface's setting of IPv6, as a command. Not sysctl(8): there a dot in the interface's name would part words.
pub(crate) fn sysctl(interface: &str, key: &str, value: &str) -> String {
    format!("echo {value} > {}", setting(interface, key))
}

fn setting(interface: &str, key: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{interface}/{key}")
}

pub(crate) fn write_sysctl(interface: &str, key: &str, value: &str) -> Result<()> {
    let path = setting(interface, key);
    std::fs::write(&path, value).map_err(|e| Error::new("write", path, e))
}

pub(crate) fn read_sysctl(interface: &str, key: &str) -> Option<String> {
    std::fs::read_to_string(setting(interface, key)).ok().map(|text| text.trim().to_owned())
}

/// Whole or not at all; a name that is taken stays as it is.
fn write_file(network: &Network) -> Result<()> {
    let (directory, path) = (directory(), network.file());
    let fail = |e: io::Error| {
        let taken = e.kind() == io::ErrorKind::AlreadyExists;
        let error = Error::new("create", path.display(), e);
        if taken { error.hint(format!("bocker-net network rm {} removes it", network.name)) } else { error }
    };
    std::fs::create_dir_all(&directory).map_err(|e| Error::new("create", directory.display(), e))?;
    // No name of a network begins with a dot. What a crash left there is written over: one at a time makes files.
    let new = directory.join(".new");
    let text: String = network.lines().iter().map(|line| format!("{line}\n")).collect();
    let written = OpenOptions::new().write(true).create(true).truncate(true).open(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::hard_link(&new, &path)
    });
    let _ = std::fs::remove_file(&new);
    written.map_err(fail)
}

/// `network create`
pub(crate) struct Wanted {
    pub(crate) name: Name,
    pub(crate) subnet: Option<Subnet>,
    pub(crate) subnet6: Option<Subnet6>,
    pub(crate) internal: bool,
    pub(crate) mtu: Option<u32>,
}

/// Prints the name.
pub(crate) fn create(wanted: Wanted, explain: Explain) -> Result<()> {
    if !explain.dry_run {
        need_root("network create")?;
    }
    let kernel = Kernel::open()?;
    let name = wanted.name.as_str();
    if RESERVED.contains(&name) || name.len() > LONGEST {
        return Err(Error::plain(format!(
            "network create {name}: not to be had ({} mean something else; {LONGEST} letters at most)",
            RESERVED.join(", ")
        ))
        .status(USAGE));
    }
    if wanted.subnet6.is_some() && wanted.mtu.is_some_and(|mtu| mtu < 1_280) {
        return Err(Error::plain(format!("network create {name}: IPv6 needs an MTU of 1280 at least")).status(USAGE));
    }
    // Two at once must not choose the same subnet.
    let _alone = if explain.dry_run { None } else { Some(alone()?) };
    let others = named()?;
    let bridge = bridge_of(name);
    if let Some(other) = others.iter().find(|other| other.bridge == bridge && other.name != name) {
        return Err(Error::plain(format!("network create {name}: its bridge {bridge} is that of {}", other.name)));
    }
    let around = Around::see(&kernel, &others)?;
    let subnet = match wanted.subnet {
        Some(subnet) => around.free(subnet).map(|()| subnet),
        None => around.choose(),
    };
    let subnet = subnet.map_err(|why| Error::plain(format!("network create {name}: {why}")))?;
    let clash =
        |other: &Network| wanted.subnet6.is_some_and(|own| other.subnet6.is_some_and(|theirs| own.overlaps(theirs)));
    if let Some(other) = others.iter().chain([&default()?]).find(|other| clash(other)) {
        return Err(Error::plain(format!("network create {name}: the IPv6 subnet overlaps that of {}", other.name)));
    }
    let Wanted { subnet6, internal, mtu, .. } = wanted;
    let network = Network { name: name.to_owned(), bridge, subnet, subnet6, internal, mtu };
    say::perform(&[Act::Network(Step::WriteFile(network))], explain, |act| match act {
        Act::Network(step) => step.apply(&kernel),
        _ => Ok(()),
    })?;
    print(name, explain)
}

fn print(line: &str, explain: Explain) -> Result<()> {
    if explain.dry_run {
        return writeln!(io::stdout(), "echo {line}").map_err(|e| Error::stdout(&e));
    }
    writeln!(io::stdout(), "{line}").map_err(|e| Error::stdout(&e))
}

/// One at a time makes files.
fn alone() -> Result<Flock<File>> {
    let directory = directory();
    let fail = |e: io::Error| Error::new("lock", directory.display(), e);
    std::fs::create_dir_all(&directory).map_err(fail)?;
    Flock::lock(File::open(&directory).map_err(fail)?, FlockArg::LockExclusive).map_err(|(_, e)| fail(e.into()))
}

/// What a new subnet must not overlap.
struct Around {
    default: Subnet,
    /// Network or interface, and where.
    taken: Vec<(Ipv4Addr, u8, String)>,
    /// Routes that lead somewhere else.
    routes: Vec<(Ipv4Addr, u8, String)>,
}

impl Around {
    fn see(kernel: &Kernel, others: &[Network]) -> Result<Self> {
        let links = kernel.host.links().map_err(|e| Error::new("list", "links", e))?;
        let addresses = kernel.host.addresses().map_err(|e| Error::new("list", "addresses", e))?;
        let name = |index| links.iter().find(|link| link.index == index).map_or("?".into(), |link| link.name.clone());
        let default = Subnet::from_environment()?;
        let mut taken: Vec<_> = others
            .iter()
            .map(|other| (other.subnet.gateway(), other.subnet.prefix(), format!("the network {}", other.name)))
            .collect();
        taken.push((default.gateway(), default.prefix(), format!("the network {DEFAULT}")));
        taken.extend(addresses.iter().map(|one| (one.address, one.prefix, name(one.index))));
        let routes = route::all().into_iter().filter(|route| route.prefix != 0);
        let routes = routes.map(|route| (route.destination, route.prefix, format!("the route to {}", route.interface)));
        Ok(Self { default, taken, routes: routes.collect() })
    }

    /// One that a person chose may be part of what a wide route covers.
    fn free(&self, subnet: Subnet) -> Result<(), String> {
        let narrow = self.routes.iter().filter(|(_, prefix, _)| *prefix >= subnet.prefix());
        match self.taken.iter().chain(narrow).find(|(address, prefix, _)| subnet.overlaps(*address, *prefix)) {
            Some((address, prefix, who)) => Err(format!("{subnet} overlaps {address}/{prefix} of {who}")),
            None => Ok(()),
        }
    }

    /// As wide as the default network, so that every id has an address.
    fn choose(&self) -> Result<Subnet, String> {
        let prefix = self.default.prefix().min(24);
        let (first, bits) = (u32::from(POOL.0), POOL.1);
        let all =
            (0..1_u32 << (prefix - bits)).map(|n| Subnet::around(Ipv4Addr::from(first + (n << (32 - prefix))), prefix));
        let overlaps = |subnet: &Subnet| {
            self.taken.iter().chain(&self.routes).any(|(address, prefix, _)| subnet.overlaps(*address, *prefix))
        };
        let mut free = all.filter(|subnet| !overlaps(subnet));
        free.next().ok_or_else(|| format!("no subnet is free in {}/{bits} (--subnet chooses another)", POOL.0))
    }
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    bridge: &'a str,
    subnet: String,
    subnet6: Option<String>,
    internal: bool,
    mtu: Option<u32>,
    /// Only where one is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    containers: Option<Vec<Member>>,
}

#[derive(Serialize)]
struct Member {
    id: String,
    address: String,
    address6: Option<String>,
    mac: String,
    names: Vec<String>,
}

fn entry(network: &Network, containers: Option<Vec<Member>>) -> Entry<'_> {
    Entry {
        name: &network.name,
        bridge: &network.bridge,
        subnet: network.subnet.to_string(),
        subnet6: network.subnet6.map(|subnet| subnet.to_string()),
        internal: network.internal,
        mtu: network.mtu,
        containers,
    }
}

fn or_dash(word: Option<impl fmt::Display>) -> String {
    word.map_or_else(|| "-".to_owned(), |word| word.to_string())
}

fn json(entry: &Entry) -> Result<String> {
    serde_json::to_string(entry).map_err(|e| Error::new("write", "JSON", e.to_string()))
}

/// `network ls`: NAME SUBNET SUBNET6 BRIDGE, and `internal` or `-`.
pub(crate) fn list(as_json: bool, quiet: bool) -> Result<()> {
    let mut text = String::new();
    for network in [default()?].iter().chain(&named()?) {
        let internal = if network.internal { "internal" } else { "-" };
        text += &match (quiet, as_json) {
            (true, _) => network.name.clone(),
            (_, true) => json(&entry(network, None))?,
            _ => {
                let subnet6 = or_dash(network.subnet6);
                format!("{}\t{}\t{subnet6}\t{}\t{internal}", network.name, network.subnet, network.bridge)
            }
        };
        text.push('\n');
    }
    io::stdout().write_all(text.as_bytes()).map_err(|e| Error::stdout(&e))
}

/// `network inspect`: the file's lines with the network's name before them, and who is on it.
pub(crate) fn inspect(all: &[words::Network], as_json: bool) -> Result<()> {
    need_root("network inspect")?;
    for word in all {
        let network = find(word)?;
        let members = members(&network)?;
        let text = if as_json {
            json(&entry(&network, Some(members)))? + "\n"
        } else {
            let mut lines = vec![format!("name={}", network.name), format!("bridge={}", network.bridge)];
            lines.extend(network.lines());
            lines.extend(members.iter().map(|one| {
                let names = one.names.join(" ");
                let address6 = or_dash(one.address6.as_ref());
                format!("container\t{}\t{}\t{address6}\t{}\t{names}", one.id, one.address, one.mac)
            }));
            lines.join("\n") + "\n"
        };
        io::stdout().write_all(text.as_bytes()).map_err(|e| Error::stdout(&e))?;
    }
    Ok(())
}

/// Who is on it: by record, or on the default network by name in /run/netns and a cable to the bridge.
fn members(network: &Network) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    let live = state::live()?;
    for (id, on) in &live {
        members.extend(on.iter().filter(|one| one.network == network.name).map(|one| Member {
            id: id.to_string(),
            address: one.address.to_string(),
            address6: one.address6.map(|address| address.to_string()),
            mac: one.mac.to_string(),
            names: one.names.clone(),
        }));
    }
    if network.name == DEFAULT {
        let kernel = Kernel::open()?;
        for port in ports(&kernel, &network.bridge)? {
            let id: Option<Id> = port.strip_prefix("veth0_").and_then(|id| id.parse().ok());
            let Some(id) = id.filter(|id| !live.iter().any(|(other, _)| other == id)) else { continue };
            let address = network.subnet.address(id)?;
            members.push(Member {
                id: id.to_string(),
                address: address.to_string(),
                address6: network.subnet6.map(|subnet| subnet.address(id).to_string()),
                mac: Mac::from(address).to_string(),
                names: Vec::new(),
            });
        }
    }
    members.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(members)
}

fn ports(kernel: &Kernel, bridge: &str) -> Result<Vec<String>> {
    let links = kernel.host.links().map_err(|e| Error::new("list", "links", e))?;
    let index = links.iter().find(|link| link.name == bridge).map(|link| link.index);
    let is_port = |link: &&Link| link.controller.is_some() && link.controller == index;
    Ok(links.iter().filter(is_port).map(|link| link.name.clone()).collect())
}

/// Who keeps it from being removed.
fn users(kernel: &Kernel, network: &Network) -> Result<Vec<String>> {
    let mut users: Vec<String> = members(network)?.into_iter().map(|one| one.id).collect();
    for port in ports(kernel, &network.bridge)? {
        let id = port.split_once('_').map_or("", |(_, id)| id).to_owned();
        if !users.contains(&id) {
            users.push(if id.starts_with("ps_") { id } else { port });
        }
    }
    Ok(users)
}

/// `network rm`: prints the names of those that went.
pub(crate) fn remove(names: &[Name], explain: Explain) -> Result<()> {
    let mut failures = Vec::new();
    for name in names {
        let done = match RESERVED.contains(&name.as_str()) {
            true => Err(Error::plain(format!("network rm {name}: it is always there")).hint("bocker-net setup --undo")),
            false => read(name.as_str()).and_then(|network| remove_one(&network, explain)),
        };
        failures.extend(done.err().filter(|e| !e.is_explained_elsewhere()).map(|e| e.to_string()));
    }
    if failures.is_empty() { Ok(()) } else { Err(Error::plain(failures.join("; "))) }
}

/// `network prune`: all that nobody is on.
pub(crate) fn prune(explain: Explain) -> Result<()> {
    let kernel = Kernel::open()?;
    for network in named()? {
        if users(&kernel, &network)?.is_empty() {
            remove_one(&network, explain)?;
        }
    }
    Ok(())
}

fn has(said: &Result<String, String>, bridge: &str) -> bool {
    said.as_ref().is_ok_and(|text| text.contains(&format!("\"{bridge}\"")))
}

fn remove_one(network: &Network, explain: Explain) -> Result<()> {
    if !explain.dry_run {
        need_root("network rm")?;
    }
    let kernel = Kernel::open()?;
    let _alone = bridge::lock(FlockArg::LockExclusive, explain)?;
    let users = users(&kernel, network)?;
    if !users.is_empty() {
        let users = users.join(", ");
        return Err(Error::plain(format!("network rm {}: in use by {users}", network.name))
            .hint("stop them, or bocker-net disconnect ID NETWORK"));
    }
    let link = kernel.host.link(&network.bridge).map_err(|e| Error::new("look at", &network.bridge, e))?;
    // One that somebody else made under this name stays.
    let made = matches!(network.look(link.as_ref()), Ok(Made::Whole(_) | Made::Partly));
    let mut plan = Vec::new();
    // Somebody may have deleted the bridge alone.
    if made || nft::nft(&["list", "table", "ip", "bocker"], "").is_some_and(|said| has(&said, &network.bridge)) {
        plan.push(Step::DropRules(network.clone()));
    }
    plan.extend(made.then(|| Step::DeleteBridge(network.bridge.clone())));
    // Last: after a crash there is still something to be removed.
    plan.push(Step::RemoveFile(network.name.clone()));
    let plan: Vec<Act> = plan.into_iter().map(Act::Network).collect();
    say::perform(&plan, explain, |act| match act {
        Act::Network(step) => step.apply(&kernel),
        _ => Ok(()),
    })?;
    print(&network.name, explain)
}

/// The rules of IPv6 that somebody took away, of networks that have a bridge.
pub(crate) fn plan_repair(made: &[Network]) -> Vec<Act> {
    let with_six = made.iter().filter(|network| network.subnet6.is_some());
    if with_six.clone().next().is_none() {
        return Vec::new();
    }
    let six = table6().unwrap_or_default();
    let gone = with_six.filter(|network| !six.contains(&format!("chain forward_{} {{", network.bridge)));
    gone.map(|network| Act::Network(Step::Rules(network.clone()))).collect()
}

/// What `setup --undo` takes back of the named networks: bridges and rules, not the files.
///
/// # Errors
/// Somebody is on one.
pub(crate) fn plan_undo(seen: &bridge::Seen) -> Result<Vec<Act>> {
    let ours = |link: &&Link| link.alias.as_deref().is_some_and(|alias| alias.starts_with("bocker network "));
    let mut plan = Vec::new();
    for link in seen.links.iter().filter(ours).filter(|link| link.name.starts_with(PREFIX)) {
        if let Some(port) = seen.links.iter().find(|port| port.controller == Some(link.index)) {
            return Err(Error::plain(format!("undo setup: {} is in use by {}", link.name, port.name))
                .hint("stop the containers, or bocker-net down ID"));
        }
        plan.push(Act::Network(Step::DeleteBridge(link.name.clone())));
    }
    Ok(plan)
}

/// An address that was asked for.
pub(crate) fn within(network: &Network, address: Ipv4Addr) -> Result<Ipv4Addr> {
    match network.subnet.is_for_a_host(address) {
        true => Ok(address),
        false => Err(Error::plain(format!("{address} is not for a container on the network {}", network.name))
            .hint(format!("its subnet is {}, and the first address is the gateway's", network.subnet))),
    }
}

/// The same of IPv6.
pub(crate) fn within6(network: &Network, address: Ipv6Addr) -> Result<Ipv6Addr> {
    let subnet = network.subnet6.ok_or_else(|| {
        let error = Error::plain(format!("{address}: the network {} has no IPv6", network.name));
        error.hint(if network.name == DEFAULT { "BOCKER_SUBNET6" } else { "network create --subnet6" })
    })?;
    match subnet.is_for_a_host(address) {
        true => Ok(address),
        false => Err(Error::plain(format!("{address} is not for a container on the network {}", network.name))
            .hint(format!("its subnet is {subnet}"))),
    }
}

/// Whether the path is a file of the directory of networks, for `doctor`.
pub(crate) fn exists(name: &str) -> bool {
    Path::new(&directory()).join(name).symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        parse("back", text).unwrap()
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        for text in ["subnet=10.64.0.0/24", "subnet=10.64.0.0/16\nsubnet6=fd00:1::/64\ninternal=yes\nmtu=1400"] {
            assert_eq!(network(text).lines().join("\n"), text);
        }
        assert!(network("# of the office\nsubnet=10.64.0.0/24\n\ninternal=no\n").mtu.is_none());
        for bad in ["", "subnet=10.64.0.1/24", "subnet=10.64.0.0/24\nmtu=1", "subnet=10.64.0.0/24\nfly=1", "subnet"] {
            assert!(parse("back", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bridges_have_names_that_fit_and_differ() {
        assert_eq!(bridge_of("back"), "bkr_back");
        let long = ["a-long-name-of-a-network", "a-long-name-of-a-networl", &"x".repeat(64)];
        for name in long {
            assert_eq!(bridge_of(name).len(), 15, "{name}");
            assert!(bridge_of(name).starts_with("bkr."));
        }
        assert_ne!(bridge_of(long[0]), bridge_of(long[1]));
        assert_eq!(bridge_of("elevenbytes").len(), 15);
    }

    #[test]
    fn the_bridge_alone_says_what_it_is() {
        let back = network("subnet=10.64.0.0/24\nmtu=1400");
        let alias = Some(back.alias());
        assert_eq!(back.alias(), "bocker network back subnet=10.64.0.0/24 mtu=1400");
        let link = Link { kind: Some(InfoKind::Bridge), alias, up: true, mtu: 1400, ..Link::default() };
        assert!(matches!(back.look(Some(&link)), Ok(Made::Whole(1400))));
        assert!(matches!(back.look(None), Ok(Made::Not)));
        assert!(matches!(network("subnet=10.65.0.0/24").look(Some(&link)), Ok(Made::Partly)));
        for alias in [None, Some("my lab".to_owned()), Some("bocker network backup subnet=10.0.0.0/24".to_owned())] {
            assert!(back.look(Some(&Link { alias, ..link.clone() })).is_err());
        }
        // bridge0's record is none of a network's, and the other way round.
        assert!(back.alias().parse::<bridge::Record>().is_err());
    }

    #[test]
    fn free_subnets_are_as_wide_as_the_default_network() {
        let around = |default: &str, taken: &[(&str, u8)]| Around {
            default: default.parse().unwrap(),
            taken: taken.iter().map(|(address, prefix)| (address.parse().unwrap(), *prefix, "x".into())).collect(),
            routes: vec![("10.64.2.0".parse().unwrap(), 23, "the route to eth1".into())],
        };
        let chosen = |default, taken| around(default, taken).choose().map(|subnet| subnet.to_string());
        assert_eq!(chosen("10.0.0.0/24", &[]).unwrap(), "10.64.0.0/24");
        assert_eq!(chosen("10.0.0.0/24", &[("10.64.0.1", 23)]).unwrap(), "10.64.4.0/24");
        assert_eq!(chosen("10.0.0.0/16", &[]).unwrap(), "10.65.0.0/16");
        assert_eq!(chosen("10.0.0.8/29", &[]).unwrap(), "10.64.0.0/24");
        assert!(chosen("10.0.0.0/24", &[("10.0.0.1", 8)]).unwrap_err().contains("no subnet is free"));
        let around = around("10.0.0.0/24", &[("10.64.0.1", 24)]);
        assert!(around.free("10.64.0.0/16".parse().unwrap()).unwrap_err().contains("10.64.0.1/24 of x"));
        assert!(around.free("10.64.2.0/24".parse().unwrap()).is_ok());
        assert!(around.free("10.64.2.0/23".parse().unwrap()).unwrap_err().contains("the route to eth1"));
    }

    #[test]
    fn rules_are_for_what_the_network_has() {
        let open = network("subnet=10.64.0.0/24").rules();
        assert!(open.contains("subnets { 10.64.0.0/24 }") && !open.contains("internal { \"bkr_back\" }"));
        assert!(!open.contains("ip6"));
        let both = network("subnet=10.64.0.0/24\nsubnet6=fd00:1::/64").rules();
        assert!(both.contains("ip6 saddr fd00:1::/64") && both.contains("add chain ip6 bocker forward_bkr_back"));
        let internal = network("subnet=10.64.0.0/24\nsubnet6=fd00:1::/64\ninternal=yes").rules();
        assert!(
            internal.contains("internal { \"bkr_back\" }") && !internal.contains("10.64") && !internal.contains("fd00")
        );
    }
}
