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
    let output = score(folder, &format!("{arguments} --json -"));
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
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

/// A pipe has no name that tells the format, and no name may tell a wrong one.
#[test]
fn the_content_tells_the_format() {
    let folder = files();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let expected = reports(folder.path(), "--metric bleu --hypotheses early.txt --references references.txt");
    let records = std::fs::read_to_string(path("early.jsonl")).unwrap();
    std::fs::write(path("early.JSONL"), &records).unwrap();
    std::fs::write(path("renamed.txt"), &records).unwrap();
    std::fs::write(
        path("nested"),
        records.replace("{\"text\": ", "{\"out\": {\"text\": ").replace('}', "}}"),
    )
    .unwrap();
    let nested = ["--hypothesis-column", "out.text"];
    for (hypotheses, column) in [
        (path("early.JSONL"), &[][..]),
        (path("renamed.txt"), &[]),
        (path("nested"), &nested),
        ("/dev/stdin".to_owned(), &[]),
        ("-".to_owned(), &[]),
    ] {
        let references = path("references.txt");
        let files = ["score", "--metric", "bleu", "--hypotheses", &hypotheses, "--references", &references];
        let output = calm([&files, column, &["--json", "-"]].concat(), records.clone());
        let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found, expected, "{hypotheses}");
    }
}

#[test]
fn notes() {
    let folder = tempfile::tempdir().unwrap();
    let check = |metric: &str, text: &str, column: &str, expected: &str| {
        let path = folder.path().join("text.txt");
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let files = ["score", "--metric", metric, "--hypotheses", path, "--references", path];
        let output =
            calm([&files, &["--hypothesis-column", column, "--reference-column", column][..]].concat(), "");
        assert!(output.status.success());
        let notes = String::from_utf8(output.stderr).unwrap().replace(path, "FILE");
        if expected.is_empty() {
            assert_eq!(notes, "");
        } else {
            assert!(notes.starts_with(&format!("note: {expected}")), "{notes}");
        }
    };
    check("bleu", "good day\nyes\n", "text", "bleu: no output has 4 tokens, so that the score is 0");
    check("bleu", "good day\nto all of you\n", "text", "");
    check("bleu", "\n", "text", "");
    check(
        "rouge-l",
        "привет мир\nhello\n你好\n",
        "text",
        "rouge-l: no word is seen in the references of 2 of 3 segments",
    );
    check("rouge-l", "Ça va\n...\n\n", "text", "");
    check(
        "chrf",
        "{\"a\": \"one\"}\n",
        "text",
        "FILE holds JSON objects without `text`: its lines are taken as text",
    );
}

#[test]
fn scores_are_printed_as_a_table_or_bare() {
    let folder = files();
    let early = "--hypotheses early.jsonl --references references.txt";
    let [bleu, chrf] =
        &reports(folder.path(), &format!("--metric bleu,chrf {early} --baseline full.txt"))[..]
    else {
        panic!()
    };
    let bare = printed(score(folder.path(), &format!("--metric bleu,chrf {early} -b")));
    let number = |value: &Value| format!("{:.2}", value.as_f64().unwrap());
    assert_eq!(bare, format!("{}\n{}\n", number(&bleu["score"]), number(&chrf["score"])));
    let table = printed(score(folder.path(), &format!("--metric bleu,chrf {early} --baseline full.txt")));
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["metric", "score", "95", "%", "interval", "baseline", "difference", "p"]
    );
    for (line, report) in lines[1..3].iter().zip([bleu, chrf]) {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let expected = ["/confidence/low", "/confidence/high", "/comparison/baseline"];
        let found = [cells[2], cells[4], cells[5]];
        assert_eq!((cells[0], cells[1]), (report["metric"].as_str().unwrap(), &*number(&report["score"])));
        assert_eq!(found.map(str::to_owned), expected.map(|path| number(report.pointer(path).unwrap())));
    }
    assert_eq!(lines[3..], [bleu, chrf].map(|report| report["signature"].as_str().unwrap()));
    // A column without anything in it is left out.
    let plain = printed(score(folder.path(), &format!("--metric bleu {early} --bootstrap 0")));
    assert!(plain.starts_with("metric  score\nbleu "), "{plain}");
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
        "empty.jsonl: segment 2 has no reference",
    );
    check(
        "--metric bleu --hypotheses early.jsonl --references early.jsonl",
        "early.jsonl:1: no column `target`; there are: text, tokens",
    );
    check(
        "--metric bleu --hypotheses early.jsonl --hypothesis-column tokens --references early.txt",
        "early.jsonl:1: column `tokens` should be a string or a list of strings, found a number",
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
