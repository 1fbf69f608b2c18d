//! chrF (Popović 2015) and chrF++ (Popović 2017) as sacreBLEU 2.6 computes them.
//!
//! By default case is kept, white space is removed, and precision and recall are averaged over the orders
//! that both sides are long enough for.

use serde::{Deserialize, Serialize};

use crate::corpus::{map_segments, sum};
use crate::ngrams::{ReferenceNgrams, Vocabulary, ngram_total};
use crate::{Error, python};

/// Value that an order without n-grams counts as in sacreBLEU's smoothing.
const EPSILON: f64 = 1e-16;

/// Which n-grams count, and how recall weighs against precision: sacreBLEU's options of the same names.
///
/// The default is chrF2, with characters up to six and no words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChrfOptions {
    /// Length of the longest n-gram of characters.
    pub char_order: usize,
    /// Length of the longest n-gram of words; 0 is chrF, 2 is chrF++.
    pub word_order: usize,
    /// Weight of recall relative to precision.
    pub beta: u32,
    /// Whether to ignore case.
    pub lowercase: bool,
    /// Whether white space counts as characters.
    pub whitespace: bool,
    /// Whether to average the F-scores of all orders as `chrF++.py` does.
    ///
    /// An order without n-grams then counts as almost nothing, instead of being left out.
    pub eps_smoothing: bool,
}

impl ChrfOptions {
    /// The options of chrF2.
    pub const CHRF: Self = Self {
        char_order: 6,
        word_order: 0,
        beta: 2,
        lowercase: false,
        whitespace: false,
        eps_smoothing: false,
    };
    /// The options of chrF2++, which also counts words and pairs of words.
    pub const PLUS_PLUS: Self = Self { word_order: 2, ..Self::CHRF };
}

impl Default for ChrfOptions {
    fn default() -> Self {
        Self::CHRF
    }
}

/// Scores a corpus by chrF, 0 to 100.
///
/// `references[i]` are the references of `hypotheses[i]`, of which the best counts.
///
/// # Errors
/// Fails if the counts differ, if there are no segments, or if a segment has no reference.
pub fn corpus_chrf<H, L, R>(hypotheses: &[H], references: &[L], options: &ChrfOptions) -> Result<f64, Error>
where
    H: AsRef<str> + Sync,
    L: AsRef<[R]> + Sync,
    R: AsRef<str>,
{
    let segments = map_segments(hypotheses, references, |h, rs: &[R]| statistics(h, rs, options))?;
    Ok(f_score(&sum(segments.iter().map(Vec::as_slice)), options))
}

/// Scores one sentence by chrF, 0 to 100.
pub fn sentence_chrf(hypothesis: &str, reference: &str, options: &ChrfOptions) -> f64 {
    f_score(&statistics(hypothesis, &[reference], options), options)
}

/// Computes three numbers for each order of characters, then of words.
///
/// They are the n-grams of the hypothesis, the n-grams of the reference, and the matches. The reference is
/// the one with the best score.
pub(crate) fn statistics<R: AsRef<str>>(
    hypothesis: &str,
    references: &[R],
    options: &ChrfOptions,
) -> Vec<f64> {
    let hypothesis = python::lowered(hypothesis, options.lowercase);
    let rows = references.iter().map(|reference| {
        let reference = python::lowered(reference.as_ref(), options.lowercase);
        pair_statistics(&hypothesis, &reference, options)
    });
    let scored = rows.map(|row| (f_score(&row, options), row));
    let best = scored.reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.map_or_else(Vec::new, |(_, row)| row)
}

fn pair_statistics(hypothesis: &str, reference: &str, options: &ChrfOptions) -> Vec<f64> {
    let characters = |text| characters(text, options.whitespace);
    let mut row = match_orders(&characters(hypothesis), &characters(reference), options.char_order);
    if options.word_order > 0 {
        let mut vocabulary = Vocabulary::default();
        let reference = vocabulary.learn(words(reference));
        let hypothesis = vocabulary.look_up(words(hypothesis));
        row.extend(match_orders(&hypothesis, &reference, options.word_order));
    }
    row
}

fn match_orders(hypothesis: &[u32], reference: &[u32], max_order: usize) -> Vec<f64> {
    let mut ngrams = ReferenceNgrams::new(max_order);
    ngrams.add(reference);
    let of_order = |(i, matched)| {
        let in_reference = ngram_total(reference.len(), i + 1);
        // sacreBLEU does not count the n-grams of a hypothesis whose reference is too short to have any.
        let in_hypothesis = if in_reference == 0 { 0 } else { ngram_total(hypothesis.len(), i + 1) };
        [in_hypothesis as f64, in_reference as f64, matched as f64]
    };
    ngrams.matches(hypothesis).into_iter().enumerate().flat_map(of_order).collect()
}

fn characters(text: &str, whitespace: bool) -> Vec<u32> {
    text.chars().filter(|&c| whitespace || !python::is_space(c)).map(u32::from).collect()
}

/// Splits a text into words with one ASCII punctuation character split off: the last one, else the first one.
fn words(text: &str) -> impl Iterator<Item = &str> {
    python::split(text).flat_map(|word| {
        let mut inner = word.chars();
        let (first, last) = (inner.next(), inner.next_back());
        let is_punctuation = |c: Option<char>| c.is_some_and(|c| c.is_ascii_punctuation());
        let (head, tail) = if last.is_none() {
            ("", word)
        } else if is_punctuation(last) {
            word.split_at(word.len() - 1)
        } else if is_punctuation(first) {
            word.split_at(1)
        } else {
            ("", word)
        };
        [head, tail].into_iter().filter(|part| !part.is_empty())
    })
}

/// Computes chrF from the statistics of a segment or a corpus.
pub(crate) fn f_score(statistics: &[f64], options: &ChrfOptions) -> f64 {
    let factor = f64::from(options.beta) * f64::from(options.beta);
    let f_beta = |precision: f64, recall: f64| {
        let denominator = factor * precision + recall;
        if denominator > 0.0 { (1.0 + factor) * precision * recall / denominator } else { 0.0 }
    };
    let (mut precision, mut recall, mut effective_order) = (0.0, 0.0, 0u32);
    let mut smoothed = 0.0;
    let orders = statistics.chunks_exact(3);
    let number = orders.len().max(1) as f64;
    for order in orders {
        let [in_hypothesis, in_reference, matched] = [order[0], order[1], order[2]];
        let share = |of: f64| if of > 0.0 { matched / of } else { EPSILON };
        smoothed += f_beta(share(in_hypothesis), share(in_reference)).max(EPSILON);
        if in_hypothesis > 0.0 && in_reference > 0.0 {
            precision += share(in_hypothesis);
            recall += share(in_reference);
            effective_order += 1;
        }
    }
    if options.eps_smoothing {
        return 100.0 * smoothed / number;
    }
    let effective_order = f64::from(effective_order.max(1));
    100.0 * f_beta(precision / effective_order, recall / effective_order)
}
