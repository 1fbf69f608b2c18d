//! Safetensors files: the weights of a network, and exit heads.

use anyhow::bail;
use calm_checkpoint::{HEADS_FILE, SafetensorsFile, WeightFiles, load_config, read_exit_heads};

use crate::scratch;

/// A T5 and a Llama whose weights have few numbers.
const T5: &str = r#"{"model_type": "t5", "d_model": 2, "d_kv": 2, "d_ff": 2, "num_layers": 1, "num_heads": 1,
    "vocab_size": 4, "relative_attention_num_buckets": 4, "relative_attention_max_distance": 8,
    "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}"#;
const LLAMA: &str = r#"{"model_type": "llama", "hidden_size": 2, "intermediate_size": 2, "num_hidden_layers": 2,
    "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 4, "max_position_embeddings": 8,
    "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "tie_word_embeddings": true}"#;

/// The byte `t` or `l` and the weights of a T5 or Llama, or `h` and the exit heads of the latter.
pub(crate) fn read(input: &[u8]) -> anyhow::Result<()> {
    let Some((kind, bytes)) = input.split_first() else { bail!("an empty input") };
    let config = if *kind == b't' { T5 } else { LLAMA };
    scratch::file("weights/config.json", config);
    let folder = scratch::folder().join("weights");
    let config = load_config(&folder)?;
    if *kind == b'h' {
        scratch::file(&format!("weights/{HEADS_FILE}"), bytes);
        read_exit_heads(&folder, &config.shape(), || Ok("0123".to_owned()))?;
        return Ok(());
    }
    let path = scratch::file("weights/model.safetensors", bytes);
    let file = SafetensorsFile::open(&path)?;
    for (_, tensor) in file.tensors() {
        file.read(tensor)?;
    }
    let weights = WeightFiles::open(&folder, &*config)?;
    for name in weights.names() {
        weights.read(name)?;
    }
    weights.fingerprint()?;
    Ok(())
}
