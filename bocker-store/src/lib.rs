//! Images and containers as btrfs subvolumes: the script's `btrfs subvolume …`, `tar xf` and `cp`.
//!
//! btrfs is asked by its ioctls; no program is started but `mkfs.btrfs`, once, by `init`.

pub mod claims;
mod cli;
mod have;
mod import;
pub mod layer;
pub mod oci;
mod pipeline;
pub mod pool;
pub mod signal;
pub mod store;
mod sys;
pub mod tarball;
mod unpack;
mod verbs;

pub use cli::main;
