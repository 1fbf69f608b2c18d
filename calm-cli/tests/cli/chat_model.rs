//! A GGUF file of a small Llama of random weights that knows bytes and a chat template.

use std::path::{Path, PathBuf};

use calm_checkpoint::{ChatOptions, Message};
use calm_core::Token;
use calm_engine::engine::load_codec;

use crate::command::reference_checkpoint;

const U32: u32 = 4;
const I32: u32 = 5;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Where a GGUF file has the number of its keys.
const NUM_KEYS: std::ops::Range<usize> = 16..24;
/// Where they begin.
const KEYS: usize = 24;
/// What places in a file are multiples of.
const ALIGNMENT: usize = 32;

/// A template in the manner of ChatML. It takes no message without text.
pub(crate) const TEMPLATE: &str = "{% for message in messages %}{% if not message.content %}\
     {{ raise_exception('a message is empty') }}{% endif %}\
     {{ '<|s|>' + message.role + '\n' + message.content + '<|e|>' }}{% endfor %}\
     {% if add_generation_prompt %}{{ '<|s|>bot\n' }}{% endif %}";

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn pair(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [string(key), kind.to_le_bytes().to_vec(), value.to_vec()].concat()
}

fn array(kind: u32, items: &[Vec<u8>]) -> Vec<u8> {
    [kind.to_le_bytes().to_vec(), (items.len() as u64).to_le_bytes().to_vec(), items.concat()].concat()
}

/// Tokens for most bytes that texts have, as the characters that stand for them in byte-level vocabularies.
fn tokens() -> Vec<String> {
    let of_text = |byte: &u8| !matches!(byte, 0..=9 | 11..=31 | 127 | 0xc0 | 0xc1 | 0xf5..);
    let printable = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..);
    let mut others = 0..;
    let character = |byte: u8| match printable(byte) {
        true => char::from(byte),
        // GPT-2 numbers the bytes that are no printable characters from U+0100 on.
        false => char::from_u32(256 + others.next().unwrap_or(0)).unwrap(),
    };
    let characters: Vec<char> = (0..=255).map(character).collect();
    let bytes = (0..=255_u8).filter(of_text).map(|byte| characters[usize::from(byte)].to_string());
    let mut tokens: Vec<String> = ["<unk>", "<|s|>", "<|e|>"].map(str::to_owned).into_iter().collect();
    tokens.extend(bytes);
    tokens.resize(224, String::new());
    let unnamed = tokens.iter_mut().enumerate().filter(|(_, token)| token.is_empty());
    unnamed.for_each(|(number, token)| *token = format!("<unused{number}>"));
    tokens
}

/// Writes the model into a folder, with a template or without.
pub(crate) fn write(folder: &Path, template: Option<&str>) -> PathBuf {
    let tokens = tokens();
    let types = tokens.iter().map(|token| if token.len() > 2 { 3 } else { 1_i32 });
    let types: Vec<Vec<u8>> = types.map(|kind| kind.to_le_bytes().to_vec()).collect();
    let tokens: Vec<Vec<u8>> = tokens.iter().map(|token| string(token)).collect();
    let mut keys = vec![
        pair("tokenizer.ggml.model", STRING, &string("gpt2")),
        pair("tokenizer.ggml.pre", STRING, &string("smollm")),
        pair("tokenizer.ggml.tokens", ARRAY, &array(STRING, &tokens)),
        pair("tokenizer.ggml.token_type", ARRAY, &array(I32, &types)),
        pair("tokenizer.ggml.merges", ARRAY, &array(STRING, &[])),
        pair("tokenizer.ggml.unknown_token_id", U32, &0_u32.to_le_bytes()),
    ];
    keys.extend(template.map(|text| pair("tokenizer.chat_template", STRING, &string(text))));
    // What comes behind stays where it may be.
    let length: usize =
        keys.iter().map(Vec::len).sum::<usize>() + pair("general.name", STRING, &string("")).len();
    let filling = "x".repeat(length.next_multiple_of(ALIGNMENT) - length);
    keys.push(pair("general.name", STRING, &string(&filling)));

    let mut bytes = std::fs::read(reference_checkpoint("llama_gqa_tied").join("model-F32.gguf")).unwrap();
    let before = u64::from_le_bytes(bytes[NUM_KEYS].try_into().unwrap());
    bytes[NUM_KEYS].copy_from_slice(&(before + keys.len() as u64).to_le_bytes());
    bytes.splice(KEYS..KEYS, keys.concat());
    let path = folder.join("tiny.gguf");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The tokens of a conversation as the library has them.
pub(crate) fn chat_tokens(model: &Path, messages: &[(&str, &str)]) -> Vec<Token> {
    let message = |&(role, text): &(&str, &str)| Message { role: role.into(), content: text.into() };
    let messages: Vec<Message> = messages.iter().map(message).collect();
    let options = ChatOptions { add_generation_prompt: true, now: std::time::UNIX_EPOCH };
    load_codec(model).unwrap().unwrap().encode_chat(&messages, options).unwrap()
}
