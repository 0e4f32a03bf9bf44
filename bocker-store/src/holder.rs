//! For whom a container is held: the process that starts it, or that takes it apart. From the snapshot to the start, and
//! from the end to the last of the clean-up, no lock says that a container is in use; this does, while that process lives.
//!
//! The file `holder` beside `rootfs`: `PID STARTTIME`, the second in clock ticks since the boot (proc(5), field 22 of
//! stat), so that a number which another process has got since holds nothing. A third word, `new`, stands there from a `run`'s
//! snapshot on, until somebody else holds it: where that process dies before anything ran, the container is nobody's. A fourth
//! tells the PID namespace (its inode), and the boot: who is in another one cannot see whether that process lives, and what a
//! container wrote of its start may be lost with the power, which other files of its are not.
//!
//! `ended` as third word is a supervisor's, written before the lock goes: it is about to clean up. Whoever takes the container
//! apart by himself need not wait for that; who looks for what a crash left finds that this is none.

use std::io::{Read, Write};
use std::time::Duration;

use bocker_common::{Error, Id, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::store::{Store, to_nix};

/// The file's name.
pub(crate) const HOLDER: &str = "holder";

const NEW: &str = "new";
const ENDED: &str = "ended";

/// A process, told from later ones of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder {
    pid: i32,
    started: u64,
}

impl Holder {
    /// The process of this number, else our parent; None if it is gone, or out of our sight.
    #[expect(clippy::disallowed_methods, reason = "/proc/PID/stat")]
    pub(crate) fn of(pid: Option<i32>) -> Option<Self> {
        let pid = pid.unwrap_or_else(|| nix::unistd::getppid().as_raw());
        // 1: whoever had started us has died since.
        if pid <= 1 {
            return None;
        }
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, started: started(&stat)? })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        Some(Self { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? })
    }

    fn lives(self) -> bool {
        Self::of(Some(self.pid)) == Some(self)
    }

    /// Waits until it has ended, but no longer than that. It may let go of a container before.
    pub(crate) fn end_within(self, most: Duration) {
        let opened = Pid::from_raw(self.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // The number may be another's by the time that we have it.
        match opened.filter(|_| self.lives()) {
            Some(process) => {
                let most = Timespec::try_from(most).ok();
                let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], most.as_ref());
            }
            None => std::thread::sleep(Duration::from_millis(2).min(most)),
        }
    }

    /// What the file says.
    pub(crate) fn text(self) -> String {
        format!("{} {}\n", self.pid, self.started)
    }

    /// The same in a container that it has just made.
    pub(crate) fn text_of_new(self) -> String {
        format!("{} {} {NEW} {}\n", self.pid, self.started, sight().unwrap_or_default())
    }

    /// Its number, as `kill(1)` wants it.
    pub(crate) fn pid(self) -> i32 {
        self.pid
    }
}

/// Whether its holder will only clean up.
fn has_just_ended(text: &str) -> bool {
    text.split_whitespace().nth(2) == Some(ENDED)
}

/// Whether it was made by a process that is, or was, in our sight.
fn is_new_here(text: &str) -> bool {
    let mut words = text.split_whitespace().skip(2);
    words.next() == Some(NEW) && words.next().is_some_and(|word| sight().as_deref() == Some(word))
}

/// The PID namespace that /proc shows, and the boot.
#[expect(clippy::disallowed_methods, reason = "/proc of the host")]
fn sight() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let namespace = std::fs::metadata("/proc/self/ns/pid").ok()?.ino();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("{namespace},{}", boot.trim_end()))
}

/// When a process that lives was started. Its name, in parentheses, may hold anything.
fn started(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    // Zombies hold nothing.
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

impl Store {
    /// The process that lives and holds the container, if it is another one than `me`.
    pub(crate) fn held(&self, id: Id, me: Option<Holder>) -> Option<Holder> {
        let text = self.text(id, HOLDER);
        Holder::parse(&String::from_utf8_lossy(&text)).filter(|holder| Some(*holder) != me && holder.lives())
    }

    /// The same, but for one that others need not wait for.
    pub(crate) fn at_work(&self, id: Id, me: Option<Holder>) -> Option<Holder> {
        let text = self.text(id, HOLDER);
        if has_just_ended(&String::from_utf8_lossy(&text)) { None } else { self.held(id, me) }
    }

    /// Whether who made the container and was to start it died before that.
    pub(crate) fn is_forsaken(&self, id: Id) -> bool {
        let text = self.text(id, HOLDER);
        is_new_here(&String::from_utf8_lossy(&text)) && self.held(id, None).is_none()
    }

    /// Makes `me` the holder, unless another one is: that one. A full store has no room to write that down, and is emptied
    /// all the same: nobody is the holder then.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn hold(&self, id: Id, me: Holder) -> Result<Option<Holder>> {
        let name = format!("{id}/{HOLDER}");
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.dir(), &name, flags, Mode::from_raw_mode(0o644))
            // One at a time: two could find the same dead one.
            .and_then(|file| rustix::fs::flock(&file, FlockOperation::LockExclusive).map(|()| file));
        let mut file = match file {
            Err(Errno::NOSPC) => return Ok(None),
            file => std::fs::File::from(file.map_err(to_nix).map_err(self.fail("lock", &name))?),
        };
        let fail = |e| Error::new("write", &name, e);
        let mut text = String::new();
        (&file).take(64).read_to_string(&mut text).map_err(fail)?;
        let other = Holder::parse(&text).filter(|holder| *holder != me && holder.lives());
        if let Some(other) = other.filter(|_| !has_just_ended(&text)) {
            return Ok(Some(other));
        }
        std::io::Seek::rewind(&mut file).and_then(|()| file.set_len(0)).map_err(fail)?;
        match file.write_all(me.text().as_bytes()) {
            Err(e) if e.kind() != std::io::ErrorKind::StorageFull => Err(fail(e)),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_another_process_has_holds_nothing() {
        let me = Holder::of(Some(std::process::id().cast_signed())).unwrap();
        assert!(me.lives());
        assert_eq!(Holder::parse(&me.text()), Some(me));
        assert_eq!(Holder::parse(&me.text_of_new()), Some(me));
        assert!(is_new_here(&me.text_of_new()));
        for text in [me.text(), format!("{} new 1", me.text().trim_end()), format!("{} new", me.text().trim_end())] {
            assert!(!is_new_here(&text), "{text:?}");
            assert!(!has_just_ended(&text), "{text:?}");
        }
        assert!(has_just_ended("5 777 ended\n"));
        assert!(!Holder { started: me.started + 1, ..me }.lives());
        assert_eq!(Holder::of(Some(1)), None);
        assert_eq!(Holder::of(Some(i32::MAX)), None);
    }

    #[test]
    fn stat_is_read_past_any_name() {
        let rest = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
        assert_eq!(started(&format!("5 (a) Z (b) S {rest}")), Some(777));
        assert_eq!(started(&format!("5 (a) Z {rest}")), None, "a zombie");
        assert_eq!(started("5 (a"), None);
        for text in ["", "x", "1", "1 x", "99999999999 1"] {
            assert_eq!(Holder::parse(text), None, "{text:?}");
        }
    }
}
