//! The flags that say how tokens are drawn.

use calm_core::Filter;
use calm_engine::decoding::Draws;

/// Tokens are drawn instead of taking the best ones, if there is a temperature.
#[derive(clap::Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArguments {
    /// Draw tokens by their probabilities at this temperature, above 0, instead of taking the best ones
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Only among so many of the best tokens
    #[arg(long, value_name = "K", requires = "temperature")]
    top_k: Option<usize>,
    /// Only among the fewest best tokens whose probabilities sum up to this
    #[arg(long, value_name = "P", requires = "temperature")]
    top_p: Option<f64>,
    /// What is drawn for a source depends on this and its tokens alone
    #[arg(long, value_name = "N", requires = "temperature", default_value_t = 0)]
    seed: u64,
}

impl SamplingArguments {
    /// How to draw, if that is asked for.
    pub(crate) fn draws(&self) -> anyhow::Result<Option<Draws>> {
        let Some(temperature) = self.temperature else { return Ok(None) };
        let filter = Filter { temperature, top_k: self.top_k, top_p: self.top_p };
        filter.check()?;
        Ok(Some(Draws { filter, seed: self.seed }))
    }
}
