//! The three tasks: the examples that a description gives, before duplicates are removed.

use super::description::Description;
use super::split::hash;
use super::text;
use crate::Row;

pub(super) const TRANSLATION: &str = "translation";
pub(super) const SUMMARISATION: &str = "summarisation";
pub(super) const QUESTION_ANSWERING: &str = "qa";

/// Length of the longest paragraph to translate, in words of either language.
pub(super) const MAX_PARAGRAPH_WORDS: usize = 80;
/// Length of the longest description to summarise or to ask about, in words.
const MAX_DESCRIPTION_WORDS: usize = 200;
/// Largest ratio of the lengths of two texts; a longer or shorter translation belongs to another paragraph.
const MAX_LENGTH_RATIO: f64 = 2.5;
const BLANK: &str = "___";
const MAX_ANSWER_WORDS: usize = 3;

/// The name of a task, with all its examples.
pub(super) struct Candidates {
    pub task: &'static str,
    pub examples: Vec<Candidate>,
}

/// An example and the two texts by which it is compared with others.
pub(super) struct Candidate {
    pub row: Row,
    /// The texts without prefixes. A question's answer is not among them, since it is only a word or two.
    pub texts: [String; 2],
}

pub(super) fn all(descriptions: &[Description], seed: u64) -> Vec<Candidates> {
    let examples = |of: &dyn Fn(&Description) -> Vec<Candidate>| descriptions.iter().flat_map(of).collect();
    vec![
        Candidates { task: TRANSLATION, examples: examples(&translations) },
        Candidates { task: SUMMARISATION, examples: examples(&|d| summary(d).into_iter().collect()) },
        Candidates {
            task: QUESTION_ANSWERING,
            examples: examples(&|d| question(d, seed).into_iter().collect()),
        },
    ]
}

/// Makes examples that translate an English unit into the French one. The synopsis has number 0.
pub(super) fn translations(description: &Description) -> Vec<Candidate> {
    let pairs = description.aligned().unwrap_or_default();
    let candidate = |(number, (english, french))| {
        translation(format!("{}#{number}", description.id()), &description.name.0, english, french)
    };
    pairs.into_iter().enumerate().filter_map(candidate).collect()
}

/// Makes an example of a pair of texts, if it is one to learn from.
pub(super) fn translation(id: String, package: &str, english: &str, french: &str) -> Option<Candidate> {
    let length = |text: &str| text.chars().count() as f64 + 10.0;
    let ratio = length(french) / length(english);
    let usable = english != french
        && text::is_latin(english)
        && text::is_latin(french)
        && text::words(english).max(text::words(french)) <= MAX_PARAGRAPH_WORDS
        && (1.0 / MAX_LENGTH_RATIO..=MAX_LENGTH_RATIO).contains(&ratio);
    usable.then(|| Candidate {
        row: Row {
            id,
            package: package.to_owned(),
            source: format!("translate English to French: {english}"),
            target: french.to_owned(),
        },
        texts: [english.to_owned(), french.to_owned()],
    })
}

/// Whether the long description can be summarised: it is at least twice as long as the synopsis, and not too
/// long.
fn is_summarised(description: &Description) -> bool {
    let (synopsis, long) = (&description.english.synopsis, &description.long);
    let words = text::words(long);
    words <= MAX_DESCRIPTION_WORDS
        && words >= 2 * text::words(synopsis)
        && text::is_latin(synopsis)
        && text::is_latin(long)
}

/// Makes the example that summarises the long description as the synopsis.
fn summary(description: &Description) -> Option<Candidate> {
    let (synopsis, long) = (&description.english.synopsis, &description.long);
    is_summarised(description).then(|| Candidate {
        row: Row {
            id: description.id(),
            package: description.name.0.clone(),
            source: format!("summarize: {long}"),
            target: synopsis.clone(),
        },
        texts: [long.clone(), synopsis.clone()],
    })
}

/// Makes a cloze question (after Hermann et al. 2015): the synopsis with a blank for the words to find.
///
/// The source is that and the long description, the target the missing words.
fn question(description: &Description, seed: u64) -> Option<Candidate> {
    if !is_summarised(description) {
        return None;
    }
    let (synopsis, long) = (&description.english.synopsis, &description.long);
    let answers = answers(synopsis, long);
    let chosen =
        answers.iter().min_by_key(|answer| hash(seed, "blank", &format!("{} {answer}", description.md5)))?;
    let question = synopsis.replacen(chosen, BLANK, 1);
    Some(Candidate {
        row: Row {
            id: description.id(),
            package: description.name.0.clone(),
            source: format!("question: {question} context: {long}"),
            target: (*chosen).to_owned(),
        },
        texts: [long.clone(), question],
    })
}

/// Lists the possible answers: runs of at most [`MAX_ANSWER_WORDS`] words that the question may leave out.
///
/// They occur once in the synopsis, occur in the long description too, and neither start nor end with a
/// function word.
fn answers<'a>(synopsis: &'a str, long: &str) -> Vec<&'a str> {
    let words: Vec<(usize, &str)> = words_with_offsets(synopsis);
    let mut answers = Vec::new();
    for first in 0..words.len() {
        for last in first..words.len().min(first + MAX_ANSWER_WORDS) {
            let (start, (last_start, last_word)) = (words[first].0, words[last]);
            let run = &synopsis[start..last_start + last_word.len()];
            let is_content = |word: &str| {
                word.chars().filter(|c| c.is_alphanumeric()).count() >= 3 && !is_function_word(word)
            };
            let single_spaces = run.split(' ').count() == last - first + 1
                && run.split(' ').zip(&words[first..]).all(|(word, (_, bare))| word == *bare);
            if single_spaces
                && is_content(words[first].1)
                && is_content(last_word)
                && synopsis.matches(run).count() == 1
                && occurs(run, long)
            {
                answers.push(run);
            }
        }
    }
    answers
}

/// Splits a text into words without the punctuation around them, each with the place where it starts.
fn words_with_offsets(text: &str) -> Vec<(usize, &str)> {
    let edge = |c: char| !c.is_alphanumeric();
    text.split(' ')
        .filter_map(|word| {
            let bare = word.trim_matches(edge);
            (!bare.is_empty()).then(|| (bare.as_ptr() as usize - text.as_ptr() as usize, bare))
        })
        .collect()
}

/// Whether `run` occurs in `text` between word boundaries.
fn occurs(run: &str, text: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(run).any(|(start, _)| {
        !text[..start].ends_with(is_word) && !text[start + run.len()..].starts_with(is_word)
    })
}

fn is_function_word(word: &str) -> bool {
    const WORDS: [&str; 32] = [
        "a", "all", "an", "and", "any", "are", "as", "at", "based", "be", "by", "for", "from", "has", "in",
        "into", "is", "it", "its", "not", "of", "on", "or", "that", "the", "this", "to", "used", "using",
        "via", "which", "with",
    ];
    WORDS.contains(&word.to_lowercase().as_str())
}
