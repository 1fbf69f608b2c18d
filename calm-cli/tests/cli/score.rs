//! `calm score`.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{calm, complaint, printed};

/// A folder with outputs of two systems, and references as text and as JSON Lines.
fn files() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, lines: [&str; 3]| {
        std::fs::write(folder.path().join(name), lines.join("\n") + "\n").unwrap()
    };
    write("full.txt", ["the cat is on the mat", "good evening to you all", "it runs"]);
    write("early.txt", ["the cat sat on the mat", "good morning to you all", "It ran"]);
    write(
        "early.jsonl",
        [
            r#"{"text": "the cat sat on the mat", "tokens": [1]}"#,
            r#"{"text": "good morning to you all"}"#,
            r#"{"text": "It ran"}"#,
        ],
    );
    write("references.txt", ["the cat is on the mat", "good evening to you all", "it runs"]);
    write("more.txt", ["a cat sat there", "hello all of you", "it is running"]);
    write(
        "references.jsonl",
        [
            r#"{"target": ["the cat is on the mat", "a cat sat there"]}"#,
            r#"{"target": ["good evening to you all", "hello all of you"]}"#,
            r#"{"target": ["it runs", "it is running"]}"#,
        ],
    );
    write("empty.jsonl", [r#"{"target": "a"}"#, r#"{"target": []}"#, r#"{"target": "b"}"#]);
    std::fs::write(folder.path().join("short.txt"), "one line\n").unwrap();
    std::fs::write(folder.path().join("none.txt"), "").unwrap();
    folder
}

/// `calm score` with these arguments, in which a name with a dot is a file of the folder.
fn score(folder: &Path, arguments: &str) -> Output {
    let in_folder = |names: &str| {
        let paths = names.split(',').map(|name| folder.join(name).to_str().unwrap().to_owned());
        paths.collect::<Vec<_>>().join(",")
    };
    let is_file = |word: &str| word.ends_with(".txt") || word.ends_with(".jsonl");
    let words =
        arguments.split(' ').map(|word| if is_file(word) { in_folder(word) } else { word.to_owned() });
    calm(std::iter::once("score".to_owned()).chain(words), "")
}

fn reports(folder: &Path, arguments: &str) -> Vec<Value> {
    serde_json::from_str(&printed(score(folder, arguments))).unwrap()
}

#[test]
fn scores_with_intervals_and_signatures() {
    let folder = files();
    let early = "--hypotheses early.txt --references references.txt";
    let all =
        reports(folder.path(), &format!("--metric bleu,chrf++,rouge-l,ter {early} --bootstrap 100 --seed 7"));
    let signatures: Vec<&str> = all.iter().map(|report| report["signature"].as_str().unwrap()).collect();
    assert_eq!(
        signatures,
        [
            "nrefs:1|bs:100|seed:7|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0",
            "nrefs:1|bs:100|seed:7|case:mixed|eff:yes|nc:6|nw:2|space:no|version:2.6.0",
            "nrefs:1|bs:100|seed:7|case:lc|type:rougeL|stem:no|version:0.1.2",
            "nrefs:1|bs:100|seed:7|case:lc|tok:tercom|norm:no|punct:yes|asian:no|version:2.6.0",
        ]
    );
    // 5/6, 4/5 and 1/2; 3 substitutions in 13 words.
    let rouge = (5.0 / 6.0 + 4.0 / 5.0 + 1.0 / 2.0) / 3.0 * 100.0;
    assert!((all[2]["score"].as_f64().unwrap() - rouge).abs() < 1e-9);
    assert!((all[3]["score"].as_f64().unwrap() - 300.0 / 13.0).abs() < 1e-9);
    assert_eq!([&all[2]["higher_is_better"], &all[3]["higher_is_better"]], [true, false]);
    for report in &all {
        let [low, high] = ["low", "high"].map(|end| report["confidence"][end].as_f64().unwrap());
        assert!((low..=high).contains(&report["score"].as_f64().unwrap()), "{report}");
    }

    let options = "--tokenize intl --smooth add-k --smooth-value 0.5 --lowercase --bootstrap 0 --sentence";
    let [report] = &reports(folder.path(), &format!("--metric bleu {early} {options}"))[..] else { panic!() };
    assert_eq!(report["signature"], "nrefs:1|case:lc|eff:no|tok:intl|smooth:add-k[0.50]|version:2.6.0");
    assert_eq!(
        report["sentences"]["signature"],
        "nrefs:1|case:lc|eff:yes|tok:intl|smooth:add-k[0.50]|version:2.6.0"
    );
    assert_eq!(report["sentences"]["scores"].as_array().unwrap().len(), 3);
    assert!(report.get("confidence").is_none() && report.get("comparison").is_none());

    let stemmed = reports(folder.path(), &format!("--metric rouge-1 {early} --stem --bootstrap 0"));
    assert_eq!(stemmed[0]["signature"], "nrefs:1|case:lc|type:rouge1|stem:yes|version:0.1.2");
}

#[test]
fn json_lines_say_the_same_as_text() {
    let folder = files();
    let metrics = "--metric bleu,chrf,ter,rouge-lsum,token-f1,exact --sentence";
    let text = "--hypotheses early.txt --references references.txt,more.txt";
    let json = "--hypotheses early.jsonl --references references.jsonl";
    let expected = reports(folder.path(), &format!("{metrics} {text}"));
    assert!(expected[0]["signature"].as_str().unwrap().starts_with("nrefs:2|bs:1000|seed:12345|"));
    assert_eq!(reports(folder.path(), &format!("{metrics} {json}")), expected);
    let other_columns = "--hypotheses references.jsonl --hypothesis-column target --references early.jsonl";
    let error =
        complaint(&score(folder.path(), &format!("--metric bleu {other_columns} --reference-column text")));
    assert!(error.ends_with("references.jsonl: segment 1 has no single output"), "{error}");
}

#[test]
fn systems_are_compared() {
    let folder = files();
    let files = "--metric chrf --hypotheses early.txt --references references.txt";
    for (test, signature) in [("bootstrap", "bs:1000|"), ("randomisation", "bs:1000|ar:500|")] {
        let flags = format!("{files} --baseline full.txt --paired {test} --trials 500");
        let [report] = &reports(folder.path(), &flags)[..] else { panic!() };
        let comparison = &report["comparison"];
        assert_eq!(comparison["test"], test);
        assert_eq!(comparison["baseline"], 100.0);
        let difference = report["score"].as_f64().unwrap() - 100.0;
        assert!((comparison["difference"].as_f64().unwrap() - difference).abs() < 1e-12);
        assert!((0.0..=1.0).contains(&comparison["p_value"].as_f64().unwrap()));
        assert!(
            report["signature"].as_str().unwrap().starts_with(&format!("nrefs:1|{signature}seed:12345|"))
        );
        let same = reports(folder.path(), &flags.replace("full.txt", "early.txt"));
        assert_eq!(same[0]["comparison"]["difference"], 0.0);
    }
}

#[test]
fn score_mistakes() {
    let folder = files();
    let check = |arguments: &str, expected: &str| {
        let found = complaint(&score(folder.path(), arguments));
        assert!(found.contains(expected), "{found}\ninstead of {expected}");
        found
    };
    let found = check(
        "--metric bleu --hypotheses early.txt --references references.txt,short.txt",
        "early.txt has 3 segments but ",
    );
    assert!(found.ends_with("short.txt has 1"), "{found}");
    let early = "--hypotheses early.txt --references references.txt";
    check(&format!("--metric bleu {early} --baseline short.txt"), "short.txt has 1");
    check("--metric bleu --hypotheses none.txt --references none.txt", "none.txt holds no segments");
    check("--metric bleu --hypotheses missing.txt --references none.txt", "missing.txt: No such file");
    check(
        "--metric bleu --hypotheses early.txt --references empty.jsonl",
        "segment 1 (counted from 0) has no reference",
    );
    check(
        "--metric bleu --hypotheses early.jsonl --references early.jsonl",
        "early.jsonl:1: no field `target`",
    );
    check(
        "--metric bleu --hypotheses early.jsonl --hypothesis-column tokens --references early.txt",
        "early.jsonl:1: `tokens` is neither a string nor a list of strings",
    );
    check(&format!("--metric chrf {early} --tokenize char"), "--tokenize has no meaning for these metrics");
    check(&format!("--metric rouge-l {early} --lowercase"), "--lowercase has no meaning for these metrics");
    check(&format!("--metric bleu {early} --stem"), "--stem has no meaning for these metrics");
    check(&format!("--metric bleu {early} --smooth exp --smooth-value 1"), "floor and add-k only");
    check(&format!("--metric bleu {early} --smooth floor --smooth-value -1"), "must be at least 0");
    check(
        &format!("--metric bleu {early} --baseline full.txt --bootstrap 0"),
        "the number of resamples is 0, but must be at least 1",
    );
    let unknown = score(folder.path(), &format!("--metric blue {early}"));
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("unknown metric `blue`"));
}
