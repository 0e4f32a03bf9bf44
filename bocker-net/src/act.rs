//! What this tool does to the kernel, as values.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use bocker_common::Id;
use bocker_common::say::{self, Said, quote};
use bocker_common::userns::COUNT;

use crate::bridge::{BRIDGE, Record};
use crate::cable::{Cable, MTU};
use crate::namespace::DIRECTORY as NAMES;
use crate::nft::{self, Station, Table, World};
use crate::publish::{self, Port};
use crate::subnet::{Mac, Subnet};
use crate::{network, state};

/// The container's interface, by the name that programs expect.
pub(crate) const ETH: &str = "eth0";

/// Below /proc/sys/net/ipv4: ip-sysctl of the kernel's documentation.
pub(crate) const UNPRIVILEGED: [(&str, &str); 2] =
    [("ip_unprivileged_port_start", "0"), ("ping_group_range", "0 2147483647")];

/// One change. `Kernel::apply` does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    AddBridge(Mac),
    Record(Record),
    AddGateway(Subnet),
    Forwarding(bool),
    /// With what there is already.
    Rules(Table, World),
    BridgeUp,
    DeleteTable(Table),
    DeleteBridge,
    AddNames,
    DeleteNames,
    /// With the first user id of the container's range, where it has one.
    AddNamespace(Id, Option<u32>),
    /// A name for a namespace that is there already.
    BindNamespace(Id, PathBuf),
    Unprivileged(Id),
    AddPair(Cable),
    NoIpv6Outside(Cable),
    Ipv6Inside(Cable),
    LoopbackUp(Id),
    AltName(Cable),
    AddAddress(Cable, IpAddr, u8),
    EthUp(Cable),
    DefaultRoute(Id, IpAddr),
    /// Writes the ports down, and starts who holds their sockets.
    Relay(Id, Vec<Port>),
    EndRelay(Id),
    Hairpin(Id),
    Publish(Id, Vec<Port>),
    Unpublish(Id, Vec<Port>),
    /// To the guard's set, and from it.
    Admit(Id, Vec<Station>),
    Expel(Id, Vec<Station>),
    PrintAddress(Option<Ipv4Addr>),
    /// By the name of its end in the bridge.
    DeletePair(String),
    DeleteNamespace(Id),
    /// Of a bridge, its rules, the file of a network.
    Network(network::Step),
    /// Of the files in /run/bocker-net.
    State(state::Step),
}

impl Act {
    /// The act that takes this one back, where another of the list does not do so along the way.
    pub(crate) fn undo(&self) -> Option<Self> {
        match self {
            Self::AddBridge(_) => Some(Self::DeleteBridge),
            Self::Forwarding(on) => Some(Self::Forwarding(!on)),
            Self::Rules(table, _) => Some(Self::DeleteTable(*table)),
            Self::AddNamespace(id, _) | Self::BindNamespace(id, _) => Some(Self::DeleteNamespace(*id)),
            Self::AddPair(cable) => Some(Self::DeletePair(cable.outside())),
            Self::Relay(id, _) => Some(Self::EndRelay(*id)),
            Self::Publish(id, ports) => Some(Self::Unpublish(*id, ports.clone())),
            Self::Admit(id, stations) => Some(Self::Expel(*id, stations.clone())),
            Self::Network(step) => step.undo().map(Self::Network),
            Self::State(step) => step.undo().map(Self::State),
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
                format!("ip link add {BRIDGE} address {mac} type bridge no_linklocal_learn 1"),
                "a switch in the kernel; with an address of its own it keeps that as ports come and go, and it learns from no frame that the guard does not see",
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
            Self::Rules(table, world) => Said::new(
                table.shell(world),
                match table {
                    Table::Ip => {
                        "what leaves the subnet bears the host's address, and into it comes what is published; \
                         a table of our own, so no other is touched"
                    }
                    Table::Bridge => {
                        "a container speaks by its own addresses: it cannot be another one, nor the gateway"
                    }
                },
            ),
            Self::BridgeUp => Said::new(format!("ip link set {BRIDGE} up"), "last: a bridge that is up is complete"),
            Self::DeleteTable(table) => Said::new(format!("nft delete table {table}"), "our rules, and only ours"),
            Self::Relay(id, ports) => publish::say_start(*id, ports),
            Self::EndRelay(id) => publish::say_end(*id),
            Self::Hairpin(id) => Said::new(
                format!("ip link set {} type bridge_slave hairpin on", id.veth()),
                "with bridge-nf-call-iptables, what it sends to its own published port turns round in the bridge",
            ),
            Self::Publish(_, ports) => Said::new(
                format!("nft -f - <<'EOF'\n{}EOF", nft::elements("add", ports)),
                "what comes to this host's port goes to the container's",
            ),
            Self::Unpublish(_, ports) => {
                let forget = publish::targets(ports).into_iter();
                let forget = forget.map(|to| format!("\nconntrack -D --dst-nat {to} >/dev/null 2>&1 || :"));
                Said::new(
                    format!("nft -f - <<'EOF'\n{}EOF{}", nft::no_elements(ports), forget.collect::<String>()),
                    "first: nobody is sent to a container that goes; added once more, so that taking them away cannot fail; \
                     and what was on its way ends, for the address is another's soon",
                )
            }
            Self::Admit(_, stations) => Said::new(
                format!("nft -f - <<'EOF'\n{}EOF", nft::stations("add", stations)),
                "by these addresses it may speak",
            ),
            Self::Expel(_, stations) => {
                Said::new(format!("nft -f - <<'EOF'\n{}EOF", nft::no_stations(stations)), "they may be another's soon")
            }
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
            Self::AddNamespace(id, None) => Said::new(
                format!("ip netns add {}", id.netns()),
                "a network stack of its own, held by a name in /run/netns",
            ),
            Self::AddNamespace(id, Some(start)) => Said::new(
                format!(
                    "unshare --user --net sh -c 'echo $$; exec sleep 9 >&-' | {{\n\
                     read -r pid\n\
                     echo '0 {start} {COUNT}' > /proc/$pid/uid_map\n\
                     echo '0 {start} {COUNT}' > /proc/$pid/gid_map\n\
                     : > {NAMES}/{name}\n\
                     mount --bind /proc/$pid/ns/net {NAMES}/{name}\n\
                     kill $pid\n}}",
                    name = id.netns()
                ),
                "a network stack of its own, held by a name in /run/netns; it belongs to the user namespace that it was made in: \
                 what the container's root may do to it, it may do to no other",
            ),
            Self::Unprivileged(id) => Said::new(
                format!(
                    "ip netns exec {} sysctl -qw {}",
                    id.netns(),
                    UNPRIVILEGED.map(|(key, value)| quote(format!("net.ipv4.{key}={value}"))).join(" ")
                ),
                "any user of it may have ports below 1024, and ping: there is nobody to protect them from",
            ),
            Self::BindNamespace(id, from) => Said::new(
                format!(
                    "( set -C; : > {NAMES}/{name} )\nmount --bind {} {NAMES}/{name}",
                    quote(from),
                    name = id.netns()
                ),
                "no stack of its own: a name of its own for one that is there, and down takes the name away",
            ),
            Self::AddPair(cable) => {
                let mtu = if cable.mtu == MTU { String::new() } else { format!("mtu {} ", cable.mtu) };
                Said::new(
                    format!(
                        "ip link add {} {mtu}master {} up type veth peer name {} address {} {mtu}netns {}",
                        cable.outside(),
                        cable.bridge,
                        cable.inside(),
                        cable.mac,
                        cable.id.netns()
                    ),
                    "a cable: one end in the bridge, the other born inside (moving it there later costs 16 ms)",
                )
            }
            Self::NoIpv6Outside(cable) => Said::new(
                network::sysctl(&cable.outside(), "disable_ipv6", "1"),
                "a port of a switch needs no IPv6, and the host is not to be found by it",
            ),
            Self::Ipv6Inside(cable) => {
                let (key, value, why) = ipv6_inside(cable);
                let write = network::sysctl(&cable.inside(), key, value);
                Said::new(format!("ip netns exec {} sh -c {}", cable.id.netns(), quote(write)), why)
            }
            Self::LoopbackUp(id) => Said::new(within(id, "link set lo up".into()), "127.0.0.1"),
            Self::AltName(cable) => Said::new(
                within(&cable.id, format!("link property add dev {} altname {}", cable.inside(), cable.altname())),
                "programs expect eth0; the other name says whose it is",
            ),
            Self::AddAddress(cable, address, prefix) => Said::new(
                within(
                    &cable.id,
                    match address {
                        IpAddr::V4(_) => format!("address add {address}/{prefix} brd + dev {}", cable.inside()),
                        IpAddr::V6(_) => format!("address add {address}/{prefix} dev {} nodad", cable.inside()),
                    },
                ),
                "subnet base + id - 42000, unless told otherwise",
            ),
            Self::EthUp(cable) => Said::new(within(&cable.id, format!("link set {} up", cable.inside())), "plug it in"),
            Self::DefaultRoute(id, gateway) => {
                Said::new(within(id, format!("route add default via {gateway}")), "everything else through the bridge")
            }
            Self::PrintAddress(address) => {
                Said::new(format!("echo {}", address.map_or_else(|| "-".into(), |address| address.to_string())), "")
            }
            Self::DeletePair(name) => Said::new(
                format!("ip link delete {name} 2>/dev/null || ! ip link show {name} >/dev/null 2>&1"),
                "one end of the cable takes the other along; it may be gone with the namespace already",
            ),
            Self::Network(step) => step.say(),
            Self::State(step) => step.say(),
            Self::DeleteNamespace(id) => Said::new(
                format!("ip netns delete {}", id.netns()),
                "the name goes; the network stack when its last process has left",
            ),
        }
    }
}

/// What the container's interface is told about IPv6: key, value and why.
pub(crate) fn ipv6_inside(cable: &Cable) -> (&'static str, &'static str, &'static str) {
    match cable.address6 {
        None => ("disable_ipv6", "1", "no subnet, no IPv6: or a neighbour's advertisement would give it some"),
        Some(_) => ("accept_ra", "0", "its routes are ours to give: no neighbour is a router"),
    }
}
