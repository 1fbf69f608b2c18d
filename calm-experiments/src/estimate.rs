//! What there is to decode, and about how long that takes and how much memory, from a short trial.

use std::fmt::Write;
use std::time::Instant;

use calm_core::{DecodeOptions, Full, PolicySpec};
use calm_engine::decoding::{decode_batches, read_batch};
use calm_engine::engine::{SourceForm, encode_source};
use calm_files::minutes;
use calm_names::counted;

use crate::dataset::Split;
use crate::experiment::{Prepared, Unit};

/// Settings that are tried, at most.
const MOST_TRIED: usize = 8;

/// The settings with the numbers of their units, and what decoding the missing ones takes.
///
/// # Errors
/// A finished unit cannot be read, or decoding fails.
pub(crate) fn estimate(prepared: &Prepared<'_>) -> anyhow::Result<String> {
    let units = prepared.units()?;
    // Units come shard by shard, and are shown setting by setting.
    let mut settings: Vec<((Split, PolicySpec), [usize; 2])> = Vec::new();
    for Unit { key, is_finished, .. } in &units {
        let setting = (key.split, key.policy);
        let index = settings.iter().position(|(other, _)| *other == setting).unwrap_or_else(|| {
            settings.push((setting, [0, 0]));
            settings.len() - 1
        });
        let (_, [all, done]) = &mut settings[index];
        (*all, *done) = (*all + 1, *done + usize::from(*is_finished));
    }
    let mut text = String::new();
    for ((split, policy), [all, done]) in settings {
        writeln!(
            text,
            "{:11}  {:40}  {:>9}, {done} done",
            split.to_string(),
            policy.to_string(),
            counted(all, "unit")
        )?;
    }
    let missing: Vec<&Unit> = units.iter().filter(|unit| !unit.is_finished).collect();
    writeln!(
        text,
        "{}, {} done, {} to decode",
        counted(units.len(), "unit"),
        units.len() - missing.len(),
        missing.len()
    )?;
    if !missing.is_empty() {
        let Trial { seconds_per_example, settings, batch } = Trial::run(prepared, &missing)?;
        let examples: usize = missing.iter().map(|unit| unit.key.examples).sum();
        let workers = prepared.engine.models.len();
        let seconds = seconds_per_example * examples as f64 / workers as f64;
        let (settings, batch) = (counted(settings, "setting"), counted(batch, "example"));
        writeln!(
            text,
            "about {} minutes on {}, by a trial of {settings} on a batch of {batch}",
            minutes(seconds),
            counted(workers, "worker")
        )?;
        if let Some((now, most)) = memory() {
            let all = most + (workers - 1) as u64 * most.saturating_sub(now);
            writeln!(text, "about {} MB of memory", all.div_ceil(1024))?;
        }
    }
    Ok(text)
}

/// What decoding some examples has taken.
struct Trial {
    /// The mean over the settings, encoder included.
    seconds_per_example: f64,
    settings: usize,
    batch: usize,
}

impl Trial {
    /// Decodes the first batch of the missing units with some of their settings.
    fn run(prepared: &Prepared<'_>, missing: &[&Unit]) -> anyhow::Result<Self> {
        let (engine, common) = (&prepared.engine, prepared.common());
        let model = engine.model();
        let first = &missing[0].key;
        let examples = prepared.examples(first);
        let mut sources = Vec::new();
        for example in &examples[..examples.len().min(common.batch_size)] {
            let form = SourceForm { chat: example.chat, limit: common.max_source_tokens };
            sources.push(encode_source(engine.text_codec()?, &example.source, form)?);
        }
        let sources: Vec<&[_]> = sources.iter().map(Vec::as_slice).collect();
        let mut policies: Vec<PolicySpec> = Vec::new();
        for policy in missing.iter().map(|unit| unit.key.policy) {
            if !policies.contains(&policy) {
                policies.push(policy);
            }
        }
        // Evenly from the list, in which those of a kind are neighbours.
        let count = policies.len().min(MOST_TRIED);
        let tried = (0..count).map(|index| policies[index * policies.len() / count]);
        let options = DecodeOptions::new(common.max_tokens);

        model.enter_thread();
        decode_batches(
            &[read_batch(model, &sources)?],
            &Full,
            &DecodeOptions::new(common.max_tokens.min(4)),
        )?;
        let read = [read_batch(model, &sources)?];
        let started = Instant::now();
        for policy in tried {
            decode_batches(&read, &*policy.make(model)?, &options)?;
        }
        let batch = sources.len();
        let decoding = started.elapsed().as_secs_f64() / (batch * count) as f64;
        // Sources are read once for all settings of a shard.
        let encoding = read[0].seconds_per_row / policies.len() as f64;
        Ok(Self { seconds_per_example: decoding + encoding, settings: count, batch })
    }
}

/// The memory that this process has and had at most, in KiB, where the system says so.
fn memory() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix(" kB")?.trim().parse().ok()
    };
    Some((of("VmRSS:")?, of("VmHWM:")?))
}
