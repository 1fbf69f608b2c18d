//! Documentation in English and French: the texts that stand at the same place of the same page translate each other.
//!
//! [`ALL`] says where each origin has its pages and how to read them: a new one is a new entry.

mod align;
mod libreoffice;
mod man;
mod markup;
mod tags;

use super::extra::Origin;
use super::index::Indices;
use super::split::Division;
use super::{Digests, apt, hex, tasks};
use crate::{Error, Result};
use align::Pair;
use flate2::read::MultiGzDecoder;
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
    /// English and French pages.
    pages: [Pages; 2],
    /// The binary packages that hold them, and the source packages of these.
    packages: &'static [(&'static str, &'static str)],
}

/// Files below a folder of a package, with names that end so.
struct Pages {
    folder: &'static str,
    suffixes: &'static [&'static str],
}

enum Format {
    /// Web pages whose paragraphs have ids, the same in both languages.
    LibreOffice,
    /// HTML, DocBook or Mallard.
    Markup,
    Manual,
}

const fn pages(folder: &'static str, suffixes: &'static [&'static str]) -> Pages {
    Pages { folder, suffixes }
}

/// All origins, in the order of adding.
pub(super) const ALL: &[Documentation] = &[
    Documentation {
        name: LIBREOFFICE,
        format: Format::LibreOffice,
        pages: [
            pages("usr/share/libreoffice/help/en-US/text", &[".html"]),
            pages("usr/share/libreoffice/help/fr/text", &[".html"]),
        ],
        packages: &[("libreoffice-help-en-us", "libreoffice"), ("libreoffice-help-fr", "libreoffice")],
    },
    Documentation {
        name: "manual-pages",
        format: Format::Manual,
        pages: [pages("usr/share/man", &[".gz"]), pages("usr/share/man/fr", &[".gz"])],
        packages: &[
            ("manpages", "manpages"),
            ("manpages-dev", "manpages"),
            ("manpages-fr", "manpages-l10n"),
            ("manpages-fr-dev", "manpages-l10n"),
            ("adduser", "adduser"),
            ("apt", "apt"),
            ("apt-utils", "apt"),
            ("bsdutils", "util-linux"),
            ("coreutils", "coreutils"),
            ("cups", "cups"),
            ("cups-client", "cups"),
            ("cups-daemon", "cups"),
            ("debconf-doc", "debconf"),
            ("debhelper", "debhelper"),
            ("debianutils", "debianutils"),
            ("devscripts", "devscripts"),
            ("diffutils", "diffutils"),
            ("dos2unix", "dos2unix"),
            ("dosfstools", "dosfstools"),
            ("dpkg", "dpkg"),
            ("dpkg-dev", "dpkg"),
            ("e2fsprogs", "e2fsprogs"),
            ("findutils", "findutils"),
            ("grep", "grep"),
            ("gzip", "gzip"),
            ("live-boot-doc", "live-boot"),
            ("live-build", "live-build"),
            ("man-db", "man-db"),
            ("module-assistant", "module-assistant"),
            ("mount", "util-linux"),
            ("net-tools", "net-tools"),
            ("nfs-common", "nfs-utils"),
            ("po-debconf", "po-debconf"),
            ("po4a", "po4a"),
            ("procps", "procps"),
            ("psmisc", "psmisc"),
            ("schroot", "schroot"),
            ("sysvinit-core", "sysvinit"),
            ("tar", "tar"),
            ("util-linux", "util-linux"),
            ("uuid-dev", "util-linux"),
            ("vim-common", "vim"),
            ("xz-utils", "xz-utils"),
        ],
    },
    Documentation {
        name: "gimp-help",
        format: Format::Markup,
        pages: [
            pages("usr/share/gimp/2.0/help/en", &[".html"]),
            pages("usr/share/gimp/2.0/help/fr", &[".html"]),
        ],
        packages: &[("gimp-help-en", "gimp-help"), ("gimp-help-fr", "gimp-help")],
    },
    Documentation {
        name: "gnome-help",
        format: Format::Markup,
        pages: [
            pages("usr/share/help/C", &[".page", ".docbook", ".xml"]),
            pages("usr/share/help/fr", &[".page", ".docbook", ".xml"]),
        ],
        packages: &[
            ("gnome-user-docs", "gnome-user-docs"),
            ("gnome-devel-docs", "gnome-devel-docs"),
            ("accerciser", "accerciser"),
            ("aisleriot", "aisleriot"),
            ("anjuta-common", "anjuta"),
            ("baobab", "baobab"),
            ("cheese-common", "cheese"),
            ("easytag", "easytag"),
            ("eog", "eog"),
            ("epiphany-browser-data", "epiphany-browser"),
            ("evince-common", "evince"),
            ("evolution-common", "evolution"),
            ("file-roller", "file-roller"),
            ("frogr-data", "frogr"),
            ("gedit-common", "gedit"),
            ("glabels-data", "glabels"),
            ("gnome-boxes", "gnome-boxes"),
            ("gnome-calculator", "gnome-calculator"),
            ("gnome-chess", "gnome-chess"),
            ("gnome-clocks", "gnome-clocks"),
            ("gnome-mines", "gnome-mines"),
            ("gnome-nibbles", "gnome-nibbles"),
            ("gnome-sudoku", "gnome-sudoku"),
            ("gnome-system-monitor", "gnome-system-monitor"),
            ("gnome-terminal-data", "gnome-terminal"),
            ("gthumb-data", "gthumb"),
            ("gtranslator", "gtranslator"),
            ("iagno", "iagno"),
            ("kupfer", "kupfer"),
            ("mate-user-guide", "mate-user-guide"),
            ("ocrfeeder", "ocrfeeder"),
            ("orca", "orca"),
            ("polari", "polari"),
            ("quadrapassel", "quadrapassel"),
            ("seahorse", "seahorse"),
            ("shotwell-common", "shotwell"),
            ("totem-common", "totem"),
        ],
    },
    Documentation {
        name: "kde-help",
        format: Format::Markup,
        pages: [
            pages("usr/share/doc/HTML/en", &["index.cache.bz2"]),
            pages("usr/share/doc/HTML/fr", &["index.cache.bz2"]),
        ],
        packages: &[
            ("akregator", "akregator"),
            ("blinken", "blinken"),
            ("bovo", "bovo"),
            ("cervisia", "cervisia"),
            ("choqok", "choqok"),
            ("filelight", "filelight"),
            ("granatier", "granatier"),
            ("juk", "juk"),
            ("kapman", "kapman"),
            ("kblackbox", "kblackbox"),
            ("kcachegrind", "kcachegrind"),
            ("kcalc", "kcalc"),
            ("kde-config-cron", "kcron"),
            ("kfind", "kfind"),
            ("kfloppy", "kfloppy"),
            ("kfourinline", "kfourinline"),
            ("khotkeys-data", "khotkeys"),
            ("kile-doc", "kile"),
            ("killbots", "killbots"),
            ("kinfocenter", "kinfocenter"),
            ("kio", "kio"),
            ("kio-extras-data", "kio-extras"),
            ("kiriki", "kiriki"),
            ("kiten", "kiten"),
            ("klickety", "klickety"),
            ("klines", "klines"),
            ("kmag", "kmag"),
            ("kmenuedit", "kmenuedit"),
            ("kmines", "kmines"),
            ("kmousetool", "kmousetool"),
            ("kmouth", "kmouth"),
            ("knavalbattle", "knavalbattle"),
            ("knotes", "knotes"),
            ("kolf", "kolf"),
            ("konqueror", "konqueror"),
            ("konversation-data", "konversation"),
            ("krdc", "krdc"),
            ("kreversi", "kreversi"),
            ("krfb", "krfb"),
            ("ksnakeduel", "ksnakeduel"),
            ("kspaceduel", "kspaceduel"),
            ("ksquares", "ksquares"),
            ("ksystemlog", "ksystemlog"),
            ("kteatime", "kteatime"),
            ("kturtle", "kturtle"),
            ("kubrick", "kubrick"),
            ("lokalize", "lokalize"),
            ("lskat-data", "lskat"),
            ("partitionmanager", "partitionmanager"),
            ("powerdevil-data", "powerdevil"),
            ("skanlite", "skanlite"),
            ("skrooge-common", "skrooge"),
            ("step", "step"),
            ("tellico-doc", "tellico"),
        ],
    },
    Documentation {
        name: "installation-guide",
        format: Format::Markup,
        pages: [
            pages("usr/share/doc/installation-guide-amd64/en", &[".html"]),
            pages("usr/share/doc/installation-guide-amd64/fr", &[".html"]),
        ],
        packages: &[("installation-guide-amd64", "installation-guide")],
    },
    Documentation {
        name: "debian-handbook",
        format: Format::Markup,
        pages: [
            pages("usr/share/doc/debian-handbook/html/en-US", &[".html"]),
            pages("usr/share/doc/debian-handbook/html/fr-FR", &[".html"]),
        ],
        packages: &[("debian-handbook", "debian-handbook")],
    },
    Documentation {
        name: "debian-reference",
        format: Format::Markup,
        pages: [
            pages("usr/share/debian-reference", &[".en.html"]),
            pages("usr/share/debian-reference", &[".fr.html"]),
        ],
        packages: &[("debian-reference-en", "debian-reference"), ("debian-reference-fr", "debian-reference")],
    },
    Documentation {
        name: "developers-reference",
        format: Format::Markup,
        pages: [
            pages("usr/share/developers-reference", &[".html"]),
            pages("usr/share/developers-reference/fr", &[".html"]),
        ],
        packages: &[
            ("developers-reference", "developers-reference"),
            ("developers-reference-fr", "developers-reference"),
        ],
    },
    Documentation {
        name: "debian-faq",
        format: Format::Markup,
        pages: [
            pages("usr/share/doc/debian/FAQ", &[".en.html"]),
            pages("usr/share/doc/debian/FAQ/fr", &[".fr.html"]),
        ],
        packages: &[("debian-faq", "debian-faq"), ("debian-faq-fr", "debian-faq")],
    },
    Documentation {
        name: "aptitude",
        format: Format::Markup,
        pages: [
            pages("usr/share/doc/aptitude/html/en", &[".html"]),
            pages("usr/share/doc/aptitude/html/fr", &[".html"]),
        ],
        packages: &[("aptitude-doc-en", "aptitude"), ("aptitude-doc-fr", "aptitude")],
    },
    Documentation {
        name: "maint-guide",
        format: Format::Markup,
        pages: [
            pages("usr/share/doc/maint-guide/html", &[".en.html"]),
            pages("usr/share/doc/maint-guide-fr/html", &[".fr.html"]),
        ],
        packages: &[("maint-guide", "maint-guide"), ("maint-guide-fr", "maint-guide")],
    },
    Documentation {
        name: "debian-history",
        format: Format::Markup,
        pages: [
            pages("usr/share/doc/debian-history/docs", &[".en.html"]),
            pages("usr/share/doc/debian-history/docs", &[".fr.html"]),
        ],
        packages: &[("debian-history", "debian-history")],
    },
    Documentation {
        name: "live-manual",
        format: Format::Markup,
        pages: [
            pages("usr/share/doc/live-manual/html/live-manual", &[".en.html"]),
            pages("usr/share/doc/live-manual/html/live-manual", &[".fr.html"]),
        ],
        packages: &[("live-manual-html", "live-manual")],
    },
    Documentation {
        name: "weechat",
        format: Format::Markup,
        pages: [
            pages("usr/share/doc/weechat-doc/html", &[".en.html"]),
            pages("usr/share/doc/weechat-doc/html", &[".fr.html"]),
        ],
        packages: &[("weechat-doc", "weechat")],
    },
    Documentation {
        name: "lilypond",
        format: Format::Markup,
        pages: [
            pages("usr/share/doc/lilypond/html/Documentation", &[".html"]),
            pages("usr/share/doc/lilypond/html/Documentation", &[".fr.html"]),
        ],
        packages: &[("lilypond-doc-html", "lilypond"), ("lilypond-doc-html-fr", "lilypond")],
    },
    Documentation {
        name: "apache2",
        format: Format::Markup,
        pages: [
            pages("usr/share/doc/apache2-doc/manual/en", &[".html"]),
            pages("usr/share/doc/apache2-doc/manual/fr", &[".html"]),
        ],
        packages: &[("apache2-doc", "apache2")],
    },
    Documentation {
        name: "omegat",
        format: Format::Markup,
        pages: [
            pages("usr/share/doc/omegat/html/en", &[".html"]),
            pages("usr/share/doc/omegat/html/fr", &[".html"]),
        ],
        packages: &[("omegat", "omegat")],
    },
    Documentation {
        name: "harden-doc",
        format: Format::Markup,
        pages: [
            pages("usr/share/doc/harden-doc/html/en-US", &[".html"]),
            pages("usr/share/doc/harden-doc/html/fr-FR", &[".html"]),
        ],
        packages: &[("harden-doc", "harden-doc")],
    },
    Documentation {
        name: "mplayer",
        format: Format::Markup,
        pages: [
            pages("usr/share/doc/mplayer/HTML/en", &[".html"]),
            pages("usr/share/doc/mplayer/HTML/fr", &[".html"]),
        ],
        packages: &[("mplayer-doc", "mplayer")],
    },
    Documentation {
        name: "ubuntu-packaging-guide",
        format: Format::Markup,
        pages: [
            pages("usr/share/doc/ubuntu-packaging-guide-html", &[".html"]),
            pages("usr/share/doc/ubuntu-packaging-guide-html-fr", &[".html"]),
        ],
        packages: &[
            ("ubuntu-packaging-guide-html", "ubuntu-packaging-guide"),
            ("ubuntu-packaging-guide-html-fr", "ubuntu-packaging-guide"),
        ],
    },
    Documentation {
        name: "tuxpaint",
        format: Format::Markup,
        pages: [
            pages("usr/share/doc/tuxpaint-data/en/html", &[".html"]),
            pages("usr/share/doc/tuxpaint-data/fr_FR.UTF-8/html", &[".html"]),
        ],
        packages: &[("tuxpaint-data", "tuxpaint")],
    },
];

/// The origin that is added before other releases.
pub(super) const LIBREOFFICE: &str = "libreoffice-help";

/// The origins of these names, in the order of [`ALL`].
pub(super) fn named(names: &[String]) -> Result<Vec<&'static Documentation>> {
    let is_known = |name: &&String| ALL.iter().any(|documentation| documentation.name == **name);
    if let Some(name) = names.iter().find(|name| !is_known(name)) {
        let known = ALL.iter().map(|documentation| documentation.name).collect();
        return Err(Error::UnknownDocumentation { name: name.clone(), known });
    }
    Ok(ALL.iter().filter(|documentation| names.iter().any(|name| name == documentation.name)).collect())
}

impl Documentation {
    pub(super) fn packages(&self) -> impl Iterator<Item = &'static str> {
        self.packages.iter().map(|(package, _)| *package)
    }

    /// Reads the packages in `folder`, unpacking them below `scratch`; also their file names and SHA-256 sums. Those
    /// of held-out source packages are left out.
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
            let bytes = fs::read(&path).map_err(Error::io(&path))?;
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            digests.push((name, hex(&Sha256::digest(&bytes))));
            let indexed = bookworm.source_of.get(*package);
            if division.is_held_out(source) || indexed.is_some_and(|source| division.is_held_out(source)) {
                continue;
            }
            // Pages of an earlier version must not be among these.
            let root = scratch.join(package);
            remove(&root)?;
            fs::create_dir_all(&root).map_err(Error::io(&root))?;
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
            // A glossary is in alphabetical order, another one in each language.
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

/// A file, and the source package of its package.
struct Page {
    path: PathBuf,
    source: &'static str,
}

impl Page {
    /// The page's text, uncompressed.
    fn read(&self) -> Result<String> {
        let bytes = if self.path.extension().is_some_and(|extension| extension == "gz") {
            let file = fs::File::open(&self.path).map_err(Error::io(&self.path))?;
            let mut bytes = Vec::new();
            MultiGzDecoder::new(file).read_to_end(&mut bytes).map_err(Error::io(&self.path))?;
            bytes
        } else {
            apt::read_index(&self.path)?
        };
        // Pages that are not in UTF-8 are in Latin-1, in which every byte is the character of that number.
        let latin = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect();
        Ok(String::from_utf8(bytes).unwrap_or_else(|error| latin(error.as_bytes())))
    }
}

impl Pages {
    /// The pages in the unpacked package at `root`, by their paths without the suffix. Links are left out: the page
    /// they lead to is in the list, or in another package.
    fn list(&self, root: &Path) -> Result<Vec<(String, PathBuf)>> {
        let root = root.join(self.folder);
        let mut pages = Vec::new();
        let mut folders = vec![root.clone()];
        folders.retain(|folder| folder.is_dir());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(Error::io(&folder))? {
                let path = entry.map_err(Error::io(&folder))?.path();
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

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() { fs::remove_dir_all(folder).map_err(Error::io(folder)) } else { Ok(()) }
}
