//! ROUGE (Lin 2004) as Google's rouge-score 0.1.2 computes it, with or without Porter stemming.
//!
//! Tokens are the runs of ASCII letters and digits in the lower-cased text, so text in other scripts has
//! none. A text without tokens scores 0, even against itself.

mod lcs;
mod stemmer;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::ngrams::{ReferenceNgrams, Vocabulary, ngram_total};
use crate::python;

/// What ROUGE compares, and how it compares words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RougeOptions {
    /// What to compare.
    pub kind: RougeKind,
    /// Whether to compare the stems of words of more than three letters.
    ///
    /// Stems are those of NLTK's version of Porter's algorithm.
    #[serde(default)]
    pub stem: bool,
}

impl RougeOptions {
    /// Compares whole words.
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
    /// The union of a reference line's longest common subsequences with all lines of the hypothesis.
    ///
    /// There is one for each line of the reference. It is meant for summaries with one sentence in each line.
    Lsum,
}

/// Precision, recall and F-measure, each 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rouge {
    /// Share of the hypothesis that matches.
    pub precision: f64,
    /// Share of the reference that matches.
    pub recall: f64,
    /// Harmonic mean of the two, which is what is reported as ROUGE.
    pub f_measure: f64,
}

/// Computes ROUGE of a text compared with a reference.
pub fn rouge(hypothesis: &str, reference: &str, options: &RougeOptions) -> Rouge {
    RougePair::new(hypothesis, reference, options.stem).score(options.kind)
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

/// Two texts cut into tokens, ready for every kind of ROUGE.
#[derive(Debug, Clone)]
pub struct RougePair {
    hypothesis: Lines,
    reference: Lines,
    /// Bound on the tokens, which are numbers below it.
    vocabulary: usize,
}

/// The tokens of a text, with the places among them where its lines end.
#[derive(Debug, Clone)]
struct Lines {
    tokens: Vec<u32>,
    ends: Vec<usize>,
}

impl RougePair {
    /// Cuts the texts into tokens, or into their stems.
    pub fn new(hypothesis: &str, reference: &str, stem: bool) -> Self {
        let [hypothesis, reference] = [hypothesis, reference].map(|text| Tokens::new(text, stem));
        let mut vocabulary = Vocabulary::with_capacity(hypothesis.ends.len() + reference.ends.len());
        let [hypothesis, reference] = [&hypothesis, &reference]
            .map(|text| Lines { tokens: vocabulary.learn(text.iter()), ends: text.line_ends.clone() });
        Self { hypothesis, reference, vocabulary: vocabulary.len() }
    }

    /// Computes one kind of ROUGE.
    pub fn score(&self, kind: RougeKind) -> Rouge {
        let (hypothesis, reference) = (&self.hypothesis.tokens, &self.reference.tokens);
        let (matched, order) = match kind {
            RougeKind::N(order) => (self.common_ngrams(order.max(1)), order.max(1)),
            // If each text has one line, the union is the subsequence itself.
            RougeKind::Lsum if self.hypothesis.ends.len() > 1 || self.reference.ends.len() > 1 => {
                (self.union_of_subsequences(), 1)
            }
            RougeKind::L | RougeKind::Lsum => (lcs::length(hypothesis, reference, self.vocabulary) as u64, 1),
        };
        Rouge::new(matched, ngram_total(hypothesis.len(), order), ngram_total(reference.len(), order))
    }

    fn common_ngrams(&self, order: usize) -> u64 {
        let mut ngrams = ReferenceNgrams::new(order);
        ngrams.add(&self.reference.tokens);
        ngrams.matches(&self.hypothesis.tokens)[order - 1]
    }

    /// Counts as rouge-score's `_summary_level_lcs` does: a token counts at most as often as each text has
    /// it.
    fn union_of_subsequences(&self) -> u64 {
        let counts = |lines: &Lines| {
            let mut counts = vec![0u32; self.vocabulary];
            lines.tokens.iter().for_each(|&token| counts[token as usize] += 1);
            counts
        };
        let (mut in_hypothesis, mut in_reference) = (counts(&self.hypothesis), counts(&self.reference));
        let mut matched = 0;
        for line in self.reference.iter() {
            let mut is_common = vec![false; line.len()];
            for other in self.hypothesis.iter() {
                lcs::mark(line, other, self.vocabulary, &mut is_common);
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
        matched
    }
}

impl Lines {
    fn iter(&self) -> impl Iterator<Item = &[u32]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.tokens[start..end])
    }
}

/// The tokens of a text, stemmed if asked for, end to end in one string.
struct Tokens {
    text: String,
    /// Where each token ends in the string.
    ends: Vec<usize>,
    /// Where each line ends, in tokens.
    line_ends: Vec<usize>,
}

impl Tokens {
    fn new(text: &str, stem: bool) -> Self {
        let lower = if text.is_ascii() { Cow::from(text) } else { python::to_lowercase(text).into() };
        let mut tokens = Self {
            text: String::with_capacity(text.len()),
            ends: Vec::with_capacity(text.len() / 4),
            line_ends: Vec::new(),
        };
        for line in lower.split('\n') {
            let words = line.split(|c: char| !c.is_ascii_alphanumeric());
            words.filter(|word| !word.is_empty()).for_each(|word| tokens.push(word, stem));
            tokens.line_ends.push(tokens.ends.len());
        }
        tokens
    }

    fn push(&mut self, word: &str, stem: bool) {
        let start = self.text.len();
        self.text.push_str(word);
        self.text[start..].make_ascii_lowercase();
        // rouge-score stems only words of more than three letters (`tokenize.py`).
        if stem && word.len() > 3 {
            let stem = stemmer::stem(&self.text[start..]);
            self.text.replace_range(start.., &stem);
        }
        if self.text.len() > start {
            self.ends.push(self.text.len());
        }
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.text[start..end])
    }
}
