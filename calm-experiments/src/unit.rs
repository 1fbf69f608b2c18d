//! Units of work and their files, `generations/SPLIT/SETTING/shard-NNNN.jsonl` below the folder of a run.
//!
//! A unit is one setting on one shard. Its file has a header line, which says what was computed from what,
//! and a line for each example. It appears under its name only when it is complete, so that a run which was
//! killed goes on after the last file, and several processes may work in one folder. All statistics are made
//! from these files.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use calm_core::{BackboneShape, Generation, PolicySpec};
use serde::{Deserialize, Serialize};

use crate::dataset::{Shard, Split};

/// Raised when files of older versions cannot be read, or not be compared with new ones, any more.
const FORMAT: u32 = 2;

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

    /// What differs between two units of the same name, to tell why one of them is of no use.
    fn difference(&self, other: &UnitKey) -> &'static str {
        let (a, b) = (&self.common, &other.common);
        let lengths = |key: &Common| (key.max_tokens, key.max_source_tokens);
        let parts = [
            ("file format", self.format != other.format),
            ("model", a.model != b.model),
            ("data", self.data != other.data || self.examples != other.examples),
            ("maximal length", lengths(a) != lengths(b)),
            ("batch size", a.batch_size != b.batch_size),
            ("device", a.device != b.device),
        ];
        parts.into_iter().find(|(_, differs)| *differs).map_or("setting", |(part, _)| part)
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
    /// There is a file that cannot be read; why.
    Damaged(String),
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

    /// Whether a unit has to be computed.
    pub fn state(&self, key: &UnitKey) -> UnitState {
        let path = self.path(key);
        if !path.exists() {
            return UnitState::Missing;
        }
        match read_file(&path) {
            Err(_) if is_of_another_format(&path) => UnitState::OfAnotherRun("file format"),
            Ok((header, _)) if header.unit != *key => UnitState::OfAnotherRun(key.difference(&header.unit)),
            Ok(_) => UnitState::Finished,
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
        Ok(calm_files::write(&self.path(&header.unit), text)?)
    }

    /// Reads a unit.
    ///
    /// # Errors
    /// The file is missing, damaged, or not of this unit.
    pub fn read(&self, key: &UnitKey) -> anyhow::Result<(Header, Vec<Record>)> {
        let path = self.path(key);
        let (header, records) = read_file(&path)?;
        if header.unit != *key {
            let difference = key.difference(&header.unit);
            bail!("{}: its {difference} differs from the plan's", path.display());
        }
        Ok((header, records))
    }

    /// What the units of an earlier run have in common, from the full model's first one.
    ///
    /// # Errors
    /// There is no such file, or it is damaged.
    pub fn any_header(&self) -> anyhow::Result<Header> {
        let path = self.root.join(format!("{}/{}/shard-0000.jsonl", Split::Test, PolicySpec::full()));
        if is_of_another_format(&path) {
            bail!("{}: its file format is that of another version", path.display());
        }
        Ok(read_file(&path)?.0)
    }
}

/// Whether the file is one of another version, of which nothing else is known.
fn is_of_another_format(path: &Path) -> bool {
    #[derive(Deserialize)]
    struct AnyHeader {
        unit: AnyUnit,
    }
    #[derive(Deserialize)]
    struct AnyUnit {
        format: u32,
    }
    let first = fs::File::open(path).ok().and_then(|file| BufReader::new(file).lines().next());
    let header = first.and_then(Result::ok).and_then(|line| serde_json::from_str::<AnyHeader>(&line).ok());
    header.is_some_and(|header| header.unit.format != FORMAT)
}

fn read_file(path: &Path) -> anyhow::Result<(Header, Vec<Record>)> {
    let at = |line: usize| format!("{}:{line}", path.display());
    let file = fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = BufReader::new(file).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new())).with_context(|| at(1))?;
    let header: Header = serde_json::from_str(&first).with_context(|| at(1))?;
    let mut records = Vec::with_capacity(header.unit.examples);
    for (index, line) in lines.enumerate() {
        let line = line.with_context(|| at(index + 2))?;
        records.push(serde_json::from_str(&line).with_context(|| at(index + 2))?);
    }
    if records.len() != header.unit.examples {
        bail!("{}: {} examples instead of {}", path.display(), records.len(), header.unit.examples);
    }
    Ok((header, records))
}
