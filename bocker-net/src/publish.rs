//! Published ports: bound on the host before anything starts, written down while the container runs, given to the kernel's maps and to the relay.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use bocker_common::say::{Said, quote};
use bocker_common::{Error, Id, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
    bind, getsockname, listen, recv, sendmsg, shutdown, socket_with, socketpair, sockopt,
};
use rustix::process::{
    Flock, FlockOffsetType, FlockType, Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, Signal, fcntl_getlk,
    getrlimit, pidfd_getfd, pidfd_open, pidfd_send_signal, setrlimit,
};

use crate::act::Act;
use crate::netfilter::{self, mapped};
use crate::state::{self, directory};
use crate::words::{Ports, Protocol, Publish, Words};

/// In a container's directory: its published ports, one a line, and the relay's lock.
const PORTS: &str = "ports";
/// Descriptors in one message, `SCM_MAX_FD` of unix(7) is 253.
pub(crate) const BATCH: usize = 128;
/// What the relay's stdin becomes.
const RELAYS_SOCKET: RawFd = 0;
/// How long the relay may take to be there, or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// One published port. As a line: `tcp`, the host's address, the container's, parted by tabs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) protocol: Protocol,
    /// On the host.
    pub(crate) at: SocketAddr,
    /// In the container.
    pub(crate) to: SocketAddr,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\t{}\t{}", self.protocol, self.at, self.to)
    }
}

impl FromStr for Port {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let words: Vec<&str> = line.split('\t').collect();
        let [protocol, at, to] = words[..] else { return Err(()) };
        Ok(Self {
            protocol: protocol.parse().map_err(drop)?,
            at: at.parse().map_err(drop)?,
            to: to.parse().map_err(drop)?,
        })
    }
}

impl Port {
    /// As `docker ps` has it: `0.0.0.0:8080->80/tcp`
    pub(crate) fn arrow(&self) -> String {
        format!("{}->{}/{}", self.at, self.to.port(), self.protocol)
    }
}

/// Ports that are ours: while these sockets are open, nobody else gets them.
#[derive(Debug, Default)]
pub(crate) struct Claimed {
    pub(crate) ports: Vec<Port>,
    pub(crate) sockets: Vec<OwnedFd>,
}

/// What is to be published: what was said, then with publish-all what is exposed besides.
///
/// # Errors
/// The image's configuration cannot be read.
pub(crate) fn wanted(words: &Words) -> Result<Vec<Publish>> {
    let mut all: Vec<Publish> = Vec::new();
    for one in &words.publish {
        if !all.contains(one) {
            all.push(one.clone());
        }
    }
    if words.publish_all {
        let exposed = words.config.as_deref().map_or_else(|| Ok(Vec::new()), exposed_by)?;
        for Ports { ports, protocol } in words.expose.iter().cloned().chain(exposed) {
            for inside in ports {
                if !all.iter().any(|one| (one.inside, one.protocol) == (inside, protocol)) {
                    all.push(Publish { address: None, host: None, inside, protocol });
                }
            }
        }
    }
    Ok(all)
}

/// The ports that an image's configuration names, in its order. What we cannot publish (sctp) stays unpublished.
fn exposed_by(file: &Path) -> Result<Vec<Ports>> {
    const MOST: u64 = 16 << 20;
    let fail = |why: String| Error::new("read", file.display(), why);
    let mut text = Vec::new();
    let read = File::open(file).and_then(|opened| opened.take(MOST).read_to_end(&mut text));
    read.map_err(|e| Error::new("read", file.display(), e))?;
    let config: serde_json::Value = serde_json::from_slice(&text).map_err(|e| fail(e.to_string()))?;
    let exposed = config.pointer("/config/ExposedPorts").and_then(|ports| ports.as_object());
    let ports = exposed.into_iter().flat_map(|ports| ports.keys());
    ports
        .filter(|port| !port.ends_with("/sctp"))
        .map(|port| port.parse().map_err(|e: Error| fail(format!("ExposedPorts: {e}"))))
        .collect()
}

/// Binds them all, or none.
///
/// # Errors
/// The first that cannot be had, and who has it or how to find out.
pub(crate) fn claim(publish: &[Publish], container: Ipv4Addr) -> Result<Claimed> {
    let mut claimed = Claimed::default();
    if !publish.is_empty() {
        all_descriptors();
    }
    for one in publish {
        let address = one.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let range = one.host.clone().unwrap_or(0..=0);
        let alone = range.start() == range.end();
        let mut tried = range.clone().map(|port| {
            let at = SocketAddr::new(address, port);
            open(one.protocol, at).map_err(|e| (e, at))
        });
        let found = loop {
            match tried.next() {
                Some(Err((Errno::ADDRINUSE, _))) if !alone => {}
                Some(other) => break other.map_err(|(errno, at)| refused(one.protocol, at, errno))?,
                None => {
                    let (first, last) = (range.start(), range.end());
                    let what = format!("{address}:{first}-{last}/{}", one.protocol);
                    return Err(Error::new("publish", what, "none of them is free"));
                }
            }
        };
        let at = getsockname(&found).ok().and_then(|at| SocketAddr::try_from(at).ok());
        let at = at.ok_or_else(|| Error::new("publish", address, "no address"))?;
        claimed.ports.push(Port { protocol: one.protocol, at, to: SocketAddr::new(container.into(), one.inside) });
        claimed.sockets.push(found);
    }
    Ok(claimed)
}

fn open(protocol: Protocol, at: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if at.is_ipv6() {
        // 0.0.0.0 is another word's.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        // Connections of the one before may still be in TIME_WAIT; two that listen there are never.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &at)?;
    if protocol == Protocol::Tcp {
        listen(&socket, i32::MAX)?;
    }
    Ok(socket)
}

fn refused(protocol: Protocol, at: SocketAddr, errno: Errno) -> Error {
    let error = Error::new("publish", format!("{at}/{protocol}"), io::Error::from(errno));
    match (errno, protocol) {
        (Errno::ADDRINUSE, Protocol::Tcp) => error.hint(format!("ss -ltnp 'sport = :{}' shows by whom", at.port())),
        (Errno::ADDRINUSE, Protocol::Udp) => error.hint(format!("ss -lunp 'sport = :{}' shows by whom", at.port())),
        (Errno::ADDRNOTAVAIL, _) => error.hint("ip address shows this host's own"),
        (Errno::MFILE, _) => error.hint("ulimit -Hn is how many one process may have"),
        _ => error,
    }
}

/// As many descriptors as we may have; the relay has two for each connection.
pub(crate) fn all_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// What the container has published; nothing where nobody wrote it down.
pub(crate) fn of(id: Id) -> Vec<Port> {
    let text = std::fs::read_to_string(directory(id).join(PORTS)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The containers' addresses that they lead to: most often one.
pub(crate) fn targets(ports: &[Port]) -> Vec<Ipv4Addr> {
    let mut all: Vec<Ipv4Addr> = Vec::new();
    for port in ports {
        if let IpAddr::V4(to) = port.to.ip() {
            if !all.contains(&to) {
                all.push(to);
            }
        }
    }
    all
}

/// What `up` does besides, before its last act, which says the address.
pub(crate) fn plan_up(id: Id, ports: &[Port], with_nat: bool) -> Vec<Act> {
    if ports.is_empty() {
        return Vec::new();
    }
    let mut plan = vec![Act::Relay(id, ports.to_vec())];
    if with_nat && ports.iter().any(|port| mapped(port).is_some()) {
        // br_netfilter: the bridge itself then sends on what is for one of its ports, but never by the port it came from.
        if std::fs::read("/proc/sys/net/bridge/bridge-nf-call-iptables").is_ok_and(|value| value == b"1\n") {
            plan.push(Act::Hairpin(id));
        }
        plan.push(Act::Publish(id, ports.to_vec()));
    }
    plan
}

/// What `down` does before all else, so that nobody is sent to a container that is going.
pub(crate) fn plan_down(id: Id, with_nat: bool) -> Vec<Act> {
    let ports = of(id);
    let mut plan = Vec::new();
    if with_nat && ports.iter().any(|port| mapped(port).is_some()) {
        plan.push(Act::Unpublish(id, ports));
    }
    if directory(id).join(PORTS).symlink_metadata().is_ok() {
        plan.push(Act::EndRelay(id));
    }
    plan
}

/// Writes the ports down and starts the process that holds their sockets.
///
/// # Errors
/// No room in /run, or a relay is there already.
pub(crate) fn start(id: Id, ports: &[Port], sockets: Vec<OwnedFd>) -> Result<Starting> {
    let directory = directory(id);
    let path = directory.join(PORTS);
    let fail = |e: io::Error| Error::new("write", path.display(), e);
    state::make(&directory)?;
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o644).open(&path).map_err(fail)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let error = Error::new("publish", id, "its relay is still there");
        return Err(error.hint(format!("bocker-net down {id} ends it")));
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(fail)?;
    let text: String = ports.iter().map(|port| format!("{port}\n")).collect();
    file.write_all(text.as_bytes()).map_err(fail)?;
    spawn(id, &file, &sockets).map_err(|e| Error::new("start", format!("the relay of {id}"), e))
}

/// The relay is this program anew, by exec: without our memory and our sockets of netlink, one of which would keep the container's
/// namespace. The descriptors go to it over its stdin, unix(7): so none is ever open across an exec by accident.
fn spawn(id: Id, file: &File, sockets: &[OwnedFd]) -> io::Result<Starting> {
    let (ours, its) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // By its path, so that it is called bocker-net and not exe, unless that has been replaced.
    let path = std::env::current_exe().ok().filter(|path| path.exists());
    Command::new(path.unwrap_or_else(|| "/proc/self/exe".into()))
        .arg0("bocker-net")
        .args(["relay", &id.to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(its))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let all: Vec<BorrowedFd<'_>> = std::iter::once(file.as_fd()).chain(sockets.iter().map(|one| one.as_fd())).collect();
    for batch in all.chunks(BATCH) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(batch));
        sendmsg(&ours, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    }
    shutdown(&ours, Shutdown::Write)?;
    Ok(Starting(ours))
}

/// A relay of which nobody knows yet whether it works: that takes it a millisecond, in which there is other work.
#[derive(Debug)]
pub(crate) struct Starting(OwnedFd);

impl Starting {
    /// Waits until it does, and has a session of its own: a Ctrl-C that comes before is for all of us.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn wait(self) -> Result<()> {
        let fail = |e: io::Error| Error::new("start", "the relay of published ports", e);
        sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Recv, Some(PATIENCE)).map_err(|e| fail(e.into()))?;
        match recv(&self.0, &mut [0_u8][..], RecvFlags::empty()) {
            Ok((1, _)) => Ok(()),
            Ok(_) => Err(fail(io::Error::other("it ended at once"))),
            Err(errno) => Err(fail(errno.into())),
        }
    }
}

/// The lock that the relay has on the whole file, fcntl_locking(2): it says whose it is.
fn whole(typ: FlockType) -> Flock {
    Flock { start: 0, length: 0, pid: None, typ, offset_type: FlockOffsetType::Set }
}

/// Ends the relay, waits until it has ended and so the ports are free, and removes what was written down.
///
/// # Errors
/// It cannot be found or does not end.
pub(crate) fn end(id: Id) -> Result<()> {
    let path = directory(id).join(PORTS);
    let fail = |e: io::Error| Error::new("end", format!("the relay of {id}"), e);
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(fail)?,
    };
    let (begun, until) = (Instant::now(), Instant::now() + PATIENCE);
    // Who has it is asked of the lock's other kind, which the relay takes when it begins: until then, and while it ends, we wait.
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        // It is told, and after a while not asked any more.
        let signal = if begun.elapsed() < PATIENCE / 20 { Signal::TERM } else { Signal::KILL };
        kill(&file, signal).map_err(|e| fail(e.into()))?;
        if Instant::now() > until {
            return Err(fail(io::Error::other("it does not end")).hint(format!("fuser -v {} shows it", path.display())));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    match std::fs::remove_file(&path) {
        // Another `down` of the same container was quicker.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        done => done.map_err(|e| Error::new("remove", path.display(), e))?,
    }
    // With what others keep there it stays.
    let _ = std::fs::remove_dir(directory(id));
    Ok(())
}

/// The relay's socket to nf_tables, which goes with it, so that it is the kernel's part of its end, and not ours, to wait for what is
/// deleted there. None where there is no relay, or somebody has it (two who ask by the same one would get each other's answers). With it
/// a file that is to stay open meanwhile: it says that we have it.
pub(crate) fn lent(id: Id) -> Option<(OwnedFd, File)> {
    let held = File::open(directory(id)).ok()?;
    flock(&held, FlockOperation::NonBlockingLockExclusive).ok()?;
    let file = OpenOptions::new().read(true).write(true).open(directory(id).join(PORTS)).ok()?;
    let process = relay(&file).ok()??;
    let socket = pidfd_getfd(&process, RELAYS_SOCKET, PidfdGetfdFlags::empty()).ok()?;
    netfilter::is_one(&socket).then_some((socket, held))
}

/// Sends it to the relay that has the file, if one has.
fn kill(file: &File, signal: Signal) -> Result<(), Errno> {
    relay(file)?.map_or(Ok(()), |process| pidfd_send_signal(&process, signal))
}

/// The relay that has the file, by a descriptor.
fn relay(file: &File) -> Result<Option<OwnedFd>, Errno> {
    let Some(pid) = holder(file)? else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        // It is the one that we mean only if it still has the lock: a number may have passed to another process.
        Ok(process) => Ok(Some(process).filter(|_| holder(file) == Ok(Some(pid)))),
        Err(Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn holder(file: &File) -> Result<Option<Pid>, Errno> {
    Ok(fcntl_getlk(file, &whole(FlockType::WriteLock))?.and_then(|lock| lock.pid))
}

/// The relay in the words of socat(1): a process for each port, and the file in its hand by which `down` finds it.
pub(crate) fn say_start(id: Id, ports: &[Port]) -> Said {
    let path = directory(id).join(PORTS);
    let path = quote(&path);
    let lines: String = ports.iter().map(|port| format!("{port}\n")).collect();
    let relays: Vec<String> = ports
        .iter()
        .map(|port| {
            let (name, six) = match (port.protocol, port.at.is_ipv4()) {
                (Protocol::Tcp, true) => ("TCP4", ""),
                (Protocol::Tcp, false) => ("TCP6", ",ipv6only"),
                (Protocol::Udp, true) => ("UDP4", ""),
                (Protocol::Udp, false) => ("UDP6", ",ipv6only"),
            };
            let (to, ip) = (port.to, port.at.ip());
            let ip = if ip.is_ipv4() { ip.to_string() } else { format!("[{ip}]") };
            let target = &name[..3];
            format!(
                "setsid socat {name}-LISTEN:{},bind={ip}{six},reuseaddr,fork {target}4:{to} <{path} >/dev/null 2>&1 &",
                port.at.port()
            )
        })
        .collect();
    Said::new(
        format!("{}\ncat >{path} <<'EOF'\n{lines}EOF\n{}", state::say_make(id), relays.join("\n")),
        "so that nobody else gets the port, and for localhost, which nft does not send away; \
         bocker-net's own relay is one process, and has bound its ports before all else",
    )
}

/// And its end.
pub(crate) fn say_end(id: Id) -> Said {
    let (directory, path) = (quote(directory(id)), quote(directory(id).join(PORTS)));
    Said::new(
        format!("fuser -s -k {path} || :\nrm -f {path}\nrmdir {directory} 2>/dev/null || :"),
        "whoever has the list of ports in its hand is the relay",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Word;

    fn words(texts: &[&str]) -> Words {
        Words::of(texts.iter().map(|text| text.parse::<Word>().unwrap())).unwrap()
    }

    fn claim_of(texts: &[&str]) -> Result<Claimed> {
        claim(&wanted(&words(texts)).unwrap(), Ipv4Addr::new(10, 0, 0, 45))
    }

    #[test]
    fn a_line_is_a_port() {
        for line in ["tcp\t0.0.0.0:8080\t10.0.0.45:80", "udp\t[::1]:53\t10.0.0.45:53"] {
            assert_eq!(line.parse::<Port>().unwrap().to_string(), line);
        }
        for line in
            ["", "tcp", "tcp\t0.0.0.0:8080", "sctp\t0.0.0.0:1\t10.0.0.45:1", "tcp\t0.0.0.0:8080\t10.0.0.45:80\t"]
        {
            assert!(line.parse::<Port>().is_err(), "{line}");
        }
        assert_eq!("tcp\t0.0.0.0:8080\t10.0.0.45:80".parse::<Port>().unwrap().arrow(), "0.0.0.0:8080->80/tcp");
    }

    #[test]
    fn a_port_is_ours_alone_and_free_again() {
        // An address that no other test connects from: its port would not be free for a while.
        let first = claim_of(&["publish=127.0.0.4::80", "publish=127.0.0.4::53/udp"]).unwrap();
        let (tcp, udp) = (first.ports[0], first.ports[1]);
        assert!(tcp.at.port() >= 1024 && udp.at.port() >= 1024);
        assert_eq!(tcp.to.to_string(), "10.0.0.45:80");
        for (port, flag) in [(tcp, 't'), (udp, 'u')] {
            let word = format!("publish=127.0.0.4:{}:80/{}", port.at.port(), port.protocol);
            let error = claim_of(&[&word]).unwrap_err().to_string();
            let expected = format!(
                "publish {}/{}: Address already in use (ss -l{flag}np 'sport = :{}' shows by whom)",
                port.at,
                port.protocol,
                port.at.port()
            );
            assert_eq!(error, expected);
        }
        // All or none: the one that could be had is free again.
        let mine = format!("publish=127.0.0.4:{}:80", tcp.at.port());
        assert!(claim_of(&["publish=127.0.0.2:1-65535:80", &mine]).is_err());
        drop(first);
        claim_of(&[&mine]).unwrap();
    }

    #[test]
    fn of_a_range_the_first_that_is_free() {
        let first = claim_of(&["publish=127.0.0.3:40000-40002:80"]).unwrap();
        let second = claim_of(&["publish=127.0.0.3:40000-40002:80"]).unwrap();
        let third = claim_of(&["publish=127.0.0.3:40000-40002:80"]).unwrap();
        let all = [&first, &second, &third].map(|claimed| claimed.ports[0].at.port());
        assert_eq!(all, [40000, 40001, 40002]);
        let error = claim_of(&["publish=127.0.0.3:40000-40002:80"]).unwrap_err().to_string();
        assert_eq!(error, "publish 127.0.0.3:40000-40002/tcp: none of them is free");
        let error = claim_of(&["publish=203.0.113.1:8080:80"]).unwrap_err().to_string();
        assert!(error.contains("(ip address shows"), "{error}");
    }

    #[test]
    fn what_an_image_exposes_is_published_once() {
        let file = std::env::temp_dir().join(format!("bocker-net-config-{}", std::process::id()));
        let config = format!("config={}", file.display());
        let all = ["publish=8080:80", "publish=8080:80", "publish-all=yes", "expose=80", "expose=9000-9001", &config];
        let inside =
            || wanted(&words(&all)).map(|all| all.iter().map(|one| (one.inside, one.protocol)).collect::<Vec<_>>());
        std::fs::write(&file, r#"{"config":{"ExposedPorts":{"53/udp":{},"9000/tcp":{},"7/sctp":{}}}}"#).unwrap();
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        assert_eq!(inside().unwrap(), [(80, tcp), (9000, tcp), (9001, tcp), (53, udp)]);
        for (bad, why) in [(r#"{"config":{"ExposedPorts":{"8\u001b[2J0":{}}}}"#, "not a port"), ("{", "EOF")] {
            std::fs::write(&file, bad).unwrap();
            let error = inside().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        std::fs::write(&file, r#"{"config":{"ExposedPorts":null}}"#).unwrap();
        assert_eq!(inside().unwrap().len(), 3);
        std::fs::remove_file(&file).unwrap();
        assert!(inside().is_err());
    }
}
