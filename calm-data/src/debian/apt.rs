//! Fetches Debian's indices and packages with apt, into folders of our own.

use super::index::{Stanza, stanzas};
use crate::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SUITE: &str = "bookworm";
const COMPONENT: &str = "main";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Fetches the indices of bookworm and of `releases`, and bookworm's `packages`.
///
/// They go into `folder/indices`, which is returned. They come from `mirror`, or else from the mirror of the
/// machine's own bookworm source. The system's apt configuration (proxies) is used; its lists, caches and
/// sources are not touched.
pub(super) fn fetch(
    folder: &Path,
    mirror: Option<&str>,
    releases: &[String],
    packages: &[&str],
) -> Result<PathBuf> {
    let source = sources(Path::new("/etc/apt"), mirror, releases)?;
    let lists = folder.join("indices");
    let cache = folder.join("cache");
    for new in [&lists.join("partial"), &cache.join("archives/partial")] {
        fs::create_dir_all(new).map_err(calm_files::Error::write(new))?;
    }
    let absolute = |path: &Path| fs::canonicalize(path).map_err(calm_files::Error::read(path));
    let sources = folder.join("debian.sources");
    fs::write(&sources, source).map_err(calm_files::Error::write(&sources))?;
    // Hooks that the system runs after an update are meant for the system's own lists.
    let configuration = folder.join("apt.conf");
    let hooks = "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n\
                 #clear APT::Update::Post-Invoke-Success;\n";
    fs::write(&configuration, hooks).map_err(calm_files::Error::write(&configuration))?;

    let apt = |command: &str| -> Result<Command> {
        let mut apt = Command::new("apt-get");
        apt.arg("--config-file").arg(absolute(&configuration)?).args(["--quiet", command]);
        for (key, path) in
            [("Dir::State::Lists", &lists), ("Dir::Cache", &cache), ("Dir::Etc::SourceList", &sources)]
        {
            apt.arg("-o").arg(format!("{key}={}", absolute(path)?.display()));
        }
        apt.args(["-o", "Dir::Etc::SourceParts=-"])
            .args(["-o", "Acquire::Languages=en,fr"])
            .args(["-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"])
            .args(["-o", "Acquire::GzipIndexes=false"])
            // Without this an unreachable mirror is only a warning.
            .args(["-o", "APT::Update::Error-Mode=any"]);
        Ok(apt)
    };
    run(apt("update")?)?;
    if !packages.is_empty() {
        // `apt update` removes everything from its folder that is not a list, so old packages do not gather
        // there.
        let mut download = apt("download")?;
        download.args(packages.iter().map(|package| format!("{package}/{SUITE}"))).current_dir(&lists);
        run(download)?;
    }
    Ok(lists)
}

/// Finds the first file, in the order of names, whose name is wanted, in a folder that apt has fetched into.
pub(super) fn find(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(calm_files::Error::read(folder))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let is_wanted = |path: &PathBuf| path.file_name().is_some_and(|name| is_wanted(&name.to_string_lossy()));
    Ok(files.into_iter().find(is_wanted))
}

/// Unpacks a `.deb` into a folder.
pub(super) fn unpack(package: &Path, folder: &Path) -> Result<()> {
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.arg("--extract").arg(package).arg(folder);
    run(dpkg).map(|_| ())
}

/// Reads an index; apt's own helper decompresses it if apt stores it compressed.
pub(super) fn read_index(path: &Path) -> Result<Vec<u8>> {
    if matches!(path.extension().and_then(|e| e.to_str()), Some("lz4" | "gz" | "xz" | "bz2" | "zst")) {
        let mut helper = Command::new("/usr/lib/apt/apt-helper");
        helper.arg("cat-file").arg(path);
        run(helper)
    } else {
        Ok(calm_files::read(path)?)
    }
}

fn run(mut command: Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |message| Error::Command { program: program.clone(), message };
    let output = command.output().map_err(|e| {
        failed(format!("{e} (the programs of a Debian system are needed; lists can come from another)"))
    })?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(failed(format!("{}: {words}", output.status)))
    }
}

/// Writes a sources file for section main of bookworm and `releases`.
///
/// It asks for one architecture, since descriptions are the same on all of them. The mirror is `mirror`, or
/// else that of the machine's own bookworm source if `etc` has one.
fn sources(etc: &Path, mirror: Option<&str>, releases: &[String]) -> Result<String> {
    let (mirror, signed_by) = match mirror {
        Some(mirror) => (mirror.to_owned(), Path::new(KEYRING).exists().then(|| KEYRING.to_owned())),
        None => machine_source(etc).ok_or_else(|| Error::NoMirror { etc: etc.to_owned() })?,
    };
    let suites = [&[SUITE.to_owned()], releases].concat().join(" ");
    let mut source = format!(
        "Types: deb\nURIs: {mirror}\nSuites: {suites}\nComponents: {COMPONENT}\nArchitectures: amd64\n"
    );
    if let Some(key) = signed_by {
        source += &format!("Signed-By: {key}\n");
    }
    Ok(source)
}

/// Finds mirror and key of the first enabled bookworm main source below `etc`.
fn machine_source(etc: &Path) -> Option<(String, Option<String>)> {
    let mut files: Vec<PathBuf> = fs::read_dir(etc.join("sources.list.d"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.sort();
    files.insert(0, etc.join("sources.list"));
    files.iter().find_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        match file.extension()?.to_str()? {
            "list" => text.lines().find_map(one_line_source),
            "sources" => stanzas(file, &text).ok()?.iter().find_map(deb822_source),
            _ => None,
        }
    })
}

/// Parses a line of the form `deb [option=value ...] URI SUITE COMPONENT...`.
fn one_line_source(line: &str) -> Option<(String, Option<String>)> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => ("", rest),
    };
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    let mut words = rest.split_whitespace();
    let mirror = words.next()?;
    let wanted = words.next()? == SUITE && words.any(|component| component == COMPONENT);
    wanted.then(|| (mirror.to_owned(), signed_by.map(str::to_owned)))
}

fn deb822_source(stanza: &Stanza<'_>) -> Option<(String, Option<String>)> {
    let has = |field, wanted| stanza.get(field).is_some_and(|v| v.split_whitespace().any(|w| w == wanted));
    let wanted = has("Types", "deb") && has("Suites", SUITE) && has("Components", COMPONENT);
    if !wanted || has("Enabled", "no") {
        return None;
    }
    let mirror = stanza.get("URIs")?.split_whitespace().next()?.to_owned();
    Some((mirror, stanza.get("Signed-By").map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expects this mirror and key, given these `files` below `/etc/apt`.
    #[track_caller]
    fn check(files: &[(&str, &str)], expected: Option<(&str, Option<&str>)>) {
        let etc = tempfile::tempdir().unwrap();
        fs::create_dir(etc.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            fs::write(etc.path().join(name), text).unwrap();
        }
        let found = machine_source(etc.path());
        let found = found.as_ref().map(|(mirror, key)| (mirror.as_str(), key.as_deref()));
        assert_eq!(found, expected);
    }

    #[test]
    fn the_machines_mirror_is_found() {
        let list = "sources.list";
        check(&[], None);
        check(&[(list, "deb http://a/debian bookworm main")], Some(("http://a/debian", None)));
        check(
            &[(
                list,
                "# deb http://no bookworm main\ndeb [arch=amd64 signed-by=/k.gpg] http://a bookworm contrib main\n",
            )],
            Some(("http://a", Some("/k.gpg"))),
        );
        for other in [
            "deb-src http://a bookworm main",
            "deb http://a bookworm-updates main",
            "deb http://a trixie main",
            "deb http://a bookworm contrib",
            "deb http://a",
            "deb [broken http://a bookworm main",
        ] {
            check(&[(list, other)], None);
        }
    }

    #[test]
    fn a_given_mirror_goes_before_the_machines() {
        let etc = tempfile::tempdir().unwrap();
        let message = sources(etc.path(), None, &[]).unwrap_err().to_string();
        assert!(message.contains("names no mirror of Debian bookworm"), "{message}");
        fs::write(etc.path().join("sources.list"), "deb http://a bookworm main").unwrap();
        assert!(sources(etc.path(), None, &[]).unwrap().contains("URIs: http://a\nSuites: bookworm\n"));
        let releases = ["trixie".to_owned(), "sid".to_owned()];
        let both = sources(etc.path(), Some("http://b"), &releases).unwrap();
        assert!(both.contains("URIs: http://b\nSuites: bookworm trixie sid\n"), "{both}");
    }

    #[test]
    fn the_machines_mirror_is_found_in_deb822_files() {
        let stanza = "Types: deb deb-src\n# a comment\nURIs: http://a http://b\nSuites: bookworm bookworm-updates\n\
                      Components: main\nSigned-By:\n KEY\n .\n BLOCK\n";
        let other = "Types: deb\nURIs: http://c\nSuites: stable\nComponents: main\n\n";
        let file = "sources.list.d/debian.sources";
        let key = "\n KEY\n .\n BLOCK";
        check(&[(file, &format!("{other}{stanza}"))], Some(("http://a", Some(key))));
        check(&[(file, &format!("Enabled: no\n{stanza}"))], None);
        check(&[("sources.list.d/debian.save", stanza)], None);
    }
}
