//! The LibreOffice help: English and French paragraphs of the same page and the same `id` translate each other.

use super::html::{self, Paragraph};
use super::tasks::{self, Candidate};
use super::{Digests, apt, hex};
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// The origin's name, with which its examples' ids start.
pub(super) const ORIGIN: &str = "libreoffice-help";
/// The source package of [`PACKAGES`].
const SOURCE_PACKAGE: &str = "libreoffice";
/// Binary packages of the help: English, French.
pub(super) const PACKAGES: [&str; 2] = ["libreoffice-help-en-us", "libreoffice-help-fr"];
/// Where the packages have their pages.
const PAGES: [&str; 2] = ["usr/share/libreoffice/help/en-US/text", "usr/share/libreoffice/help/fr/text"];

/// Reads the two packages in `folder`, unpacking them below `scratch`; also their file names and SHA-256 sums.
pub(super) fn read(folder: &Path, scratch: &Path) -> Result<(Vec<Candidate>, Digests)> {
    let mut digests = Vec::new();
    let mut pages = Vec::new();
    for (package, below) in PACKAGES.iter().zip(PAGES) {
        let path = find(folder, package)?;
        let bytes = fs::read(&path).map_err(Error::io(&path))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        digests.push((name, hex(&Sha256::digest(&bytes))));
        // Pages of an earlier version must not be among these.
        let root = scratch.join(package);
        if root.exists() {
            fs::remove_dir_all(&root).map_err(Error::io(&root))?;
        }
        fs::create_dir_all(&root).map_err(Error::io(&root))?;
        apt::unpack(&path, &root)?;
        pages.push(read_pages(&root.join(below))?);
        fs::remove_dir_all(&root).map_err(Error::io(&root))?;
    }
    let [english, french] = [&pages[0], &pages[1]];
    let pairs = |(name, english): (&String, &Vec<Paragraph>)| match french.get(name) {
        Some(french) => candidates(name, english, french),
        None => Vec::new(),
    };
    Ok((english.iter().flat_map(pairs).collect(), digests))
}

fn find(folder: &Path, package: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).map_err(Error::io(folder))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let is_package = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.strip_prefix(package).is_some_and(|rest| rest.starts_with('_') && rest.ends_with(".deb"))
    };
    let missing = || Error::NoPackage { folder: folder.to_owned(), package: package.to_owned() };
    files.into_iter().find(is_package).ok_or_else(missing)
}

/// All pages below `root`, by their paths without the suffix.
fn read_pages(root: &Path) -> Result<BTreeMap<String, Vec<Paragraph>>> {
    let mut pages = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let path = entry.map_err(Error::io(&folder))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "html") {
                let bytes = fs::read(&path).map_err(Error::io(&path))?;
                let name = path.strip_prefix(root).unwrap_or(&path).with_extension("");
                let paragraphs = html::paragraphs(&String::from_utf8_lossy(&bytes))?;
                pages.insert(name.to_string_lossy().into_owned(), paragraphs);
            }
        }
    }
    Ok(pages)
}

/// The examples of one page. Sections that a page shows twice repeat their ids: the first stands for all.
fn candidates(page: &str, english: &[Paragraph], french: &[Paragraph]) -> Vec<Candidate> {
    let mut translations: HashMap<&str, &str> = HashMap::new();
    for (id, text) in french {
        translations.entry(id).or_insert(text);
    }
    let pair = |(id, english): &Paragraph| {
        let french = translations.remove(id.as_str())?;
        tasks::translation(format!("{ORIGIN}/{page}#{id}"), SOURCE_PACKAGE, english, french)
    };
    english.iter().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_paired_by_id() {
        let page = |paragraphs: &[(&str, &str)]| -> Vec<Paragraph> {
            paragraphs.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect()
        };
        let english = page(&[
            ("title", "The clipboard"),
            ("only", "English alone"),
            ("same", "LibreOffice"),
            ("one", "Paste it."),
            ("one", "Paste it."),
            ("long", "No."),
        ]);
        let french = page(&[
            ("one", "Collez-le."),
            ("title", "Le presse-papiers"),
            ("same", "LibreOffice"),
            ("one", "Une autre."),
            ("long", "Ceci n'est pas une traduction de l'anglais."),
        ]);
        let found = candidates("shared/guide/clip", &english, &french);
        let found: Vec<[&str; 4]> =
            found.iter().map(|c| [&*c.row.id, &*c.row.package, &*c.row.source, &*c.row.target]).collect();
        let expected = [("title", "The clipboard", "Le presse-papiers"), ("one", "Paste it.", "Collez-le.")]
            .map(|(id, english, french)| {
                let id = format!("libreoffice-help/shared/guide/clip#{id}");
                [id, "libreoffice".into(), format!("translate English to French: {english}"), french.into()]
            });
        assert_eq!(found, expected);
    }
}
