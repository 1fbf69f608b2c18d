//! `calm p-value` and `calm calibrate`, and that `calm generate` keeps to what was certified.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{
    NUMBERS, calm, complaint, copied_checkpoint, generate, notes, printed, write_tokenizer,
};

fn run(arguments: &str) -> Output {
    calm(arguments.split_whitespace(), "")
}

/// `p` and `log_p` as printed.
fn p_value(arguments: &str) -> (f64, f64) {
    let text = printed(run(&format!("p-value {arguments}")));
    let lines: Vec<(&str, &str)> = text.lines().map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!([lines[0].0, lines[1].0], ["p", "log_p"]);
    (lines[0].1.parse().unwrap(), lines[1].1.parse().unwrap())
}

#[test]
fn p_values() {
    let folder = tempfile::tempdir().unwrap();
    let losses = folder.path().join("losses.csv");
    // The losses of the library's reference cases: 32 of 0, and then one of 1 in front of 19 of 0.
    let check = |arguments: &str, expected: f64| {
        let (p, log_p) = p_value(arguments);
        assert!((p / expected - 1.0).abs() < 1e-9, "{arguments}: {p} instead of {expected}");
        assert!((p / log_p.exp() - 1.0).abs() < 1e-12);
    };
    check("--method hoeffding-bentkus --n 100 --sum-losses 5 --delta 0.1", 0.156_510_204_276_953_1);
    check("--method binomial --n 100 --sum-losses 5 --delta 0.1", 0.057_576_886_487_033_8);
    check(
        "--method hoeffding-bentkus --n 30 --sum-losses -1 --delta 0.1 --loss-kind difference",
        0.765_091_273_894_329_1,
    );
    std::fs::write(&losses, format!("id,loss\n{}", "a,0\n".repeat(32))).unwrap();
    let file = losses.to_str().unwrap();
    check(&format!("--method betting --losses {file} --delta 0.1"), 0.047_949_123_592_099_94);
    check(&format!("--method binomial --n 32 --losses {file} --delta 0.1"), 0.9_f64.powi(32));
    std::fs::write(&losses, format!("loss\n1\n{}", "0\n".repeat(19))).unwrap();
    check(&format!("--method betting --losses {file} --delta 0.25 --epsilon 0.1"), 0.051_429_096_988_672_28);
    // Far below the smallest double only the logarithm is left.
    let (p, log_p) = p_value("--method hoeffding-bentkus --n 10000 --sum-losses 0 --delta 0.1");
    assert!(p == 0.0 && (log_p + 1_053.605_156_578_263).abs() < 1e-9);
}

#[test]
fn p_value_mistakes() {
    let check = |arguments: &str, expected: &str| {
        let found = complaint(&run(&format!("p-value --delta 0.1 {arguments}")));
        assert!(found.contains(expected), "{found}\ninstead of {expected}");
    };
    check(
        "--method betting --n 9 --sum-losses 1",
        "--losses FILE is needed: the betting p-value needs every loss, not only their sum",
    );
    check("--method hoeffding --n 9 --sum-losses 12", "9 losses of kind unit cannot have the sum 12");
    check("--method binomial --n 9 --sum-losses 0.5", "9 losses of kind binary cannot have the sum 0.5");
    check("--method hoeffding --n 0 --sum-losses 0", "there are no examples");
    check("--method hoeffding --losses none.csv", "cannot read none.csv");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("losses.csv");
    let check_file = |text: &str, arguments: &str, expected: &str| {
        std::fs::write(&path, text).unwrap();
        check(&format!("--losses {} {arguments}", path.display()), expected);
    };
    check_file("los\n1\n", "--method betting", "losses.csv has no column `loss`");
    check_file("loss\n0\nnone\n", "--method betting", "losses.csv:3: `none` is not a number");
    for other in ["NaN", "inf", "null", ""] {
        let expected = format!("losses.csv:3: `{other}` is not a number");
        check_file(&format!("loss,x\n0,0\n{other},0\n"), "--method betting", &expected);
    }
    let twice = "losses.csv: two columns are named `loss`: rename one of them";
    check_file("loss,loss\n0,1\n", "--method betting", twice);
    check_file("loss\n0\n2\n", "--method betting", "the loss of example 1 is 2, which is not in [0, 1]");
    check_file("loss\n0\n", "--method betting --n 2", "holds 1 loss, but --n is 2");
}

/// Losses of 200 examples at five thresholds, the full model among them: every k-th example has a loss of a
/// half.
fn write_losses(path: &Path) {
    let mut text = "example,threshold,loss\n".to_owned();
    for (threshold, period) in [(1.0, 1000), (0.9, 50), (0.8, 20), (0.7, 8), (0.5, 2)] {
        for example in 1..=200 {
            let loss = if example % period == 0 { 0.5 } else { 0.0 };
            writeln!(text, "e{example},{threshold},{loss}").unwrap();
        }
    }
    std::fs::write(path, text).unwrap();
}

#[test]
fn from_a_file_of_losses() {
    let folder = tempfile::tempdir().unwrap();
    let (losses, output) = (folder.path().join("losses.csv"), folder.path().join("result.json"));
    write_losses(&losses);
    let run = |arguments: &str| {
        let files = format!("--losses {} --output {}", losses.display(), output.display());
        let result = run(&format!("calibrate {files} {arguments}"));
        let error = String::from_utf8(result.stderr).unwrap();
        let json: Value = serde_json::from_str(&std::fs::read_to_string(&output).unwrap()).unwrap();
        (result.status.code().unwrap(), String::from_utf8(result.stdout).unwrap(), error, json)
    };
    // Mean losses are 0.01, 0.025, 0.0625 and 0.25.
    let check = |arguments: &str, code: i32, certified: &[f64]| {
        let (found, table, error, json) = run(arguments);
        assert_eq!((found, error.as_str()), (code, ""), "{arguments}");
        assert_eq!(json["certified"], serde_json::json!(certified), "{arguments}");
        assert_eq!(json["threshold"], *certified.last().unwrap_or(&1.0));
        assert_eq!(json["fallback"], certified.is_empty());
        assert_eq!(table.matches("  certified").count(), certified.len(), "{table}");
    };
    check("--delta 0.1", 0, &[0.9, 0.8, 0.7]);
    check("--delta 0.1 --p-value hoeffding-bentkus", 0, &[0.9, 0.8]);
    check("--delta 0.1 --p-value hoeffding", 0, &[0.9]);
    check("--delta 0.1 --p-value hoeffding-bentkus --epsilon 0.2", 0, &[0.9, 0.8, 0.7]);
    check("--delta 0.02", 3, &[]);
    for procedure in ["holm", "graphical", "fixed-sequence"] {
        check(&format!("--delta 0.1 --procedure {procedure}"), 0, &[0.9, 0.8, 0.7]);
    }
    // Four thresholds share the level, and the p-value of 0.7 is 0.015.
    for procedure in ["bonferroni", "multi-start"] {
        check(&format!("--delta 0.1 --procedure {procedure}"), 0, &[0.9, 0.8]);
    }
    check("--delta 0.1 --procedure pareto --seed 3", 0, &[0.9, 0.8]);
    // At most a tenth of the examples has a loss above 0.4.
    check("--delta 0.1 --loss-limit 0.4", 0, &[0.9, 0.8]);
    check("--delta 0.1 --loss-limit 0.6", 0, &[0.9, 0.8, 0.7, 0.5]);
    check("--delta 0.1 --loss-kind difference", 0, &[0.9, 0.8, 0.7]);

    let (_, table, _, json) = run("--delta 0.1 --procedure multi-start --starts 2");
    assert_eq!(json["procedure"], "multi-start");
    assert_eq!(json["starts"], 2);
    assert_eq!(json["p_value"], "betting");
    assert_eq!(json["loss_kind"], "unit");
    assert_eq!(json["delta"], 0.1);
    assert_eq!(json["epsilon"], 0.05);
    assert_eq!(json["bets_tuned_for"], 0.025);
    assert_eq!(json["examples"], 200);
    assert_eq!(json["thresholds"], serde_json::json!([0.9, 0.8, 0.7, 0.5]));
    let numbers = |key: &str| -> Vec<f64> {
        json[key].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
    };
    for (p, log_p) in numbers("p_values").iter().zip(numbers("log_p_values")) {
        assert!((p / log_p.exp() - 1.0).abs() < 1e-12);
    }
    assert!(
        table.contains("certified: threshold 0.7") && table.contains("200 examples, delta 0.1"),
        "{table}"
    );
    let (_, table, _, _) = run("--delta 0.02");
    assert!(table.contains("no threshold is certified: only the full model"), "{table}");

    let graph = folder.path().join("graph.json");
    std::fs::write(
        &graph,
        r#"{"weights": [1, 0, 0, 0], "transitions": [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]}"#,
    )
    .unwrap();
    check(&format!("--delta 0.1 --procedure graphical --graph {}", graph.display()), 0, &[0.9, 0.8, 0.7]);

    // A result that is valid only if nobody sorted the losses says so.
    let sorted: String = (0..100).map(|i| format!("{i},0.9,{}\n", f64::from(i) / 1000.0)).collect();
    std::fs::write(&losses, format!("example,threshold,loss\n{sorted}")).unwrap();
    let (code, _, error, json) = run("--delta 0.2");
    assert_eq!((code, &json["sorted_losses"]), (0, &serde_json::json!([0.9])));
    assert!(error.starts_with("warning: the losses at threshold 0.9 ascend"), "{error}");
}

#[test]
fn calibration_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let losses = folder.path().join("losses.csv");
    let check = |text: &str, arguments: &str, expected: &str| {
        std::fs::write(&losses, text).unwrap();
        let found =
            complaint(&run(&format!("calibrate --losses {} --delta 0.1 {arguments}", losses.display())));
        assert!(found.contains(expected), "{found}\ninstead of {expected}");
    };
    const GOOD: &str = "threshold,example,loss\n0.9,a,0\n";
    check("threshold,example\n0.9,a\n", "", "there is no column `loss`, only `threshold`, `example`");
    check(
        "threshold,example,loss\n0.9,a,0\n0.9,b,0\n0.8,b,0\n",
        "",
        "example `a` has no loss at threshold 0.8",
    );
    check(
        "threshold,example,loss\n0.9,a,0\n0.9,a,0\n",
        "",
        "line 3: example `a` has a second loss at threshold 0.9",
    );
    check(
        "threshold,example,loss\n0.9,a,1.5\n",
        "",
        "line 2: the loss of example `a` at threshold 0.9 is 1.5, which",
    );
    check(GOOD, "--p-value binomial", "the binomial p-value does not hold for losses of kind unit");
    check(GOOD, "--starts 3", "--starts has no meaning for the procedure fixed-sequence");
    check(GOOD, "--dtype int8", "--dtype has no meaning for --losses");
    check(GOOD, "--procedure multi-start --starts 0", "--starts is 0, but must be at least 1");
    check(GOOD, "--procedure graphical --graph none.json", "cannot read none.json");
    check(GOOD, "--procedure pareto", "1 example is too few to be split");
    check(
        GOOD,
        "--procedure pareto --selection-share 1.5",
        "the share of a split must lie in (0, 1), found 1.5",
    );

    for arguments in [
        "--delta 0.1",
        "--losses a.csv",
        "--losses a.csv --delta 0",
        "--losses a.csv --delta 0.1 --epsilon 1",
        "--losses a.csv --delta 0.1 --p-value entropy",
        "--losses a.csv --delta 0.1 --measure softmax",
        "--losses a.csv --model m --delta 0.1",
        "--model m --delta 0.1 --measure state",
        "--model m --data d.jsonl --measure entropy --delta 0.1",
    ] {
        let output = run(&format!("calibrate {arguments}"));
        assert_eq!(output.status.code(), Some(2), "{arguments}");
    }
}

/// The numbers of examples are those that were found with `calm p-value` for the chapter on certificates.
#[test]
fn a_plan_says_how_many_examples_are_needed() {
    for (arguments, expected) in [
        ("--delta 0.02", [149, 367, 880, 3400]),
        ("--delta 0.1", [29, 70, 160, 639]),
        ("--delta 0.2 --p-value hoeffding-bentkus", [14, 32, 78, 293]),
    ] {
        let printed = printed(run(&format!("calibrate --plan {arguments}")));
        let cells = printed.lines().skip(1).take(4).map(|line| line.split_whitespace().nth(1).unwrap());
        assert_eq!(cells.map(|cell| cell.parse().unwrap()).collect::<Vec<usize>>(), expected, "{printed}");
    }
    // With no loss at all ln(epsilon) / ln(1 - delta) are enough.
    let binary = printed(run("calibrate --plan --delta 0.1 --loss-kind binary"));
    assert!(binary.lines().nth(1).unwrap().ends_with(" 29") && binary.contains(", binomial\n"), "{binary}");
    assert_eq!(run("calibrate --plan --delta 0.1 --model m").status.code(), Some(2));
}

/// Fixed-sequence testing certifies as long as upper bounds are at most delta.
#[test]
fn upper_bounds_and_a_picture_show_what_is_certified() {
    let (model, folder) = model_and_examples();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let output = run(&format!(
        "calibrate --device cpu --model {} --data {} --output {} --max-tokens 6 --thresholds 0.9,0.6,0.3,0.1 --measure softmax \
         --metric chrf --delta 0.5 --plot {}",
        model.path().display(),
        path("data.jsonl"),
        path("calibration.json"),
        path("risk.svg"),
    ));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.lines().next().unwrap().contains("upper bound"), "{table}");
    let json: Value =
        serde_json::from_str(&std::fs::read_to_string(path("calibration.json")).unwrap()).unwrap();
    let numbers = |key: &str| -> Vec<f64> { serde_json::from_value(json[key].clone()).unwrap() };
    let (bounds, means) = (numbers("upper_bounds"), numbers("empirical_losses"));
    assert_eq!(bounds.len(), 4);
    assert!(bounds.iter().zip(&means).all(|(bound, mean)| bound >= mean), "{json}");
    let certified = bounds.iter().take_while(|&&bound| bound <= 0.5).count();
    assert_eq!(numbers("certified").len(), certified);
    for name in ["risk.svg", "risk.png"] {
        assert!(
            table.contains(&path(name)) && std::fs::metadata(path(name)).unwrap().len() > 1000,
            "{table}"
        );
    }
    let svg = std::fs::read_to_string(path("risk.svg")).unwrap();
    assert!(["threshold", "mean loss", "delta 0.5"].iter().all(|text| svg.contains(text)));
}

#[test]
fn from_a_model_to_generation() {
    let (model, folder) = model_and_examples();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let calibrate = |arguments: &str| {
        let common = format!(
            "calibrate --device cpu --model {} --data {} --output {} --max-tokens 6 --thresholds 0.9,0.6,0.3,0.1 {arguments}",
            model.path().display(),
            path("data.jsonl"),
            path("calibration.json"),
        );
        let output = run(&common);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(matches!(output.status.code(), Some(0 | 3)), "{error}");
        let json = std::fs::read_to_string(path("calibration.json")).unwrap();
        (output.status.code().unwrap(), serde_json::from_str::<Value>(&json).unwrap())
    };
    let (code, json) = calibrate("--measure state --decay 1 --metric token-disagreement --delta 0.9");
    assert_eq!(code, 0);
    for (key, expected) in [
        ("objective", "textual"),
        ("metric", "token-disagreement"),
        ("policy", "calm-state-*-tau1"),
        ("p_value", "betting"),
        ("procedure", "fixed-sequence"),
    ] {
        assert_eq!(json[key], expected);
    }
    assert_eq!(
        (&json["examples"], &json["max_tokens"], &json["num_layers"]),
        (&60.into(), &6.into(), &4.into())
    );
    assert_eq!(json["model_fingerprint"].as_str().unwrap().len(), 64);
    let layers = json["average_layers"].as_f64().unwrap();
    assert!((1.0..4.0).contains(&layers), "{layers}");

    // The same by hand.
    let threshold = json["threshold"].as_f64().unwrap().to_string();
    let lines = "{\"source\": \"two three\"}\n{\"source\": \"ten one four\"}\n";
    let calibrated = ["--calibration", &path("calibration.json")];
    let by_hand = ["--policy", "calm", "--measure", "state", "--decay", "1", "--max-tokens", "6"];
    let by_hand = [&by_hand[..], &["--threshold", &threshold]].concat();
    let applied = |arguments: &[&str]| {
        let output = generate(model.path(), &[&calibrated[..], arguments].concat(), lines);
        let said = notes(&output.stderr);
        let expected = format!("calibration.json: calm-state-{threshold}-tau1, calibrated on 60 examples");
        assert!(output.status.success() && said.contains(&expected) && said.lines().count() == 1, "{said}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(applied(&[]), printed(generate(model.path(), &by_hand, lines)));
    // The same weights are the same model, whatever computes.
    applied(&["--dtype", "f32"]);
    applied(&["--engine", "libtorch"]);

    // Another delta decodes nothing again: the model is not even needed in working order.
    let generations = Path::new(&path("calibration")).join("generations");
    let modified = |folder: &Path| -> Vec<std::time::SystemTime> {
        let files = walk(folder);
        files.iter().map(|file| file.metadata().unwrap().modified().unwrap()).collect()
    };
    let before = modified(&generations);
    assert_eq!(before.len(), 5);
    let (code, strict) = calibrate("--measure state --decay 1 --metric token-disagreement --delta 0.001");
    assert_eq!((code, &strict["threshold"], &strict["fallback"]), (3, &Value::from(1.0), &true.into()));
    assert_eq!(modified(&generations), before);
    assert_eq!(strict["average_layers"], 4.0);
    let output = generate(model.path(), &calibrated, lines);
    assert!(notes(&output.stderr).starts_with("note: the calibration certified no threshold"));
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"average_layers\":4.0"));

    for (objective, kind) in [("risk", "unit"), ("signed-risk", "difference")] {
        let (_, json) =
            calibrate(&format!("--measure softmax --metric token-f1 --delta 0.5 --objective {objective}"));
        assert_eq!((&json["objective"], &json["loss_kind"]), (&objective.into(), &kind.into()));
    }
    let (_, json) = calibrate("--measure softmax --metric exact --delta 0.9");
    assert_eq!((&json["loss_kind"], &json["p_value"]), (&"binary".into(), &"binomial".into()));

    // Another model is refused, and so are other weights of the same one.
    let narrow = complaint(&generate(model.path(), &[&calibrated[..], &["--dtype", "int8"]].concat(), lines));
    assert!(narrow.contains("this one has int8-"), "{narrow}");
    let narrow = complaint(&generate(model.path(), &[&calibrated[..], &["--dtype", "bf16"]].concat(), lines));
    assert!(narrow.starts_with("the calibration was made with other arithmetic (fingerprint "), "{narrow}");
    assert!(narrow.contains("this one has bf16-"), "{narrow}");
    let config = model.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text + "\n").unwrap();
    let found = complaint(&generate(model.path(), &calibrated, lines));
    assert!(found.starts_with("the calibration was made with another model (fingerprint "), "{found}");
    assert!(found.ends_with("--force uses it without its guarantee"), "{found}");
    let forced = generate(model.path(), &[&calibrated[..], &["--force"]].concat(), lines);
    assert!(forced.status.success());
    assert!(String::from_utf8_lossy(&forced.stderr).contains("nothing is guaranteed"));

    std::fs::write(path("calibration.json"), "{}").unwrap();
    let found = complaint(&generate(model.path(), &calibrated, lines));
    assert!(found.contains("calibration.json is not a calibration of a model"), "{found}");
}

/// A model with a tokenizer, and a folder with examples for it in `data.jsonl`.
fn model_and_examples() -> (TempDir, TempDir) {
    let (model, folder) = (copied_checkpoint(), tempfile::tempdir().unwrap());
    write_tokenizer(&model.path().join("tokenizer.json"));
    write_examples(&folder.path().join("data.jsonl"));
    (model, folder)
}

/// 60 examples whose targets are the numbers.
fn write_examples(path: &Path) {
    let line = |(index, (english, french)): (usize, &(&str, &str))| {
        let source = format!("{english} {}", NUMBERS[index / 7].0);
        format!("{}\n", serde_json::json!({"source": source, "target": french}))
    };
    let lines: String = NUMBERS.iter().cycle().take(60).enumerate().map(line).collect();
    std::fs::write(path, lines).unwrap();
}

#[test]
fn a_certificate_holds_for_its_arithmetic_and_prefix_and_is_not_replaced_unasked() {
    let (model, folder) = model_and_examples();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let calibrate = |arguments: &str| {
        run(&format!(
            "calibrate --device cpu --model {} --data {} --measure state --thresholds 0.9,0.1 --metric token-disagreement \
             --delta 0.9 --output {} {arguments}",
            model.path().display(),
            path("data.jsonl"),
            path("c.json"),
        ))
    };
    let made = |output: Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read_to_string(path("c.json")).unwrap()
    };
    let from = path("c.json");
    let generate = |arguments: &[&str], source: &str| {
        let line = serde_json::json!({ "source": source }).to_string();
        generate(model.path(), &[&["--max-tokens", "6"][..], arguments].concat(), &line)
    };
    let certified = |arguments: &[&str]| {
        let line = serde_json::json!({"source": "two three"}).to_string();
        crate::command::generate(model.path(), &[&["--calibration", &from], arguments].concat(), &line)
    };

    // What was certified for rounded weights says nothing about those of the file.
    made(calibrate("--max-tokens 6 --dtype bf16"));
    assert!(certified(&["--dtype", "bf16"]).status.success());
    for other in [
        &[][..],
        &["--dtype", "f32"],
        &["--dtype", "int8"],
        &["--dtype", "bf16", "--cache-dtype", "f16"],
        &["--engine", "libtorch"],
    ] {
        let found = complaint(&certified(other));
        assert!(
            found.starts_with("the calibration was made with other arithmetic (fingerprint bf16-"),
            "{found}"
        );
    }

    // Something else of this name stays.
    let before = std::fs::read_to_string(&from).unwrap();
    for (arguments, expected) in [
        ("--max-tokens 6", "the calibration of another model or type of weights"),
        ("--max-tokens 5 --dtype bf16", "a calibration with other maximal lengths"),
        ("--max-tokens 6 --dtype bf16 --prefix five", "a calibration with another prefix or other columns"),
    ] {
        let found = complaint(&calibrate(arguments));
        assert_eq!(
            found,
            format!("{from} is {expected}: name another --output, or replace it with --overwrite")
        );
        assert_eq!(std::fs::read_to_string(&from).unwrap(), before);
    }
    made(calibrate("--max-tokens 6 --overwrite --prefix five"));
    std::fs::write(path("losses.csv"), "threshold,example,loss\n0.9,a,0\n").unwrap();
    let from_losses =
        |arguments: &str| run(&format!("calibrate --losses {} --delta 0.9 {arguments}", path("losses.csv")));
    let found = complaint(&from_losses(&format!("--output {from}")));
    assert!(found.contains("is the calibration of a model"), "{found}");
    let found = complaint(&from_losses(&format!("--output {}", path("data.jsonl"))));
    assert!(found.contains("is something else than a calibration"), "{found}");
    let found = complaint(&from_losses(&format!("--output {}", path("losses.csv"))));
    assert!(found.contains("losses.csv: it is also the input "), "{found}");

    // Its prefix is put in front as in calibration, and is not put there twice.
    let text = |output: Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["tokens"].clone()
    };
    let threshold =
        serde_json::from_str::<Value>(&std::fs::read_to_string(&from).unwrap()).unwrap()["threshold"]
            .to_string();
    let policy = format!("calm-state-{threshold}");
    let by_hand = text(generate(&["--policy", &policy], "fivetwo three"));
    assert_eq!(text(certified(&[])), by_hand);
    assert_eq!(text(generate(&["--policy", &policy, "--prefix", "five"], "two three")), by_hand);
    assert_eq!(text(generate(&["--policy", &policy, "--prefix", "five"], "fivetwo three")), by_hand);
}

#[test]
fn a_limit_above_what_there_is_is_told() {
    let (model, folder) = model_and_examples();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let output = run(&format!(
        "calibrate --device cpu --model {} --data {} --measure state --thresholds 0.9 --delta 0.9 --max-tokens 2 --limit 61 \
         --output {}",
        model.path().display(),
        path("data.jsonl"),
        path("c.json"),
    ));
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = format!(
        "warning: {}: 61 examples are asked for, but there are only 60, and all are taken\n",
        path("data.jsonl")
    );
    assert!(said.contains(&expected), "{said}");
}

/// All files below a folder, in the order of their paths.
fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}
