//! The book, docs/book: its commands are run, chapter by chapter, and print what the chapters say.
//!
//! A block of commands begins with ```` ```console ````. Lines that begin with `$ ` are commands, those that
//! begin with `> ` and those after a backslash or a bar go on with one, and the others are what a command
//! prints on standard output, where `...` stands for anything. A command whose output is not given only has
//! to succeed. A block after `<!-- long -->` is not run.
//!
//! Each chapter is run by a shell in a folder of its own that has the repository's models, data and
//! configurations. This program has no harness of the compiler's, since it is `calm-experiments`, too, where
//! it is called so: that program belongs to another package, whose binaries tests of this one cannot find.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

fn main() -> ExitCode {
    let program = env::args_os().next().map(PathBuf::from).unwrap_or_default();
    if program.file_name().is_some_and(|name| name == "calm-experiments") {
        return calm_experiments::program::main();
    }
    if cfg!(not(unix)) {
        return ExitCode::SUCCESS;
    }
    let filters: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let mut failed = false;
    for chapter in chapters() {
        let name = format!("book::{}", chapter.file_stem().unwrap().to_str().unwrap());
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter)) {
            continue;
        }
        let problems = check(&chapter);
        calm_files::tell(format_args!(
            "test {name} ... {}",
            if problems.is_empty() { "ok" } else { "FAILED" }
        ));
        for problem in &problems {
            calm_files::tell(format_args!("{}: {problem}", chapter.display()));
        }
        failed |= !problems.is_empty();
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn chapters() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("docs/book")).unwrap().map(|entry| entry.unwrap().path());
    let mut chapters: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    chapters.sort();
    chapters
}

/// What is wrong with a chapter.
fn check(chapter: &Path) -> Vec<String> {
    let text = fs::read_to_string(chapter).unwrap();
    let mut problems = broken_links(chapter, &text);
    let summary = fs::read_to_string(chapter.with_file_name("SUMMARY.md")).unwrap();
    let file = chapter.file_name().unwrap().to_str().unwrap();
    if file != "SUMMARY.md" && !summary.contains(&format!("({file})")) {
        problems.push("the summary does not have this chapter".to_owned());
    }
    match commands(&text) {
        Ok(commands) => problems.extend(run(&commands)),
        Err(problem) => problems.push(problem),
    }
    problems
}

/// The links to files that are not there.
fn broken_links(chapter: &Path, text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.map(|target| target.split('#').next().unwrap()).filter(|file| !file.contains("://"));
    let broken = files.filter(|file| !file.is_empty() && !chapter.with_file_name(file).exists());
    broken.map(|file| format!("{file} is not there")).collect()
}

struct Example {
    line: usize,
    command: String,
    output: String,
}

/// The commands of a chapter in order, without those that take long.
fn commands(text: &str) -> Result<Vec<Example>, String> {
    // The language of the block that a line is in, and whether its commands are run.
    let mut block: Option<(&str, bool)> = None;
    let (mut is_long, mut examples) = (false, Vec::<Example>::new());
    for (line, number) in text.lines().zip(1..) {
        match (block, line.strip_prefix("```")) {
            (None, Some(language)) => {
                if ["", "sh", "bash", "shell"].contains(&language) {
                    return Err(format!(
                        "{number}: commands are in blocks called console, others have a language"
                    ));
                }
                block = Some((language, language == "console" && !is_long));
                is_long = false;
            }
            (Some(_), Some(_)) => block = None,
            (Some((_, true)), None) => {
                let last = examples.last_mut();
                let goes_on =
                    |example: &Example| example.output.is_empty() && example.command.ends_with(['\\', '|']);
                match (line.strip_prefix("$ "), last) {
                    (Some(command), _) => {
                        let (command, output) = (command.to_owned(), String::new());
                        examples.push(Example { line: number, command, output });
                    }
                    (None, Some(example)) if line.starts_with("> ") || goes_on(example) => {
                        let line = line.strip_prefix("> ").unwrap_or(line);
                        example.command += &format!("\n{line}");
                    }
                    (None, Some(example)) => example.output += &format!("{line}\n"),
                    (None, None) => return Err(format!("{number}: no command stands before this output")),
                }
            }
            (Some((_, false)), None) => {}
            (None, None) if line.is_empty() => {}
            (None, None) => is_long = line == "<!-- long -->",
        }
    }
    Ok(examples)
}

/// Runs commands in a new folder until one of them does not do what the chapter says.
fn run(examples: &[Example]) -> Option<String> {
    if examples.is_empty() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["models", "data", "configs"] {
        mirror(&root().join(name), &folder.path().join(name));
    }
    let programs = tempfile::tempdir().unwrap();
    link(Path::new(env!("CARGO_BIN_EXE_calm")), &programs.path().join("calm"));
    link(&env::current_exe().unwrap(), &programs.path().join("calm-experiments"));
    let others = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([programs.path().to_owned()].into_iter().chain(env::split_paths(&others)));
    for Example { line, command, output: expected } in examples {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(folder.path()).env("PATH", path.as_ref().unwrap());
        let output = shell.stdin(Stdio::null()).output().unwrap();
        let (printed, told) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            return Some(format!("{line}: {command}\n{}\n{printed}{told}", output.status));
        }
        if !expected.is_empty() && !fits(expected.trim_end(), printed.trim_end()) {
            return Some(format!("{line}: {command}\nprinted\n{printed}instead of\n{expected}{told}"));
        }
    }
    None
}

/// Whether a text is as expected, where `...` stands for anything.
fn fits(expected: &str, text: &str) -> bool {
    let mut pieces: Vec<&str> = expected.split("...").collect();
    let first = pieces.remove(0);
    let Some(last) = pieces.pop() else { return text == first };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    for piece in pieces {
        let Some(place) = rest.find(piece) else { return false };
        rest = &rest[place + piece.len()..];
    }
    rest.ends_with(last)
}

/// Makes a folder with links to another's files; what is fitted to a model is copied, since commands replace
/// it.
fn mirror(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        let target = to.join(&name);
        if path.is_dir() {
            mirror(&path, &target);
        } else if name.to_str().is_some_and(|name| name.starts_with("calm.")) {
            fs::copy(&path, &target).unwrap();
        } else {
            link(&path, &target);
        }
    }
}

#[cfg(unix)]
fn link(from: &Path, to: &Path) {
    std::os::unix::fs::symlink(from, to).unwrap();
}

#[cfg(not(unix))]
fn link(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}
