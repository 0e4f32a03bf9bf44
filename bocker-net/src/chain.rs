//! `exec`: one `setns(2)`, then the command takes this process over.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bocker_common::diag::{CANNOT_EXECUTE, NOT_FOUND, OWN_FAILURE};
use bocker_common::say::{self, Explain, Said, quote};
use bocker_common::{Error, Id, Result};
use nix::sched::{CloneFlags, setns};

use crate::{guard, namespace};

/// A namespace that somebody names: a container's, or anybody's by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Container(Id),
    /// As /proc/PID/ns/net, or a name in /run/netns.
    Path(PathBuf),
}

impl Place {
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Container(id) => namespace::path(*id),
            Self::Path(path) => path.clone(),
        }
    }

    /// Opens it, and sees that it is what it should be.
    pub(crate) fn open(&self) -> Result<File> {
        match self {
            Self::Container(id) => namespace::open(*id),
            Self::Path(path) => namespace::open_path(path),
        }
    }
}

/// Both steps as one, which is what nsenter does.
struct Enter<'a>(&'a Path, &'a [OsString]);

impl say::Act for Enter<'_> {
    fn say(&self) -> Said {
        let words: Vec<String> = self.1.iter().map(quote).collect();
        Said::new(
            format!("exec nsenter --net={} -- {}", quote(self.0), words.join(" ")),
            "the same process goes on as the command, with the container's network",
        )
    }
}

/// Does not return when all goes well, but for a dry run.
///
/// # Errors
/// Status 125 for what is ours, 126 or 127 for the command.
pub(crate) fn exec(place: &Place, words: &[OsString], explain: Explain) -> Result<()> {
    let own = |error: Error| error.status(OWN_FAILURE);
    let path = place.path();
    say::tell(&Enter(&path, words), explain).map_err(own)?;
    if explain.dry_run {
        return Ok(());
    }
    // Nothing begins to run without the walls around it.
    if matches!(place, Place::Container(_)) && nix::unistd::geteuid().is_root() {
        guard::restore(Explain::default()).map_err(own)?;
    }
    let namespace = place.open().map_err(own)?;
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|e| own(Error::new("join", path.display(), e)))?;
    let Some((program, arguments)) = words.split_first() else { return Err(own(Error::plain("exec: no command"))) };
    // std restores SIGPIPE's default action, which it had set to ignore.
    let error = Command::new(program).args(arguments).exec();
    let status = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_EXECUTE };
    Err(Error::new("execute", program.to_string_lossy(), error).status(status))
}
