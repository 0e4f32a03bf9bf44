//! `bocker-store`: images and containers as btrfs subvolumes.

use std::process::ExitCode;

fn main() -> ExitCode {
    bocker_common::entry::run("bocker-store", bocker_store::main)
}
