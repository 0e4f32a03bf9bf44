//! `exec`: one `setns(2)`, then the command takes this process over.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use bocker_common::diag::{CANNOT_EXECUTE, NOT_FOUND, OWN_FAILURE};
use bocker_common::say::{self, Explain, Said, quote};
use bocker_common::{Error, Id, Result};

use crate::namespace;

/// Both steps as one, which is what nsenter does.
struct Enter<'a>(Id, &'a [OsString]);

impl say::Act for Enter<'_> {
    fn say(&self) -> Said {
        let words: Vec<String> = self.1.iter().map(quote).collect();
        Said::new(
            format!("exec nsenter --net={} -- {}", namespace::path(self.0).display(), words.join(" ")),
            "the same process goes on as the command, with the container's network",
        )
    }
}

/// Does not return when all goes well, but for a dry run.
///
/// # Errors
/// Status 125 for what is ours, 126 or 127 for the command.
pub(crate) fn exec(id: Id, words: &[OsString], explain: Explain) -> Result<()> {
    let own = |error: Error| error.status(OWN_FAILURE);
    say::tell(&Enter(id, words), explain).map_err(own)?;
    if explain.dry_run {
        return Ok(());
    }
    namespace::join(id).map_err(own)?;
    let Some((program, arguments)) = words.split_first() else { return Err(own(Error::plain("exec: no command"))) };
    // std restores SIGPIPE's default action, which it had set to ignore.
    let error = Command::new(program).args(arguments).exec();
    let status = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_EXECUTE };
    Err(Error::new("execute", program.to_string_lossy(), error).status(status))
}
