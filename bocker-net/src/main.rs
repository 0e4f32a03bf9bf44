//! `bocker-net`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    bocker_common::entry::run("bocker-net", bocker_net::main)
}
