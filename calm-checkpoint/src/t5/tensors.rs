//! The tensors of a T5: how they are called, and what they are in an untrained network.

use super::{T5_MODEL_TYPES, T5Config};
use crate::Parameter;
use crate::model_type::Naming;
use crate::tensor_names::{HEAD, unwrapped};

/// The embedding of both stacks, and the head of a checkpoint that has no other: `[vocab_size, d_model]`.
pub const SHARED: &str = "shared.weight";
/// The encoder's embedding where it is not [`SHARED`]: `[vocab_size, d_model]`.
pub const ENCODER_EMBEDDING: &str = "encoder.embed_tokens.weight";
/// The decoder's embedding where it is not [`SHARED`]: `[vocab_size, d_model]`.
pub const DECODER_EMBEDDING: &str = "decoder.embed_tokens.weight";

/// Tables that a checkpoint may have beside [`SHARED`].
pub(super) const TABLES: [&str; 3] = [HEAD, ENCODER_EMBEDDING, DECODER_EMBEDDING];

/// Names that the published network's tensors have in common.
const PARTS: [&str; 4] = ["shared", "encoder", "decoder", "lm_head"];

/// How files call a T5.
pub(super) static NAMING: Naming = Naming {
    network: "T5",
    model_types: T5_MODEL_TYPES,
    // A stack has a table of its own, or the first that the file has in this order, as in transformers 5:
    // `T5ForConditionalGeneration._tied_weights_keys`.
    embeddings: &[SHARED, ENCODER_EMBEDDING, DECODER_EMBEDDING, HEAD],
    canonical: unwrapped,
    // transformers before PR #8518 stored a position bias that was never used.
    is_leftover: |name| name.ends_with("EncDecAttention.relative_attention_bias.weight"),
    is_of_network: |name| name.split('.').any(|part| PARTS.contains(&part)),
};

/// Lists every tensor of an untrained T5 (`T5PreTrainedModel._init_weights` in transformers, factor 1).
pub(super) fn parameters(config: &T5Config) -> Vec<Parameter> {
    let (d_model, inner, d_ff) = (config.d_model, config.inner(), config.d_ff);
    let inverse_root = |n: i64| (n as f64).powf(-0.5);
    let mut all = Vec::new();
    let mut add = |name: String, shape: &[i64], deviation: Option<f64>| {
        all.push(Parameter { name, shape: shape.to_vec(), deviation });
    };
    add(SHARED.into(), &[config.vocab_size, d_model], Some(1.0));
    if !config.tie_word_embeddings {
        add(HEAD.into(), &[config.vocab_size, d_model], Some(1.0));
    }
    for (stack, blocks, cross) in
        [("encoder", config.num_layers, false), ("decoder", config.decoder_layers(), true)]
    {
        for block in 0..blocks {
            let base = format!("{stack}.block.{block}.layer");
            let attentions: &[_] =
                if cross { &[(0, "SelfAttention"), (1, "EncDecAttention")] } else { &[(0, "SelfAttention")] };
            for (layer, attention) in attentions {
                let path = format!("{base}.{layer}.{attention}");
                // The factor 1/sqrt(d_kv), which the scores lack, is in the queries.
                add(format!("{path}.q.weight"), &[inner, d_model], Some(inverse_root(d_model * config.d_kv)));
                add(format!("{path}.k.weight"), &[inner, d_model], Some(inverse_root(d_model)));
                add(format!("{path}.v.weight"), &[inner, d_model], Some(inverse_root(d_model)));
                add(format!("{path}.o.weight"), &[d_model, inner], Some(inverse_root(inner)));
                add(format!("{base}.{layer}.layer_norm.weight"), &[d_model], None);
            }
            let layer = attentions.len();
            let path = format!("{base}.{layer}.DenseReluDense");
            let inputs: &[_] = if config.feed_forward_proj.is_gated() { &["wi_0", "wi_1"] } else { &["wi"] };
            for input in inputs {
                add(format!("{path}.{input}.weight"), &[d_ff, d_model], Some(inverse_root(d_model)));
            }
            add(format!("{path}.wo.weight"), &[d_model, d_ff], Some(inverse_root(d_ff)));
            add(format!("{base}.{layer}.layer_norm.weight"), &[d_model], None);
        }
        let table = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        let shape = [config.relative_attention_num_buckets, config.num_heads];
        add(table, &shape, Some(inverse_root(d_model)));
        add(format!("{stack}.final_layer_norm.weight"), &[d_model], None);
    }
    all
}
