use crate::dataset_paths::expand;
use crate::{Error, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Start of paths into the cache, as in Hugging Face's own libraries.
const SCHEME: &str = "hf://";
const MAIN: &str = "main";

/// The folder in which Hugging Face's tools keep what they have downloaded. This crate never fetches anything
/// into it.
///
/// The layout is that of huggingface_hub (<https://huggingface.co/docs/huggingface_hub/guides/manage-cache>):
/// the file `datasets--OWNER--NAME/refs/REVISION` holds a commit, the folder
/// `datasets--OWNER--NAME/snapshots/COMMIT` the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubCache {
    folder: PathBuf,
}

impl HubCache {
    /// Creates a cache at `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> HubCache {
        HubCache { folder: folder.into() }
    }

    /// Finds the cache that huggingface_hub uses in this environment.
    pub fn from_env() -> HubCache {
        HubCache::from_variables(|name| std::env::var_os(name))
    }

    /// Finds the cache that huggingface_hub uses with these environment variables.
    ///
    /// That is `HF_HUB_CACHE`, or `HUGGINGFACE_HUB_CACHE`, or `HF_HOME/hub`, or
    /// `XDG_CACHE_HOME/huggingface/hub`, or `HOME/.cache/huggingface/hub`.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> HubCache {
        const PLACES: [(&str, &str); 4] = [
            ("HF_HUB_CACHE", ""),
            ("HUGGINGFACE_HUB_CACHE", ""),
            ("HF_HOME", "hub"),
            ("XDG_CACHE_HOME", "huggingface/hub"),
        ];
        let value = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let given = PLACES.iter().find_map(|(name, below)| Some((value(name)?, *below)));
        let (base, below) =
            given.unwrap_or_else(|| (value("HOME").unwrap_or_default(), ".cache/huggingface/hub"));
        // `join("")` would add a slash at the end, which would show in messages.
        HubCache::new(if below.is_empty() { base } else { base.join(below) })
    }

    /// The folder of the cache.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Finds the files that `path` names; `None` if it does not start with `hf://`.
    pub(crate) fn files(&self, path: &Path) -> Option<Result<Vec<PathBuf>>> {
        let location = path.to_str()?.strip_prefix(SCHEME)?;
        let parsed = Location::parse(location).ok_or_else(|| Error::HubPath { path: path.to_owned() });
        Some(parsed.and_then(|location| self.find(path, &location)))
    }

    fn find(&self, path: &Path, location: &Location<'_>) -> Result<Vec<PathBuf>> {
        let Location { owner, name, revision, file } = location;
        let repository = self.folder.join(format!("datasets--{owner}--{name}"));
        let absent = |folder: PathBuf| Error::NotInHubCache {
            path: path.to_owned(),
            folder,
            command: location.download_command(),
        };
        if !repository.is_dir() {
            return Err(absent(repository));
        }
        let commit = match std::fs::read_to_string(repository.join("refs").join(revision)) {
            Ok(commit) => commit.trim().to_owned(),
            // Without such a file the revision is a commit itself.
            Err(_) => (*revision).to_owned(),
        };
        let snapshots = repository.join("snapshots");
        let snapshot = snapshots.join(&commit);
        if !snapshot.is_dir() {
            let cached = sorted_names(&snapshots);
            return Err(match cached.is_empty() {
                true => absent(repository),
                false => Error::HubRevision {
                    path: path.to_owned(),
                    repository,
                    revision: (*revision).to_owned(),
                    cached,
                },
            });
        }
        let literal = snapshot.join(file);
        if literal.is_file() {
            return Ok(vec![literal]);
        }
        let found = expand(path, Some(&snapshot), file)?;
        // An interrupted download leaves links without their blobs.
        let is_complete = !found.is_empty() && found.iter().all(|file| file.exists());
        if is_complete { Ok(found) } else { Err(absent(snapshot)) }
    }
}

/// The parts of `datasets/OWNER/NAME@REVISION/FILE`.
struct Location<'a> {
    owner: &'a str,
    name: &'a str,
    revision: &'a str,
    /// A path inside the repository, or a pattern.
    file: &'a str,
}

impl<'a> Location<'a> {
    fn parse(location: &'a str) -> Option<Location<'a>> {
        let (owner, rest) = location.strip_prefix("datasets/")?.split_once('/')?;
        let end = rest.find(['@', '/'])?;
        let (name, rest) = rest.split_at(end);
        let (revision, file) = match rest.strip_prefix('@') {
            None => (MAIN, &rest[1..]),
            Some(rest) => rest.split_at_checked(revision_length(rest)?).map(|(r, f)| (r, &f[1..]))?,
        };
        let is_sound = |path: &str| path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let parts = [owner, name, revision, file];
        parts.into_iter().all(is_sound).then_some(Location { owner, name, revision, file })
    }

    fn download_command(&self) -> String {
        let Location { owner, name, revision, file } = self;
        let revision = if *revision == MAIN { String::new() } else { format!(" --revision {revision}") };
        format!("hf download --repo-type dataset {owner}/{name}{revision} --include '{file}'")
    }
}

/// Length of the revision, up to the slash in front of the file.
///
/// Two kinds of revisions have slashes in their names: `refs/convert/parquet`, where the hub keeps its own
/// conversion to Parquet, and `refs/pr/NUMBER`.
fn revision_length(text: &str) -> Option<usize> {
    let is_special = text.starts_with("refs/convert/") || text.starts_with("refs/pr/");
    let slash = if is_special { 2 } else { 0 };
    text.match_indices('/').nth(slash).map(|(index, _)| index)
}

fn sorted_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
