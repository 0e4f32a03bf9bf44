//! The program `bocker`.

use std::process::ExitCode;

fn main() -> ExitCode {
    bocker::main(std::env::args_os())
}
