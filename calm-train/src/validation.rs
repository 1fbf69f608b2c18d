//! Scores of decoded held-out examples.

use calm_core::{Backbone, DecodeOptions, Policy, Propagation, decode};
use calm_metrics::Metric;
use calm_model::{T5, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::batches::TokenPair;

/// BLEU of the full model and of each exit used for all tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Corpus BLEU (sacreBLEU's defaults) with all layers, in 0..=100.
    pub bleu: f64,
    /// Corpus chrF with all layers, in 0..=100.
    pub chrf: f64,
    /// Corpus BLEU with the first k layers, k from 1.
    pub exit_bleu: Vec<f64>,
    /// Held-out examples.
    pub examples: usize,
}

/// How to decode.
#[derive(Debug, Clone, Copy)]
pub struct ValidationOptions {
    /// Rows decoded together.
    pub batch_size: usize,
    /// Longest output.
    pub max_tokens: usize,
}

/// Decodes the sources of `examples` and scores the text against their targets.
///
/// # Errors
/// libtorch or the tokenizer failed.
pub fn validate(
    model: &T5,
    tokenizer: &Tokenizer,
    examples: &[TokenPair],
    options: &ValidationOptions,
) -> Result<Validation, Error> {
    let layers = model.shape().num_decoder_layers;
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.sort_by_key(|&i| examples[i].source.len());
    let references: Vec<String> =
        order.iter().map(|&i| Ok(tokenizer.decode(&examples[i].target)?)).collect::<Result<_, Error>>()?;
    let mut outputs = vec![Vec::new(); layers];
    for rows in order.chunks(options.batch_size) {
        let sources: Vec<&[u32]> = rows.iter().map(|&i| examples[i].source.as_slice()).collect();
        let encoded = model.encode(&sources)?;
        for (layers, outputs) in (1..).zip(&mut outputs) {
            let decode_options =
                DecodeOptions { max_tokens: options.max_tokens, propagation: Propagation::Lazy };
            let policy = Policy::Static { layers };
            for generation in decode(model, &encoded, rows.len(), &policy, &decode_options)? {
                outputs.push(tokenizer.decode(&generation.tokens)?);
            }
        }
    }
    let references: Vec<Vec<String>> = references.into_iter().map(|reference| vec![reference]).collect();
    let exit_bleu = outputs
        .iter()
        .map(|outputs| Ok(Metric::Bleu.corpus_score(outputs, &references)?))
        .collect::<Result<Vec<f64>, Error>>()?;
    Ok(Validation {
        bleu: exit_bleu[layers - 1],
        chrf: Metric::Chrf.corpus_score(&outputs[layers - 1], &references)?,
        exit_bleu,
        examples: examples.len(),
    })
}
