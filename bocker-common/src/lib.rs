//! What two of the bocker tools need, and nothing else: the grammar of ids and of image names, tar archives,
//! one-line errors with an exit status, the way an act says itself in shell, and
//! the state in which every tool starts.

#[cfg(any(test, feature = "samples"))]
pub mod corpus;
pub mod diag;
pub mod doctor;
pub mod entry;
pub mod id;
#[cfg(feature = "tar")]
pub mod packed;
pub mod reference;
pub mod say;
mod sys;
#[cfg(feature = "tar")]
pub mod tarball;
pub mod userns;
pub mod words;

pub use diag::{Error, Result};
pub use id::{Id, Ids, Kind};
