//! A bar on stderr for each blob, in the spirit of `curl -#`. Nothing where stderr is no terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::digest::Descriptor;

/// A bar for one blob; `quiet` hides it.
pub(crate) fn bar(blob: &Descriptor, quiet: bool) -> ProgressBar {
    // The stderr target hides itself where stderr is no terminal.
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(blob.size), target);
    if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {percent:>3}% {total_bytes:>10}") {
        bar.set_style(style.progress_chars("## "));
    }
    // The short id that docker shows, too.
    bar.set_prefix(blob.digest.hex().chars().take(12).collect::<String>());
    bar
}
