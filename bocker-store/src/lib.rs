//! Images and containers as btrfs subvolumes: the script's `btrfs subvolume …`, `tar xf` and `cp`.
//!
//! btrfs is asked by its ioctls; no program is started but `mkfs.btrfs`, once, by `init`.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod claims;
mod cli;
mod diff;
mod export;
mod from_tar;
mod fsck;
mod have;
mod holder;
mod import;
mod inspect;
pub mod layer;
pub mod names;
pub mod oci;
mod partials;
mod pipeline;
pub mod pool;
mod prune;
pub mod reference;
mod save;
pub mod signal;
pub mod store;
mod sys;
mod unpack;
mod usage;
mod verbs;
pub mod volumes;
mod whole;

pub use cli::main;
