//! `calm tune`: which layers to test after, and by which measure.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use calm_checkpoint::folder_of;
use calm_core::{AgreementMaps, MeasureKind, Token};
use calm_engine::engine::Engine;
use calm_engine::limits::{AT_LEAST_ONE, check_flags};
use calm_engine::program::{EngineArguments, introduce};
use calm_fit::tune::{Candidate, Costs, measure_costs, search};
use serde::Serialize;

use crate::results::print_table;
use crate::training_sources::TrainingSources;

/// Candidates of each measure that are printed.
const SHOWN: usize = 4;

const EXAMPLES: &str = "\
Example:
  calm tune --model models/debian-en-fr --data data/train/translation.parquet --experiment configs/wmt.toml";

/// Choose the layers to test after and the measure, by the time of a token.
///
/// Training sources are decoded at full depth, which tells how many layers and tests every set of exits needs
/// for a share of tokens that are the last layer's; some of them are decoded again to measure what a layer
/// and a test take on this machine. What is chosen is then certified like any other setting, by `calm
/// calibrate` or an experiment: the guarantee is not computed from these sources.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Checkpoint directory or GGUF file with calm.agreement.json, which `calm fit-confidence` makes
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    sources: TrainingSources,
    /// Shares of tokens that are to be the last layer's
    #[arg(long, value_name = "S,S", value_delimiter = ',', default_value = "0.9,0.95,0.97,0.99")]
    agreement: Vec<f64>,
    /// Sources that times are measured with
    #[arg(long, value_name = "N", default_value_t = 64)]
    timed: usize,
    #[command(flatten)]
    engine: EngineArguments,
    /// Receives costs and all candidates as JSON; - is standard output
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
}

/// The file of --report.
#[derive(Serialize)]
struct Report<'a> {
    costs: &'a [(&'static MeasureKind, Costs)],
    candidates: Vec<&'a Candidate>,
}

/// What is printed.
struct Tables<'a> {
    batch_size: usize,
    costs: &'a [(&'static MeasureKind, Costs)],
    /// The fastest first, for each share that was asked for.
    candidates: &'a [(f64, Vec<Candidate>)],
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    arguments.sources.check()?;
    check_flags([("--timed", Some(arguments.timed), AT_LEAST_ONE)])?;
    if let Some(share) = arguments.agreement.iter().find(|share| !(0.0..=1.0).contains(*share)) {
        bail!("--agreement must be from 0 to 1, not {share}");
    }
    if let Some(path) = &arguments.report {
        calm_files::check_output(path, &arguments.sources.files())?;
    }
    let mut engine = Engine::load(&arguments.model, &arguments.engine.options(usize::MAX)?)?;
    introduce(&engine);
    let maps = AgreementMaps::read(&folder_of(&arguments.model))?;
    let maps = maps.context("the model has no calm.agreement.json, which `calm fit-confidence` makes")?;
    let (sources, observations) = arguments.sources.observe(&mut engine, &[])?;
    let batch_size = arguments.sources.batch_size;

    // Outputs as long as those that were seen.
    let length = observations.tokens().div_ceil(sources.len()).max(2);
    let timed: Vec<&[Token]> = sources.iter().take(arguments.timed).map(Vec::as_slice).collect();
    let model = &*engine.models[0];
    model.enter_thread();
    let costs = measure_costs(model, &timed, batch_size, length)?;
    let found = |&agreement: &f64| Ok((agreement, search(&observations, &maps, &costs, agreement)?));
    let by_share = arguments.agreement.iter().map(found).collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(path) = &arguments.report {
        let candidates = by_share.iter().flat_map(|(_, candidates)| candidates).collect();
        calm_files::write_json(path, &Report { costs: &costs, candidates })?;
    }
    let tables = Tables { batch_size, costs: &costs, candidates: &by_share };
    print_table(&[arguments.report.as_deref()], |out| tables.write(out))?;
    Ok(())
}

impl Tables<'_> {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "microseconds of a token, in batches of {} on one worker:", self.batch_size)?;
        writeln!(
            out,
            "{:<18} {:>9} {:>9} {:>11} {:>11} {:>11}",
            "measure", "base", "layer", "prediction", "first test", "later test"
        )?;
        for (measure, costs) in self.costs {
            writeln!(
                out,
                "{:<18} {:>9.1} {:>9.1} {:>11.1} {:>11.1} {:>11.1}",
                measure.name,
                1e6 * costs.base,
                1e6 * costs.layer,
                1e6 * costs.prediction,
                1e6 * costs.first_test,
                1e6 * costs.later_test
            )?;
        }
        self.candidates.iter().try_for_each(|(share, candidates)| self.write_fastest(out, *share, candidates))
    }

    fn write_fastest(&self, out: &mut dyn Write, share: f64, candidates: &[Candidate]) -> io::Result<()> {
        writeln!(
            out,
            "\n{} % of tokens as the last layer's, the fastest exits of each measure:",
            100.0 * share
        )?;
        writeln!(
            out,
            "{:<18} {:<14} {:>9} {:>7} {:>6} {:>9} {:>9}",
            "measure", "exits", "threshold", "layers", "tests", "us/token", "speed-up"
        )?;
        for (measure, _) in self.costs {
            for candidate in candidates.iter().filter(|of| of.measure == *measure).take(SHOWN) {
                writeln!(
                    out,
                    "{:<18} {:<14} {:>9.4} {:>7.2} {:>6.2} {:>9.1} {:>9.2}",
                    measure.name,
                    candidate.exits.to_string(),
                    candidate.threshold,
                    candidate.layers,
                    candidate.tests,
                    1e6 * candidate.seconds,
                    candidate.full_seconds / candidate.seconds
                )?;
            }
        }
        Ok(())
    }
}
