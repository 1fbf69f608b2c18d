//! What GGUF files call the tensors of a network (`MODEL_TENSOR` and `TENSOR_NAMES` of gguf-py's
//! constants.py), by the names that Hugging Face's checkpoints have.

use calm_gguf::Gguf;

use super::{Architecture, Keys};
use crate::Error;

/// Names of tensors outside of layers.
const T5_NAMES: &[(&str, &str)] = &[
    ("token_embd", "shared"),
    ("output", "lm_head"),
    ("enc.output_norm", "encoder.final_layer_norm"),
    ("dec.output_norm", "decoder.final_layer_norm"),
];
const LLAMA_NAMES: &[(&str, &str)] =
    &[("token_embd", "model.embed_tokens"), ("output", "lm_head"), ("output_norm", "model.norm")];

/// Names of tensors inside of a block of either stack: `F` is the number of the feed-forward network's layer.
const T5_BLOCK_NAMES: &[(&str, &str)] = &[
    ("attn_norm", "layer.0.layer_norm"),
    ("attn_q", "layer.0.SelfAttention.q"),
    ("attn_k", "layer.0.SelfAttention.k"),
    ("attn_v", "layer.0.SelfAttention.v"),
    ("attn_o", "layer.0.SelfAttention.o"),
    ("attn_rel_b", "layer.0.SelfAttention.relative_attention_bias"),
    ("cross_attn_norm", "layer.1.layer_norm"),
    ("cross_attn_q", "layer.1.EncDecAttention.q"),
    ("cross_attn_k", "layer.1.EncDecAttention.k"),
    ("cross_attn_v", "layer.1.EncDecAttention.v"),
    ("cross_attn_o", "layer.1.EncDecAttention.o"),
    ("cross_attn_rel_b", "layer.1.EncDecAttention.relative_attention_bias"),
    ("ffn_norm", "layer.F.layer_norm"),
    ("ffn_gate", "layer.F.DenseReluDense.wi_0"),
    ("ffn_down", "layer.F.DenseReluDense.wo"),
];
const LLAMA_LAYER_NAMES: &[(&str, &str)] = &[
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

/// By how much each wavelength of a Llama's positions is stretched: read with the configuration.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";

/// The names of a GGUF file's tensors.
pub struct GgufNames {
    architecture: Architecture,
    /// Whether feed-forward networks have a gate, so that what is called `ffn_up` is the second projection.
    is_gated: bool,
    /// Heads of the queries, and those of the keys.
    heads: [usize; 2],
}

impl GgufNames {
    /// The names in a file.
    ///
    /// # Errors
    /// The file has another network than those that are implemented, or does not say how many heads it has.
    pub fn of(gguf: &Gguf) -> Result<Self, Error> {
        let architecture = Architecture::of(gguf)?;
        let keys = Keys::of(gguf, architecture)?;
        let heads: usize = keys.require("attention.head_count")?;
        let kv_heads = keys.get("attention.head_count_kv")?.unwrap_or(heads);
        Ok(GgufNames { architecture, is_gated: is_gated(gguf), heads: [heads, kv_heads] })
    }

    /// The name that a tensor has in a Hugging Face checkpoint. One that such a network has not keeps its
    /// name; there is none for what the configuration has read already.
    pub fn hugging_face(&self, stored: &str) -> Option<String> {
        if self.architecture == Architecture::Llama && stored == ROPE_FREQS {
            return None;
        }
        let (name, kind) = stored.rsplit_once('.').unwrap_or((stored, ""));
        let found = match self.architecture {
            Architecture::T5 => self.t5(name),
            Architecture::Llama => llama(name),
        };
        Some(found.map_or_else(|| stored.to_owned(), |found| format!("{found}.{kind}")))
    }

    /// The number of heads of a matrix whose rows are in pairs, to be put in order by [`halves_of_pairs`]:
    /// those of a Llama's queries and keys.
    pub fn paired_heads(&self, stored: &str) -> Option<usize> {
        if self.architecture != Architecture::Llama {
            return None;
        }
        match stored.strip_prefix("blk.")?.split_once('.')?.1 {
            "attn_q.weight" => Some(self.heads[0]),
            "attn_k.weight" => Some(self.heads[1]),
            _ => None,
        }
    }

    fn t5(&self, name: &str) -> Option<String> {
        if let Some(found) = renamed(T5_NAMES, name) {
            return Some(found.to_owned());
        }
        let (stack, feed_forward, block) =
            match (name.strip_prefix("enc.blk."), name.strip_prefix("dec.blk.")) {
                (Some(block), _) => ("encoder", "1", block),
                (_, Some(block)) => ("decoder", "2", block),
                _ => return None,
            };
        let (number, part) = block.split_once('.')?;
        let number: usize = number.parse().ok()?;
        let part = match part {
            "ffn_up" if self.is_gated => "layer.F.DenseReluDense.wi_1",
            "ffn_up" => "layer.F.DenseReluDense.wi",
            part => renamed(T5_BLOCK_NAMES, part)?,
        };
        Some(format!("{stack}.block.{number}.{}", part.replace('F', feed_forward)))
    }
}

fn llama(name: &str) -> Option<String> {
    if let Some(found) = renamed(LLAMA_NAMES, name) {
        return Some(found.to_owned());
    }
    let (number, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let number: usize = number.parse().ok()?;
    Some(format!("model.layers.{number}.{}", renamed(LLAMA_LAYER_NAMES, part)?))
}

fn renamed<'a>(names: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    names.iter().find(|(stored, _)| *stored == name).map(|(_, found)| *found)
}

/// Whether a T5's feed-forward networks have a gate.
pub(super) fn is_gated(gguf: &Gguf) -> bool {
    gguf.tensor("enc.blk.0.ffn_gate.weight").is_some()
}

/// Puts the rows of a matrix of queries or keys in Hugging Face's order.
///
/// The position turns pairs of numbers of a head. llama.cpp's files have the rows of a pair side by side
/// (`LlamaModel.permute` of its converter), Hugging Face's have the first of all pairs and then the second.
///
/// # Panics
/// `bytes` are no rows of this size, an even number of them for each head.
pub fn halves_of_pairs(bytes: &[u8], row_bytes: usize, heads: usize) -> Vec<u8> {
    let head_bytes = bytes.len() / heads;
    assert!(
        bytes.len().is_multiple_of(heads) && head_bytes.is_multiple_of(2 * row_bytes),
        "{} bytes are not {heads} heads of rows of {row_bytes}",
        bytes.len()
    );
    let mut ordered = Vec::with_capacity(bytes.len());
    for head in bytes.chunks(head_bytes) {
        for half in 0..2 {
            head.chunks(row_bytes).skip(half).step_by(2).for_each(|row| ordered.extend_from_slice(row));
        }
    }
    ordered
}
