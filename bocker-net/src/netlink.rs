//! rtnetlink, one request at a time: what this tool does is a short chain of steps, each needing the one before.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use nix::errno::Errno;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::{AddressMessageBuilder, Handle, LinkUnspec, RouteMessageBuilder};
use tokio::runtime::Runtime;

/// What the kernel answered; `EPROTO` where it was no answer.
pub(crate) type Answer<T> = Result<T, Errno>;

/// A netlink socket in the network namespace that it was opened in.
pub(crate) struct Netlink {
    runtime: Rc<Runtime>,
    handle: Handle,
}

/// What we read of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// `bridge`, `veth`, …; none for hardware.
    pub(crate) kind: Option<InfoKind>,
    pub(crate) up: bool,
    pub(crate) alias: Option<String>,
    /// Index of the bridge that it is a port of.
    pub(crate) controller: Option<u32>,
    pub(crate) mac: Vec<u8>,
    /// In bytes.
    pub(crate) mtu: u32,
}

/// An IPv4 address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) index: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
}

impl Netlink {
    /// Opens a socket in the current namespace.
    pub(crate) fn open(runtime: &Rc<Runtime>) -> Answer<Self> {
        let _within = runtime.enter();
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|e| e.raw_os_error().map_or(Errno::EPROTO, Errno::from_raw))?;
        runtime.spawn(connection);
        Ok(Self { runtime: Rc::clone(runtime), handle })
    }

    /// The interface of this name, if there is one.
    pub(crate) fn link(&self, name: &str) -> Answer<Option<Link>> {
        let found = self.wait(self.handle.link().get().match_name(name).execute().try_next());
        match found {
            Ok(message) => Ok(message.map(Link::from)),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// The index of the interface of this name.
    pub(crate) fn index(&self, name: &str) -> Answer<u32> {
        self.link(name)?.map(|link| link.index).ok_or(Errno::ENODEV)
    }

    /// Every interface.
    pub(crate) fn links(&self) -> Answer<Vec<Link>> {
        self.wait(self.handle.link().get().execute().map_ok(Link::from).try_collect())
    }

    /// Every IPv4 address.
    pub(crate) fn addresses(&self) -> Answer<Vec<Address>> {
        let all: Vec<AddressMessage> = self.wait(self.handle.address().get().execute().try_collect())?;
        Ok(all.iter().filter_map(ipv4).collect())
    }

    /// RTM_NEWLINK: creates; `EEXIST` if the name is taken.
    pub(crate) fn add_link(&self, message: LinkMessage) -> Answer<()> {
        self.wait(self.handle.link().add(message).execute())
    }

    /// RTM_SETLINK: changes.
    pub(crate) fn set_link(&self, message: LinkMessage) -> Answer<()> {
        self.wait(self.handle.link().set(message).execute())
    }

    /// RTM_NEWLINK of a link that is there: what it is as a port of its bridge.
    pub(crate) fn set_port(&self, message: LinkMessage) -> Answer<()> {
        self.wait(self.handle.link().set_port(message).execute())
    }

    /// Up or down, by name.
    pub(crate) fn link_up(&self, name: &str) -> Answer<()> {
        self.set_link(LinkUnspec::new_with_name(name).up().build())
    }

    /// RTM_NEWLINKPROP: another name for an interface; up to 127 bytes, where the first has 15.
    pub(crate) fn add_altname(&self, name: &str, other: &str) -> Answer<()> {
        let index = self.index(name)?;
        self.wait(self.handle.link().property_add(index).alt_ifname(&[other]).execute())
    }

    /// RTM_NEWADDR, with the broadcast address that goes with it; of IPv6 usable at once, for nobody else can have it.
    pub(crate) fn add_address(&self, name: &str, address: IpAddr, prefix: u8) -> Answer<()> {
        let index = self.index(name)?;
        let message = match address {
            IpAddr::V4(address) => {
                AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, prefix).build()
            }
            IpAddr::V6(address) => {
                let mut message =
                    AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(address, prefix).build();
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
                message
            }
        };
        let mut request = self.handle.address().add(index, address, prefix);
        *request.message_mut() = message;
        self.wait(request.execute())
    }

    /// RTM_NEWROUTE: the default route.
    pub(crate) fn add_default_route(&self, gateway: IpAddr) -> Answer<()> {
        // "boot" is what `ip route add` writes: made by hand, not by a routing daemon.
        let message = match gateway {
            IpAddr::V4(gateway) => {
                RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).protocol(RouteProtocol::Boot).build()
            }
            IpAddr::V6(gateway) => {
                RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).protocol(RouteProtocol::Boot).build()
            }
        };
        self.wait(self.handle.route().add(message).execute())
    }

    /// RTM_DELLINK, by name; gone already is no error.
    ///
    /// The kernel answers only after the callbacks of RCU have run (`rcu_barrier` in `netdev_run_todo`):
    /// 13 to 25 ms of nothing but waiting.
    pub(crate) fn delete_link(&self, name: &str) -> Answer<()> {
        let Some(link) = self.link(name)? else { return Ok(()) };
        match self.wait(self.handle.link().del(link.index).execute()) {
            Err(Errno::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// Whether the link goes by itself within this time.
    pub(crate) fn goes(&self, name: &str, within: Duration) -> Answer<bool> {
        let until = Instant::now() + within;
        while self.link(name)?.is_some() {
            if Instant::now() > until {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(true)
    }

    fn wait<T>(&self, answer: impl Future<Output = Result<T, rtnetlink::Error>>) -> Answer<T> {
        self.runtime.block_on(answer).map_err(|error| match error {
            rtnetlink::Error::NetlinkError(said) => {
                said.code.map_or(Errno::EPROTO, |code| Errno::from_raw(-code.get()))
            }
            _ => Errno::EPROTO,
        })
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link =
            Self { index: message.header.index, up: message.header.flags.contains(LinkFlags::Up), ..Self::default() };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::Address(bytes) => link.mac = bytes,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.into_iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }
}

fn ipv4(message: &AddressMessage) -> Option<Address> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        // The interface's own; on a point-to-point link IFA_ADDRESS is the other side's.
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })?;
    Some(Address { index: message.header.index, address, prefix: message.header.prefix_len })
}
