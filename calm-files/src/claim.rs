//! A piece of work that one program at a time does.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::unfinished::{begin, end, is_at};
use crate::write::make_folder_of;

/// A file that is there, and locked, as long as its owner works on what it stands for. The system
/// unlocks the file of a program that was killed, so that a claim never outlives its owner.
///
/// Where files cannot be locked, as on some network's disks, everybody gets the claim: whatever is claimed
/// has to be harmless when it is done twice.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    /// Locked.
    _file: File,
}

impl Claim {
    /// Takes the claim, unless somebody else has it.
    ///
    /// # Errors
    /// [`Error::Write`]
    pub fn try_take(path: &Path) -> Result<Option<Self>, Error> {
        take(path, File::try_lock)
    }

    /// Takes the claim, once nobody else has it.
    ///
    /// # Errors
    /// [`Error::Write`]
    pub fn take(path: &Path) -> Result<Self, Error> {
        loop {
            if let Some(claim) = take(path, |file| file.lock().map_err(TryLockError::Error))? {
                return Ok(claim);
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        end(&self.path, |path| fs::remove_file(path));
    }
}

fn take(path: &Path, lock: impl Fn(&File) -> Result<(), TryLockError>) -> Result<Option<Claim>, Error> {
    let open = || OpenOptions::new().write(true).create(true).truncate(false).open(path);
    make_folder_of(path).map_err(Error::write(path))?;
    loop {
        let file = open().map_err(Error::write(path))?;
        match lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Here nothing can be locked.
            Err(TryLockError::Error(_)) => {}
        }
        // Its owner may have ended the claim between the two calls, and then the file has no name any more.
        if is_at(&file, path) {
            begin(path);
            return Ok(Some(Claim { path: path.to_owned(), _file: file }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_at_a_time_has_a_claim() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/.unit.claim");
        let claim = Claim::try_take(&path).unwrap();
        assert!(claim.is_some());
        assert!(Claim::try_take(&path).unwrap().is_none());
        drop(claim);
        assert!(!path.exists());
        drop(Claim::take(&path).unwrap());
        // What a killed program has left is not locked.
        fs::write(&path, "").unwrap();
        assert!(Claim::try_take(&path).unwrap().is_some());
        assert!(!path.exists());
    }

    #[test]
    fn those_who_wait_come_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("claim");
        let (owners, turns) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let claim = Claim::take(&path).unwrap();
                        assert_eq!(owners.fetch_add(1, Ordering::SeqCst), 0);
                        turns.fetch_add(1, Ordering::SeqCst);
                        owners.fetch_sub(1, Ordering::SeqCst);
                        drop(claim);
                    }
                });
            }
        });
        assert_eq!(turns.into_inner(), 200);
        assert!(!path.exists());
    }
}
