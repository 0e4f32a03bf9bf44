//! Images and containers as btrfs subvolumes: the script's `btrfs subvolume …`, `tar xf` and `cp`.
//!
//! btrfs is asked by its ioctls; no program is started but `mkfs.btrfs`, once, by `init`.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod called;
pub mod claims;
mod cli;
mod cp;
mod diff;
mod doctor;
mod export;
mod fill;
mod from_tar;
mod fsck;
mod have;
mod holder;
mod import;
mod inspect;
pub mod layer;
mod logs;
mod maker;
mod mounts;
mod namer;
pub mod names;
mod network;
pub mod oci;
mod partials;
mod pipeline;
pub mod pool;
mod prune;
mod ps;
pub mod reference;
pub mod remember;
mod room;
mod save;
pub mod signal;
pub mod store;
mod sys;
mod template;
mod unpack;
mod update;
mod usage;
mod verbs;
pub mod volumes;
mod when;
mod whole;
mod writeback;

pub use cli::main;
