//! Documentation in English and French: texts at the same place of the same page translate each other.
//!
//! [`ALL`] says where each origin has its pages and how to read them. A new origin is a new entry at the end
//! of it.

mod align;
mod libreoffice;
mod man;
mod markup;
mod origins;
mod tags;

use super::extra::Origin;
use super::index::Indices;
use super::split::Division;
use super::{Digests, apt, tasks};
use crate::{Error, Result};
use align::Pair;
use calm_files::hex;
use calm_names::UnknownName;
use flate2::read::MultiGzDecoder;
pub(super) use origins::ALL;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where an origin of documentation has its pages.
pub(super) struct Documentation {
    /// The origin's name, with which its examples' ids start.
    pub name: &'static str,
    format: Format,
    /// Where the English and the French pages are.
    pages: [Pages; 2],
    /// The binary packages that hold the pages, each with its source package.
    packages: &'static [(&'static str, &'static str)],
}

/// Files below a folder of a package whose names end with one of the suffixes.
struct Pages {
    folder: &'static str,
    suffixes: &'static [&'static str],
}

enum Format {
    /// Web pages whose paragraphs have the same ids in both languages.
    LibreOffice,
    /// HTML, DocBook or Mallard.
    Markup,
    Manual,
}

const fn pages(folder: &'static str, suffixes: &'static [&'static str]) -> Pages {
    Pages { folder, suffixes }
}

/// Name of the origin that is added before other releases.
pub(super) const LIBREOFFICE: &str = "libreoffice-help";

/// Finds the origins of these names, in the order of [`ALL`].
pub(super) fn named(names: &[String]) -> Result<Vec<&'static Documentation>> {
    let is_known = |name: &&String| ALL.iter().any(|documentation| documentation.name == **name);
    if let Some(name) = names.iter().find(|name| !is_known(name)) {
        let known = ALL.iter().map(|documentation| documentation.name);
        return Err(UnknownName::new("documentation", name, known).into());
    }
    Ok(ALL.iter().filter(|documentation| names.iter().any(|name| name == documentation.name)).collect())
}

impl Documentation {
    pub(super) fn packages(&self) -> impl Iterator<Item = &'static str> {
        self.packages.iter().map(|(package, _)| *package)
    }

    /// Reads the packages in `folder`, which are unpacked below `scratch`.
    ///
    /// Pages of held-out source packages are left out. Returns the file names and SHA-256 sums of the
    /// packages too.
    pub(super) fn read(
        &self,
        folder: &Path,
        scratch: &Path,
        bookworm: &Indices,
        division: &Division,
    ) -> Result<(Origin, Digests)> {
        let mut digests = Vec::new();
        let mut languages: [BTreeMap<String, Page>; 2] = Default::default();
        let mut roots = Vec::new();
        for (package, source) in self.packages {
            let path = find(folder, package)?;
            let bytes = calm_files::read(&path)?;
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            digests.push((name, hex(&Sha256::digest(&bytes))));
            let indexed = bookworm.source_of.get(*package);
            if division.is_held_out(source) || indexed.is_some_and(|source| division.is_held_out(source)) {
                continue;
            }
            // Pages of an earlier version must not remain in the folder.
            let root = scratch.join(package);
            remove(&root)?;
            fs::create_dir_all(&root).map_err(calm_files::Error::write(&root))?;
            apt::unpack(&path, &root)?;
            for (pages, found) in self.pages.iter().zip(&mut languages) {
                for (name, path) in pages.list(&root)? {
                    found.entry(name).or_insert(Page { path, source });
                }
            }
            roots.push(root);
        }
        let [english, french] = &languages;
        let mut candidates = Vec::new();
        for (name, page) in english {
            // A glossary is in alphabetical order, which differs between the languages.
            let Some(translation) = french.get(name).filter(|_| !name.contains("glossary")) else { continue };
            for Pair { key, english, french } in self.pairs(&page.read()?, &translation.read()?)? {
                let id = format!("{}/{name}#{key}", self.name);
                candidates.extend(tasks::translation(id, page.source, &english, &french));
            }
        }
        roots.iter().try_for_each(|root| remove(root))?;
        Ok((Origin { name: self.name.to_owned(), candidates }, digests))
    }

    fn pairs(&self, english: &str, french: &str) -> Result<Vec<Pair>> {
        match self.format {
            Format::LibreOffice => libreoffice::pairs(english, french),
            Format::Markup => {
                let mut translations = markup::pages(french)?;
                let pages = markup::pages(english)?.into_iter();
                let pairs = pages.filter_map(|(name, page)| {
                    let pairs = align::pairs(page, translations.remove(&name)?);
                    Some(
                        pairs
                            .into_iter()
                            .map(move |pair| Pair { key: format!("{name}{}", pair.key), ..pair }),
                    )
                });
                Ok(pairs.flatten().collect())
            }
            Format::Manual => Ok(match (man::sections(english)?, man::sections(french)?) {
                (Some(english), Some(french)) => align::pairs(english, french),
                _ => Vec::new(),
            }),
        }
    }
}

/// A file, with the source package of the package that holds it.
struct Page {
    path: PathBuf,
    source: &'static str,
}

impl Page {
    /// Reads the text of the page, uncompressed.
    fn read(&self) -> Result<String> {
        let bytes = if self.path.extension().is_some_and(|extension| extension == "gz") {
            let file = fs::File::open(&self.path).map_err(calm_files::Error::read(&self.path))?;
            let mut bytes = Vec::new();
            MultiGzDecoder::new(file).read_to_end(&mut bytes).map_err(calm_files::Error::read(&self.path))?;
            bytes
        } else {
            apt::read_index(&self.path)?
        };
        // Pages that are not in UTF-8 are in Latin-1, whose bytes are the numbers of the characters.
        let latin = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect();
        Ok(String::from_utf8(bytes).unwrap_or_else(|error| latin(error.as_bytes())))
    }
}

impl Pages {
    /// Lists the pages in the unpacked package at `root`, by their paths without the suffix.
    ///
    /// Links are left out: the page they lead to is itself in the list, or in another package.
    fn list(&self, root: &Path) -> Result<Vec<(String, PathBuf)>> {
        let root = root.join(self.folder);
        let mut pages = Vec::new();
        let mut folders = vec![root.clone()];
        folders.retain(|folder| folder.is_dir());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(calm_files::Error::read(&folder))? {
                let path = entry.map_err(calm_files::Error::read(&folder))?.path();
                if path.is_symlink() {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
                if let Some(name) = self.suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)) {
                    pages.push((name.trim_end_matches('/').to_owned(), path));
                }
            }
        }
        pages.sort();
        Ok(pages)
    }
}

fn find(folder: &Path, package: &str) -> Result<PathBuf> {
    let is_package = |name: &str| {
        name.strip_prefix(package).is_some_and(|rest| rest.starts_with('_') && rest.ends_with(".deb"))
    };
    let missing = || Error::NoPackage { folder: folder.to_owned(), package: package.to_owned() };
    apt::find(folder, is_package)?.ok_or_else(missing)
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(calm_files::Error::write(folder))?;
    }
    Ok(())
}
