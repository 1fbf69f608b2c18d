//! What llama.cpp calls the tensors of networks (`TENSOR_NAMES` of its gguf-py/gguf/constants.py).

use calm_gguf::Gguf;

use crate::model_type::Naming;
use crate::tensor_names::HEAD;
use crate::{EMBED_TOKENS, Error};

/// Names of a layer's tensors in files, and in Hugging Face's checkpoints.
const LLAMA_LAYER: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// How a file's names become those of the network.
pub(crate) struct GgufNames {
    /// Number of heads of the queries and of the keys.
    heads: [usize; 2],
}

impl GgufNames {
    pub(crate) fn of(gguf: &Gguf, naming: &Naming) -> Result<Self, Error> {
        let _ = naming;
        let heads: u32 = gguf.require("llama.attention.head_count")?;
        let kv_heads: Option<u32> = gguf.get("llama.attention.head_count_kv")?;
        Ok(GgufNames { heads: [heads as usize, kv_heads.unwrap_or(heads) as usize] })
    }

    /// The name by which the network knows a tensor; the same name if it knows none.
    pub(crate) fn name(&self, stored: &str) -> String {
        let known = match stored {
            "token_embd.weight" => Some(EMBED_TOKENS.to_owned()),
            "output_norm.weight" => Some("model.norm.weight".to_owned()),
            "output.weight" => Some(HEAD.to_owned()),
            _ => layer_name(stored),
        };
        known.unwrap_or_else(|| stored.to_owned())
    }

    /// Number of heads of a tensor whose rows the file has in another order.
    pub(crate) fn heads_of(&self, name: &str) -> Option<usize> {
        let [heads, kv_heads] = self.heads;
        if name.ends_with("self_attn.q_proj.weight") {
            return Some(heads);
        }
        name.ends_with("self_attn.k_proj.weight").then_some(kv_heads)
    }
}

fn layer_name(stored: &str) -> Option<String> {
    let (layer, name) = stored.strip_prefix("blk.")?.split_once('.')?;
    let (name, rest) = name.split_once('.')?;
    let (_, published) = LLAMA_LAYER.iter().find(|(in_file, _)| *in_file == name)?;
    Some(format!("model.layers.{layer}.{published}.{rest}"))
}
