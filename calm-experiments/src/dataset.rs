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
use crate::groups::Groups;

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
    /// Which of them belong together.
    pub groups: Groups,
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
    /// Reads the examples of a split, takes as many as the plan says and divides them into shards. Groups are
    /// taken whole.
    ///
    /// # Errors
    /// The file cannot be read, is malformed or has no examples.
    pub fn read(split: Split, plan: &DatasetPlan, seed: u64, shard_size: usize) -> calm_data::Result<Self> {
        let examples = read_examples(&plan.paths, &plan.columns)?;
        warn_of_fewer(&plan.paths, examples.len(), plan.limit.unwrap_or(0));
        let [taken] = take(examples, [plan.limit], seed);
        Ok(Self::new(split, taken, shard_size))
    }

    /// Reads both splits of a plan, test and calibration. Where they are the same files, no example and no
    /// group is in both.
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
        let (count, of_test) = (examples.len(), test.limit.unwrap_or_default());
        let wanted = of_test.saturating_add(calibration.limit.unwrap_or(0));
        let [of_test_split, rest] = take(examples, [test.limit, calibration.limit], *seed);
        anyhow::ensure!(
            !rest.is_empty(),
            "{}: of {count} examples data.test_examples = {of_test} leaves none for calibration",
            test.paths
        );
        warn_of_fewer(&test.paths, count, wanted);
        Ok([
            Self::new(Split::Test, of_test_split, *shard_size),
            Self::new(Split::Calibration, rest, *shard_size),
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
        Self { split, shards: shards.collect(), groups: Groups::new(&examples), examples }
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
    let groups_of_test: HashSet<&String> = test.groups.names().iter().collect();
    let both = calibration.groups.names().iter().filter(|name| groups_of_test.contains(name)).count();
    if plan.test.columns.group.is_some() && both > 0 {
        let groups = counted(both, "group");
        calm_files::tell(format_args!(
            "warning: {groups} of the test examples have calibration examples too"
        ));
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

/// Parts of the examples in a random order of their groups, each put back into its own order: whole groups,
/// until a part has as many examples as its limit says, if it has one. Files are often sorted by some source,
/// so the first ones would not stand for the rest; and with a larger limit the same examples are taken again,
/// with others.
fn take<const PARTS: usize>(
    examples: Vec<Example>,
    limits: [Option<usize>; PARTS],
    seed: u64,
) -> [Vec<Example>; PARTS] {
    let mut groups = Groups::new(&examples).random_examples(seed).into_iter();
    let mut part_of = vec![None; examples.len()];
    for (part, limit) in limits.into_iter().enumerate() {
        let mut count = 0;
        while limit.is_none_or(|limit| count < limit)
            && let Some(group) = groups.next()
        {
            count += group.len();
            group.into_iter().for_each(|place| part_of[place] = Some(part));
        }
    }
    let mut parts = [(); PARTS].map(|()| Vec::new());
    for (example, part) in examples.into_iter().zip(part_of) {
        if let Some(part) = part {
            parts[part].push(example);
        }
    }
    parts
}
