//! Whom the payload runs as, from the image's own `/etc/passwd` and `/etc/group`, passwd(5), group(5).
//!
//! The image made these files, so they are read in-root, bounded, and a line that makes no sense is no entry.
//! A number is a number: it is never looked up as a name (CVE-2016-3697), and never wraps around (CVE-2026-46680).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use bocker_common::{Error, Result};
use nix::errno::Errno;

use crate::inroot::Root;

/// 2^31 − 2: above it are -1, "no change", and numbers that programs take for negative.
const HIGHEST: u32 = 0x7fff_fffe;
/// More than any real user database.
const MOST: u64 = 1 << 20;
/// The kernel's NGROUPS_MAX.
const MOST_GROUPS: usize = 65_536;

/// Numbers for `setgroups(2)`, `setresgid(2)`, `setresuid(2)`, and the home directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// The supplementary groups, `gid` first, as docker does (CVE-2022-36109).
    pub groups: Vec<u32>,
    pub home: OsString,
}

/// The user of `NAME|UID[:GROUP|GID]`, root when empty.
///
/// # Errors
/// One line for a user or group that is not there or out of range, or a database that cannot be read.
pub fn find(spec: &str, root: &Root) -> Result<User> {
    let database = |path| match root.read(path, MOST) {
        Ok(bytes) => Ok(bytes.unwrap_or_default()),
        Err(Errno::EINVAL) => Err(Error::new("read", format!("the image's {path}"), "not a regular file")),
        Err(Errno::EFBIG) => Err(Error::new("read", format!("the image's {path}"), "larger than 1 MiB")),
        Err(errno) => Err(Error::new("read", format!("the image's {path}"), errno)),
    };
    resolve(spec, &database("/etc/passwd")?, &database("/etc/group")?)
        .map_err(|why| Error::new("user", format!("'{spec}'"), why))
}

fn resolve(spec: &str, passwd: &[u8], group: &[u8]) -> std::result::Result<User, String> {
    let (user, group_spec) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = number(user)?;
    let entry = lines(passwd).filter_map(Entry::parse).find(|entry| match number {
        Some(uid) => entry.uid == uid,
        None => entry.name == user.as_bytes(),
    });
    let (uid, mut gid) = match (number, &entry) {
        (Some(uid), entry) => (uid, entry.as_ref().map_or(0, |e| e.gid)),
        (None, Some(entry)) => (entry.uid, entry.gid),
        (None, None) => return Err("no such user in the image's /etc/passwd".to_owned()),
    };
    let mut groups = Vec::new();
    match group_spec {
        Some(name) => {
            gid = match self::number(name)? {
                Some(gid) => gid,
                None => lines(group)
                    .filter_map(Group::parse)
                    .find(|g| g.name == name.as_bytes())
                    .map(|g| g.gid)
                    .ok_or("no such group in the image's /etc/group")?,
            };
            groups.push(gid);
        }
        // Without a group in the spec the user's memberships count, as with docker.
        None => {
            groups.push(gid);
            if let Some(entry) = &entry {
                let member = |g: &Group<'_>| g.members.split(|&b| b == b',').any(|m| m == entry.name);
                for g in lines(group).filter_map(Group::parse).filter(member) {
                    if groups.len() < MOST_GROUPS && !groups.contains(&g.gid) {
                        groups.push(g.gid);
                    }
                }
            }
        }
    }
    let home = match &entry {
        Some(entry) if entry.home.starts_with(b"/") => OsStr::from_bytes(entry.home),
        Some(_) => OsStr::new("/"),
        None if uid == 0 => OsStr::new("/root"),
        None => OsStr::new("/"),
    };
    Ok(User { uid, gid, groups, home: home.to_owned() })
}

/// The number, `None` for a name; what starts like a number but is none we take is an error, not a name.
fn number(text: &str) -> std::result::Result<Option<u32>, String> {
    let first = text.bytes().next().unwrap_or(b' ');
    if !first.is_ascii_digit() && !b"+- ".contains(&first) {
        return Ok(None);
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        // Names like 3proxy exist, but useradd(8) refuses them too: a digit in front always means a number.
        return Err("neither a number nor a name".to_owned());
    }
    match text.parse() {
        Ok(number) if number <= HIGHEST => Ok(Some(number)),
        _ => Err(format!("out of range (0 to {HIGHEST})")),
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&b| b == b'\n')
}

/// A line of passwd(5): `name:password:uid:gid:gecos:home:shell`.
struct Entry<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

impl<'a> Entry<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|&b| b == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (id(fields.nth(1)?)?, id(fields.next()?)?);
        let home = fields.nth(1).unwrap_or_default();
        // A NUL cannot be in the environment.
        Some(Self { name, uid, gid, home }).filter(|_| !home.contains(&0))
    }
}

/// A line of group(5): `name:password:gid:member,member`.
struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl<'a> Group<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|&b| b == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = id(fields.nth(1)?)?;
        Some(Self { name, gid, members: fields.next().unwrap_or_default() })
    }
}

fn id(text: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(text).ok().filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok().filter(|&id| id <= HIGHEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# a comment\nuser:x:1000:100::/home/user:/bin/sh\n\
        1001:x:0:0::/:/bin/sh\nwrap:x:4294967296:0::/:\nneg:x:-1:0::/:\nshort:x:5\nempty:x::0::/:\nnohome:x:7:7\n";
    const GROUP: &[u8] = b"root:x:0:\nusers:x:100:user\naudio:x:29:other,user\nvideo:x:44:user,other\nus:x:9:use\n";

    fn of(spec: &str) -> std::result::Result<(u32, u32, Vec<u32>, String), String> {
        resolve(spec, PASSWD, GROUP).map(|u| (u.uid, u.gid, u.groups, u.home.into_string().unwrap()))
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(of(""), Ok((0, 0, vec![0], "/root".into())));
        assert_eq!(of("user"), Ok((1000, 100, vec![100, 29, 44], "/home/user".into())));
        assert_eq!(of("1000"), of("user"));
        assert_eq!(of("user:audio"), Ok((1000, 29, vec![29], "/home/user".into())));
        assert_eq!(of("user:"), of("user"));
        assert_eq!(of("77:88"), Ok((77, 88, vec![88], "/".into())));
        assert_eq!(of("77"), Ok((77, 0, vec![0], "/".into())));
        assert_eq!(of("nohome"), Ok((7, 7, vec![7], "/".into())));
        assert_eq!(of("2147483646").unwrap().0, 0x7fff_fffe);
    }

    #[test]
    fn a_number_is_never_a_name() {
        // The file maps the *name* 1001 to root.
        assert_eq!(of("1001"), Ok((1001, 0, vec![0], "/".into())));
    }

    #[test]
    fn nobody_becomes_root_by_accident() {
        for bad in [
            "4294967296",
            "2147483647",
            "2147483648",
            "-1",
            "0x0",
            "1000:99999999999",
            "0 ",
            " 0",
            "+0",
            "0:0:0",
            "wrap",
            "neg",
            "short",
            "empty",
            "nobody",
            "user:nogroup",
            "user:-1",
            "# a comment",
            "99999999999999999999999999",
        ] {
            assert!(of(bad).is_err(), "{bad:?} gave {:?}", of(bad));
        }
    }

    proptest! {
        #[test]
        fn hostile_databases_are_survived(
            spec in "[a-z0-9:+-]{0,12}",
            passwd in "([a-z0-9+\u{0}é-]{0,9}:){0,7}\n(([a-z]{0,3}|[0-9]{0,12}):){3,9}\n",
            group in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Ok(user) = resolve(&spec, passwd.as_bytes(), &group) {
                prop_assert!(user.uid <= HIGHEST && user.gid <= HIGHEST);
                prop_assert_eq!(user.groups[0], user.gid);
                prop_assert!(!user.home.as_bytes().contains(&0));
                // Digits mean themselves, whatever the file says.
                let name = spec.split(':').next().unwrap_or_default();
                if let Ok(number) = name.parse::<u32>() {
                    prop_assert_eq!(user.uid, number);
                }
            }
        }
    }
}
