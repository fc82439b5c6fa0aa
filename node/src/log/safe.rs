//! What could identify a user stays out of the log (`SafeLogging`).

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Process-wide, as the option is.
static SAFE: AtomicBool = AtomicBool::new(true);

pub(super) fn set(safe: bool) {
    SAFE.store(safe, Ordering::Relaxed);
}

/// Something sensitive: the address of a client or of a destination, a name that was asked for.
pub struct Safe<T>(T);

/// Marks `value` as sensitive: it prints as `[scrubbed]` unless the operator switched `SafeLogging` off.
pub fn safe<T>(value: T) -> Safe<T> {
    Safe(value)
}

impl<T: fmt::Display> Safe<T> {
    fn write(&self, f: &mut fmt::Formatter<'_>, is_safe: bool) -> fmt::Result {
        if is_safe { f.write_str("[scrubbed]") } else { self.0.fmt(f) }
    }
}

impl<T: fmt::Display> fmt::Display for Safe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, SAFE.load(Ordering::Relaxed))
    }
}

impl<T: fmt::Display> fmt::Debug for Safe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
