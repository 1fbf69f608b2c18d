//! The flags of `calm generate` and `calm serve` that say what decodes, and how.

use std::path::PathBuf;

use calm_checkpoint::Model;
use calm_core::PolicySpec;
use calm_engine::decoding::Draws;
use calm_engine::limits::{AT_LEAST_ONE, TOKENS, check_flags};
use calm_engine::program::EngineArguments;
use calm_experiments::certify::Certificate;
use calm_files::tell;

use crate::applied::check_calibration;
use crate::policy::PolicyArguments;
use crate::sampling::SamplingArguments;

#[derive(clap::Args)]
pub(crate) struct DecodingArguments {
    #[command(flatten)]
    policy: PolicyArguments,
    /// What `calm calibrate --model` wrote: takes measure, threshold, decay, prefix and the longest source
    /// and output from there
    #[arg(
        long,
        value_name = "FILE.json",
        conflicts_with_all = ["policy", "static_layers", "measure", "threshold", "decay", "exits", "prefix", "chat", "max_tokens", "max_source_tokens", "temperature"]
    )]
    pub(crate) calibration: Option<PathBuf>,
    /// Use the calibration although it was made with another model: nothing is guaranteed then
    #[arg(long, requires = "calibration")]
    force: bool,
    /// Put in front of every source that does not begin with it, and of nothing else
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Sources are what a user says: put the model's template of conversations around them
    #[arg(long)]
    chat: bool,
    /// Longest output in tokens
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_tokens: usize,
    /// Longer sources are cut to so many tokens; never if not given
    #[arg(long, value_name = "N")]
    max_source_tokens: Option<usize>,
    /// Rows decoded together
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch_size: usize,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
}

/// What these flags, or the calibration in their place, come to.
pub(crate) struct Settings {
    pub(crate) policy: PolicySpec,
    pub(crate) draws: Option<Draws>,
    pub(crate) prefix: String,
    pub(crate) chat: bool,
    pub(crate) max_tokens: usize,
    pub(crate) max_source_tokens: Option<usize>,
    pub(crate) batch_size: usize,
    calibration: Option<Certificate>,
    force: bool,
    /// What is certified, with the name of the calibration's file.
    pub(crate) certified: Option<String>,
}

impl DecodingArguments {
    /// Reads the calibration, if there is one, and checks the numbers.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let calibration = self.calibration.as_deref().map(Certificate::read).transpose()?;
        let (policy, max_tokens, max_source_tokens) = match &calibration {
            Some(calibration) => {
                (calibration.policy()?, calibration.max_tokens, calibration.max_source_tokens)
            }
            None => (self.policy.spec()?, self.max_tokens, self.max_source_tokens),
        };
        check_flags([
            ("--max-tokens", Some(max_tokens), TOKENS),
            ("--max-source-tokens", max_source_tokens, TOKENS),
            ("--batch-size", Some(self.batch_size), AT_LEAST_ONE),
        ])?;
        let certified = match (&calibration, &self.calibration) {
            (Some(calibration), Some(path)) => {
                Some(format!("{}: {}", path.display(), calibration.applied()?))
            }
            _ => None,
        };
        let columns = calibration.as_ref().map(|calibration| &calibration.columns);
        Ok(Settings {
            draws: self.sampling.draws()?,
            prefix: columns.map_or(&self.prefix, |columns| &columns.prefix).clone(),
            chat: columns.map_or(self.chat, |columns| columns.chat),
            batch_size: self.batch_size,
            force: self.force,
            policy,
            max_tokens,
            max_source_tokens,
            calibration,
            certified,
        })
    }
}

impl Settings {
    /// Refuses a model other than the calibration's.
    pub(crate) fn check_model(&self, model: &dyn Model) -> anyhow::Result<()> {
        match &self.calibration {
            Some(calibration) => check_calibration(calibration, model, self.force),
            None => Ok(()),
        }
    }

    /// Says what is certified, if anything is.
    pub(crate) fn tell_certified(&self) {
        if let Some(certified) = &self.certified {
            tell(format_args!("note: {certified}"));
        }
    }
}
