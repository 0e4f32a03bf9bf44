//! What this tool does to the kernel, as values.

use std::net::Ipv4Addr;

use bocker_common::Id;
use bocker_common::say::{self, Said, quote};

use crate::bridge::{BRIDGE, Record};
use crate::namespace::DIRECTORY as NAMES;
use crate::nat;
use crate::subnet::{Mac, Subnet};

/// The container's interface, by the name that programs expect.
pub(crate) const ETH: &str = "eth0";

/// One change. `Kernel::apply` does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    AddBridge(Mac),
    Record(Record),
    AddGateway(Subnet),
    Forwarding(bool),
    Masquerade(Subnet),
    BridgeUp,
    DeleteTable,
    DeleteBridge,
    AddNames,
    DeleteNames,
    AddNamespace(Id),
    AddPair(Id, Mac),
    NoLinkLocalOutside(Id),
    NoLinkLocalInside(Id),
    LoopbackUp(Id),
    AltName(Id),
    AddAddress(Id, Ipv4Addr, u8),
    EthUp(Id),
    DefaultRoute(Id, Ipv4Addr),
    PrintAddress(Ipv4Addr),
    DeletePair(Id),
    DeleteNamespace(Id),
}

impl Act {
    /// The act that takes this one back, where another of the list does not do so along the way.
    pub(crate) fn undo(&self) -> Option<Self> {
        match self {
            Self::AddBridge(_) => Some(Self::DeleteBridge),
            Self::Forwarding(on) => Some(Self::Forwarding(!on)),
            Self::Masquerade(_) => Some(Self::DeleteTable),
            Self::AddNamespace(id) => Some(Self::DeleteNamespace(*id)),
            Self::AddPair(id, _) => Some(Self::DeletePair(*id)),
            _ => None,
        }
    }
}

impl say::Act for Act {
    fn say(&self) -> Said {
        // `ip -n NAME`: in that namespace.
        let within = |id: &Id, rest: String| format!("ip -n {} {rest}", id.netns());
        match self {
            Self::AddBridge(mac) => Said::new(
                format!("ip link add {BRIDGE} address {mac} type bridge"),
                "a switch in the kernel; with an address of its own it keeps that as ports come and go",
            ),
            Self::Record(record) => Said::new(
                format!("ip link set {BRIDGE} alias {}", quote(record.to_string())),
                "who made it, and what setup --undo restores",
            ),
            Self::AddGateway(subnet) => Said::new(
                format!("ip address add {} brd + dev {BRIDGE}", subnet.gateway_with_prefix()),
                "the subnet's first address is the host's own: the gateway of every container",
            ),
            Self::Forwarding(on) => Said::new(
                format!("sysctl -qw net.ipv4.ip_forward={}", u8::from(*on)),
                if *on { "let packets pass between the bridge and the world" } else { "as it was before" },
            ),
            Self::Masquerade(subnet) => Said::new(
                format!("nft -f - <<'EOF' || echo 'no NAT' >&2\n{}EOF", nat::rules(*subnet)),
                "what leaves the subnet bears the host's address; a table of our own, so no other is touched",
            ),
            Self::BridgeUp => Said::new(format!("ip link set {BRIDGE} up"), "last: a bridge that is up is complete"),
            Self::DeleteTable => Said::new(format!("nft delete table {}", nat::TABLE), "the NAT rules, and only ours"),
            Self::DeleteBridge => Said::new(format!("ip link delete {BRIDGE}"), "its address and route go with it"),
            Self::AddNames => Said::new(
                format!(
                    "mkdir -p {NAMES}\nmount --make-shared {NAMES} 2>/dev/null || {{ mount --bind {NAMES} {NAMES} && mount --make-shared {NAMES}; }}"
                ),
                "where names of network namespaces live: shared, so that one that goes, goes everywhere",
            ),
            Self::DeleteNames => Said::new(
                format!("umount {NAMES} || :\nrmdir {NAMES}"),
                "no name is left in it; `ip netns` makes it again",
            ),
            Self::AddNamespace(id) => Said::new(
                format!("ip netns add {}", id.netns()),
                "a network stack of its own, held by a name in /run/netns",
            ),
            Self::AddPair(id, mac) => Said::new(
                format!(
                    "ip link add {} master {BRIDGE} up type veth peer name {ETH} address {mac} netns {}",
                    id.veth(),
                    id.netns()
                ),
                "a cable: one end in the bridge, the other born inside (moving it there later costs 16 ms)",
            ),
            Self::NoLinkLocalOutside(id) => Said::new(
                format!("ip link set {} addrgenmode none", id.veth()),
                "a port of a switch needs no IPv6 address",
            ),
            Self::NoLinkLocalInside(id) => {
                Said::new(within(id, format!("link set {ETH} addrgenmode none")), "IPv4 only, for now")
            }
            Self::LoopbackUp(id) => Said::new(within(id, "link set lo up".into()), "127.0.0.1"),
            Self::AltName(id) => Said::new(
                within(id, format!("link property add dev {ETH} altname {}", id.veth_peer())),
                "programs expect eth0; the other name says whose it is",
            ),
            Self::AddAddress(id, address, prefix) => Said::new(
                within(id, format!("address add {address}/{prefix} brd + dev {ETH}")),
                "subnet base + id - 42000",
            ),
            Self::EthUp(id) => Said::new(within(id, format!("link set {ETH} up")), "plug it in"),
            Self::DefaultRoute(id, gateway) => {
                Said::new(within(id, format!("route add default via {gateway}")), "everything else through the bridge")
            }
            Self::PrintAddress(address) => Said::new(format!("echo {address}"), ""),
            Self::DeletePair(id) => Said::new(
                format!("ip link delete {} 2>/dev/null || ! ip link show {0} >/dev/null 2>&1", id.veth()),
                "one end of the cable takes the other along; it may be gone with the namespace already",
            ),
            Self::DeleteNamespace(id) => Said::new(
                format!("ip netns delete {}", id.netns()),
                "the name goes; the network stack when its last process has left",
            ),
        }
    }
}
