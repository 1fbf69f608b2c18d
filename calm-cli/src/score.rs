//! `calm score`: metrics of a system's outputs, as a table, as bare numbers or as JSON.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use calm_data::{SegmentFormat, read_segments};
use calm_files::{Progress, tell};
use calm_metrics::significance::{self, BOOTSTRAP_SAMPLES, RANDOMISATION_TRIALS, SEED};
use calm_metrics::{Comparison, Interval, Metric, PairedTest, Resampling, Scorer, Smoothing, Tokenizer};
use calm_names::counted;
use clap::ValueEnum;
use serde::Serialize;

use crate::results::print_table;

const EXAMPLES: &str = "\
Examples:
  calm score --metric bleu,chrf --hypotheses texts.jsonl --references data/translation/test.parquet
  calm score --metric chrf --hypotheses early.txt --references reference.txt --baseline full.txt";

/// Score outputs against references, and compare them with another system's.
///
/// Files are text with a segment a line, or records: JSON Lines, JSON, Parquet or tables, by the ending of
/// the name (.jsonl, .json, .parquet, .csv, .tsv) or else by the content. All but Parquet may be compressed
/// (.gz, .zst). Scores, intervals,
/// p-values and signatures are those of sacreBLEU 2.6, rouge-score 0.1.2 and the SQuAD 1.1 evaluation.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// bleu, chrf, chrf++, ter, rouge-1, rouge-2, rouge-l, rouge-lsum, token-f1 or exact
    #[arg(long, value_name = "M,M", value_delimiter = ',', required = true)]
    metric: Vec<Metric>,
    /// The system's outputs; - is standard input
    #[arg(long, value_name = "FILE")]
    hypotheses: PathBuf,
    /// References; several files are several references for each segment
    #[arg(long, value_name = "FILE,FILE", value_delimiter = ',', required = true)]
    references: Vec<PathBuf>,
    /// Column of the outputs in records; a field of a struct is STRUCT.FIELD
    #[arg(long, value_name = "COLUMN", default_value = "text")]
    hypothesis_column: String,
    /// Column of the reference, or of a list of them, in records
    #[arg(long, visible_alias = "target-column", value_name = "COLUMN", default_value = "target")]
    reference_column: String,
    /// Also the score of each segment, in JSON
    #[arg(long, requires = "json")]
    sentence: bool,
    /// Receives the results as JSON; - is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print the scores alone, a number a line
    #[arg(short, long)]
    brief: bool,

    /// 13a, intl, char or none (bleu) [default: 13a]
    #[arg(long, value_name = "TOKENIZER", help_heading = "Options of metrics")]
    tokenize: Option<Tokenizer>,
    /// What an order of n-grams without matches counts (bleu) [default: exp]
    #[arg(long, value_enum, help_heading = "Options of metrics")]
    smooth: Option<SmoothingMethod>,
    /// How much that is [default: 0.1 for floor, 1 for add-k]
    #[arg(long, value_name = "V", requires = "smooth", help_heading = "Options of metrics")]
    smooth_value: Option<f64>,
    /// Ignore case (bleu, chrf and chrf++; the others do anyway)
    #[arg(long, help_heading = "Options of metrics")]
    lowercase: bool,
    /// Compare the stems of words (rouge)
    #[arg(long, help_heading = "Options of metrics")]
    stem: bool,

    /// Resamples for the confidence interval and the paired bootstrap; 0 leaves the interval out
    #[arg(long, value_name = "N", default_value_t = BOOTSTRAP_SAMPLES, help_heading = "Significance")]
    bootstrap: usize,
    /// Seed of the resampling
    #[arg(long, value_name = "S", default_value_t = SEED, help_heading = "Significance")]
    seed: u64,
    /// Outputs of a system to compare with, such as the full model
    #[arg(long, value_name = "FILE", help_heading = "Significance")]
    baseline: Option<PathBuf>,
    /// The test that tells whether the two differ by more than chance
    #[arg(
        long,
        value_enum,
        requires = "baseline",
        default_value = "bootstrap",
        help_heading = "Significance"
    )]
    paired: Test,
    /// Trials of randomisation
    #[arg(long, value_name = "N", requires = "baseline", default_value_t = RANDOMISATION_TRIALS, help_heading = "Significance")]
    trials: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SmoothingMethod {
    Exp,
    Floor,
    AddK,
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Test {
    Bootstrap,
    Randomisation,
}

/// What is printed of a metric.
#[derive(Serialize)]
struct Report {
    metric: Metric,
    score: f64,
    higher_is_better: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<Interval>,
    signature: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<ComparisonReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sentences: Option<Sentences>,
}

#[derive(Serialize)]
struct ComparisonReport {
    test: PairedTest,
    baseline: f64,
    /// Difference of the system from the baseline.
    difference: f64,
    p_value: f64,
}

#[derive(Serialize)]
struct Sentences {
    signature: String,
    scores: Vec<f64>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let scorers: Vec<Scorer> = arguments.scorers()?;
    if let Some(json) = &arguments.json {
        let files = [Some(&arguments.hypotheses), arguments.baseline.as_ref()].into_iter().flatten();
        let inputs: Vec<&Path> = files.chain(&arguments.references).map(PathBuf::as_path).collect();
        calm_files::check_output(json, &inputs)?;
    }
    let (hypotheses, references) = arguments.read_segments()?;
    let baseline = arguments.baseline.as_deref().map(|path| arguments.read_outputs(path)).transpose()?;
    if let (Some(baseline), Some(path)) = (&baseline, &arguments.baseline) {
        check_counts(&arguments.hypotheses, hypotheses.len(), path, baseline.len())?;
    }
    let progress = Progress::new("scoring", "metrics", Some(scorers.len()));
    let report = |(&metric, scorer): (&Metric, &Scorer)| {
        let report = arguments.report(metric, scorer, &hypotheses, &references, baseline.as_deref());
        progress.add(1);
        report
    };
    let reports = arguments.metric.iter().zip(&scorers).map(report).collect::<anyhow::Result<Vec<_>>>()?;
    progress.finish();
    if let Some(json) = &arguments.json {
        calm_files::write_json(json, &reports)?;
    }
    print_table(&[arguments.json.as_deref()], |out| match arguments.brief {
        true => reports.iter().try_for_each(|report| writeln!(out, "{:.2}", report.score)),
        false => write_table(out, &reports),
    })?;
    Ok(())
}

/// A line for each metric, and below them what else was compared.
fn write_table(out: &mut dyn Write, reports: &[Report]) -> io::Result<()> {
    let number = |value: f64| format!("{value:.2}");
    let names = ["metric", "score", "95 % interval", "baseline", "difference", "p"];
    let mut rows = vec![names.map(str::to_owned)];
    for Report { metric, score, confidence, comparison, .. } in reports {
        let interval =
            confidence.map(|Interval { low, high, .. }| format!("{} to {}", number(low), number(high)));
        let compared =
            comparison.as_ref().map(|ComparisonReport { baseline, difference, p_value, .. }| {
                [number(*baseline), format!("{difference:+.2}"), format!("{p_value:.4}")]
            });
        let [baseline, difference, p_value] = compared.unwrap_or_default();
        let (metric, interval) = (metric.to_string(), interval.unwrap_or_default());
        rows.push([metric, number(*score), interval, baseline, difference, p_value]);
    }
    // Only columns with something in them.
    let is_used = |column: &usize| rows[1..].iter().any(|row| !row[*column].is_empty());
    let columns: Vec<usize> = (0..rows[0].len()).filter(is_used).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    for row in &rows {
        let cells = columns.iter().map(|&column| match column {
            0 => format!("{:<width$}", row[0], width = width(0)),
            _ => format!("  {:>width$}", row[column], width = width(column)),
        });
        writeln!(out, "{}", cells.collect::<String>().trim_end())?;
    }
    reports.iter().try_for_each(|report| writeln!(out, "{}", report.signature))
}

impl Arguments {
    fn report(
        &self,
        metric: Metric,
        scorer: &Scorer,
        hypotheses: &[String],
        references: &[Vec<String>],
        baseline: Option<&[String]>,
    ) -> anyhow::Result<Report> {
        let system = scorer.statistics(hypotheses, references)?;
        if let Some(caveat) = system.caveat(references) {
            tell(format_args!("note: {metric}: {caveat}"));
        }
        let confidence = match self.bootstrap {
            0 => None,
            samples => Some(significance::bootstrap(&system, samples, self.seed)?),
        };
        let (test, samples) = match self.paired {
            Test::Bootstrap => (PairedTest::Bootstrap, self.bootstrap),
            Test::Randomisation => (PairedTest::Randomisation, self.trials),
        };
        let compare = |baseline: &[String]| {
            let baseline = scorer.statistics(baseline, references)?;
            let Comparison { baseline, system, p_value } =
                test.compare(&baseline, &system, samples, self.seed)?;
            anyhow::Ok(ComparisonReport { test, baseline, difference: system - baseline, p_value })
        };
        let comparison = baseline.map(compare).transpose()?;
        let randomised = comparison.is_some() && test == PairedTest::Randomisation;
        let resampling = Resampling {
            bootstrap: confidence.map(|_| self.bootstrap),
            randomisation: randomised.then_some(self.trials),
            seed: (confidence.is_some() || comparison.is_some()).then_some(self.seed),
        };
        let sentences = self.sentence.then(|| Sentences {
            signature: scorer.for_sentences().signature(references, &Resampling::default()),
            scores: system.segment_scores(),
        });
        Ok(Report {
            metric,
            score: system.score(),
            higher_is_better: metric.higher_is_better(),
            confidence,
            signature: scorer.signature(references, &resampling),
            comparison,
            sentences,
        })
    }

    /// The metrics with their options, of which none may be without effect.
    fn scorers(&self) -> anyhow::Result<Vec<Scorer>> {
        let smoothing = self.smoothing()?;
        let mut scorers: Vec<Scorer> = self.metric.iter().map(|&metric| metric.into()).collect();
        let (mut has_bleu, mut has_case, mut has_rouge) = (false, false, false);
        for scorer in &mut scorers {
            match scorer {
                Scorer::Bleu(options) => {
                    (has_bleu, has_case) = (true, true);
                    options.tokenizer = self.tokenize.unwrap_or_default();
                    options.smoothing = smoothing;
                    options.lowercase = self.lowercase;
                }
                Scorer::Chrf(options) => {
                    has_case = true;
                    options.lowercase = self.lowercase;
                }
                Scorer::Rouge(options) => {
                    has_rouge = true;
                    options.stem = self.stem;
                }
                _ => {}
            }
        }
        let unused = [
            ("--tokenize", self.tokenize.is_some() && !has_bleu),
            ("--smooth", self.smooth.is_some() && !has_bleu),
            ("--lowercase", self.lowercase && !has_case),
            ("--stem", self.stem && !has_rouge),
        ];
        if let Some((flag, _)) = unused.iter().find(|(_, unused)| *unused) {
            bail!("{flag} has no meaning for these metrics");
        }
        Ok(scorers)
    }

    fn smoothing(&self) -> anyhow::Result<Smoothing> {
        let value = self.smooth_value;
        if let Some(value) = value {
            ensure!(value.is_finite() && value >= 0.0, "--smooth-value is {value}, but must be at least 0");
        }
        // The values that Chen and Cherry (2014) propose, as in sacreBLEU.
        let smoothing = match self.smooth {
            None | Some(SmoothingMethod::Exp) => Smoothing::Exp,
            Some(SmoothingMethod::Floor) => Smoothing::Floor(value.unwrap_or(0.1)),
            Some(SmoothingMethod::AddK) => Smoothing::AddK(value.unwrap_or(1.0)),
            Some(SmoothingMethod::None) => Smoothing::None,
        };
        let takes_value = matches!(smoothing, Smoothing::Floor(_) | Smoothing::AddK(_));
        ensure!(value.is_none() || takes_value, "--smooth-value has meaning for floor and add-k only");
        Ok(smoothing)
    }

    /// The outputs, and the references of each.
    fn read_segments(&self) -> anyhow::Result<(Vec<String>, Vec<Vec<String>>)> {
        let hypotheses = self.read_outputs(&self.hypotheses)?;
        let mut references = vec![Vec::new(); hypotheses.len()];
        for path in &self.references {
            let of_file = read_texts(path, &self.reference_column)?;
            check_counts(&self.hypotheses, hypotheses.len(), path, of_file.len())?;
            references.iter_mut().zip(of_file).for_each(|(all, texts)| all.extend(texts));
        }
        ensure!(!hypotheses.is_empty(), "{} holds no segments", self.hypotheses.display());
        if let Some(index) = references.iter().position(Vec::is_empty) {
            let files: Vec<String> = self.references.iter().map(|path| path.display().to_string()).collect();
            bail!("{}: segment {} has no reference", files.join(", "), index + 1);
        }
        Ok((hypotheses, references))
    }

    fn read_outputs(&self, path: &Path) -> anyhow::Result<Vec<String>> {
        let one = |(index, texts): (usize, Vec<String>)| {
            let text = <[String; 1]>::try_from(texts).map(|[text]| text).ok();
            text.with_context(|| format!("{}: segment {} has no single output", path.display(), index + 1))
        };
        read_texts(path, &self.hypothesis_column)?.into_iter().enumerate().map(one).collect()
    }
}

fn check_counts(path: &Path, count: usize, other_path: &Path, other_count: usize) -> anyhow::Result<()> {
    ensure!(
        count == other_count,
        "{} has {} but {} has {other_count}",
        path.display(),
        counted(count, "segment"),
        other_path.display()
    );
    Ok(())
}

fn read_texts(path: &Path, column: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let segments = read_segments(path, column)?;
    if segments.format == SegmentFormat::LinesOfJson {
        let path = path.display();
        tell(format_args!("note: {path} holds JSON objects without `{column}`: its lines are taken as text"));
    }
    Ok(segments.texts)
}
