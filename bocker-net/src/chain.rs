//! `exec`: one `setns(2)`, then the command takes this process over.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use bocker_common::diag::{CANNOT_EXECUTE, NOT_FOUND, OWN_FAILURE};
use bocker_common::{Error, Id};

use crate::namespace;

/// Does not return when all goes well.
pub(crate) fn exec(id: Id, words: &[OsString]) -> Error {
    let Some((program, arguments)) = words.split_first() else {
        return Error::plain("exec: no command").status(OWN_FAILURE);
    };
    if let Err(error) = namespace::join(id) {
        return error.status(OWN_FAILURE);
    }
    // std restores SIGPIPE's default action, which it had set to ignore.
    let error = Command::new(program).args(arguments).exec();
    let status = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_EXECUTE };
    Error::new("execute", program.to_string_lossy(), error).status(status)
}
