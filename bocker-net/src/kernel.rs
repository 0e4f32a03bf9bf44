//! Applies an act.

use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use bocker_common::diag::Reason;
use bocker_common::{Error, Id, Result};
use nix::errno::Errno;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};
use tokio::runtime::{Builder, Runtime};

use crate::act::{Act, UNPRIVILEGED, ipv6_inside};
use crate::bridge::{BRIDGE, FORWARDING};
use crate::cable::{Cable, MTU};
use crate::netlink::{Answer, Netlink};
use crate::nft::{self, Table};
use crate::{namespace, netfilter, network, publish};

/// How long a link may take to go with its namespace before it is deleted by name. The namespace goes 1 ms after its last
/// holder, and our own netlink socket in it holds it for an RCU grace period after `up` (10 to 20 ms). Only one that
/// a process still holds takes longer.
const GOING: Duration = Duration::from_millis(50);

/// The kernel as this tool talks to it.
pub(crate) struct Kernel {
    runtime: Rc<Runtime>,
    /// In the namespace that the tool was started in.
    pub(crate) host: Netlink,
    /// Tables that were to be there and are not, and why.
    pub(crate) lacking: Vec<(Table, String)>,
    /// Of published ports, until the relay has them.
    pub(crate) sockets: Vec<OwnedFd>,
    relay: Option<publish::Starting>,
    /// To nf_tables. Closed last: the kernel makes whoever closes one wait for what was deleted before ([`netfilter::unpublish`]), and the
    /// rest of a plan takes some of that time.
    rules: Option<OwnedFd>,
    /// The container's namespace and a socket in it, once `up` has made it.
    inside: Option<(File, Netlink)>,
}

impl Kernel {
    /// Opens a netlink socket.
    pub(crate) fn open() -> Result<Self> {
        // One thread: namespaces are a thread's property, and `up` changes ours for a moment.
        let runtime = Builder::new_current_thread().enable_io().build().map_err(|e| Error::new("start", "tokio", e))?;
        let runtime = Rc::new(runtime);
        let host = Netlink::open(&runtime).map_err(|e| Error::new("open", "netlink socket", e))?;
        Ok(Self { runtime, host, lacking: Vec::new(), sockets: Vec::new(), relay: None, rules: None, inside: None })
    }

    /// Whether the host has an end of a cable of that name.
    ///
    /// # Errors
    /// Something else has that name.
    pub(crate) fn has_pair(&self, name: &str) -> Result<bool> {
        match self.host.link(name).map_err(|e| Error::new("look at", name, e))? {
            None => Ok(false),
            Some(link) if link.kind == Some(InfoKind::Veth) => Ok(true),
            Some(_) => Err(Error::plain(format!("{name} is no veth link: not ours"))),
        }
    }

    /// Opens a container's namespace for the acts within.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn enter(&mut self, id: Id) -> Result<()> {
        let namespace = namespace::open(id)?;
        let socket = namespace::visit(&namespace, || Netlink::open(&self.runtime))?;
        let socket = socket.map_err(|e| Error::new("open", "netlink socket in the namespace", e))?;
        self.inside = Some((namespace, socket));
        Ok(())
    }

    /// Does it.
    pub(crate) fn apply(&mut self, act: &Act) -> Result<()> {
        match act {
            Act::AddBridge(mac) => {
                // Down, which `LinkBridge::new` is not: one that is up is complete.
                let message = LinkMessageBuilder::<LinkBridge>::new(BRIDGE)
                    .no_linklocal_learn(true)
                    .address(mac.0.to_vec())
                    .build();
                said("create", BRIDGE, self.host.add_link(message))
            }
            Act::Record(record) => {
                let message = LinkUnspec::new_with_name(BRIDGE).alias(record.to_string()).build();
                said("set the alias of", BRIDGE, self.host.set_link(message))
            }
            Act::AddGateway(subnet) => said(
                "add address",
                &format!("{} to {BRIDGE}", subnet.gateway_with_prefix()),
                self.host.add_address(BRIDGE, IpAddr::V4(subnet.gateway()), subnet.prefix()),
            ),
            Act::Forwarding(on) => std::fs::write(FORWARDING, if *on { "1\n" } else { "0\n" })
                .map_err(|e| Error::new("write", FORWARDING, e)),
            Act::Rules(table, world) => {
                // Without it, containers still reach the host and each other: who called us says so.
                self.lacking.extend(table.make(world).err().map(|why| (*table, why)));
                Ok(())
            }
            Act::BridgeUp => said("set up", BRIDGE, self.host.link_up(BRIDGE)),
            Act::DeleteTable(table) => nft::delete(*table).map_err(|why| Error::new("delete table", table, why)),
            Act::Relay(id, ports) => {
                self.relay = Some(publish::start(*id, ports, std::mem::take(&mut self.sockets))?);
                Ok(())
            }
            Act::Hairpin(id) => {
                let port = self.host.index(&id.veth()).map(LinkBridgePort::new);
                let set = port.and_then(|port| self.host.set_port(port.hairpin(true).build()));
                said("set hairpin of", &id.veth(), set)
            }
            Act::EndRelay(id) => publish::end(*id),
            // What fails is not done; but if its answer was lost it is, so it is taken back.
            Act::Publish(id, ports) => netfilter::publish(ports).map_err(|errno| {
                // Where a port leads elsewhere that one is another's.
                if errno != rustix::io::Errno::EXIST {
                    let _ = self.with_rules(*id, |socket| netfilter::unpublish(socket, ports));
                }
                Error::new("publish in table", Table::Ip, io::Error::from(errno)).hint("nft list table ip bocker")
            }),
            Act::Unpublish(id, ports) => {
                let done = self.with_rules(*id, |socket| {
                    let used = netfilter::unpublish(socket, ports);
                    // Where nobody ever came there is none: the kernel has a large table to look through.
                    if used != Ok(false) {
                        netfilter::forget(socket, &publish::targets(ports));
                    }
                    used
                });
                done.map(drop).map_err(|errno| Error::new("unpublish in table", Table::Ip, io::Error::from(errno)))
            }
            Act::Admit(id, stations) => netfilter::admit(stations).map_err(|errno| {
                let _ = self.with_rules(*id, |socket| netfilter::expel(socket, stations));
                Error::new("admit to table", Table::Bridge, io::Error::from(errno)).hint("nft list table bridge bocker")
            }),
            Act::Expel(id, stations) => self
                .with_rules(*id, |socket| netfilter::expel(socket, stations))
                .map_err(|errno| Error::new("expel from table", Table::Bridge, io::Error::from(errno))),
            Act::AddNames => namespace::prepare_directory(),
            Act::DeleteNames => namespace::remove_directory(),
            Act::DeleteBridge => said("delete", BRIDGE, self.host.delete_link(BRIDGE)),
            Act::AddNamespace(id, users) => {
                let runtime = Rc::clone(&self.runtime);
                self.inside = Some(namespace::create(*id, *users, || Netlink::open(&runtime))?);
                Ok(())
            }
            Act::Unprivileged(_) => {
                let Some((namespace, _)) = &self.inside else { return Err(lost()) };
                namespace::visit(namespace, || {
                    UNPRIVILEGED.into_iter().try_for_each(|(key, value)| {
                        let path = format!("/proc/sys/net/ipv4/{key}");
                        std::fs::write(&path, value).map_err(|e| Error::new("write", path, e))
                    })
                })?
            }
            Act::BindNamespace(id, from) => namespace::bind(*id, from),
            Act::AddPair(cable) => self.add_pair(cable),
            Act::NoIpv6Outside(cable) => network::write_sysctl(&cable.outside(), "disable_ipv6", "1"),
            Act::Ipv6Inside(cable) => {
                let Some((namespace, _)) = &self.inside else { return Err(lost()) };
                let (key, value, _) = ipv6_inside(cable);
                namespace::visit(namespace, || network::write_sysctl(&cable.inside(), key, value))?
            }
            Act::LoopbackUp(_) => self.within("set up", "lo", |inside| inside.link_up("lo")),
            Act::AltName(cable) => self
                .within("add name", &cable.altname(), |inside| inside.add_altname(&cable.inside(), &cable.altname())),
            Act::AddAddress(cable, address, prefix) => self.within("add address", &address.to_string(), |inside| {
                inside.add_address(&cable.inside(), *address, *prefix)
            }),
            Act::EthUp(cable) => self.within("set up", &cable.inside(), |inside| inside.link_up(&cable.inside())),
            Act::DefaultRoute(_, gateway) => {
                self.within("add default route via", &gateway.to_string(), |inside| inside.add_default_route(*gateway))
            }
            Act::PrintAddress(address) => {
                self.relay.take().map_or(Ok(()), publish::Starting::wait)?;
                let line = address.map_or_else(|| "-".to_owned(), |address| address.to_string());
                writeln!(std::io::stdout(), "{line}").map_err(|e| Error::new("write", "stdout", e))
            }
            Act::DeletePair(name) => {
                // Most often it is on its way with its namespace, which the kernel takes down on its own time.
                let going = self.inside.is_none() && self.host.goes(name, GOING).unwrap_or(false);
                if going { Ok(()) } else { said("delete", name, self.host.delete_link(name)) }
            }
            Act::Network(step) => step.apply(self),
            Act::State(step) => step.apply(),
            Act::DeleteNamespace(id) => namespace::delete(*id),
        }
    }

    /// Does what deletes something by the relay's socket, or by ours ([`publish::lent`]).
    fn with_rules<T>(&mut self, id: Id, work: impl FnOnce(&OwnedFd) -> rustix::io::Result<T>) -> rustix::io::Result<T> {
        if let Some((socket, _held)) = publish::lent(id) {
            return work(&socket);
        }
        work(match &self.rules {
            Some(socket) => socket,
            None => self.rules.insert(netfilter::open()?),
        })
    }

    /// One message: the pair, the host's end in the bridge and up, the other end born inside.
    fn add_pair(&self, cable: &Cable) -> Result<()> {
        let Some((namespace, _)) = &self.inside else { return Err(lost()) };
        let (id, outside) = (cable.id, cable.outside());
        let bridge = self.host.index(&cable.bridge);
        let bridge = bridge.map_err(|e| Error::new("look at", &cable.bridge, e).hint("bocker-net setup makes it"))?;
        let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(cable.inside())
            .address(cable.mac.0.to_vec())
            .setns_by_fd(namespace.as_raw_fd());
        let mut message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(outside.clone())
            .controller(bridge)
            .up();
        if cable.mtu != MTU {
            (peer, message) = (peer.mtu(cable.mtu), message.mtu(cable.mtu));
        }
        let message = message.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build()))).build();
        said("create", &outside, self.host.add_link(message)).map_err(|error| {
            // Only EEXIST has a way out that we know.
            match self.host.link(&outside) {
                Ok(Some(_)) => error.hint(format!("bocker-net down {id} removes it")),
                _ => error,
            }
        })
    }

    fn within(&self, act: &str, object: &str, work: impl FnOnce(&Netlink) -> Answer<()>) -> Result<()> {
        let Some((_, inside)) = &self.inside else { return Err(lost()) };
        work(inside).map_err(|e| Error::new(act, format!("{object} in the namespace"), e))
    }
}

pub(crate) fn said(act: &str, object: &str, answer: Answer<()>) -> Result<()> {
    answer.map_err(|errno| {
        let error = Error::new(act, object, Reason::from(errno));
        match errno {
            Errno::EOPNOTSUPP => error.hint("the kernel lacks this kind of link: CONFIG_BRIDGE, CONFIG_VETH"),
            _ => error,
        }
    })
}

/// A plan that works in a namespace before making it; no plan of ours does.
fn lost() -> Error {
    Error::plain("the container's namespace is not open")
}
