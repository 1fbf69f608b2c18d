//! What a path leads to, which decides how it is written.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Linux follows no more links than this either.
const MOST_LINKS: usize = 40;

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Standard output.
    StandardOutput,
    /// A device, a pipe or a file that this process has open already: there is nothing to replace.
    Opened(PathBuf),
    /// A file, or nothing yet, at the end of all links.
    File(PathBuf),
}

impl Target {
    /// Follows a path. `-` is standard output.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::StandardOutput);
        }
        let mut end = path.to_owned();
        for _ in 0..MOST_LINKS {
            // `/dev/stdout` is a link to such a descriptor, which is a link itself: to a file that others
            // write to as well, or to no path at all.
            if let Some(descriptor) = descriptor(&end) {
                return Ok(descriptor);
            }
            match fs::read_link(&end) {
                Ok(next) => end = folder_of(&end).join(next),
                Err(_) => return Self::without_links(end),
            }
        }
        Err(io::Error::other("the links go round in a circle"))
    }

    fn without_links(path: PathBuf) -> io::Result<Self> {
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => Ok(Self::Opened(path)),
            _ => Ok(Self::File(path)),
        }
    }
}

/// The folder of a file.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What a path such as `/dev/fd/3` or `/proc/self/fd/3` leads to.
fn descriptor(path: &Path) -> Option<Target> {
    let folder = folder_of(path).canonicalize().ok()?;
    if !folder.starts_with("/proc") || folder.file_name() != Some(OsStr::new("fd")) {
        return None;
    }
    let own = folder == Path::new(&format!("/proc/{}/fd", std::process::id()));
    let is_output = own && path.file_name() == Some(OsStr::new("1"));
    Some(if is_output { Target::StandardOutput } else { Target::Opened(path.to_owned()) })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_lead_to_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "").unwrap();
        fs::create_dir(path("folder")).unwrap();
        for (link, to) in [
            ("link", "file"),
            ("link of a link", "link"),
            ("link to nothing", "folder/none"),
            ("absolute", path("file").to_str().unwrap()),
            ("null", "/dev/null"),
            ("output", "/dev/stdout"),
            ("circle", "circle"),
        ] {
            symlink(to, path(link)).unwrap();
        }
        let file = |name: &str| Target::File(path(name));
        let opened = |name: &str| Target::Opened(name.into());
        for (given, expected) in [
            (path("file"), file("file")),
            (path("none"), file("none")),
            (path("link"), file("file")),
            (path("link of a link"), file("file")),
            (path("link to nothing"), file("folder/none")),
            (path("absolute"), file("file")),
            (path("null"), opened("/dev/null")),
            ("/dev/null".into(), opened("/dev/null")),
            (path("output"), Target::StandardOutput),
            ("-".into(), Target::StandardOutput),
            ("/dev/stdout".into(), Target::StandardOutput),
            ("/dev/fd/1".into(), Target::StandardOutput),
            ("/dev/stderr".into(), opened("/proc/self/fd/2")),
        ] {
            assert_eq!(Target::of(&given).unwrap(), expected, "{}", given.display());
        }
        for wrong in ["folder", "circle"] {
            assert!(Target::of(&path(wrong)).is_err(), "{wrong}");
        }
    }
}
