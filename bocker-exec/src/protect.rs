//! The process that watches a container is small, and the last one that a lack of memory takes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::sys;

/// What `/proc/self/oom_score_adj` was.
#[derive(Debug)]
pub struct Score(String);

const SCORE: &str = "/proc/self/oom_score_adj";

/// Out of the OOM killer's choice, proc(5): whoever else it takes, somebody is there to tell. To be called when the payload has been
/// forked, for children inherit it. `None` where it is not allowed (a container's root, say).
#[expect(clippy::disallowed_methods, reason = "/proc/self")]
pub fn from_the_oom_killer() -> Option<Score> {
    let was = std::fs::read_to_string(SCORE).ok()?;
    std::fs::write(SCORE, "-1000").ok()?;
    Some(Score(was))
}

/// Ours, and that of the children to come.
///
/// # Errors
/// EACCES: lower than it was takes CAP_SYS_RESOURCE.
#[expect(clippy::disallowed_methods, reason = "/proc/self")]
pub fn set(score: i32) -> nix::Result<()> {
    let errno = |e: std::io::Error| nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
    std::fs::write(SCORE, score.to_string()).map_err(errno)
}

impl Score {
    /// As before, for the program of `--then`.
    #[expect(clippy::disallowed_methods, reason = "/proc/self")]
    pub fn restore(self) {
        let _ = std::fs::write(SCORE, self.0);
    }
}

/// Leaves the control groups that are named like the container, for the groups above them: neither its memory's limit nor a freeze
/// holds who watches it, and killing all that is in them leaves a process that writes down how it ended.
///
/// Only those: a group with another name (a session's, a service's) is the caller's, and stays ours. Above it on version 2 may be a
/// group that has controllers and is not the root of all, so it takes nobody: then it is the group of whoever started the chain. To be
/// called while our parent, which that one waits for, is still there.
pub fn leave_groups(container: &OsStr) {
    // 0 is the writer.
    #[expect(clippy::disallowed_methods, reason = "the host's cgroup file system")]
    let join = |group: &Path| std::fs::write(group.join("cgroup.procs"), "0").is_ok();
    let mounts = text("/proc/self/mountinfo");
    for group in groups_above(&text("/proc/self/cgroup"), &mounts, container) {
        if !join(&group) {
            let starter = parent_of(&text(&format!("/proc/{}/status", nix::unistd::getppid())));
            let own = starter.map(|pid| text(&format!("/proc/{pid}/cgroup"))).unwrap_or_default();
            let _ = group_of(&own, &mounts, container).is_some_and(|group| join(&group));
        }
    }
}

/// From `/proc/PID/status`.
fn parent_of(status: &str) -> Option<i32> {
    status.lines().find_map(|line| line.strip_prefix("PPid:")).and_then(|pid| pid.trim().parse().ok())
}

/// The directory of a process's group on version 2, unless the container's.
fn group_of(own: &str, mounts: &str, container: &OsStr) -> Option<PathBuf> {
    let path = Path::new(own.lines().find_map(|line| line.strip_prefix("0::"))?);
    directory("", path, mounts).filter(|_| path.file_name() != Some(container))
}

#[expect(clippy::disallowed_methods, reason = "/proc of the host")]
fn text(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

/// For each hierarchy in which we are in a group of this name: the directory above it. cgroups(7), proc_pid_mountinfo(5).
fn groups_above(own: &str, mounts: &str, name: &OsStr) -> Vec<PathBuf> {
    let above = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let path = Path::new(path);
        if path.file_name() != Some(name) {
            return None;
        }
        directory(controllers, path.parent()?, mounts)
    };
    own.lines().filter_map(above).collect()
}

/// Where a group of the hierarchy with these controllers (none: version 2) is mounted.
fn directory(controllers: &str, path: &Path, mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|mount| {
        let (place, what) = mount.split_once(" - ")?;
        let (kind, options) = (what.split(' ').next()?, what.split(' ').next_back()?);
        let fits = match controllers {
            "" => kind == "cgroup2",
            all => kind == "cgroup" && all.split(',').all(|one| options.split(',').any(|option| option == one)),
        };
        let mut place = place.split(' ').skip(3);
        let (root, at) = (place.next()?, place.next()?);
        Some(Path::new(at).join(path.strip_prefix(root).ok().filter(|_| fits)?))
    })
}

/// Gives back the heap's free part and the stack's, and says where our own program and its libraries are that nobody has written to:
/// those pages come again from the page cache, so they are let go of as well (`madvise(2)`), right before the long wait. Each
/// that is touched after that brings its neighbours along, 64 KiB and more: hence nothing but the wait itself.
pub fn shrink() -> Vec<(usize, usize)> {
    let clean = unwritten(&text("/proc/self/smaps"));
    sys::forget_stack();
    sys::trim_heap();
    clean
}

/// Mappings of files without a single page of their own, from `/proc/PID/smaps`. What the dynamic linker has written to is read-only by
/// now, too, and would come back as the file has it: so the count of anonymous pages says what is clean, not the permission.
fn unwritten(smaps: &str) -> Vec<(usize, usize)> {
    let (mut found, mut now) = (Vec::new(), None);
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-') {
            let (mode, path) = (words.next().unwrap_or_default(), words.nth(3).unwrap_or_default());
            let range = usize::from_str_radix(start, 16).ok().zip(usize::from_str_radix(end, 16).ok());
            now = range.filter(|_| matches!(mode, "r-xp" | "r--p") && path.starts_with('/'));
        } else if first == "Anonymous:" && words.next() == Some("0") {
            found.extend(now.take());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_of_the_containers_name_are_left() {
        let mounts = "25 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:5 - cgroup cgroup rw,cpu,cpuacct\n\
            27 25 0:24 /inner /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            28 25 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let above = |own, name: &str| groups_above(own, mounts, OsStr::new(name));
        let own = "4:memory:/inner/ps_1\n3:cpu,cpuacct:/ps_1\n2:pids:/ps_1\n1:name=systemd:/user.slice\n0::/a/ps_1\n";
        assert_eq!(
            above(own, "ps_1"),
            ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/unified/a"].map(PathBuf::from)
        );
        assert!(above(own, "ps_2").is_empty());
        assert!(above("0::/\n3:cpu,cpuacct:/\n", "").is_empty());
        assert!(above("4:memory:/outer/ps_1\n", "ps_1").is_empty(), "not seen from here");
        let starters = |own, name: &str| group_of(own, mounts, OsStr::new(name));
        assert_eq!(starters("4:memory:/x\n0::/a/host\n", "ps_1"), Some("/sys/fs/cgroup/unified/a/host".into()));
        assert_eq!(starters("0::/a/ps_1\n", "ps_1"), None, "it is in there itself");
        assert_eq!(starters("4:memory:/x\n", "ps_1"), None);
        assert_eq!(parent_of("Name:\tx\nPPid:\t77\nUid:\t0\n"), Some(77));
    }

    #[test]
    fn only_pages_that_come_again_are_given_back() {
        let smaps = "00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/x y\nRss: 8 kB\nAnonymous:             0 kB\n\
            00651000-00652000 r--p 00051000 08:02 173521 /usr/bin/x y\nRss: 4 kB\nAnonymous:             4 kB\n\
            00652000-00655000 rw-p 00052000 08:02 173521 /usr/bin/x y\nAnonymous:             0 kB\n\
            00e03000-00e24000 rw-p 00000000 00:00 0 [heap]\nAnonymous:             0 kB\n\
            7fff0000-7fff1000 r-xp 00000000 00:00 0 [vdso]\nAnonymous:             0 kB\n\
            7f000000-7f001000 r--p 00000000 08:02 1 /lib/libc.so.6\nAnonymous:             0 kB\n";
        assert_eq!(unwritten(smaps), [(0x0040_0000, 0x0045_2000), (0x7f00_0000, 0x7f00_1000)]);
        // Of this very process: it goes on.
        shrink().into_iter().for_each(|(start, end)| sys::forget_pages(start, end - start));
        assert!(!text("/proc/self/smaps").is_empty());
    }
}
