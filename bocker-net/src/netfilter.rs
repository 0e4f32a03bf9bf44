//! nf_tables over netlink(7) where it is every run's: questions, published ports, and who may speak on a network with a name, for which
//! starting `nft` would take 3 to 5 ms each time; and connections that are to end. Tables and their rules are nft.rs's.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::{Errno, Result};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with, sockopt,
};

use crate::nft::{Station, TARGETS};
use crate::publish::Port;
use crate::words::Protocol;

// linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_MULTI: u16 = 0x002;
const NLM_F_ACK: u16 = 0x004;
const NLM_F_ECHO: u16 = 0x008;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
/// `NLA_F_NESTED`
const NESTED: u16 = 0x8000;
// linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h
const CTNETLINK: u16 = 1 << 8;
const CT_GET: u16 = CTNETLINK | 1;
const CT_DELETE: u16 = CTNETLINK | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const IPS_DST_NAT: u32 = 1 << 5;
/// NFPROTO_IPV4, which is AF_INET, and NFPROTO_BRIDGE of linux/netfilter.h.
pub(crate) const IPV4: u8 = 2;
pub(crate) const BRIDGE: u8 = 7;

const NFNL_SUBSYS_NFTABLES: u16 = 10 << 8;
const NFT_MSG_GETTABLE: u16 = NFNL_SUBSYS_NFTABLES | 1;
const NFT_MSG_NEWRULE: u16 = NFNL_SUBSYS_NFTABLES | 6;
const NFT_MSG_GETRULE: u16 = NFNL_SUBSYS_NFTABLES | 7;
const NFT_MSG_GETSET: u16 = NFNL_SUBSYS_NFTABLES | 10;
const NFT_MSG_NEWSETELEM: u16 = NFNL_SUBSYS_NFTABLES | 12;
const NFT_MSG_DELSETELEM: u16 = NFNL_SUBSYS_NFTABLES | 14;
/// What stands between these is one transaction.
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
/// NFTA_TABLE_NAME, NFTA_RULE_TABLE and NFTA_SET_ELEM_LIST_TABLE.
const TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_EXPR: u16 = 7;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_COUNTER_PACKETS: u16 = 2;
/// Elements in one message: an attribute has 64 KiB at most, and an error repeats the message.
const ELEMENTS: usize = 500;

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many rules a table has; none where there is no such table, or no nf_tables.
///
/// # Errors
/// The kernel has not answered.
pub(crate) fn rules(family: u8, table: &str) -> Result<usize> {
    let mut rules = 0;
    let counted = open().and_then(|socket| {
        let question = message(NFT_MSG_GETRULE, NLM_F_DUMP, family, &name(table));
        ask(&socket, &question, |kind, _| rules += usize::from(kind == NFT_MSG_NEWRULE))
    });
    match counted {
        Err(Errno::NOENT | Errno::PROTONOSUPPORT | Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PERM) => Ok(0),
        counted => counted.map(|()| rules),
    }
}

/// Whether there is a table of that name.
pub(crate) fn has(family: u8, table: &str) -> bool {
    open().and_then(|socket| ask(&socket, &message(NFT_MSG_GETTABLE, 0, family, &name(table)), |_, _| ())).is_ok()
}

/// Whether there is a set of that name in our table of that family.
pub(crate) fn has_set(family: u8, set: &str) -> bool {
    let names = [name("bocker"), string(NFTA_SET_NAME, set)].concat();
    open().and_then(|socket| ask(&socket, &message(NFT_MSG_GETSET, 0, family, &names), |_, _| ())).is_ok()
}

/// Adds published ports to the maps of the table `ip bocker`, all or none; what is there already may stay. Those that are the relay's
/// are not for it ([`mapped`]).
///
/// # Errors
/// ENOENT: there is no such table. EEXIST: a port leads elsewhere.
pub(crate) fn publish(ports: &[Port]) -> Result<()> {
    transaction(&open()?, elements(NFT_MSG_NEWSETELEM, NLM_F_CREATE, ports), |_, _| ())
}

/// Lets containers speak: adds them to the sets of the table `bridge bocker`, all or none; what is there already may stay.
///
/// # Errors
/// ENOENT: there is no such table.
pub(crate) fn admit(stations: &[Station]) -> Result<()> {
    let socket = open()?;
    let add = |sets: Sets| transaction(&socket, speakers(NFT_MSG_NEWSETELEM, NLM_F_CREATE, sets, stations), |_, _| ());
    match add(Sets::All) {
        Err(Errno::NOENT) => add(Sets::OfOldNft),
        other => other,
    }
}

/// Takes them away, whether they are there or not.
///
/// # Errors
/// As [`admit`].
pub(crate) fn expel(socket: &OwnedFd, stations: &[Station]) -> Result<()> {
    let mut done = Ok(());
    // Where only some of them are there: added, all are.
    for (adds, sets) in [(false, Sets::All), (true, Sets::All), (true, Sets::OfOldNft)] {
        let add = if adds { speakers(NFT_MSG_NEWSETELEM, NLM_F_CREATE, sets, stations) } else { Vec::new() };
        let delete = speakers(NFT_MSG_DELSETELEM, 0, sets, stations);
        done = transaction(socket, [add, delete].concat(), |_, _| ());
        if done != Err(Errno::NOENT) {
            break;
        }
    }
    done
}

/// Takes them away, whether they are there or not, and says whether they may have sent a connection on.
///
/// Whoever closes a socket of nf_tables next, anywhere on the host, waits until the kernel has let go of them: 7 ms and more.
///
/// # Errors
/// As [`publish`].
pub(crate) fn unpublish(socket: &OwnedFd, ports: &[Port]) -> Result<bool> {
    // Every element counts what it has sent on, and the kernel repeats with it what it deletes; of many it is not asked.
    let echo = if ports.len() <= ELEMENTS { NLM_F_ECHO } else { 0 };
    let mut used = echo == 0;
    let delete = |flags| elements(NFT_MSG_DELSETELEM, flags, ports);
    match transaction(socket, delete(echo), |kind, held| used |= kind == NFT_MSG_DELSETELEM && packets(held) != Some(0))
    {
        Err(Errno::NOENT) => {
            let add = elements(NFT_MSG_NEWSETELEM, NLM_F_CREATE, ports);
            transaction(socket, [add, delete(0)].concat(), |_, _| ()).map(|()| true)
        }
        other => other.map(|()| used),
    }
}

/// What the counter of a message's only element says.
fn packets(held: &[u8]) -> Option<u64> {
    let list = attribute(held.get(4..)?, NFTA_SET_ELEM_LIST_ELEMENTS)?;
    let counter = attribute(attribute(list, NFTA_LIST_ELEM)?, NFTA_SET_ELEM_EXPR)?;
    let packets = attribute(attribute(counter, NFTA_EXPR_DATA)?, NFTA_COUNTER_PACKETS)?;
    Some(u64::from_be_bytes(*packets.first_chunk()?))
}

/// A port that the table sends on, and where to; localhost and IPv6 are the relay's.
pub(crate) fn mapped(port: &Port) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let (IpAddr::V4(at), IpAddr::V4(to)) = (port.at.ip(), port.to.ip()) else { return None };
    (!at.is_loopback()).then(|| (SocketAddrV4::new(at, port.at.port()), SocketAddrV4::new(to, port.to.port())))
}

/// One message for each of the two maps, and more for many.
fn elements(kind: u16, flags: u16, ports: &[Port]) -> Vec<Vec<u8>> {
    let (mut everywhere, mut somewhere) = (Vec::new(), Vec::new());
    for (protocol, (at, to)) in ports.iter().filter_map(|port| Some((port.protocol, mapped(port)?))) {
        let number = match protocol {
            Protocol::Tcp => 6_u8,
            Protocol::Udp => 17,
        };
        let own = [[number, 0, 0, 0], service(at.port())].concat();
        let data = [to.ip().octets(), service(to.port())].concat();
        match at.ip().is_unspecified() {
            true => everywhere.push(element(&own, Some(&data))),
            false => somewhere.push(element(&[&at.ip().octets()[..], &own].concat(), Some(&data))),
        }
    }
    let of = |map, all: &[Vec<u8>]| list(kind, flags, IPV4, map, all);
    [of("everywhere", &everywhere), of("somewhere", &somewhere)].concat()
}

/// Which sets the guard has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sets {
    All,
    /// All but [`TARGETS`].
    OfOldNft,
}

/// The same for the sets of the guard, two of which have the same keys.
fn speakers(kind: u16, flags: u16, sets: Sets, stations: &[Station]) -> Vec<Vec<u8>> {
    let (mut four, mut six) = (Vec::new(), Vec::new());
    for Station { port, mac, address } in stations {
        // An `ifname` is IFNAMSIZ bytes, filled with zeros.
        let mut own = port.as_bytes().to_vec();
        own.resize(16, 0);
        own.extend([&mac.0[..], &[0, 0]].concat());
        match address {
            IpAddr::V4(address) => four.push(element(&[&own[..], &address.octets()].concat(), None)),
            IpAddr::V6(address) => six.push(element(&[&own[..], &address.octets()].concat(), None)),
        }
    }
    let of = |set, all: &[Vec<u8>]| list(kind, flags, BRIDGE, set, all);
    let targets = if sets == Sets::All { of(TARGETS, &six) } else { Vec::new() };
    [of("stations", &four), of("stations6", &six), targets].concat()
}

/// Elements of a set or map of a table of ours, in as many messages as they need.
fn list(kind: u16, flags: u16, family: u8, set: &str, all: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let head = [name("bocker"), string(NFTA_SET_ELEM_LIST_SET, set)].concat();
    let each = |some: &[Vec<u8>]| {
        let list = attribute_of(NFTA_SET_ELEM_LIST_ELEMENTS | NESTED, &some.concat());
        message(kind, flags, family, &[&head[..], &list].concat())
    };
    all.chunks(ELEMENTS).map(each).collect()
}

fn service(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// Of a set, or of a map, which has data to each key. Parts of a concatenation begin at multiples of four bytes, in the order of the
/// network.
fn element(key: &[u8], data: Option<&[u8]>) -> Vec<u8> {
    let value = |kind: u16, value: &[u8]| attribute_of(kind | NESTED, &attribute_of(NFTA_DATA_VALUE, value));
    let data = data.map(|data| value(NFTA_SET_ELEM_DATA, data)).unwrap_or_default();
    attribute_of(NFTA_LIST_ELEM | NESTED, &[value(NFTA_SET_ELEM_KEY, key), data].concat())
}

/// All of it or nothing; `each` gets what the kernel has to say of it.
fn transaction(socket: &OwnedFd, mut messages: Vec<Vec<u8>>, each: impl FnMut(u16, &[u8])) -> Result<()> {
    // What fails answers by itself; of what does not, this one: it is the last, and stands for all.
    let Some(last) = messages.last_mut() else { return Ok(()) };
    let flags = u16::from_ne_bytes([last[6], last[7]]) | NLM_F_ACK;
    last[6..8].copy_from_slice(&flags.to_ne_bytes());
    let [begin, end] = [NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END].map(|kind| {
        let mut bound = message(kind, 0, 0, &[]);
        // nfgenmsg.res_id: whose transaction.
        bound[18..20].copy_from_slice(&(NFNL_SUBSYS_NFTABLES >> 8).to_be_bytes());
        bound
    });
    let batch = [begin, messages.concat(), end].concat();
    if batch.len() > 100_000 {
        sockopt::set_socket_send_buffer_size_force(socket, 2 * batch.len())?;
    }
    drain(socket);
    send(socket, &batch, SendFlags::empty())?;
    answers(socket, true, each)
}

/// Forgets the connections that were sent to these addresses, which are another's soon: while they last, the kernel goes on to send
/// what is theirs there, rule or no rule. Where there is no conntrack there are none.
pub(crate) fn forget(socket: &OwnedFd, addresses: &[Ipv4Addr]) {
    let mut found = Vec::new();
    let _ = ask(socket, &message(CT_GET, NLM_F_DUMP, IPV4, &[]), |_, held| {
        found.extend(sent_to(held).filter(|(to, _)| addresses.contains(to)).map(|(_, tuple)| tuple.to_vec()));
    });
    for tuple in found {
        let own = attribute_of(CTA_TUPLE_ORIG | NESTED, &tuple);
        // Gone by itself, perhaps.
        let _ = ask(socket, &message(CT_DELETE, NLM_F_ACK, IPV4, &own), |_, _| ());
    }
}

/// Of a connection that was sent elsewhere than its client meant: where, and its first packet's addresses.
fn sent_to(held: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let held = held.get(4..)?;
    let status = u32::from_be_bytes(*attribute(held, CTA_STATUS)?.first_chunk()?);
    let answers = attribute(attribute(attribute(held, CTA_TUPLE_REPLY)?, CTA_TUPLE_IP)?, CTA_IP_V4_SRC)?;
    let tuple = attribute(held, CTA_TUPLE_ORIG)?;
    (status & IPS_DST_NAT != 0).then_some((Ipv4Addr::from(*answers.first_chunk::<4>()?), tuple))
}

/// Whether it is such a socket.
pub(crate) fn is_one(socket: &OwnedFd) -> bool {
    let ours = matches!(sockopt::socket_protocol(socket), Ok(Some(protocol)) if protocol == netlink::NETFILTER);
    ours && matches!(sockopt::socket_domain(socket), Ok(AddressFamily::NETLINK))
}

/// Forgets answers that somebody did not wait for: each message of a transaction that fails has one.
fn drain(socket: &OwnedFd) {
    while recv(socket, &mut [0_u8][..], RecvFlags::DONTWAIT).is_ok() {}
}

/// A socket to it. The kernel answers at once, or not at all: nobody waits for that longer than [`PATIENCE`].
pub(crate) fn open() -> Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    Ok(socket)
}

/// Sends one question; `each` gets the kind of every message of the answer, and what it holds.
fn ask(socket: &OwnedFd, question: &[u8], each: impl FnMut(u16, &[u8])) -> Result<()> {
    drain(socket);
    send(socket, question, SendFlags::empty())?;
    answers(socket, false, each)
}

/// All of them; with `acked` the last one is an acknowledgement.
fn answers(socket: &OwnedFd, acked: bool, mut each: impl FnMut(u16, &[u8])) -> Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let length = match recv(socket, &mut buffer[..], RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Err(Errno::TIMEDOUT),
            other => other?.0,
        };
        let mut left = buffer.get(..length).unwrap_or_default();
        if left.is_empty() {
            return Err(Errno::PROTO);
        }
        while let Some(Message { kind, is_part, held, rest }) = next(left) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let code = held.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    return if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(-code)) };
                }
                kind => each(kind, held),
            }
            if !is_part && !acked {
                return Ok(());
            }
            left = rest;
        }
    }
}

/// A table's name.
fn name(table: &str) -> Vec<u8> {
    string(TABLE, table)
}

/// A string, with its NUL.
fn string(kind: u16, text: &str) -> Vec<u8> {
    attribute_of(kind, &[text.as_bytes(), &[0]].concat())
}

fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// The first attribute of that kind.
fn attribute(mut all: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*all.first_chunk()?));
        let kind = u16::from_ne_bytes(*all.get(2..)?.first_chunk()?);
        let value = all.get(4..length)?;
        if kind & !NESTED == wanted {
            return Some(value);
        }
        all = all.get(length.next_multiple_of(4)..)?;
    }
}

fn message(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    // struct nlmsghdr: length, kind, flags, sequence, port
    let mut message = ((20 + attributes.len()) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend([0; 8]);
    // struct nfgenmsg: the family, a version of 0, a resource id of 0.
    message.extend([family, 0, 0, 0]);
    message.extend(attributes);
    message
}

/// A message of an answer, and what comes behind it.
#[derive(Debug, PartialEq, Eq)]
struct Message<'a> {
    kind: u16,
    /// Others belong to it.
    is_part: bool,
    held: &'a [u8],
    rest: &'a [u8],
}

fn next(buffer: &[u8]) -> Option<Message<'_>> {
    let length = u32::from_ne_bytes(*buffer.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*buffer.get(4..)?.first_chunk()?);
    let flags = u16::from_ne_bytes(*buffer.get(6..)?.first_chunk()?);
    let held = buffer.get(16..length)?;
    let rest = buffer.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some(Message { kind, is_part: flags & NLM_F_MULTI != 0, held, rest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subnet::Mac;

    #[test]
    fn a_question_is_a_message_of_its_length() {
        let message = message(NFT_MSG_GETRULE, NLM_F_DUMP, 2, &name("bocker"));
        assert_eq!(message.len(), 32);
        let held = &b"\x02\0\0\0\x0b\0\x01\0bocker\0\0"[..];
        assert_eq!(next(&message), Some(Message { kind: 0x0a07, is_part: false, held, rest: &[] }));
    }

    #[test]
    fn published_ports_are_elements_of_two_maps() {
        let ports =
            ["tcp\t0.0.0.0:8080\t10.0.0.45:80", "udp\t192.0.2.1:53\t10.0.0.45:5353", "tcp\t127.0.0.1:1\t10.0.0.45:1"];
        let ports: Vec<Port> = ports.iter().map(|line| line.parse().unwrap()).collect();
        let [everywhere, somewhere] = &elements(NFT_MSG_NEWSETELEM, 0, &ports)[..] else { panic!() };
        let of = |message: &[u8]| {
            let Message { kind, held, .. } = next(message).unwrap();
            let (held, value) =
                (&held[4..], |all: &[u8], kind| attribute(attribute(all, kind)?, NFTA_DATA_VALUE).map(<[u8]>::to_vec));
            let one = attribute(attribute(held, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap(), NFTA_LIST_ELEM).unwrap();
            let map = attribute(held, NFTA_SET_ELEM_LIST_SET).unwrap().to_vec();
            (kind, map, value(one, NFTA_SET_ELEM_KEY).unwrap(), value(one, NFTA_SET_ELEM_DATA).unwrap())
        };
        let tcp = (0x0a0c, b"everywhere\0".to_vec(), vec![6, 0, 0, 0, 31, 144, 0, 0], vec![10, 0, 0, 45, 0, 80, 0, 0]);
        assert_eq!(of(everywhere), tcp);
        let at = [&[192, 0, 2, 1][..], &[17, 0, 0, 0], &[0, 53, 0, 0]].concat();
        assert_eq!(of(somewhere), (0x0a0c, b"somewhere\0".to_vec(), at, vec![10, 0, 0, 45, 20, 233, 0, 0]));
        let many = vec![ports[0]; 1200];
        assert_eq!(elements(NFT_MSG_DELSETELEM, 0, &many).len(), 3);
        assert!(elements(NFT_MSG_NEWSETELEM, 0, &many).iter().all(|message| message.len() < 32 << 10));
    }

    #[test]
    fn who_may_speak_is_an_element_of_the_sets() {
        let station = |address: &str| Station {
            port: "veth0_ps_42045".into(),
            mac: Mac([2, 66, 10, 1, 0, 2]),
            address: address.parse().unwrap(),
        };
        let messages = speakers(NFT_MSG_NEWSETELEM, 0, Sets::All, &[station("10.1.0.2"), station("fd00::2")]);
        let key = |message: &[u8]| {
            let Message { held, .. } = next(message).unwrap();
            assert_eq!(held[0], BRIDGE);
            let all = attribute(&held[4..], NFTA_SET_ELEM_LIST_ELEMENTS).unwrap();
            let one = attribute(all, NFTA_LIST_ELEM).unwrap();
            assert_eq!(attribute(one, NFTA_SET_ELEM_DATA), None);
            let set = attribute(&held[4..], NFTA_SET_ELEM_LIST_SET).unwrap().to_vec();
            (set, attribute(attribute(one, NFTA_SET_ELEM_KEY).unwrap(), NFTA_DATA_VALUE).unwrap().to_vec())
        };
        let own = [&b"veth0_ps_42045\0\0"[..], &[2, 66, 10, 1, 0, 2, 0, 0]].concat();
        assert_eq!(key(&messages[0]), (b"stations\0".to_vec(), [&own[..], &[10, 1, 0, 2]].concat()));
        let six = [[0xfd, 0], [0, 0], [0, 0], [0, 0], [0, 0], [0, 0], [0, 0], [0, 2]].concat();
        assert_eq!(key(&messages[1]), (b"stations6\0".to_vec(), [&own[..], &six].concat()));
        assert_eq!(key(&messages[2]), (b"targets6\0".to_vec(), [own, six].concat()));
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        let message = message(NFT_MSG_GETTABLE, 0, 7, &name("x"));
        for length in 0..message.len() {
            assert_eq!(next(&message[..length]), None);
        }
        assert_eq!(next(&[8, 0, 0, 0, 2, 0, 0, 0]), None);
    }

    #[test]
    fn an_attribute_is_found_within_its_bounds() {
        let all = [attribute_of(1 | NESTED, &attribute_of(7, b"abc")), attribute_of(3, b"defg")].concat();
        assert_eq!(attribute(attribute(&all, 1).unwrap(), 7), Some(&b"abc"[..]));
        assert_eq!(attribute(&all, 3), Some(&b"defg"[..]));
        assert_eq!(attribute(&all, 2), None);
        for length in 0..all.len() {
            assert_eq!(attribute(&all[..length], 3), None);
        }
        // Of no length: not for ever.
        assert_eq!(attribute(&[0; 16], 3), None);
    }
}
