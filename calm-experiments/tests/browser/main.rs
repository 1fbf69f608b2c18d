//! Pages that runs leave, opened in a headless Chromium.

// Helpers of tests count as tests.
#![allow(clippy::unwrap_used)]

mod driver;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use assert_cmd::cargo::CommandCargoExt;
use serde_json::Value;

use crate::driver::{Browser, Screen};

const DOWN: char = '\u{e015}';
const RIGHT: char = '\u{e014}';
const END: char = '\u{e010}';

/// Whether the tests of pages are turned off, which has to be said.
fn goes_without() -> bool {
    std::env::var_os("CALM_NO_BROWSER").is_some()
}

/// Runs a configuration of the project with these settings.
fn run_in_small(config: &str, settings: &[&str]) -> PathBuf {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(config);
    fs::remove_dir_all(&out).ok();
    let output = Command::cargo_bin("calm-experiments")
        .unwrap()
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .args([&format!("configs/{config}"), "--device", "cpu", "--out"])
        .arg(&out)
        .args(settings.iter().flat_map(|setting| ["--set", setting]))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    out
}

/// The folder of a run of the bundled experiment in small.
fn run() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| {
        let settings = [
            // Each example by itself, so that as many are taken as are asked for.
            "data.group=id",
            "data.test_examples=40",
            "data.calibration_examples=160",
            "sweep.measures=[\"softmax\", \"state\", \"agreement\"]",
            "sweep.static_layers=[2, 4]",
            "sweep.thresholds=[1.0, 0.8, 0.5, 0.2]",
            "sweep.measure.agreement.thresholds=[0.98, 0.9, 0.6]",
            "calibration.trials.count=10",
        ];
        run_in_small("wmt.toml", &settings)
    })
}

fn report() -> PathBuf {
    run().join("report.html")
}

/// A browser with the report.
fn opened() -> Browser {
    let browser = Browser::start();
    browser.show_on(Screen { width: 1600, scheme: "light" });
    browser.open(&report());
    browser
}

#[test]
fn a_report_fits_every_screen_and_can_be_read_on_it() {
    if goes_without() {
        return;
    }
    can_be_read_on_every_screen(&opened(), run());
}

/// Looks at a page on several screens, and leaves pictures of it in `folder`.
fn can_be_read_on_every_screen(browser: &Browser, folder: &Path) {
    for scheme in ["light", "dark"] {
        for width in [360, 900, 1600] {
            browser.show_on(Screen { width, scheme });
            let at = format!("{scheme}, {width} pixels");
            let content = browser.run("return document.documentElement.scrollWidth").as_u64().unwrap();
            assert!(content <= u64::from(width), "{at}: the page is {content} wide");
            browser.run("document.querySelectorAll('details').forEach((details) => (details.open = true))");
            let faint = browser.run(include_str!("contrast.js"));
            assert_eq!(faint, Value::Array(Vec::new()), "{at}");
            browser.picture(&folder.join(format!("{scheme}-{width}.png")));
        }
    }
    assert_eq!(browser.console(), Vec::<Value>::new());
}

#[test]
fn the_page_of_the_papers_figures_can_be_read_on_every_screen() {
    if goes_without() {
        return;
    }
    let settings = [
        "data.test_examples=24",
        "data.calibration_examples=60",
        "sweep.measures=[\"softmax\", \"classifier\"]",
        "sweep.thresholds=[0.8, 0.4]",
        "sweep.measure.classifier.thresholds=[0.9, 0.6]",
        "sweep.static_layers=[2, 5]",
        "calibration.trials.count=5",
    ];
    let out = run_in_small("paper.toml", &settings);
    let browser = Browser::start();
    browser.show_on(Screen { width: 1600, scheme: "light" });
    browser.open(&out.join("report.html"));
    can_be_read_on_every_screen(&browser, &out);
    // Each section shows something, and each but that of the formula says how it compares.
    let sections = browser.run(
        "return [...document.querySelectorAll('section.figure')].map((section) => [
           section.querySelector('h2').textContent,
           section.querySelectorAll('svg[role=img], tbody tr, .example').length,
         ])",
    );
    let sections = sections.as_array().unwrap();
    assert_eq!(sections.len(), 16);
    // So few examples certify nothing, so that no output is shown at certified thresholds.
    let empty = sections.iter().filter(|section| section[1] == 0 && section[0] != "Figures 4 and B.5");
    assert_eq!(empty.count(), 0, "{sections:?}");
}

#[test]
fn a_report_shows_figures_and_tables_and_fetches_nothing() {
    if goes_without() {
        return;
    }
    let browser = opened();
    let count = |selector: &str| {
        browser.run(&format!("return document.querySelectorAll('{selector}').length")).as_u64().unwrap()
    };
    // Quality, three objectives with loss and layers, once and over trials, and layers by position.
    assert_eq!(count("figure svg[role=img]"), 1 + 6 + 6 + 1);
    let lines = browser.run("return [...document.querySelectorAll('figure svg[role=img]')].map((svg) => svg.querySelectorAll('polyline').length)");
    assert!(lines.as_array().unwrap().iter().all(|lines| lines.as_u64() > Some(5)), "{lines}");
    // A chart is as wide as its place and has a height.
    let sizes = browser.run("return [...document.querySelectorAll('figure svg[role=img]')].map((svg) => svg.getBoundingClientRect().height)");
    assert!(sizes.as_array().unwrap().iter().all(|height| height.as_f64() > Some(200.0)), "{sizes}");
    assert_eq!(count("#points tbody tr"), 3 * (8 + 6 + 5));
    assert!(count(".histogram") >= 2);
    assert!(count(".times tbody tr") >= 4);
    assert_eq!(count(".card"), 4);

    assert_eq!(browser.run("return performance.getEntriesByType('resource').length"), 0);
    let html = fs::read_to_string(report()).unwrap();
    assert!(!html.contains(" src=") && !html.contains("href=\"http"), "something is fetched");
    assert!(html.len() < 5_000_000, "{} bytes", html.len());
}

/// The numbers on the page are those of the run's files.
#[test]
fn the_data_of_a_report_are_those_of_its_tables() {
    if goes_without() {
        return;
    }
    let browser = opened();
    let data = browser.run("return JSON.parse(document.getElementById('data').textContent)");
    for (key, file) in [("sweep", "sweep.csv"), ("calibration", "calibration.csv"), ("trials", "trials.csv")]
    {
        let text = fs::read_to_string(run().join(file)).unwrap();
        let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let columns = lines.next().unwrap();
        let rows = data[key].as_array().unwrap();
        assert_eq!(rows.len(), lines.clone().count(), "{key}");
        for (row, cells) in rows.iter().zip(lines) {
            for (column, cell) in columns.iter().zip(cells) {
                let value = match &row[*column] {
                    Value::String(text) => text.clone(),
                    Value::Null => String::new(),
                    value => value.to_string(),
                };
                let are_equal = value == cell || value.parse::<f64>().ok() == cell.parse().ok();
                assert!(are_equal, "{key}, {column}: {value} and {cell}");
            }
        }
    }
    let summary: Value =
        serde_json::from_str(&fs::read_to_string(run().join("summary.json")).unwrap()).unwrap();
    assert_eq!(data["summary"]["model"], summary["model"]);

    // Of each output the tokens are the text that its unit has.
    let examples = data["explorer"]["examples"].as_array().unwrap();
    let full = fs::read_to_string(run().join("generations/test/full/shard-0000.jsonl")).unwrap();
    for (example, line) in examples.iter().zip(full.lines().skip(1)) {
        let record: Value = serde_json::from_str(line).unwrap();
        let output = &example["outputs"][0];
        let tokens = output["tokens"].as_array().unwrap();
        let text: String = tokens.iter().map(|token| token.as_str().unwrap()).collect();
        assert_eq!(example["id"], record["example"]);
        assert_eq!(Value::String(text), record["text"]);
        assert_eq!(output["exits"], record["exit_layers"]);
        // Each token has its part of it, but the last one, which ends it.
        assert!(tokens.iter().rev().skip(1).filter(|token| *token == "").count() <= tokens.len() / 3);
    }
    assert_eq!(examples.len(), 40);
}

#[test]
fn the_explorer_works_by_mouse() {
    if goes_without() {
        return;
    }
    let browser = opened();
    let title = || browser.text("return document.querySelector('#detail h3').textContent");
    let first = title();
    browser.click("#list li:nth-child(3)");
    assert_ne!(title(), first);
    assert_eq!(
        browser.text("return document.querySelector('[aria-selected=true] .first').textContent"),
        browser.text("return document.querySelector('#detail dd').textContent")
    );

    let tip = || {
        browser.text("const tip = document.getElementById('tip'); return tip.hidden ? '' : tip.textContent")
    };
    assert_eq!(tip(), "");
    browser.hover(".output:nth-child(2) .token:nth-child(2)");
    let shown = tip();
    assert!(
        shown.contains("layer ") && shown.contains(" of 8") && shown.contains("confidence 0."),
        "{shown}"
    );
    // It is at the token, and within the window.
    let gap = browser.run(
        "const [tip, token] = ['#tip', '.output:nth-child(2) .token:nth-child(2)'].map((at) => document.querySelector(at).getBoundingClientRect());
         return [tip.left >= 0 && tip.right <= innerWidth, Math.min(Math.abs(tip.bottom - token.top), Math.abs(tip.top - token.bottom))]",
    );
    assert!(gap[0] == true && gap[1].as_f64() < Some(20.0), "{gap}");
    browser.hover("h1");
    assert_eq!(tip(), "");

    // A token has the colour of its layer in the scale.
    let colours = browser.run(
        "const token = document.querySelector('.output:nth-child(2) .token');
         const layer = token.dataset.tip.match(/layer (\\d+)/)[1];
         const scale = document.querySelectorAll('.scale .token')[layer - 1];
         return [token, scale].map((element) => getComputedStyle(element).backgroundColor)",
    );
    assert_eq!(colours[0], colours[1]);

    let outputs = || browser.run("return document.querySelectorAll('.output').length").as_u64().unwrap();
    let before = outputs();
    browser.click("#policies label:last-child input");
    assert_eq!(outputs(), before + 1);
    browser.click("#policies label:last-child input");
    assert_eq!(outputs(), before);
    assert_eq!(browser.console(), Vec::<Value>::new());
}

#[test]
fn the_explorer_works_by_keyboard() {
    if goes_without() {
        return;
    }
    let browser = opened();
    let title = || browser.text("return document.querySelector('#detail h3').textContent");
    let first = title();
    browser.run("document.getElementById('list').focus()");
    browser.press(&[DOWN, DOWN]);
    let third = title();
    assert_ne!(third, first);
    assert_eq!(
        browser.text("return document.getElementById('list').getAttribute('aria-activedescendant')"),
        browser.text("return document.querySelector('[aria-selected=true]').id")
    );
    browser.press(&[END]);
    assert_ne!(title(), third);

    // From the list the tab key leads to the first token, and the arrow keys from there.
    browser.press(&['\u{e004}']);
    let tip = || browser.text("return document.getElementById('tip').textContent");
    assert!(tip().contains("token 1 of"), "{}", tip());
    browser.press(&[RIGHT, RIGHT]);
    assert!(tip().contains("token 3 of"), "{}", tip());
    browser.press(&[END]);
    let at_end = tip();
    let (place, length) = at_end.rsplit_once("token ").unwrap().1.split_once(" of ").unwrap();
    assert_eq!(place, length, "{at_end}");
    assert_eq!(browser.console(), Vec::<Value>::new());
}

#[test]
fn the_explorer_filters_and_sorts() {
    if goes_without() {
        return;
    }
    let browser = opened();
    // Depth, distance and length as the list shows them.
    let numbers = || -> Vec<[f64; 3]> {
        let rows = browser
            .run("return [...document.querySelectorAll('#list .numbers')].map((row) => row.textContent)");
        let numbers = |row: &Value| {
            let parts: Vec<&str> = row.as_str().unwrap().split(" · ").collect();
            let number = |text: &str| text.split(' ').find_map(|word| word.parse().ok()).unwrap();
            [number(parts[0]), number(parts[1]), number(parts[3])]
        };
        rows.as_array().unwrap().iter().map(numbers).collect()
    };
    let all = numbers();
    assert_eq!(all.len(), 40);
    for (place, name) in ["depth", "distance", "length"].into_iter().enumerate() {
        browser.run(&format!("const sort = document.getElementById('sort'); sort.value = '{name}'; sort.dispatchEvent(new Event('input', {{ bubbles: true }}))"));
        let sorted: Vec<f64> = numbers().iter().map(|row| row[place]).collect();
        assert!(sorted.is_sorted(), "{name}: {sorted:?}");
        let middle = sorted[20];
        browser.write(&format!("#{name}-min"), &middle.to_string());
        let expected = all.iter().filter(|row| row[place] >= middle - 0.01).count();
        let kept = numbers();
        assert!(kept.iter().all(|row| row[place] >= middle - 0.01), "{name}");
        assert!(!kept.is_empty() && kept.len() <= expected, "{name}: {} of {expected}", kept.len());
        browser.click("button[type=reset]");
        assert_eq!(numbers(), all, "{name}");
    }
    let source = browser.text("return document.querySelector('#list li:nth-child(5) .first').textContent");
    let word = source.split(' ').max_by_key(|word| word.len()).unwrap();
    browser.write("#search", word);
    assert!((1..40).contains(&numbers().len()), "{word}");
    browser.write("#search", "no such words");
    assert_eq!(numbers().len(), 0);
    assert!(browser.text("return document.getElementById('detail').textContent").contains("No example"));
    assert_eq!(browser.console(), Vec::<Value>::new());
}

#[test]
fn all_but_the_explorer_works_without_javascript() {
    if goes_without() {
        return;
    }
    let browser = Browser::start();
    browser.show_on(Screen { width: 900, scheme: "light" });
    browser.devtools("Emulation.setScriptExecutionDisabled", serde_json::json!({ "value": true }));
    browser.open(&report());
    // Pages whose scripts are off can still be asked by the browser's own protocol.
    let tree =
        browser.devtools("DOMSnapshot.captureSnapshot", serde_json::json!({ "computedStyles": ["display"] }));
    let texts = tree["strings"].as_array().unwrap();
    let has =
        |text: &str| texts.iter().any(|string| string.as_str().is_some_and(|string| string.contains(text)));
    assert!(has("The explorer needs JavaScript"));
    // Texts that are laid out, and so can be seen.
    let layout = tree["documents"][0]["layout"]["text"].as_array().unwrap();
    let shown: Vec<&str> = layout
        .iter()
        .filter_map(|index| texts.get(usize::try_from(index.as_i64()?).ok()?)?.as_str())
        .collect();
    for text in
        ["Certified operating points", "full model", "calm-agreement", "average decoder layers per token"]
    {
        assert!(shown.iter().any(|string| string.contains(text)), "{text}");
    }
    assert!(!shown.iter().any(|string| string.contains("side by side")));
}
