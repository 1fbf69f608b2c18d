//! The tokens that heads know.

use std::collections::HashMap;

use calm_core::{BackboneShape, Token};
use serde::Serialize;

use super::Divided;
use super::states::States;
use crate::Error;

/// A part of the vocabulary, and how much of the model's own outputs it makes up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Coverage {
    /// The tokens, ascending. Those that end an output are among them.
    #[serde(skip)]
    pub tokens: Vec<Token>,
    /// The number of tokens.
    pub size: usize,
    /// The number of all tokens there are.
    pub of: usize,
    /// The share of the outputs that the tokens were chosen by.
    pub share: f64,
    /// The share of outputs that were held out.
    pub held_out_share: f64,
}

impl Coverage {
    /// Chooses the fewest tokens that make up this share of the outputs that heads are trained on.
    pub(super) fn new(share: f64, divided: &Divided, shape: &BackboneShape) -> Result<Self, Error> {
        let trained_on = counts(&divided.trained_on)?;
        let mut by_count: Vec<(Token, usize)> =
            trained_on.iter().map(|(&token, &count)| (token, count)).collect();
        by_count.sort_by_key(|&(token, count)| (std::cmp::Reverse(count), token));
        let all: usize = trained_on.values().sum();
        let enough = share * all as f64;
        let (mut tokens, mut covered) = (shape.eos_tokens.clone(), 0);
        for (token, count) in by_count {
            if covered as f64 >= enough {
                break;
            }
            tokens.push(token);
            covered += count;
        }
        tokens.sort_unstable();
        tokens.dedup();
        let share_of = |counts: &HashMap<Token, usize>| {
            let known = tokens.iter().filter_map(|token| counts.get(token)).sum::<usize>();
            known as f64 / counts.values().sum::<usize>().max(1) as f64
        };
        let (share, held_out_share) = (share_of(&trained_on), share_of(&counts(&divided.held_out)?));
        Ok(Self { size: tokens.len(), of: shape.vocab_size, share, held_out_share, tokens })
    }
}

/// How often each token is the last layer's.
fn counts(states: &States) -> Result<HashMap<Token, usize>, Error> {
    let mut counts = HashMap::new();
    for token in Vec::<i64>::try_from(&states.best)? {
        *counts.entry(token as Token).or_default() += 1;
    }
    Ok(counts)
}
