//! The terminal that we were started on, as it was before a command had it.

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

/// The modes of our stdin where it is a terminal. `bocker-exec` puts back what it changes, but not when it is killed.
pub(crate) struct Modes(Option<Termios>);

impl Modes {
    pub(crate) fn now() -> Self {
        Self(tcgetattr(std::io::stdin()).ok())
    }

    /// In the background the terminal is somebody else's by now.
    pub(crate) fn put_back(&self) {
        let in_front = nix::unistd::tcgetpgrp(std::io::stdin()) == Ok(nix::unistd::getpgrp());
        if let (true, Some(modes)) = (in_front, &self.0) {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, modes);
        }
    }
}
