//! How fast corpora are scored, and how many times faster than by the Python tools.
//!
//!     cargo bench -p calm-metrics
//!     PYTHON=venv/bin/python cargo bench -p calm-metrics
//!
//! `PYTHON` (`python3` if it is not set) must have sacreBLEU and rouge-score; without them only our times are
//! printed. Both score the same pairs in this run, and the start and imports of Python are not measured. A
//! time is the best of several repetitions.

// A benchmark that fails has nothing to report but the panic.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::collections::BTreeMap;
use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use calm_metrics::significance::{self, BOOTSTRAP_SAMPLES, SEED};
use calm_metrics::{Metric, RougeKind, RougePair, Scorer};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use rayon::prelude::*;

const PAIRS: usize = 3000;
const REPETITIONS: usize = 5;

/// Tasks are named as in `python_tools.py`.
const BLEU_CHRF: &str = "BLEU and chrF";
const ROUGE: &str = "ROUGE-1, 2, L, Lsum";
const STEMMED_ROUGE: &str = "ROUGE-1, 2, L, Lsum, stemmed";
const TER: &str = "TER";

struct Corpus {
    hypotheses: Vec<String>,
    references: Vec<[String; 1]>,
}

fn main() {
    let corpus = corpus();
    let python = python_times(&corpus);
    let threads = std::thread::available_parallelism().unwrap().get();
    println!(
        "{} sentence pairs; milliseconds on one thread, on {threads}, and of Python",
        corpus.hypotheses.len()
    );
    let tasks: [(&str, &(dyn Fn() + Sync)); 4] = [
        (BLEU_CHRF, &|| {
            corpus.score(Metric::Bleu);
            corpus.score(Metric::Chrf);
        }),
        (ROUGE, &|| corpus.score_rouge(false)),
        (STEMMED_ROUGE, &|| corpus.score_rouge(true)),
        (TER, &|| corpus.score(Metric::Ter)),
    ];
    for (task, score) in tasks {
        let (one, all) = (on_threads(1, score), on_threads(threads, score));
        print!("{task:30} {:9.2} {:9.2}", milliseconds(one), milliseconds(all));
        match python.get(task) {
            Some(&python) => {
                let times = |ours: Duration| python / ours.as_secs_f64();
                println!(" {:9.0}: {:.0} and {:.0} times faster", python * 1000.0, times(one), times(all));
            }
            None => println!(),
        }
    }
    let statistics = Scorer::from(Metric::Bleu).statistics(&corpus.hypotheses, &corpus.references).unwrap();
    let resample = || {
        black_box(significance::bootstrap(&statistics, BOOTSTRAP_SAMPLES, SEED).unwrap());
    };
    let (one, all) = (on_threads(1, resample), on_threads(threads, resample));
    println!("{:30} {:9.2} {:9.2}", "bootstrap of BLEU", milliseconds(one), milliseconds(all));
    long_lines(&corpus);
}

/// Measures the time for one pair of lines, by their length.
fn long_lines(corpus: &Corpus) {
    println!("one pair of long lines: milliseconds by the number of characters");
    let lengths = [25_000, 50_000, 100_000, 200_000];
    println!("{:30} {:9} {:9} {:9} {:9}", "", lengths[0], lengths[1], lengths[2], lengths[3]);
    for metric in
        [Metric::Bleu, Metric::Chrf, Metric::Rouge2, Metric::RougeL, Metric::RougeLsum, Metric::TokenF1]
    {
        print!("{:30}", metric.label());
        for length in lengths {
            let (mut hypothesis, mut reference) = (String::new(), String::new());
            let mut pairs = corpus.hypotheses.iter().zip(&corpus.references).cycle();
            while reference.len() < length {
                let (h, [r]) = pairs.next().unwrap();
                hypothesis.extend([h, " "]);
                reference.extend([r, " "]);
            }
            let pair = Corpus { hypotheses: vec![hypothesis], references: vec![[reference]] };
            print!(" {:9.2}", milliseconds(on_threads(1, || pair.score(metric))));
        }
        println!();
    }
}

impl Corpus {
    fn score(&self, metric: Metric) {
        black_box(metric.corpus_score(&self.hypotheses, &self.references).unwrap());
    }

    /// Scores all kinds of ROUGE from the same tokens, as rouge-score does.
    fn score_rouge(&self, stem: bool) {
        let pairs = self.hypotheses.par_iter().zip(&self.references);
        let sum: f64 = pairs
            .map(|(hypothesis, [reference])| {
                let pair = RougePair::new(hypothesis, reference, stem);
                let kinds = [RougeKind::N(1), RougeKind::N(2), RougeKind::L, RougeKind::Lsum];
                kinds.map(|kind| pair.score(kind).f_measure).iter().sum::<f64>()
            })
            .sum();
        black_box(sum);
    }
}

/// Reads the English sides of the translation task, and makes noisy copies of them.
fn corpus() -> Corpus {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/translation");
    let mut references = Vec::new();
    for file in ["test.parquet", "calibration.parquet"] {
        let reader = SerializedFileReader::new(File::open(data.join(file)).unwrap()).unwrap();
        let column = reader
            .metadata()
            .file_metadata()
            .schema_descr()
            .columns()
            .iter()
            .position(|c| c.name() == "source");
        for row in reader.get_row_iter(None).unwrap() {
            let source = row.unwrap().get_string(column.unwrap()).unwrap().clone();
            references.push([source.split_once(": ").map_or(source.as_str(), |(_, text)| text).to_owned()]);
        }
    }
    let references: Vec<_> = references.into_iter().cycle().take(PAIRS).collect();
    let hypotheses = references.iter().enumerate().map(|(i, [text])| noisy(text, i)).collect();
    Corpus { hypotheses, references }
}

/// Leaves out every seventh word, and moves every fifth one later by a place.
fn noisy(text: &str, start: usize) -> String {
    let mut words: Vec<&str> = text.split(' ').collect();
    for i in 1..words.len() {
        if (start + i).is_multiple_of(5) {
            words.swap(i - 1, i);
        }
    }
    let kept = words.iter().enumerate().filter(|(i, _)| !(start + i).is_multiple_of(7));
    kept.map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
}

fn on_threads(threads: usize, work: impl Fn() + Sync) -> Duration {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let times = (0..REPETITIONS).map(|_| {
        let start = Instant::now();
        pool.install(&work);
        start.elapsed()
    });
    times.min().unwrap()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Measures the seconds that Python takes for each task; empty if it lacks the tools.
fn python_times(corpus: &Corpus) -> BTreeMap<String, f64> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let texts = Path::new(env!("CARGO_TARGET_TMPDIR")).join("speed.json");
    let references: Vec<&String> = corpus.references.iter().map(|[reference]| reference).collect();
    serde_json::to_writer(File::create(&texts).unwrap(), &(&corpus.hypotheses, references)).unwrap();
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = Command::new(&python).arg(folder.join("python_tools.py")).arg(&texts).output();
    match output {
        Ok(output) if output.status.success() => serde_json::from_slice(&output.stdout).unwrap(),
        _ => {
            println!(
                "{python} has no sacrebleu and rouge_score to compare with: set PYTHON to an interpreter that has"
            );
            BTreeMap::new()
        }
    }
}
