//! Writing such that a reader, or a machine that loses power, sees the old file or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Error;
use crate::streams::STANDARD_OUTPUT;
use crate::target::{Target, folder_of};
use crate::unfinished::Unfinished;

/// Writes a file that is the old or the new one whenever the process or the machine stops. Its folder is
/// made where there is none, and a link stays one. `-` is standard output; a device or a pipe is written to
/// and stays what it is.
///
/// # Errors
/// [`Error::Write`]; a file is the old one then, and nothing is left beside it.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
    let mut writer = Writer::create(path)?;
    writer.write_all(bytes.as_ref()).map_err(Error::write(writer.name()))?;
    writer.finish()
}

/// Writes a value as indented JSON, as [`write()`] does.
///
/// # Errors
/// [`Error::Json`] and [`Error::Write`]
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(Error::json(path))?;
    write(path, text + "\n")
}

/// As [`write()`], by a library that opens the file itself.
///
/// # Errors
/// That of `write`, and [`Error::Write`].
pub fn write_by<E: From<Error>>(path: &Path, write: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let writer = Writer::create(path)?;
    match &writer.sink {
        Sink::StandardOutput => write(Path::new("/dev/stdout"))?,
        Sink::Opened(_) => write(path)?,
        Sink::Replacing { unfinished, .. } => write(unfinished.get_ref().path())?,
    }
    Ok(writer.finish()?)
}

/// Finds out before the work whether its result can be written to `path`: a file's folder is made, and a file
/// that is also one of `inputs` is refused.
///
/// # Errors
/// [`Error::Write`] and [`Error::AlsoRead`]
pub fn check_output(path: &Path, inputs: &[&Path]) -> Result<(), Error> {
    let check = || {
        if let Target::File(file) = Target::of(path)? {
            make_folder_of(&file)?;
            drop(Unfinished::beside(&file)?);
            let same = |input: &&&Path| input.canonicalize().is_ok_and(|input| is_file(&file, &input));
            return Ok(inputs.iter().find(same));
        }
        Ok(None)
    };
    match check().map_err(Error::write(path))? {
        Some(input) => Err(Error::AlsoRead { path: path.to_owned(), input: input.to_path_buf() }),
        None => Ok(()),
    }
}

/// Whether a path is standard output: `-`, or a link to it such as `/dev/stdout`.
pub fn is_standard_output(path: &Path) -> bool {
    matches!(Target::of(path), Ok(Target::StandardOutput))
}

/// A file that is written piece by piece and appears, or replaces the old one, when it is finished. `-`,
/// devices and pipes receive each piece at once.
#[derive(Debug)]
pub struct Writer {
    name: PathBuf,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    StandardOutput,
    Opened(File),
    Replacing { unfinished: BufWriter<Unfinished>, target: PathBuf },
}

impl Writer {
    /// Begins a file. Its folder is made where there is none.
    ///
    /// # Errors
    /// [`Error::Write`]
    pub fn create(path: &Path) -> Result<Self, Error> {
        let open = || {
            Ok(match Target::of(path)? {
                Target::StandardOutput => Sink::StandardOutput,
                Target::Opened(path) => Sink::Opened(OpenOptions::new().append(true).open(path)?),
                Target::File(target) => {
                    make_folder_of(&target)?;
                    let unfinished = BufWriter::new(Unfinished::beside(&target)?);
                    Sink::Replacing { unfinished, target }
                }
            })
        };
        let sink = open().map_err(Error::write(path))?;
        let name = if matches!(sink, Sink::StandardOutput) { Path::new(STANDARD_OUTPUT) } else { path };
        Ok(Self { name: name.to_owned(), sink })
    }

    /// How messages call it.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Waits until the disk has all of it, and gives a file its name.
    ///
    /// # Errors
    /// [`Error::Write`]
    pub fn finish(mut self) -> Result<(), Error> {
        let name = std::mem::take(&mut self.name);
        let finish = |sink| match sink {
            Sink::StandardOutput => io::stdout().flush(),
            Sink::Opened(mut file) => file.flush(),
            Sink::Replacing { unfinished, target } => {
                let unfinished = unfinished.into_inner().map_err(io::IntoInnerError::into_error)?;
                unfinished.file.sync_all()?;
                unfinished.persist(&target)?;
                sync(folder_of(&target))
            }
        };
        finish(self.sink).map_err(Error::write(&name))
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.sink {
            Sink::StandardOutput => io::stdout().write(bytes),
            Sink::Opened(file) => file.write(bytes),
            Sink::Replacing { unfinished, .. } => unfinished.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::StandardOutput => io::stdout().flush(),
            Sink::Opened(file) => file.flush(),
            Sink::Replacing { unfinished, .. } => unfinished.flush(),
        }
    }
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Gives a folder whose files are complete the name that it is looked for by.
///
/// # Errors
/// [`Error::Write`]
pub fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).and_then(|()| sync(folder_of(to))).map_err(Error::write(to))
}

pub(crate) fn make_folder_of(file: &Path) -> io::Result<()> {
    fs::create_dir_all(folder_of(file)).map_err(|error| match error.kind() {
        // It is a file, or a link to nothing.
        io::ErrorKind::AlreadyExists => io::ErrorKind::NotADirectory.into(),
        _ => error,
    })
}

/// Whether the file at `path` is the one that `canonical` leads to.
fn is_file(path: &Path, canonical: &Path) -> bool {
    path.canonicalize().is_ok_and(|path| path == canonical)
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

    #[cfg(unix)]
    #[test]
    fn devices_pipes_and_links_stay_what_they_are() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);

        symlink("/dev/null", path("null")).unwrap();
        write(&path("null"), "text").unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        assert!(fs::symlink_metadata(path("null")).unwrap().is_symlink());
        if Path::new("/dev/full").exists() {
            let full = write(Path::new("/dev/full"), "text").unwrap_err().to_string();
            assert!(full.starts_with("cannot write /dev/full: No space left on device"), "{full}");
        }

        fs::create_dir(path("folder")).unwrap();
        fs::write(path("folder/file"), "old").unwrap();
        symlink("folder/file", path("link")).unwrap();
        symlink("made/file", path("to nothing")).unwrap();
        for (link, file) in [("link", "folder/file"), ("to nothing", "made/file")] {
            write(&path(link), "new").unwrap();
            assert!(fs::symlink_metadata(path(link)).unwrap().is_symlink(), "{link}");
            assert_eq!(fs::read_to_string(path(file)).unwrap(), "new");
        }

        let pipe = path("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let read = std::thread::scope(|scope| {
            let reader = scope.spawn(|| fs::read_to_string(&pipe).unwrap());
            write(&pipe, "through").unwrap();
            reader.join().unwrap()
        });
        assert_eq!(read, "through");
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        assert_eq!(names(&path("folder")), ["file"]);
    }

    #[test]
    fn an_output_is_checked_before_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("input"), "text").unwrap();
        check_output(&path("new/output"), &[&path("input"), &path("none")]).unwrap();
        assert!(names(&path("new")).is_empty());
        check_output(Path::new("-"), &[Path::new("-")]).unwrap();
        let below_a_file = check_output(&path("input/output"), &[]).unwrap_err();
        assert!(matches!(below_a_file, Error::Write { .. }), "{below_a_file}");
        assert!(matches!(check_output(&path("new"), &[]), Err(Error::Write { .. })));
        let mut ways = vec![path("input"), path("new/../input")];
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("input", path("link")).unwrap();
            ways.push(path("link"));
        }
        for output in &ways {
            for input in &ways {
                let refused = check_output(output, &[&path("other"), input]).unwrap_err();
                assert!(matches!(refused, Error::AlsoRead { .. }), "{refused}");
            }
        }
        assert_eq!(fs::read_to_string(path("input")).unwrap(), "text");
    }

    #[test]
    fn a_file_appears_when_it_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        for finishes in [false, true] {
            let mut writer = Writer::create(&path).unwrap();
            writer.write_all(&[b'n'; 100_000]).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "old");
            if finishes {
                writer.finish().unwrap();
            }
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), 100_000);
        assert_eq!(names(folder.path()), ["file"]);
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
