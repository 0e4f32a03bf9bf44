//! A file that has its name only when all of it is there: what had the name before is replaced whole, or not at all.

#![expect(clippy::disallowed_methods, reason = "--output FILE, the user's own word")]

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::store::random;

/// What is written to, 0600 where it is new.
#[derive(Debug)]
pub(crate) struct Output {
    file: File,
    /// None: it is written through to what is there.
    place: Option<Place>,
}

/// Where a new file gets its name.
#[derive(Debug)]
struct Place {
    dir: OwnedFd,
    name: OsString,
    /// The file's name until then; None where the file system has files without one.
    temporary: Option<String>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(name) = &self.temporary {
            let _ = rustix::fs::unlinkat(&self.dir, name, AtFlags::empty());
        }
    }
}

impl Output {
    /// A file that is to have this name. Pipes, devices, what `/dev/stdout` is and files that something is mounted on are
    /// written to as they are.
    ///
    /// # Errors
    /// It cannot be made, or not be opened.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        // No path goes through the links of /proc to files that are open: those have no name of their own.
        let there =
            rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
                .and_then(|fd| rustix::fs::fstat(&fd))
                .map(|stat| FileType::from_raw_mode(stat.st_mode));
        match there {
            // A link's target is replaced, not the link.
            Ok(FileType::RegularFile) => {
                let path = path.canonicalize()?;
                if is_mount_point(&path)? { Self::through(&path) } else { Self::beside(&path) }
            }
            Err(Errno::NOENT) if path.is_symlink() => Err(io::Error::other("it is a link that leads nowhere")),
            Err(Errno::NOENT) => Self::beside(path),
            _ => Self::through(path),
        }
    }

    fn through(path: &Path) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().write(true).truncate(true).open(path)?, place: None })
    }

    fn beside(path: &Path) -> io::Result<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().ok_or(Errno::ISDIR)?.to_owned();
        let dir = rustix::fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let (mode, flags) = (Mode::RUSR | Mode::WUSR, OFlags::WRONLY | OFlags::CLOEXEC);
        let mut place = Place { dir, name, temporary: None };
        let file = rustix::fs::openat(&place.dir, ".", flags | OFlags::TMPFILE, mode).or_else(|_| {
            let name = temporary();
            let file = rustix::fs::openat(&place.dir, &name, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
            place.temporary = Some(name);
            Ok::<_, Errno>(file)
        })?;
        Ok(Self { file: file.into(), place: Some(place) })
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// It is whole, and has its name from now on, whatever happens to the machine.
    ///
    /// # Errors
    /// Its bytes cannot be written, or it cannot have the name; then what had it before has it still.
    pub(crate) fn finish(self) -> io::Result<()> {
        let Some(mut place) = self.place else { return Ok(()) };
        // The bytes first: a power cut must not find the name and no file.
        self.file.sync_all()?;
        let name = match place.temporary.clone() {
            Some(name) => name,
            None => {
                // As open(2) has it for O_TMPFILE; without a capability, unlike AT_EMPTY_PATH.
                let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                let link =
                    |name: &Path| rustix::fs::linkat(CWD, unnamed.as_str(), &place.dir, name, AtFlags::SYMLINK_FOLLOW);
                match link(Path::new(&place.name)) {
                    Err(Errno::EXIST) => {}
                    done => return Ok(done.and_then(|()| rustix::fs::fsync(&place.dir))?),
                }
                // A link replaces nothing, a rename does.
                let name = temporary();
                link(Path::new(&name))?;
                place.temporary = Some(name.clone());
                name
            }
        };
        rustix::fs::renameat(&place.dir, &name, &place.dir, &place.name)?;
        place.temporary = None;
        // The name, too: fsync(2).
        Ok(rustix::fs::fsync(&place.dir)?)
    }
}

/// Whether another mount begins at this file: such a name cannot be given to another file, rename(2), EBUSY.
fn is_mount_point(path: &Path) -> io::Result<bool> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(false) };
    let dir = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(dir, name, flags, Mode::empty(), ResolveFlags::NO_XDEV).is_err_and(|e| e == Errno::XDEV))
}

fn temporary() -> String {
    format!(".bocker_{:016x}", random())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for text in ["one", "two"] {
            let before = std::fs::read(&path).ok();
            let output = Output::create(&path).unwrap();
            output.file().write_all(text.as_bytes()).unwrap();
            assert_eq!(std::fs::read(&path).ok(), before, "before it is whole");
            output.finish().unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            // Given up.
            Output::create(&path).unwrap().file().write_all(b"half").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(names(dir.path()), ["a"]);
        }
        // Where files have names from the beginning.
        let mut output = Output::create(&path).unwrap();
        let place = output.place.as_mut().unwrap();
        let flags = OFlags::WRONLY | OFlags::CREATE;
        output.file = rustix::fs::openat(&place.dir, ".bocker_x", flags, Mode::RUSR).unwrap().into();
        place.temporary = Some(".bocker_x".into());
        output.file().write_all(b"three").unwrap();
        assert_eq!(names(dir.path()), [".bocker_x", "a"]);
        output.finish().unwrap();
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), names(dir.path())), ("three", vec!["a".into()]));
        // By a link.
        symlink("a", dir.path().join("link")).unwrap();
        let output = Output::create(&dir.path().join("link")).unwrap();
        output.file().write_all(b"four").unwrap();
        output.finish().unwrap();
        assert!(dir.path().join("link").is_symlink() && std::fs::read(&path).unwrap() == b"four");
        for bad in ["gone", "none/x", ""] {
            symlink("nowhere", dir.path().join("gone")).ok();
            assert!(Output::create(&dir.path().join(bad)).is_err(), "{bad}");
        }
        assert_eq!(names(dir.path()), ["a", "gone", "link"]);
    }

    #[test]
    fn what_is_no_file_of_its_own_is_written_through() {
        let mut file = tempfile::tempfile().unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        for path in [Path::new("/dev/null"), Path::new(&path)] {
            let output = Output::create(path).unwrap();
            output.file().write_all(b"x").unwrap();
            output.finish().unwrap();
        }
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }
}
