//! `tap`: what passes an interface of a namespace, as a pcap file on stdout (packet(7), draft-ietf-opsawg-pcap).

use std::io::{self, BufWriter, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use bocker_common::{Error, Result};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

use crate::chain::Place;
use crate::namespace;

/// What is kept of a packet, as tcpdump has it: more than any that a veth carries.
const SNAPLEN: usize = 262_144;
/// The kernel's queue while the reader is slow, in bytes.
const QUEUE: usize = 8 << 20;
/// How often it is asked whether the container is still there, where no interface tells by going, in milliseconds.
const LOOK: u16 = 1_000;
/// Every interface of the namespace, as tcpdump has it.
const ANY: &str = "any";

/// LINKTYPE_* of the format: what a packet begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkType {
    /// An Ethernet header.
    Ethernet = 1,
    /// The IP header: tun and the like.
    Raw = 101,
    /// A header that says the interface, then what is behind the link's own.
    Cooked = 276,
}

impl LinkType {
    /// From ARPHRD_* of `linux/if_arp.h`.
    fn of(hardware: u16) -> Option<Self> {
        match hardware {
            // Ethernet, loopback.
            1 | 772 => Some(Self::Ethernet),
            // None: tun, WireGuard.
            0xfffe => Some(Self::Raw),
            _ => None,
        }
    }

    /// The file's header: times in nanoseconds, in this machine's byte order, which the magic number tells.
    fn header(self) -> Vec<u8> {
        let numbers: [u32; 6] = [0xa1b2_3c4d, u32::from_ne_bytes(version()), 0, 0, SNAPLEN as u32, self as u32];
        numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
    }
}

/// 2.4, two numbers of two bytes.
fn version() -> [u8; 4] {
    let ([a, b], [c, d]) = (2_u16.to_ne_bytes(), 4_u16.to_ne_bytes());
    [a, b, c, d]
}

/// Runs until the reader, the interface or the container goes; none of these is an error.
///
/// # Errors
/// There is no such interface, or it cannot be listened to.
pub(crate) fn tap(place: &Place, interface: &str) -> Result<()> {
    let file = place.open()?;
    // Back outside at once: the socket stays in there, and nobody takes this process for one of the container's.
    let (socket, index, link) = namespace::visit(&file, || listen(interface))??;
    drop(file);
    match copy(place, &socket, index, link) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| Error::new("tap", interface, e)),
    }
}

/// A socket that gets every packet; the interface's index, or none for all of them.
fn listen(interface: &str) -> Result<(OwnedFd, Option<usize>, LinkType)> {
    let fail = |e: Errno| Error::new("tap", interface, e);
    let all = getifaddrs().map_err(fail)?;
    let mut links = all.filter_map(|one| Some((one.interface_name, *one.address?.as_link_addr()?)));
    let (kind, address, link) = if interface == ANY {
        (SockType::Datagram, None, LinkType::Cooked)
    } else {
        let found = links.find(|(name, _)| name == interface);
        let (_, address) = found.ok_or_else(|| Error::plain(format!("tap {interface}: no such interface there")))?;
        let link = LinkType::of(address.hatype());
        let link = link.ok_or_else(|| {
            Error::plain(format!("tap {interface}: hardware type {} has no link type here", address.hatype()))
                .hint("--interface any takes all")
        })?;
        (SockType::Raw, Some(address), link)
    };
    let socket = socket(AddressFamily::Packet, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll).map_err(fail)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).map_err(fail)?;
    // A smaller queue is no reason not to listen.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &QUEUE);
    if let Some(address) = address {
        bind(socket.as_raw_fd(), &address).map_err(fail)?;
    }
    Ok((socket, address.map(|address| address.ifindex()), link))
}

fn copy(place: &Place, socket: &OwnedFd, index: Option<usize>, link: LinkType) -> io::Result<()> {
    let stdout = io::stdout();
    // Packets that come close together are written together.
    let mut out = BufWriter::with_capacity(SNAPLEN, stdout.lock());
    out.write_all(&link.header())?;
    let mut buffer = vec![0; SNAPLEN];
    let mut control = nix::cmsg_space!(TimeSpec);
    loop {
        match receive(socket, &mut buffer, &mut control) {
            Ok(packet) if is_wanted(&packet, index) => {
                let cooked = if link == LinkType::Cooked { cooked(&packet.from) } else { Vec::new() };
                let kept = packet.length.min(SNAPLEN - cooked.len());
                out.write_all(&record(packet.time, kept + cooked.len(), packet.length + cooked.len()))?;
                out.write_all(&cooked)?;
                out.write_all(buffer.get(..kept).unwrap_or_default())?;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                out.flush()?;
                if !wait(place, socket, index, &stdout)? {
                    return Ok(());
                }
            }
            // The interface went down or away.
            Err(Errno::ENETDOWN | Errno::ENXIO) => return out.flush(),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Waits for a packet. False: the reader or the container has gone.
fn wait(place: &Place, socket: &OwnedFd, index: Option<usize>, stdout: &impl AsFd) -> io::Result<bool> {
    loop {
        let mut files =
            [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(stdout.as_fd(), PollFlags::empty())];
        let timeout = if index.is_some() { PollTimeout::NONE } else { PollTimeout::from(LOOK) };
        match poll(&mut files, timeout) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
            Ok(0) if place.path().symlink_metadata().is_err() => return Ok(false),
            Ok(0) => continue,
            Ok(_) => {}
        }
        let events = files.map(|file| file.revents().unwrap_or(PollFlags::empty()));
        return Ok(!events[1].intersects(PollFlags::POLLERR | PollFlags::POLLHUP));
    }
}

struct Packet {
    /// Its real length; what is beyond the buffer is lost.
    length: usize,
    time: TimeSpec,
    from: LinkAddr,
}

fn receive(socket: &OwnedFd, buffer: &mut [u8], control: &mut [u8]) -> nix::Result<Packet> {
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
    let got = recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, Some(control), flags)?;
    let time = got.cmsgs().ok().and_then(|mut all| {
        all.find_map(|one| match one {
            ControlMessageOwned::ScmTimestampns(time) => Some(time),
            _ => None,
        })
    });
    let time = time.map_or_else(|| clock_gettime(ClockId::CLOCK_REALTIME), Ok)?;
    Ok(Packet { length: got.bytes, time, from: got.address.ok_or(Errno::EAFNOSUPPORT)? })
}

/// Not what came before the socket was bound; and of loopback, where each packet passes twice, only the second.
fn is_wanted(packet: &Packet, index: Option<usize>) -> bool {
    const LOOPBACK: u16 = 772;
    const OUTGOING: u8 = 4;
    index.is_none_or(|index| packet.from.ifindex() == index)
        && (packet.from.hatype(), packet.from.pkttype()) != (LOOPBACK, OUTGOING)
}

/// A packet's header: when, how much of it, how long it was.
fn record(time: TimeSpec, kept: usize, length: usize) -> Vec<u8> {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let numbers = [time.tv_sec() as u32, time.tv_nsec() as u32, number(kept), number(length)];
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

/// LINKTYPE_LINUX_SLL2's header, in network byte order.
fn cooked(from: &LinkAddr) -> Vec<u8> {
    // `sll_protocol` comes in network byte order.
    let mut header = from.protocol().to_ne_bytes().to_vec();
    header.extend([0; 2]);
    header.extend((from.ifindex() as u32).to_be_bytes());
    header.extend(from.hatype().to_be_bytes());
    header.push(from.pkttype());
    header.push(from.halen() as u8);
    header.extend(from.addr().unwrap_or_default());
    header.extend([0; 2]);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_long_as_the_format_has_them() {
        let header = LinkType::Ethernet.header();
        assert_eq!((header.len(), header[4], header[6]), (24, 2, 4));
        let time = TimeSpec::new(1_764_540_000, 123_456_789);
        let record = record(time, 60, 1_500);
        assert_eq!(record.len(), 16);
        assert_eq!(record[4..8], 123_456_789_u32.to_ne_bytes());
        assert_eq!(record[8..], [60_u32.to_ne_bytes(), 1_500_u32.to_ne_bytes()].concat());
    }

    #[test]
    fn hardware_without_a_link_type_is_refused() {
        assert_eq!(LinkType::of(1), Some(LinkType::Ethernet));
        assert_eq!(LinkType::of(0xfffe), Some(LinkType::Raw));
        // Radio.
        assert_eq!(LinkType::of(803), None);
    }
}
