//! What shells do with commands: results into devices, pipes and links, standard output that is closed or
//! full, numbers out of range, signals.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{
    NUMBERS, calm, complaint, copied_checkpoint, generate, notes, printed, reference_checkpoint,
    write_tokenizer,
};

const TOKENS: &str = "{\"input_ids\": [5, 6, 1]}\n";

/// A folder with some inputs, and paths in it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let losses = |threshold: &str, loss: usize| {
            (0..60).map(|example| format!("{threshold},{example},{loss}\n")).collect::<String>()
        };
        let table = format!("threshold,example,loss\n{}{}", losses("0.9", 0), losses("0.5", 1));
        fs::write(folder.path("losses.csv"), table).unwrap();
        fs::write(folder.path("tokens.jsonl"), TOKENS.repeat(3)).unwrap();
        fs::write(folder.path("file"), "").unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Starts a command whose words are names in this folder where they begin with `@`.
    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_calm"));
        command.env("OMP_WAIT_POLICY", "PASSIVE").stdin(Stdio::null());
        for word in arguments.split_whitespace() {
            match word.strip_prefix('@') {
                Some("model") => command.arg(reference_checkpoint("v1_1")),
                Some(name) => command.arg(self.path(name)),
                None => command.arg(word),
            };
        }
        command
    }

    fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

const CALIBRATE: &str = "calibrate --losses @losses.csv --delta 0.1";
const BENCH: &str =
    "bench --model @model --dtype f32 --source-tokens 3 --new-tokens 2 --threads 1 --repetitions 1";
const GENERATE: &str = "generate --device cpu --model @model --input @tokens.jsonl --max-tokens 2";
const P_VALUE: &str = "p-value --method hoeffding --n 9 --sum-losses 1 --delta 0.5";

#[cfg(unix)]
#[test]
fn results_go_where_paths_lead() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let folder = Folder::new();
    printed(folder.run(&format!("{CALIBRATE} --output @expected.json")));
    let expected = folder.read("expected.json");

    // A program reads standard output then, and people the table.
    for output in ["-", "/dev/stdout"] {
        let output = folder.run(&format!("{CALIBRATE} --output {output}"));
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        assert!(String::from_utf8(output.stderr).unwrap().contains("certified: threshold 0.9"));
    }
    let file = fs::File::create(folder.path("redirected")).unwrap();
    let status = folder.command(&format!("{CALIBRATE} --output /dev/stdout")).stdout(file).status().unwrap();
    assert!(status.success());
    assert_eq!(folder.read("redirected"), expected);
    let bench: Value = serde_json::from_slice(&folder.run(&format!("{BENCH} --json -")).stdout).unwrap();
    assert_eq!(bench["cases"].as_array().unwrap().len(), 1);

    symlink("new/result.json", folder.path("link")).unwrap();
    printed(folder.run(&format!("{CALIBRATE} --output @link")));
    assert_eq!(folder.read("new/result.json"), expected);
    assert!(fs::symlink_metadata(folder.path("link")).unwrap().is_symlink());

    let pipe = folder.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let whole_lines = printed(folder.run(GENERATE));
    for (command, expected) in [(CALIBRATE, &expected), (GENERATE, &whole_lines)] {
        let mut writing = folder.command(&format!("{command} --output @pipe"));
        let mut writer = writing.stdout(Stdio::null()).spawn().unwrap();
        assert_eq!(&fs::read_to_string(&pipe).unwrap(), expected);
        assert!(writer.wait().unwrap().success());
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    }
    printed(folder.run(&format!("{CALIBRATE} --output /dev/null")));
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
}

#[test]
fn folders_are_made_for_every_result() {
    let folder = Folder::new();
    for (command, file) in [
        (format!("{CALIBRATE} --output @a/b/c.json"), "a/b/c.json"),
        (format!("{GENERATE} --output @d/e/f.jsonl"), "d/e/f.jsonl"),
        (format!("{BENCH} --json @g/h/i.json"), "g/h/i.json"),
    ] {
        printed(folder.run(&command));
        assert!(folder.path(file).is_file(), "{file}");
    }
}

#[test]
fn a_result_that_cannot_be_written_is_found_before_the_work() {
    let folder = Folder::new();
    let below = |name: &str| format!("cannot write {}: not a directory", folder.path(name).display());
    for (command, expected) in [
        (format!("{CALIBRATE} --output @file/out.json"), below("file/out.json")),
        (format!("{BENCH} --json @file/out.json"), below("file/out.json")),
        // Weights of this shape would take long.
        ("bench --model random:t5-large --save @file/model".to_owned(), below("file/model/config.json")),
        (format!("{GENERATE} --output @file/out.jsonl"), below("file/out.jsonl")),
        // The model is not even looked for.
        (
            "calibrate --model @none --data @none.jsonl --measure state --delta 0.1 --output @file/out.json"
                .to_owned(),
            below("file/out.json"),
        ),
        (
            "tune --model @none --data @none.jsonl --report @file/report.json".to_owned(),
            below("file/report.json"),
        ),
        (
            "fit-confidence --model @none --data @none.jsonl --figure @file/figures".to_owned(),
            below("file/figures/reliability.svg"),
        ),
        ("data debian --out @file/data --lists @none".to_owned(), below("file/data/tokenizer.json")),
    ] {
        let found = complaint(&folder.run(&command));
        assert!(found.replace(": Not", ": not").starts_with(&expected), "{found}\ninstead of {expected}");
    }
    assert_eq!(folder.names(), ["file", "losses.csv", "tokens.jsonl"]);
}

#[test]
fn a_result_that_is_an_input_is_refused() {
    let folder = Folder::new();
    #[cfg(unix)]
    std::os::unix::fs::symlink("tokens.jsonl", folder.path("link.jsonl")).unwrap();
    #[cfg(not(unix))]
    fs::copy(folder.path("tokens.jsonl"), folder.path("link.jsonl")).unwrap();
    fs::write(folder.path("trace.jsonl"), "{\"exit_layers\": [1]}\n").unwrap();
    for command in [
        format!("{CALIBRATE} --output @losses.csv"),
        format!("{GENERATE} --output @tokens.jsonl"),
        format!("{GENERATE} --output @link.jsonl"),
        "generate --model @model --input @link.jsonl --output @tokens.jsonl".to_owned(),
        "generate --model @model --input @file --calibration @losses.csv --output @losses.csv".to_owned(),
        format!("{BENCH} --exit-trace @trace.jsonl --json @trace.jsonl"),
        "tune --model @model --data @tokens.jsonl --report @tokens.jsonl".to_owned(),
        "fit-confidence --model @new --data @tokens.jsonl --report @tokens.jsonl".to_owned(),
    ] {
        let before = [folder.read("losses.csv"), folder.read("tokens.jsonl"), folder.read("trace.jsonl")];
        let found = complaint(&folder.run(&command));
        assert!(found.contains("it is also the input "), "{command}: {found}");
        let after = [folder.read("losses.csv"), folder.read("tokens.jsonl"), folder.read("trace.jsonl")];
        assert_eq!(before, after, "{command}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_standard_output_is_an_error_and_files_are_there() {
    let folder = Folder::new();
    fs::write(folder.path("texts"), "one\ntwo\n").unwrap();
    let score = "score --metric exact --hypotheses @texts --references @texts";
    for (command, file) in [
        (format!("{CALIBRATE} --output @calibration.json"), Some("calibration.json")),
        (format!("{BENCH} --json @bench.json"), Some("bench.json")),
        (GENERATE.to_owned(), None),
        (P_VALUE.to_owned(), None),
        (score.to_owned(), None),
        ("--help".to_owned(), None),
        ("calibrate --help".to_owned(), None),
        ("--version".to_owned(), None),
    ] {
        let full = || fs::File::options().write(true).open("/dev/full").unwrap();
        let output = folder.command(&command).stdout(full()).output().unwrap();
        let found = complaint(&output);
        assert!(
            found.starts_with("cannot write standard output: ") && found.contains("No space left on device"),
            "{command}: {found}"
        );
        assert!(file.is_none_or(|file| folder.path(file).is_file()), "{command}");
        // Nobody can be told, and that is no reason to panic.
        let status = folder.command(&command).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(1), "{command}");
    }
}

#[test]
fn a_reader_who_leaves_changes_neither_files_nor_the_exit_code() {
    let folder = Folder::new();
    let strict = CALIBRATE.replace("0.9", "0.1").replace("--delta 0.1", "--delta 0.001");
    for (command, code) in [
        (format!("{CALIBRATE} --output @calibration.json"), 0),
        (format!("{strict} --output @strict.json"), 3),
        (format!("{BENCH} --json @bench.json"), 0),
        (GENERATE.to_owned(), 0),
        (P_VALUE.to_owned(), 0),
        ("--help".to_owned(), 0),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = folder.command(&command).stdout(writer).output().unwrap();
        assert_eq!(notes(&output.stderr), "", "{command}");
        assert_eq!(output.status.code(), Some(code), "{command}");
    }
    for file in ["calibration.json", "strict.json", "bench.json"] {
        assert!(folder.path(file).is_file(), "{file}");
    }
}

#[test]
fn numbers_have_ranges_and_reasons() {
    let folder = Folder::new();
    fs::write(folder.path("texts"), "one\ntwo\n").unwrap();
    let score = "score --metric exact --hypotheses @texts --references @texts";
    let compare = format!("{score} --baseline @texts");
    let certify = "calibrate --model @none --data @none --measure state --delta 0.1";
    let fit = "fit-confidence --model @none --data @none";
    let tune = "tune --model @none --data @none";
    let few = "but must be at most 1000000: memory is set aside";
    for (command, flags, expected) in [
        (
            score,
            "--bootstrap 10000000000000",
            "resamples is 10000000000000, but must be at most 10000000: all",
        ),
        (score, "--bootstrap 18446744073709551615", "but must be at most 10000000: all their scores"),
        (&compare, "--paired randomisation --trials 18446744073709551615", "but must be at most 10000000"),
        (&compare, "--paired randomisation --trials 0", "resamples is 0, but must be at least 1"),
        (GENERATE, "--threads 1000000", "--threads is 1000000, but must be at most "),
        (GENERATE, "--threads 18446744073709551615", "more threads than cores wait for each other"),
        (BENCH.trim_end_matches(" --threads 1 --repetitions 1"), "--threads 1000000", "--threads is 1000000"),
        (certify, "--threads 1000000", "--threads is 1000000, but must be at most "),
        (fit, "--threads 1000000", "--threads is 1000000, but must be at most "),
        (tune, "--threads 1000000", "--threads is 1000000, but must be at most "),
        ("bench --model @model", "--new-tokens 18446744073709551615", few),
        ("bench --model @model", "--new-tokens 1", "--new-tokens is 1, but must be at least 2"),
        ("bench --model @model", "--source-tokens 1000000000000", few),
        ("bench --model @model", "--source-tokens 0", "--source-tokens is 0, but must be at least 1"),
        (
            "bench --model @model",
            "--batch-size 1,1000000000000",
            "must be at most 65536: each row takes memory",
        ),
        ("bench --model @model", "--batch-size 0,1", "--batch-size is 0, but must be at least 1"),
        ("bench --model @model", "--repetitions 18446744073709551615", "but must be at most 1000000"),
        ("generate --model @model --input @file", "--max-tokens 18446744073709551615", few),
        ("generate --model @model --input @file", "--max-source-tokens 1000000000000", few),
        (certify, "--max-tokens 1000000000000", few),
        (certify, "--max-source-tokens 1000000000000", few),
        (CALIBRATE, "--loss-limit nan", "--loss-limit is NaN, but must be finite: no loss is above another"),
        (CALIBRATE, "--loss-limit inf", "--loss-limit is inf, but must be finite"),
        (certify, "--limit 0", "--limit is 0, but must be at least 1"),
        (fit, "--max-tokens 1000000000000", few),
        (tune, "--max-source-tokens 1000000000000", few),
        (tune, "--timed 0", "--timed is 0, but must be at least 1"),
    ] {
        let found = complaint(&folder.run(&format!("{command} {flags}")));
        assert!(found.contains(expected), "{command} {flags}: {found}\ninstead of {expected}");
    }
}

/// Nobody is told that there is no flag `-0`.
#[test]
fn numbers_may_be_negative() {
    let folder = Folder::new();
    for (command, value) in [
        ("calibrate --losses @losses.csv --delta", "-0"),
        ("calibrate --losses @losses.csv --delta", "-0.5"),
        ("calibrate --losses @losses.csv --delta 0.1 --epsilon", "-1e-3"),
        ("p-value --method hoeffding --delta 0.1 --n 9 --sum-losses", "-inf"),
        ("calibrate --losses @losses.csv --delta 0.1 --procedure pareto --selection-share", "-1"),
        ("calibrate --losses @losses.csv --delta 0.1 --seed", "-1"),
        ("p-value --method hoeffding --delta 0.1 --sum-losses 1 --n", "-5"),
        ("tune --model @none --data @none --agreement", "-1"),
        ("tune --model @none --data @none --limit", "-1"),
        ("generate --model @model --input @tokens.jsonl --max-tokens", "-1"),
        ("generate --model @model --input @tokens.jsonl --policy static --static-layers", "-1"),
        ("bench --model @model --batch-size", "-1"),
        ("bench --model @model --threads", "-1"),
        ("score --metric exact --hypotheses @file --references @file --bootstrap", "-1"),
    ] {
        let output = folder.run(&format!("{command} {value}"));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{command} {value}: {error}");
        assert!(
            error.contains(value) && !error.contains("unexpected argument"),
            "{command} {value}: {error}"
        );
    }
    printed(folder.run("p-value --method hoeffding --delta 0.1 --n 9 --sum-losses -0"));
}

/// The first half of an output that a killed program left behind is no obstacle, and goes.
#[test]
fn a_partial_file_is_used_again() {
    let folder = Folder::new();
    let host = Command::new("uname").arg("-n").output().unwrap().stdout;
    let host: String =
        host.into_iter().map(char::from).filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    fs::write(folder.path(&format!(".out.jsonl.{host}.0.partial")), "{\"tokens\": [1").unwrap();
    printed(folder.run(&format!("{GENERATE} --output @out.jsonl")));
    assert_eq!(folder.read("out.jsonl"), printed(folder.run(GENERATE)));
    assert_eq!(folder.names(), ["file", "losses.csv", "out.jsonl", "tokens.jsonl"]);
}

/// Waits until something has happened, or the program has ended.
fn wait_until(child: &mut std::process::Child, happened: impl Fn() -> bool) {
    while !happened() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
}

#[cfg(unix)]
#[test]
fn a_program_that_is_told_to_end_says_so_and_leaves_no_halves() {
    use std::os::unix::process::ExitStatusExt;
    let terminate = |child: &std::process::Child| {
        let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(status.success());
    };
    let ended = |child: std::process::Child| {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(15), "{output:?}");
        notes(&output.stderr)
    };

    // Many outputs as long as can be: the program is told in the middle of them.
    let folder = Folder::new();
    fs::write(folder.path("out.jsonl"), "earlier").unwrap();
    let tokens: Vec<String> = (0..64).map(|index| (2 + index * 31 % 200).to_string()).collect();
    fs::write(
        folder.path("many.jsonl"),
        format!("{{\"input_ids\": [{}]}}\n", tokens.join(",")).repeat(20_000),
    )
    .unwrap();
    let command = "generate --device cpu --model @model --input @many.jsonl --output @out.jsonl --threads 1";
    let mut child = folder.command(command).stderr(Stdio::piped()).spawn().unwrap();
    let partial = |name: &&String| name.starts_with(".out.jsonl.") && name.ends_with(".0.partial");
    wait_until(&mut child, || {
        let length = |name: &String| fs::metadata(folder.path(name)).map_or(0, |partial| partial.len());
        folder.names().iter().find(partial).is_some_and(|name| length(name) > 0)
    });
    terminate(&child);
    assert_eq!(ended(child), "interrupted by SIGTERM\n");
    assert_eq!(folder.names(), ["file", "losses.csv", "many.jsonl", "out.jsonl", "tokens.jsonl"]);
    assert_eq!(folder.read("out.jsonl"), "earlier");

    let model = copied_checkpoint();
    write_tokenizer(&model.path().join("tokenizer.json"));
    let lines = NUMBERS.iter().cycle().take(1280).enumerate().map(|(index, (english, french))| {
        format!("{{\"id\": {index}, \"source\": \"{english}\", \"target\": \"{french}\"}}\n")
    });
    fs::write(folder.path("data.jsonl"), lines.collect::<String>()).unwrap();
    let calibrate = format!(
        "calibrate --device cpu --threads 1 --model {} --data @data.jsonl --measure state --delta 0.5 --output @run.json",
        model.path().display()
    );
    let mut child = folder.command(&calibrate).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let shards = folder.path("run/generations/calibration/full");
    wait_until(&mut child, || shards.join("shard-0000.jsonl").exists());
    terminate(&child);
    let said = ended(child);
    assert!(
        said.ends_with(
            "interrupted by SIGTERM; what was decoded stays, and the same command goes on from there\n"
        ),
        "{said}"
    );
    assert!(!folder.path("run.json").exists());
    let partial = walk(&folder.path("run"))
        .into_iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "partial"));
    assert_eq!(partial.collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// A source so long that its attention exceeds every address space is one line, without libtorch's backtrace.
#[test]
fn libtorch_without_memory() {
    let source = format!("{{\"input_ids\": [5{}]}}", ",5".repeat(3_500_000));
    let found = complaint(&generate(&reference_checkpoint("v1_1"), &["--engine", "libtorch"], &source));
    assert!(found.starts_with("libtorch: ") && found.contains("allocate"), "{found}");
    assert!(calm(["--version"], "").status.success());
}
