//! Training examples that something is fitted to, and what must not be among them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use calm_core::{Exits, Token};
use calm_data::{Columns, DatasetPaths, Example, HubCache, read_examples};
use calm_engine::engine::{Engine, SourceForm, TextCodec, encode_source};
use calm_engine::limits::{AT_LEAST_ONE, TOKENS, check_flags};
use calm_experiments::comparison::Comparison;
use calm_experiments::config::{self, Plan};
use calm_experiments::groups::Groups;
use calm_files::tell;
use calm_fit::Observations;
use calm_names::counted;

/// The flags that say which training sources a command decodes, and how.
#[derive(clap::Args)]
pub(crate) struct TrainingSources {
    /// Training examples: .parquet, .jsonl, .json, .csv or .tsv, a pattern of such files in quotes, or
    /// hf://datasets/OWNER/NAME/FILE; may be repeated, for a model of several tasks
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    /// Configurations of experiments whose test and calibration files are refused, and whose sources are left
    /// out of the data
    #[arg(long, value_name = "CONFIG.toml")]
    experiment: Vec<PathBuf>,
    /// Examples of each file, chosen by the seed
    #[arg(long, value_name = "N", default_value_t = 400)]
    limit: usize,
    /// Seed that decides which examples are taken
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Column of the source; a field of a struct is STRUCT.FIELD, an element of a list LIST.NUMBER
    #[arg(long, value_name = "COLUMN", default_value = "source")]
    source_column: String,
    /// Sources are what a user says: put the model's template of conversations around them
    #[arg(long)]
    chat: bool,
    /// Column of a text that follows the source after ` context: `
    #[arg(long, value_name = "COLUMN")]
    context_column: Option<String>,
    /// Put in front of every source, as it has to be for `calm generate`
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Longest output in tokens
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) max_tokens: usize,
    /// Longer sources are cut; never if not given
    #[arg(long, value_name = "N")]
    max_source_tokens: Option<usize>,
    /// Rows decoded together
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) batch_size: usize,
}

impl TrainingSources {
    /// Refuses flags out of range.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        check_flags([
            ("--limit", Some(self.limit), AT_LEAST_ONE),
            ("--max-tokens", Some(self.max_tokens), TOKENS),
            ("--max-source-tokens", self.max_source_tokens, TOKENS),
            ("--batch-size", Some(self.batch_size), AT_LEAST_ONE),
        ])
    }

    /// The files that are read, as they are given.
    pub(crate) fn files(&self) -> Vec<&Path> {
        self.data.iter().chain(&self.experiment).map(PathBuf::as_path).collect()
    }

    /// Reads the sources and decodes them at full depth, while measures are read as [`calm_fit::observe`]
    /// does.
    pub(crate) fn observe(
        &self,
        engine: &mut Engine,
        exits: &[Exits],
    ) -> anyhow::Result<(Vec<Vec<Token>>, Observations)> {
        let codec = engine.text_codec()?;
        let sources = self.read(codec)?;
        tell(format_args!("decoding {} at full depth", counted(sources.len(), "example")));
        let observations =
            calm_fit::observe(&mut engine.models, &sources, self.batch_size, self.max_tokens, exits)
                .context("cannot decode the examples")?;
        Ok((sources, observations))
    }

    /// Reads the tokens of the sources, without those that experiments measure with.
    ///
    /// # Errors
    /// A file cannot be read, or is one that an experiment measures with.
    pub(crate) fn read(&self, codec: &dyn TextCodec) -> anyhow::Result<Vec<Vec<Token>>> {
        let refused = self.refused(codec)?;
        let columns = Columns {
            source: self.source_column.clone(),
            chat: self.chat,
            // No label is looked at.
            target: self.source_column.clone(),
            context: self.context_column.clone(),
            prefix: self.prefix.clone(),
            ..Columns::default()
        };
        let mut sources = Vec::new();
        for path in &self.data {
            refused.check(path)?;
            let examples = read_examples(path, &columns)?;
            let (mut taken, mut left_out) = (0, 0);
            for index in Groups::new(&examples).random_order(self.seed) {
                if taken == self.limit {
                    break;
                }
                let tokens = self.tokens(codec, &examples[index])?;
                if refused.sources.contains(&tokens) {
                    left_out += 1;
                } else {
                    sources.push(tokens);
                    taken += 1;
                }
            }
            if left_out > 0 {
                let (path, left_out) = (path.display(), counted(left_out, "example"));
                tell(format_args!("note: left out of {path}: {left_out} of experiments"));
            }
        }
        Ok(sources)
    }

    fn tokens(&self, codec: &dyn TextCodec, example: &Example) -> anyhow::Result<Vec<Token>> {
        let form = SourceForm { chat: example.chat, limit: self.max_source_tokens };
        encode_source(codec, &example.source, form)
    }

    fn refused(&self, codec: &dyn TextCodec) -> anyhow::Result<Refused> {
        let mut refused = Refused::default();
        for experiment in &self.experiment {
            let plans: Vec<Plan> = match Comparison::load(experiment, &[])? {
                Some(comparison) => comparison.tasks.into_iter().map(|(_, plan)| plan).collect(),
                None => vec![config::load(experiment, &[])?],
            };
            for dataset in plans.iter().flat_map(|plan| [&plan.test, &plan.calibration]) {
                for file in dataset.paths.files(&HubCache::from_env())? {
                    refused.files.push((file, experiment.clone()));
                }
                for example in read_examples(&dataset.paths, &dataset.columns)? {
                    refused.sources.insert(self.tokens(codec, &example)?);
                }
            }
        }
        Ok(refused)
    }
}

/// What experiments compute guarantees from, and what they measure them with.
#[derive(Default)]
struct Refused {
    files: Vec<(PathBuf, PathBuf)>,
    /// As tokens, since texts that differ only where they are cut are the same for a model.
    sources: HashSet<Vec<Token>>,
}

impl Refused {
    fn check(&self, path: &Path) -> anyhow::Result<()> {
        let files = DatasetPaths::from(path).files(&HubCache::from_env())?;
        let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        for file in files {
            let same = self.files.iter().find(|(refused, _)| canonical(refused) == canonical(&file));
            if let Some((_, experiment)) = same {
                let (file, experiment) = (file.display(), experiment.display());
                bail!("{file} is the test or calibration file of {experiment}, which a fit must not see");
            }
        }
        Ok(())
    }
}
