//! Units of work and their files, `generations/SPLIT/SETTING/shard-NNNN.jsonl` below the folder of a run.
//!
//! A unit is one setting on one shard. Its file has a header line, which says what was computed from what
//! and has a hash of all that follows the hash, and a line for each example. It appears under its name only
//! when it is complete, so that a run which was killed goes on after the last file, and several processes may
//! work in one folder. All statistics are made from these files.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use calm_core::profile::Part;
use calm_core::{BackboneShape, Generation, PolicySpec};
use calm_data::Example;
use calm_files::{Claim, hex};
use calm_names::counted;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::dataset::{Shard, Split};

/// Raised when files of older versions cannot be read, or not be compared with new ones, any more.
const FORMAT: u32 = 3;

/// What a file begins with, in front of the hash of the bytes behind it.
const HASH_KEY: &str = "{\"sha256\":\"";

/// All that the content of a unit's file depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitKey {
    /// Version of the file format.
    pub format: u32,
    /// The split that the shard belongs to.
    pub split: Split,
    /// Number of the shard, from 0.
    pub shard: usize,
    /// Number of examples in the shard.
    pub examples: usize,
    /// Hash of their ids and sources.
    pub data: String,
    /// The setting.
    pub policy: PolicySpec,
    /// What is common to all units of a run.
    #[serde(flatten)]
    pub common: Common,
}

/// What is common to all units of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    /// Hash of weights and tokenizer.
    pub model: String,
    /// What computed, such as `cpu int8`: times of different ones cannot be compared.
    pub device: String,
    /// Longest output.
    pub max_tokens: usize,
    /// Longest source.
    pub max_source_tokens: Option<usize>,
    /// Examples decoded together.
    pub batch_size: usize,
}

/// First line of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// What this is.
    pub unit: UnitKey,
    /// The model's dimensions and costs.
    pub shape: BackboneShape,
    /// How many workers were decoding at the same time, which the seconds depend on.
    pub workers: usize,
    /// The model's folder, as it was called then; none for a model without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Where the time of decoding went, in seconds; empty in files that do not say so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<(Part, f64)>,
    /// Seconds of decoding in which the worker waited for a core, which other programs had; nothing where the
    /// system does not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited: Option<f64>,
}

/// One example of a unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Id of the example.
    pub example: String,
    /// Length of the source, for the cost model.
    pub source_tokens: usize,
    /// Encoding time of the batch divided by its rows. Encoder outputs are computed once for all settings of
    /// a shard.
    pub encoder_seconds: f64,
    /// The output as a text.
    pub text: String,
    /// Where the text of each token ends in it, in bytes; empty in files that do not say so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<usize>,
    /// Output tokens, exit layers, confidence, executed layers, propagated entries, decoding time.
    #[serde(flatten)]
    pub generation: Generation,
}

impl UnitKey {
    /// The unit of a setting on a shard.
    pub fn new(common: &Common, split: Split, shard: &Shard, policy: PolicySpec) -> Self {
        Self {
            format: FORMAT,
            split,
            shard: shard.index,
            examples: shard.range.len(),
            data: shard.hash.clone(),
            policy,
            common: common.clone(),
        }
    }

    /// The name of the unit in a run, such as `test/calm-softmax-0.9/0003`.
    pub fn id(&self) -> String {
        format!("{}/{}/{:04}", self.split, self.policy, self.shard)
    }

    /// What differs between two units of the same name, to tell why one of them is of no use.
    fn difference(&self, other: &UnitKey) -> &'static str {
        let data = (&self.data, self.examples) != (&other.data, other.examples);
        let common = self.common.difference(&other.common);
        // Of two models also the lengths may differ, but what matters most comes first.
        match common {
            Some(part @ ("model" | "device")) => part,
            _ if data => "data",
            Some(part) => part,
            None => "setting",
        }
    }
}

impl Common {
    fn difference(&self, other: &Common) -> Option<&'static str> {
        let lengths = |common: &Common| (common.max_tokens, common.max_source_tokens);
        let parts = [
            ("model", self.model != other.model),
            ("device", self.device != other.device),
            ("maximal length", lengths(self) != lengths(other)),
            ("batch size", self.batch_size != other.batch_size),
        ];
        parts.into_iter().find(|(_, differs)| *differs).map(|(part, _)| part)
    }
}

/// What is known about a unit before a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitState {
    /// There is no file.
    Missing,
    /// There is a complete file of this very unit.
    Finished,
    /// There is a complete file of another unit; what differs.
    OfAnotherRun(&'static str),
    /// There is a file in the format of another version, `an earlier` or `a later` one.
    OfAnotherVersion(&'static str),
    /// There is a file that cannot be read or believed; why.
    Damaged(String),
}

/// Why a file is of no use.
enum Fault {
    /// It is of another version, of which no more is known than this, if that.
    OtherVersion(&'static str, Option<Common>),
    /// It cannot be read or believed.
    Damaged(anyhow::Error),
}

/// The files of a run.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The files below `root`, the folder of a run.
    pub fn new(root: &Path) -> Self {
        Self { root: root.join("generations") }
    }

    /// The file of a unit.
    pub fn path(&self, key: &UnitKey) -> PathBuf {
        let folder = self.root.join(key.split.to_string()).join(key.policy.to_string());
        folder.join(format!("shard-{:04}.jsonl", key.shard))
    }

    /// Claims a unit for this process, unless another one has it.
    ///
    /// # Errors
    /// The file of the claim cannot be written.
    pub fn try_claim(&self, key: &UnitKey) -> anyhow::Result<Option<Claim>> {
        Ok(Claim::try_take(&self.claim_path(key))?)
    }

    /// Claims a unit once no other process has it.
    ///
    /// # Errors
    /// The file of the claim cannot be written.
    pub fn claim(&self, key: &UnitKey) -> anyhow::Result<Claim> {
        Ok(Claim::take(&self.claim_path(key))?)
    }

    fn claim_path(&self, key: &UnitKey) -> PathBuf {
        self.path(key).with_file_name(format!(".shard-{:04}.claim", key.shard))
    }

    /// Whether a unit of these examples has to be computed.
    pub fn state(&self, key: &UnitKey, examples: &[Example]) -> UnitState {
        let path = self.path(key);
        if !path.exists() {
            return UnitState::Missing;
        }
        let (header, records) = match read_file(&path) {
            Ok(content) => content,
            Err(Fault::OtherVersion(age, common)) => {
                let difference = common.and_then(|common| key.common.difference(&common));
                return difference.map_or(UnitState::OfAnotherVersion(age), UnitState::OfAnotherRun);
            }
            Err(Fault::Damaged(error)) => return UnitState::Damaged(format!("{error:#}")),
        };
        if header.unit != *key {
            return UnitState::OfAnotherRun(key.difference(&header.unit));
        }
        match check_examples(&path, &records, examples) {
            Ok(()) => UnitState::Finished,
            Err(error) => UnitState::Damaged(format!("{error:#}")),
        }
    }

    /// Writes a finished unit.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, header: &Header, records: &[Record]) -> anyhow::Result<()> {
        let mut text = serde_json::to_string(header)? + "\n";
        for record in records {
            text += &(serde_json::to_string(record)? + "\n");
        }
        // The hash becomes the first key of the header.
        let rest = format!("\",{}", &text[1..]);
        let hash = hex(&Sha256::digest(&rest));
        Ok(calm_files::write(&self.path(&header.unit), format!("{HASH_KEY}{hash}{rest}"))?)
    }

    /// Reads the unit of these examples.
    ///
    /// # Errors
    /// The file is missing, damaged, or not of this unit.
    pub fn read(&self, key: &UnitKey, examples: &[Example]) -> anyhow::Result<(Header, Vec<Record>)> {
        let path = self.path(key);
        let (header, records) = read_file(&path).map_err(|fault| fault.into_error(&path))?;
        if header.unit != *key {
            let difference = key.difference(&header.unit);
            bail!("{}: its {difference} differs from the plan's", path.display());
        }
        check_examples(&path, &records, examples)?;
        Ok((header, records))
    }

    /// What the units of an earlier run have in common, from the full model's first one.
    ///
    /// # Errors
    /// There is no such file, or it is damaged.
    pub fn any_header(&self) -> anyhow::Result<Header> {
        let path = self.root.join(format!("{}/{}/shard-0000.jsonl", Split::Test, PolicySpec::full()));
        Ok(read_file(&path).map_err(|fault| fault.into_error(&path))?.0)
    }
}

impl Fault {
    fn into_error(self, path: &Path) -> anyhow::Error {
        match self {
            Fault::Damaged(error) => error,
            Fault::OtherVersion(age, _) => {
                let name = path.display();
                anyhow!(
                    "{name}: its file format is that of another version, {age} one: it has to be decoded again"
                )
            }
        }
    }
}

fn read_file(path: &Path) -> Result<(Header, Vec<Record>), Fault> {
    /// What the header of any version has.
    #[derive(Deserialize)]
    struct AnyHeader {
        unit: AnyUnit,
    }
    #[derive(Deserialize)]
    struct AnyUnit {
        format: u32,
        #[serde(flatten)]
        common: Option<Common>,
    }
    let text = calm_files::read_to_string(path).map_err(|error| Fault::Damaged(error.into()))?;
    let first = text.lines().next().unwrap_or_default();
    match serde_json::from_str::<AnyHeader>(first) {
        Ok(AnyHeader { unit }) if unit.format != FORMAT => {
            let age = if unit.format < FORMAT { "an earlier" } else { "a later" };
            Err(Fault::OtherVersion(age, unit.common))
        }
        _ => parse(&text, path).map_err(Fault::Damaged),
    }
}

fn parse(text: &str, path: &Path) -> anyhow::Result<(Header, Vec<Record>)> {
    let name = path.display();
    let behind_key =
        text.strip_prefix(HASH_KEY).and_then(|text| text.split_at_checked(2 * Sha256::output_size()));
    let (hash, rest) = behind_key.with_context(|| format!("{name}:1: it does not begin with a hash"))?;
    ensure!(hash == hex(&Sha256::digest(rest)), "{name}: it is damaged: its hash is not that of its content");

    let at = |line: usize| format!("{name}:{line}");
    let mut lines = text.lines();
    let header: Header = serde_json::from_str(lines.next().unwrap_or_default()).with_context(|| at(1))?;
    header.check().with_context(|| at(1))?;
    let mut records = Vec::new();
    for (index, line) in lines.enumerate() {
        let place = || at(index + 2);
        let record: Record = serde_json::from_str(line).with_context(place)?;
        record.check(&header).with_context(place)?;
        records.push(record);
    }
    let (found, expected) = (counted(records.len(), "example"), header.unit.examples);
    ensure!(records.len() == expected, "{name}: {found} instead of {expected}");
    Ok((header, records))
}

impl Header {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.shape.num_layers >= 1, "a decoder without layers");
        ensure!(self.unit.common.max_tokens >= 1, "outputs of at most 0 tokens");
        for (part, seconds) in &self.parts {
            ensure!(*seconds >= 0.0, "{seconds} seconds of {part}");
        }
        let waited = self.waited.unwrap_or(0.0);
        ensure!(waited >= 0.0, "{waited} seconds of waiting");
        Ok(())
    }
}

impl Record {
    /// Fails unless the numbers can be those of one output, so that sums over many have a meaning.
    fn check(&self, header: &Header) -> anyhow::Result<()> {
        let Generation {
            tokens,
            exit_layers,
            confidence,
            executed_layers,
            drafted,
            fallbacks,
            propagated,
            seconds,
        } = &self.generation;
        let (num_layers, max_tokens) = (header.shape.num_layers, header.unit.common.max_tokens);
        let lengths = [tokens.len(), exit_layers.len(), confidence.len()];
        ensure!(
            lengths.iter().all(|&length| length == tokens.len()),
            "{} tokens, {} exit layers and {} confidences",
            lengths[0],
            lengths[1],
            lengths[2]
        );
        ensure!(tokens.len() <= max_tokens, "{} tokens, of at most {max_tokens}", tokens.len());
        ensure!(*fallbacks <= tokens.len(), "{fallbacks} fallbacks of {} tokens", tokens.len());
        if let Some(layer) = exit_layers.iter().find(|layer| !(1..=num_layers).contains(*layer)) {
            bail!("exit layer {layer} of {num_layers}");
        }
        // Wrong drafts ran too.
        let most = max_tokens.saturating_add(*drafted).saturating_mul(num_layers);
        for (what, count) in [("executed", *executed_layers), ("propagated", *propagated)] {
            ensure!(count <= most, "{count} layers {what}, of at most {most}");
        }
        let ends = &self.ends;
        ensure!(
            ends.is_empty() || ends.len() == tokens.len(),
            "{} tokens, of which {} end somewhere",
            tokens.len(),
            ends.len()
        );
        ensure!(
            ends.is_sorted() && ends.iter().all(|&end| self.text.is_char_boundary(end)),
            "tokens end inside of characters, or in no order"
        );
        for seconds in [*seconds, self.encoder_seconds] {
            ensure!(seconds >= 0.0, "{seconds} seconds");
        }
        Ok(())
    }
}

/// Fails unless the records are those of these examples, in their order.
fn check_examples(path: &Path, records: &[Record], examples: &[Example]) -> anyhow::Result<()> {
    for (index, (record, example)) in records.iter().zip(examples).enumerate() {
        let (found, expected) = (&record.example, &example.id);
        ensure!(
            found == expected,
            "{}:{}: the example {found} instead of {expected}",
            path.display(),
            index + 2
        );
    }
    Ok(())
}
