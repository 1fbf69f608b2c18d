//! The files of a checkpoint directory that say what network it is.

use calm_checkpoint::{Tokenizer, load_config};

use crate::scratch;

const CONFIG: &str = "checkpoint/config.json";
const GENERATION: &str = "checkpoint/generation_config.json";
const TOKENIZER: &str = "checkpoint/tokenizer_config.json";

/// A tokenizer of few words.
const WORDS: &str = r#"{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "unk_token": "<unk>",
    "vocab": {"<pad>": 0, "</s>": 1, "<unk>": 2, "<s>": 3, "word": 4}}}"#;

/// The files `config.json`, `generation_config.json` and `tokenizer_config.json`, with a zero byte between
/// them.
pub(crate) fn read(input: &[u8]) -> anyhow::Result<()> {
    let mut parts = input.split(|&byte| byte == 0);
    for name in [CONFIG, GENERATION, TOKENIZER] {
        scratch::file_if_any(name, parts.next());
    }
    scratch::file("checkpoint/tokenizer.json", WORDS);
    let folder = scratch::folder().join("checkpoint");
    let config = load_config(&folder)?;
    config.shape();
    config.head_parts();
    config.optional_tensors();
    assert!(!config.end_tokens().is_empty());
    let again = scratch::folder().join("again");
    std::fs::create_dir_all(&again)?;
    config.save(&again)?;
    let saved = load_config(&again).expect("what was written can be read");
    assert_eq!(saved.parameters(), config.parameters());
    Tokenizer::of_checkpoint(&folder, &*config)?;
    Ok(())
}
