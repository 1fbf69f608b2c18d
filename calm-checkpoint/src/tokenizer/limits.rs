//! What a tokenizer's document may ask for. The crate `tokenizers` does all that it says, until the memory or
//! the stack is full.

use serde_json::Value;

/// Longest entry of a vocabulary in bytes. Entries of a unigram model are paths in a tree, which is dropped
/// one call for each byte: 131,000 of them overflow the stack.
const LONGEST_ENTRY: usize = 4096;

/// Largest number of a token. Vocabularies are written by counting up to it.
const LARGEST_TOKEN: u64 = (1 << 24) - 1;

/// Longest regular expression in bytes. Half a minute is not enough for one of 150,000.
const LONGEST_REGEX: usize = 8 << 10;

/// How many times longer all steps together may make a text, as far as they tell. For published tokenizers
/// that is a few hundred, and what they do is far less.
const MOST_GROWTH: f64 = 16384.0;

/// How many times longer a table of characters is taken to make a text: more than any published one does.
const GROWTH_OF_TABLE: f64 = 200.0;

/// Checks a tokenizer's document.
pub(super) fn check(document: &Value) -> Result<(), String> {
    let Some(model) = document.get("model") else {
        return Err("it is no tokenizer, which has a key `model`".to_owned());
    };
    check_vocabulary(&model["vocab"], &document["added_tokens"])?;
    for (part, doubles) in [("normalizer", true), ("pre_tokenizer", true), ("decoder", false)] {
        let growth = growth(&document[part], doubles)?;
        if growth > MOST_GROWTH {
            return Err(format!(
                "its {part} may make a text {growth} times longer, of at most {MOST_GROWTH}"
            ));
        }
    }
    Ok(())
}

fn check_vocabulary(vocab: &Value, added: &Value) -> Result<(), String> {
    let listed = vocab.as_array().into_iter().flatten().filter_map(|entry| entry.get(0)?.as_str());
    let named = || vocab.as_object().into_iter().flatten();
    let added = || added.as_array().into_iter().flatten();
    let names = named().map(|(name, _)| name.as_str());
    let names = names.chain(listed).chain(added().filter_map(|token| token["content"].as_str()));
    let mut numbers = named().map(|(_, number)| number).chain(added().map(|token| &token["id"]));
    if let Some(entry) = names.into_iter().find(|entry| entry.len() > LONGEST_ENTRY) {
        let start: String = entry.chars().take(20).collect();
        return Err(format!(
            "the entry `{start}...` of its vocabulary has {} bytes, but may have {LONGEST_ENTRY}",
            entry.len()
        ));
    }
    match numbers.find_map(|number| number.as_u64().filter(|&number| number > LARGEST_TOKEN)) {
        Some(number) => Err(format!("it has a token {number}, but numbers go to {LARGEST_TOKEN}")),
        None => Ok(()),
    }
}

/// How many times longer a step, or several one after another, may make a text. `doubles` is whether bytes
/// are written as characters.
fn growth(step: &Value, doubles: bool) -> Result<f64, String> {
    let steps: Vec<&Value> = match step {
        Value::Array(steps) => steps.iter().collect(),
        Value::Object(parts) => parts.values().collect(),
        _ => return Ok(1.0),
    };
    if let Some(regex) = step["Regex"].as_str().filter(|regex| regex.len() > LONGEST_REGEX) {
        let length = regex.len();
        return Err(format!("a regular expression of {length} bytes, which may have {LONGEST_REGEX}"));
    }
    let own = match step["type"].as_str() {
        Some("Replace") => {
            growth_of_replacing(&step["pattern"], step["content"].as_str().unwrap_or_default())
        }
        Some("Precompiled") => GROWTH_OF_TABLE,
        Some("ByteLevel") if doubles => 2.0,
        _ => 1.0,
    };
    steps.into_iter().try_fold(own, |product, step| Ok(product * growth(step, doubles)?))
}

fn growth_of_replacing(pattern: &Value, content: &str) -> f64 {
    let replaced = match (pattern["String"].as_str(), pattern["Regex"].as_str()) {
        (Some(text), _) => text.len(),
        // It may find nothing, and then what is put there is more.
        (_, Some(regex)) if regex.contains(['*', '?', '|', '{', '^', '$', '(', '\\']) => 0,
        _ => 1,
    };
    let length = content.len() as f64;
    if replaced == 0 { 1.0 + length } else { (length / replaced as f64).max(1.0) }
}
