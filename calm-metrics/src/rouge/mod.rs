//! ROUGE (Lin 2004) as Google's rouge-score 0.1.2 computes it, with or without Porter stemming.
//!
//! Tokens are the runs of ASCII letters and digits in the lower-cased text, so text in other scripts has none. A text without
//! tokens scores 0, even against itself.

mod lcs;
mod stemmer;

use serde::{Deserialize, Serialize};

use crate::ngrams::{ReferenceNgrams, Vocabulary, ngram_total};
use crate::python;

/// What is compared, and how words are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RougeOptions {
    /// What is compared.
    pub kind: RougeKind,
    /// Compare the stems of words of more than three letters, by NLTK's version of Porter's algorithm.
    #[serde(default)]
    pub stem: bool,
}

impl RougeOptions {
    /// Without stemming.
    pub const fn new(kind: RougeKind) -> Self {
        Self { kind, stem: false }
    }
}

/// What ROUGE compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RougeKind {
    /// N-grams of this order, at least 1.
    N(usize),
    /// The longest common subsequence of the texts.
    L,
    /// For each line of the reference, the union of its longest common subsequences with all lines of the hypothesis; for
    /// summaries with a sentence a line.
    Lsum,
}

/// Precision, recall and F-measure, each 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rouge {
    /// Share of the hypothesis that matches.
    pub precision: f64,
    /// Share of the reference that matches.
    pub recall: f64,
    /// Harmonic mean of the two; what is reported as ROUGE.
    pub f_measure: f64,
}

/// ROUGE of one text beside a reference.
pub fn rouge(hypothesis: &str, reference: &str, options: &RougeOptions) -> Rouge {
    match options.kind {
        RougeKind::N(order) => n_grams(hypothesis, reference, order.max(1), options.stem),
        RougeKind::L => subsequence(hypothesis, reference, options.stem),
        RougeKind::Lsum => union_of_subsequences(hypothesis, reference, options.stem),
    }
}

impl Rouge {
    fn new(matched: u64, in_hypothesis: u64, in_reference: u64) -> Self {
        if matched == 0 {
            return Self::default();
        }
        let precision = matched as f64 / in_hypothesis as f64;
        let recall = matched as f64 / in_reference as f64;
        Self { precision, recall, f_measure: 2.0 * precision * recall / (precision + recall) }
    }
}

fn n_grams(hypothesis: &str, reference: &str, order: usize, stem: bool) -> Rouge {
    let (hypothesis, reference) = (Tokens::new(hypothesis, stem), Tokens::new(reference, stem));
    let mut vocabulary = Vocabulary::default();
    let reference = vocabulary.learn(reference.iter());
    let hypothesis = vocabulary.look_up(hypothesis.iter());
    let mut ngrams = ReferenceNgrams::new(order);
    ngrams.add(&reference);
    let matched = ngrams.matches(&hypothesis)[order - 1];
    Rouge::new(matched, ngram_total(hypothesis.len(), order), ngram_total(reference.len(), order))
}

fn subsequence(hypothesis: &str, reference: &str, stem: bool) -> Rouge {
    let (hypothesis, reference) = (Tokens::new(hypothesis, stem), Tokens::new(reference, stem));
    let mut vocabulary = Vocabulary::default();
    let reference = vocabulary.learn(reference.iter());
    let hypothesis = vocabulary.look_up(hypothesis.iter());
    let common = lcs::length(&hypothesis, &reference, vocabulary.len());
    Rouge::new(common as u64, hypothesis.len() as u64, reference.len() as u64)
}

/// rouge-score's `_summary_level_lcs`: a token counts at most as often as each text has it.
fn union_of_subsequences(hypothesis: &str, reference: &str, stem: bool) -> Rouge {
    let lines = |text: &str| text.split('\n').map(|line| Tokens::new(line, stem)).collect::<Vec<_>>();
    let (hypothesis, reference) = (lines(hypothesis), lines(reference));
    let mut vocabulary = Vocabulary::default();
    let reference: Vec<_> = reference.iter().map(|line| vocabulary.learn(line.iter())).collect();
    let hypothesis: Vec<_> = hypothesis.iter().map(|line| vocabulary.learn(line.iter())).collect();
    let counts = |lines: &[Vec<u32>]| {
        let mut counts = vec![0u32; vocabulary.len()];
        lines.iter().flatten().for_each(|&token| counts[token as usize] += 1);
        counts
    };
    let (mut in_hypothesis, mut in_reference) = (counts(&hypothesis), counts(&reference));
    let mut matched = 0;
    for line in &reference {
        let mut is_common = vec![false; line.len()];
        for other in &hypothesis {
            lcs::mark(line, other, vocabulary.len(), &mut is_common);
        }
        for (&token, _) in line.iter().zip(is_common).filter(|(_, is_common)| *is_common) {
            let (left, right) = (&mut in_hypothesis[token as usize], &mut in_reference[token as usize]);
            if *left > 0 && *right > 0 {
                *left -= 1;
                *right -= 1;
                matched += 1;
            }
        }
    }
    let total = |lines: &[Vec<u32>]| lines.iter().map(Vec::len).sum::<usize>() as u64;
    Rouge::new(matched, total(&hypothesis), total(&reference))
}

/// The tokens of a text, perhaps stemmed, end to end in one string.
struct Tokens {
    text: String,
    ends: Vec<usize>,
}

impl Tokens {
    fn new(text: &str, stem: bool) -> Self {
        let mut tokens = Self { text: String::with_capacity(text.len()), ends: Vec::new() };
        let lower = if text.is_ascii() { text.to_ascii_lowercase() } else { python::to_lowercase(text) };
        for word in lower.split(|c: char| !c.is_ascii_alphanumeric()) {
            // rouge-score stems only words of more than three letters (`tokenize.py`).
            if stem && word.len() > 3 {
                tokens.text.push_str(&stemmer::stem(word));
            } else {
                tokens.text.push_str(word);
            }
            if tokens.text.len() > tokens.ends.last().copied().unwrap_or(0) {
                tokens.ends.push(tokens.text.len());
            }
        }
        tokens
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.text[start..end])
    }
}
