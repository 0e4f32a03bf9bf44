//! How many bytes of the disk each image, container, layer and volume holds, and how many of them alone.
//!
//! Quota groups would know, and are off nearly everywhere, for they cost with every write. So the extents that the files
//! of each subvolume refer to are read from its tree (`BTRFS_IOC_TREE_SEARCH_V2`), and it is counted who has which. That
//! reads all metadata of the store once and keeps one number for each extent, about 40 bytes; nothing is cached. Bytes
//! are those on the disk: after compression, without holes, whole extents even where a file uses a part.
//! Metadata itself, small files that lie in it included, is not counted.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use bocker_common::{Kind, Result};
use nix::errno::Errno;
use rustix::fs::{Mode, OFlags};

use crate::layer::names;
use crate::store::{LAYERS, Store, nested, to_nix};
use crate::sys::{self, Item};
use crate::verbs::print;

/// `BTRFS_EXTENT_DATA_KEY`: where a piece of a file lies.
const EXTENT_DATA: u32 = 108;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Address and length on the disk, from `struct btrfs_file_extent_item`; None: inline, or a hole.
fn extent(item: &Item<'_>) -> Option<(u64, u64)> {
    const INLINE: u8 = 0;
    let word = |at: usize| Some(u64::from_le_bytes(item.data.get(at..at + 8)?.try_into().ok()?));
    if item.kind != EXTENT_DATA || *item.data.get(20)? == INLINE {
        return None;
    }
    Some((word(21)?, word(29)?)).filter(|(address, _)| *address != 0)
}

/// Who has which extents. Owners are numbers, in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    names: Vec<String>,
    /// By address: length, and the number of the set of its owners.
    extents: HashMap<u64, (u64, usize)>,
    /// Each set once. Snapshots make few different ones.
    sets: Vec<Vec<usize>>,
    /// A set and one owner more.
    larger: HashMap<(usize, usize), usize>,
}

impl Usage {
    /// Looks at everything in the store.
    ///
    /// # Errors
    /// A subvolume cannot be read.
    pub(crate) fn of(store: &Store) -> Result<Self> {
        // What is not written yet has no extent; on a full disk some of it never gets one.
        let _ = rustix::fs::syncfs(store.dir());
        let mut all: Vec<String> = Vec::new();
        for kind in [Kind::Image, Kind::Container] {
            all.extend(store.list(kind)?.iter().map(ToString::to_string));
        }
        all.extend(layers(store)?.iter().map(|layer| format!("{LAYERS}/{layer}")));
        all.extend(store.volumes()?.iter().map(|volume| volume.subvolume()));
        let mut usage = Self { sets: vec![Vec::new()], ..Self::default() };
        for name in all {
            let subvolume = match rustix::fs::openat(store.dir(), &name, DIRECTORY, Mode::empty()) {
                // Gone meanwhile.
                Err(rustix::io::Errno::NOENT) => continue,
                done => done.map_err(to_nix).map_err(store.fail("open", &name))?,
            };
            usage.add(name.clone(), &subvolume).map_err(store.fail("look into", &name))?;
        }
        Ok(usage)
    }

    /// One more owner: a subvolume with those inside it.
    fn add(&mut self, name: String, subvolume: &OwnedFd) -> nix::Result<()> {
        let owner = self.names.len();
        self.names.push(name);
        let mut trees = nested(subvolume)?;
        trees.push(sys::subvolume_id(subvolume)?);
        for tree in trees {
            let seen = sys::tree_items(subvolume, tree, sys::INODES, 0, |item| {
                if let Some((address, length)) = extent(&item) {
                    self.owned(owner, address, length);
                }
            });
            match seen {
                // Deleted meanwhile.
                Err(Errno::ENOENT) => {}
                done => done?,
            }
        }
        Ok(())
    }

    fn owned(&mut self, owner: usize, address: u64, length: u64) {
        let entry = self.extents.entry(address).or_insert((length, 0));
        // Twice in one owner is once.
        if self.sets[entry.1].last() == Some(&owner) {
            return;
        }
        let sets = &mut self.sets;
        let small = entry.1;
        entry.1 = *self.larger.entry((small, owner)).or_insert_with(|| {
            let mut set = sets[small].clone();
            set.push(owner);
            sets.push(set);
            sets.len() - 1
        });
    }

    /// For each owner: its name, bytes that it has alone, bytes that others have, too.
    pub(crate) fn each(&self) -> Vec<(&str, u64, u64)> {
        let mut all: Vec<_> = self.names.iter().map(|name| (name.as_str(), 0, 0)).collect();
        for (length, set) in self.extents.values() {
            match self.sets[*set].as_slice() {
                [owner] => all[*owner].1 += length,
                owners => owners.iter().for_each(|owner| all[*owner].2 += length),
            }
        }
        all
    }

    /// Bytes that are free when all of these are gone.
    pub(crate) fn freed(&self, gone: &[String]) -> u64 {
        let gone: Vec<_> = self.names.iter().map(|name| gone.contains(name)).collect();
        let held: Vec<_> = self.sets.iter().map(|set| set.iter().any(|owner| !gone[*owner])).collect();
        self.extents.values().filter(|(_, set)| !held[*set]).map(|(length, _)| length).sum()
    }
}

/// The chain ids of the layers that are there, sorted.
pub(crate) fn layers(store: &Store) -> Result<Vec<String>> {
    let dir = match rustix::fs::openat(store.dir(), LAYERS, DIRECTORY, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
        dir => dir.and_then(names).map_err(to_nix).map_err(store.fail("list", LAYERS))?,
    };
    let mut layers: Vec<_> = dir.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect();
    layers.retain(|name| name.starts_with("sha256:"));
    layers.sort();
    Ok(layers)
}

/// `df`: `NAME\tALONE\tSHARED` in bytes.
pub(crate) fn df(store: &Store, json: bool) -> Result<()> {
    let usage = Usage::of(store)?;
    let mut out = String::new();
    for (name, alone, shared) in usage.each() {
        out += &if json {
            format!("{}\n", serde_json::json!({ "name": name, "exclusive": alone, "shared": shared }))
        } else {
            format!("{name}\t{alone}\t{shared}\n")
        };
    }
    print(out.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_what() {
        let mut usage = Usage { sets: vec![Vec::new()], ..Usage::default() };
        usage.names = ["a", "b", "c"].map(str::to_owned).to_vec();
        for (owner, address, length) in [
            (0, 100, 10),
            (0, 100, 10),
            (0, 200, 20),
            (0, 300, 40),
            (1, 200, 20),
            (1, 400, 80),
            (1, 400, 80),
            (2, 200, 20),
            (2, 300, 40),
        ] {
            usage.owned(owner, address, length);
        }
        assert_eq!(usage.each(), [("a", 10, 60), ("b", 80, 20), ("c", 0, 60)]);
        let freed = |gone: &[&str]| usage.freed(&gone.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!([freed(&[]), freed(&["a"]), freed(&["a", "c"]), freed(&["a", "b", "c"])], [0, 10, 50, 150]);
    }

    #[test]
    fn extents_of_files() {
        let mut data = vec![0; 53];
        data[20] = 1;
        data[21..29].copy_from_slice(&4096_u64.to_le_bytes());
        data[29..37].copy_from_slice(&8192_u64.to_le_bytes());
        let item = |kind, data: &[u8]| extent(&Item { object: 257, kind, offset: 0, data });
        assert_eq!(item(EXTENT_DATA, &data), Some((4096, 8192)));
        assert_eq!(item(1, &data), None);
        assert_eq!(item(EXTENT_DATA, &data[..30]), None);
        data[21..29].fill(0);
        assert_eq!(item(EXTENT_DATA, &data), None, "a hole");
        data[20] = 0;
        assert_eq!(item(EXTENT_DATA, &data), None, "inline");
    }
}
