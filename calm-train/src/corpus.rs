//! The tasks of a run as token files, and the examples that an epoch passes over.

use std::path::Path;

use calm_checkpoint::Tokenizer;
use calm_data::{DatasetPaths, HubCache, read_examples};
use calm_files::hex;
use calm_metrics::Metric;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::config::{TaskConfig, TrainConfig};
use crate::tokens::{PairLength, TokenFile, TokenFileOptions, TokenPair};

/// All tasks of a run.
pub struct Corpus {
    tasks: Vec<Task>,
}

/// An example of a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExampleIndex {
    task: u32,
    row: u32,
}

/// The held-out examples of one task.
pub struct HeldOut<'a> {
    /// Name of the task.
    pub name: &'a str,
    /// Metric by which decoded outputs are scored.
    pub metric: Metric,
    /// Tokens of the examples.
    pub pairs: &'a [TokenPair],
    /// The texts that count as right for each example.
    pub references: &'a [Vec<String>],
}

/// How many of some tokens are a certain one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) count: usize,
    pub(crate) all: usize,
}

impl Share {
    fn add(&mut self, token: u32, tokens: &[u32]) {
        self.count += tokens.iter().filter(|&&other| other == token).count();
        self.all += tokens.len();
    }
}

struct Task {
    name: String,
    metric: Metric,
    weight: f64,
    file: TokenFile,
    /// The rows to train on, in a random order that all epochs walk along.
    rows: Vec<u32>,
    held_out: Vec<TokenPair>,
    references: Vec<Vec<String>>,
}

impl Corpus {
    /// Opens the token files in `config.checkpoints`.
    ///
    /// First it makes those that are missing or were made from something else.
    ///
    /// A token file whose data do not exist any more is taken as it is, so that a run can move to another
    /// machine without them.
    ///
    /// # Errors
    /// Fails if data cannot be read, if a file cannot be written, or if no example is left after the limits
    /// on length.
    pub fn open(config: &TrainConfig, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let tasks = config.data.tasks.iter().map(|task| Task::open(config, task, tokenizer));
        let corpus = Corpus { tasks: tasks.collect::<Result<_, Error>>()? };
        if corpus.tasks.iter().all(|task| task.rows.is_empty()) { Err(Error::NoExamples) } else { Ok(corpus) }
    }

    /// Number of examples to train on.
    pub fn len(&self) -> usize {
        self.tasks.iter().map(|task| task.rows.len()).sum()
    }

    /// Whether there are no examples to train on.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lists the examples of an epoch, each as often as the weight of its task says.
    ///
    /// Epochs walk along one random order, each where the last one ended, so that every example has its turn
    /// if the weight is below 1.
    pub fn epoch(&self, epoch: u64) -> Vec<ExampleIndex> {
        let mut members = Vec::new();
        for (number, task) in (0..).zip(&self.tasks) {
            let until = |epoch: u64| (epoch as f64 * task.weight * task.rows.len() as f64).round() as u64;
            for position in until(epoch)..until(epoch + 1) {
                let row = task.rows[(position % task.rows.len() as u64) as usize];
                members.push(ExampleIndex { task: number, row });
            }
        }
        members
    }

    /// Returns the lengths of an example.
    pub fn length(&self, index: ExampleIndex) -> PairLength {
        self.tasks[index.task as usize].file.length(index.row as usize)
    }

    /// Returns the tokens of an example.
    pub fn pair(&self, index: ExampleIndex) -> TokenPair {
        self.tasks[index.task as usize].file.pair(index.row as usize)
    }

    /// Returns the sources of so many training examples of each task, which the seed of the run has chosen.
    pub fn some_sources(&self, examples: usize) -> Vec<Vec<u32>> {
        let of_task = |task: &Task| {
            let rows = task.rows.iter().take(examples);
            rows.map(|&row| task.file.pair(row as usize).source).collect::<Vec<_>>()
        };
        self.tasks.iter().flat_map(of_task).collect()
    }

    /// Returns the held-out examples of each task that has some.
    pub fn held_out(&self) -> impl Iterator<Item = HeldOut<'_>> {
        self.tasks.iter().filter(|task| !task.held_out.is_empty()).map(|task| HeldOut {
            name: &task.name,
            metric: task.metric,
            pairs: &task.held_out,
            references: &task.references,
        })
    }

    /// Counts a token in the sources and in the targets of each task's training file.
    pub(crate) fn shares_of(&self, token: u32) -> Vec<(&str, [Share; 2])> {
        let of_task = |task: &Task| {
            let mut shares = [Share::default(); 2];
            for TokenPair { source, target } in task.pairs() {
                shares[0].add(token, &source);
                shares[1].add(token, &target);
            }
            shares
        };
        self.tasks.iter().map(|task| (task.name.as_str(), of_task(task))).collect()
    }

    /// Fingerprint of the examples and their order, as SHA-256 in hexadecimal.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for task in &self.tasks {
            hash.update(format!("{} {} {}\n", task.name, task.weight, task.rows.len()));
            for &row in &task.rows {
                let pair = task.file.length(row as usize);
                hash.update(format!("{row} {} {}\n", pair.source, pair.target));
            }
        }
        hex(&hash.finalize())
    }
}

impl Task {
    fn open(config: &TrainConfig, task: &TaskConfig, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let read = |part, data: &DatasetPaths| {
            let path = config.checkpoints.join(format!("{}.{part}.tokens", task.name));
            open_token_file(&path, data, config, task, tokenizer)
        };
        let file = read("train", &task.train)?;
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        let mut rows: Vec<u32> = (0..file.len() as u32).collect();
        rows.shuffle(&mut random);
        let (held_out, references) = if let Some(validation) = &task.validation {
            let file = read("validation", validation)?;
            let mut chosen: Vec<usize> = (0..file.len()).collect();
            chosen.shuffle(&mut random);
            chosen.truncate(config.validation.examples);
            chosen.sort_unstable();
            let references = chosen.iter().map(|&row| file.references()[row].clone()).collect();
            (chosen.iter().map(|&row| file.pair(row)).collect(), references)
        } else {
            let count = config.validation.examples.min(rows.len() / 10);
            let mut chosen = rows.split_off(rows.len() - count);
            chosen.sort_unstable();
            let held_out: Vec<TokenPair> = chosen.iter().map(|&row| file.pair(row as usize)).collect();
            let text = |pair: &TokenPair| Ok(vec![tokenizer.decode(&pair.target)?]);
            let references = held_out.iter().map(text).collect::<Result<_, Error>>()?;
            (held_out, references)
        };
        let TaskConfig { name, metric, weight, .. } = task.clone();
        Ok(Task { name, metric, weight, file, rows, held_out, references })
    }

    /// The tokens of all examples of the training file.
    fn pairs(&self) -> impl Iterator<Item = TokenPair> {
        (0..self.file.len()).map(|row| self.file.pair(row))
    }
}

fn open_token_file(
    path: &Path,
    data: &DatasetPaths,
    config: &TrainConfig,
    task: &TaskConfig,
    tokenizer: &Tokenizer,
) -> Result<TokenFile, Error> {
    let fingerprint = Fingerprint::new(data, config, task, tokenizer)?;
    if path.is_file() {
        let (file, found) = TokenFile::open(path)?;
        if fingerprint.is_of(&found) {
            return Ok(file);
        }
    }
    let options = TokenFileOptions {
        fingerprint: fingerprint.complete(),
        max_source_tokens: config.data.max_source_tokens,
        max_target_tokens: config.data.max_target_tokens,
        keep_references: task.validation.as_ref() == Some(data),
    };
    TokenFile::write(path, &read_examples(data, &task.columns)?, tokenizer, &options)?;
    Ok(TokenFile::open(path)?.0)
}

/// Fingerprint of what a token file depends on.
struct Fingerprint {
    /// Hash of tokenizer, columns, limits and paths of the data.
    settings: String,
    /// Hash of the sizes and times of the data files; `None` if they do not exist.
    data: Option<String>,
}

impl Fingerprint {
    fn new(
        data: &DatasetPaths,
        config: &TrainConfig,
        task: &TaskConfig,
        tokenizer: &Tokenizer,
    ) -> Result<Self, Error> {
        let file = calm_files::read(&config.tokenizer_file())?;
        let settings = serde_json::json!([
            hex(&Sha256::digest(file)) + &tokenizer.departures().unwrap_or_default(),
            task.columns,
            config.data.max_source_tokens,
            config.data.max_target_tokens,
            data,
        ]);
        let files = data.files(&HubCache::from_env()).unwrap_or_default();
        let state = files.iter().map(|file| {
            let metadata = std::fs::metadata(file).ok()?;
            Some(format!("{} {:?}\n", metadata.len(), metadata.modified().ok()))
        });
        let state: Option<String> = state.collect();
        Ok(Fingerprint {
            settings: hex(&Sha256::digest(settings.to_string())),
            data: state.filter(|_| !files.is_empty()).map(|state| hex(&Sha256::digest(state))),
        })
    }

    fn complete(&self) -> String {
        format!("{} {}", self.settings, self.data.as_deref().unwrap_or_default())
    }

    fn is_of(&self, found: &str) -> bool {
        match self.data {
            Some(_) => found == self.complete(),
            None => found.starts_with(&self.settings),
        }
    }
}
