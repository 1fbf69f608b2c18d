//! Removes duplicates and divides the examples by source package.

use super::tasks::{Candidate, Candidates};
use super::text;
use crate::{Error, Result, Row};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};

/// One task's splits, with their rows in an order that depends on the seed alone.
pub(super) struct Splits {
    pub task: &'static str,
    /// Number of examples before the division.
    pub distinct: usize,
    pub train: Vec<Row>,
    pub calibration: Vec<Row>,
    pub test: Vec<Row>,
}

/// Largest number of examples that come from one source package into a held-out split of a task.
///
/// A few packages with a hundred look-alike binary packages would make its examples anything but independent.
const MAX_PER_PACKAGE: usize = 8;

/// The source packages that are held out.
pub(super) struct Division {
    test: HashSet<String>,
    calibration: HashSet<String>,
}

impl Division {
    pub(super) fn is_held_out(&self, source_package: &str) -> bool {
        self.test.contains(source_package) || self.calibration.contains(source_package)
    }
}

/// Splits all tasks by one division of the source packages.
///
/// The first packages in hashed order, until every task has `held_out` examples, are for testing, the next
/// ones for calibration, the rest for training. Examples of held-out packages beyond `held_out` or
/// [`MAX_PER_PACKAGE`] are left out altogether.
pub(super) fn split(tasks: &[Candidates], seed: u64, held_out: usize) -> Result<(Vec<Splits>, Division)> {
    let tasks: Vec<(&'static str, Vec<Row>)> =
        tasks.iter().map(|task| (task.task, distinct(&task.examples, seed))).collect();

    let mut packages: HashMap<&str, Vec<usize>> = HashMap::new();
    for (number, (_, rows)) in tasks.iter().enumerate() {
        for row in rows {
            packages.entry(&row.package).or_insert_with(|| vec![0; tasks.len()])[number] += 1;
        }
    }
    let mut packages: Vec<(&str, Vec<usize>)> = packages.into_iter().collect();
    packages.sort_by_cached_key(|(name, _)| hash(seed, "package", name));
    let mut remaining = packages.into_iter();
    let mut take = |split: &'static str| -> Result<HashSet<String>> {
        let mut names = HashSet::new();
        let mut totals = vec![0; tasks.len()];
        while let Some(short) = totals.iter().position(|&total| total < held_out) {
            let (task, found) = (tasks[short].0, totals[short]);
            let missing = Error::TooFewExamples { task, split, found, wanted: held_out };
            let (name, counts) = remaining.next().ok_or(missing)?;
            totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count.min(MAX_PER_PACKAGE));
            names.insert(name.to_owned());
        }
        Ok(names)
    };
    let division = Division { test: take("test")?, calibration: take("calibration")? };

    let sort_out = |(task, rows): (&'static str, Vec<Row>)| {
        let [test, calibration] =
            [&division.test, &division.calibration].map(|packages| held_out_rows(&rows, packages, held_out));
        let distinct = rows.len();
        let train = rows.into_iter().filter(|row| !division.is_held_out(&row.package)).collect();
        Splits { task, distinct, train, calibration, test }
    };
    let splits = tasks.into_iter().map(sort_out).collect();
    Ok((splits, division))
}

fn held_out_rows(rows: &[Row], packages: &HashSet<String>, held_out: usize) -> Vec<Row> {
    let mut per_package: HashMap<&str, usize> = HashMap::new();
    let mut chosen = Vec::new();
    for row in rows.iter().filter(|row| packages.contains(&row.package)) {
        let count = per_package.entry(&row.package).or_default();
        *count += 1;
        if *count <= MAX_PER_PACKAGE && chosen.len() < held_out {
            chosen.push(row.clone());
        }
    }
    chosen
}

/// Removes duplicates; what is left is in hashed order.
///
/// An example stays if neither of its texts has occurred before, nor, in another source package, a text with
/// the same letters. So no split can hold a (near-)duplicate of another's text, and which of the duplicates
/// stays favours no split.
fn distinct(examples: &[Candidate], seed: u64) -> Vec<Row> {
    let mut examples: Vec<&Candidate> = examples.iter().collect();
    examples.sort_by_cached_key(|example| {
        hash(seed, "example", &format!("{}\n{}", example.row.id, example.row.source))
    });
    let mut seen: [HashSet<&str>; 2] = Default::default();
    let mut homes: [HashMap<String, &str>; 2] = Default::default();
    let mut rows = Vec::new();
    for Candidate { row, texts } in examples {
        let skeletons = texts.each_ref().map(|text| text::skeleton(text));
        let is_new = (0..2).all(|i| {
            !seen[i].contains(texts[i].as_str())
                && homes[i].get(&skeletons[i]).is_none_or(|home| *home == row.package)
        });
        if is_new {
            for (i, (text, skeleton)) in texts.iter().zip(skeletons).enumerate() {
                seen[i].insert(text);
                homes[i].insert(skeleton, &row.package);
            }
            rows.push(row.clone());
        }
    }
    rows
}

/// Hashes the seed, the purpose and the text: sorting by it gives an order that no file's order can change.
pub(super) fn hash(seed: u64, purpose: &str, text: &str) -> u64 {
    let digest = Sha256::digest(format!("{seed} {purpose} {text}"));
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
