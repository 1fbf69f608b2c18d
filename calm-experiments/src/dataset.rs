//! The examples of a run and the shards they are worked on in.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use anyhow::bail;
use calm_data::{DatasetPaths, Example, read_examples};
use calm_files::hex;
use calm_names::counted;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{DatasetPlan, Plan};

/// Which examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What every setting is measured on.
    Test,
    /// What thresholds are certified with.
    Calibration,
}

impl fmt::Display for Split {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Split::Test => "test",
            Split::Calibration => "calibration",
        })
    }
}

/// The examples of one split.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Which one.
    pub split: Split,
    /// In the order of the file.
    pub examples: Vec<Example>,
    /// All examples, in order.
    pub shards: Vec<Shard>,
}

/// Some consecutive examples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Counted from 0.
    pub index: usize,
    /// Places of the shard's examples in the split.
    pub range: Range<usize>,
    /// SHA-256 of their ids and sources in hexadecimal.
    pub hash: String,
}

impl Dataset {
    /// Reads the examples of a split, takes as many as the plan says and divides them into shards.
    ///
    /// # Errors
    /// The file cannot be read, is malformed or has no examples.
    pub fn read(split: Split, plan: &DatasetPlan, seed: u64, shard_size: usize) -> calm_data::Result<Self> {
        let examples = read_examples(&plan.paths, &plan.columns)?;
        let end = plan.limit.unwrap_or(examples.len());
        warn_of_fewer(&plan.paths, examples.len(), end);
        Ok(Self::new(split, take(examples, 0..end, seed), shard_size))
    }

    /// Reads both splits of a plan, test and calibration. Where they are the same files, no example is in
    /// both.
    ///
    /// # Errors
    /// As [`read`](Self::read), or too few examples for both, or other files that share examples.
    pub fn read_splits(plan: &Plan) -> anyhow::Result<[Self; 2]> {
        let Plan { test, calibration, seed, shard_size, .. } = plan;
        if test.paths != calibration.paths {
            let splits = [
                Self::read(Split::Test, test, *seed, *shard_size)?,
                Self::read(Split::Calibration, calibration, *seed, *shard_size)?,
            ];
            check_disjoint(plan, &splits)?;
            return Ok(splits);
        }
        let examples = read_examples(&test.paths, &test.columns)?;
        let (count, middle) = (examples.len(), test.limit.unwrap_or_default());
        anyhow::ensure!(
            middle < count,
            "{}: of {count} examples data.test_examples = {middle} leaves none for calibration",
            test.paths
        );
        let end = calibration.limit.map_or(count, |limit| middle.saturating_add(limit));
        warn_of_fewer(&test.paths, count, end);
        Ok([
            Self::new(Split::Test, take(examples.clone(), 0..middle, *seed), *shard_size),
            Self::new(Split::Calibration, take(examples, middle..end, *seed), *shard_size),
        ])
    }

    /// Divides examples into shards of `shard_size`, which is at least 1.
    pub fn new(split: Split, examples: Vec<Example>, shard_size: usize) -> Self {
        let shards = examples.chunks(shard_size).enumerate().map(|(index, chunk)| {
            let mut hash = Sha256::new();
            for text in chunk.iter().flat_map(|example| [&example.id, &example.source]) {
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text);
            }
            if chunk.iter().any(|example| example.chat) {
                hash.update("chat");
            }
            let start = index * shard_size;
            Shard { index, range: start..start + chunk.len(), hash: hex(&hash.finalize()) }
        });
        Self { split, shards: shards.collect(), examples }
    }

    /// The examples' indices in a random order that depends on the seed and the ids alone.
    pub fn random_order(&self, seed: u64) -> Vec<usize> {
        random_order(&self.examples, seed)
    }

    /// The references of each example.
    pub fn references(&self) -> Vec<&[String]> {
        self.examples.iter().map(|example| example.references.as_slice()).collect()
    }
}

/// Says that fewer examples are taken than were asked for.
fn warn_of_fewer(paths: &DatasetPaths, count: usize, wanted: usize) {
    if count < wanted {
        calm_files::tell(format_args!(
            "warning: {paths}: {wanted} examples are asked for, but there are only {count}, and all are taken"
        ));
    }
}

/// Refuses splits that share examples: what thresholds were certified with is no test of them. Two names of
/// one file are the usual reason. Texts that come again under another id are only told, since a corpus may
/// have some by its nature, unless one split has nothing else.
fn check_disjoint(plan: &Plan, [test, calibration]: &[Dataset; 2]) -> anyhow::Result<()> {
    let texts = |example: &Example| (example.source.clone(), example.references.clone());
    let mut ids_of: HashMap<_, HashSet<&str>> = HashMap::new();
    for example in &calibration.examples {
        ids_of.entry(texts(example)).or_default().insert(&example.id);
    }
    let of_test = test.examples.iter().filter_map(|example| Some((example, ids_of.get(&texts(example))?)));
    let shared: Vec<(&Example, &HashSet<&str>)> = of_test.collect();
    let (test_paths, calibration_paths) = (&plan.test.paths, &plan.calibration.paths);
    let advice = "give other files, or the same path for both with data.test_examples, which divides it";
    if let Some((example, _)) = shared.iter().find(|(example, ids)| ids.contains(example.id.as_str())) {
        bail!(
            "the test example {} of {test_paths} is a calibration example of {calibration_paths} too: {advice}",
            example.id
        );
    }
    let in_calibration: HashSet<&str> = shared.iter().flat_map(|(_, ids)| ids.iter().copied()).collect();
    if shared.len() == test.examples.len() || in_calibration.len() == calibration.examples.len() {
        bail!("{test_paths} and {calibration_paths} have the same texts under other ids: {advice}");
    }
    if !shared.is_empty() {
        let of_test = counted(test.examples.len(), "test example");
        calm_files::tell(format_args!(
            "warning: {} of the {of_test} have the texts of calibration examples",
            shared.len()
        ));
    }
    Ok(())
}

/// The examples at these places of a random order, put back into their own order. Files are often sorted by
/// some source, so the first ones would not stand for the rest; and with a larger limit the same examples are
/// taken again, with others.
fn take(examples: Vec<Example>, places: Range<usize>, seed: u64) -> Vec<Example> {
    let mut taken = vec![false; examples.len()];
    for index in random_order(&examples, seed).into_iter().take(places.end).skip(places.start) {
        taken[index] = true;
    }
    examples.into_iter().zip(taken).filter_map(|(example, taken)| taken.then_some(example)).collect()
}

/// The places of examples in a random order, which is that of the hashes of their ids under the seed.
pub fn random_order(examples: &[Example], seed: u64) -> Vec<usize> {
    let mut order: Vec<(String, usize)> = examples
        .iter()
        .enumerate()
        .map(|(index, example)| (hex(&Sha256::digest(format!("{seed} {}", example.id))), index))
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(_, index)| index).collect()
}
