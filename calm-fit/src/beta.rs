//! Mixtures of Beta distributions of the margin, which give the probability that a layer's token is the last
//! layer's.

use calm_core::{BetaMixture, BetaMixtures, Exits, Token};

use crate::Error;
use crate::held_out::{Split, no_exits, no_tokens};
use crate::observe::Observations;
use crate::reliability::Reliability;

/// Mixtures, and how they fare on the examples that were held out.
#[derive(Debug, Clone)]
pub struct FittedBeta {
    /// To be written beside the model.
    pub mixtures: BetaMixtures,
    /// One for each layer but the last, in their order.
    pub reliability: Vec<Reliability>,
}

/// Fits a mixture for each layer to the examples that [`fit`](crate::fit) fits its maps to: that of
/// [`BetaMixture::intended`].
///
/// # Errors
/// There are fewer than 8 examples, no tokens, or a model of a single layer.
pub fn fit_beta(observations: &Observations, sources: &[Vec<Token>]) -> Result<FittedBeta, Error> {
    let split = Split::new(observations, sources)?;
    let exits = Exits::all_below(observations.num_layers);
    let (mut layers, mut reliability) = (Vec::new(), Vec::new());
    for layer in exits.layers() {
        let place = observations.place(BetaMixtures::base(), exits, layer).ok_or_else(no_tokens)?;
        let mixture = BetaMixture::intended(split.fitted_observations(place)).ok_or_else(no_tokens)?;
        let posterior = |x: f32| mixture.posterior(f64::from(x)) as f32;
        let tests = exits.up_to(layer).from(layer);
        reliability.push(Reliability::new("beta", tests, posterior, &split.held_out_readings(place)));
        layers.push(mixture);
    }
    if layers.is_empty() {
        return Err(no_exits());
    }
    Ok(FittedBeta { mixtures: BetaMixtures { fitted_to: split.fitted_to(), layers }, reliability })
}
