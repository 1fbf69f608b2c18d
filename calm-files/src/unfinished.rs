//! Files and folders that are there while a program works, and not when it has ended.
//!
//! A file that is being written lies beside its target as `.NAME.HOST.0.partial`, locked. A killed program
//! leaves it behind, unlocked, and the next one on this machine that writes the same target takes it over.
//! The name has the machine, because locks on a disk that several share may not reach from one to the other.
//! A program that is told to end removes what it has begun.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Error;
use crate::target::folder_of;

/// Programs and threads that write one target at the same time, at most; more take names at random.
const MOST_WRITERS: usize = 64;

/// The lock of a temporary folder.
const LOCK: &str = "in-use";

/// What exists now.
static BEGUN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes every file and folder that this process has begun and not ended, and has everybody wait who would
/// begin or end another one. It is for a program whose next step is its end.
pub fn remove_unfinished() {
    let begun = begun();
    for path in begun.iter() {
        let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
    }
    std::mem::forget(begun);
}

/// A file beside its target. It is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(crate) file: File,
    path: PathBuf,
}

impl Unfinished {
    pub(crate) fn beside(target: &Path) -> io::Result<Self> {
        let mut begun = begun();
        let (file, path) = match take_over(target)? {
            Some(taken) => taken,
            None => at_random(folder_of(target))?,
        };
        begun.push(path.clone());
        Ok(Self { file, path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it the name of its target.
    pub(crate) fn persist(mut self, target: &Path) -> io::Result<()> {
        let mut begun = begun();
        fs::rename(&self.path, target)?;
        begun.retain(|path| *path != self.path);
        // From here on somebody else may have the name.
        self.path.clear();
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        end(&self.path, |path| fs::remove_file(path));
    }
}

/// A folder among the system's temporary files. It is removed when it is dropped; what a killed program has
/// left is removed by the next one that makes a folder of the same kind.
#[derive(Debug)]
pub struct TemporaryFolder {
    path: PathBuf,
    /// Locked as long as the folder is used.
    _lock: File,
}

impl TemporaryFolder {
    /// Makes a folder whose name begins with `kind`.
    ///
    /// # Errors
    /// [`Error::Write`]
    pub fn new(kind: &str) -> Result<Self, Error> {
        let parent = std::env::temp_dir();
        let make = || {
            remove_abandoned(&parent, kind);
            let mut begun = begun();
            let path = tempfile::Builder::new().prefix(kind).tempdir_in(&parent)?.keep();
            begun.push(path.clone());
            // It gets the name that others look for when it is locked.
            let unlocked = path.join("lock");
            let lock = File::create(&unlocked)?;
            lock.lock()?;
            fs::rename(unlocked, path.join(LOCK))?;
            Ok(Self { path, _lock: lock })
        };
        make().map_err(Error::write(&parent))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        end(&self.path, |path| fs::remove_dir_all(path));
    }
}

fn begun() -> MutexGuard<'static, Vec<PathBuf>> {
    BEGUN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps account of a file that exists from now on.
pub(crate) fn begin(path: &Path) {
    begun().push(path.to_owned());
}

/// Removes what was begun, unless that was done already.
pub(crate) fn end(path: &Path, remove: impl FnOnce(&Path) -> io::Result<()>) {
    let mut begun = begun();
    if let Some(index) = begun.iter().position(|other| other == path) {
        begun.swap_remove(index);
        let _ = remove(path);
    }
}

/// The first of the names beside a target that nobody is writing to. There is none where files cannot be
/// locked, where they are another user's, or where the name is too long.
fn take_over(target: &Path) -> io::Result<Option<(File, PathBuf)>> {
    let Some(name) = target.file_name() else { return Err(io::ErrorKind::InvalidFilename.into()) };
    for number in 0..MOST_WRITERS {
        let mut partial = std::ffi::OsString::from(".");
        partial.push(name);
        partial.push(format!(".{}.{number}.partial", host()));
        let path = folder_of(target).join(partial);
        loop {
            let Ok(file) = OpenOptions::new().write(true).create(true).truncate(false).open(&path) else {
                return Ok(None);
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(_)) => {
                    let _ = fs::remove_file(&path);
                    return Ok(None);
                }
            }
            // Its writer may have given it its name, or removed it, between the two calls.
            if is_at(&file, &path) {
                file.set_len(0)?;
                return Ok(Some((file, path)));
            }
        }
    }
    Ok(None)
}

/// The name of this machine, as far as it is fit for the name of a file.
fn host() -> String {
    let name = gethostname::gethostname().to_string_lossy().into_owned();
    name.chars().filter(|character| character.is_ascii_alphanumeric() || *character == '-').take(40).collect()
}

/// Whether an open file still has its name.
#[cfg(unix)]
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |of: io::Result<fs::Metadata>| of.map(|of| (of.dev(), of.ino())).ok();
    let opened = place(file.metadata());
    opened.is_some() && opened == place(fs::symlink_metadata(path))
}

/// An open file cannot be renamed there.
#[cfg(not(unix))]
pub(crate) fn is_at(_: &File, _: &Path) -> bool {
    true
}

fn at_random(folder: &Path) -> io::Result<(File, PathBuf)> {
    let mut builder = tempfile::Builder::new();
    // A temporary file is its owner's alone unless it is told to be like any other new file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    Ok(builder.tempfile_in(folder)?.keep()?)
}

fn remove_abandoned(parent: &Path, kind: &str) {
    let folders = fs::read_dir(parent).into_iter().flatten().flatten();
    for folder in folders.filter(|entry| entry.file_name().to_string_lossy().starts_with(kind)) {
        let lock = File::open(folder.path().join(LOCK));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(folder.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_program_left_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.json");
        let partial = |number| format!(".a.json.{}.{number}.partial", host());
        fs::write(folder.path().join(partial(0)), "the first half of").unwrap();
        let [first, second] = [(); 2].map(|()| Unfinished::beside(&target).unwrap());
        assert_eq!(names(folder.path()), [partial(0), partial(1)]);
        first.persist(&target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "");
        drop(second);
        assert_eq!(names(folder.path()), ["a.json"]);
    }

    #[test]
    fn a_long_name_needs_no_longer_one() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("n".repeat(250));
        Unfinished::beside(&target).unwrap().persist(&target).unwrap();
        assert_eq!(names(folder.path()), ["n".repeat(250)]);
    }

    #[test]
    fn temporary_folders_of_killed_programs_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let [abandoned, used, other] = ["calm-a", "calm-b", "else"].map(|name| parent.path().join(name));
        for folder in [&abandoned, &used, &other] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(LOCK), "").unwrap();
        }
        let lock = File::open(used.join(LOCK)).unwrap();
        lock.lock().unwrap();
        remove_abandoned(parent.path(), "calm-");
        assert_eq!(names(parent.path()), ["calm-b", "else"]);
        let folder = TemporaryFolder::new("calm-test-").unwrap();
        let path = folder.path().to_owned();
        assert_eq!(names(&path), [LOCK]);
        drop(folder);
        assert!(!path.exists());
    }
}
