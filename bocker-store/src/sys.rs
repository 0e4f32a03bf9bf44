//! The one place of this crate with `unsafe`: the ioctls of btrfs and of loop devices, and what nix has no name for.
//!
//! Layouts and numbers: linux/btrfs.h, linux/loop.h; meanings: btrfs-ioctl(2), loop(4).
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::{Result, libc};

/// `BTRFS_SUBVOL_RDONLY`
const READ_ONLY: u64 = 1 << 1;
/// `BTRFS_SUBVOL_SPEC_BY_ID`
const BY_ID: u64 = 1 << 4;
/// `BTRFS_ROOT_TREE_OBJECTID`, the tree that lists all trees.
const ROOT_TREE: u64 = 1;
/// `BTRFS_ROOT_REF_KEY`: an item (parent tree, this, child tree).
const ROOT_REF: u32 = 156;
/// `BTRFS_ORPHAN_OBJECTID`, -5: what the kernel has promised to free.
const ORPHAN: u64 = u64::MAX - 4;
/// `BTRFS_ORPHAN_ITEM_KEY`: an item (ORPHAN, this, tree).
const ORPHAN_ITEM: u32 = 48;
/// `BTRFS_FIRST_FREE_OBJECTID`: the inode of every subvolume's root directory.
const SUBVOLUME_ROOT: u64 = 256;

/// `LO_FLAGS_AUTOCLEAR`: the device lets go of its file when nobody uses it any more.
pub(crate) const LO_AUTOCLEAR: u32 = 4;
/// `LO_FLAGS_DIRECT_IO`: the file's pages are cached once, above the device, not twice.
pub(crate) const LO_DIRECT_IO: u32 = 16;

/// `struct btrfs_ioctl_vol_args_v2`; with `BY_ID` the id lies where the name begins.
#[repr(C)]
struct VolArgs {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

/// `struct btrfs_ioctl_ino_lookup_args`
#[repr(C)]
struct InoLookup {
    treeid: u64,
    objectid: u64,
    name: [u8; 4080],
}

/// Bytes of items that one search may give.
const ITEMS: usize = 256 << 10;

/// `struct btrfs_ioctl_search_args_v2`, with its buffer.
#[repr(C)]
struct Search {
    tree_id: u64,
    min_objectid: u64,
    max_objectid: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_type: u32,
    max_type: u32,
    nr_items: u32,
    unused: u32,
    unused_too: [u64; 4],
    buf_size: u64,
    buf: [u8; ITEMS],
}

/// One item of a tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item<'a> {
    /// Mostly an inode's number.
    pub(crate) object: u64,
    /// `BTRFS_…_KEY`
    pub(crate) kind: u32,
    /// Depends on the kind.
    pub(crate) offset: u64,
    pub(crate) data: &'a [u8],
}

/// `struct btrfs_ioctl_get_subvol_info_args`
#[repr(C)]
pub(crate) struct SubvolumeInfo {
    tree: u64,
    name: [u8; 256],
    parent: u64,
    directory: u64,
    generation: u64,
    flags: u64,
    pub(crate) uuid: [u8; 16],
    /// Of what it is a snapshot of; zeros: of nothing.
    pub(crate) parent_uuid: [u8; 16],
    received_uuid: [u8; 16],
    /// The transaction that changed something in it last.
    pub(crate) changed: u64,
    /// The transaction that made it.
    pub(crate) made: u64,
    sent: u64,
    received: u64,
    times: [u64; 8],
    reserved: [u64; 8],
}

/// `struct fstrim_range`, linux/fs.h
#[repr(C)]
struct TrimRange {
    start: u64,
    len: u64,
    minlen: u64,
}

/// `struct loop_info64`
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct LoopInfo {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const NO_LOOP: LoopInfo = LoopInfo {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    sizelimit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// `struct btrfs_ioctl_space_info`
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Space {
    /// `BTRFS_BLOCK_GROUP_…`: for what.
    pub(crate) flags: u64,
    /// Bytes that are set apart for it.
    pub(crate) total: u64,
    pub(crate) used: u64,
}

/// `BTRFS_BLOCK_GROUP_METADATA`
pub(crate) const METADATA: u64 = 1 << 2;
/// `BTRFS_SPACE_INFO_GLOBAL_RSV`: part of the metadata, kept for deleting and the like.
pub(crate) const RESERVED: u64 = 1 << 49;
/// More kinds than btrfs has, each in each of its profiles.
const SPACES: usize = 32;

/// `struct btrfs_ioctl_space_args`, with its slots.
#[repr(C)]
struct Spaces {
    slots: u64,
    total: u64,
    spaces: [Space; SPACES],
}

/// `struct btrfs_ioctl_dev_info_args`
#[repr(C)]
struct DeviceInfo {
    number: u64,
    uuid: [u8; 16],
    used: u64,
    total: u64,
    unused: [u64; 379],
    path: [u8; 1024],
}

mod raw {
    use super::{DeviceInfo, InoLookup, LoopConfig, LoopInfo, Search, Spaces, SubvolumeInfo, TrimRange, VolArgs};

    // The number holds the size without the slots, which follow.
    nix::ioctl_readwrite_bad!(space_info, nix::request_code_readwrite!(0x94, 20, 16), Spaces);
    nix::ioctl_readwrite!(dev_info, 0x94, 30, DeviceInfo);

    nix::ioctl_none!(sync, 0x94, 8);
    nix::ioctl_readwrite!(ino_lookup, 0x94, 18, InoLookup);
    nix::ioctl_write_ptr!(snap_create_v2, 0x94, 23, VolArgs);
    nix::ioctl_write_ptr!(subvol_create_v2, 0x94, 24, VolArgs);
    nix::ioctl_read!(subvol_getflags, 0x94, 25, u64);
    nix::ioctl_write_ptr!(subvol_setflags, 0x94, 26, u64);
    nix::ioctl_read!(get_subvol_info, 0x94, 60, SubvolumeInfo);
    nix::ioctl_write_ptr!(snap_destroy_v2, 0x94, 63, VolArgs);
    // The number holds the size without the buffer, which follows.
    nix::ioctl_readwrite_bad!(tree_search_v2, nix::request_code_readwrite!(0x94, 17, 112), Search);
    nix::ioctl_readwrite!(trim, b'X', 121, TrimRange);
    nix::ioctl_none_bad!(loop_ctl_get_free, 0x4C82);
    nix::ioctl_write_ptr_bad!(loop_configure, 0x4C0A, LoopConfig);
    nix::ioctl_read_bad!(loop_get_status64, 0x4C05, LoopInfo);
}

/// The name as a C string in a field of fixed size.
fn field<const N: usize>(name: &str) -> Result<[u8; N]> {
    let mut out = [0; N];
    let bytes = name.as_bytes();
    if bytes.len() >= N || bytes.contains(&0) || bytes.contains(&b'/') {
        return Err(Errno::EINVAL);
    }
    out[..bytes.len()].copy_from_slice(bytes);
    Ok(out)
}

fn volume(name: &str) -> Result<VolArgs> {
    Ok(VolArgs { fd: 0, transid: 0, flags: 0, unused: [0; 4], name: field(name)? })
}

/// An empty subvolume `name` in the directory, `BTRFS_IOC_SUBVOL_CREATE_V2`. EEXIST: the name is taken.
pub(crate) fn subvolume_create(dir: impl AsFd, name: &str) -> Result<()> {
    let args = volume(name)?;
    // SAFETY: the descriptor is open, and the kernel only reads the struct, whose layout is its own.
    unsafe { raw::subvol_create_v2(dir.as_fd().as_raw_fd(), &raw const args) }.map(drop)
}

/// A writable snapshot `name`, in the directory, of the subvolume `of`, `BTRFS_IOC_SNAP_CREATE_V2`.
pub(crate) fn subvolume_snapshot(of: impl AsFd, dir: impl AsFd, name: &str) -> Result<()> {
    let mut args = volume(name)?;
    args.fd = i64::from(of.as_fd().as_raw_fd());
    // SAFETY: both descriptors are open for the whole call, and the kernel only reads the struct.
    unsafe { raw::snap_create_v2(dir.as_fd().as_raw_fd(), &raw const args) }.map(drop)
}

/// Deletes the subvolume `name` of the directory, `BTRFS_IOC_SNAP_DESTROY_V2`, Linux 5.7. ENOTEMPTY: others lie inside it.
pub(crate) fn subvolume_delete(dir: impl AsFd, name: &str) -> Result<()> {
    destroy(dir, &volume(name)?)
}

/// Deletes a subvolume by its id, wherever it lies in the file system.
pub(crate) fn subvolume_delete_by_id(dir: impl AsFd, id: u64) -> Result<()> {
    let mut args = volume("")?;
    args.flags = BY_ID;
    args.name[..8].copy_from_slice(&id.to_ne_bytes());
    destroy(dir, &args)
}

fn destroy(dir: impl AsFd, args: &VolArgs) -> Result<()> {
    // SAFETY: the descriptor is open, and the kernel only reads the struct.
    unsafe { raw::snap_destroy_v2(dir.as_fd().as_raw_fd(), args) }.map(drop)
}

/// Has the kernel write the file's data now, sync_file_range(2), without a word to the disk's cache.
///
/// btrfs keeps a file of up to [`INLINE`] bytes in its metadata, so afterwards the data is in the transaction that is open:
/// no later change, a new name say, reaches the disk before it.
pub(crate) fn write_out(file: impl AsFd) -> Result<()> {
    sync_file_range(file, libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER)
}

/// The same, but nobody waits.
pub(crate) fn begin_to_write_out(file: impl AsFd) -> Result<()> {
    sync_file_range(file, libc::SYNC_FILE_RANGE_WRITE)
}

/// The whole file.
fn sync_file_range(file: impl AsFd, flags: libc::c_uint) -> Result<()> {
    // SAFETY: the descriptor is open, and the call takes numbers only.
    Errno::result(unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), 0, 0, flags) }).map(drop)
}

/// Bytes of a file that btrfs keeps in its metadata, `max_inline` in btrfs(5).
pub(crate) const INLINE: usize = 2048;

/// Writes everything to the disk and wakes the kernel's thread that frees deleted subvolumes, `BTRFS_IOC_SYNC`. By itself
/// it wakes every 30 seconds, also where room is short.
pub(crate) fn sync(fd: impl AsFd) -> Result<()> {
    // SAFETY: the descriptor is open, and the call has no argument.
    unsafe { raw::sync(fd.as_fd().as_raw_fd()) }.map(drop)
}

/// Tells the disk which blocks are free, in pieces of so many bytes at least, `FITRIM`: a loop device makes holes of them in
/// its file. EOPNOTSUPP: the disk does not want to know.
pub(crate) fn trim(fd: impl AsFd, smallest: u64) -> Result<()> {
    let mut range = TrimRange { start: 0, len: u64::MAX, minlen: smallest };
    // SAFETY: the descriptor is open, and the kernel reads and writes within the struct.
    unsafe { raw::trim(fd.as_fd().as_raw_fd(), &raw mut range) }.map(drop)
}

/// Whether there are deleted subvolumes that are not freed yet.
pub(crate) fn is_freeing(fd: impl AsFd) -> Result<bool> {
    let mut found = false;
    tree_items(fd, ROOT_TREE, ORPHAN..=ORPHAN, 0, |item| found |= item.kind == ORPHAN_ITEM)?;
    Ok(found)
}

/// Makes a subvolume read-only, `BTRFS_IOC_SUBVOL_SETFLAGS`.
pub(crate) fn subvolume_set_read_only(subvolume: impl AsFd) -> Result<()> {
    let flags = READ_ONLY;
    // SAFETY: the descriptor is open, and the kernel only reads eight bytes.
    unsafe { raw::subvol_setflags(subvolume.as_fd().as_raw_fd(), &raw const flags) }.map(drop)
}

/// Whether a subvolume is read-only, `BTRFS_IOC_SUBVOL_GETFLAGS`.
pub(crate) fn subvolume_is_read_only(subvolume: impl AsFd) -> Result<bool> {
    let mut flags = 0;
    // SAFETY: the descriptor is open, and the kernel writes eight bytes.
    unsafe { raw::subvol_getflags(subvolume.as_fd().as_raw_fd(), &raw mut flags) }?;
    Ok(flags & READ_ONLY != 0)
}

/// The id of the subvolume that the descriptor lies in, `BTRFS_IOC_INO_LOOKUP`.
pub(crate) fn subvolume_id(fd: impl AsFd) -> Result<u64> {
    let mut args = InoLookup { treeid: 0, objectid: SUBVOLUME_ROOT, name: [0; 4080] };
    // SAFETY: the descriptor is open, and the kernel writes within the struct.
    unsafe { raw::ino_lookup(fd.as_fd().as_raw_fd(), &raw mut args) }?;
    Ok(args.treeid)
}

/// The ids of the subvolumes that lie directly in subvolume `parent`.
///
/// By id, not by path: names inside a container are never looked at.
pub(crate) fn subvolumes_in(fd: impl AsFd, parent: u64) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    tree_items(fd, ROOT_TREE, parent..=parent, 0, |item| {
        if item.kind == ROOT_REF {
            found.push(item.offset);
        }
    })?;
    Ok(found)
}

/// Where a subvolume comes from and when it changed, `BTRFS_IOC_GET_SUBVOL_INFO`, Linux 4.18.
pub(crate) fn subvolume_info(subvolume: impl AsFd) -> Result<SubvolumeInfo> {
    let mut info = SubvolumeInfo {
        tree: 0,
        name: [0; 256],
        parent: 0,
        directory: 0,
        generation: 0,
        flags: 0,
        uuid: [0; 16],
        parent_uuid: [0; 16],
        received_uuid: [0; 16],
        changed: 0,
        made: 0,
        sent: 0,
        received: 0,
        times: [0; 8],
        reserved: [0; 8],
    };
    // SAFETY: the descriptor is open, and the kernel writes within the struct.
    unsafe { raw::get_subvol_info(subvolume.as_fd().as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

/// All inodes of a tree.
pub(crate) const INODES: std::ops::RangeInclusive<u64> = SUBVOLUME_ROOT..=u64::MAX - 255;

/// Gives `see` the items of these inodes, those in blocks as new as `since`, `BTRFS_IOC_TREE_SEARCH_V2`.
///
/// The kernel looks at metadata only; a block that is older than `since` is skipped with all below it.
pub(crate) fn tree_items(
    fd: impl AsFd,
    tree: u64,
    inodes: std::ops::RangeInclusive<u64>,
    since: u64,
    mut see: impl FnMut(Item<'_>),
) -> Result<()> {
    // Each item is preceded by transid, objectid, offset (8 bytes each), type and length (4 each).
    const HEADER: usize = 32;
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).unwrap_or_default();
    let half = |bytes: &[u8]| bytes.try_into().map(u32::from_ne_bytes).unwrap_or_default();
    let mut args = Box::new(Search {
        tree_id: tree,
        min_objectid: *inodes.start(),
        max_objectid: *inodes.end(),
        min_offset: 0,
        max_offset: u64::MAX,
        min_transid: since,
        max_transid: u64::MAX,
        min_type: 0,
        max_type: u32::MAX,
        nr_items: u32::MAX,
        unused: 0,
        unused_too: [0; 4],
        buf_size: ITEMS as u64,
        buf: [0; ITEMS],
    });
    loop {
        args.nr_items = u32::MAX;
        args.buf_size = ITEMS as u64;
        // SAFETY: the descriptor is open, and the kernel writes within the struct: buf_size says where it ends.
        unsafe { raw::tree_search_v2(fd.as_fd().as_raw_fd(), &raw mut *args) }?;
        if args.nr_items == 0 {
            return Ok(());
        }
        let mut rest = &args.buf[..];
        let mut last = (0, 0, 0);
        for _ in 0..args.nr_items {
            let Some((header, after)) = rest.split_at_checked(HEADER) else { break };
            last = (word(&header[8..16]), half(&header[24..28]), word(&header[16..24]));
            let length = usize::try_from(half(&header[28..32])).unwrap_or(usize::MAX);
            let Some((data, after)) = after.split_at_checked(length) else { break };
            see(Item { object: last.0, kind: last.1, offset: last.2, data });
            rest = after;
        }
        // The next key, as a number of 17 bytes.
        let (object, kind, offset) = last;
        let carried = offset == u64::MAX;
        args.min_offset = offset.wrapping_add(1);
        args.min_type = if carried { (kind + 1) & 0xff } else { kind };
        args.min_objectid = if carried && kind == 0xff { object + 1 } else { object };
    }
}

/// What btrfs has set apart for what, and used of it, `BTRFS_IOC_SPACE_INFO`.
pub(crate) fn spaces(fd: impl AsFd) -> Result<Vec<Space>> {
    let mut args = Spaces { slots: SPACES as u64, total: 0, spaces: [Space::default(); SPACES] };
    // SAFETY: the descriptor is open, and the kernel fills as many slots as it is told there are, which are in the struct.
    unsafe { raw::space_info(fd.as_fd().as_raw_fd(), &raw mut args) }?;
    Ok(args.spaces[..(args.total as usize).min(SPACES)].to_vec())
}

/// Bytes that are set apart for nothing yet, on the first device, `BTRFS_IOC_DEV_INFO`.
pub(crate) fn unallocated(fd: impl AsFd) -> Result<u64> {
    let mut info = DeviceInfo { number: 1, uuid: [0; 16], used: 0, total: 0, unused: [0; 379], path: [0; 1024] };
    // SAFETY: the descriptor is open, and the kernel writes within the struct.
    unsafe { raw::dev_info(fd.as_fd().as_raw_fd(), &raw mut info) }?;
    Ok(info.total.saturating_sub(info.used))
}

/// The number of a loop device that has no file, `LOOP_CTL_GET_FREE`. Others may take it first.
pub(crate) fn loop_free(control: impl AsFd) -> Result<i32> {
    // SAFETY: the descriptor is open, and the call has no argument.
    unsafe { raw::loop_ctl_get_free(control.as_fd().as_raw_fd()) }
}

/// Gives the device its file and its flags in one step, `LOOP_CONFIGURE`, Linux 5.8. EBUSY: somebody was faster.
pub(crate) fn loop_configure(device: impl AsFd, file: impl AsFd, flags: u32, path: &[u8]) -> Result<()> {
    let mut info = NO_LOOP;
    info.flags = flags;
    let shown = path.len().min(info.file_name.len() - 1);
    info.file_name[..shown].copy_from_slice(&path[..shown]);
    let fd = u32::try_from(file.as_fd().as_raw_fd()).map_err(|_| Errno::EBADF)?;
    let config = LoopConfig { fd, block_size: 0, info, reserved: [0; 8] };
    // SAFETY: both descriptors are open for the whole call, and the kernel only reads the struct.
    unsafe { raw::loop_configure(device.as_fd().as_raw_fd(), &raw const config) }.map(drop)
}

/// What file a loop device has, by device and inode, `LOOP_GET_STATUS64`. ENXIO: none.
pub(crate) fn loop_status(device: impl AsFd) -> Result<LoopInfo> {
    let mut info = NO_LOOP;
    // SAFETY: the descriptor is open, and the kernel writes within the struct.
    unsafe { raw::loop_get_status64(device.as_fd().as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<VolArgs>(), 4096);
        assert_eq!(size_of::<InoLookup>(), 4096);
        assert_eq!(size_of::<Search>() - ITEMS, 112);
        assert_eq!(size_of::<SubvolumeInfo>(), 504);
        assert_eq!(size_of::<TrimRange>(), 24);
        assert_eq!(size_of::<Spaces>(), 16 + SPACES * 24);
        assert_eq!(size_of::<DeviceInfo>(), 4096);
        assert_eq!(size_of::<LoopInfo>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }

    #[test]
    fn names_are_one_component() {
        assert!(volume("a/b").is_err());
        assert!(volume(&"x".repeat(5000)).is_err());
        assert!(volume("ps_42002").is_ok());
    }
}
