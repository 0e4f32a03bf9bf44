//! This program's own file, safe from the containers that it makes (CVE-2019-5736).
//!
//! Who executes `#!/proc/self/exe`, or a link to it, executes us once more, inside, with the image's libraries; its descriptor
//! of `/proc/self/exe` is our file on the host, and root inside may write to it as soon as nobody executes it. In a user
//! namespace of its own root inside is nobody to that file. Without one we execute ourselves anew through a read-only mount
//! of the file that is nowhere in any tree: what is opened through it is read-only, too, and who is not in its mount namespace
//! cannot change that.

use std::ffi::{CString, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

use bocker_common::{Error, Result};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::inroot::errno;
use crate::masks;

/// Returns in a process whose own file can only be read; once executed anew that is so.
///
/// # Errors
/// One line; no container is made then.
pub fn read_only() -> Result<()> {
    let fail = |e: Errno| Error::new("protect", "our own program file", e);
    if is_read_only()? {
        // Before Linux 6.14 the name of who was executed by a descriptor is that number.
        return rustix::thread::set_name(c"bocker-exec").map_err(|e| fail(errno(e)));
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let copy = open_tree(rustix::fs::CWD, "/proc/self/exe", flags).map_err(|e| fail(errno(e)))?;
    masks::read_only(&copy).map_err(fail)?;
    pass_on(&copy).map_err(fail)?;
    let word = |word: OsString| CString::new(word.into_vec()).map_err(|_| fail(Errno::EINVAL));
    let words = std::env::args_os().map(word).collect::<Result<Vec<_>>>()?;
    let entry = |(mut key, value): (OsString, OsString)| {
        key.push("=");
        key.push(value);
        word(key)
    };
    let variables = std::env::vars_os().map(entry).collect::<Result<Vec<_>>>()?;
    let Err(error) = nix::unistd::execveat(&copy, c"", &words, &variables, AtFlags::AT_EMPTY_PATH);
    Err(fail(error))
}

/// Whether that has been done.
#[expect(clippy::disallowed_methods, reason = "/proc is the host's still")]
fn is_read_only() -> Result<bool> {
    let fail = |e| Error::new("look at", "our own program file", errno(e));
    let own = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
    Ok(rustix::fs::fstatvfs(own).map_err(fail)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// What the caller gave us was made close-on-exec at our start; it is to be there at our second start as at the first.
#[expect(clippy::disallowed_methods, reason = "/proc is the host's still")]
fn pass_on(but: impl AsFd) -> nix::Result<()> {
    use std::os::fd::AsRawFd;
    let entries = std::fs::read_dir("/proc/self/fd").map_err(|_| Errno::EBADF)?;
    let numbers: Vec<i32> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for number in numbers {
        if number > 2 && number != but.as_fd().as_raw_fd() {
            bocker_common::entry::keep_on_exec(number);
        }
    }
    Ok(())
}
