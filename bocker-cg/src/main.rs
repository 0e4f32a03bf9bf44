//! `bocker-cg`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    bocker_common::entry::run("bocker-cg", bocker_cg::main)
}
