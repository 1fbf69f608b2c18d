//! Trains the tokenizer of the corpus: a unigram model (Kudo 2018) in the Hugging Face `tokenizer.json`
//! format.

use crate::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::LazyLock;
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::normalizers::{NFKC, Replace, Sequence, Strip, replace::ReplacePattern};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Model, OffsetReferential, OffsetType, PreTokenizer, Tokenizer};
use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper, PreTokenizedString};

/// The special tokens for padding, end of sequence and unknown text; their numbers are their positions.
pub const SPECIAL_TOKENS: [&str; 3] = ["<pad>", "</s>", "<unk>"];
const END: usize = 1;
const UNKNOWN: usize = 2;

/// Trains a unigram tokenizer with exactly `vocab_size` tokens.
///
/// Each text comes with the number of times that it counts.
///
/// The same texts always give the same tokenizer. The trainer passes its input through hash maps and its sums
/// through threads, so it gets sorted words and runs on one thread, and what remains of the order of a hash
/// set is corrected afterwards.
///
/// # Errors
/// There is no text to learn from, or not enough of it for as many tokens.
pub fn train(texts: &[(&str, u32)], vocab_size: u32) -> Result<Tokenizer> {
    let mut words: BTreeMap<String, u32> = BTreeMap::new();
    for (text, count) in texts {
        for word in split(text)? {
            *words.entry(word).or_default() += count;
        }
    }
    let words: Vec<(String, u32)> = words.into_iter().collect();
    if words.is_empty() {
        return Err(Error::Tokenizer("there is no text to learn from".into()));
    }
    let special: Vec<AddedToken> =
        SPECIAL_TOKENS.iter().map(|&token| AddedToken::from(token, true)).collect();
    let trainer = UnigramTrainer::builder()
        .show_progress(false)
        .vocab_size(vocab_size)
        .special_tokens(special.clone())
        .unk_token(Some(SPECIAL_TOKENS[UNKNOWN].to_owned()))
        .build()
        .map_err(|e| Error::Tokenizer(e.into()))?;
    let one_thread =
        rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(|e| Error::Tokenizer(e.into()))?;
    let frequencies = character_frequencies(&words);
    let mut model = Unigram::default();
    one_thread.install(|| trainer.do_train(words, &mut model)).map_err(Error::Tokenizer)?;
    let vocabulary = in_fixed_order(model.iter().cloned().collect(), &frequencies);
    let model = Unigram::from(vocabulary, Some(UNKNOWN), false).map_err(Error::Tokenizer)?;
    if model.get_vocab_size() != vocab_size as usize {
        let message = format!("only {} tokens can be learnt from this text", model.get_vocab_size());
        return Err(Error::Tokenizer(message.into()));
    }

    let mut tokenizer = Tokenizer::new(model);
    let name = SPECIAL_TOKENS[END];
    let end = TemplateProcessing::builder()
        .try_single(format!("$A {name}"))
        .and_then(|builder| builder.try_pair(format!("$A {name} $B {name}")))
        .map_err(|e| Error::Tokenizer(e.into()))?
        .special_tokens(vec![(name, END as u32)])
        .build()
        .map_err(|e| Error::Tokenizer(e.into()))?;
    tokenizer
        .with_normalizer(Some(normalizer().clone()))
        .map_err(Error::Tokenizer)?
        .with_pre_tokenizer(Some(metaspace()))
        .with_decoder(Some(metaspace()))
        .with_post_processor(Some(end));
    tokenizer.add_special_tokens(special).map_err(Error::Tokenizer)?;
    Ok(tokenizer)
}

/// Returns the text as the tokenizer sees it. A text that is its own normal form survives encoding and
/// decoding unchanged.
///
/// # Errors
/// The normaliser cannot be made, which does not depend on the text.
pub fn normalize(text: &str) -> Result<String> {
    let mut normalized = NormalizedString::from(text);
    normalizer().normalize(&mut normalized).map_err(Error::Tokenizer)?;
    Ok(normalized.get().to_owned())
}

/// Writes `tokenizer.json`.
///
/// # Errors
/// The file cannot be written.
pub fn save(tokenizer: &Tokenizer, path: &Path) -> Result<()> {
    let mut json = tokenizer.to_string(true).map_err(Error::Tokenizer)?;
    json.push('\n');
    Ok(calm_files::write(path, json)?)
}

/// Normalises to NFKC, with plain apostrophes in place of typographic ones and single spaces for white space.
fn normalizer() -> &'static NormalizerWrapper {
    static NORMALIZER: LazyLock<NormalizerWrapper> = LazyLock::new(|| {
        let replace = |pattern: &str, content: &str| -> NormalizerWrapper {
            let pattern = ReplacePattern::Regex(pattern.to_owned());
            Replace::new(pattern, content).expect("the patterns are valid").into()
        };
        let steps =
            vec![NFKC.into(), replace("[’ʼ]", "'"), replace(r"\s+", " "), Strip::new(true, true).into()];
        Sequence::new(steps).into()
    });
    &NORMALIZER
}

fn metaspace() -> Metaspace {
    Metaspace::new('▁', PrependScheme::Always, true)
}

/// Splits a text into the words that the tokenizer will see, with `▁` in front.
fn split(text: &str) -> Result<Vec<String>> {
    let mut pre_tokenized = PreTokenizedString::from(normalize(text)?.as_str());
    metaspace().pre_tokenize(&mut pre_tokenized).map_err(Error::Tokenizer)?;
    let pieces = pre_tokenized.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
    Ok(pieces.into_iter().map(|(piece, _, _)| piece.to_owned()).collect())
}

fn character_frequencies(words: &[(String, u32)]) -> HashMap<char, u64> {
    let mut frequencies = HashMap::new();
    for (word, count) in words {
        for character in word.chars() {
            *frequencies.entry(character).or_insert(0) += u64::from(*count);
        }
    }
    frequencies
}

/// Sorts all pieces by score and text, after giving single characters their scores in a fixed order.
///
/// The trainer gives the characters that its pruning lost scores from the least score upwards, 0.0001 apart,
/// in the order of a hash set (`UnigramTrainer::finalize`). Here, among single characters in that range of
/// scores, the more frequent one gets the higher score.
fn in_fixed_order(mut pieces: Vec<(String, f64)>, frequencies: &HashMap<char, u64>) -> Vec<(String, f64)> {
    let mut learnt = pieces.split_off(SPECIAL_TOKENS.len());
    let character = |piece: &str| {
        let mut characters = piece.chars();
        characters.next().filter(|_| characters.next().is_none())
    };
    let least = learnt.iter().map(|(_, score)| *score).fold(f64::INFINITY, f64::min);
    let highest = least + 0.0001 * (frequencies.len() + 1) as f64;
    let (mut single, mut rest): (Vec<_>, Vec<_>) =
        learnt.drain(..).partition(|(piece, score)| *score <= highest && character(piece).is_some());
    let mut scores: Vec<f64> = single.iter().map(|(_, score)| *score).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    let frequency = |piece: &str| character(piece).and_then(|c| frequencies.get(&c)).copied().unwrap_or(0);
    single.sort_by(|(a, _), (b, _)| frequency(b).cmp(&frequency(a)).then_with(|| a.cmp(b)));
    rest.extend(single.into_iter().zip(scores).map(|((piece, _), score)| (piece, score)));
    rest.sort_by(|(a, a_score), (b, b_score)| b_score.total_cmp(a_score).then_with(|| a.cmp(b)));
    pieces.extend(rest);
    pieces
}
