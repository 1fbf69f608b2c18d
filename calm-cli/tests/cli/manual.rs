//! The help, manual pages and completions: each has all commands and their flags.

use crate::command::{calm, printed};

/// The commands that a help lists, without `help` itself.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The commands with those below them, as words.
fn all_commands() -> Vec<Vec<String>> {
    let (mut found, mut left) = (Vec::new(), vec![Vec::new()]);
    while let Some(words) = left.pop() {
        let help = printed(calm(words.iter().map(String::as_str).chain(["--help"]), ""));
        left.extend(commands(&help).into_iter().map(|name| [words.as_slice(), &[name]].concat()));
        found.push(words);
    }
    found
}

/// The long flags that a help lists.
fn flags(help: &str) -> Vec<&str> {
    let lines = help.lines().filter_map(|line| line.split_once("--"));
    let flags = lines.filter(|(before, _)| before.trim().is_empty() || before.ends_with(", "));
    flags.filter_map(|(_, after)| after.split_whitespace().next()).collect()
}

#[test]
fn the_help_has_the_commands_in_the_order_of_the_work_and_an_example_of_each() {
    let help = printed(calm(["--help"], ""));
    let training: &[&str] = if cfg!(feature = "libtorch") { &["train"] } else { &[] };
    let others =
        ["fit-confidence", "tune", "calibrate", "generate", "serve", "chat", "bench", "score", "p-value"];
    assert_eq!(commands(&help), [&["data"], training, &others].concat());
    for words in all_commands() {
        let help = printed(calm(words.iter().map(String::as_str).chain(["--help"]), ""));
        let example = format!("\n  calm {}", words.join(" "));
        assert!(words == ["data"] || help.contains(&example), "{words:?}: {help}");
    }
}

#[test]
fn the_version_names_the_engines() {
    let version = printed(calm(["--version"], ""));
    let engines = if cfg!(feature = "libtorch") { "engines cpu and libtorch)\n" } else { "engine cpu)\n" };
    let start = format!("calm {} (", env!("CARGO_PKG_VERSION"));
    assert!(version.starts_with(&start) && version.ends_with(engines), "{version}");
}

#[test]
fn there_is_a_page_for_every_command_with_all_of_its_flags() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("man1");
    assert_eq!(printed(calm(["man", "--out", out.to_str().unwrap()], "")), "");
    let commands = all_commands();
    for words in &commands {
        let name = ["calm"].into_iter().chain(words.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
        let page = std::fs::read_to_string(out.join(format!("{name}.1"))).unwrap().replace("\\-", "-");
        assert!(page.contains(&format!(".TH {name} 1")), "{page}");
        let help = printed(calm(words.iter().map(String::as_str).chain(["--help"]), ""));
        for flag in flags(&help) {
            assert!(page.contains(&format!("--{flag}")), "{name}: --{flag}");
        }
    }
    assert!(flags(&printed(calm(["generate", "--help"], ""))).len() > 20);
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), commands.len());
}

#[test]
fn completions_of_each_shell_have_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(calm(["completions", shell], ""));
        for word in all_commands().concat() {
            assert!(script.contains(&word), "{shell}: {word}");
        }
        assert!(script.contains("max-source-tokens"), "{shell}");
    }
    assert_eq!(calm(["completions", "sh"], "").status.code(), Some(2));
}
