//! Writing such that a reader, or a machine that loses power, sees the old file or the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::Error;

/// Writes a file that is the old or the new one whenever the process or the machine stops. Its folder is
/// made where there is none.
///
/// # Errors
/// [`Error::Write`]; the file is the old one then, and nothing is left beside it.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
    let replace = || {
        let folder = folder_of(path);
        fs::create_dir_all(folder)?;
        let mut builder = tempfile::Builder::new();
        // A temporary file is its owner's alone unless it is told to be like any other new file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(bytes.as_ref())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        sync(folder)
    };
    replace().map_err(Error::write(path))
}

/// Writes a value as indented JSON, as [`write()`] does.
///
/// # Errors
/// [`Error::Json`] and [`Error::Write`]
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(Error::json(path))?;
    write(path, text + "\n")
}

/// Gives a folder whose files are complete the name that it is looked for by.
///
/// # Errors
/// [`Error::Write`]
pub fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).and_then(|()| sync(folder_of(to))).map_err(Error::write(to))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Waits until the disk has a folder's names. Only Unix opens folders.
fn sync(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn folders_are_made_and_files_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.txt");
        for text in ["one", "two, longer", ""] {
            write(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        write_json(&folder.path().join("a/c.json"), &[1]).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("a/c.json")).unwrap(), "[\n  1\n]\n");
        assert_eq!(names(&folder.path().join("a")).len(), 2);
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        let error = write(&path, "text").unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot write {}: ", path.display())), "{error}");
        assert_eq!(names(folder.path()), ["taken"]);
        let below_a_file = folder.path().join("file/below");
        write(&folder.path().join("file"), "").unwrap();
        assert!(
            matches!(write(&below_a_file, "").unwrap_err(), Error::Write { path, .. } if path == below_a_file)
        );
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let [plain, written] = ["plain", "written"].map(|name| folder.path().join(name));
        fs::write(&plain, "").unwrap();
        write(&written, "").unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&written), mode(&plain));
    }

    #[test]
    fn threads_that_write_one_file_leave_one_of_their_texts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let texts = ["a".repeat(100_000), "b".repeat(70_000)];
        std::thread::scope(|scope| {
            let path = &path;
            for text in &texts {
                scope.spawn(move || (0..20).for_each(|_| write(path, text).unwrap()));
            }
        });
        assert!(texts.contains(&fs::read_to_string(&path).unwrap()));
        assert_eq!(names(folder.path()), ["file"]);
    }
}
