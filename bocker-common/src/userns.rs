//! User namespaces, user_namespaces(7): each container's user ids are a range of the host's that nobody else has.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::diag::Reason;
use crate::{Error, Id, Result, sys};

/// `--userns`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Userns {
    /// One for each container.
    #[default]
    Private,
    /// The caller's.
    Host,
}

/// Ids of a container: 0 to 65534, and 65535, which nobody is.
pub const COUNT: u32 = 65_536;
/// The user whose lines in subuid(5) and subgid(5) say which ids are for containers.
const NAME: &str = "bocker";
/// Without such lines: what systemd's table of ids leaves unused below the sign bit (UIDS-GIDS, 0x70000000 to 0x7ffdffff).
const DEFAULT: Ranges = Ranges { start: 0x7000_0000, ranges: 0x0ffe };
/// The last ranges are for who has no id: see [`Ranges::spare`].
const SPARE: u32 = 64;

/// The host's ids that are for containers, as ranges of [`COUNT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    start: u32,
    ranges: u32,
}

impl Ranges {
    /// From `subuid` and `subgid` in the directory (/etc); the default where neither has a line of ours.
    ///
    /// # Errors
    /// One line: the two files say different things, or what makes no sense.
    pub fn read(etc: &Path) -> Result<Self> {
        let line = |name: &str| {
            let path = etc.join(name);
            let text = match std::fs::read(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                text => text.map_err(|e| Error::new("read", path.display(), e))?,
            };
            parse(&text).map_err(|why| Error::new("read", path.display(), why))
        };
        match (line("subuid")?, line("subgid")?) {
            (None, None) => Ok(DEFAULT),
            (Some(users), Some(groups)) if users == groups => Ok(users),
            _ => Err(Error::plain(format!("{}: subuid and subgid need the same line for {NAME}", etc.display()))),
        }
    }

    /// The first id of the container's range, which follows from its id as its address does: base + (id - 42000) * 65536.
    ///
    /// # Errors
    /// There are not so many.
    pub fn of(self, id: Id) -> Result<u32> {
        let most = self.most();
        if id.host() < most {
            return Ok(self.start + id.host() * COUNT);
        }
        let error = Error::plain(format!("{id}: no user ids left for it (there are {most} ranges of {COUNT})"));
        Err(error.hint(format!("a line {NAME}:START:COUNT in /etc/subuid and /etc/subgid, or --userns=host")))
    }

    /// All of them.
    pub fn ids(self) -> std::ops::Range<u64> {
        let start = u64::from(self.start);
        start..start + u64::from(self.ranges) * u64::from(COUNT)
    }

    /// How many ids have one: those below [`crate::id::BASE`] and this.
    pub fn most(self) -> u32 {
        self.ranges.saturating_sub(SPARE)
    }

    /// First ids of ranges that no id has, for containers without one.
    pub fn spare(self) -> impl Iterator<Item = u32> {
        let first = self.most();
        (first..self.ranges).map(move |range| self.start + range * COUNT)
    }
}

fn parse(text: &[u8]) -> std::result::Result<Option<Ranges>, String> {
    let text = String::from_utf8_lossy(text);
    let Some(line) = text.lines().find_map(|line| line.strip_prefix(NAME)?.strip_prefix(':')) else { return Ok(None) };
    let numbers = line.split_once(':').and_then(|(start, count)| Some((start.parse().ok()?, count.parse().ok()?)));
    match numbers {
        // -1 is nobody, and root is no one's to give away.
        Some((start, count)) if start > 0 && count / COUNT > SPARE && u32::checked_add(start, count).is_some() => {
            Ok(Some(Ranges { start, ranges: count / COUNT }))
        }
        Some(_) => Err(format!("{NAME}:{line}: from 1 on, at least {} ids", (SPARE + 1) * COUNT)),
        None => Err(format!("{NAME}:{line} is not {NAME}:START:COUNT")),
    }
}

/// A new user namespace, and the network namespace that it owns if one was wanted. They last as long as these descriptors,
/// what is made in them, or a mount of them.
#[derive(Debug)]
pub struct Made {
    /// `/proc/PID/ns/user`
    pub user: OwnedFd,
    /// `/proc/PID/ns/net`
    pub net: Option<OwnedFd>,
}

/// Makes a user namespace whose ids 0 to 65535 are `start` and on of ours.
///
/// Who is in it cannot come back, so a process that does nothing is born in it, `clone(2)`, and ends when all is open. A network
/// namespace made at the same time belongs to it: CAP_NET_ADMIN and the like count there, network_namespaces(7).
///
/// # Errors
/// One line: `clone(2)`, the maps.
pub fn make(start: u32, with_network: bool) -> Result<Made> {
    let fail = |e: Reason| Error::new("make", "a user namespace", e).hint("--userns=host does without");
    let child = sys::Waiting::clone(with_network).map_err(|e| {
        // user_namespaces(7): ENOSPC is the limit of their number, which may be 0; EPERM a chroot.
        match e {
            Errno::ENOSPC => fail("none is allowed: sysctl user.max_user_namespaces".into()),
            Errno::EPERM => fail("none can be made in a chroot".into()),
            _ => fail(e.into()),
        }
    })?;
    let of = |name: &str| format!("/proc/{}/{name}", child.pid());
    for map in ["uid_map", "gid_map"] {
        std::fs::write(of(map), format!("0 {start} {COUNT}\n")).map_err(|e| fail(e.into()))?;
    }
    let open = |name| File::open(of(name)).map(OwnedFd::from).map_err(|e| fail(e.into()));
    Ok(Made { user: open("ns/user")?, net: with_network.then(|| open("ns/net")).transpose()? })
}

/// The user namespace that a namespace belongs to, ioctl_ns(2); `None` for the caller's own.
///
/// # Errors
/// EPERM: one outside of the caller's.
pub fn owner(namespace: impl AsFd) -> nix::Result<Option<OwnedFd>> {
    let owner = File::from(sys::user_namespace_of(namespace.as_fd())?);
    let place = |file: std::io::Result<std::fs::Metadata>| {
        file.map(|meta| (meta.dev(), meta.ino())).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))
    };
    let own = place(std::fs::metadata("/proc/self/ns/user"))?;
    Ok((place(owner.metadata())? != own).then(|| owner.into()))
}

/// Whether the open file is a network namespace.
pub fn is_network(file: impl AsFd) -> bool {
    let is_namespace = fstatfs(file.as_fd()).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC);
    is_namespace && sys::namespace_kind(file.as_fd()) == Ok(CloneFlags::CLONE_NEWNET.bits())
}

/// The user who made a user namespace, ioctl_ns(2), as the caller's has him.
///
/// # Errors
/// EINVAL: it is none.
pub fn maker(namespace: impl AsFd) -> nix::Result<u32> {
    sys::maker_of(namespace.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> Id {
        Id::new(crate::Kind::Container, number).unwrap()
    }

    #[test]
    fn ranges_do_not_touch() {
        let mut starts: Vec<u32> = (42_002..42_254).map(|number| DEFAULT.of(id(number)).unwrap()).collect();
        starts.extend(DEFAULT.spare());
        starts.sort_unstable();
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= COUNT));
        assert_eq!(starts[0], 0x7002_0000);
        assert_eq!(*starts.last().unwrap(), 0x7ffd_0000);
        assert!(DEFAULT.of(id(42_000 + 0x0ffe - SPARE)).is_err());
    }

    #[test]
    fn a_network_namespace_is_told_from_the_rest() {
        assert!(is_network(File::open("/proc/self/ns/net").unwrap()));
        for other in ["/proc/self/ns/mnt", "/proc/self/ns/user", "/dev/null", "/etc/passwd", "/proc"] {
            assert!(!is_network(File::open(other).unwrap()), "{other}");
        }
    }

    #[test]
    fn lines_are_taken_or_refused() {
        assert_eq!(parse(b"a:100000:65536\nbockers:1:2\n"), Ok(None));
        assert_eq!(parse(b"a:1:2\nbocker:100000:65536000\n"), Ok(Some(Ranges { start: 100_000, ranges: 1000 })));
        for bad in
            ["bocker:1", "bocker:0:65536000", "bocker:1:65536", "bocker:a:b", "bocker:4294900000:65536000", "bocker::"]
        {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
