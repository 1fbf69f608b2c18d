//! `calm bench`: how fast a checkpoint decodes, and how near that is to what the machine's memory allows.

mod exit_trace;
mod profile;
mod report;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, ensure};
use calm_checkpoint::{
    CacheType, EngineKind, LlamaConfig, NetworkConfig, T5Config, Teamwork, WeightType, is_gguf,
};
use calm_core::profile::{Profile, record};
use calm_core::{DecodeOptions, Generation, Policy, PolicySpec, Token};
use calm_cpu::{Weights, all_cores};
use calm_engine::decoding::{decode_batches, read_batch};
use calm_engine::engine::{Engine, EngineOptions};
use calm_engine::limits::{Limit, REPETITIONS, ROWS, TOKENS, check_flags};
use calm_engine::waiting::with_seconds_waited;
use calm_files::{Progress, TemporaryFolder};
use calm_names::UnknownName;

use self::exit_trace::ExitTrace;
use self::profile::{CallProfile, Output};
use self::report::{Measured, Report};
use crate::policy::policy_help;
use crate::results::print_table;

const EXAMPLES: &str = "\
Examples:
  calm bench --model models/debian-en-fr --policy full --policy calm-agreement-0.9 --batch-size 1,16
  calm bench --model random:t5-v1_1-small --dtype int8 --profile";

/// Measure the speed of decoding.
///
/// Engines, weight types, policies and batch sizes are measured by turns, in whole calls with the encoder.
/// Every output has --new-tokens tokens: the end of a sequence does not end it. The fraction of the memory
/// rate is that of reading the weights of the layers that ran and of the head once a step, beside what the
/// machine's threads read at best, or on a GPU what a sum over a block of its memory reads; with weights that
/// fit into a cache it can exceed 100 %. Where the system does not run all threads of the cpu engine, it goes
/// on with fewer, and the report says so.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Checkpoint directory or GGUF file, or random:SHAPE for random weights of t5-small, t5-base, t5-large,
    /// t5-v1_1-small, -base or -large, smollm2-135m, smollm2-360m or tinyllama-1.1b
    #[arg(long, value_name = "PATH")]
    model: String,
    /// cpu or libtorch; may be repeated [default: cpu, or libtorch where --device is no CPU]
    #[arg(long = "engine", value_name = "E")]
    engines: Vec<EngineKind>,
    /// cpu, cuda or cuda:N, for libtorch; the cpu engine stays on the CPU
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    #[arg(
        long = "policy",
        value_name = "P",
        default_value = "full",
        help = "Where each token stops; may be repeated",
        long_help = policy_help()
    )]
    policies: Vec<PolicySpec>,
    /// Tokens of each source
    #[arg(long, value_name = "N", default_value_t = 64)]
    source_tokens: usize,
    /// Tokens of each output
    #[arg(long, value_name = "N", default_value_t = 64)]
    new_tokens: usize,
    /// Rows decoded together
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1")]
    batch_size: Vec<usize>,
    /// Threads; all cores if not given
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// f32, bf16 or int8 on the cpu engine, or stored, as the checkpoint has them; libtorch has f32 [default:
    /// f32,bf16,int8, and stored for a GGUF file]
    #[arg(long, value_name = "TYPE,TYPE", value_delimiter = ',')]
    dtype: Vec<InMemory>,
    /// How the cpu engine keeps keys and values: f32, f16 or bf16
    #[arg(long, value_name = "TYPE,TYPE", value_delimiter = ',', default_value = "f32")]
    cache_dtype: Vec<CacheType>,
    /// Times that each case is measured, after one call that is not
    #[arg(long, value_name = "N", default_value_t = 7)]
    repetitions: usize,
    /// Exits at the layers in a file that `calm generate` wrote: random weights at a trained model's depths
    ///
    /// Policies with a measure test exits as they would, whatever their threshold, but each token leaves at
    /// the layer of the trace: rows take its lines in order, and both begin again at their end. A batch of 1
    /// has the first line alone.
    #[arg(long, value_name = "FILE")]
    exit_trace: Option<PathBuf>,
    /// Also measures where the time of a call goes, in calls of their own: a table for each case
    ///
    /// The parts are the calling thread's and exclude each other; its waiting for other threads is a part. On
    /// a GPU a part has the time of launching its kernels, and the head, which reads results, waits for all.
    #[arg(long)]
    profile: bool,
    /// Receives the results as JSON; - is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keeps the random checkpoint here, in f32 and the Hugging Face layout
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
}

/// How weights lie in memory: as they are stored, or rounded to a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InMemory(Option<WeightType>);

impl FromStr for InMemory {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Ok(InMemory(if name == STORED { None } else { Some(name.parse()?) }))
    }
}

/// --dtype calls the types that a checkpoint has like this.
const STORED: &str = "stored";

/// More than any cache holds.
const READ_BYTES: usize = 256 << 20;

/// What a model of random weights is made from.
const SEED: u64 = 1;

/// An engine holds this model.
struct Loaded {
    engine: EngineKind,
    device: String,
    dtype: String,
    cache_type: CacheType,
    model: Engine,
}

struct Case<'a> {
    loaded: &'a Loaded,
    spec: PolicySpec,
    policy: Box<dyn Policy>,
    batch_size: usize,
    /// Seconds of whole calls and of calls that end after the first token.
    calls: Vec<f64>,
    first: Vec<f64>,
    /// Whole calls that were recorded.
    profiles: Vec<Profile>,
    /// Layers run for the tokens of a whole call.
    executed_layers: usize,
    /// What the threads did together in the calls that count, if the engine counts it.
    teamwork: Option<Teamwork>,
    /// Seconds that this thread has waited for a core in whole calls, where the system keeps account of them.
    waited: Option<f64>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    arguments.check()?;
    let threads = arguments.threads.unwrap_or_else(all_cores);
    let trace = arguments.exit_trace.as_deref().map(ExitTrace::read).transpose()?;
    let folder = Folder::of(arguments)?;
    let models = load_models(arguments, folder.path(), threads)?;
    // After loading, which leaves libtorch one thread.
    #[cfg(feature = "libtorch")]
    tch::set_num_threads(i32::try_from(threads)?);
    let mut cases = Vec::new();
    for loaded in &models {
        for &spec in &arguments.policies {
            for &batch_size in &arguments.batch_size {
                let model = loaded.model.model();
                let policy = match &trace {
                    Some(trace) => trace.policy(&spec, model)?,
                    None => spec.make(model)?,
                };
                cases.push(Case::new(loaded, spec, policy, batch_size));
            }
        }
    }
    let block = vec![1_u64; READ_BYTES / size_of::<u64>()];
    let (mut memory_rate, mut device_memory_rate) = (0.0_f64, None);
    let progress = Progress::new("measuring", "calls", Some((arguments.repetitions + 1) * cases.len()));
    for repetition in 0..=arguments.repetitions {
        memory_rate = memory_rate.max(read_rate(&block, threads));
        let on_device = models.iter().find_map(|loaded| loaded.model.model().memory_rate());
        device_memory_rate = on_device.map(|rate| rate.max(device_memory_rate.unwrap_or(0.0)));
        for case in &mut cases {
            case.measure(arguments, repetition > 0)?;
            progress.add(1);
        }
    }
    progress.finish();
    let summarise = |case: &mut Case<'_>| {
        let rate = device_memory_rate.filter(|_| case.loaded.device != CPU).unwrap_or(memory_rate);
        case.summarise(arguments, rate)
    };
    let cases = cases.iter_mut().map(summarise).collect();
    let report = Report {
        model: arguments.model.clone(),
        threads,
        memory_rate,
        device_memory_rate,
        source_tokens: arguments.source_tokens,
        new_tokens: arguments.new_tokens,
        repetitions: arguments.repetitions,
        cases,
    };
    if let Some(path) = &arguments.json {
        calm_files::write_json(path, &report)?;
    }
    print_table(&[arguments.json.as_deref()], |out| report.write(out))?;
    Ok(())
}

impl Arguments {
    fn types_in_memory(&self, checkpoint: &Path) -> Vec<Option<WeightType>> {
        match &self.dtype[..] {
            [] if is_gguf(checkpoint) => vec![None],
            [] => WeightType::ALL.iter().copied().map(Some).collect(),
            given => given.iter().map(|in_memory| in_memory.0).collect(),
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        check_flags([
            ("--source-tokens", Some(self.source_tokens), TOKENS),
            // The first token's time is told apart from that of the others.
            ("--new-tokens", Some(self.new_tokens), TOKENS.at_least(2)),
            ("--threads", self.threads, Limit::threads()),
            ("--repetitions", Some(self.repetitions), REPETITIONS),
        ])?;
        check_flags(self.batch_size.iter().map(|&rows| ("--batch-size", Some(rows), ROWS)))?;
        let outputs = [self.json.clone(), self.save.as_ref().map(|folder| folder.join("config.json"))];
        for output in outputs.iter().flatten() {
            let trace = self.exit_trace.as_deref();
            calm_files::check_output(output, trace.as_slice())?;
        }
        Ok(())
    }
}

/// The checkpoint's folder; a temporary one, for random weights without --save, is deleted on drop.
enum Folder {
    Given(PathBuf),
    Temporary(TemporaryFolder),
}

impl Folder {
    fn of(arguments: &Arguments) -> anyhow::Result<Self> {
        let Some(name) = arguments.model.strip_prefix("random:") else {
            ensure!(arguments.save.is_none(), "--save is for random weights");
            return Ok(Folder::Given(PathBuf::from(&arguments.model)));
        };
        let t5 = T5Config::published(name).map(|config| Box::new(config) as Box<dyn NetworkConfig>);
        let llama = || LlamaConfig::published(name).map(|config| Box::new(config) as Box<dyn NetworkConfig>);
        let config = t5.or_else(llama).with_context(|| format!("no published shape is called {name}"))?;
        let folder = match &arguments.save {
            Some(folder) => Folder::Given(folder.clone()),
            None => Folder::Temporary(TemporaryFolder::new("calm-bench-")?),
        };
        Weights::random(&*config, SEED).save(folder.path(), &*config)?;
        Ok(folder)
    }

    fn path(&self) -> &Path {
        match self {
            Folder::Given(path) => path,
            Folder::Temporary(folder) => folder.path(),
        }
    }
}

/// --device names the CPU like this.
const CPU: &str = "cpu";

fn load_models(arguments: &Arguments, folder: &Path, threads: usize) -> anyhow::Result<Vec<Loaded>> {
    let default = if arguments.device == CPU { EngineKind::Cpu } else { EngineKind::Libtorch };
    let engines = if arguments.engines.is_empty() { &[default][..] } else { &arguments.engines };
    ensure!(
        arguments.device == CPU || engines.contains(&EngineKind::Libtorch),
        "the CPU engine has no device {}",
        arguments.device
    );
    let mut models = Vec::new();
    for &engine in engines {
        let (types, cache_types, device) = match engine {
            EngineKind::Cpu => (arguments.types_in_memory(folder), &arguments.cache_dtype[..], CPU),
            EngineKind::Libtorch => (vec![None], &[CacheType::F32][..], arguments.device.as_str()),
        };
        for weight_type in types {
            for &cache_type in cache_types {
                let options = EngineOptions {
                    kind: Some(engine),
                    device: Some(device.to_owned()),
                    weight_type,
                    cache_type,
                    workers: 1,
                    threads_per_worker: threads,
                    without_exit_heads: false,
                };
                let model = Engine::load(folder, &options)?;
                let in_memory = model.model().device();
                let dtype = match engine {
                    EngineKind::Cpu => in_memory.split(' ').nth(1).unwrap_or_default(),
                    EngineKind::Libtorch => WeightType::F32.name(),
                };
                let (dtype, device) = (dtype.to_owned(), device.to_owned());
                models.push(Loaded { engine, device, dtype, cache_type, model });
            }
        }
    }
    Ok(models)
}

impl<'a> Case<'a> {
    fn new(loaded: &'a Loaded, spec: PolicySpec, policy: Box<dyn Policy>, batch_size: usize) -> Self {
        let (calls, first, profiles) = (Vec::new(), Vec::new(), Vec::new());
        let (executed_layers, teamwork, waited) = (0, None, None);
        Case { loaded, spec, policy, batch_size, calls, first, profiles, executed_layers, teamwork, waited }
    }

    fn measure(&mut self, arguments: &Arguments, counts: bool) -> anyhow::Result<()> {
        let model = self.loaded.model.model();
        let source = source_tokens(model.shape().vocab_size, arguments.source_tokens);
        let before = model.teamwork();
        let (_, first) = self.call(&source, 1)?;
        let (called, waited) = with_seconds_waited(|| self.call(&source, arguments.new_tokens));
        let (generations, seconds) = called?;
        self.executed_layers = generations.iter().map(|generation| generation.executed_layers).sum();
        if counts {
            self.first.push(first);
            self.calls.push(seconds);
            if let Some(seconds) = waited {
                *self.waited.get_or_insert_default() += seconds;
            }
            if let (Some(before), Some(after)) = (before, model.teamwork()) {
                let sum = self.teamwork.get_or_insert_default();
                sum.operations += after.operations - before.operations;
                sum.with_fewer += after.with_fewer - before.with_fewer;
            }
        }
        if counts && arguments.profile {
            let (result, profile) = record(|| self.call(&source, arguments.new_tokens));
            result?;
            self.profiles.push(profile);
        }
        Ok(())
    }

    /// A whole call, and its seconds.
    fn call(&self, source: &[Token], max_tokens: usize) -> anyhow::Result<(Vec<Generation>, f64)> {
        let sources = vec![source; self.batch_size];
        let options = DecodeOptions { ignore_eos: true, ..DecodeOptions::new(max_tokens) };
        let start = Instant::now();
        let batch = read_batch(self.loaded.model.model(), &sources)?;
        let generations = decode_batches(&[batch], &*self.policy, &options)?;
        let seconds = start.elapsed().as_secs_f64();
        let tokens: usize = generations.iter().map(|generation| generation.tokens.len()).sum();
        ensure!(tokens == max_tokens * self.batch_size, "{tokens} tokens instead of {max_tokens} a row");
        Ok((generations, seconds))
    }

    fn summarise(&mut self, arguments: &Arguments, memory_rate: f64) -> Measured {
        self.calls.sort_by(f64::total_cmp);
        self.first.sort_by(f64::total_cmp);
        let (call, first) = (median(&self.calls), median(&self.first));
        let output =
            Output { tokens: arguments.new_tokens * self.batch_size, executed_layers: self.executed_layers };
        let step = (call - first) / (arguments.new_tokens - 1) as f64;
        let executed_layers = self.executed_layers as f64 / output.tokens as f64;
        let bytes = self.loaded.model.model().shape().bytes;
        let bytes = executed_layers * bytes.layer + bytes.head;
        Measured {
            engine: self.loaded.engine.name(),
            device: self.loaded.device.clone(),
            dtype: self.loaded.dtype.clone(),
            cache_dtype: self.loaded.cache_type.name(),
            policy: self.spec.to_string(),
            batch_size: self.batch_size,
            tokens_per_second: [call, self.calls[self.calls.len() - 1], self.calls[0]]
                .map(|seconds| output.tokens as f64 / seconds),
            time_to_first_token_ms: 1e3 * first,
            ms_per_token: 1e3 * step,
            memory_fraction: bytes / step / memory_rate,
            executed_layers,
            waited: self.waited.map(|seconds| seconds / self.calls.iter().sum::<f64>()),
            with_fewer_threads: self.teamwork.map(|sum| sum.with_fewer as f64 / sum.operations.max(1) as f64),
            profile: CallProfile::new(std::mem::take(&mut self.profiles), call, &output),
        }
    }
}

/// A source whose tokens are as far apart as those of a text: the one that benches/compare gives to the other
/// runtimes.
///
/// The first three tokens are special. So are the last 200 in the published vocabularies, which fill up with
/// sentinels and padding; a vocabulary that has no more than these is taken as one without them.
fn source_tokens(vocab_size: usize, count: usize) -> Vec<Token> {
    let first = vocab_size.saturating_sub(1).min(3);
    let words = if vocab_size > 200 { vocab_size - 200 } else { (vocab_size - first).max(1) };
    (0..count).map(|i| (first + i * 7919 % words) as Token).collect()
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// Bytes a second of threads that add up a block.
fn read_rate(block: &[u64], threads: usize) -> f64 {
    const LANES: usize = 32;
    let mut best = 0.0_f64;
    for _ in 0..3 {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in block.chunks(block.len().div_ceil(threads)) {
                scope.spawn(|| {
                    let mut sums = [0_u64; LANES];
                    for numbers in part.chunks_exact(LANES) {
                        for (sum, number) in sums.iter_mut().zip(numbers) {
                            *sum = sum.wrapping_add(*number);
                        }
                    }
                    std::hint::black_box(sums)
                });
            }
        });
        best = best.max(size_of_val(block) as f64 / start.elapsed().as_secs_f64());
    }
    best
}
