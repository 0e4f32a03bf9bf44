//! The names of limits: the kernel's of both versions, and docker's.

use std::fmt;
use std::str::FromStr;

use bocker_common::diag::USAGE;
use bocker_common::{Error, Result};

use crate::layout::Controller;

/// The keys, for `--help`.
pub(crate) const HELP: &str = "\
Keys, and other names of the same (docker's, the kernel's of version 1 and 2):
  memory=SIZE        bytes, or 512M (M = 1024*1024); max: no limit
                     memory.max, memory.limit_in_bytes
  memory-swap=SIZE   memory and swap together, not less than memory; max: no limit
                     memory.memsw.limit_in_bytes
  memory-reservation=SIZE   what it keeps when memory is short
                     memory.low, memory.soft_limit_in_bytes
  memory.high=SIZE   beyond it its processes are slowed down and have to give back (version 2)
  memory-swappiness=N   0 to 100 (version 1): memory.swappiness
  oom-kill-disable=BOOL   who lacks memory waits and is not killed (version 1)
  cpus=N             processors' time, as 1.5; max: no limit
  cpu-quota=MICROSECONDS, cpu-period=MICROSECONDS   the same as a quota of each period
                     cpu.cfs_quota_us, cpu.cfs_period_us; both: cpu.max='50000 100000'
  cpu.shares=N       weight when processors are busy, 2 to 262144 (default 1024): cpu-shares
  cpu.weight=N       the same in the words of version 2, 1 to 10000 (default 100)
  cpuset.cpus=LIST   only these processors, as 0-2,5: cpuset-cpus
  cpuset.mems=LIST   only these memory nodes: cpuset-mems
  pids=N             processes and threads (default 2048); max: no limit: pids.max, pids-limit
  blkio-weight=N     weight when a disk is busy, 10 to 1000: blkio.weight, blkio.bfq.weight
  io.weight=N        the same in the words of version 2, 1 to 10000
  device-read-bps=DEVICE:SIZE, device-write-bps=DEVICE:SIZE     bytes a second of a disk,
                     as /dev/sda:1M or 8:0:1M; max: no limit; may be repeated
  device-read-iops=DEVICE:N, device-write-iops=DEVICE:N         operations a second
                     blkio.throttle.read_bps_device='8:0 1048576' and so on,
                     io.max='8:0 rbps=1M wbps=max riops=100 wiops=max'
  devices=default    only null zero full random urandom tty and terminals; all: no rules
  device=TYPE:MAJOR:MINOR:ACCESS   one more, as c:10:200:rwm; may be repeated

stats prints ID, MEMORY, LIMIT, CPU, PIDS, READ, WRITTEN, OOM-KILLS, parted by tabs: bytes
without what the kernel can drop at once, bytes or max, microseconds, processes and threads,
bytes from and to disks, and how often the kernel killed for want of memory; - where the kernel
does not say.";

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// Bytes.
    Memory,
    /// Bytes, of memory and swap together; what version 2's file gets is the swap alone.
    Swap,
    /// Bytes.
    Reservation,
    /// Bytes, version 2.
    High,
    /// Version 1.
    Swappiness,
    /// 1: nobody is killed for want of memory. Version 1.
    OomKillDisable,
    /// The time of processors: microseconds, and of how many.
    Cpus,
    /// The first of these two.
    Quota,
    /// The second.
    Period,
    /// Version 1's scale, 2 to 262144.
    Shares,
    /// Version 2's scale, 1 to 10000.
    Weight,
    /// A list of processors.
    Cpuset,
    /// A list of memory nodes.
    Mems,
    /// Processes and threads.
    Pids,
    /// Docker's and version 1's scale, 10 to 1000.
    BlkioWeight,
    /// Version 2's scale, 1 to 10000.
    IoWeight,
    /// What a disk may give or take in a second.
    Rate(Rate),
    /// Several of these.
    Io,
    /// All or the default ones.
    Devices,
    /// One more of them.
    Device,
}

/// What is counted of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rate {
    ReadBytes,
    WrittenBytes,
    Reads,
    Writes,
}

impl Rate {
    pub(crate) const ALL: [Self; 4] = [Self::ReadBytes, Self::WrittenBytes, Self::Reads, Self::Writes];

    /// Its word in version 2's `io.max`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::ReadBytes => "rbps",
            Self::WrittenBytes => "wbps",
            Self::Reads => "riops",
            Self::Writes => "wiops",
        }
    }

    pub(crate) fn is_bytes(self) -> bool {
        matches!(self, Self::ReadBytes | Self::WrittenBytes)
    }
}

/// Each key by the name that we say, then its other names.
const NAMES: [(Key, &[&str]); 23] = [
    (Key::Memory, &["memory", "memory.max", "memory.limit_in_bytes"]),
    (Key::Swap, &["memory-swap", "memory.memsw.limit_in_bytes"]),
    (Key::Reservation, &["memory-reservation", "memory.low", "memory.soft_limit_in_bytes"]),
    (Key::High, &["memory.high"]),
    (Key::Swappiness, &["memory-swappiness", "memory.swappiness"]),
    (Key::OomKillDisable, &["oom-kill-disable", "memory.oom_control"]),
    (Key::Shares, &["cpu.shares", "cpu-shares"]),
    (Key::Weight, &["cpu.weight"]),
    (Key::Cpus, &["cpus", "cpu.max"]),
    (Key::Quota, &["cpu-quota", "cpu.cfs_quota_us"]),
    (Key::Period, &["cpu-period", "cpu.cfs_period_us"]),
    (Key::Cpuset, &["cpuset.cpus", "cpuset-cpus"]),
    (Key::Mems, &["cpuset.mems", "cpuset-mems"]),
    (Key::Pids, &["pids", "pids.max", "pids-limit"]),
    (Key::BlkioWeight, &["blkio-weight", "blkio.weight", "blkio.bfq.weight", "io.bfq.weight"]),
    (Key::IoWeight, &["io.weight"]),
    (Key::Rate(Rate::ReadBytes), &["device-read-bps", "blkio.throttle.read_bps_device"]),
    (Key::Rate(Rate::WrittenBytes), &["device-write-bps", "blkio.throttle.write_bps_device"]),
    (Key::Rate(Rate::Reads), &["device-read-iops", "blkio.throttle.read_iops_device"]),
    (Key::Rate(Rate::Writes), &["device-write-iops", "blkio.throttle.write_iops_device"]),
    (Key::Io, &["io.max"]),
    (Key::Devices, &["devices"]),
    (Key::Device, &["device"]),
];

impl Key {
    /// All that `get` prints, in this order; of two that say the same the one of the version.
    pub(crate) fn shown(v2: bool) -> impl Iterator<Item = Self> {
        let other = move |key: &Self| match key {
            Self::Shares | Self::BlkioWeight => v2,
            Self::Weight | Self::IoWeight => !v2,
            Self::Io | Self::Device => true,
            key => key.lacks(v2).is_some(),
        };
        NAMES.iter().map(|(key, _)| *key).filter(move |key| !other(key))
    }

    /// The controller that does it.
    pub(crate) fn controller(self) -> Controller {
        match self {
            Self::Shares | Self::Weight | Self::Cpus | Self::Quota | Self::Period => Controller::Cpu,
            Self::Cpuset | Self::Mems => Controller::Cpuset,
            Self::Memory | Self::Swap | Self::Reservation | Self::High | Self::Swappiness | Self::OomKillDisable => {
                Controller::Memory
            }
            Self::Pids => Controller::Pids,
            Self::BlkioWeight | Self::IoWeight | Self::Rate(_) | Self::Io => Controller::Blkio,
            Self::Devices | Self::Device => Controller::Devices,
        }
    }

    /// Why there is no such limit on this version; none: there is.
    pub(crate) fn lacks(self, v2: bool) -> Option<&'static str> {
        match (self, v2) {
            (Self::High, false) => Some("version 1 of control groups has no such limit; memory-reservation is near"),
            (Self::Swappiness, true) => {
                Some("version 2 of control groups has it for the whole host only, vm.swappiness")
            }
            (Self::OomKillDisable, true) => {
                Some("version 2 of control groups has no such switch; memory.high slows down without killing")
            }
            _ => None,
        }
    }

    /// The kernel's files, of which the first that is there counts. Version 2 has none for devices.
    pub(crate) fn files(self, v2: bool) -> &'static [&'static str] {
        match (self, v2) {
            (Self::Memory, false) => &["memory.limit_in_bytes"],
            (Self::Memory, true) => &["memory.max"],
            (Self::Swap, false) => &["memory.memsw.limit_in_bytes"],
            (Self::Swap, true) => &["memory.swap.max"],
            (Self::Reservation, false) => &["memory.soft_limit_in_bytes"],
            (Self::Reservation, true) => &["memory.low"],
            (Self::High, _) => &["memory.high"],
            (Self::Swappiness, _) => &["memory.swappiness"],
            (Self::OomKillDisable, _) => &["memory.oom_control"],
            (Self::Cpus | Self::Quota | Self::Period, true) => &["cpu.max"],
            (Self::Cpus | Self::Quota, false) => &["cpu.cfs_quota_us"],
            (Self::Period, false) => &["cpu.cfs_period_us"],
            (Self::Shares | Self::Weight, false) => &["cpu.shares"],
            (Self::Shares | Self::Weight, true) => &["cpu.weight"],
            (Self::Cpuset, _) => &["cpuset.cpus"],
            (Self::Mems, _) => &["cpuset.mems"],
            (Self::Pids, _) => &["pids.max"],
            (Self::BlkioWeight | Self::IoWeight, false) => &["blkio.weight", "blkio.bfq.weight"],
            (Self::BlkioWeight, true) => &["io.bfq.weight", IO_WEIGHT],
            (Self::IoWeight, true) => &[IO_WEIGHT, "io.bfq.weight"],
            (Self::Rate(_) | Self::Io, true) => &["io.max"],
            (Self::Rate(Rate::ReadBytes) | Self::Io, false) => &["blkio.throttle.read_bps_device"],
            (Self::Rate(Rate::WrittenBytes), false) => &["blkio.throttle.write_bps_device"],
            (Self::Rate(Rate::Reads), false) => &["blkio.throttle.read_iops_device"],
            (Self::Rate(Rate::Writes), false) => &["blkio.throttle.write_iops_device"],
            (Self::Devices | Self::Device, _) => &["devices.list"],
        }
    }

    /// The first of them.
    pub(crate) fn file(self, v2: bool) -> &'static str {
        self.files(v2).first().copied().unwrap_or_default()
    }
}

/// The one weight of disks in version 2's scale.
pub(crate) const IO_WEIGHT: &str = "io.weight";

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(key, _)| key == self).and_then(|(_, names)| names.first());
        f.write_str(name.copied().unwrap_or_default())
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        NAMES.iter().find(|(_, names)| names.contains(&word)).map(|(key, _)| *key).ok_or_else(|| {
            let shown: String = word.chars().take(64).collect();
            let known: Vec<&str> = NAMES.iter().flat_map(|(_, names)| names.iter().copied()).collect();
            Error::plain(format!("unknown limit '{shown}' (known: {})", known.join(", "))).status(USAGE)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_means_one_key() {
        let mut seen = std::collections::HashSet::new();
        for (key, names) in NAMES {
            assert!(!names.is_empty() && HELP.contains(names[0]), "{key:?}");
            for name in names {
                assert!(seen.insert(*name), "{name} twice");
                assert_eq!(name.parse::<Key>().unwrap(), key);
            }
            assert_eq!(key.to_string().parse::<Key>().unwrap(), key);
        }
        let error = "pid".parse::<Key>().unwrap_err();
        assert!(error.exit_status() == USAGE && error.to_string().contains("memory.limit_in_bytes"), "{error}");
        for v2 in [false, true] {
            let shown: Vec<_> = Key::shown(v2).collect();
            assert!(shown.contains(&Key::Memory) && shown.contains(&Key::High) == v2, "{shown:?}");
        }
    }
}
