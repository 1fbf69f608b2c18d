use super::{Decision, Policy, PolicyKind, Skipped, StepPolicy};
use crate::backbone::{Entry, Token};
use crate::error::DecodeError;
use crate::layer::Layer;
use crate::matrix::Matrix;

pub(super) static ORACLE: PolicyKind = PolicyKind {
    name: "oracle",
    about: "the first layer that agrees with the last one; computes all, for comparison",
    parameters: &[],
    make: |_, _| Ok(Box::new(Oracle)),
    is_full: |_, _| false,
    head_flops: |_, shape, _| shape.flops.head,
    defers: false,
};

/// Every token leaves after the first layer that predicts the same token as the last one. All layers have to
/// run to know, so this is a bound for the other policies and not a faster decoding (paper section 3.3).
#[derive(Debug, Clone, Copy)]
pub struct Oracle;

impl Policy for Oracle {
    /// The oracle's exits are about the best token.
    fn can_sample(&self) -> bool {
        false
    }

    fn begin_step(&self, _: usize) -> Box<dyn StepPolicy + '_> {
        Box::new(Step { layers: Vec::new() })
    }
}

pub(super) static ORACLE_COPIED: PolicyKind = PolicyKind {
    name: "oracle-copied",
    about: "the oracle, but skipped layers get the keys and values of the exit layer as they are",
    make: |_, _| Ok(Box::new(OracleCopied)),
    ..ORACLE
};

/// The oracle with copies of the exit layer's keys and values in the layers above, in place of their own
/// projections of its state (paper section 3.3.1): what propagation is good for.
#[derive(Debug, Clone, Copy)]
struct OracleCopied;

impl Policy for OracleCopied {
    fn skipped(&self) -> Skipped {
        Skipped::Copied
    }

    fn can_sample(&self) -> bool {
        Oracle.can_sample()
    }

    fn begin_step(&self, max_tokens: usize) -> Box<dyn StepPolicy + '_> {
        Oracle.begin_step(max_tokens)
    }
}

/// Best tokens and states after each layer so far. The full pass attends over the K/V that earlier exits left
/// behind, as in the paper's released code.
struct Step {
    layers: Vec<(Vec<Token>, Matrix)>,
}

impl StepPolicy for Step {
    fn decide(&mut self, layer: &mut Layer<'_>, decisions: &mut [Decision]) -> Result<(), DecodeError> {
        let tokens: Vec<Token> = layer.top2()?.into_iter().map(|top2| top2.token).collect();
        self.layers.push((tokens, layer.hidden()?));
        if !layer.is_last() {
            return Ok(());
        }
        let last = self.layers.len() - 1;
        let mut leaving: Vec<Entry> = Vec::new();
        let mut states = Matrix { data: Vec::new(), columns: layer.shape().d_model };
        for (index, decision) in decisions.iter_mut().enumerate() {
            let token = self.layers[last].0[index];
            let exit = self.layers.iter().position(|(tokens, _)| tokens[index] == token).unwrap_or(last);
            (decision.exit_layer, decision.token) = (Some(exit + 1), Some(token));
            if exit < last {
                leaving.push(layer.entries()[index]);
                states.data.extend_from_slice(self.layers[exit].1.row(index));
            }
        }
        if leaving.is_empty() { Ok(()) } else { layer.set_hidden(&leaving, &states) }
    }
}
