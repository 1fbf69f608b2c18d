//! Early-exit decoding of one sequence without a cache: every step computes all states anew from the tokens
//! so far and the layers they left at, by the equations of the paper, or with exact states as in FREE.

use calm_core::{Backbone, Token};

use crate::toy::{START, Toy, Vector, argmax};

/// Where a token leaves.
#[derive(Clone, Copy)]
pub(crate) enum Rule<'a> {
    /// After this layer.
    Fixed(usize),
    /// After the first layer that agrees with the last.
    Agreement,
    /// The same, but layers above an exit have the keys and values of the exit layer.
    AgreementCopied,
    /// After this layer, with the token of the last.
    LastToken(usize),
    /// After the last layer, but at this position with a layer's token of this rank, from 1.
    Changed { position: usize, layer: usize, rank: usize },
    /// After the first layer but the last that agrees with so many before it.
    Patience(usize),
    /// After the first of these layers with confidence >= threshold(t), with the token that goes with it.
    Confidence(&'a [usize], &'a dyn Fn(&View<'_>) -> (f64, Token), &'a dyn Fn(usize) -> f64),
    /// After this layer with confidence >= threshold, with the token that goes with it, else after the last.
    /// Earlier tokens have all their states.
    ShallowDeep(usize, &'a dyn Fn(&View<'_>) -> (f64, Token), f64),
}

/// What a confidence is made of.
pub(crate) struct View<'a> {
    pub(crate) layer: usize,
    pub(crate) position: usize,
    pub(crate) hidden: &'a [f32],
    /// State after the layer that was tested before; empty at the first test.
    pub(crate) previous_hidden: &'a [f32],
    pub(crate) logits: &'a [f32],
}

#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) tokens: Vec<Token>,
    pub(crate) exit_layers: Vec<usize>,
    pub(crate) confidence: Vec<Option<f64>>,
}

pub(crate) fn decode(toy: &Toy, source: &[Token], max_tokens: usize, rule: Rule<'_>) -> Decoded {
    let num_layers = toy.num_layers();
    let source = toy.source_states(source);
    let mut decoded = Decoded::default();
    let is_exact = matches!(rule, Rule::ShallowDeep(..));
    let is_copied = matches!(rule, Rule::AgreementCopied);
    for position in 0..max_tokens {
        let mut inputs = vec![START];
        inputs.extend(&decoded.tokens);
        // states[s][i] is d_s^i of the paper; of the current token all layers.
        let mut states: Vec<Vec<Vector>> = Vec::new();
        for (s, &input) in inputs.iter().enumerate() {
            states.push(vec![toy.embed(input)]);
            for layer in 1..=num_layers {
                let has_left = decoded.exit_layers.get(s).is_some_and(|&left| layer > left);
                let state = if has_left && !is_exact {
                    states[s][layer - 1].clone()
                } else {
                    let key_value = |(at, state): (usize, &Vec<Vector>)| {
                        let left = decoded.exit_layers.get(at).filter(|_| is_copied);
                        let layer = left.map_or(layer, |&left| layer.min(left));
                        toy.key_value(layer, &state[layer - 1])
                    };
                    let kv: Vec<_> = states.iter().enumerate().map(key_value).collect();
                    toy.block(layer, &states[s][layer - 1], &kv, &source)
                };
                states[s].push(state);
            }
        }

        let states = &states[position];
        let logits: Vec<Vector> = states.iter().map(|state| toy.logits(state)).collect();
        let token_at = |layer: usize| argmax(&logits[layer]);
        let (mut confidence, mut token) = (None, None);
        let view = |layer: usize, previous_hidden| View {
            layer,
            position,
            hidden: &states[layer],
            previous_hidden,
            logits: &logits[layer],
        };
        let exit = match rule {
            Rule::Fixed(layer) => layer,
            Rule::LastToken(layer) => {
                token = Some(token_at(num_layers));
                layer
            }
            Rule::Changed { position: changed, layer, rank } => {
                let mut ranked: Vec<Token> = (0..logits[layer].len() as Token).collect();
                ranked.sort_by(|a, b| logits[layer][*b as usize].total_cmp(&logits[layer][*a as usize]));
                token = (position == changed).then(|| ranked[rank - 1]);
                num_layers
            }
            Rule::Agreement | Rule::AgreementCopied => (1..=num_layers)
                .find(|&layer| token_at(layer) == token_at(num_layers))
                .expect("the last agrees"),
            Rule::Patience(patience) => (patience + 1..num_layers)
                .find(|&layer| (layer - patience..layer).all(|before| token_at(before) == token_at(layer)))
                .unwrap_or(num_layers),
            Rule::Confidence(exits, measure, threshold) => {
                let mut previous_hidden: &[f32] = &[];
                let confident = |&layer: &usize| {
                    let (value, best) = measure(&view(layer, previous_hidden));
                    previous_hidden = &states[layer];
                    confidence = Some(value);
                    let leaves = value >= threshold(position);
                    token = leaves.then_some(best);
                    leaves
                };
                exits.iter().copied().find(confident).unwrap_or(num_layers)
            }
            Rule::ShallowDeep(shallow, measure, threshold) => {
                // Measures may compare with the layer before; the embedding is none.
                let before: &[f32] = if shallow > 1 { &states[shallow - 1] } else { &[] };
                let (value, best) = measure(&view(shallow, before));
                confidence = Some(value);
                token = (value >= threshold).then_some(best);
                if value >= threshold { shallow } else { num_layers }
            }
        };
        let token = token.unwrap_or_else(|| token_at(exit));
        decoded.tokens.push(token);
        decoded.exit_layers.push(exit);
        decoded.confidence.push(confidence);
        if toy.shape().eos_tokens.contains(&token) {
            break;
        }
    }
    decoded
}
