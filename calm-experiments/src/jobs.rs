//! Which units have no file yet, and who decodes which of them.
//!
//! Several processes may work on one run. Each claims a unit before it decodes it, and looks then whether
//! somebody has finished it meanwhile. A process first looks for shards of its own, so that sources are
//! encoded once; then it helps with the shards of others; and last it waits for what they have not finished,
//! which becomes its own if they were killed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use anyhow::bail;
use calm_core::PolicySpec;
use calm_files::{Claim, Progress};
use calm_names::counted;

use crate::dataset::{Dataset, Shard};
use crate::unit::{Common, Store, UnitKey, UnitState};

/// A split with its settings.
pub struct Work<'a> {
    /// The examples.
    pub dataset: &'a Dataset,
    /// The settings to decode them with, each once.
    pub policies: Vec<PolicySpec>,
}

/// What becomes of files that are of no use because they are another run's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherRuns {
    /// They stay: that they are there is an error.
    Keep,
    /// They are replaced.
    Overwrite,
}

/// How many units a call of [`decode_missing`](crate::runner::decode_missing) found and made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct UnitCounts {
    /// Units of the run.
    pub total: usize,
    /// Decoded by this call; the others had their files before, or another process has decoded them.
    pub decoded: usize,
}

impl std::ops::Add for UnitCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { total: self.total + other.total, decoded: self.decoded + other.decoded }
    }
}

impl Work<'_> {
    /// The units, shard by shard.
    pub fn units<'w>(&'w self, common: &'w Common) -> impl Iterator<Item = (UnitKey, &'w Shard)> {
        self.dataset.shards.iter().flat_map(move |shard| {
            let key = move |&policy| (UnitKey::new(common, self.dataset.split, shard, policy), shard);
            self.policies.iter().map(key)
        })
    }
}

/// One shard with the settings it lacks.
pub(crate) struct Job<'a> {
    pub(crate) dataset: &'a Dataset,
    pub(crate) shard: &'a Shard,
    missing: VecDeque<UnitKey>,
    manners: Manners,
}

/// What is done about units that another process has claimed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// The shard is left to it, if it has the first unit.
    LeaveShard,
    /// The unit is left to it.
    LeaveUnit,
    /// The unit is waited for.
    Wait,
}

/// The jobs of all workers.
pub(crate) struct Jobs<'a>(Mutex<VecDeque<Job<'a>>>);

impl<'a> Jobs<'a> {
    /// Number of shards that lack something.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// A unit that has to be decoded, if there is any.
    pub(crate) fn first_unit(&self) -> Option<UnitKey> {
        self.lock().front().and_then(|job| job.missing.front().cloned())
    }

    /// The next job.
    pub(crate) fn take(&self) -> Option<Job<'a>> {
        self.lock().pop_front()
    }

    /// Gives back a job with units that another process has claimed: they come last.
    pub(crate) fn give_back(&self, job: Job<'a>) {
        if !job.missing.is_empty() {
            self.lock().push_back(job);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Job<'a>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job<'_> {
    /// Claims the next unit that nobody has finished; `None` once there is none but those of others.
    pub(crate) fn claim_next(
        &mut self,
        left: &mut VecDeque<UnitKey>,
        store: &Store,
        progress: &Progress,
    ) -> anyhow::Result<Option<(UnitKey, Claim)>> {
        while let Some(key) = self.missing.pop_front() {
            let claim = match self.manners {
                Manners::Wait => Some(store.claim(&key)?),
                Manners::LeaveShard | Manners::LeaveUnit => store.try_claim(&key)?,
            };
            let Some(claim) = claim else {
                left.push_back(key);
                if self.manners == Manners::LeaveShard && left.len() == 1 {
                    left.append(&mut self.missing);
                }
                continue;
            };
            if store.state(&key, &self.dataset.examples[self.shard.range.clone()]) != UnitState::Finished {
                return Ok(Some((key, claim)));
            }
            progress.add(1);
        }
        Ok(None)
    }

    /// The same job with what was left to others.
    pub(crate) fn with_left(mut self, left: VecDeque<UnitKey>) -> Self {
        self.missing.extend(left);
        self.manners = match self.manners {
            Manners::LeaveShard => Manners::LeaveUnit,
            Manners::LeaveUnit | Manners::Wait => Manners::Wait,
        };
        self
    }
}

/// The shards that lack something, in order, and the number of units that there are and that they lack. Of
/// these are taken only those in `only`, if there is such a set.
pub(crate) fn find_jobs<'a>(
    common: &'a Common,
    work: &'a [Work<'_>],
    store: &Store,
    (other_runs, only): (OtherRuns, Option<&BTreeSet<String>>),
) -> anyhow::Result<(Jobs<'a>, [usize; 2])> {
    let mut jobs: VecDeque<Job<'a>> = VecDeque::new();
    let [mut total, mut lacking] = [0, 0];
    // Why units are decoded again, and how many for each reason.
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for work in work {
        let dataset = work.dataset;
        for (key, shard) in work.units(common) {
            if only.is_some_and(|only| !only.contains(&key.id())) {
                continue;
            }
            total += 1;
            match store.state(&key, &dataset.examples[shard.range.clone()]) {
                UnitState::Finished => continue,
                UnitState::OfAnotherRun(difference) if other_runs == OtherRuns::Keep => bail!(
                    "{} is of a finished run with another {difference}: choose another folder, or replace that run \
                     with --overwrite",
                    store.path(&key).display()
                ),
                UnitState::OfAnotherRun(difference) => {
                    *reasons.entry(format!("of a run with another {difference}")).or_insert(0) += 1;
                }
                UnitState::OfAnotherVersion(age) => {
                    *reasons.entry(format!("in the format of {age} version")).or_insert(0) += 1;
                }
                UnitState::Damaged(reason) => calm_files::tell(format_args!("note: decoded again: {reason}")),
                UnitState::Missing => {}
            }
            lacking += 1;
            match jobs.back_mut() {
                Some(job) if job.shard == shard && std::ptr::eq(job.dataset, dataset) => {
                    job.missing.push_back(key);
                }
                _ => jobs.push_back(Job {
                    dataset,
                    shard,
                    missing: VecDeque::from([key]),
                    manners: Manners::LeaveShard,
                }),
            }
        }
    }
    for (reason, units) in reasons {
        let units = counted(units, "unit");
        calm_files::tell(format_args!("note: decoded again: {units}, whose files are {reason}"));
    }
    Ok((Jobs(Mutex::new(jobs)), [total, lacking]))
}
