//! `exec`: joins, then the command takes this process over.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use bocker_common::diag::{CANNOT_EXECUTE, NOT_FOUND, OWN_FAILURE};
use bocker_common::say::{self, Explain, Said, quote};
use bocker_common::{Error, Result};

use nix::sys::signal::Signal;
use nix::unistd::getppid;

use crate::group;
use crate::layout::Layout;
use crate::name::Name;

/// The last step, which only needs saying here.
struct Become<'a>(&'a [OsString]);

impl say::Act for Become<'_> {
    fn say(&self) -> Said {
        let words: Vec<String> = self.0.iter().map(quote).collect();
        Said::new(format!("exec {}", words.join(" ")), "the same process goes on as the command")
    }
}

/// SIGKILL when the process that started us dies, prctl(2). A program that changes its user as it starts forgets it.
fn die_with(parent: i32) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| Error::new("bind", "to the parent", e))?;
    if getppid().as_raw() == parent { Ok(()) } else { Err(Error::plain("the parent process has ended")) }
}

/// Does not return when all goes well, but for a dry run.
///
/// # Errors
/// Status 125 for what is ours, 126 or 127 for the command.
pub(crate) fn exec(layout: &Layout, id: Name, words: &[OsString], parent: Option<i32>, explain: Explain) -> Result<()> {
    let own = |error: Error| error.status(OWN_FAILURE);
    if let Some(parent) = parent {
        die_with(parent).map_err(own)?;
    }
    let plan = group::plan_join(layout, id).map_err(own)?;
    say::perform(&plan, explain, |act| act.apply(layout, id)).map_err(own)?;
    say::tell(&Become(words), explain).map_err(own)?;
    if explain.dry_run {
        return Ok(());
    }
    let Some((program, arguments)) = words.split_first() else { return Err(own(Error::plain("exec: no command"))) };
    // std restores SIGPIPE's default action, which it had set to ignore.
    let error = Command::new(program).args(arguments).exec();
    let status = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_EXECUTE };
    Err(Error::new("execute", program.to_string_lossy(), error).status(status))
}
