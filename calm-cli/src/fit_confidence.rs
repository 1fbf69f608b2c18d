//! `calm fit-confidence`: what a model's confidences mean, fitted to its own outputs.

use std::io::{self, Write};
use std::path::PathBuf;

use calm_checkpoint::folder_of;
use calm_core::{AGREEMENT_FILE, BETA_FILE, Exits};
use calm_engine::engine::Engine;
use calm_engine::program::{EngineArguments, introduce};
use calm_fit::reliability::{Reliability, draw};

use crate::results::print_table;
use crate::training_sources::TrainingSources;

const EXAMPLES: &str = "\
Example:
  calm fit-confidence --model models/debian-en-fr --data data/train/translation.parquet --limit 600 --experiment configs/wmt.toml";

/// Fit the probabilities of the measures `agreement` and `beta` to a model's own outputs.
///
/// They map a confidence to the probability that a layer's token is the last layer's. The model decodes
/// training sources at full depth; no labels are needed. Isotonic regressions go beside the model into
/// calm.agreement.json, mixtures of Beta distributions into calm.beta.json; both files are part of its
/// fingerprint. Beside a GGUF file they lie in a folder of its name that ends in .calm. None of the sources
/// may be in what a guarantee is computed from later, which `calm calibrate` and experiments refuse.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Checkpoint directory: config.json, model.safetensors and tokenizer.json; or a GGUF file
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    sources: TrainingSources,
    /// Another set of exits, such as 2,4, for measures that depend on all tests before; may be repeated
    #[arg(long, value_name = "K,K")]
    exits: Vec<Exits>,
    #[command(flatten)]
    engine: EngineArguments,
    /// Receives how the probabilities fare on a quarter of the examples, which is held out, as JSON; - is
    /// standard output
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
    /// Receives the same as a figure, reliability.svg and reliability.png
    #[arg(long, value_name = "DIR")]
    figure: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    arguments.sources.check()?;
    let figure = |folder: &PathBuf| folder.join("reliability.svg");
    let folder = folder_of(&arguments.model);
    let fitted_files = [AGREEMENT_FILE, BETA_FILE].map(|file| folder.join(file));
    let (report, drawn) = (arguments.report.clone(), arguments.figure.as_ref().map(figure));
    for output in [&report, &drawn].into_iter().flatten() {
        calm_files::check_output(output, &arguments.sources.files())?;
    }
    let mut engine = Engine::load(&arguments.model, &arguments.engine.options(usize::MAX)?)?;
    for file in &fitted_files {
        calm_files::check_output(file, &[])?;
    }
    introduce(&engine);
    let (sources, observations) = arguments.sources.observe(&mut engine, &arguments.exits)?;
    let reliability = calm_fit::fit_beside(&folder, &observations, &sources)?;
    let mut written = fitted_files.to_vec();
    if let Some(path) = &report {
        calm_files::write_json(path, &reliability)?;
    }
    if let Some(folder) = &arguments.figure {
        written.extend(draw(&reliability, folder)?);
    }
    print_table(&[report.as_deref()], |out| {
        write_table(out, &reliability)?;
        written.iter().try_for_each(|path| writeln!(out, "{}", path.display()))
    })?;
    Ok(())
}

fn write_table(out: &mut dyn Write, reliability: &[Reliability]) -> io::Result<()> {
    writeln!(out, "held-out tokens whose best token is the last layer's, and what the maps say of them:")?;
    writeln!(
        out,
        "{:<12} {:>7} {:>5} {:>7} {:>9} {:>7}",
        "measure", "tests", "layer", "tokens", "agreement", "ECE"
    )?;
    for row in reliability {
        writeln!(
            out,
            "{:<12} {:>7} {:>5} {:>7} {:>9.3} {:>7.4}",
            row.measure,
            row.tests.to_string(),
            row.layer,
            row.tokens,
            row.agreement,
            row.expected_calibration_error
        )?;
    }
    Ok(())
}
