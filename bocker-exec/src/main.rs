//! `bocker-exec`: `unshare`, `mount`, `chroot`, `nsenter` and `tee` of the script.

use std::process::ExitCode;

fn main() -> ExitCode {
    bocker_common::entry::run("bocker-exec", bocker_exec::main)
}
