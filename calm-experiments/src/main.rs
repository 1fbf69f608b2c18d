//! `calm-experiments CONFIG.toml`: the paper's experiment with T5 on libtorch.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use calm_core::Token;
use calm_experiments::config::{self, Plan};
use calm_experiments::runner::{Engine, TextCodec};
use calm_experiments::{experiment, plots, summary};
use calm_model::{T5, Tokenizer};
use clap::Parser;
use sha2::{Digest, Sha256};
use tch::Device;

/// Runs an experiment: decodes the test and calibration splits with every setting of the configuration, certifies
/// thresholds, and writes CSV files, a summary and figures. A run that was interrupted goes on where it stopped.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration; configs/wmt.toml explains every key
    config: PathBuf,
    /// Folder of the results [default: runs/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Overrides a key of the configuration, e.g. decode.batch_size=8; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// cpu, cuda or cuda:N [default: the first CUDA device, or else the CPU]
    #[arg(long, value_name = "D")]
    device: Option<String>,
    /// Worker threads on the CPU [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Decode nothing: make tables and figures again from the files of an earlier run
    #[arg(long)]
    statistics_only: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut overrides = arguments.overrides;
    overrides.extend(arguments.threads.map(|threads| format!("threads={threads}")));
    let plan = config::load(&arguments.config, &overrides)?;
    let out = arguments.out.unwrap_or_else(|| Path::new("runs").join(&plan.name));
    let threads = plan.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;

    let report = if arguments.statistics_only {
        experiment::run_statistics(&plan, &out)?
    } else {
        experiment::run(&plan, &out, || load_engine(&plan, arguments.device.as_deref(), threads))?
    };
    let figures = plots::draw_all(&plan, &report.results, &out.join("plots"))?;
    println!("{}\n", summary::table(&plan, &report.results));
    for file in report.files.iter().chain(&figures) {
        println!("{}", file.display());
    }
    Ok(())
}

/// The model, once for each worker.
fn load_engine(plan: &Plan, device: Option<&str>, threads: usize) -> anyhow::Result<Engine<T5, Codec>> {
    let device = calm_model::device::init(device)?;
    one_thread();
    let model = T5::load(&plan.model, device)?;
    if !model.unexpected().is_empty() {
        eprintln!("note: tensors of the checkpoint that are not used: {}", model.unexpected().join(", "));
    }
    let tokenizer = plan.model.join("tokenizer.json");
    let mut hash = Sha256::new_with_prefix(model.fingerprint());
    for file in [plan.model.join("config.json"), tokenizer.clone()] {
        hash.update(std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    let tokenizer = Tokenizer::load(&tokenizer)?;
    // One process has one queue of work for a GPU; a second worker would only wait for the first.
    let workers = if device.is_cuda() { 1 } else { threads };
    let mut backbones: Vec<T5> = (1..workers).map(|_| model.share()).collect();
    backbones.push(model);
    Ok(Engine {
        backbones,
        codec: Codec(tokenizer),
        fingerprint: hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
        device: if device.is_cuda() { "cuda" } else { "cpu" }.to_owned(),
        prepare_thread: one_thread,
        synchronize,
    })
}

/// Models of this size are too small for libtorch to split their products between threads: it would spend four fifths of
/// the time waiting for them to meet.
fn one_thread() {
    tch::set_num_threads(1);
}

fn synchronize(model: &T5) {
    if let Device::Cuda(index) = model.device() {
        tch::Cuda::synchronize(index as i64);
    }
}

struct Codec(Tokenizer);

impl TextCodec for Codec {
    fn encode(&self, text: &str) -> anyhow::Result<Vec<Token>> {
        Ok(self.0.encode(text)?)
    }

    fn decode(&self, tokens: &[Token]) -> anyhow::Result<String> {
        Ok(self.0.decode(tokens)?)
    }
}

/// One line for each cause, but none that the line before has told already, as the messages of most libraries do.
fn report(error: &anyhow::Error) {
    let mut said = String::new();
    for (index, cause) in error.chain().map(ToString::to_string).enumerate() {
        let line = cause.lines().next().unwrap_or_default().trim_end();
        if index == 0 {
            eprintln!("error: {line}");
        } else if !said.contains(line) {
            eprintln!("  because: {line}");
        }
        said.push_str(line);
    }
}
