//! `freeze` and `thaw`: a container's processes stand still, wherever they are, and go on.
//!
//! Version 1 has a hierarchy of its own for it, version 2 a file in each cgroup. No signal is involved: nobody inside can
//! notice or refuse it.

use std::path::Path;
use std::time::{Duration, Instant};

use bocker_common::say::{Said, quote};
use bocker_common::{Error, Result};

use crate::act::{Act, Place};
use crate::group;
use crate::layout::{Controller, Layout};
use crate::name::Name;

/// How long we wait for the last process. One that the kernel cannot stop (uninterruptible, as in a hung file system) keeps
/// it waiting for as long as that lasts.
const PATIENCE: Duration = Duration::from_secs(10);

/// The file to write to, what to write, and the file and the line in it that say that it is so.
struct Files {
    switch: &'static str,
    word: &'static str,
    state: &'static str,
    line: &'static str,
}

fn files(frozen: bool, v2: bool) -> Files {
    match (frozen, v2) {
        (true, false) => Files { switch: STATE, word: "FROZEN", state: STATE, line: "FROZEN" },
        (false, false) => Files { switch: STATE, word: "THAWED", state: STATE, line: "THAWED" },
        (true, true) => Files { switch: SWITCH, word: "1", state: EVENTS, line: "frozen 1" },
        (false, true) => Files { switch: SWITCH, word: "0", state: EVENTS, line: "frozen 0" },
    }
}

/// Version 1.
const STATE: &str = "freezer.state";
/// Version 2.
const SWITCH: &str = "cgroup.freeze";
const EVENTS: &str = "cgroup.events";

/// # Errors
/// No such cgroup; version 1 has no freezer.
pub(crate) fn plan(layout: &Layout, id: Name, frozen: bool) -> Result<Vec<Act>> {
    group::must_exist(layout, id)?;
    layout.top_of(Controller::Freezer).ok_or_else(|| layout.lacks(Controller::Freezer, "freeze", ""))?;
    let dir = layout.dir_of(Controller::Freezer, id);
    if !dir.is_dir() {
        return Err(Error::new("freeze", dir.display(), "no such cgroup").hint(format!("{id} was made without it")));
    }
    let mut dirs = Vec::new();
    group::leaves_first(&dir, &mut dirs)?;
    // Who thaws means all that is in it, whoever froze a part of it; from the top, for below what is frozen nothing thaws.
    let below = dirs.into_iter().rev().skip(1).filter(|dir| !frozen && is_frozen(dir, layout.v2()));
    let all = std::iter::once(dir).chain(below);
    Ok(all.map(|dir| Act::Freeze(frozen, Place { dir, v2: layout.v2() })).collect())
}

/// Whether a cgroup has been told to freeze; not whether one above it has.
pub(crate) fn is_frozen(dir: &Path, v2: bool) -> bool {
    let text = std::fs::read_to_string(dir.join(if v2 { SWITCH } else { STATE })).unwrap_or_default();
    !matches!(text.trim_end(), "" | "0" | "THAWED")
}

/// Version 1 can miss a process: one that was about to vfork(2) now waits for its child, which stands still, and the kernel
/// does not look at it a second time unless it is told to freeze again.
fn again(frozen: bool, place: &Place) -> bool {
    frozen && !place.v2
}

/// In shell.
pub(crate) fn say(frozen: bool, place: &Place) -> Said {
    let Files { switch, word, state, line } = files(frozen, place.v2);
    let (switch, state, line) = (quote(place.dir.join(switch)), quote(place.dir.join(state)), quote(line));
    let again = if again(frozen, place) { format!("; echo {word} > {switch}") } else { String::new() };
    let shell = format!("echo {word} > {switch}\nuntil grep -qx {line} {state}; do sleep 0.1{again}; done");
    let why = if frozen {
        "its processes stop where they are; the last of them a moment later"
    } else {
        "its processes go on"
    };
    Said::new(shell, why)
}

/// Writes, and waits until it is so. What does not freeze in time is thawed again.
///
/// # Errors
/// The file and the kernel's reason; or that it takes too long.
pub(crate) fn apply(frozen: bool, place: &Place) -> Result<()> {
    let Files { switch, word, state, line } = files(frozen, place.v2);
    let file = place.dir.join(switch);
    let write = |word: &str| {
        let opened = std::fs::OpenOptions::new().write(true).open(&file);
        opened.and_then(|mut opened| std::io::Write::write_all(&mut opened, word.as_bytes()))
    };
    write(word).map_err(|e| Error::new(&format!("write {word} to"), file.display(), e))?;
    let state = place.dir.join(state);
    let until = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(&state).map_err(|e| Error::new("read", state.display(), e))?;
        if text.lines().any(|now| now == line) {
            return Ok(());
        }
        if Instant::now() > until {
            let act = if frozen { "freeze" } else { "thaw" };
            let error = Error::new(act, place.dir.display(), format!("not so after {} s", PATIENCE.as_secs()));
            if !frozen {
                return Err(error.hint("a cgroup above it is frozen"));
            }
            let _ = write(files(false, place.v2).word);
            return Err(error.hint("a process in it is where the kernel cannot stop it; they go on"));
        }
        std::thread::sleep(Duration::from_millis(1));
        if again(frozen, place) {
            write(word).map_err(|e| Error::new(&format!("write {word} to"), file.display(), e))?;
        }
    }
}
