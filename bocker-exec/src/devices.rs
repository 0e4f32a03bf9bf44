//! Devices of the host's in the container's `/dev`: `--device`, and all of them for `--privileged`.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use bocker_common::say::quote;
use bocker_common::{Error, Result};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use crate::inroot::{Root, errno};

/// A node to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Below `/dev`.
    at: PathBuf,
    block: bool,
    number: u64,
    /// As the host's: permissions, user, group.
    mode: u32,
    owner: (u32, u32),
}

/// `--device HOST[:INSIDE[:rwm]]`; the letters are for the device cgroup, bocker-cg's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    host: PathBuf,
    inside: PathBuf,
}

/// # Errors
/// What is no such word.
pub fn wanted(word: &str) -> std::result::Result<Wanted, String> {
    let access = |letters: &str| !letters.is_empty() && letters.chars().all(|c| "rwm".contains(c));
    let (host, inside) = match word.split(':').collect::<Vec<_>>()[..] {
        [host] => (host, host),
        [host, letters] if access(letters) => (host, host),
        [host, inside] => (host, inside),
        [host, inside, letters] if access(letters) => (host, inside),
        _ => return Err("want HOST[:INSIDE[:rwm]]".to_owned()),
    };
    let plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
    match Path::new(inside).strip_prefix("/dev") {
        Ok(below) if plain(below) && below.file_name().is_some() => {
            Ok(Wanted { host: host.into(), inside: below.to_owned() })
        }
        _ => Err(format!("{inside} is not below /dev")),
    }
}

impl Wanted {
    /// What the host has there.
    ///
    /// # Errors
    /// One line: nothing, or no device.
    #[expect(clippy::disallowed_methods, reason = "the user's own word, a path of the host")]
    pub fn device(&self) -> Result<Device> {
        let fail = |e: bocker_common::diag::Reason| Error::new("find device", self.host.display(), e);
        let stat = rustix::fs::stat(&self.host).map_err(|e| fail(errno(e).into()))?;
        Device::of(&stat, self.inside.clone()).ok_or_else(|| fail("no device".into()))
    }
}

/// Names of the host's `/dev` that a container has its own of, or that are no hardware.
const OWN: [&str; 9] = ["console", "fd", "full", "mqueue", "null", "ptmx", "pts", "shm", "tty"];

/// All devices of the host's, for `--privileged`.
///
/// # Errors
/// One line.
#[expect(clippy::disallowed_methods, reason = "the host's /dev")]
pub fn all() -> Result<Vec<Device>> {
    let fail = |e: std::io::Error| Error::new("list", "/dev", e);
    let (mut found, mut left) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(below) = left.pop() {
        let entries = match std::fs::read_dir(Path::new("/dev").join(&below)) {
            // Devices come and go.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.map_err(fail)?,
        };
        for entry in entries {
            let entry = entry.map_err(fail)?;
            let at = below.join(entry.file_name());
            if ["zero", "random", "urandom"].iter().chain(&OWN).any(|own| Path::new(own) == at) {
                continue;
            }
            let Ok(stat) = rustix::fs::lstat(entry.path()) else { continue };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                left.push(at);
            } else {
                found.extend(Device::of(&stat, at));
            }
        }
    }
    found.sort_by(|a, b| a.at.cmp(&b.at));
    Ok(found)
}

impl Device {
    fn of(stat: &rustix::fs::Stat, at: PathBuf) -> Option<Self> {
        let block = match FileType::from_raw_mode(stat.st_mode) {
            FileType::BlockDevice => true,
            FileType::CharacterDevice => false,
            _ => return None,
        };
        Some(Self { at, block, number: stat.st_rdev, mode: stat.st_mode & 0o7777, owner: (stat.st_uid, stat.st_gid) })
    }

    /// As mknod(1), in the root's directory.
    pub(crate) fn shell(&self, owner: u32) -> String {
        let at = quote(Path::new("dev").join(&self.at));
        let kind = if self.block { 'b' } else { 'c' };
        let (major, minor) = (rustix::fs::major(self.number), rustix::fs::minor(self.number));
        let (user, group) = (owner + self.owner.0, owner + self.owner.1);
        let parent = match self.at.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                format!("mkdir -p {}\n", quote(Path::new("dev").join(parent)))
            }
            _ => String::new(),
        };
        format!("{parent}rm -f {at}\nmknod -m {:o} {at} {kind} {major} {minor}\nchown {user}:{group} {at}", self.mode)
    }

    /// Makes it in the container's `/dev`. Its owner is the host's, counted from whom `/dev` belongs to: the container's root.
    ///
    /// # Errors
    /// One line.
    pub fn make(&self, root: &Root) -> Result<()> {
        let fail =
            |e: rustix::io::Errno| Error::new("make device", Path::new("/dev").join(&self.at).display(), errno(e));
        let mut dir = root.own_directory("dev").map_err(|e| Error::new("open", "/dev", e))?;
        let first = rustix::fs::fstat(&dir).map_err(fail)?;
        let down = |dir: &OwnedFd, name: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(dir, name, flags, Mode::empty())
        };
        let ids = |user, group| (Some(Uid::from_raw(first.st_uid + user)), Some(Gid::from_raw(first.st_gid + group)));
        for part in self.at.parent().into_iter().flat_map(Path::iter).map(Path::new) {
            dir = match down(&dir, part) {
                Err(rustix::io::Errno::NOENT) => {
                    rustix::fs::mkdirat(&dir, part, Mode::from_raw_mode(0o755)).map_err(fail)?;
                    let (user, group) = ids(0, 0);
                    rustix::fs::chownat(&dir, part, user, group, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
                    down(&dir, part)
                }
                found => found,
            }
            .map_err(fail)?;
        }
        let name = self.at.file_name().unwrap_or_default();
        let kind = if self.block { FileType::BlockDevice } else { FileType::CharacterDevice };
        let mut done = rustix::fs::mknodat(&dir, name, kind, Mode::from_raw_mode(self.mode), self.number);
        if done == Err(rustix::io::Errno::EXIST) {
            // Instead of one of ours, or of one given before.
            rustix::fs::unlinkat(&dir, name, AtFlags::empty()).map_err(fail)?;
            done = rustix::fs::mknodat(&dir, name, kind, Mode::from_raw_mode(self.mode), self.number);
        }
        done.map_err(fail)?;
        let (user, group) = ids(self.owner.0, self.owner.1);
        rustix::fs::chownat(&dir, name, user, group, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_words() {
        let want = |host: &str, inside: &str| Ok(Wanted { host: host.into(), inside: inside.into() });
        assert_eq!(wanted("/dev/fuse"), want("/dev/fuse", "fuse"));
        assert_eq!(wanted("/dev/sda:/dev/disk/a"), want("/dev/sda", "disk/a"));
        assert_eq!(wanted("/dev/sda:rw"), want("/dev/sda", "sda"));
        assert_eq!(wanted("/dev/sda:/dev/b:rwm"), want("/dev/sda", "b"));
        for word in [
            "",
            "/dev",
            "/dev/a:/etc/b",
            "/dev/a:/dev/../b",
            "/dev/a:/dev/b:x",
            "/dev/a:/dev/b:",
            "a:b:r:w",
            "/dev/a:/dev",
        ] {
            assert!(wanted(word).is_err(), "{word}");
        }
    }

    #[test]
    fn only_devices() {
        assert_eq!(wanted("/dev/null:/dev/x").unwrap().device().unwrap().number, rustix::fs::makedev(1, 3));
        assert!(wanted("/etc/passwd:/dev/x").unwrap().device().is_err());
        assert!(wanted("/nosuch:/dev/x").unwrap().device().is_err());
    }
}
