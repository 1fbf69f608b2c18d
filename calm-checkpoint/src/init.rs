//! The tensors of an untrained T5 (`T5PreTrainedModel._init_weights` in transformers, factor 1).

use crate::T5Config;

/// A tensor of an untrained network.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// The tensor's name in the checkpoint.
    pub name: String,
    /// The tensor's shape, as `config.json` implies it.
    pub shape: Vec<i64>,
    /// Standard deviation of the tensor's normal distribution.
    ///
    /// It is `None` for the norms' weights, which start at 1.
    pub deviation: Option<f64>,
}

/// Lists every tensor of a T5, by its name in the checkpoint.
pub fn parameters(config: &T5Config) -> Vec<Parameter> {
    let (d_model, inner, d_ff) = (config.d_model, config.inner(), config.d_ff);
    let inverse_root = |n: i64| (n as f64).powf(-0.5);
    let mut all = Vec::new();
    let mut add = |name: String, shape: &[i64], deviation: Option<f64>| {
        all.push(Parameter { name, shape: shape.to_vec(), deviation });
    };
    add("shared.weight".into(), &[config.vocab_size, d_model], Some(1.0));
    if !config.tie_word_embeddings {
        add("lm_head.weight".into(), &[config.vocab_size, d_model], Some(1.0));
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
