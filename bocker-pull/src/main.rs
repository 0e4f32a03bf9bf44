//! `bocker-pull`: the library does the work.

use std::process::ExitCode;

fn main() -> ExitCode {
    bocker_common::entry::run("bocker-pull", bocker_pull::main)
}
