//! The host's part: bridge0, its address, forwarding and NAT.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::str::FromStr;

use bocker_common::say::Explain;
use bocker_common::{Error, Result};
use nix::fcntl::{Flock, FlockArg};
use rtnetlink::packet_route::link::InfoKind;

use crate::act::Act;
use crate::cable::MTU;
use crate::kernel::Kernel;
use crate::namespace::{self, Directory};
use crate::netlink::{Address, Link};
use crate::network::{self, Step};
use crate::nft::{self, State, Table};
use crate::subnet::{Mac, Subnet, Subnet6};
use crate::{guard, route};

/// The script's name for it.
pub(crate) const BRIDGE: &str = "bridge0";
pub(crate) const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// What bridge0's alias says: `bocker 10.0.0.1/24; ip_forward was 0`, with IPv6 `bocker 10.0.0.1/24 fd00::1/64; ip_forward was 0;
/// ip6_forward was 0`, and `; no NAT`, `; no guard` where setup could not have them. It makes the bridge ours, and lasts as long as
/// the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// The address that the bridge got from us.
    pub(crate) gateway: String,
    pub(crate) gateway6: Option<String>,
    /// What setup --undo restores.
    pub(crate) forwarding_was: bool,
    /// The same of IPv6, where a network of ours has it.
    pub(crate) forwarding6_was: Option<bool>,
    /// Tables that this host cannot have.
    pub(crate) lacks: Vec<Table>,
}

impl Record {
    /// The network that the bridge was made for.
    pub(crate) fn network(&self) -> Option<network::Network> {
        let subnet6 = self.gateway6.as_deref().and_then(Subnet6::of_gateway);
        Some(network::default_with(Subnet::of_gateway(&self.gateway)?, subnet6))
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bocker {}", self.gateway)?;
        if let Some(gateway6) = &self.gateway6 {
            write!(f, " {gateway6}")?;
        }
        write!(f, "; ip_forward was {}", u8::from(self.forwarding_was))?;
        if let Some(was) = self.forwarding6_was {
            write!(f, "; ip6_forward was {}", u8::from(was))?;
        }
        self.lacks.iter().try_for_each(|table| write!(f, "; no {}", table.what()))
    }
}

impl FromStr for Record {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let rest = text.strip_prefix("bocker ").ok_or(())?;
        let mut parts = rest.split("; ");
        let gateways = parts.next().ok_or(())?;
        let (gateway, gateway6) = gateways.split_once(' ').map_or((gateways, None), |(one, six)| (one, Some(six)));
        let was = parts.next().and_then(|part| part.strip_prefix("ip_forward was ")).ok_or(())?;
        let mut record = Self {
            gateway: gateway.to_owned(),
            gateway6: gateway6.map(str::to_owned),
            forwarding_was: was == "1",
            forwarding6_was: None,
            lacks: Vec::new(),
        };
        for part in parts {
            if let Some(was) = part.strip_prefix("ip6_forward was ") {
                record.forwarding6_was = Some(was == "1");
            }
            record.lacks.extend(Table::ALL.into_iter().filter(|table| part == format!("no {}", table.what())));
        }
        Ok(record)
    }
}

fn record_of(bridge: &Link) -> Option<Record> {
    bridge.alias.as_deref()?.parse().ok()
}

/// The state that a plan starts from.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) forwarding: bool,
    /// In the order of [`Table::ALL`].
    pub(crate) tables: [State; 2],
    /// Networks with names, and what belongs to containers.
    pub(crate) world: nft::World,
    pub(crate) names: Directory,
    /// The way out's, in bytes.
    pub(crate) mtu: u32,
    /// None: the kernel has no IPv6.
    pub(crate) ipv6: Option<Ipv6>,
}

/// What there is of IPv6.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ipv6 {
    /// What bridge0 is to have.
    wanted: Option<Subnet6>,
    forwarding: bool,
    /// bridge0 has none of it.
    off: bool,
    /// bridge0 has the wanted subnet's first address, and the rules are there.
    gateway: bool,
    rules: bool,
    /// There is a table of ours.
    table: bool,
    /// The interface that learned the way out from a router's advertisements, to which the kernel no longer listens once
    /// it forwards.
    advertised: Option<String>,
}

impl Seen {
    fn bridge(&self) -> Option<&Link> {
        self.links.iter().find(|link| link.name == BRIDGE)
    }

    /// Who is attached to the bridge.
    fn ports(&self, bridge: &Link) -> impl Iterator<Item = &str> {
        let index = bridge.index;
        self.links.iter().filter(move |link| link.controller == Some(index)).map(|link| link.name.as_str())
    }

    fn name(&self, index: u32) -> &str {
        self.links.iter().find(|link| link.index == index).map_or("?", |link| &link.name)
    }
}

/// Reads all of it.
///
/// # Errors
/// The kernel does not answer.
pub(crate) fn see(kernel: &Kernel, subnet: Option<Subnet>) -> Result<Seen> {
    let links = kernel.host.links().map_err(|e| Error::new("list", "links", e))?;
    let addresses = kernel.host.addresses().map_err(|e| Error::new("list", "addresses", e))?;
    let forwarding = std::fs::read_to_string(FORWARDING).map_err(|e| Error::new("read", FORWARDING, e))?;
    let routes = route::all();
    let uplink = route::uplink(&routes).and_then(|name| links.iter().find(|link| link.name == name));
    Ok(Seen {
        forwarding: forwarding.trim() != "0",
        tables: Table::ALL.map(Table::state),
        world: guard::world(kernel)?,
        names: namespace::directory(),
        mtu: uplink.map_or(MTU, |link| link.mtu),
        ipv6: if namespace::has_ipv6() { Some(see_ipv6(subnet.is_none())?) } else { None },
        links,
        addresses,
    })
}

/// `all`: also what nobody asks for now.
fn see_ipv6(all: bool) -> Result<Ipv6> {
    let wanted = Subnet6::from_environment()?;
    let table = if all || wanted.is_some() { network::table6() } else { None };
    // proc_net(5): 32 digits, then index, prefix, scope, flags and the interface.
    let addresses = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let gateway = wanted.map(|subnet| format!("{:032x}", u128::from(subnet.gateway())));
    let is_gateway =
        |line: &str| line.split_whitespace().last() == Some(BRIDGE) && line.split(' ').next() == gateway.as_deref();
    Ok(Ipv6 {
        wanted,
        forwarding: network::read_sysctl("all", "forwarding").as_deref() == Some("1"),
        off: network::read_sysctl(BRIDGE, "disable_ipv6").as_deref() == Some("1"),
        gateway: addresses.lines().any(is_gateway),
        rules: table.as_ref().is_some_and(|text| wanted.is_some_and(|subnet| text.contains(&subnet.to_string()))),
        table: table.is_some(),
        advertised: advertised(&std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default())
            .filter(|name| network::read_sysctl(name, "accept_ra").as_deref() == Some("1")),
    })
}

/// The interface of a default route that a router advertised: RTF_ADDRCONF of linux/ipv6_route.h.
fn advertised(routes: &str) -> Option<String> {
    let found = routes.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "00", _, _, _, _, _, _, flags, name] = words[..] else { return None };
        (u32::from_str_radix(flags, 16).ok()? & 0x0004_0000 != 0).then_some(name)
    });
    found.map(str::to_owned)
}

/// Held alone while the bridge is made or unmade, so that two at once make one; shared while a container is attached, so
/// that it does not go meanwhile.
///
/// The file is root's alone, as xtables' is: what others may open, as the namespace's own file, they can lock for ever, even out of
/// a container on the host's network.
pub(crate) fn lock(how: FlockArg, explain: Explain) -> Result<Option<Flock<File>>> {
    if explain.dry_run {
        return Ok(None);
    }
    loop {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(LOCK);
        let file = file.map_err(|e| Error::new("open", LOCK, e))?;
        let lock = Flock::lock(file, how).map_err(|(_, e)| Error::new("lock", LOCK, e))?;
        let place = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        // While we waited, undo may have removed it: then the name is another's, or nobody's.
        let ours = lock.metadata().map_err(|e| Error::new("look at", LOCK, e))?;
        if std::fs::symlink_metadata(LOCK).is_ok_and(|named| place(named) == place(ours)) {
            return Ok(Some(lock));
        }
    }
}

/// By who is alone: nothing of ours is left that it would be for.
pub(crate) fn remove_lock() {
    let _ = std::fs::remove_file(LOCK);
}

const LOCK: &str = "/run/bocker-net.lock";

/// Whether a container can be attached, and then bridge0's MTU: it is ours and complete, or is somebody's who gave it our
/// gateway's address.
///
/// # Errors
/// There is a bridge0 that will not do.
pub(crate) fn ready(kernel: &Kernel, subnet: Subnet) -> Result<Option<u32>> {
    let failed = |e| Error::new("look at", BRIDGE, e);
    let Some(bridge) = kernel.host.link(BRIDGE).map_err(failed)? else { return Ok(None) };
    let is_ready = match own(&bridge, subnet)? {
        // Up is the last step of setup.
        Some(record) => bridge.up && has_ipv6(&record)?,
        None => {
            let addresses = kernel.host.addresses().map_err(failed)?;
            match bridge.up && has_gateway(&bridge, &addresses, subnet) {
                true => true,
                false if is_unfinished(&bridge, &addresses) => false,
                false => return Err(not_ours(subnet)),
            }
        }
    };
    Ok(is_ready.then_some(bridge.mtu))
}

/// Whether it has what `BOCKER_SUBNET6` asks for.
fn has_ipv6(record: &Record) -> Result<bool> {
    match (Subnet6::from_environment()?, &record.gateway6) {
        (None, _) => Ok(true),
        (Some(_), None) => Ok(false),
        (Some(subnet), Some(gateway)) if *gateway == subnet.gateway_with_prefix() => Ok(true),
        (Some(subnet), Some(gateway)) => {
            Err(Error::plain(format!("{BRIDGE} was made with {gateway}, not for {subnet}"))
                .hint("bocker-net setup --undo first, or set BOCKER_SUBNET6"))
        }
    }
}

/// The record of the bridge that is there, if it is ours and complete.
///
/// # Errors
/// The kernel does not answer.
pub(crate) fn record(kernel: &Kernel) -> Result<Option<Record>> {
    let bridge = kernel.host.link(BRIDGE).map_err(|e| Error::new("look at", BRIDGE, e))?;
    Ok(bridge.filter(|bridge| bridge.up).and_then(|bridge| record_of(&bridge)))
}

/// The record of a bridge that we made for this subnet; `None` for somebody else's bridge.
fn own(bridge: &Link, subnet: Subnet) -> Result<Option<Record>> {
    if bridge.kind != Some(InfoKind::Bridge) {
        return Err(Error::plain(format!("{BRIDGE} is not a bridge (rename it: ip link set {BRIDGE} name …)")));
    }
    match record_of(bridge) {
        Some(record) if record.gateway != subnet.gateway_with_prefix() => Err(Error::plain(format!(
            "{BRIDGE} was made with {}, not for {subnet} (bocker-net setup --undo first, or set BOCKER_SUBNET)",
            record.gateway
        ))),
        other => Ok(other),
    }
}

/// Whether it is what a crash left between making the bridge and writing its alias: of no use to anybody, and with an
/// address as we give it.
fn is_unfinished(bridge: &Link, addresses: &[Address]) -> bool {
    bridge.kind == Some(InfoKind::Bridge)
        && bridge.alias.is_none()
        && !bridge.up
        && bridge.mac.starts_with(&Mac::PREFIX)
        && addresses.iter().all(|address| address.index != bridge.index)
}

fn not_ours(subnet: Subnet) -> Error {
    Error::plain(format!(
        "{BRIDGE} is not bocker's (ip link delete {BRIDGE}; or to use it as it is: ip address add {} dev {BRIDGE} and ip link set {BRIDGE} up)",
        subnet.gateway_with_prefix()
    ))
}

fn has_gateway(bridge: &Link, addresses: &[Address], subnet: Subnet) -> bool {
    addresses.iter().any(|a| (a.index, a.address, a.prefix) == (bridge.index, subnet.gateway(), subnet.prefix()))
}

/// What is missing; nothing where all is there.
///
/// # Errors
/// bridge0 or the subnet belongs to somebody else.
pub(crate) fn plan_setup(seen: &Seen, subnet: Subnet) -> Result<Vec<Act>> {
    let mut plan = Vec::new();
    let bridge = seen.bridge();
    let record = match bridge {
        None => None,
        Some(bridge) => match own(bridge, subnet)? {
            None if is_unfinished(bridge, &seen.addresses) && seen.ports(bridge).next().is_none() => None,
            None => return Err(not_ours(subnet)),
            record => record,
        },
    };
    let index = bridge.map(|bridge| bridge.index);
    let taken = seen.addresses.iter().find(|a| Some(a.index) != index && subnet.overlaps(a.address, a.prefix));
    if let Some(other) = taken {
        return Err(Error::plain(format!(
            "set up {BRIDGE}: {subnet} overlaps {}/{} of {} (BOCKER_SUBNET=… chooses another)",
            other.address,
            other.prefix,
            seen.name(other.index)
        )));
    }
    if record.is_none() {
        // Made for another subnet, perhaps.
        plan.extend(bridge.map(|_| Act::DeleteBridge));
        plan.push(Act::AddBridge(Mac::from(subnet.gateway())));
    }
    // The record is written before forwarding is changed: after a crash --undo still knows.
    // Forwarding that somebody switched off since counts as the new "was".
    let wanted = seen.ipv6.as_ref().and_then(|ipv6| Some((ipv6, ipv6.wanted?)));
    if let Some(record) = record.as_ref() {
        has_ipv6_or_none(record, wanted.map(|(_, subnet)| subnet))?;
    }
    let was = |was: Option<bool>, now: bool| was.unwrap_or(true) && now;
    let before6 = record.as_ref().and_then(|record| record.forwarding6_was);
    let new = Record {
        gateway: subnet.gateway_with_prefix(),
        gateway6: wanted
            .map(|(_, subnet)| subnet.gateway_with_prefix())
            .or_else(|| record.as_ref().and_then(|record| record.gateway6.clone())),
        forwarding_was: was(record.as_ref().map(|record| record.forwarding_was), seen.forwarding),
        forwarding6_was: wanted.map_or(before6, |(ipv6, _)| Some(was(before6, ipv6.forwarding))),
        lacks: record.as_ref().map(|record| record.lacks.clone()).unwrap_or_default(),
    };
    let has6 = new.gateway6.is_some();
    if record.as_ref() != Some(&new) {
        plan.push(Act::Record(new));
    }
    if bridge.filter(|_| record.is_some()).map_or(MTU, |bridge| bridge.mtu) != seen.mtu {
        plan.push(Act::Network(Step::Mtu(BRIDGE.into(), seen.mtu)));
    }
    if !bridge.is_some_and(|bridge| has_gateway(bridge, &seen.addresses, subnet)) {
        plan.push(Act::AddGateway(subnet));
    }
    if let Some(ipv6) = &seen.ipv6 {
        plan.extend(plan_ipv6(ipv6, subnet, record.is_none(), has6)?);
    }
    if !seen.forwarding {
        plan.push(Act::Forwarding(true));
    }
    let six = wanted.map(|(_, subnet)| subnet);
    for (table, state) in Table::ALL.into_iter().zip(seen.tables) {
        if state != State::Whole {
            plan.push(Act::Rules(table, seen.world.with(network::default_with(subnet, six))));
        }
    }
    if seen.names == Directory::Plain {
        plan.push(Act::AddNames);
    }
    if !bridge.is_some_and(|bridge| bridge.up) {
        plan.push(Act::BridgeUp);
    }
    Ok(plan)
}

/// The part of IPv6: none of it on a bridge that has no subnet of it. `new`: the bridge is being made; `has`: it has one already.
fn plan_ipv6(ipv6: &Ipv6, subnet: Subnet, new: bool, has: bool) -> Result<Vec<Act>> {
    let network = network::default_with(subnet, ipv6.wanted);
    let mut plan = Vec::new();
    if ipv6.wanted.is_none() {
        if !has && (new || !ipv6.off) {
            plan.push(Act::Network(Step::Ipv6(network)));
        }
        return Ok(plan);
    }
    if new || !ipv6.gateway {
        plan.push(Act::Network(Step::Ipv6(network.clone())));
    }
    if !ipv6.forwarding {
        plan.push(forwarding6(ipv6)?);
    }
    if !ipv6.rules {
        plan.push(Act::Network(Step::Rules(network)));
    }
    Ok(plan)
}

fn forwarding6(ipv6: &Ipv6) -> Result<Act> {
    match &ipv6.advertised {
        None => Ok(Act::Network(Step::Forwarding6(true))),
        Some(name) => Err(Error::plain(format!(
            "forward IPv6: {name} has its way out from a router's advertisements, to which the kernel does not listen then"
        ))
        .hint(format!("sysctl -w net.ipv6.conf.{name}.accept_ra=2 first"))),
    }
}

fn has_ipv6_or_none(record: &Record, wanted: Option<Subnet6>) -> Result<()> {
    if wanted.is_none() || record.gateway6.is_none() { Ok(()) } else { has_ipv6(record).map(drop) }
}

/// What a named network with IPv6 needs of the host. bridge0's alias is where it is written what was before.
pub(crate) fn plan_forwarding6(seen: &Seen) -> Result<Vec<Act>> {
    let Some(ipv6) = seen.ipv6.as_ref().filter(|ipv6| !ipv6.forwarding) else { return Ok(Vec::new()) };
    let record = match seen.bridge() {
        // A dry run: it would have been made before this.
        None => Record {
            gateway: Subnet::from_environment()?.gateway_with_prefix(),
            gateway6: None,
            forwarding_was: seen.forwarding,
            forwarding6_was: None,
            lacks: Vec::new(),
        },
        Some(bridge) => record_of(bridge).ok_or_else(|| {
            Error::plain(format!("forward IPv6: {BRIDGE} is not bocker's, so nothing can be written down"))
                .hint("sysctl -w net.ipv6.conf.all.forwarding=1 first")
        })?,
    };
    Ok(vec![Act::Record(Record { forwarding6_was: Some(false), ..record }), forwarding6(ipv6)?])
}

/// What takes back what setup made; nothing where nothing is there. Somebody else's bridge0 stays.
///
/// # Errors
/// Links are attached to the bridge.
pub(crate) fn plan_undo(seen: &Seen) -> Result<Vec<Act>> {
    let mut plan = network::plan_undo(seen)?;
    let there = Table::ALL.into_iter().zip(seen.tables).filter(|(_, state)| *state != State::Absent);
    plan.extend(there.map(|(table, _)| Act::DeleteTable(table)));
    if seen.ipv6.as_ref().is_some_and(|ipv6| ipv6.table) {
        plan.push(Act::Network(Step::DropTable6));
    }
    let Some(bridge) = seen.bridge() else { return Ok(plan) };
    let ports: Vec<&str> = seen.ports(bridge).collect();
    if is_unfinished(bridge, &seen.addresses) && ports.is_empty() {
        plan.push(Act::DeleteBridge);
    }
    if let Some(record) = record_of(bridge) {
        if !ports.is_empty() {
            return Err(Error::plain(format!(
                "undo setup: {BRIDGE} is in use by {} (stop the containers, or bocker-net down ID)",
                ports.join(", ")
            )));
        }
        if !record.forwarding_was && seen.forwarding {
            plan.push(Act::Forwarding(false));
        }
        if record.forwarding6_was == Some(false) && seen.ipv6.as_ref().is_some_and(|ipv6| ipv6.forwarding) {
            plan.push(Act::Network(Step::Forwarding6(false)));
        }
        if seen.names == Directory::Empty {
            plan.push(Act::DeleteNames);
        }
        // Last: its alias is the record.
        plan.push(Act::DeleteBridge);
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet() -> Subnet {
        Subnet::default()
    }

    fn link(index: u32, name: &str) -> Link {
        Link { index, name: name.into(), mtu: MTU, ..Link::default() }
    }

    fn bridge(alias: &str) -> Link {
        Link { kind: Some(InfoKind::Bridge), alias: Some(alias.into()), up: true, ..link(2, BRIDGE) }
    }

    fn bare() -> Seen {
        Seen {
            links: vec![link(1, "lo")],
            addresses: Vec::new(),
            forwarding: false,
            tables: [State::Absent; 2],
            world: nft::World::default(),
            names: Directory::Plain,
            mtu: MTU,
            ipv6: None,
        }
    }

    const RECORD: &str = "bocker 10.0.0.1/24; ip_forward was 0";

    fn whole() -> Seen {
        Seen {
            links: vec![link(1, "lo"), bridge(RECORD)],
            addresses: vec![Address { index: 2, address: [10, 0, 0, 1].into(), prefix: 24 }],
            forwarding: true,
            tables: [State::Whole; 2],
            world: nft::World::default(),
            names: Directory::Empty,
            mtu: MTU,
            ipv6: None,
        }
    }

    #[test]
    fn a_record_survives_the_alias() {
        assert_eq!(RECORD.parse::<Record>().unwrap().to_string(), RECORD);
        let lacking: Record = format!("{RECORD}; no NAT; no guard").parse().unwrap();
        assert_eq!(lacking.lacks, Table::ALL);
        assert_eq!(lacking.to_string(), format!("{RECORD}; no NAT; no guard"));
        assert_eq!(lacking.network(), Some(network::default_with(subnet(), None)));
        assert!("".parse::<Record>().is_err());
        assert!("bockers own".parse::<Record>().is_err());
        let both = "bocker 10.0.0.1/24 fd00::1/64; ip_forward was 1; ip6_forward was 0";
        let record: Record = both.parse().unwrap();
        assert_eq!(record.to_string(), both);
        assert_eq!((record.gateway6.as_deref(), record.forwarding6_was), (Some("fd00::1/64"), Some(false)));
    }

    #[test]
    fn the_bridge_has_the_mtu_of_the_way_out() {
        let mut seen = Seen { mtu: 1400, ..whole() };
        assert_eq!(plan_setup(&seen, subnet()).unwrap(), [Act::Network(Step::Mtu(BRIDGE.into(), 1400))]);
        seen.links[1].mtu = 1400;
        assert_eq!(plan_setup(&seen, subnet()).unwrap(), []);
    }

    #[test]
    fn without_a_subnet_of_it_there_is_no_ipv6() {
        let with = |ipv6| Seen { ipv6: Some(ipv6), ..whole() };
        let network = |subnet6| network::default_with(subnet(), subnet6);
        let plan = |seen: &Seen| plan_setup(seen, subnet());
        assert_eq!(plan(&with(Ipv6 { off: true, ..Ipv6::default() })).unwrap(), []);
        assert_eq!(plan(&with(Ipv6::default())).unwrap(), [Act::Network(Step::Ipv6(network(None)))]);
        let wanted: Option<Subnet6> = "fd00::/64".parse().ok();
        let new = plan(&with(Ipv6 { wanted, off: true, ..Ipv6::default() })).unwrap();
        assert_eq!(
            new,
            [
                Act::Record("bocker 10.0.0.1/24 fd00::1/64; ip_forward was 0; ip6_forward was 0".parse().unwrap()),
                Act::Network(Step::Ipv6(network(wanted))),
                Act::Network(Step::Forwarding6(true)),
                Act::Network(Step::Rules(network(wanted)))
            ]
        );
        let deaf = Ipv6 { wanted, advertised: Some("eth0".into()), ..Ipv6::default() };
        assert!(plan(&with(deaf)).unwrap_err().to_string().contains("net.ipv6.conf.eth0.accept_ra=2"));
    }

    #[test]
    fn undo_restores_the_forwarding_of_ipv6_too() {
        let mut seen = Seen { ipv6: Some(Ipv6 { forwarding: true, table: true, ..Ipv6::default() }), ..whole() };
        seen.links[1] = bridge("bocker 10.0.0.1/24 fd00::1/64; ip_forward was 1; ip6_forward was 0");
        let plan = plan_undo(&seen).unwrap();
        assert!(
            plan.contains(&Act::Network(Step::Forwarding6(false))) && plan.contains(&Act::Network(Step::DropTable6))
        );
    }

    #[test]
    fn a_way_out_that_was_advertised_is_seen() {
        let zero = "00000000000000000000000000000000";
        let line = |flags: &str, name: &str| {
            format!(
                "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 {flags} {name:>8}\n"
            )
        };
        assert_eq!(advertised(&(line("00200200", "lo") + &line("00450003", "eth0"))).as_deref(), Some("eth0"));
        assert_eq!(advertised(&line("00000003", "eth0")), None);
    }

    #[test]
    fn a_bare_host_gets_everything_with_up_last() {
        let plan = plan_setup(&bare(), subnet()).unwrap();
        assert_eq!(plan.len(), 8);
        assert!(matches!(plan[0], Act::AddBridge(_)));
        assert_eq!(plan[1], Act::Record(RECORD.parse().unwrap()));
        assert_eq!(plan[7], Act::BridgeUp);
    }

    #[test]
    fn a_complete_host_gets_nothing_and_a_damaged_one_what_is_missing() {
        assert_eq!(plan_setup(&whole(), subnet()).unwrap(), []);
        let no_address = Seen { addresses: Vec::new(), ..whole() };
        assert_eq!(plan_setup(&no_address, subnet()).unwrap(), [Act::AddGateway(subnet())]);
        let port: crate::publish::Port = "tcp\t0.0.0.0:8080\t10.0.0.45:80".parse().unwrap();
        for state in [State::Changed, State::Absent] {
            let world = nft::World { ports: vec![port], ..nft::World::default() };
            let no_rules = Seen { tables: [state, State::Whole], world: world.clone(), ..whole() };
            let all = world.with(network::default_with(subnet(), None));
            assert_eq!((all.networks.len(), all.ports.len()), (1, 1));
            assert_eq!(plan_setup(&no_rules, subnet()).unwrap(), [Act::Rules(Table::Ip, all)]);
        }
        let off = Seen { forwarding: false, ..whole() };
        assert_eq!(plan_setup(&off, subnet()).unwrap(), [Act::Forwarding(true)]);
    }

    #[test]
    fn forwarding_that_was_on_and_is_off_now_is_recorded_anew() {
        let mut seen = Seen { forwarding: false, ..whole() };
        seen.links[1] = bridge("bocker 10.0.0.1/24; ip_forward was 1");
        assert_eq!(plan_setup(&seen, subnet()).unwrap(), [Act::Record(RECORD.parse().unwrap()), Act::Forwarding(true)]);
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        for foreign in [Link { alias: None, ..bridge("") }, bridge("my lab"), link(2, BRIDGE)] {
            let mut seen = whole();
            seen.links[1] = foreign;
            assert!(plan_setup(&seen, subnet()).is_err());
            assert!(!plan_undo(&seen).unwrap().contains(&Act::DeleteBridge));
        }
        let mut seen = bare();
        seen.links.push(link(3, "eth1"));
        seen.addresses.push(Address { index: 3, address: [10, 0, 0, 77].into(), prefix: 16 });
        let error = plan_setup(&seen, subnet()).unwrap_err().to_string();
        assert!(error.contains("10.0.0.77/16 of eth1"), "{error}");
        let other: Subnet = "10.9.0.0/24".parse().unwrap();
        assert!(plan_setup(&whole(), other).unwrap_err().to_string().contains("--undo"));
    }

    #[test]
    fn what_a_crash_left_without_an_alias_is_made_again() {
        let unfinished = Link { alias: None, up: false, mac: vec![2, 0x42, 10, 9, 0, 1], ..bridge("") };
        let mut seen = bare();
        seen.links.push(unfinished.clone());
        let plan = plan_setup(&seen, subnet()).unwrap();
        assert!(matches!(plan[..3], [Act::DeleteBridge, Act::AddBridge(_), Act::Record(_)]), "{plan:?}");
        assert_eq!(plan_undo(&seen).unwrap(), [Act::DeleteBridge]);
        // In use, so somebody's.
        seen.links.push(Link { controller: Some(2), ..link(9, "eth1") });
        assert!(plan_setup(&seen, subnet()).is_err());
        assert_eq!(plan_undo(&seen).unwrap(), []);
        for foreign in [Link { up: true, ..unfinished.clone() }, Link { mac: vec![6; 6], ..unfinished }] {
            let mut seen = bare();
            seen.links.push(foreign);
            assert!(plan_setup(&seen, subnet()).is_err());
            assert_eq!(plan_undo(&seen).unwrap(), []);
        }
    }

    #[test]
    fn undo_takes_back_what_was_changed_and_no_more() {
        let tables = Table::ALL.map(Act::DeleteTable);
        assert_eq!(
            plan_undo(&whole()).unwrap(),
            [&tables[..], &[Act::Forwarding(false), Act::DeleteNames, Act::DeleteBridge]].concat()
        );
        assert_eq!(plan_undo(&bare()).unwrap(), []);
        let mut seen = whole();
        seen.links[1] = bridge("bocker 10.0.0.1/24; ip_forward was 1");
        assert_eq!(plan_undo(&seen).unwrap(), [&tables[..], &[Act::DeleteNames, Act::DeleteBridge]].concat());
        // Somebody else's namespaces keep their directory.
        seen.names = Directory::InUse;
        assert_eq!(plan_undo(&seen).unwrap(), [&tables[..], &[Act::DeleteBridge]].concat());
    }

    #[test]
    fn undo_names_who_is_attached() {
        let mut seen = whole();
        seen.links.push(Link { controller: Some(2), ..link(9, "veth0_ps_42045") });
        assert!(plan_undo(&seen).unwrap_err().to_string().contains("veth0_ps_42045"));
    }
}
