//! What two of the bocker tools need, and nothing else: the grammar of ids and of image names,
//! one-line errors with an exit status, the way an act says itself in shell, and
//! the state in which every tool starts.

pub mod diag;
pub mod entry;
pub mod id;
pub mod reference;
pub mod say;
mod sys;

pub use diag::{Error, Result};
pub use id::{Id, Ids, Kind};
