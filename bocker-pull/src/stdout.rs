//! stdout: data only, and the mark of a failure for the stage after us.

use std::fs::File;
use std::io::{IsTerminal, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;

use bocker_common::diag::printable;
use bocker_common::{Error, Result};

/// stdout without the line buffer, which would look for line breaks in every layer.
///
/// # Errors
/// stdout is closed.
pub(crate) fn file() -> Result<File> {
    let fd = std::io::stdout().as_fd().try_clone_to_owned();
    fd.map(File::from).map_err(|e| Error::new("write", "stdout", e))
}

/// Whether a stage after us reads what we write.
pub(crate) fn is_pipe() -> bool {
    file().and_then(|file| file.metadata().map_err(|e| Error::stdout(&e))).is_ok_and(|meta| meta.file_type().is_fifo())
}

pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Prints the bytes as they are; on a terminal, control characters but line breaks and tabs are spelled out.
///
/// # Errors
/// stdout cannot be written to.
pub(crate) fn text(bytes: &[u8]) -> Result<()> {
    let mut out = file()?;
    let written = if is_terminal() {
        let text = String::from_utf8_lossy(bytes);
        let shown: Vec<String> =
            text.split('\n').map(|line| line.split('\t').map(printable).collect::<Vec<_>>().join("\t")).collect();
        out.write_all(format!("{}\n", shown.join("\n").trim_end_matches('\n')).as_bytes())
    } else {
        out.write_all(bytes)
    };
    written.map_err(|e| Error::stdout(&e))
}
