//! The relay: one small process for a container with published ports. It has bound them on the host, and carries what comes by its
//! sockets to the container: that is what nft does not, localhost and IPv6, or everything where the kernel has no NAT.
//!
//! It ends when `down` ends it, or when the container's name in /run/netns goes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use bocker_common::{Error, Id, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{Timespec, epoll};
use rustix::fs::{FlockOperation, fcntl_lock, inotify};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, SocketFlags,
    SocketType, connect, recv, recvmsg, socket_with, sockopt,
};
use rustix::process::{Resource, getrlimit, setsid};
use rustix::stdio::dup2_stdin;

use crate::publish::{self, BATCH, Port};
use crate::words::Protocol;
use crate::{namespace, netfilter};

/// After so long without a packet a client of UDP is forgotten; docker's relay has the same.
const IDLE: Duration = Duration::from_secs(90);
/// At most so many connections, and clients of UDP, at a time.
const MOST: usize = 4096;
/// What is read at once; all connections share it.
const CHUNK: usize = 64 << 10;

/// Takes over what `publish::start` sends, and relays until the container's name is gone.
///
/// # Errors
/// It was not started as it should be, or epoll fails; nobody reads this, for stderr is closed.
pub(crate) fn run(id: Id) -> Result<()> {
    let _ = setsid();
    publish::all_descriptors();
    let (file, sockets) = inherited().map_err(|e| Error::new("take", "the sockets", e))?;
    let ports = publish::of(id);
    if sockets.len() != ports.len() {
        return Err(Error::plain("not a socket for each port"));
    }
    // Says whose the file is: fcntl_locking(2). It goes with this process, however that ends, or when it closes the file once more:
    // from here on nothing opens it.
    fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|e| Error::new("lock", "ports", io::Error::from(e)))?;
    let listeners = ports.into_iter().zip(sockets);
    let mut relay = Relay::new(id, listeners).map_err(|e| Error::new("relay", id, e))?;
    // `up` waits for this.
    rustix::net::send(io::stdin().as_fd(), &[1], SendFlags::NOSIGNAL)
        .map_err(|e| Error::new("answer", "up", io::Error::from(e)))?;
    // For `down`, publish.rs; where the kernel has no nf_tables there is none.
    let _ = netfilter::open().and_then(|socket| dup2_stdin(&socket));
    let done = relay.go().map_err(|e| Error::new("relay", id, e));
    // `down` waits for the ports, and then for the file: not for the ends of inotify and of nf_tables, which take the kernel 15 ms.
    relay.listeners.clear();
    relay.connections.clear();
    relay.datagrams.clear();
    drop(file);
    done
}

/// The file of ports, then a socket for each line of it, from stdin.
fn inherited() -> io::Result<(File, Vec<OwnedFd>)> {
    let stdin = io::stdin();
    let mut all = Vec::new();
    loop {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(stdin.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                all.extend(descriptors);
            }
        }
        if got.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("some were lost"));
        }
        if got.bytes == 0 {
            break;
        }
    }
    if all.is_empty() {
        return Err(io::Error::other("none came"));
    }
    Ok((File::from(all.remove(0)), all))
}

/// By TERM it ends as soon as it can, with its ports before all else: those must not wait for what `down` leaves to it.
fn told_to_end() -> io::Result<SignalFd> {
    let told = SigSet::from_iter([Signal::SIGTERM]);
    told.thread_block()?;
    Ok(SignalFd::with_flags(&told, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

enum Listener {
    Tcp(TcpListener, SocketAddr),
    Udp(UdpSocket, SocketAddr),
}

/// What an event is about: its number in epoll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Names,
    Told,
    Listener(usize),
    Client(u64),
    Container(u64),
    Datagrams(u64),
}

impl Token {
    fn number(self) -> u64 {
        match self {
            Self::Names => 0,
            Self::Listener(at) => (at as u64) << 3 | 1,
            Self::Client(number) => number << 3 | 2,
            Self::Container(number) => number << 3 | 3,
            Self::Datagrams(number) => number << 3 | 4,
            Self::Told => 5,
        }
    }

    fn of(number: u64) -> Self {
        match (number & 7, number >> 3) {
            (1, at) => Self::Listener(at as usize),
            (2, number) => Self::Client(number),
            (3, number) => Self::Container(number),
            (4, number) => Self::Datagrams(number),
            (5, _) => Self::Told,
            _ => Self::Names,
        }
    }
}

struct Relay {
    id: Id,
    epoll: OwnedFd,
    names: OwnedFd,
    _told: SignalFd,
    listeners: Vec<Listener>,
    /// Too many connections: nobody is accepted until one ends; who comes meanwhile waits in the kernel's queue.
    full: bool,
    most: usize,
    connections: HashMap<u64, Connection>,
    datagrams: HashMap<u64, Datagrams>,
    by_client: HashMap<(usize, SocketAddr), u64>,
    /// Never used twice, so that an event that comes late is about nobody.
    last: u64,
    buffer: Vec<u8>,
}

/// A client of UDP: a socket of its own towards the container, so that answers find back.
struct Datagrams {
    listener: usize,
    client: SocketAddr,
    socket: UdpSocket,
    used: Instant,
}

impl Relay {
    fn new(id: Id, listeners: impl Iterator<Item = (Port, OwnedFd)>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let names = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let goes = inotify::WatchFlags::DELETE | inotify::WatchFlags::MOVED_FROM;
        inotify::add_watch(&names, namespace::DIRECTORY, goes)?;
        epoll::add(&epoll, &names, data(Token::Names), epoll::EventFlags::IN)?;
        let told = told_to_end()?;
        epoll::add(&epoll, &told, data(Token::Told), epoll::EventFlags::IN)?;
        let listeners: Vec<Listener> = listeners
            .map(|(port, socket)| match port.protocol {
                Protocol::Tcp => Listener::Tcp(socket.into(), port.to),
                Protocol::Udp => Listener::Udp(socket.into(), port.to),
            })
            .collect();
        for (at, listener) in listeners.iter().enumerate() {
            epoll::add(&epoll, listener, data(Token::Listener(at)), epoll::EventFlags::IN)?;
        }
        // Two for each connection; some for what else we have.
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX).saturating_sub(listeners.len() + 16);
        Ok(Self {
            id,
            epoll,
            names,
            _told: told,
            listeners,
            full: false,
            most: MOST.min(descriptors / 3).max(1),
            connections: HashMap::new(),
            datagrams: HashMap::new(),
            by_client: HashMap::new(),
            last: 0,
            buffer: Vec::new(),
        })
    }

    fn go(&mut self) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        // The watch has begun, so it is seen from here on.
        while namespace::exists(self.id) {
            self.forget_idle();
            let timeout = self.oldest().map(|used| {
                let left = IDLE.saturating_sub(used.elapsed());
                Timespec { tv_sec: left.as_secs() as i64 + 1, tv_nsec: 0 }
            });
            // Between bursts nothing of it is kept.
            if self.connections.is_empty() && self.datagrams.is_empty() {
                self.buffer = Vec::new();
            }
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            self.buffer.resize(CHUNK, 0);
            for event in &events {
                match Token::of(event.data.u64()) {
                    Token::Names => self.drain_names(),
                    Token::Told => return Ok(()),
                    Token::Listener(at) => self.ready(at),
                    Token::Client(number) | Token::Container(number) => self.step(number),
                    Token::Datagrams(number) => self.answers(number),
                }
            }
        }
        Ok(())
    }

    /// What went is asked of the directory itself.
    fn drain_names(&mut self) {
        while rustix::io::read(&self.names, &mut self.buffer[..]).is_ok_and(|length| length > 0) {}
    }

    fn ready(&mut self, at: usize) {
        match self.listeners.get(at) {
            Some(Listener::Tcp(..)) => self.accept(at),
            Some(Listener::Udp(..)) => self.questions(at),
            None => {}
        }
    }

    fn accept(&mut self, at: usize) {
        let Some(Listener::Tcp(listener, to)) = self.listeners.get(at) else { return };
        if self.connections.len() >= self.most {
            return self.pause(true);
        }
        let (client, to) = match listener.accept() {
            Ok((client, _)) => (client, *to),
            // Without a descriptor to spare it would be ready for ever.
            Err(e) if matches!(e.raw_os_error(), Some(code) if is_shortage(code)) => return self.pause(true),
            Err(_) => return,
        };
        let number = self.number();
        let Ok(mut connection) = Connection::begin(client, to) else { return };
        if connection.interest(&self.epoll, number).is_ok() {
            self.connections.insert(number, connection);
        }
    }

    /// No more, or again.
    fn pause(&mut self, full: bool) {
        if full && self.connections.is_empty() {
            // Nothing of ours will end soon.
            std::thread::sleep(Duration::from_millis(50));
            return;
        }
        if self.full == full {
            return;
        }
        self.full = full;
        let flags = if full { epoll::EventFlags::empty() } else { epoll::EventFlags::IN };
        for (at, listener) in self.listeners.iter().enumerate() {
            if matches!(listener, Listener::Tcp(..)) {
                let _ = epoll::modify(&self.epoll, listener, data(Token::Listener(at)), flags);
            }
        }
    }

    fn step(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let goes_on = connection.step(&mut self.buffer).and_then(|goes_on| {
            if goes_on {
                connection.interest(&self.epoll, number)?;
            }
            Ok(goes_on)
        });
        match goes_on {
            Ok(true) => return,
            Ok(false) => drop(self.connections.remove(&number)),
            // The other side learns that it did not end well.
            Err(_) => {
                if let Some(connection) = self.connections.remove(&number) {
                    connection.reset();
                }
            }
        }
        if self.full {
            self.pause(false);
        }
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// From clients to the container; not for ever, so that one port does not keep the others waiting.
    fn questions(&mut self, at: usize) {
        for _ in 0..64 {
            let Some(Listener::Udp(listener, to)) = self.listeners.get(at) else { return };
            // Truncation is impossible: a datagram has less than 64 KiB.
            let Ok((length, client)) = listener.recv_from(&mut self.buffer) else { return };
            let to = *to;
            let number = match self.by_client.get(&(at, client)) {
                Some(number) => *number,
                None => match self.begin_datagrams(at, client, to) {
                    Ok(number) => number,
                    Err(_) => continue,
                },
            };
            if let (Some(datagrams), Some(datagram)) = (self.datagrams.get_mut(&number), self.buffer.get(..length)) {
                datagrams.used = Instant::now();
                // Lost, as datagrams are: nobody is there, or its queue is full.
                let _ = datagrams.socket.send(datagram);
            }
        }
    }

    fn begin_datagrams(&mut self, listener: usize, client: SocketAddr, to: SocketAddr) -> io::Result<u64> {
        if self.datagrams.len() >= self.most {
            let oldest = self.datagrams.iter().min_by_key(|(_, datagrams)| datagrams.used).map(|(number, _)| *number);
            oldest.into_iter().for_each(|number| self.forget(number));
        }
        let socket = UdpSocket::bind(any(to))?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        let number = self.number();
        epoll::add(&self.epoll, &socket, data(Token::Datagrams(number)), epoll::EventFlags::IN)?;
        self.datagrams.insert(number, Datagrams { listener, client, socket, used: Instant::now() });
        self.by_client.insert((listener, client), number);
        Ok(number)
    }

    /// From the container back to one client.
    fn answers(&mut self, number: u64) {
        for _ in 0..64 {
            let Some(datagrams) = self.datagrams.get_mut(&number) else { return };
            let length = match datagrams.socket.recv(&mut self.buffer) {
                Ok(length) => length,
                // An ICMP error of an earlier one; it is taken off by this.
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => continue,
                Err(_) => return,
            };
            datagrams.used = Instant::now();
            let listener = self.listeners.get(datagrams.listener);
            if let (Some(Listener::Udp(listener, _)), Some(datagram)) = (listener, self.buffer.get(..length)) {
                let _ = listener.send_to(datagram, datagrams.client);
            }
        }
    }

    fn oldest(&self) -> Option<Instant> {
        self.datagrams.values().map(|datagrams| datagrams.used).min()
    }

    fn forget_idle(&mut self) {
        let idle: Vec<u64> =
            self.datagrams.iter().filter(|(_, one)| one.used.elapsed() >= IDLE).map(|(number, _)| *number).collect();
        idle.into_iter().for_each(|number| self.forget(number));
    }

    fn forget(&mut self, number: u64) {
        if let Some(gone) = self.datagrams.remove(&number) {
            self.by_client.remove(&(gone.listener, gone.client));
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Tcp(socket, _) => socket.as_fd(),
            Self::Udp(socket, _) => socket.as_fd(),
        }
    }
}

fn data(token: Token) -> epoll::EventData {
    epoll::EventData::new_u64(token.number())
}

fn any(like: SocketAddr) -> SocketAddr {
    match like {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

fn is_shortage(code: i32) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].iter().any(|errno| errno.raw_os_error() == code)
}

/// One connection: two sockets, and how each direction stands.
struct Connection {
    client: TcpStream,
    container: TcpStream,
    connecting: bool,
    /// From the client to the container.
    there: Way,
    back: Way,
    /// What epoll is asked for at present.
    asked: [epoll::EventFlags; 2],
}

/// A direction of a connection. What is on its way stays with the kernel, which bounds it, until the other side takes it: however
/// many stand still, they have nothing of our memory.
#[derive(Debug, Default)]
struct Way {
    /// There is more, and the other side takes nothing at present.
    waits: bool,
    /// The reader's side has said its last word.
    ended: bool,
    /// And the writer's side knows.
    told: bool,
}

impl Way {
    /// Moves what can be moved now.
    fn step(&mut self, from: &TcpStream, to: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
        self.waits = false;
        // Not for ever: others wait, too, and what is left raises the next event.
        for _ in 0..16 {
            if self.ended {
                break;
            }
            match from.peek(buffer) {
                Ok(0) => self.ended = true,
                Ok(length) => {
                    let taken = write(to, buffer.get(..length).unwrap_or_default())?;
                    discard(from, buffer.get_mut(..taken).unwrap_or_default())?;
                    self.waits = taken < length;
                    if self.waits {
                        return Ok(());
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if self.ended && !self.told {
            self.told = true;
            // The other direction goes on.
            match to.shutdown(Shutdown::Write) {
                Err(e) if e.kind() != ErrorKind::NotConnected => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

/// As much as goes without waiting.
fn write(to: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match to.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(taken) => done += taken,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Takes as much as this from the queue, without a copy: `MSG_TRUNC` of tcp(7).
fn discard(from: &TcpStream, room: &mut [u8]) -> io::Result<()> {
    let mut left = room.len();
    while let Some(room) = room.get_mut(..left).filter(|room| !room.is_empty()) {
        match recv(from, room, RecvFlags::TRUNC) {
            Ok((_, 0)) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok((_, length)) => left = left.saturating_sub(length),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

impl Connection {
    fn begin(client: TcpStream, to: SocketAddr) -> io::Result<Self> {
        client.set_nonblocking(true)?;
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let container = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        match connect(&container, &to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(e) => {
                abort(&client);
                return Err(e.into());
            }
        }
        for socket in [client.as_fd(), container.as_fd()] {
            // Who has gone without a word is noticed one day; and small answers are not held back.
            sockopt::set_socket_keepalive(socket, true)?;
            sockopt::set_tcp_nodelay(socket, true)?;
        }
        Ok(Self {
            client,
            container: TcpStream::from(container),
            connecting: true,
            there: Way::default(),
            back: Way::default(),
            asked: [epoll::EventFlags::empty(); 2],
        })
    }

    /// Whether it goes on.
    fn step(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        if self.connecting {
            if let Some(error) = self.container.take_error()? {
                return Err(error);
            }
            match self.container.peer_addr() {
                Ok(_) => self.connecting = false,
                Err(e) if e.kind() == ErrorKind::NotConnected => return Ok(true),
                Err(e) => return Err(e),
            }
        }
        self.there.step(&self.client, &mut self.container, buffer)?;
        self.back.step(&self.container, &mut self.client, buffer)?;
        Ok(!(self.there.told && self.back.told))
    }

    /// Asks for what can happen next, and no more: level-triggered, anything else would wake us for ever. A socket of which nothing is
    /// asked is not in epoll at all, which else would go on about its end.
    fn interest(&mut self, epoll: &OwnedFd, number: u64) -> io::Result<()> {
        let of = |reads: &Way, writes: &Way| {
            let mut flags = epoll::EventFlags::empty();
            flags.set(epoll::EventFlags::IN, !reads.ended && !reads.waits);
            flags.set(epoll::EventFlags::OUT, writes.waits);
            flags
        };
        let now = match self.connecting {
            true => [epoll::EventFlags::empty(), epoll::EventFlags::OUT],
            false => [of(&self.there, &self.back), of(&self.back, &self.there)],
        };
        let sockets = [(&self.client, Token::Client(number)), (&self.container, Token::Container(number))];
        for ((socket, token), (was, now)) in sockets.into_iter().zip(self.asked.into_iter().zip(now)) {
            match (was.is_empty(), now.is_empty()) {
                _ if was == now => {}
                (true, _) => epoll::add(epoll, socket, data(token), now)?,
                (_, true) => epoll::delete(epoll, socket)?,
                _ => epoll::modify(epoll, socket, data(token), now)?,
            }
        }
        self.asked = now;
        Ok(())
    }

    fn reset(self) {
        abort(&self.client);
        abort(&self.container);
    }
}

/// Closed with a reset, not as if all had been said.
fn abort(socket: &TcpStream) {
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::thread;

    use super::*;

    #[test]
    fn a_token_is_its_number() {
        for token in
            [Token::Names, Token::Listener(7), Token::Client(1), Token::Container(1), Token::Datagrams(u64::MAX >> 3)]
        {
            assert_eq!(Token::of(token.number()), token);
        }
    }

    /// A connection through us, as bytes: what the other side of `to` gets and answers.
    fn carry(server: impl FnOnce(TcpStream) + Send + 'static, client: impl FnOnce(TcpStream) + Send + 'static) {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let front = TcpListener::bind("127.0.0.1:0").unwrap();
        let (to, at) = (target.local_addr().unwrap(), front.local_addr().unwrap());
        let server = thread::spawn(move || server(target.accept().unwrap().0));
        let client = thread::spawn(move || client(TcpStream::connect(at).unwrap()));
        let mut connection = Connection::begin(front.accept().unwrap().0, to).unwrap();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        connection.interest(&epoll, 1).unwrap();
        let mut buffer = vec![0; CHUNK];
        let mut events = Vec::with_capacity(8);
        loop {
            events.clear();
            epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None).unwrap();
            match connection.step(&mut buffer) {
                Ok(true) => connection.interest(&epoll, 1).unwrap(),
                Ok(false) => break,
                Err(_) => {
                    connection.reset();
                    break;
                }
            }
        }
        server.join().unwrap();
        client.join().unwrap();
    }

    #[test]
    fn each_side_may_say_its_last_word_first() {
        for server_first in [false, true] {
            let speak = |mut stream: TcpStream, first: bool| {
                let mut heard = String::new();
                if first {
                    stream.write_all(b"hello").unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                    stream.read_to_string(&mut heard).unwrap();
                    assert_eq!(heard, "HELLO");
                } else {
                    stream.read_to_string(&mut heard).unwrap();
                    stream.write_all(heard.to_uppercase().as_bytes()).unwrap();
                }
            };
            carry(move |stream| speak(stream, server_first), move |stream| speak(stream, !server_first));
        }
    }

    #[test]
    fn a_slow_reader_holds_the_writer_and_loses_nothing() {
        const ALL: usize = 8 << 20;
        carry(
            |mut stream| {
                let bytes: Vec<u8> = (0..ALL).map(|at| (at % 251) as u8).collect();
                stream.write_all(&bytes).unwrap();
            },
            |mut stream| {
                let mut all: Vec<u8> = Vec::new();
                let mut buffer = vec![0; 300_000];
                loop {
                    thread::sleep(Duration::from_millis(1));
                    match stream.read(&mut buffer).unwrap() {
                        0 => break,
                        length => all.extend(&buffer[..length]),
                    }
                }
                assert_eq!(all.len(), ALL);
                assert!(all.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
            },
        );
    }

    #[test]
    fn a_reset_is_passed_on() {
        carry(
            |stream| abort(&stream),
            |mut stream| {
                let error = stream.read(&mut [0]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            },
        );
    }
}
