//! Volumes: subvolumes `vol_NAME` whose `data/` containers share and that outlive them.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use bocker_common::diag::USAGE;
use bocker_common::entry::Uninterrupted;
use bocker_common::say::{Explain, perform, tell};
use bocker_common::{Error, Id, Kind, Result};
use rustix::fs::{AtFlags, FlockOperation, StatxFlags};

use crate::layer::{is_dir, lstat, names};
use crate::store::{NEW, Step, Store, random, short, to_nix};
use crate::verbs::print;

/// What a volume's subvolume begins with.
pub const PREFIX: &str = "vol_";
/// Where its files are, beside nothing else yet.
pub const DATA: &str = "data";
/// The file of a container that names its volumes, one a line, up to a tab.
pub const VOLUMES: &str = "volumes";
/// Longest name in bytes: there is room for what a temporary name puts around it.
const NAME_MAX: usize = 200;

/// A volume's name, `[a-zA-Z0-9][a-zA-Z0-9_.-]+` as docker has it; safe as part of a path's component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Volume(String);

impl Volume {
    /// A name that nobody chose: 64 hexadecimal digits.
    pub(crate) fn anonymous() -> Self {
        Self((0..4).map(|_| format!("{:016x}", random())).collect())
    }

    /// Whether nobody chose it.
    pub fn is_anonymous(&self) -> bool {
        self.0.len() == 64 && self.0.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    }

    /// Its subvolume in the store.
    pub fn subvolume(&self) -> String {
        format!("{PREFIX}{}", self.0)
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Volume {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if first && rest && (2..=NAME_MAX).contains(&text.len()) {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::plain(format!("'{}' is not a volume's name", short(text)))
            .hint("two letters or digits at least; after the first also _ . and -")
            .status(USAGE))
    }
}

fn no_such(name: &str) -> Error {
    Error::plain(format!("No volume named '{}' exists", short(name)))
}

impl Store {
    /// All volumes, sorted.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let all = names(self.dir()).map_err(to_nix).map_err(self.fail("list", ""))?;
        let name = |name: &Vec<u8>| std::str::from_utf8(name).ok()?.strip_prefix(PREFIX)?.parse().ok();
        let mut volumes: Vec<Volume> = all.iter().filter_map(name).collect();
        volumes.retain(|volume| self.has_volume(volume).unwrap_or(false));
        volumes.sort();
        Ok(volumes)
    }

    pub(crate) fn has_volume(&self, volume: &Volume) -> Result<bool> {
        let name = volume.subvolume();
        let stat = lstat(self.dir(), name.as_bytes()).map_err(to_nix).map_err(self.fail("look at", &name))?;
        Ok(stat.is_some_and(|stat| is_dir(&stat) && stat.st_ino == crate::store::SUBVOLUME_ROOT))
    }

    fn volume(&self, name: &str) -> Result<Volume> {
        let volume = name.parse::<Volume>().map_err(|_| no_such(name))?;
        if self.has_volume(&volume)? { Ok(volume) } else { Err(no_such(name)) }
    }

    /// The containers that have the volume.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn users_of(&self, volume: &Volume) -> Result<Vec<Id>> {
        let mut users = self.list(Kind::Container)?;
        users.retain(|id| self.has_in(id, volume));
        Ok(users)
    }

    fn has_in(&self, container: impl fmt::Display, volume: &Volume) -> bool {
        let listed = self.text(container, VOLUMES);
        listed.split(|b| *b == b'\n').any(|line| line.split(|b| *b == b'\t').next() == Some(volume.0.as_bytes()))
    }

    /// One that has it, or will: a container that is being made has its list already. Call with the store locked.
    pub(crate) fn user_of(&self, volume: &Volume) -> Result<Option<Id>> {
        if let Some(user) = self.users_of(volume)?.first() {
            return Ok(Some(*user));
        }
        let all = names(self.dir()).map_err(to_nix).map_err(self.fail("list", ""))?;
        let dead = self.abandoned()?;
        let id = |name: &String| name.strip_prefix(NEW)?.parse().ok().filter(|id: &Id| id.kind() == Kind::Container);
        let mut made =
            all.into_iter().filter_map(|name| String::from_utf8(name).ok()).filter(|name| !dead.contains(name));
        Ok(made.find(|name| id(name).is_some() && self.has_in(name, volume)).and_then(|name| id(&name)))
    }

    /// Where its files are.
    pub(crate) fn mountpoint(&self, volume: &Volume) -> String {
        self.path.join(volume.subvolume()).join(DATA).to_string_lossy().into_owned()
    }
}

/// `volume create`: an empty volume, or the one that is there; prints its name.
pub(crate) fn create(store: &Store, name: Option<&str>, explain: Explain) -> Result<()> {
    let volume = name.map_or_else(|| Ok(Volume::anonymous()), str::parse)?;
    let line = store.act(Step::Line(volume.to_string()));
    make(store, &volume, true, explain)?;
    if explain.dry_run { tell(&line, explain) } else { print(format!("{volume}\n").as_bytes()) }
}

/// An empty volume, unless it is there. What is in it is in the file system's own blocks, which are written before the
/// name is; with `synced` it is on the disk when this returns.
pub(crate) fn make(store: &Store, volume: &Volume, synced: bool, explain: Explain) -> Result<()> {
    if !store.has_volume(volume)? {
        let _whole = Uninterrupted::begin();
        let new = format!("{NEW}{}", volume.subvolume());
        let claim = Step::Subvolume(new.clone());
        tell(&store.act(claim.clone()), explain)?;
        let mut building = None;
        let patience = Instant::now() + Duration::from_secs(10);
        while !explain.dry_run && building.is_none() {
            building = store.claim_again(&claim)?;
            // Somebody else is creating it: then it will be there, as was asked.
            match building {
                None if store.has_volume(volume)? => return Ok(()),
                None if Instant::now() > patience => {
                    return Err(Error::new("create", volume, "somebody else is creating it"));
                }
                None => std::thread::sleep(Duration::from_millis(2)),
                Some(_) => {}
            }
        }
        let mut rest = vec![Step::Directory(format!("{new}/{DATA}"))];
        rest.extend(synced.then_some(Step::Sync));
        rest.push(Step::Publish(new, volume.subvolume()));
        let rest: Vec<_> = rest.into_iter().map(|step| store.act(step)).collect();
        let done = perform(&rest, explain, |act| store.apply(act.step()));
        match done {
            // Somebody else has created it between the look and the claim: then it is there, as was asked.
            Err(_) if store.has_volume(volume)? => {}
            done => {
                done?;
                if let Some(building) = building {
                    building.keep();
                }
            }
        }
    }
    Ok(())
}

/// `volume ls`: in docker's form.
pub(crate) fn ls(store: &Store, json: bool, quiet: bool) -> Result<()> {
    let mut out = String::new();
    if !json && !quiet {
        out += "DRIVER    VOLUME NAME\n";
    }
    for volume in store.volumes()? {
        out += &match (json, quiet) {
            (true, _) => format!("{}\n", object(store, &volume)?),
            (false, true) => format!("{volume}\n"),
            (false, false) => format!("local     {volume}\n"),
        };
    }
    print(out.as_bytes())
}

/// `volume rm`: prints the names of those that are gone.
pub(crate) fn rm(store: &Store, all: &[String], force: bool, explain: Explain) -> Result<()> {
    // Nothing of some where one is not there.
    let mut volumes = Vec::new();
    for name in all {
        match store.volume(name) {
            Err(_) if force => {}
            found => volumes.push(found?),
        }
    }
    for volume in volumes {
        let user = match remove_unused(store, &volume, explain) {
            // Named twice, or somebody else was faster.
            Err(_) if force && !store.has_volume(&volume)? => continue,
            user => user?,
        };
        if let Some(user) = user {
            return Err(
                Error::plain(format!("Volume '{volume}' is in use")).hint(format!("{user} has it; bocker rm {user}"))
            );
        }
        if !explain.dry_run {
            print(format!("{volume}\n").as_bytes())?;
        }
    }
    Ok(())
}

/// Deletes a volume that no container has, else gives one that has it.
///
/// Whoever gives a container a volume must hold the store's lock, shared, from the look at the volume until the container's
/// list is written: so nobody is between the two here.
pub(crate) fn remove_unused(store: &Store, volume: &Volume, explain: Explain) -> Result<Option<Id>> {
    let _alone = store.lock_store(FlockOperation::LockExclusive)?;
    // Somebody else may have been faster.
    store.volume(&volume.0)?;
    let user = store.user_of(volume)?;
    if user.is_none() {
        remove(store, volume, explain)?;
    }
    Ok(user)
}

/// Deletes a volume, whatever its size.
pub(crate) fn remove(store: &Store, volume: &Volume, explain: Explain) -> Result<()> {
    let _whole = Uninterrupted::begin();
    let deletion = store.deletion(&volume.subvolume())?;
    perform(&[store.act(deletion)], explain, |act| store.apply(act.step()))
}

/// `volume inspect`: `KEY\tVALUE` lines, or one JSON object for each.
pub(crate) fn inspect(store: &Store, all: &[String], json: bool) -> Result<()> {
    let volumes = all.iter().map(|name| store.volume(name)).collect::<Result<Vec<_>>>()?;
    let mut out = String::new();
    for volume in volumes {
        if json {
            out += &format!("{}\n", object(store, &volume)?);
            continue;
        }
        out += &format!("name\t{volume}\ndriver\tlocal\nmountpoint\t{}\n", store.mountpoint(&volume));
        out += &format!("created\t{}\n", created(store, &volume)?);
        store.users_of(&volume)?.iter().for_each(|user| out += &format!("container\t{user}\n"));
    }
    print(out.as_bytes())
}

fn object(store: &Store, volume: &Volume) -> Result<serde_json::Value> {
    let users: Vec<_> = store.users_of(volume)?.iter().map(Id::to_string).collect();
    Ok(serde_json::json!({
        "name": volume.to_string(),
        "driver": "local",
        "mountpoint": store.mountpoint(volume),
        "created": created(store, volume)?,
        "containers": users,
    }))
}

/// When the subvolume was made, as the file system has it.
fn created(store: &Store, volume: &Volume) -> Result<String> {
    let name = volume.subvolume();
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let stat = rustix::fs::statx(store.dir(), &name, flags, StatxFlags::BTIME).map_err(to_nix);
    Ok(date(stat.map_err(store.fail("look at", &name))?.stx_btime.tv_sec))
}

/// Seconds since 1970 as `2026-11-25T04:36:39Z`.
pub(crate) fn date(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years that begin in March, in eras of 400: the leap day is the last of its year, and every era has 146097 days.
    let day = days + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (dom, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{dom:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_docker_has_them() {
        for name in ["ab", "a.b_c-d", "0A", &"x".repeat(NAME_MAX)] {
            assert_eq!(name.parse::<Volume>().unwrap().subvolume(), format!("vol_{name}"));
        }
        for name in ["", "a", ".", "..", ".a", "-a", "_a", "a/b", "a b", "a\n", "ä1", "a\0", &"x".repeat(NAME_MAX + 1)]
        {
            assert_eq!(name.parse::<Volume>().unwrap_err().exit_status(), USAGE, "{name:?}");
        }
        let (one, two) = (Volume::anonymous(), Volume::anonymous());
        assert!(one.is_anonymous() && two.is_anonymous() && one != two);
        assert_eq!(one.to_string().parse(), Ok(one));
        assert!(!"ab".parse::<Volume>().unwrap().is_anonymous());
    }

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }
}
