//! GGUF files: what they hold, and the checkpoint that they are.

use calm_checkpoint::{ChatTemplate, GgufTokens, Tokenizer, WeightFiles, load_config};
use calm_gguf::{Array, Gguf, Value};

use crate::{chat, scratch, tokenizer};

/// The file, and the network in it.
pub(crate) fn read(input: &[u8]) -> anyhow::Result<()> {
    let path = scratch::file("model.gguf", input);
    let gguf = Gguf::open(&path)?;
    read_all(&gguf)?;
    let _ = GgufTokens::read(&gguf);
    let weights = WeightFiles::open(&path, &*load_config(&path)?)?;
    for name in weights.names() {
        weights.read(name)?;
    }
    weights.fingerprint()?;
    Ok(())
}

/// The tokenizer and the template in the file.
pub(crate) fn read_tokenizer(input: &[u8]) -> anyhow::Result<()> {
    let gguf = Gguf::open(&scratch::file("model.gguf", input))?;
    let tokenizer = Tokenizer::of_gguf(&gguf)?;
    tokenizer::use_all(&tokenizer)?;
    match ChatTemplate::of_gguf(&gguf)? {
        Some(template) => chat::render(&template, Some(&tokenizer), "what?"),
        None => Ok(()),
    }
}

/// Looks at all metadata and all numbers.
fn read_all(gguf: &Gguf) -> anyhow::Result<()> {
    for (key, value) in gguf.pairs() {
        assert!(gguf.metadata(key).is_some_and(|found| found.value_type() == value.value_type()));
        let _ = (gguf.get::<u32>(key), gguf.list::<&str>(key), gguf.list::<i32>(key));
        if let Value::Array(array) = value {
            look_into(array);
        }
    }
    for tensor in gguf.tensors() {
        assert_eq!(gguf.tensor(&tensor.name), Some(tensor));
        let Ok(kind) = gguf.tensor_type(tensor) else { continue };
        let bytes = gguf.bytes(tensor);
        assert_eq!(gguf.read(tensor)?, bytes);
        let mut block = vec![0.0; kind.block_len()];
        for bytes in bytes.chunks(kind.block_bytes()) {
            kind.dequantise(bytes, &mut block);
        }
    }
    gguf.check_unchanged()?;
    Ok(())
}

fn look_into(array: Array<'_>) {
    assert_eq!(array.iter().count(), array.len());
    for value in array.iter() {
        if let Value::Array(inner) = value {
            look_into(inner);
        }
    }
}
