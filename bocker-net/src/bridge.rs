//! The host's part: bridge0, its address, forwarding and NAT.

use std::fmt;
use std::fs::File;
use std::str::FromStr;

use bocker_common::say::Explain;
use bocker_common::{Error, Result};
use nix::fcntl::{Flock, FlockArg};
use rtnetlink::packet_route::link::InfoKind;

use crate::act::Act;
use crate::kernel::Kernel;
use crate::namespace::{self, Directory};
use crate::nat::{self, Nat};
use crate::netlink::{Address, Link};
use crate::subnet::{Mac, Subnet};

/// The script's name for it.
pub(crate) const BRIDGE: &str = "bridge0";
pub(crate) const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// What bridge0's alias says: `bocker 10.0.0.1/24; ip_forward was 0`. It makes the bridge ours, and lasts as long as the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// The address that the bridge got from us.
    gateway: String,
    /// What setup --undo restores.
    forwarding_was: bool,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bocker {}; ip_forward was {}", self.gateway, u8::from(self.forwarding_was))
    }
}

impl FromStr for Record {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let rest = text.strip_prefix("bocker ").ok_or(())?;
        let (gateway, was) = rest.split_once("; ip_forward was ").ok_or(())?;
        Ok(Self { gateway: gateway.to_owned(), forwarding_was: was == "1" })
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
    pub(crate) nat: Nat,
    pub(crate) names: Directory,
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
    Ok(Seen {
        links,
        addresses,
        forwarding: forwarding.trim() != "0",
        nat: nat::see(subnet),
        names: namespace::directory(),
    })
}

/// Held alone while the bridge is made or unmade, so that two at once make one; shared while a container is attached, so
/// that it does not go meanwhile.
///
/// The lock is on the network namespace itself: it covers exactly those who share the bridge, and leaves no file behind.
pub(crate) fn lock(how: FlockArg, explain: Explain) -> Result<Option<Flock<File>>> {
    const NAMESPACE: &str = "/proc/self/ns/net";
    if explain.dry_run {
        return Ok(None);
    }
    let file = File::open(NAMESPACE).map_err(|e| Error::new("open", NAMESPACE, e))?;
    Flock::lock(file, how).map(Some).map_err(|(_, e)| Error::new("lock", NAMESPACE, e))
}

/// Whether a container can be attached: bridge0 is ours and complete, or is somebody's who gave it our gateway's address.
///
/// # Errors
/// There is a bridge0 that will not do.
pub(crate) fn ready(kernel: &Kernel, subnet: Subnet) -> Result<bool> {
    let failed = |e| Error::new("look at", BRIDGE, e);
    let Some(bridge) = kernel.host.link(BRIDGE).map_err(failed)? else { return Ok(false) };
    match own(&bridge, subnet)? {
        // Up is the last step of setup.
        Some(_) => Ok(bridge.up),
        None => {
            let addresses = kernel.host.addresses().map_err(failed)?;
            match bridge.up && has_gateway(&bridge, &addresses, subnet) {
                true => Ok(true),
                false if is_unfinished(&bridge, &addresses) => Ok(false),
                false => Err(not_ours(subnet)),
            }
        }
    }
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
    if record.as_ref().is_none_or(|record| record.forwarding_was && !seen.forwarding) {
        plan.push(Act::Record(Record { gateway: subnet.gateway_with_prefix(), forwarding_was: seen.forwarding }));
    }
    if !bridge.is_some_and(|bridge| has_gateway(bridge, &seen.addresses, subnet)) {
        plan.push(Act::AddGateway(subnet));
    }
    if !seen.forwarding {
        plan.push(Act::Forwarding(true));
    }
    if seen.nat != (Nat::Present { complete: true }) {
        plan.push(Act::Masquerade(subnet));
    }
    if seen.names == Directory::Plain {
        plan.push(Act::AddNames);
    }
    if !bridge.is_some_and(|bridge| bridge.up) {
        plan.push(Act::BridgeUp);
    }
    Ok(plan)
}

/// What takes back what setup made; nothing where nothing is there. Somebody else's bridge0 stays.
///
/// # Errors
/// Links are attached to the bridge.
pub(crate) fn plan_undo(seen: &Seen) -> Result<Vec<Act>> {
    let mut plan = Vec::new();
    if matches!(seen.nat, Nat::Present { .. }) {
        plan.push(Act::DeleteTable);
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
        Link { index, name: name.into(), ..Link::default() }
    }

    fn bridge(alias: &str) -> Link {
        Link { kind: Some(InfoKind::Bridge), alias: Some(alias.into()), up: true, ..link(2, BRIDGE) }
    }

    fn bare() -> Seen {
        Seen {
            links: vec![link(1, "lo")],
            addresses: Vec::new(),
            forwarding: false,
            nat: Nat::Absent,
            names: Directory::Plain,
        }
    }

    const RECORD: &str = "bocker 10.0.0.1/24; ip_forward was 0";

    fn whole() -> Seen {
        Seen {
            links: vec![link(1, "lo"), bridge(RECORD)],
            addresses: vec![Address { index: 2, address: [10, 0, 0, 1].into(), prefix: 24 }],
            forwarding: true,
            nat: Nat::Present { complete: true },
            names: Directory::Empty,
        }
    }

    #[test]
    fn a_record_survives_the_alias() {
        assert_eq!(RECORD.parse::<Record>().unwrap().to_string(), RECORD);
        assert!("".parse::<Record>().is_err());
        assert!("bockers own".parse::<Record>().is_err());
    }

    #[test]
    fn a_bare_host_gets_everything_with_up_last() {
        let plan = plan_setup(&bare(), subnet()).unwrap();
        assert_eq!(plan.len(), 7);
        assert!(matches!(plan[0], Act::AddBridge(_)));
        assert_eq!(plan[1], Act::Record(RECORD.parse().unwrap()));
        assert_eq!(plan[6], Act::BridgeUp);
    }

    #[test]
    fn a_complete_host_gets_nothing_and_a_damaged_one_what_is_missing() {
        assert_eq!(plan_setup(&whole(), subnet()).unwrap(), []);
        let no_address = Seen { addresses: Vec::new(), ..whole() };
        assert_eq!(plan_setup(&no_address, subnet()).unwrap(), [Act::AddGateway(subnet())]);
        let no_rules = Seen { nat: Nat::Present { complete: false }, ..whole() };
        assert_eq!(plan_setup(&no_rules, subnet()).unwrap(), [Act::Masquerade(subnet())]);
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
        assert_eq!(
            plan_undo(&whole()).unwrap(),
            [Act::DeleteTable, Act::Forwarding(false), Act::DeleteNames, Act::DeleteBridge]
        );
        assert_eq!(plan_undo(&bare()).unwrap(), []);
        let mut seen = whole();
        seen.links[1] = bridge("bocker 10.0.0.1/24; ip_forward was 1");
        assert_eq!(plan_undo(&seen).unwrap(), [Act::DeleteTable, Act::DeleteNames, Act::DeleteBridge]);
        // Somebody else's namespaces keep their directory.
        seen.names = Directory::InUse;
        assert_eq!(plan_undo(&seen).unwrap(), [Act::DeleteTable, Act::DeleteBridge]);
    }

    #[test]
    fn undo_names_who_is_attached() {
        let mut seen = whole();
        seen.links.push(Link { controller: Some(2), ..link(9, "veth0_ps_42045") });
        assert!(plan_undo(&seen).unwrap_err().to_string().contains("veth0_ps_42045"));
    }
}
