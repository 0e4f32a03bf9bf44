//! Capabilities, capabilities(7): root's power in parts, of which a container gets eleven.

use bocker_common::{Error, Result};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::inroot::errno;

/// By number, from 0, as <linux/capability.h> has them.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has unless told otherwise: docker's fourteen without MKNOD, NET_RAW and AUDIT_WRITE, as podman's.
/// CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP.
pub const DEFAULT: u64 = 0x8004_05fb;
const ALL: u64 = (1 << NAMES.len()) - 1;

/// What the shell's `setpriv` keeps for itself across `execve(2)`, and gives up at the end: what a script needs to make a
/// container. (The tool's own child executes nothing before the payload and needs no such thing.)
pub(crate) const SCRIPT: [&str; 8] =
    ["sys_admin", "mknod", "dac_override", "chown", "fowner", "setuid", "setgid", "setpcap"];

/// `--cap-add`, `--cap-drop`: one name, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// `ALL`
    All,
    /// By number.
    One(u8),
}

/// The name of a capability, with or without `CAP_`, in any case; or `ALL`.
///
/// # Errors
/// What is no such name.
pub fn name(word: &str) -> std::result::Result<Name, String> {
    let upper = word.to_ascii_uppercase();
    match upper.strip_prefix("CAP_").unwrap_or(&upper) {
        "ALL" => Ok(Name::All),
        name => {
            number(name).map(Name::One).ok_or_else(|| "there is no such capability, see capabilities(7)".to_owned())
        }
    }
}

/// The number of a capability, by its name without `CAP_`.
pub(crate) fn number(name: &str) -> Option<u8> {
    NAMES.iter().position(|known| *known == name).map(|at| at as u8)
}

/// The capabilities of a container: bounding set, and for root also permitted and effective. Nobody inherits any, and there
/// are no ambient ones (CVE-2022-24769 and its kin).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// A bit for each, by number.
    pub mask: u64,
    /// Those that were asked for by name: not to have them is an error, others are left out quietly.
    pub named: u64,
}

impl Capabilities {
    /// From what was typed, as docker has it: with `--cap-add ALL` all but those that are dropped; with `--cap-drop ALL` those
    /// that are added; else the eleven without the dropped and with the added.
    pub fn new(privileged: bool, add: &[Name], drop: &[Name]) -> Self {
        let bits = |names: &[Name]| {
            names.iter().fold(0, |mask, name| match name {
                Name::All => mask,
                Name::One(number) => mask | 1 << number,
            })
        };
        let (added, dropped) = (bits(add), bits(drop));
        let mask = if privileged {
            ALL
        } else if add.contains(&Name::All) {
            ALL & !dropped
        } else if drop.contains(&Name::All) {
            added
        } else {
            DEFAULT & !dropped | added
        };
        Self { mask, named: if privileged { 0 } else { added & mask } }
    }

    /// Whether it is among them.
    pub fn has(self, name: &str) -> bool {
        number(name).is_some_and(|number| self.mask >> number & 1 == 1)
    }

    /// `-all,+chown,+kill` or `-kill`, for setpriv(1); `None` for all of them.
    pub(crate) fn bounding(self) -> Option<String> {
        let most = self.mask.count_ones() > ALL.count_ones() / 2;
        let wanted = |(number, _): &(usize, &&str)| (self.mask >> number & 1 == 0) == most;
        let words = NAMES.iter().enumerate().filter(wanted);
        let sign = if most { "-" } else { "+" };
        let mut words: Vec<String> = words.map(|(_, name)| format!("{sign}{}", name.to_ascii_lowercase())).collect();
        if !most {
            words.insert(0, "-all".to_owned());
        }
        (self.mask != ALL).then(|| words.join(","))
    }

    /// The first half, while this process still is root and needs what it has: nothing that is executed from here on can get
    /// more than these. The second half is [`Bounded::drop`].
    ///
    /// # Errors
    /// One line: a capability that this process does not have itself; `prctl(2)`, `capget(2)`, `capset(2)`.
    pub fn bound(self) -> Result<Bounded> {
        let fail = |e| Error::new("bound", "capabilities", errno(e));
        let mut own = rustix::thread::capabilities(None).map_err(fail)?;
        let missing = self.named & !own.permitted.bits();
        if missing != 0 {
            let name = NAMES[missing.trailing_zeros() as usize];
            return Err(Error::new("add", format!("capability {name}"), "bocker-exec itself does not have it"));
        }
        let mask = self.mask & own.permitted.bits();
        // One by one, as far as this kernel knows any: it says EINVAL for the first one after.
        for number in 0..64 {
            let one = CapabilitySet::from_bits_retain(1 << number);
            match rustix::thread::capability_is_in_bounding_set(one) {
                Ok(true) if mask >> number & 1 == 0 => {
                    rustix::thread::remove_capability_from_bounding_set(one).map_err(fail)?;
                }
                Ok(_) => {}
                Err(rustix::io::Errno::INVAL) => break,
                Err(error) => return Err(fail(error)),
            }
        }
        own.inheritable = CapabilitySet::empty();
        rustix::thread::clear_ambient_capability_set().map_err(fail)?;
        rustix::thread::set_capabilities(None, own).map_err(fail)?;
        // Another user loses all capabilities with setresuid(2); one is still needed, to load the system call filter.
        rustix::thread::set_keep_capabilities(true).map_err(fail)?;
        Ok(Bounded { mask })
    }
}

/// The bounding set is what it has to be; this process itself still has more.
#[derive(Debug)]
pub struct Bounded {
    mask: u64,
}

impl Bounded {
    /// Without no_new_privs only who has SYS_ADMIN may load a filter, seccomp(2): a setuid program would run under it. After
    /// setresuid(2) it is permitted only; this makes it effective.
    ///
    /// # Errors
    /// `capset(2)`.
    pub fn raise(&self) -> Result<()> {
        let fail = |e| Error::new("raise", "capabilities", errno(e));
        let mut own = rustix::thread::capabilities(None).map_err(fail)?;
        own.effective = own.permitted;
        rustix::thread::set_capabilities(None, own).map_err(fail)
    }

    /// The second half: what the payload has, root's from the bounding set and nobody else's any. As `execve(2)` would leave
    /// it anyway; so it is allowed to be the last call but that.
    ///
    /// # Errors
    /// `capset(2)`.
    pub fn drop(self) -> Result<()> {
        let mask = if nix::unistd::geteuid().is_root() { self.mask } else { 0 };
        let set = CapabilitySet::from_bits_retain(mask);
        let sets = CapabilitySets { effective: set, permitted: set, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, sets).map_err(|e| Error::new("drop", "capabilities", errno(e)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(add: &[&str], drop: &[&str]) -> u64 {
        let names = |words: &[&str]| words.iter().map(|word| name(word).unwrap()).collect::<Vec<_>>();
        Capabilities::new(false, &names(add), &names(drop)).mask
    }

    #[test]
    fn names_in_every_spelling() {
        for word in ["NET_RAW", "net_raw", "CAP_NET_RAW", "cap_Net_Raw"] {
            assert_eq!(name(word), Ok(Name::One(13)), "{word}");
        }
        assert_eq!(name("all"), Ok(Name::All));
        assert_eq!(name("CAP_ALL"), Ok(Name::All));
        for word in ["", "CAP_", "NET", "NET_RAWX", "13", "CAP_CAP_KILL"] {
            assert!(name(word).is_err(), "{word}");
        }
    }

    #[test]
    fn eleven_unless_told_otherwise() {
        assert_eq!(mask(&[], &[]).count_ones(), 11);
        assert_eq!(mask(&["MKNOD", "NET_RAW", "AUDIT_WRITE"], &[]), 0xa804_25fb, "docker's fourteen");
        assert_eq!(mask(&[], &["KILL", "NET_RAW"]), DEFAULT & !(1 << 5));
        assert_eq!(mask(&["KILL"], &["ALL"]), 1 << 5);
        assert_eq!(mask(&["ALL"], &["KILL"]), ALL & !(1 << 5));
        assert_eq!(mask(&["ALL"], &[]), 0x1ff_ffff_ffff);
        assert_eq!(Capabilities::new(true, &[], &[Name::All]).mask, ALL);
    }

    #[test]
    fn the_numbers_are_the_kernels() {
        for (name, set) in [
            ("CHOWN", CapabilitySet::CHOWN),
            ("SYS_ADMIN", CapabilitySet::SYS_ADMIN),
            ("SETFCAP", CapabilitySet::SETFCAP),
            ("CHECKPOINT_RESTORE", CapabilitySet::CHECKPOINT_RESTORE),
        ] {
            assert_eq!(1 << number(name).unwrap(), set.bits(), "{name}");
        }
        let bounding = |mask| Capabilities { mask, named: 0 }.bounding();
        assert_eq!(bounding(0x21).unwrap(), "-all,+chown,+kill");
        assert_eq!(bounding(ALL & !0x21).unwrap(), "-chown,-kill");
        assert_eq!(bounding(ALL), None);
        assert_eq!(bounding(0).unwrap(), "-all");
    }
}
