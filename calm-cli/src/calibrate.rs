//! `calm calibrate`: a certified threshold, from a file of losses or from a model and data.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use calm_calibrate::{
    Calibration, CalibrationOptions, ErrorProbability, Graph, LossFile, LossKind, PValue, Procedure, Split,
    Tolerance,
};
use calm_core::{Exits, MeasureKind, PolicySpec, Threshold};
use calm_data::Columns;
use calm_engine::engine::Engine;
use calm_engine::limits::{AT_LEAST_ONE, Limit, TOKENS, check_flags};
use calm_engine::program::EngineArguments;
use calm_engine::signals;
use calm_experiments::certify::{Certificate, CertifyPlan, certify, lost_by_writing, upper_bounds};
use calm_experiments::config::{DatasetPlan, Objective, ObjectiveKind, Series, loss_kind};
use calm_experiments::plots::draw_risk;
use calm_files::tell;
use calm_metrics::Loss;
use calm_names::counted;

use crate::calibration_plan::write_plan;
use crate::policy::measure_help;
use crate::results::print_table;

/// Says that only the full model holds the guarantee.
const ONLY_FALLBACK: u8 = 3;

/// Examples of a unit of work, which an interruption loses at most.
const SHARD_SIZE: usize = 64;

const EXAMPLES: &str = "\
Examples:
  calm calibrate --model models/debian-en-fr --data data/translation/calibration.parquet --limit 400 --measure agreement --metric chrf --delta 0.1
  calm calibrate --losses losses.csv --delta 0.1 --output result.json
  calm calibrate --plan --delta 0.1";

/// Certify a threshold: the least one whose expected loss is at most delta.
///
/// That holds with probability 1 - epsilon over the draw of the examples. Losses come either from a file of
/// losses (--losses), or from a model and data (--model, --data), which are decoded first. Everything but the
/// losses must be chosen before they are seen. Exit code 0: a threshold is certified; 3: only the full model
/// holds the guarantee.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("input").required(true).args(["losses", "model", "plan"])))]
pub(crate) struct Arguments {
    /// CSV or Parquet with the columns threshold, example and loss, a row for each example at each threshold
    #[arg(long, value_name = "FILE", help_heading = "From a file of losses")]
    losses: Option<PathBuf>,
    /// binary, unit or difference: which values a loss can take, whatever values the file has [default: unit]
    #[arg(long, value_name = "K", conflicts_with = "model", help_heading = "From a file of losses")]
    loss_kind: Option<LossKind>,

    #[command(flatten)]
    model: ModelArguments,

    /// Decode nothing: say how many examples delta needs, by the mean loss that they will have
    #[arg(long)]
    plan: bool,
    /// Draws the loss against the threshold, with the upper bound and what is certified, as SVG and PNG
    #[arg(long, value_name = "FILE.svg", conflicts_with = "plan")]
    plot: Option<PathBuf>,
    /// Tolerated expected loss
    #[arg(long, value_name = "D")]
    delta: Tolerance,
    /// Probability that the guarantee fails
    #[arg(long, value_name = "E", default_value = "0.05")]
    epsilon: ErrorProbability,
    /// hoeffding, hoeffding-kl, binomial, bentkus, hoeffding-bentkus, betting or asymptotic [default:
    /// binomial for binary losses, else betting]
    #[arg(long, value_name = "P")]
    p_value: Option<PValue>,
    /// bonferroni, holm, fixed-sequence, multi-start, graphical or pareto
    #[arg(long, value_name = "Q", default_value = "fixed-sequence")]
    procedure: Procedure,
    /// Sequences of multi-start [default: 4]
    #[arg(long, value_name = "N")]
    starts: Option<usize>,
    /// JSON with the weights and transitions of graphical [default: each share goes to the next threshold]
    #[arg(long, value_name = "FILE")]
    graph: Option<PathBuf>,
    /// Share of the examples that pareto learns its sequence on [default: 0.5]
    #[arg(long, value_name = "S")]
    selection_share: Option<f64>,
    /// Seed for pareto's split and for the examples that --limit takes
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Bound the share of examples with a loss above this instead of the mean loss: delta is that share
    #[arg(long, value_name = "LIMIT", help_heading = "From a file of losses")]
    loss_limit: Option<f64>,
    /// Receives the result as JSON; - is standard output [default with --model: calibration.json]
    #[arg(long, value_name = "FILE.json")]
    output: Option<PathBuf>,
    /// Replace an output that is of another model, type of weights, lengths or data, or no result of this
    /// command
    #[arg(long)]
    overwrite: bool,
}

#[derive(clap::Args)]
#[command(next_help_heading = "From a model and data")]
struct ModelArguments {
    /// Checkpoint directory: config.json, model.safetensors and tokenizer.json; or a GGUF file
    #[arg(long, value_name = "DIR", requires = "data")]
    model: Option<PathBuf>,
    /// Calibration examples: .parquet, .jsonl, .json, .csv or .tsv, a pattern of such files in quotes, or
    /// hf://datasets/OWNER/NAME/FILE; none of them may have been used for training
    #[arg(long, value_name = "FILE", requires = "model")]
    data: Option<PathBuf>,
    /// Policy with a * for the threshold, such as 'shallow-deep-4-*'; or a measure, for the policy calm
    #[arg(long, value_name = "ID", requires = "model", conflicts_with_all = ["measure", "decay", "exits"])]
    policy: Option<String>,
    #[arg(long, value_name = "M", requires = "model", help = measure_help())]
    measure: Option<&'static MeasureKind>,
    /// Decay tau of the threshold along the output; constant if not given
    #[arg(long, value_name = "TAU", requires = "model")]
    decay: Option<f64>,
    /// Layers after which is tested, such as 2,4,6; all but the last if not given
    #[arg(long, value_name = "K,K", requires = "model")]
    exits: Option<Exits>,
    /// Grid of thresholds
    #[arg(
        long,
        value_name = "T,T",
        value_delimiter = ',',
        requires = "model",
        default_value = "0.95,0.9,0.85,0.8,0.75,0.7,0.65,0.6,0.55,0.5,0.45,0.4,0.35,0.3,0.25,0.2,0.15,0.1,0.05"
    )]
    thresholds: Vec<f64>,
    /// textual: distance to the full model's outputs; risk: by how much outputs are worse than its, gains not
    /// counted; signed-risk: the same, gains counted
    #[arg(long, value_name = "O", requires = "model", default_value = "textual")]
    objective: ObjectiveKind,
    /// chrf, rouge-l, token-f1, bleu, edit-similarity, token-disagreement or exact: the loss is 1 minus the
    /// score
    #[arg(long, value_name = "METRIC", requires = "model", default_value = "rouge-l")]
    metric: Loss,
    /// Column of the source; a field of a struct is STRUCT.FIELD, an element of a list LIST.NUMBER
    #[arg(long, value_name = "COLUMN", requires = "model", default_value = "source")]
    source_column: String,
    /// Sources are what a user says: put the model's template of conversations around them
    #[arg(long, requires = "model")]
    chat: bool,
    /// Column of the reference or references
    #[arg(long, value_name = "COLUMN", requires = "model", default_value = "target")]
    target_column: String,
    /// Column of a text that follows the source after ` context: `
    #[arg(long, value_name = "COLUMN", requires = "model")]
    context_column: Option<String>,
    /// Column of what examples belong to that come in groups, such as the document of a sentence: losses are
    /// averaged within each group, and the guarantee is for groups
    #[arg(long, value_name = "COLUMN", requires = "model")]
    group_column: Option<String>,
    /// Put in front of every source, here and by `calm generate --calibration`
    #[arg(long, value_name = "TEXT", requires = "model", default_value = "")]
    prefix: String,
    /// Examples to take; all if not given
    #[arg(long, value_name = "N", requires = "model")]
    limit: Option<usize>,
    /// Longest output in tokens
    #[arg(long, value_name = "N", requires = "model", default_value_t = 128)]
    max_tokens: usize,
    /// Longer sources are cut; never if not given
    #[arg(long, value_name = "N", requires = "model")]
    max_source_tokens: Option<usize>,
    /// Rows decoded together
    #[arg(long, value_name = "N", requires = "model", default_value_t = 16)]
    batch_size: usize,
    #[command(flatten)]
    engine: EngineArguments,
    /// Keeps what was decoded, for another delta or after an interruption [default: OUTPUT without .json]
    #[arg(long, value_name = "DIR", requires = "model")]
    work: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.plan {
        let options = arguments.options(arguments.loss_kind.unwrap_or(LossKind::UnitInterval))?;
        calm_files::print(|out| write_plan(out, &options))?;
        return Ok(ExitCode::SUCCESS);
    }
    let calibration = match (&arguments.losses, &arguments.model.model) {
        (Some(losses), _) => arguments.calibrate_file(losses)?,
        (None, Some(model)) => arguments.calibrate_model(model)?,
        (None, None) => anyhow::bail!("expected --losses or --model"),
    };
    Ok(if calibration.fallback { ExitCode::from(ONLY_FALLBACK) } else { ExitCode::SUCCESS })
}

impl Arguments {
    fn calibrate_file(&self, losses: &Path) -> anyhow::Result<Calibration> {
        if let Some(flag) = self.model.engine.given() {
            anyhow::bail!("{flag} has no meaning for --losses");
        }
        let file = LossFile { path: losses.to_owned(), limit: self.loss_limit };
        let options = self.options(self.loss_kind.unwrap_or(LossKind::UnitInterval))?;
        let output = self.output.as_deref();
        if let Some(output) = output {
            calm_files::check_output(output, &self.inputs())?;
        }
        self.check_result_file()?;
        let calibration = file.calibrate(&options)?;
        if let Some(output) = output {
            calm_files::write_json(output, &calibration)?;
        }
        let bounds = upper_bounds(&file.read_table()?, &options)?;
        let pictures = self.draw(&calibration, &bounds)?;
        print_table(&[output], |out| {
            write_calibration(out, &calibration, &bounds, "example")?;
            write_names(out, &pictures)
        })?;
        warn(&calibration);
        Ok(calibration)
    }

    fn calibrate_model(&self, model: &Path) -> anyhow::Result<Calibration> {
        ensure!(self.loss_limit.is_none(), "--loss-limit has no meaning for --model");
        let output = self.output.clone().unwrap_or_else(|| PathBuf::from("calibration.json"));
        let work = self.model.work.clone().unwrap_or_else(|| output.with_extension(""));
        let names_work = self.model.work.is_some() || !calm_files::is_standard_output(&output);
        ensure!(
            names_work && work != output,
            "--output needs a name that ends in .json, or --work DIR must be given"
        );
        let plan = self.plan()?;
        let options = self.model.engine.options(usize::MAX)?;
        calm_files::check_output(&output, &self.inputs())?;
        signals::advise("what was decoded stays, and the same command goes on from there");
        let certificate = certify(&plan, &work, || {
            let engine = Engine::load(model, &options)?;
            if let Some(lost) = lost_by_writing(&output, &plan, engine.model().fingerprint()) {
                self.check_overwrite(&output, lost)?;
            }
            Ok(engine)
        })?;
        certificate.write(&output)?;
        let pictures = self.draw(&certificate.calibration, &certificate.upper_bounds)?;
        print_table(&[Some(&output)], |out| {
            let Certificate { calibration, upper_bounds, columns, .. } = &certificate;
            write_calibration(out, calibration, upper_bounds, columns.exchangeable())?;
            write_certificate(out, &certificate)?;
            writeln!(out, "{}", output.display())?;
            write_names(out, &pictures)
        })?;
        warn(&certificate.calibration);
        Ok(certificate.calibration)
    }

    /// The files of the picture, if one is asked for.
    fn draw(&self, calibration: &Calibration, bounds: &[f64]) -> anyhow::Result<Vec<PathBuf>> {
        let Some(path) = &self.plot else { return Ok(Vec::new()) };
        Ok(draw_risk(calibration, bounds, path)?.to_vec())
    }

    /// Refuses to write the result of losses over anything but such a result.
    fn check_result_file(&self) -> anyhow::Result<()> {
        let Some(output) = self.output.as_deref().filter(|output| output.is_file()) else { return Ok(()) };
        if calm_files::read(output)?.is_empty() {
            return Ok(());
        }
        if calm_files::read_json::<serde_json::Value>(output)
            .is_ok_and(|json| json.get("model_fingerprint").is_some())
        {
            self.check_overwrite(output, "the calibration of a model")?;
        }
        match calm_files::read_json::<Calibration>(output) {
            Ok(_) => Ok(()),
            Err(_) => self.check_overwrite(output, "something else than a calibration"),
        }
    }

    fn check_overwrite(&self, output: &Path, lost: &str) -> anyhow::Result<()> {
        if !self.overwrite {
            bail!("{} is {lost}: name another --output, or replace it with --overwrite", output.display());
        }
        Ok(())
    }

    /// The files that are read.
    fn inputs(&self) -> Vec<&Path> {
        [&self.losses, &self.graph, &self.model.data].into_iter().flatten().map(PathBuf::as_path).collect()
    }

    fn plan(&self) -> anyhow::Result<CertifyPlan> {
        let model = &self.model;
        check_flags([
            ("--max-tokens", Some(model.max_tokens), TOKENS),
            ("--max-source-tokens", model.max_source_tokens, TOKENS),
            ("--batch-size", Some(model.batch_size), AT_LEAST_ONE),
            ("--limit", model.limit, AT_LEAST_ONE),
            ("--threads", model.engine.threads, Limit::threads()),
        ])?;
        let mut thresholds = model.thresholds.clone();
        thresholds.sort_by(|a, b| b.total_cmp(a));
        thresholds.dedup();
        let family = match (&model.policy, model.measure) {
            (Some(family), _) => family.clone(),
            (None, Some(measure)) => {
                let one = Threshold::new(1.0, model.decay)?;
                PolicySpec::calm(measure, one).with_exits(model.exits).family()
            }
            (None, None) => bail!("--model needs --measure or --policy"),
        };
        let kind = loss_kind(model.objective, model.metric, model.group_column.is_some());
        let options = self.options(kind)?;
        let objective = Objective {
            kind: model.objective,
            loss: model.metric,
            loss_kind: kind,
            p_value: options.p_value,
            deltas: vec![self.delta],
        };
        Ok(CertifyPlan {
            data: DatasetPlan {
                paths: model.data.as_ref().context("--model needs --data")?.into(),
                limit: model.limit,
                columns: Columns {
                    source: model.source_column.clone(),
                    chat: model.chat,
                    target: model.target_column.clone(),
                    context: model.context_column.clone(),
                    prefix: model.prefix.clone(),
                    group: model.group_column.clone(),
                    ..Columns::default()
                },
            },
            seed: self.seed,
            series: Series::new(&family, &thresholds)?,
            options,
            objective,
            max_tokens: model.max_tokens,
            max_source_tokens: model.max_source_tokens,
            batch_size: model.batch_size,
            shard_size: SHARD_SIZE,
        })
    }

    fn options(&self, loss_kind: LossKind) -> anyhow::Result<CalibrationOptions> {
        if let Some(limit) = self.loss_limit {
            ensure!(
                limit.is_finite(),
                "--loss-limit is {limit}, but must be finite: no loss is above another"
            );
        }
        // A loss above a limit or not is binary, whatever the loss itself can be.
        let loss_kind = if self.loss_limit.is_some() { LossKind::Binary } else { loss_kind };
        let p_value = self.p_value.unwrap_or(PValue::default_for(loss_kind));
        p_value.check(loss_kind)?;
        let (delta, epsilon) = (self.delta, self.epsilon);
        Ok(CalibrationOptions { delta, epsilon, p_value, procedure: self.procedure()?, loss_kind })
    }

    fn procedure(&self) -> anyhow::Result<Procedure> {
        let mut procedure = self.procedure.clone();
        let (mut starts, mut graph, mut share) = (self.starts, self.graph.as_ref(), self.selection_share);
        match &mut procedure {
            Procedure::MultiStart { starts: count } => *count = starts.take().unwrap_or(*count),
            Procedure::Graphical { graph: given } => {
                *given = graph.take().map(|path| read_graph(path)).transpose()?;
            }
            Procedure::Pareto { split } => {
                *split = Split::new(share.take().unwrap_or(split.share()), self.seed)?;
            }
            _ => {}
        }
        check_flags([("--starts", self.starts, AT_LEAST_ONE)])?;
        let unused = [
            ("--starts", starts.is_some()),
            ("--graph", graph.is_some()),
            ("--selection-share", share.is_some()),
        ];
        if let Some((flag, _)) = unused.iter().find(|(_, given)| *given) {
            anyhow::bail!("{flag} has no meaning for the procedure {procedure}");
        }
        Ok(procedure)
    }
}

fn read_graph(path: &Path) -> anyhow::Result<Graph> {
    Ok(calm_files::read_json(path)?)
}

/// A line for each threshold but 1, with the upper bound of its loss. The calibration is on as many
/// `exchangeable` ones as it says.
fn write_calibration(
    out: &mut dyn Write,
    calibration: &Calibration,
    bounds: &[f64],
    exchangeable: &str,
) -> io::Result<()> {
    writeln!(out, "{:>9}  {:>9}  {:>11}  {:>12}", "threshold", "mean loss", "upper bound", "p")?;
    for ((index, threshold), bound) in calibration.thresholds.iter().enumerate().zip(bounds) {
        let mark = if calibration.certified.contains(threshold) { "certified" } else { "" };
        let (loss, p) = (calibration.empirical_losses[index], calibration.p_values[index]);
        let threshold = threshold.to_string();
        let line = format!("{threshold:>9}  {loss:>9.5}  {bound:>11.5}  {p:>12.4e}  {mark}");
        writeln!(out, "{}", line.trim_end())?;
    }
    let Calibration { threshold, examples, delta, epsilon, procedure, p_value, .. } = calibration;
    let examples = counted(*examples, exchangeable);
    writeln!(out, "{examples}, delta {delta}, epsilon {epsilon}, {p_value}, {procedure}")?;
    if calibration.fallback {
        writeln!(out, "no threshold is certified: only the full model (threshold 1) holds the guarantee")
    } else {
        writeln!(out, "certified: threshold {threshold}")
    }
}

fn write_names(out: &mut dyn Write, files: &[PathBuf]) -> io::Result<()> {
    files.iter().try_for_each(|file| writeln!(out, "{}", file.display()))
}

fn warn(calibration: &Calibration) {
    let p_value = calibration.p_value;
    if let Some(sorted) = calibration.sorted_losses.first() {
        tell(format_args!(
            "warning: the losses at threshold {sorted} ascend with the examples; if they were sorted, nothing is guaranteed, \
             since the {p_value} p-value needs an order that was fixed without looking at them"
        ));
    }
    if p_value == PValue::Asymptotic {
        tell("warning: the asymptotic p-value holds only in the limit of many examples");
    }
}

fn write_certificate(out: &mut dyn Write, certificate: &Certificate) -> io::Result<()> {
    let Certificate { average_layers, num_layers, .. } = certificate;
    writeln!(out, "{average_layers:.2} of {num_layers} layers per token on the calibration examples")
}
