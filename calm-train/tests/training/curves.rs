use std::fs;
use std::path::Path;

use calm_train::{Error, draw_learning_curves};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Returns the SVG that is drawn from a log, if there is one.
fn drawn(log: &str) -> Option<String> {
    let folder = TempDir::new().unwrap();
    let files = draw_in(folder.path(), log.as_bytes()).unwrap();
    let names = fs::read_dir(folder.path().join("plots")).map_or(0, Iterator::count);
    assert_eq!(names, files.len(), "nothing is left beside the figures");
    if files.is_empty() {
        return None;
    }
    assert_eq!(
        files,
        ["svg", "png"].map(|kind| folder.path().join("plots/learning_curves").with_extension(kind))
    );
    assert!(fs::read(&files[1]).unwrap().starts_with(b"\x89PNG"));
    Some(fs::read_to_string(&files[0]).unwrap())
}

fn draw_in(folder: &Path, log: &[u8]) -> Result<Vec<std::path::PathBuf>, Error> {
    let path = folder.join("log.jsonl");
    fs::write(&path, log).unwrap();
    draw_learning_curves(&path, &folder.join("plots"))
}

fn text(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Writes the losses of a training interval, of which the last one is the last exit's.
fn step(step: u64, exit_losses: &[Option<f64>]) -> Value {
    json!({
        "step": step, "epoch": 0.1, "loss": exit_losses.last().unwrap(), "exit_losses": exit_losses,
        "learning_rate": 0.01, "gradient_norm": 1.2, "tokens_per_second": 900.0, "data_wait": 0.001,
    })
}

/// Writes a validation of tasks, each with a name, a metric and a score at every exit.
fn validation(step: u64, loss: f64, tasks: &[(&str, &str, &[f64])]) -> Value {
    let task = |&(name, metric, scores): &(&str, &str, &[f64])| {
        json!({
            "name": name, "metric": metric, "examples": 300, "score": scores.last(), "exit_scores": scores,
            "loss": loss, "exit_losses": scores.iter().map(|_| loss).collect::<Vec<f64>>(),
        })
    };
    json!({"step": step, "validation": {"loss": loss, "tasks": tasks.iter().map(task).collect::<Vec<_>>()}})
}

fn is_label(svg: &str, text: &str) -> bool {
    svg.lines().any(|line| line == text)
}

/// Finds the lines of a colour, as heights in units of the figure from its top.
fn heights(svg: &str, colour: &str) -> Vec<Vec<f64>> {
    let lines = svg.lines().filter(|line| line.starts_with("<polyline") && line.contains(colour));
    let y = |pair: &str| pair.split_once(',').unwrap().1.parse::<f64>().unwrap() / 10.0;
    let points = |line: &str| line.split_once("points=\"").unwrap().1.split_once('"').unwrap().0.to_owned();
    lines.map(|line| points(line).split_whitespace().map(y).collect()).collect()
}

/// A case has a name, lines of the log, groups of labels that must be there, and labels that must not.
type Case<'a> = (&'a str, Vec<Value>, Vec<&'a [&'a str]>, &'a [&'a str]);

/// The colour of the last exit.
const DARK: &str = "#08306B";

#[test]
fn every_log_has_the_panels_and_legends_of_what_is_in_it() {
    let first = step(20, &[Some(9.0), None, Some(8.0)]);
    let second = step(40, &[Some(5.0), Some(4.5), Some(4.0)]);
    let both = validation(
        40,
        3.9,
        &[("translation", "bleu", &[10.0, 28.1, 31.2]), ("qa", "token-f1", &[1.0, 2.0, 3.0])],
    );
    let one_exit = validation(40, 3.9, &[("summaries", "rouge-l", &[20.0])]);
    let unknown = validation(40, 3.9, &[("translation", "comet", &[0.5, 0.6, 0.7])]);
    let later = validation(60, 3.5, &[("translation", "bleu", &[15.0, 29.0, 33.0])]);
    let exits = ["training loss", "exit 1", "exit 2", "exit 3"];
    let scores =
        ["validation, last exit", "validation score", "translation, BLEU", "all 3 layers", "2 layers"];
    let loss_only =
        json!({"step": 20, "loss": 8.0, "exit_losses": [null, null, 8.0], "of a later version": {}});
    let not_finite = json!({"step": 40, "validation": {"loss": null, "tasks": [
        {"name": "translation", "metric": "bleu", "score": null, "exit_scores": [null, null]}]}});
    let cases: [Case<'_>; 9] = [
        (
            "one step",
            vec![first.clone()],
            vec![&["training loss", "exit 1", "exit 3"]],
            &["exit 2", "validation score"],
        ),
        (
            "two steps",
            vec![first.clone(), second.clone()],
            vec![&exits],
            &["validation, last exit", "validation score"],
        ),
        (
            "one validation",
            vec![first.clone(), second.clone(), both.clone()],
            vec![&exits, &scores, &["qa, token-f1"]],
            &[],
        ),
        (
            "validations with different tasks",
            vec![first.clone(), second, both.clone(), later],
            vec![&exits, &scores, &["qa, token-f1"]],
            &[],
        ),
        (
            "one exit",
            vec![first.clone(), one_exit],
            vec![&["summaries, ROUGE-L"]],
            &["all 1 layers", "1 layers"],
        ),
        (
            "a metric without a label",
            vec![unknown],
            vec![&["translation, comet", "validation loss"]],
            &["training loss"],
        ),
        ("only validations", vec![both], vec![&["validation loss"], &scores], &["training loss", "exit 1"]),
        ("one exit computed", vec![loss_only], vec![&["exit 3"]], &["exit 1", "exit 2"]),
        (
            "scores that are no numbers",
            vec![first, not_finite],
            vec![&["exit 3"]],
            &["validation score", "all 2 layers", "validation, last exit"],
        ),
    ];
    for (name, lines, present, absent) in cases {
        let svg = drawn(&text(&lines)).unwrap();
        for label in present.into_iter().flatten() {
            assert!(is_label(&svg, label), "{name}: {label} is missing");
        }
        for label in absent {
            assert!(!is_label(&svg, label), "{name}: {label} is there");
        }
    }
}

#[test]
fn of_nothing_no_figure_is_made() {
    let diverged = json!({"step": 20, "loss": null, "exit_losses": [null, null]});
    for log in ["", "{\"step\": 20, \"lo", &text(&[diverged])] {
        assert_eq!(drawn(log), None, "{log}");
    }
}

#[test]
fn a_last_line_that_was_cut_off_is_as_if_it_were_not_there() {
    let whole = text(&[step(20, &[Some(9.0), Some(8.0)]), step(40, &[Some(5.0), Some(4.0)])]);
    let last = text(&[validation(60, 3.0, &[("français", "bleu", &[1.0, 2.0])])]);
    let expected = drawn(&whole);
    let folder = TempDir::new().unwrap();
    for length in 0..last.len() - 1 {
        // The cut may be in the middle of a letter of several bytes; the last piece lacks only the end of the
        // line.
        let log = [whole.as_bytes(), &last.as_bytes()[..length]].concat();
        if length % 40 == 0 || !last.is_char_boundary(length) {
            let files = draw_in(folder.path(), &log).unwrap();
            assert_eq!(fs::read_to_string(&files[0]).ok(), expected, "{length}");
        }
    }
    assert_ne!(drawn(&(whole + last.trim_end())), expected, "complete but for its end of line");
}

#[test]
fn what_is_not_a_log_is_refused_with_file_and_line() {
    let folder = TempDir::new().unwrap();
    let good = text(&[step(20, &[Some(9.0)])]);
    for (second, reason) in [
        ("{\"step\": 40, \"lo\n", "line 2: EOF while parsing a string, column 16"),
        ("{\"loss\": 3.0}\n", "line 2: missing field `step`, column 13"),
        (
            "{\"step\": 40, \"loss\": \"3.0\"}\n",
            "line 2: invalid type: string \"3.0\", expected f64, column 26",
        ),
    ] {
        let error = draw_in(folder.path(), format!("{good}{second}{good}").as_bytes()).unwrap_err();
        assert!(matches!(error, Error::File(_)), "{error}");
        let message = error.to_string();
        assert!(message.contains("log.jsonl: ") && message.contains(reason), "{message}");
    }
    let missing = draw_learning_curves(&folder.path().join("none.jsonl"), folder.path()).unwrap_err();
    assert!(matches!(missing, Error::File(_)), "{missing}");
    let file = folder.path().join("log.jsonl");
    fs::write(&file, &good).unwrap();
    let blocked = draw_learning_curves(&file, &file).unwrap_err();
    assert!(matches!(blocked, Error::Plot(_)), "{blocked}");
}

#[test]
fn the_first_losses_do_not_flatten_the_rest() {
    // Losses go from 4 to 2, after a start with losses of other magnitudes.
    let losses = |start: &[f64]| {
        let rest = (0..40).map(|index| 4.0 - f64::from(index) / 20.0);
        let losses: Vec<f64> = start.iter().copied().chain(rest).collect();
        let lines = (1..).zip(losses).map(|(index, loss)| step(20 * index, &[Some(loss)]));
        text(&lines.collect::<Vec<_>>())
    };
    let calm = drawn(&losses(&[])).unwrap();
    let wild = drawn(&losses(&[30_000.0, 900.0, 60.0])).unwrap();
    let span = |svg: &str| {
        let lines = heights(svg, DARK);
        let line = lines.iter().max_by_key(|line| line.len()).unwrap();
        (line[line.len() - 1] - line[line.len() - 40], line.len())
    };
    let ((calm, calm_points), (wild, wild_points)) = (span(&calm), span(&wild));
    assert_eq!((calm_points, wild_points), (40, 41), "one more, where the line enters the panel");
    assert!(calm > 200.0, "{calm}");
    assert!(wild > 0.6 * calm, "{wild} instead of {calm}");
}

#[test]
fn long_logs_are_smoothed_and_thinned() {
    // Losses are around 3, and jump by 2 from one line to the next.
    let noisy = |lines: u64| {
        let line = |index| step(20 * index, &[Some(if index % 2 == 0 { 2.0 } else { 4.0 })]);
        drawn(&text(&(1..=lines).map(line).collect::<Vec<_>>())).unwrap()
    };
    let line = |svg: &str| heights(svg, DARK).into_iter().max_by_key(Vec::len).unwrap();
    let short = noisy(300);
    assert!(is_label(&short, "training loss"));
    assert_eq!(line(&short).len(), 300);
    for (lines, window, most) in [(400, 5, 201), (2000, 21, 201), (2399, 23, 220)] {
        let svg = noisy(lines);
        assert!(is_label(&svg, &format!("training loss, running mean of {window} values")), "{lines}");
        let points = line(&svg).len();
        assert!((most - 5..=most).contains(&points), "{lines}: {points}");
    }
}

#[test]
fn a_running_mean_leaves_a_straight_line_where_it_is() {
    let lines: Vec<Value> =
        (1..=1000).map(|index| step(20 * index, &[Some(5.0 - index as f64 / 500.0)])).collect();
    let drawn = heights(&drawn(&text(&lines)).unwrap(), DARK).into_iter().max_by_key(Vec::len).unwrap();
    let steps: Vec<f64> = drawn.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mean = steps.iter().sum::<f64>() / steps.len() as f64;
    // The end is left out, where the window has no right half.
    for (index, step) in steps.iter().enumerate().take(steps.len() - 2) {
        assert!((step - mean).abs() < 0.15, "{index}: {step} instead of {mean}");
    }
}

#[test]
fn the_legend_names_some_of_many_exits() {
    let losses: Vec<Option<f64>> = (0..24).map(|exit| Some(5.0 - f64::from(exit) / 10.0)).collect();
    let svg = drawn(&text(&[step(20, &losses), step(40, &losses)])).unwrap();
    let named: Vec<usize> = (1..=24).filter(|exit| is_label(&svg, &format!("exit {exit}"))).collect();
    assert_eq!(named, [1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24]);
}
