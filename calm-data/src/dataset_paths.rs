use crate::{Error, HubCache, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a dataset is: one path, or several whose examples follow each other.
///
/// Each path is one of
///
/// - a file;
/// - a pattern with `*`, `?`, `[ab]` or `**`, for all files that match it, in the order of their names;
/// - `hf://datasets/OWNER/NAME/FILE` or `hf://datasets/OWNER/NAME@REVISION/FILE`, for a file or a pattern in
///   a dataset that `hf download` has brought into the [`HubCache`]; the revision is `main` if none is given.
///
/// In a configuration it is a string or a list of strings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "OneOrMany", into = "OneOrMany")]
pub struct DatasetPaths(Vec<PathBuf>);

impl DatasetPaths {
    /// The files themselves, at least one. A path without wildcards need not exist yet.
    ///
    /// # Errors
    /// Fails for a pattern that is malformed or matches nothing, and for an `hf://` path that is malformed or
    /// not in the cache.
    pub fn files(&self, cache: &HubCache) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for path in &self.0 {
            match cache.files(path) {
                Some(cached) => files.extend(cached?),
                None => files.extend(local_files(path)?),
            }
        }
        Ok(files)
    }
}

impl From<PathBuf> for DatasetPaths {
    fn from(path: PathBuf) -> DatasetPaths {
        DatasetPaths(vec![path])
    }
}

impl From<&PathBuf> for DatasetPaths {
    fn from(path: &PathBuf) -> DatasetPaths {
        path.clone().into()
    }
}

impl From<&Path> for DatasetPaths {
    fn from(path: &Path) -> DatasetPaths {
        path.to_owned().into()
    }
}

impl From<&DatasetPaths> for DatasetPaths {
    fn from(paths: &DatasetPaths) -> DatasetPaths {
        paths.clone()
    }
}

/// Writes the paths separated by commas.
impl fmt::Display for DatasetPaths {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<_> = self.0.iter().map(|path| path.to_string_lossy()).collect();
        formatter.write_str(&paths.join(", "))
    }
}

/// Lists what matches `pattern` below `folder`, or as a path of its own without one. Errors name `path`.
pub(crate) fn expand(path: &Path, folder: Option<&Path>, pattern: &str) -> Result<Vec<PathBuf>> {
    let pattern = match folder {
        Some(folder) => format!("{}/{pattern}", glob::Pattern::escape(&folder.to_string_lossy())),
        None => pattern.to_owned(),
    };
    let matches = glob::glob(&pattern).map_err(|source| Error::Pattern { path: path.to_owned(), source })?;
    let mut files = Vec::new();
    for entry in matches {
        let file = entry.map_err(|error| calm_files::Error::Read {
            path: error.path().to_owned(),
            source: error.into(),
        })?;
        if !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// A path that exists is a file, whatever characters are in its name: it is not read as a pattern.
fn local_files(path: &Path) -> Result<Vec<PathBuf>> {
    let pattern = path.to_str().filter(|text| text.contains(['*', '?', '[']) && !path.exists());
    let Some(pattern) = pattern else { return Ok(vec![path.to_owned()]) };
    let files = expand(path, None, pattern)?;
    if files.is_empty() { Err(Error::NoMatch { path: path.to_owned() }) } else { Ok(files) }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a path or a list of paths")]
enum OneOrMany {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

impl TryFrom<OneOrMany> for DatasetPaths {
    type Error = &'static str;

    fn try_from(paths: OneOrMany) -> std::result::Result<DatasetPaths, &'static str> {
        match paths {
            OneOrMany::One(path) => Ok(path.into()),
            OneOrMany::Many(paths) if paths.is_empty() => Err("expected at least one path"),
            OneOrMany::Many(paths) => Ok(DatasetPaths(paths)),
        }
    }
}

impl From<DatasetPaths> for OneOrMany {
    fn from(DatasetPaths(mut paths): DatasetPaths) -> OneOrMany {
        match paths.pop() {
            Some(path) if paths.is_empty() => OneOrMany::One(path),
            last => {
                paths.extend(last);
                OneOrMany::Many(paths)
            }
        }
    }
}
