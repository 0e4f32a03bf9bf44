//! How far the blobs are: bars on stderr where that is a terminal, in the spirit of `curl -#`, and lines for a program.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use bocker_common::{Error, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::fs::OFlags;

use crate::digest::Descriptor;

/// The shortest time between two lines for one blob.
const PERIOD: Duration = Duration::from_millis(100);

/// Who is told.
#[derive(Debug)]
pub(crate) struct Progress {
    bars: MultiProgress,
    lines: Option<RefCell<Lines>>,
}

/// Lines for a program: `DIGEST  GOT  TOTAL`.
#[derive(Debug)]
struct Lines {
    out: File,
    /// Lines that have to arrive but found the pipe full.
    owed: Vec<u8>,
}

impl Progress {
    /// Bars on stderr unless `quiet`, lines to the descriptor `fd` if there is one.
    ///
    /// # Errors
    /// The descriptor is not open, or not for writing.
    pub(crate) fn new(quiet: bool, fd: Option<u32>) -> Result<Self> {
        // The stderr target hides itself where stderr is no terminal.
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let open = |fd: u32| {
            // A description of our own: that it does not block is nobody else's business.
            let path = format!("/proc/self/fd/{fd}");
            let out = OpenOptions::new().append(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path);
            let out = out.map_err(|e| Error::new("write", format!("progress to descriptor {fd}"), e))?;
            Ok(RefCell::new(Lines { out, owed: Vec::new() }))
        };
        Ok(Self { bars: MultiProgress::with_draw_target(target), lines: fd.map(open).transpose()? })
    }

    /// A blob begins.
    pub(crate) fn begin(&self, blob: &Descriptor) -> Bar<'_> {
        let bar = self.bars.add(ProgressBar::new(blob.size));
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {percent:>3}% {total_bytes:>10}") {
            bar.set_style(style.progress_chars("## "));
        }
        // The short id that docker shows, too.
        bar.set_prefix(blob.digest.hex().chars().take(12).collect::<String>());
        let bar = Bar { progress: self, blob: blob.clone(), bar, told: Instant::now() };
        bar.line(0, false);
        bar
    }
}

/// How far one blob is.
#[derive(Debug)]
pub(crate) struct Bar<'a> {
    progress: &'a Progress,
    blob: Descriptor,
    bar: ProgressBar,
    told: Instant,
}

impl Bar<'_> {
    /// So many bytes have come.
    pub(crate) fn at(&mut self, got: u64) {
        self.bar.set_position(got);
        if self.told.elapsed() >= PERIOD && got < self.blob.size {
            self.told = Instant::now();
            self.line(got, false);
        }
    }

    /// All have come, and they are right.
    pub(crate) fn finish(self) {
        self.bar.finish();
        self.line(self.blob.size, true);
    }

    /// A line that has to arrive is kept until there is room; of the others one may be missing.
    fn line(&self, got: u64, must: bool) {
        let Some(lines) = &self.progress.lines else { return };
        let mut lines = lines.borrow_mut();
        let Lines { out, owed } = &mut *lines;
        let line = format!("{}\t{got}\t{}\n", self.blob.digest, self.blob.size);
        if must || owed.is_empty() {
            owed.extend_from_slice(line.as_bytes());
        }
        match out.write(owed) {
            Ok(written) => drop(owed.drain(..written)),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock && must => {}
            // Nobody reads any more, or there is no room for what may be missing.
            Err(_) => owed.clear(),
        }
    }
}
