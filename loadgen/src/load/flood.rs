//! What comes beside the bulk of a flood: junk CREATE2, and honest ones, each on a thread of its own.

mod creates;
mod junk;

use std::time::Duration;

pub(super) use creates::Creates;
pub(super) use junk::Junk;

/// How often one looks at what is due.
const BEAT: Duration = Duration::from_millis(1);
