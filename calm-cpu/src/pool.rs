//! Memory that is handed on from one call to the next.

use std::sync::{Mutex, PoisonError};

/// Things that calls have given back, for later calls to use again. New memory would cost a page fault every
/// 4 KiB, which for a batch comes to a twentieth of its time.
#[derive(Default)]
pub(crate) struct Pool<T>(Mutex<Vec<T>>);

impl<T: Default> Pool<T> {
    /// Takes what some call gave back, as it left it, or a new one.
    pub(crate) fn take(&self) -> T {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Gives something back.
    pub(crate) fn give(&self, thing: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(thing);
    }
}
