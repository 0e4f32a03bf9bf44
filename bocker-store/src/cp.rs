//! `cp-out`, `cp-in` and `cp-stat`: files out of a container and into one, as tar archives, by docker's rules.
//!
//! The container may run, and be hostile: whatever it makes of its names meanwhile, each step of a path is one component below
//! a descriptor, so none leaves its root. What is mounted inside a running container is not seen from here. A volume of the
//! store takes the place of the directory that it covers; other mounts (directories of the host, tmpfs) are refused.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use bocker_common::diag::USAGE;
use bocker_common::say::{Act, Explain, Said, quote, tell};
use bocker_common::tarball::{Entry, Kind as Type, Reader, shown};
use bocker_common::{Error, Id, Kind, Result};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::export::{DIRECTORY, Exporter, MAX_DEPTH};
use crate::from_tar;
use crate::layer::{Applier, is_dir, lstat, names};
use crate::mounts::{Mount, Source, mounts};
use crate::pipeline;
use crate::remember::WORDS;
use crate::store::{Store, to_nix};
use crate::verbs::print;
use crate::volumes::{DATA, PREFIX, VOLUMES};

/// Symbolic links followed for one path, at most, as the kernel does.
const MAX_LINKS: usize = 40;
const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What bocker-exec mounts in every container.
const OWN: [&str; 6] = ["/proc", "/sys", "/dev", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"];

/// A mount over something in the subvolume.
#[derive(Debug)]
pub(crate) struct Cover {
    /// A volume's files, which are there instead; None: they are not seen from here.
    pub(crate) volume: Option<OwnedFd>,
    /// Nothing may be written there.
    pub(crate) read_only: bool,
    /// What it is.
    pub(crate) what: String,
    /// How to get at it all the same.
    pub(crate) way_out: String,
}

/// By device and inode of what they cover: a mount point cannot be moved, so it stays the same whatever path leads there.
pub(crate) type Covers = HashMap<(u64, u64), Cover>;

/// The key of a file in [`Covers`].
pub(crate) fn key(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Why a path leads nowhere.
#[derive(Debug)]
enum Stop {
    Errno(Errno),
    Covered(String, String),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// Where a path leads.
#[derive(Debug)]
struct Found {
    /// Names from the root, without links and dots.
    parts: Vec<Vec<u8>>,
    /// Where the last of them lies.
    parent: OwnedFd,
    /// What is there, if something is.
    node: Option<(OwnedFd, Stat)>,
    /// Whether what is there can only be a directory.
    is_directory: bool,
}

/// Walks a path inside the root, as a process there would, links and mounts included; the last component is followed only
/// where that is asked for, or where something comes after it, if only a slash.
fn resolve(root: BorrowedFd<'_>, covers: &Covers, path: &[u8], follow: bool) -> std::result::Result<Found, Stop> {
    if path.is_empty() || path.contains(&0) {
        return Err(Errno::NOENT.into());
    }
    let duplicate = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3);
    let mut queue: VecDeque<Vec<u8>> = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
    let mut stack: Vec<(Vec<u8>, OwnedFd)> = Vec::new();
    let mut links = 0;
    while let Some(part) = queue.pop_front() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                stack.pop();
                continue;
            }
            _ if stack.len() >= MAX_DEPTH || part.len() > 255 => return Err(Errno::NAMETOOLONG.into()),
            _ => {}
        }
        let here = stack.last().map_or(root, |(_, fd)| fd.as_fd());
        let mut fd = match rustix::fs::openat(here, part.as_slice(), HANDLE, Mode::empty()) {
            Err(Errno::NOENT) if queue.iter().all(|part| matches!(part.as_slice(), b"" | b".")) => {
                let mut parts: Vec<_> = stack.iter().map(|(name, _)| name.clone()).collect();
                parts.push(part);
                return Ok(Found { parts, parent: duplicate(here)?, node: None, is_directory: !queue.is_empty() });
            }
            done => done?,
        };
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink && (follow || !queue.is_empty()) {
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = rustix::fs::readlinkat(&fd, "", Vec::new())?.into_bytes();
            if target.starts_with(b"/") {
                stack.clear();
            }
            for part in target.split(|byte| *byte == b'/').rev() {
                queue.push_front(part.to_vec());
            }
            continue;
        }
        match covers.get(&key(&stat)) {
            Some(Cover { volume: Some(volume), .. }) => fd = duplicate(volume.as_fd())?,
            Some(cover) => return Err(Stop::Covered(cover.what.clone(), cover.way_out.clone())),
            None if !is_dir(&stat) && !queue.is_empty() => return Err(Errno::NOTDIR.into()),
            None => {}
        }
        stack.push((part, fd));
    }
    let parts = stack.iter().map(|(name, _)| name.clone()).collect();
    let node = stack.pop().map_or_else(|| duplicate(root), |(_, fd)| Ok(fd))?;
    let parent = duplicate(stack.last().map_or(root, |(_, fd)| fd.as_fd()))?;
    let stat = rustix::fs::fstat(&node)?;
    Ok(Found { parts, parent, node: Some((node, stat)), is_directory: false })
}

/// A container's files.
#[derive(Debug)]
struct Place {
    id: Id,
    root: OwnedFd,
    covers: Covers,
}

impl Place {
    fn open(store: &Store, name: &str) -> Result<Self> {
        let id = store.find(Kind::Container, name)?;
        let open = |path: &str| {
            let mut dir = rustix::fs::openat(store.dir(), ".", DIRECTORY, Mode::empty())?;
            for part in path.split('/') {
                dir = rustix::fs::openat(&dir, part, DIRECTORY, Mode::empty())?;
            }
            Ok::<_, Errno>(dir)
        };
        let rootfs = format!("{id}/rootfs");
        let root = open(&rootfs).map_err(to_nix).map_err(store.fail("open", &rootfs))?;
        let text = |file: &str| String::from_utf8_lossy(&store.text(id, file)).into_owned();
        let mut all = mounts(&store.path, &text(WORDS), &text(VOLUMES));
        let known = all.len();
        if store.stopped(id)?.is_none() {
            let own = |to: &&str| Mount { source: Source::Tmpfs, to: (*to).to_owned(), read_only: false };
            all.extend(OWN.iter().map(own));
        }
        let mut covers = Covers::new();
        for (n, mount) in all.into_iter().enumerate() {
            // Where nothing is mounted yet, or where we do not see, nothing is covered.
            let Ok(Found { node: Some((_, stat)), .. }) = resolve(root.as_fd(), &covers, mount.to.as_bytes(), true)
            else {
                continue;
            };
            let to = &mount.to;
            let (volume, what) = match &mount.source {
                Source::Volume(name) => match open(&format!("{PREFIX}{name}/{DATA}")) {
                    Ok(volume) => (Some(volume), format!("{to} is the volume {name}")),
                    Err(_) => (None, format!("{to} is the volume {name}, which is not there")),
                },
                Source::Bind(from) => (None, format!("{to} is {from} of the host there")),
                Source::Tmpfs if n < known => (None, format!("{to} is a tmpfs there")),
                Source::Tmpfs => (None, format!("{to} is mounted in a running container")),
            };
            let way_out = format!("bocker exec {id} tar");
            covers.insert(key(&stat), Cover { volume, read_only: mount.read_only, what, way_out });
        }
        Ok(Self { id, root, covers })
    }

    fn fail(&self, path: &OsStr, stop: Stop) -> Error {
        let at = format!("{}:{}", self.id, shown(path.as_bytes()));
        match stop {
            Stop::Errno(errno) => Error::new("copy", at, to_nix(errno)),
            Stop::Covered(what, way_out) => Error::new("copy", at, what).hint(way_out),
        }
    }

    fn resolve(&self, path: &OsStr, follow: bool) -> Result<Found> {
        resolve(self.root.as_fd(), &self.covers, path.as_bytes(), follow).map_err(|stop| self.fail(path, stop))
    }
}

/// `cp-stat`: `TYPE\tMODE\tBYTES`; `none` where nothing is, and something could be made, unless it has to be `existing`.
pub(crate) fn stat(store: &Store, name: &str, path: &OsStr, follow: bool, existing: bool) -> Result<()> {
    let place = Place::open(store, name)?;
    let stat = match place.resolve(path, follow)?.node {
        Some((_, stat)) => stat,
        None if existing => return Err(place.fail(path, Stop::Errno(Errno::NOENT))),
        None => return print(b"none\t-\t-\n"),
    };
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::CharacterDevice => "character",
        FileType::BlockDevice => "block",
        FileType::Fifo => "fifo",
        _ => "socket",
    };
    print(format!("{kind}\t{:o}\t{}\n", stat.st_mode & 0o7777, stat.st_size).as_bytes())
}

/// Whether a path names what is in a directory, not the directory: it ends in `/.`.
fn is_contents(path: &[u8]) -> bool {
    path == b"." || path.ends_with(b"/.")
}

/// How `cp-out` names what it writes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Out {
    /// Where PATH is a link: what it leads to
    #[arg(long, short = 'L')]
    follow_link: bool,
    /// What it is called in the archive [default: the last part of PATH]
    #[arg(long, value_name = "NAME")]
    name: Option<std::ffi::OsString>,
}

/// `cp-out`: a file, or a directory with all in it, to stdout.
pub(crate) fn out(store: &Store, name: &str, path: &OsStr, how: &Out) -> Result<()> {
    let place = Place::open(store, name)?;
    let fail = |errno| place.fail(path, Stop::Errno(errno));
    let Found { parts, parent, node, .. } = place.resolve(path, how.follow_link)?;
    let (node, stat) = node.ok_or_else(|| fail(Errno::NOENT))?;
    let typed = path.as_bytes().split(|byte| *byte == b'/').rfind(|part| !part.is_empty());
    let called = match (&how.name, typed) {
        (Some(name), _) => Some(name.as_bytes().to_vec()),
        _ if is_contents(path.as_bytes()) => None,
        (None, Some(name)) if name != b".." && name != b"." => Some(name.to_vec()),
        // The root has no name.
        _ => parts.last().cloned(),
    };
    if called.as_ref().is_some_and(|name| name.is_empty() || name.contains(&b'/') || matches!(&name[..], b"." | b".."))
    {
        return Err(Error::plain("--name takes one name, without slashes").status(USAGE));
    }
    let stdout = io::stdout();
    if stdout.is_terminal() {
        return Err(Error::plain("stdout is a terminal").hint(format!("bocker-store cp-out {} … > FILE", place.id)));
    }
    let out = BufWriter::with_capacity(256 << 10, stdout.lock());
    let mut exporter = Exporter::of_a_container(out, place.covers);
    let fail = |errno| Error::new("copy", format!("{}:{}", place.id, shown(path.as_bytes())), to_nix(errno));
    match (is_dir(&stat), called) {
        (true, called) => {
            let dir = rustix::fs::openat(&node, ".", DIRECTORY, Mode::empty()).map_err(fail)?;
            match called {
                Some(name) => exporter.directory(&dir, &[&name[..], b"/"].concat(), MAX_DEPTH)?,
                // Without an entry for the directory itself: what it is copied into keeps its own mode and owner.
                None => exporter.contents(&dir)?,
            }
        }
        (false, Some(name)) => {
            let leaf = parts.last().ok_or(Errno::NOENT).map_err(fail)?;
            exporter.other(&parent, leaf, &name, &stat)?;
        }
        (false, None) => return Err(fail(Errno::NOTDIR)),
    }
    exporter.end().map(drop)
}

/// Whose the files are that `cp-in` makes, and where they come from.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct In {
    /// All belong to this user and group, numbers [default: as in the archive]
    #[arg(long, value_name = "UID:GID", value_parser = owner)]
    owner: Option<(u32, u32)>,
    /// From cp-out: where nothing comes, that one has said why
    #[arg(long)]
    piped: bool,
}

fn owner(text: &str) -> std::result::Result<(u32, u32), String> {
    let parse = |text: &str| text.parse().ok().filter(|id| *id != u32::MAX);
    let both = text.split_once(':').and_then(|(uid, gid)| Some((parse(uid)?, parse(gid)?)));
    both.ok_or_else(|| "two numbers, as 0:0".to_owned())
}

/// What `cp-in` does, in shell.
struct Extract {
    to: String,
    /// The first part of each name becomes this.
    called: Option<String>,
    owner: Option<(u32, u32)>,
}

impl Act for Extract {
    fn say(&self) -> Said {
        let mut tar = "tar --numeric-owner --xattrs --xattrs-include='*' --delay-directory-restore".to_owned();
        if let Some((uid, gid)) = self.owner {
            tar += &format!(" --owner={uid} --group={gid}");
        }
        let to = quote(&self.to);
        let why = "applied inside the container's root, links never followed out of it";
        let Some(name) = &self.called else {
            return Said::new(format!("{tar} --no-overwrite-dir -xpf - -C {to}"), why);
        };
        // What is special in sed's replacement.
        let escaped: String =
            name.chars().flat_map(|c| "\\&,".contains(c).then_some('\\').into_iter().chain([c])).collect();
        let (at, transform) = (quote(format!("{}/{name}", self.to)), quote(format!("flags=rh;s,^[^/]*,{escaped},")));
        Said::new(
            format!(
                "archive=$(mktemp); cat > \"$archive\"\ncase $(tar -tf \"$archive\" | head -n 1) in\n\
                ./*) mkdir -p {at}; {tar} -xpf \"$archive\" -C {at} ;;\n*) {tar} --transform {transform} -xpf \"$archive\" -C {to} ;;\n\
                esac; rm \"$archive\""
            ),
            why,
        )
    }
}

/// How the entries of an archive are called in the container.
#[derive(Debug)]
struct Renaming {
    /// The directory that they go into, from the root, with a slash at its end where it is not empty.
    into: Vec<u8>,
    /// What the archive's one entry becomes, where that is not there yet or is no directory.
    called: Option<Vec<u8>>,
    /// It must not be a directory: something else is there.
    no_directory: bool,
    /// It must be one: a slash follows.
    directory: bool,
    owner: Option<(u32, u32)>,
    /// The first part of the first name.
    first: Option<Vec<u8>>,
}

impl Renaming {
    /// The name in the container; None: there is nothing to do for it.
    fn of(&self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let parts: Vec<_> = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
        let Some(called) = &self.called else {
            // The directory itself stays as it is.
            return Ok((!parts.is_empty()).then(|| [&self.into, &parts.join(&b'/')[..]].concat()));
        };
        let first = self.first.as_deref().unwrap_or_default();
        let rest = match parts.split_first() {
            _ if first.is_empty() => &parts[..],
            Some((head, rest)) if *head == first => rest,
            _ => {
                return Err(Error::new(
                    "copy",
                    format_args!("'{}'", shown(path)),
                    "the archive has more than one thing",
                )
                .hint("an existing directory takes them"));
            }
        };
        let all = [&[called.as_slice()][..], rest].concat();
        Ok(Some([&self.into, &all.join(&b'/')[..]].concat()))
    }

    fn rename(&mut self, entry: &mut Entry) -> Result<bool> {
        if self.first.is_none() {
            let mut parts = entry.path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
            let first = parts.next().unwrap_or_default().to_vec();
            let is_directory = entry.kind == Type::Directory || parts.next().is_some();
            if self.called.is_some() && is_directory && self.no_directory {
                let why = "a directory cannot take the place of what is none";
                return Err(Error::new("copy", format_args!("'{}'", shown(&entry.path)), why));
            }
            if self.called.is_some() && !is_directory && self.directory {
                let why = "there is no such directory to copy it into";
                return Err(Error::new("copy", format_args!("'{}'", shown(&entry.path)), why));
            }
            self.first = Some(first);
        }
        let Some(path) = self.of(&entry.path)? else { return Ok(false) };
        entry.path = path;
        if entry.kind == Type::HardLink {
            let target = self.of(&entry.link)?;
            entry.link = target.unwrap_or_default();
        }
        if let Some((uid, gid)) = self.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        Ok(true)
    }
}

/// `cp-in`: what the archive on stdin holds, into the directory, by docker's rules for a destination: one that is not there
/// gets the archive's one thing under its name, and so does one that is no directory.
pub(crate) fn into(store: &Store, name: &str, path: &OsStr, how: In, explain: Explain) -> Result<()> {
    if io::stdin().is_terminal() && !explain.dry_run {
        return Err(Error::plain("stdin is a terminal").hint("tar -c FILE | bocker-store cp-in ID DIR"));
    }
    let place = Place::open(store, name)?;
    let Found { mut parts, node, is_directory, .. } = place.resolve(path, true)?;
    let is_there = node.as_ref().is_some_and(|(_, stat)| is_dir(stat));
    let called = if is_there { None } else { parts.pop() };
    let into = parts.iter().flat_map(|part| [part.as_slice(), b"/"]).collect::<Vec<_>>().concat();
    let act = Extract {
        to: store
            .path
            .join(format!("{}/rootfs", place.id))
            .join(OsStr::from_bytes(&into))
            .to_string_lossy()
            .into_owned(),
        called: called.as_ref().map(|name| String::from_utf8_lossy(name).into_owned()),
        owner: how.owner,
    };
    tell(&act, explain)?;
    if explain.dry_run {
        return Ok(());
    }
    let renaming =
        Renaming { into, called, no_directory: node.is_some(), directory: is_directory, owner: how.owner, first: None };
    let mut input = BufReader::with_capacity(256 << 10, io::stdin());
    if input.fill_buf().map_err(from_tar::reading)?.is_empty() {
        if how.piped {
            return Err(Error::explained_elsewhere());
        }
        return Err(Error::new("read", "stdin", "it is empty").hint("tar -c FILE | bocker-store cp-in ID DIR"));
    }
    std::thread::scope(|scope| {
        let input = pipeline::archive(scope, input).map_err(from_tar::reading)?;
        apply(store, place, renaming, input)
    })
}

fn apply(store: &Store, place: Place, mut renaming: Renaming, input: impl BufRead) -> Result<()> {
    let budget = store.budget()?;
    let mut archive = Reader::new(input);
    let root = place.root;
    let applier = Applier::new(root, &budget).into_a_container(place.covers);
    let dropped = applier.apply_as(&mut archive, |entry| renaming.rename(entry))?;
    from_tar::ended(archive, &dropped)
}

/// For [`Exporter`]: the sorted names of a directory.
pub(crate) fn sorted(dir: &OwnedFd) -> rustix::io::Result<Vec<(Vec<u8>, Option<Stat>)>> {
    let mut all = names(dir)?;
    all.sort_unstable();
    all.into_iter().map(|name| lstat(dir, &name).map(|stat| (name, stat))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn renaming(called: Option<&[u8]>) -> Renaming {
        Renaming {
            into: b"dir/".to_vec(),
            called: called.map(<[u8]>::to_vec),
            no_directory: false,
            directory: false,
            owner: None,
            first: None,
        }
    }

    fn renamed(renaming: &mut Renaming, path: &[u8], first: &[u8]) -> Option<String> {
        renaming.first = Some(first.to_vec());
        renaming.of(path).unwrap().map(|path| String::from_utf8(path).unwrap())
    }

    #[test]
    fn names_in_the_container() {
        let mut as_it_is = renaming(None);
        for (path, expected) in
            [("./", None), ("./a", Some("dir/a")), ("a//b/", Some("dir/a/b")), ("../a", Some("dir/../a"))]
        {
            assert_eq!(renamed(&mut as_it_is, path.as_bytes(), b"x").as_deref(), expected, "{path}");
        }
        let mut other = renaming(Some(b"new"));
        for (path, first, expected) in
            [("a", "a", "dir/new"), ("a/b", "a", "dir/new/b"), ("./", "", "dir/new"), ("./a/b", "", "dir/new/a/b")]
        {
            assert_eq!(renamed(&mut other, path.as_bytes(), first.as_bytes()).as_deref(), Some(expected), "{path}");
        }
        assert!(other.of(b"b").is_ok());
        other.first = Some(b"a".to_vec());
        assert!(other.of(b"b").unwrap_err().to_string().contains("more than one thing"));
    }

    #[test]
    fn owners() {
        assert_eq!(owner("0:4294967294"), Ok((0, u32::MAX - 1)));
        for text in ["", ":", "0", "0:", "a:b", "0:4294967295", "-1:0", "0:0:0"] {
            assert!(owner(text).is_err(), "{text}");
        }
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root/a/b")).unwrap();
        std::fs::write(dir.path().join("outside"), "x").unwrap();
        for (target, link) in
            [("../../../..", "up"), ("/", "top"), ("/a", "absolute"), ("b/../../a", "dots"), ("round", "round")]
        {
            std::os::unix::fs::symlink(target, dir.path().join("root/a").join(link)).unwrap();
        }
        dir
    }

    #[test]
    fn paths_stay_inside() {
        let dir = tree();
        let root = OwnedFd::from(std::fs::File::open(dir.path().join("root")).unwrap());
        let find = |path: &str| resolve(root.as_fd(), &Covers::new(), path.as_bytes(), true);
        for (path, names) in [
            ("/", ""),
            ("../../..", ""),
            ("a/up", ""),
            ("a/up/outside", "outside"),
            ("a/top/a/b", "a/b"),
            ("a/absolute/dots/new", "a/new"),
            ("a/b/../../../../../a/b/.", "a/b"),
        ] {
            let found = find(path).unwrap();
            assert_eq!(String::from_utf8(found.parts.join(&b'/')).unwrap(), names, "{path}");
            assert_eq!(found.node.is_none(), matches!(names, "outside" | "a/new"), "{path}");
        }
        for path in ["a/round", "a/nosuch/x", "", "a/b/x/y", "a\0"] {
            assert!(find(path).is_err(), "{path}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

        /// Whatever path it is, it leads to the same as in the kernel's own in-root walk, and never outside.
        #[test]
        fn as_the_kernel_walks(words in prop::collection::vec(prop::sample::select(
            vec!["a", "b", "up", "top", "absolute", "dots", "round", "..", ".", "", "outside", "root"]), 1..8)) {
            let dir = tree();
            let root = OwnedFd::from(std::fs::File::open(dir.path().join("root")).unwrap());
            let path = words.join("/");
            let ours = resolve(root.as_fd(), &Covers::new(), path.as_bytes(), true).ok().and_then(|found| found.node);
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let kernel = rustix::fs::openat2(&root, path.as_str(), flags, Mode::empty(), rustix::fs::ResolveFlags::IN_ROOT);
            let kernel = kernel.and_then(rustix::fs::fstat).ok().map(|stat| key(&stat));
            prop_assert_eq!(ours.map(|(_, stat)| key(&stat)), kernel, "{}", path);
        }
    }
}
