//! Builds the bundled corpus: three tasks from Debian bookworm's package descriptions.
//!
//! The input is what apt distributes: the `Packages` index and the indices `Translation-en` and `Translation-fr`. The
//! same indices and seed give the same files, byte for byte, whatever the machine's thread count.
//!
//! The way of a description: `apt` fetches the indices, `index` joins them, `description` cuts the texts into units and
//! aligns the languages, `tasks` makes examples, `split` removes duplicates and divides the source packages, and
//! [`crate::tokenizer`] learns its vocabulary from the training splits. `data/README.md` has the rules and the numbers.

mod apt;
mod description;
mod index;
mod split;
mod tasks;
mod text;

use crate::{Error, Result, Row, tokenizer, write_rows};
use split::Splits;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What [`build`] makes, and from what.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Folder that receives the datasets.
    pub out: PathBuf,
    /// A folder of lists that apt has fetched before; `None` fetches them into `out/lists`.
    pub lists: Option<PathBuf>,
    /// Mirror of Debian to fetch them from; `None` takes that of the machine's own bookworm source.
    pub mirror: Option<String>,
    /// Decides which source packages go to which split, which examples are kept among duplicates, and the blanks.
    pub seed: u64,
    /// Examples in each task's calibration split, and again in each test split.
    pub held_out: usize,
    /// Tokens of the tokenizer, special ones included.
    pub vocab_size: u32,
}

impl BuildOptions {
    /// The options of the committed corpus.
    pub fn new(out: impl Into<PathBuf>) -> BuildOptions {
        BuildOptions {
            out: out.into(),
            lists: None,
            mirror: None,
            seed: 0,
            held_out: 2_000,
            vocab_size: 8_192,
        }
    }
}

/// What [`build`] made: the numbers of `data/README.md`.
#[derive(Debug, Clone)]
pub struct BuildReport {
    /// The three indices and the SHA-256 of their uncompressed contents, in hexadecimal.
    pub indices: Vec<(String, String)>,
    /// Distinct English descriptions.
    pub english_descriptions: usize,
    /// Those of them that have a French translation with the same number of paragraphs.
    pub aligned_descriptions: usize,
    /// Each task's numbers, by the name of its folder.
    pub tasks: BTreeMap<&'static str, TaskReport>,
}

/// One task's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskReport {
    /// Examples before duplicates are removed, by the rules of the task alone.
    pub candidates: usize,
    /// Examples that are left without duplicates: the splits, and what held-out packages have too much.
    pub distinct: usize,
    /// Examples in `train.parquet`.
    pub train: usize,
    /// Examples in `calibration.parquet`.
    pub calibration: usize,
    /// Examples in `test.parquet`.
    pub test: usize,
    /// Whitespace-separated words in the training split's sources, task prefix included.
    pub train_source_words: usize,
    /// Whitespace-separated words in the training split's targets.
    pub train_target_words: usize,
}

/// Builds the corpus and the tokenizer under `options.out`:
/// `TASK/{calibration,test}.parquet` and `train/TASK.parquet` for each task, and `tokenizer.json`.
pub fn build(options: &BuildOptions) -> Result<BuildReport> {
    let lists = match &options.lists {
        Some(folder) => folder.clone(),
        None => apt::fetch(&options.out.join("lists"), options.mirror.as_deref())?,
    };
    let (indices, digests) = index::read(&lists)?;

    let candidates = tasks::all(&indices.descriptions, options.seed);
    let mut tasks = BTreeMap::new();
    let candidate_counts: Vec<usize> = candidates.iter().map(|task| task.examples.len()).collect();
    let splits = split::split(candidates, options.seed, options.held_out)?;
    for (split, candidates) in splits.iter().zip(candidate_counts) {
        let Splits { task, distinct, train, calibration, test } = split;
        save(&options.out.join(task).join("calibration.parquet"), calibration)?;
        save(&options.out.join(task).join("test.parquet"), test)?;
        save(&options.out.join("train").join(format!("{task}.parquet")), train)?;
        let words = |text: fn(&Row) -> &str| train.iter().map(|row| text::words(text(row))).sum();
        let report = TaskReport {
            candidates,
            distinct: *distinct,
            train: train.len(),
            calibration: calibration.len(),
            test: test.len(),
            train_source_words: words(|row| &row.source),
            train_target_words: words(|row| &row.target),
        };
        tasks.insert(*task, report);
    }

    let tokenizer = tokenizer::train(&training_texts(&splits), options.vocab_size)?;
    tokenizer::save(&tokenizer, &options.out.join("tokenizer.json"))?;
    Ok(BuildReport {
        indices: digests,
        english_descriptions: indices.descriptions.len(),
        aligned_descriptions: indices.descriptions.iter().filter(|d| d.aligned().is_some()).count(),
        tasks,
    })
}

/// All training texts, the French ones repeated until they weigh about as much as the English ones: two of the three
/// tasks are English alone, and French is what a translation model has to write.
fn training_texts(splits: &[Splits]) -> Vec<(&str, u32)> {
    let french = |task: &str| task == tasks::TRANSLATION;
    let size = |keep: &dyn Fn(&str) -> bool, text: fn(&Row) -> &str| -> usize {
        splits.iter().filter(|s| keep(s.task)).flat_map(|s| &s.train).map(|row| text(row).len()).sum()
    };
    let english = size(&|_| true, |row| &row.source) + size(&|task| !french(task), |row| &row.target);
    let weight = (english / size(&french, |row| &row.target).max(1)).max(1) as u32;
    let mut texts = Vec::new();
    for split in splits {
        let target_weight = if french(split.task) { weight } else { 1 };
        for row in &split.train {
            texts.push((row.source.as_str(), 1));
            texts.push((row.target.as_str(), target_weight));
        }
    }
    texts
}

fn save(path: &Path, rows: &[Row]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    write_rows(path, rows)
}
