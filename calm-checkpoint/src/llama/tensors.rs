//! The tensors of a Llama: how they are called, and what they are in an untrained network.

use super::{LLAMA_MODEL_TYPES, LlamaConfig};
use crate::Parameter;
use crate::model_type::Naming;
use crate::tensor_names::{HEAD, unwrapped};

/// The embedding, and the head of a checkpoint that has no other: `[vocab_size, hidden_size]`.
pub const EMBED_TOKENS: &str = "model.embed_tokens.weight";

/// What the network without its head is called in a checkpoint.
const MODEL: &str = "model";

/// Names that the published network's tensors have in common, below [`MODEL`].
const PARTS: [&str; 3] = ["embed_tokens", "layers", "norm"];

/// Standard deviation of all matrices (`initializer_range` of transformers).
const DEVIATION: f64 = 0.02;

/// How files call a Llama.
pub(super) static NAMING: Naming = Naming {
    network: "Llama",
    model_types: LLAMA_MODEL_TYPES,
    embeddings: &[EMBED_TOKENS, HEAD],
    canonical,
    // Older versions of transformers stored the frequencies of each layer's positions.
    is_leftover: |name| name.ends_with("rotary_emb.inv_freq"),
    is_of_network: |name| name.starts_with("model.") || name.starts_with("lm_head."),
};

/// The name in a checkpoint of the network with its head: one that was saved without has no [`MODEL`] in its
/// names.
fn canonical(stored: &str) -> String {
    let name = unwrapped(stored);
    match name.split_once('.') {
        Some((part, _)) if PARTS.contains(&part) => format!("{MODEL}.{name}"),
        _ => name,
    }
}

/// Lists every tensor of an untrained Llama (`LlamaPreTrainedModel._init_weights` in transformers).
pub(super) fn parameters(config: &LlamaConfig) -> Vec<Parameter> {
    let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
    let (inner, kv_inner) = (config.inner(), config.kv_inner());
    let mut all = Vec::new();
    let mut add = |name: String, shape: &[i64]| {
        let deviation = (shape.len() > 1).then_some(DEVIATION);
        all.push(Parameter { name, shape: shape.to_vec(), deviation });
    };
    add(EMBED_TOKENS.to_owned(), &[config.vocab_size, hidden]);
    if !config.tie_word_embeddings {
        add(HEAD.to_owned(), &[config.vocab_size, hidden]);
    }
    for layer in 0..config.num_hidden_layers {
        let base = format!("{MODEL}.layers.{layer}");
        add(format!("{base}.input_layernorm.weight"), &[hidden]);
        for (name, rows) in [("q_proj", inner), ("k_proj", kv_inner), ("v_proj", kv_inner)] {
            add(format!("{base}.self_attn.{name}.weight"), &[rows, hidden]);
        }
        add(format!("{base}.self_attn.o_proj.weight"), &[hidden, inner]);
        add(format!("{base}.post_attention_layernorm.weight"), &[hidden]);
        for name in ["gate_proj", "up_proj"] {
            add(format!("{base}.mlp.{name}.weight"), &[intermediate, hidden]);
        }
        add(format!("{base}.mlp.down_proj.weight"), &[hidden, intermediate]);
    }
    add(format!("{MODEL}.norm.weight"), &[hidden]);
    all
}
