//! `fsck`: whether names, text files and subvolumes say the same, in both directions. It changes nothing.

use std::os::fd::OwnedFd;

use bocker_common::diag::printable;
use bocker_common::{Error, Id, Kind, Result};
use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::called::{self, CONTAINERS, NEW_NAME};
use crate::layer::{is_dir, lstat, names};
use crate::names::{Found, NAMES};
use crate::oci::{self, Config, Digest};
use crate::remember;
use crate::store::{LAYERS, NEW, SUBVOLUME_ROOT, Store, to_nix};
use crate::sys;
use crate::verbs::print;
use crate::volumes::{DATA, PREFIX, VOLUMES, Volume};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Left behind by a kill, or made by nobody who should.
const GC: &str = "(bocker-store gc removes it)";

/// Longer than making or deleting something takes.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

struct Check<'a> {
    store: &'a Store,
    /// Subvolumes that something in the store stands for.
    known: Vec<u64>,
    /// Name, and what is wrong with it.
    found: Vec<(String, String)>,
}

/// `fsck`: `NAME\tWHAT` of each finding; fails if there is one.
///
/// Others may be at work. What they are in the middle of does not look the same a moment later, so what counts is what
/// every one of three looks has found.
pub(crate) fn fsck(store: &Store, json: bool) -> Result<()> {
    let found = findings(store)?;
    let line = |(name, what): &(String, String)| match json {
        true => format!("{}\n", serde_json::json!({ "name": name, "finding": what })),
        false => format!("{}\t{}\n", printable(name), printable(what)),
    };
    print(found.iter().map(line).collect::<String>().as_bytes())?;
    if found.is_empty() { Ok(()) } else { Err(Error::explained_elsewhere()) }
}

/// What every one of three looks has found: name, and what is wrong.
///
/// # Errors
/// Something cannot be read.
pub(crate) fn findings(store: &Store) -> Result<Vec<(String, String)>> {
    let mut found = look(store)?;
    for _ in 0..2 {
        if found.is_empty() {
            return Ok(found);
        }
        std::thread::sleep(PAUSE);
        let again = look(store)?;
        found.retain(|one| again.contains(one));
    }
    found.sort();
    Ok(found)
}

fn look(store: &Store) -> Result<Vec<(String, String)>> {
    // Nobody is between making a subvolume and locking it now.
    let _alone = store.lock_store(FlockOperation::LockExclusive)?;
    let mut check = Check { store, known: Vec::new(), found: Vec::new() };
    check.top()?;
    check.layers()?;
    check.names()?;
    check.strangers()?;
    Ok(check.found)
}

impl Check<'_> {
    fn say(&mut self, name: &str, what: impl AsRef<str>) {
        self.found.push((name.to_owned(), what.as_ref().to_owned()));
    }

    /// The subvolume of this name, relative to the store; None, and said, if it is none.
    fn subvolume(&mut self, name: &str) -> Result<Option<OwnedFd>> {
        let stat =
            lstat(self.store.dir(), name.as_bytes()).map_err(to_nix).map_err(self.store.fail("look at", name))?;
        // Gone since it was listed.
        let Some(stat) = stat else { return Ok(None) };
        if !is_dir(&stat) || stat.st_ino != SUBVOLUME_ROOT {
            self.say(name, "it is no subvolume");
            return Ok(None);
        }
        let fd = match rustix::fs::openat(self.store.dir(), name, DIRECTORY, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            done => done.map_err(to_nix).map_err(self.store.fail("open", name))?,
        };
        self.known.push(sys::subvolume_id(&fd).map_err(self.store.fail("look at", name))?);
        Ok(Some(fd))
    }

    /// Whether the directory is there; said if not.
    fn directory(&mut self, name: &str, subvolume: &OwnedFd, inner: &str) {
        if !matches!(lstat(subvolume, inner.as_bytes()), Ok(Some(stat)) if is_dir(&stat)) {
            self.say(name, format!("it has no directory {inner}"));
        }
    }

    /// What lies in the store itself.
    fn top(&mut self) -> Result<()> {
        let all = names(self.store.dir()).map_err(to_nix).map_err(self.store.fail("list", ""))?;
        for name in all {
            let name = String::from_utf8_lossy(&name).into_owned();
            if let Ok(id) = name.parse::<Id>() {
                self.id(id)?;
            } else if name.starts_with(NEW) {
                self.building(&name)?;
            } else if let Some(Ok(volume)) = name.strip_prefix(PREFIX).map(str::parse::<Volume>) {
                if let Some(fd) = self.subvolume(&volume.subvolume())? {
                    self.directory(&name, &fd, DATA);
                }
            } else if name != LAYERS && name != NAMES && name != CONTAINERS {
                self.say(&name, "it is none of the store's");
            }
        }
        Ok(())
    }

    /// Something that is being made, unless nobody holds its lock.
    fn building(&mut self, name: &str) -> Result<()> {
        if let Some(fd) = self.subvolume(name)?
            && rustix::fs::flock(&fd, FlockOperation::NonBlockingLockShared).is_ok()
        {
            self.say(name, format!("a crash left it half-made {GC}"));
        }
        Ok(())
    }

    fn id(&mut self, id: Id) -> Result<()> {
        let name = id.to_string();
        let Some(fd) = self.subvolume(&name)? else { return Ok(()) };
        self.directory(&name, &fd, "rootfs");
        let texts: &[&str] = match id.kind() {
            Kind::Image => &["source", "config"],
            Kind::Container => &["source", "config", "image", "cmd"],
        };
        for text in texts {
            if self.store.open_text(id, text).is_err() {
                self.say(&name, format!("it has no text file {text}"));
            }
        }
        if self.store.open_text(id, "config").is_ok() {
            match Config::parse(&self.store.text(id, "config")) {
                Err(error) => self.say(&name, error.to_string()),
                Ok(config) if id.kind() == Kind::Image => self.layers_of(id, &config.diff_ids)?,
                Ok(_) => {}
            }
        }
        if id.kind() == Kind::Container {
            self.container(id)?;
        }
        Ok(())
    }

    /// The layers that an image lists are those of its configuration, and are there.
    fn layers_of(&mut self, id: Id, diff_ids: &[Digest]) -> Result<()> {
        let name = id.to_string();
        let listed = String::from_utf8_lossy(&self.store.text(id, "layers")).into_owned();
        let listed: Vec<_> = listed.lines().collect();
        if listed != oci::chain(diff_ids).iter().map(Digest::as_str).collect::<Vec<_>>() {
            self.say(&name, "its layers are not those of its configuration");
        }
        for layer in listed {
            let there = layer.parse::<Digest>().is_ok()
                && lstat(self.store.dir(), format!("{LAYERS}/{layer}").as_bytes()).is_ok_and(|stat| stat.is_some());
            if !there {
                self.say(&name, format!("its layer {layer} is not there"));
            }
        }
        Ok(())
    }

    fn container(&mut self, id: Id) -> Result<()> {
        let name = id.to_string();
        let image = String::from_utf8_lossy(&self.store.text(id, "image")).into_owned();
        if !image.parse::<Id>().is_ok_and(|image| image.kind() == Kind::Image) {
            self.say(&name, "its file image names no image");
        }
        if let Some(owner) = self.store.claims.owner(id)?.filter(|owner| !self.store.is_at(owner)) {
            self.say(&name, format!("it is a container of {}, too", owner.display()));
        }
        for what in remember::findings(self.store, id) {
            self.say(&name, what);
        }
        if let Some(called) = self.store.name_of(id)
            && self.store.called(&called)? != Some(id)
        {
            self.say(&name, format!("nobody finds it by its name {called} (bocker rename {id} {called})"));
        }
        if self.store.open_text(id, NEW_NAME).is_ok() {
            self.say(&name, format!("a crash left its file {NEW_NAME} {GC}"));
        }
        for line in String::from_utf8_lossy(&self.store.text(id, VOLUMES)).lines() {
            let volume = line.split('\t').next().unwrap_or_default();
            let there = volume.parse::<Volume>().is_ok_and(|volume| {
                lstat(self.store.dir(), volume.subvolume().as_bytes()).is_ok_and(|stat| stat.is_some())
            });
            if !there {
                self.say(&name, format!("its volume {volume} is not there"));
            }
        }
        Ok(())
    }

    /// Each layer is whole, never changes, and an image needs it.
    fn layers(&mut self) -> Result<()> {
        let dir = match rustix::fs::openat(self.store.dir(), LAYERS, DIRECTORY, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            dir => dir.map_err(to_nix).map_err(self.store.fail("open", LAYERS))?,
        };
        let mut used = Vec::new();
        for image in self.store.list(Kind::Image)? {
            used.extend(self.store.text(image, "layers").split(|b| *b == b'\n').map(<[u8]>::to_vec));
        }
        // Whoever unpacks holds it: layers that no image lists yet are in use.
        let quiet = rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok();
        for layer in names(&dir).map_err(to_nix).map_err(self.store.fail("list", LAYERS))? {
            let name = format!("{LAYERS}/{}", String::from_utf8_lossy(&layer));
            if layer.starts_with(NEW.as_bytes()) {
                self.building(&name)?;
                continue;
            }
            if !std::str::from_utf8(&layer).is_ok_and(|layer| layer.parse::<Digest>().is_ok()) {
                self.say(&name, "it is no layer");
                continue;
            }
            let Some(fd) = self.subvolume(&name)? else { continue };
            self.directory(&name, &fd, "rootfs");
            if !sys::subvolume_is_read_only(&fd).map_err(self.store.fail("look at", &name))? {
                self.say(&name, "it is not read-only");
            }
            if quiet && !used.contains(&layer) {
                self.say(&name, format!("no image needs it {GC}"));
            }
        }
        Ok(())
    }

    /// Each link is a name, and its image is there.
    fn names(&mut self) -> Result<()> {
        let images = self.store.list(Kind::Image)?;
        for found in self.store.look_at_names()? {
            match found {
                Found::Name(name, id) if !images.contains(&id) => {
                    self.say(&format!("{NAMES}/{name}"), format!("its image {id} is gone {GC}"));
                }
                Found::Name(..) => {}
                Found::Other(path) => self.say(&path, "it is no name"),
            }
        }
        for found in self.store.look_at_called()? {
            match found {
                called::Found::Name(name, id, false) => {
                    self.say(
                        &format!("{CONTAINERS}/{name}"),
                        format!("its container {id} has another name, or is gone {GC}"),
                    );
                }
                called::Found::Name(..) => {}
                called::Found::Other(path) => self.say(&path, "it is no name"),
            }
        }
        for (_, path) in self.store.half_filled()? {
            self.say(&path, format!("a crash left a volume half-filled {GC}"));
        }
        Ok(())
    }

    /// Subvolumes that the file system has in the store and that nothing here stands for.
    fn strangers(&mut self) -> Result<()> {
        let own = rustix::fs::fstat(self.store.dir()).is_ok_and(|stat| stat.st_ino == SUBVOLUME_ROOT);
        // In a larger btrfs others' subvolumes lie beside the store.
        if !own {
            return Ok(());
        }
        let inside = sys::subvolume_id(self.store.dir()).and_then(|id| sys::subvolumes_in(self.store.dir(), id));
        for id in inside.map_err(self.store.fail("look into", ""))? {
            if !self.known.contains(&id) {
                self.say(&format!("subvolume {id}"), "nothing in the store stands for it (btrfs subvolume list)");
            }
        }
        Ok(())
    }
}
