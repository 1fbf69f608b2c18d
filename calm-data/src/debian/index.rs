//! Reads apt's indices: stanzas of `Field: value` lines, separated by empty lines (deb822(5)).

use super::description::Description;
use super::{Digests, apt};
use crate::{Error, Result};
use calm_files::hex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry};
use std::path::{Path, PathBuf};

/// What the three indices say, joined into one.
pub(super) struct Indices {
    /// One description for each distinct English text, ordered by MD5 sum.
    pub descriptions: Vec<Description>,
    /// The source package of each binary package.
    pub source_of: HashMap<String, String>,
}

/// Reads the three indices of a release's section main in `folder`.
///
/// Returns their names and SHA-256 sums too.
pub(super) fn read(folder: &Path, release: &str) -> Result<(Indices, Digests)> {
    let mut digests = Vec::new();
    let mut load = |index: &str| -> Result<(PathBuf, String)> {
        let suffix = format!("_dists_{release}_main_{index}");
        let path = find(folder, &suffix)?;
        let bytes = apt::read_index(&path)?;
        digests.push((suffix, hex(&Sha256::digest(&bytes))));
        Ok((path, String::from_utf8_lossy(&bytes).into_owned()))
    };
    let (packages_path, packages) = load("binary-amd64_Packages")?;
    let (english_path, english) = load("i18n_Translation-en")?;
    let (french_path, french) = load("i18n_Translation-fr")?;

    let packages = stanzas(&packages_path, &packages)?;
    let source_of: HashMap<&str, &str> = packages.iter().filter_map(source_package).collect();
    let french = stanzas(&french_path, &french)?;
    let french: HashMap<&str, &str> = french
        .iter()
        .filter_map(|stanza| Some((stanza.get("Description-md5")?, stanza.get("Description-fr")?)))
        .collect();

    let mut descriptions: BTreeMap<&str, Description> = BTreeMap::new();
    let english = stanzas(&english_path, &english)?;
    for stanza in &english {
        let fields = (stanza.get("Package"), stanza.get("Description-md5"), stanza.get("Description-en"));
        let (Some(package), Some(md5), Some(text)) = fields else { continue };
        let source = *source_of.get(package).unwrap_or(&package);
        // Packages may share one description. The least name stands for all of them, whatever their order.
        let name = (source.to_owned(), package.to_owned());
        match descriptions.entry(md5) {
            Entry::Occupied(mut entry) => {
                let first = entry.get().name.clone().min(name);
                entry.get_mut().name = first;
            }
            Entry::Vacant(entry) => {
                entry.insert(Description::new(md5, name, text, french.get(md5).copied())?);
            }
        }
    }
    let descriptions = descriptions.into_values().collect();
    let own = |(package, source): (&str, &str)| (package.to_owned(), source.to_owned());
    Ok((Indices { descriptions, source_of: source_of.into_iter().map(own).collect() }, digests))
}

/// Returns a binary package and the source package that it is built from.
///
/// The source package is in the field `Source`, which may add a version in parentheses. Without that field it
/// has the name of the binary package (Debian Policy 5.6.1).
fn source_package<'a>(stanza: &Stanza<'a>) -> Option<(&'a str, &'a str)> {
    let package = stanza.get("Package")?;
    let source = stanza.get("Source").and_then(|source| source.split_whitespace().next());
    Some((package, source.unwrap_or(package)))
}

fn find(folder: &Path, suffix: &str) -> Result<PathBuf> {
    let is_index = |name: &str| {
        name.split_once(suffix).is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with('.'))
    };
    let missing = || Error::NoIndex { folder: folder.to_owned(), suffix: suffix.to_owned() };
    apt::find(folder, is_index)?.ok_or_else(missing)
}

/// The fields of one stanza. Continuation lines stay in the value, with their line breaks and indentation.
pub(super) struct Stanza<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Stanza<'a> {
    pub(super) fn get(&self, field: &str) -> Option<&'a str> {
        self.0.iter().find(|(name, _)| *name == field).map(|(_, value)| *value)
    }
}

/// Splits an index into stanzas. Lines between fields that start with `#` are comments, as in sources files.
pub(super) fn stanzas<'a>(path: &Path, text: &'a str) -> Result<Vec<Stanza<'a>>> {
    let mut stanzas = Vec::new();
    let mut fields: Vec<(&str, &str)> = Vec::new();
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let end = offset + line.len();
        // `trim` would also match lines of no-break spaces, which translations contain.
        if line.trim_ascii().is_empty() {
            if !fields.is_empty() {
                stanzas.push(Stanza(std::mem::take(&mut fields)));
            }
        } else if line.starts_with([' ', '\t']) && !fields.is_empty() {
            if let Some((_, value)) = fields.last_mut() {
                let start = value.as_ptr() as usize - text.as_ptr() as usize;
                *value = text[start..end].trim_ascii_end();
            }
        } else if let Some((name, value)) = line.split_once(':') {
            if !line.starts_with('#') {
                // A value may start on the next line; the line break then stays.
                fields.push((name, value.trim_start_matches([' ', '\t']).trim_ascii_end()));
            }
        } else if !line.starts_with('#') {
            return Err(Error::Stanza { path: path.to_owned(), line: number + 1 });
        }
        offset = end;
    }
    if !fields.is_empty() {
        stanzas.push(Stanza(fields));
    }
    Ok(stanzas)
}
