//! Memory that is handed on from one call to the next.

use std::sync::{Mutex, PoisonError};

/// Things that calls have given back, for later calls to use again. New memory would cost a page fault every
/// 4 KiB, which for a batch comes to a twentieth of its time.
#[derive(Default)]
pub(crate) struct Pool<T>(Mutex<Vec<T>>);

impl<T: Default> Pool<T> {
    /// Takes what some call gave back, as it left it, or a new one.
    pub(crate) fn take(&self) -> T {
        self.take_given().unwrap_or_default()
    }

    /// Takes what some call gave back, if there is any.
    pub(crate) fn take_given(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Gives something back.
    pub(crate) fn give(&self, thing: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(thing);
    }
}
