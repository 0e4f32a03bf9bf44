//! `import -`: an image from a root file system that comes as a tar archive on stdin, plain, by gzip or by zstd.
//!
//! It is applied by the same code as a layer, so it cannot reach out of its root either.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use bocker_common::diag::printable;
use bocker_common::id::{FIRST, LAST};
use bocker_common::say::Explain;
use bocker_common::{Error, Id, Kind, Result};

use crate::layer::Applier;
use crate::oci::plain_config;
use crate::pipeline;
use crate::signal::{Interrupt, Interruptible};
use crate::store::{Building, Step, Store};
use crate::unpack::MAX_TAIL;
use crate::writeback::Writeback;
use bocker_common::tarball::Reader;

pub(crate) fn reading(error: io::Error) -> Error {
    Error::new("read", "stdin", error)
}

/// Refuses a person's keyboard, before a store is made for what is typed.
///
/// # Errors
/// Stdin is a terminal, and would be read.
pub(crate) fn refuse_terminal(explain: Explain) -> Result<()> {
    if io::stdin().is_terminal() && !explain.dry_run {
        return Err(Error::plain("stdin is a terminal").hint("bocker-store import - < rootfs.tar"));
    }
    Ok(())
}

/// Makes the image. A dry run reads nothing.
///
/// # Errors
/// Whatever is wrong with the archive; then nothing of it is left.
pub(crate) fn import(store: &Store, source: Option<&str>, explain: Explain) -> Result<Id> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(reading)?;
    let interrupt = Interrupt::listen()?;
    let mut input = Some(BufReader::with_capacity(256 << 10, Interruptible::new(stdin, &interrupt)));
    let text = printable(source.unwrap_or("-")) + "\n";
    let plan = |new: &str| {
        vec![
            Step::Subvolume(new.to_owned()),
            Step::Directory(format!("{new}/rootfs")),
            Step::Extract(format!("{new}/rootfs")),
            Step::Write(format!("{new}/source"), text.clone().into()),
            Step::Write(format!("{new}/config"), plain_config()),
            Step::Sync,
        ]
    };
    let fill = |step: &Step, building: &Building<'_>| {
        interrupt.check()?;
        match (step, input.take()) {
            (Step::Extract(_), Some(input)) => extract(store, building, input).map(|()| true),
            (_, unused) => {
                input = unused;
                Ok(false)
            }
        }
    };
    let done = store.create(Kind::Image, (FIRST, LAST), explain, plan, fill);
    done.map_err(|error| interrupt.or(error))
}

fn extract(store: &Store, building: &Building<'_>, mut input: impl BufRead + Send) -> Result<()> {
    if input.fill_buf().map_err(reading)?.is_empty() {
        return Err(Error::new("read", "stdin", "it is empty").hint("bocker-store export writes what import reads"));
    }
    let root = building.rootfs()?;
    std::thread::scope(|scope| {
        let writeback = Writeback::start(scope);
        apply(store, root, pipeline::archive(scope, input).map_err(reading)?, &writeback)
    })
}

/// Applies the archive, and demands its end mark: what a broken pipe left is not the whole of it.
fn apply(store: &Store, root: OwnedFd, input: impl BufRead, writeback: &Writeback) -> Result<()> {
    let budget = store.budget()?;
    let mut archive = Reader::new(input);
    let dropped = Applier::new(root, &budget).writing_back(writeback).apply(&mut archive)?;
    ended(archive, &dropped)
}

/// Demands the end mark of an archive that was applied, and that nothing follows; says which attributes were left out.
pub(crate) fn ended(archive: Reader<impl Read>, dropped: &BTreeSet<String>) -> Result<()> {
    if !archive.has_end_mark() {
        return Err(Error::new("read", "stdin", "the archive has no end mark: it was cut off"));
    }
    let mut rest = archive.into_inner();
    // Tar fills its last record with zeros; anything else is not part of the archive.
    let mut buffer = vec![0; 64 << 10];
    let mut tail = 0;
    loop {
        match rest.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) if tail + read as u64 > MAX_TAIL => {
                return Err(Error::new("read", "stdin", "16 MiB and more after the end of the archive"));
            }
            Ok(read) if buffer[..read].iter().all(|byte| *byte == 0) => tail += read as u64,
            Ok(_) => return Err(Error::new("read", "stdin", "there is data after the end of the archive")),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(reading(e)),
        }
    }
    if !dropped.is_empty() {
        let names: Vec<_> = dropped.iter().take(8).map(|name| printable(name)).collect();
        let more = if dropped.len() > names.len() { ", …" } else { "" };
        let _ = writeln!(io::stderr(), "bocker-store: warning: attributes left out: {}{more}", names.join(", "));
    }
    Ok(())
}
