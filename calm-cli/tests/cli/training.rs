use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{NUMBERS, calm, complaint, generate, notes, printed, write_tokenizer};

/// A folder with a corpus of the numbers from one to ten, two at a time, and runs on it.
struct Runs {
    folder: TempDir,
}

impl Runs {
    fn new() -> Runs {
        let folder = tempfile::tempdir().unwrap();
        let pairs = NUMBERS.iter().flat_map(|first| NUMBERS.iter().map(move |second| (first, second)));
        let lines = pairs.map(|(first, second)| {
            let (english, french) =
                (format!("{} {}", first.0, second.0), format!("{} {}", first.1, second.1));
            format!("{}\n", json!({ "source": english, "target": french }))
        });
        std::fs::write(folder.path().join("corpus.jsonl"), lines.collect::<String>()).unwrap();
        write_tokenizer(&folder.path().join("tokenizer.json"));
        Runs { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The configuration of a run that writes to `NAME` and `NAME.checkpoints`. It has little dropout, so
    /// that what so small a network has learnt does not hang on the masks it met.
    fn configure(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().display();
        let text = format!(
            r#"seed = 3
output = "{folder}/{name}"
checkpoints = "{folder}/{name}.checkpoints"
tokenizer = "{folder}/tokenizer.json"
checkpoint_every = 7
model = {{ d_model = 32, d_kv = 8, d_ff = 32, num_heads = 2, num_layers = 1, num_decoder_layers = 2 }}
data = {{ tasks = [{{ name = "numbers", train = "{folder}/corpus.jsonl" }}], max_source_tokens = 16, max_target_tokens = 16, batch_tokens = 300 }}
objective = {{ dropout = 0.02 }}
optimizer = {{ learning_rate = 0.01 }}
schedule = {{ steps = 400, warmup_steps = 10 }}
classifier = {{ steps = 5 }}
validation = {{ examples = 4, every = 40 }}
"#
        );
        let path = self.path(&format!("{name}.toml"));
        std::fs::write(&path, text).unwrap();
        path
    }

    fn log(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(&format!("{name}.checkpoints/log.jsonl")));
        // While the run lasts, the last line may be half there.
        text.unwrap_or_default().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn files(&self, name: &str) -> [Vec<u8>; 2] {
        [format!("{name}.checkpoints/step-00000400/state.safetensors"), format!("{name}/model.safetensors")]
            .map(|file| std::fs::read(self.path(&file)).unwrap())
    }
}

fn arguments(config: &Path) -> [&str; 6] {
    ["train", config.to_str().unwrap(), "--device", "cpu", "--threads", "1"]
}

/// Starts a run and kills it as soon as a condition holds.
fn kill_when(config: &Path, condition: impl Fn() -> bool) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_calm"))
        .args(arguments(config))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ended = wait_until(&mut child, condition);
    assert!(ended.is_none(), "the run ended before the moment to kill it: {ended:?}");
    // SIGKILL: the process has no chance to tidy up.
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
}

fn wait_until(child: &mut Child, condition: impl Fn() -> bool) -> Option<ExitStatus> {
    for _ in 0..120_000 {
        if condition() {
            return None;
        }
        let ended = child.try_wait().unwrap();
        if ended.is_some() {
            return ended;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    panic!("the run neither ended nor came to the moment to kill it");
}

#[test]
fn a_killed_run_goes_on_as_if_nothing_had_been() {
    let runs = Runs::new();
    let undisturbed = runs.configure("undisturbed");
    let report = printed_by_training(&undisturbed);
    assert!(
        report.contains("held out       numbers: bleu ") && report.contains("F1 of not exiting"),
        "{report}"
    );

    let killed = runs.configure("killed");
    let step_logged = |step: u64| runs.log("killed").iter().any(|line| line["step"].as_u64() >= Some(step));
    let checkpoints = runs.path("killed.checkpoints");
    let newest = || calm_train::checkpoint::find(&checkpoints, calm_train::checkpoint::Slot::Newest);
    kill_when(&killed, || runs.path("killed.checkpoints/log.jsonl").exists());
    kill_when(&killed, || newest().is_some());
    kill_when(&killed, || step_logged(60));
    kill_when(&killed, || step_logged(100));
    // At most the steps since the last multiple of `checkpoint_every` are lost.
    let (checkpoint, logged) =
        (newest().unwrap(), runs.log("killed").last().unwrap()["step"].as_u64().unwrap());
    let step: u64 = checkpoint.to_str().unwrap().rsplit_once('-').unwrap().1.parse().unwrap();
    assert!(step.is_multiple_of(7) && step + 7 > logged, "step {step} of {logged} is left");
    // As if the last kill had met the writing of a checkpoint, and of its file.
    let partial = checkpoints.join("step-00000147.partial");
    std::fs::create_dir(&partial).unwrap();
    let bytes = std::fs::read(checkpoint.join("state.safetensors")).unwrap();
    std::fs::write(partial.join("state.partial"), &bytes[..bytes.len() / 3]).unwrap();
    printed_by_training(&killed);

    assert!(runs.files("undisturbed") == runs.files("killed"), "the tensors differ");
    let losses = |name: &str| -> Vec<(Value, Value)> {
        runs.log(name).into_iter().map(|line| (line["step"].clone(), line["loss"].clone())).collect()
    };
    assert_eq!(losses("killed"), losses("undisturbed"));

    let lines: String =
        ["two nine", "seven one"].map(|text| format!("{}\n", json!({ "source": text }))).concat();
    let output = printed(generate(&runs.path("killed"), &["--policy", "calm", "--threshold", "0.9"], &lines));
    for line in output.lines() {
        let text = serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
        let is_number = |word| NUMBERS.iter().any(|(_, french)| *french == word);
        assert!(text.split(' ').count() == 2 && text.split(' ').all(is_number), "{text}");
    }

    let text = std::fs::read_to_string(&killed).unwrap();
    let paused = [&arguments(&killed)[..], &["--time-limit=-1"]].concat();
    assert!(complaint(&calm(paused, "")).starts_with("--time-limit: "));
    std::fs::write(&killed, text.replace("seed = 3", "seed = 4")).unwrap();
    let refused = complaint(&calm(arguments(&killed), ""));
    assert!(refused.contains("holds a checkpoint of another run (its seed is 3, not 4)"), "{refused}");
}

/// A run says where it begins, what has changed since, and what is odd about its data.
#[test]
fn a_run_says_what_it_goes_on_with() {
    let runs = Runs::new();
    let config = runs.configure("model");
    let corpus = std::fs::read_to_string(runs.path("corpus.jsonl")).unwrap();
    let strange = json!({ "source": "one \u{17c}", "target": "un \u{17c}\u{17c} un \u{17c}" });
    std::fs::write(runs.path("corpus.jsonl"), format!("{corpus}{strange}\n")).unwrap();
    let train = |more: &[&str]| {
        let steps = ["--set", "classifier.steps=0", "--set", "validation.examples=0"];
        let output = calm([&arguments(&config), &steps[..], more].concat(), "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let notes = String::from_utf8(output.stderr).unwrap();
        notes.lines().filter(|line| line.starts_with("note: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let unknown = |notes: &[String]| {
        assert!(notes[0].starts_with("note: task numbers: 1 of "), "{notes:?}");
        assert!(notes[0].ends_with(" target tokens are unknown to the tokenizer"), "{notes:?}");
        assert!(notes[0].contains(" source tokens and 2 of "), "{notes:?}");
    };
    let first = train(&["--set", "schedule.steps=12"]);
    unknown(&first);
    assert_eq!(first.len(), 1, "{first:?}");
    let second = train(&["--set", "schedule.steps=14", "--set", "objective.dropout=0.5"]);
    unknown(&second);
    let checkpoint = runs.path("model.checkpoints/step-00000012");
    let expected = [
        format!("note: the run goes on from step 12 of 14, {}", checkpoint.display()),
        "note: objective.dropout is 0.5 from here on; it was 0.02".to_owned(),
        "note: schedule.steps is 14 from here on; it was 12".to_owned(),
    ];
    assert_eq!(second[1..], expected);

    let other = runs.configure("other");
    let output = format!("output={}", runs.path("model").display());
    let refused = complaint(&calm([&arguments(&other)[..], &["--set", &output]].concat(), ""));
    assert!(refused.contains("already holds a model") && refused.contains("--overwrite"), "{refused}");
}

#[test]
fn exit_heads_are_trained_used_and_kept_apart_from_guarantees() {
    let runs = Runs::new();
    let config = runs.configure("model");
    let short =
        ["--set", "schedule.steps=60", "--set", "classifier.steps=0", "--set", "validation.examples=0"];
    assert!(calm([&arguments(&config)[..], &short].concat(), "").status.success());
    let (model, corpus) = (runs.path("model"), runs.path("corpus.jsonl"));
    let (model_name, corpus) = (model.to_str().unwrap(), corpus.to_str().unwrap());
    let policy = ["--policy", "calm-head_entropy-0.3"];
    let line = format!("{}\n", json!({ "source": "two nine" }));
    let said = complaint(&generate(&model, &policy, &line));
    assert!(said.contains("needs exit heads, which `calm train --heads` trains"), "{said}");

    let heads =
        ["train", "--heads", "--device", "cpu", "--threads", "1", "--model", model_name, "--data", corpus];
    let few = ["--limit", "60", "--max-tokens", "8", "--batch-tokens", "300", "--rank", "8", "--steps", "30"];
    let train = |more: &[&str]| calm([&heads[..], &few, &["--learning-rate", "0.01"], more].concat(), "");
    let output = train(&[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed_table = String::from_utf8(output.stdout).unwrap();
    let of_layer = printed_table.lines().find(|line| line.trim_start().starts_with("1 ")).unwrap();
    let numbers: Vec<f64> = of_layer.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert!(numbers.len() == 7 && numbers[2] < numbers[1], "{printed_table}");
    let said = complaint_after_notes(&train(&[]));
    assert!(said.contains("already holds exit heads; replace them with --overwrite"), "{said}");

    for engine in ["cpu", "libtorch"] {
        let output = generate(&model, &[&policy[..], &["--engine", engine]].concat(), &line);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // What was fitted before there were heads has no levels of them.
    let level = ["--policy", "calm-level_entropy-0.5", "--engine", "cpu"];
    let said = complaint(&generate(&model, &level, &line));
    assert!(said.contains("other exit heads: fit them anew with `calm fit-confidence`"), "{said}");
    let fit =
        ["fit-confidence", "--engine", "cpu", "--model", model_name, "--data", corpus, "--max-tokens", "8"];
    assert!(calm(fit, "").status.success());
    assert!(generate(&model, &level, &line).status.success());

    let calibrate = |measure: &str, data: &str| {
        let certificate = runs.path("certificate.json");
        let fixed =
            ["calibrate", "--engine", "cpu", "--model", model_name, "--delta", "0.9", "--metric", "chrf"];
        let named = ["--measure", measure, "--data", data, "--output", certificate.to_str().unwrap()];
        complaint(&calm([&fixed[..], &["--max-tokens", "8"], &named].concat(), ""))
    };
    for measure in ["head_max", "level_max", "agreement"] {
        let said = calibrate(measure, corpus);
        assert!(said.contains("was used to fit the confidence of"), "{measure}: {said}");
    }
    // The heads alone forbid it too.
    std::fs::remove_file(model.join("calm.agreement.json")).unwrap();
    assert!(calibrate("head_max", corpus).contains("was used to fit the confidence of"));

    let usage = |arguments: &[&str], expected: &str| {
        let output = calm(arguments, "");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(expected), "{arguments:?}: {said}");
    };
    let config = config.to_str().unwrap();
    usage(&[&["train", config], &heads[1..]].concat(), "cannot be used with");
    usage(&["train"], "required arguments were not provided");
    usage(&["train", "--heads"], "--data");
    usage(&["train", "--heads", "--model", model_name], "--text");
    usage(&[&heads[..], &["--text", corpus]].concat(), "cannot be used with");
    usage(&["train", config, "--rank", "3"], "--heads");
    usage(&["train", config, "--seed", "3"], "--heads");
}

/// What a command said that had told something before it failed.
fn complaint_after_notes(output: &std::process::Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    notes(&output.stderr)
}

fn printed_by_training(config: &Path) -> String {
    let output = calm(arguments(config), "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
