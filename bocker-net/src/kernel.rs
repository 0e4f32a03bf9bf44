//! Applies an act.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use bocker_common::diag::{self, Reason};
use bocker_common::{Error, Id, Result};
use nix::errno::Errno;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};
use tokio::runtime::{Builder, Runtime};

use crate::act::{Act, ETH};
use crate::bridge::{BRIDGE, FORWARDING};
use crate::netlink::{Answer, Netlink};
use crate::{namespace, nat};

/// How long a link may take to go with its namespace before it is deleted by name. The namespace goes 1 ms after its last
/// holder, and our own netlink socket in it holds it for an RCU grace period after `up` (10 to 20 ms). Only one that
/// a process still holds takes longer.
const GOING: Duration = Duration::from_millis(50);

/// The kernel as this tool talks to it.
pub(crate) struct Kernel {
    runtime: Rc<Runtime>,
    /// In the namespace that the tool was started in.
    pub(crate) host: Netlink,
    /// There was to be NAT, and is none.
    pub(crate) no_nat: bool,
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
        Ok(Self { runtime, host, no_nat: false, inside: None })
    }

    /// Whether the host has the container's end of the cable.
    ///
    /// # Errors
    /// Something else has that name.
    pub(crate) fn pair_of(&self, id: Id) -> Result<bool> {
        match self.host.link(&id.veth()).map_err(|e| Error::new("look at", id.veth(), e))? {
            None => Ok(false),
            Some(link) if link.kind == Some(InfoKind::Veth) => Ok(true),
            Some(_) => Err(Error::plain(format!("{} is no veth link: not ours", id.veth()))),
        }
    }

    /// Does it.
    pub(crate) fn apply(&mut self, act: &Act) -> Result<()> {
        match act {
            Act::AddBridge(mac) => {
                let message = LinkBridge::new(BRIDGE).address(mac.0.to_vec()).build();
                said("create", BRIDGE, self.host.add_link(message))
            }
            Act::Record(record) => {
                let message = LinkUnspec::new_with_name(BRIDGE).alias(record.to_string()).build();
                said("set the alias of", BRIDGE, self.host.set_link(message))
            }
            Act::AddGateway(subnet) => said(
                "add address",
                &format!("{} to {BRIDGE}", subnet.gateway_with_prefix()),
                self.host.add_address(BRIDGE, subnet.gateway(), subnet.prefix()),
            ),
            Act::Forwarding(on) => std::fs::write(FORWARDING, if *on { "1\n" } else { "0\n" })
                .map_err(|e| Error::new("write", FORWARDING, e)),
            Act::Masquerade(subnet) => {
                if let Err(why) = nat::masquerade(*subnet) {
                    self.no_nat = true;
                    // Containers still reach the host and each other.
                    let why = diag::printable(&why);
                    let _ = writeln!(
                        std::io::stderr(),
                        "bocker-net: no NAT: {why} (containers will not reach beyond this host)"
                    );
                }
                Ok(())
            }
            Act::BridgeUp => said("set up", BRIDGE, self.host.link_up(BRIDGE)),
            Act::DeleteTable => nat::delete().map_err(|why| Error::new("delete table", nat::TABLE, why)),
            Act::AddNames => namespace::prepare_directory(),
            Act::DeleteNames => namespace::remove_directory(),
            Act::DeleteBridge => said("delete", BRIDGE, self.host.delete_link(BRIDGE)),
            Act::AddNamespace(id) => {
                let runtime = Rc::clone(&self.runtime);
                self.inside = Some(namespace::create(*id, || Netlink::open(&runtime))?);
                Ok(())
            }
            Act::AddPair(id, mac) => self.add_pair(*id, mac.0),
            Act::NoLinkLocalOutside(id) => {
                said("set addrgenmode of", &id.veth(), no_link_local(&self.host, &id.veth()))
            }
            Act::NoLinkLocalInside(_) => self.within("set addrgenmode of", ETH, |inside| no_link_local(inside, ETH)),
            Act::LoopbackUp(_) => self.within("set up", "lo", |inside| inside.link_up("lo")),
            Act::AltName(id) => {
                self.within("add name", &id.veth_peer(), |inside| inside.add_altname(ETH, &id.veth_peer()))
            }
            Act::AddAddress(_, address, prefix) => {
                self.within("add address", &address.to_string(), |inside| inside.add_address(ETH, *address, *prefix))
            }
            Act::EthUp(_) => self.within("set up", ETH, |inside| inside.link_up(ETH)),
            Act::DefaultRoute(_, gateway) => {
                self.within("add default route via", &gateway.to_string(), |inside| inside.add_default_route(*gateway))
            }
            Act::PrintAddress(address) => {
                writeln!(std::io::stdout(), "{address}").map_err(|e| Error::new("write", "stdout", e))
            }
            Act::DeletePair(id) => {
                let name = id.veth();
                // Most often it is on its way with its namespace, which the kernel takes down on its own time.
                let going = self.inside.is_none() && self.host.goes(&name, GOING).unwrap_or(false);
                if going { Ok(()) } else { said("delete", &name, self.host.delete_link(&name)) }
            }
            Act::DeleteNamespace(id) => namespace::delete(*id),
        }
    }

    /// One message: the pair, the host's end in the bridge and up, the other end born inside.
    fn add_pair(&self, id: Id, mac: [u8; 6]) -> Result<()> {
        let Some((namespace, _)) = &self.inside else { return Err(lost()) };
        let bridge = self.host.index(BRIDGE);
        let bridge = bridge.map_err(|e| Error::new("look at", BRIDGE, e).hint("bocker-net setup makes it"))?;
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(ETH)
            .address(mac.to_vec())
            .setns_by_fd(namespace.as_raw_fd())
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(id.veth())
            .controller(bridge)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        said("create", &id.veth(), self.host.add_link(message)).map_err(|error| {
            // Only EEXIST has a way out that we know.
            match self.host.link(&id.veth()) {
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

/// No address of its own making, `ip link set … addrgenmode none`.
fn no_link_local(netlink: &Netlink, name: &str) -> Answer<()> {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let attribute = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
    netlink.set_link(LinkUnspec::new_with_name(name).append_extra_attribute(attribute).build())
}

fn said(act: &str, object: &str, answer: Answer<()>) -> Result<()> {
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
