//! chrF (Popović 2015) and chrF++ (Popović 2017) as sacreBLEU 2.6 computes them by default: case kept, white space
//! removed, precision and recall averaged over the orders that both sides are long enough for.

use crate::corpus::map_segments;
use crate::ngrams::{ReferenceNgrams, Vocabulary, ngram_total};
use crate::{Error, python};

/// Which n-grams count, and how recall weighs against precision. The default is chrF2: characters up to six, no words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChrfOptions {
    /// Longest n-gram of characters.
    pub char_order: usize,
    /// Longest n-gram of words; 0 is chrF, 2 is chrF++.
    pub word_order: usize,
    /// Recall weighs `beta` times as much as precision.
    pub beta: u32,
}

impl ChrfOptions {
    /// chrF2++: also words and pairs of words.
    pub const PLUS_PLUS: Self = Self { char_order: 6, word_order: 2, beta: 2 };
}

impl Default for ChrfOptions {
    fn default() -> Self {
        Self { char_order: 6, word_order: 0, beta: 2 }
    }
}

/// chrF of a corpus, 0 to 100; `references[i]` are the references of `hypotheses[i]`, of which the best counts.
///
/// # Errors
/// When the counts differ, when there are no segments, when a segment has no reference.
pub fn corpus_chrf<H, L, R>(hypotheses: &[H], references: &[L], options: &ChrfOptions) -> Result<f64, Error>
where
    H: AsRef<str> + Sync,
    L: AsRef<[R]> + Sync,
    R: AsRef<str>,
{
    let segments = map_segments(hypotheses, references, |hypothesis, references: &[R]| {
        let mut best = (f64::NEG_INFINITY, Vec::new());
        for reference in references {
            let orders = statistics(hypothesis, reference.as_ref(), options);
            let score = f_score(&orders, options);
            if score > best.0 {
                best = (score, orders);
            }
        }
        best.1
    })?;
    let mut total = vec![OrderStatistics::default(); options.char_order + options.word_order];
    for orders in &segments {
        for (sum, order) in total.iter_mut().zip(orders) {
            sum.hypothesis += order.hypothesis;
            sum.reference += order.reference;
            sum.matched += order.matched;
        }
    }
    Ok(f_score(&total, options))
}

/// chrF of one sentence, 0 to 100.
pub fn sentence_chrf(hypothesis: &str, reference: &str, options: &ChrfOptions) -> f64 {
    f_score(&statistics(hypothesis, reference, options), options)
}

/// Numbers of n-grams of one order.
#[derive(Clone, Default)]
struct OrderStatistics {
    hypothesis: u64,
    reference: u64,
    matched: u64,
}

/// The orders of characters, then those of words.
fn statistics(hypothesis: &str, reference: &str, options: &ChrfOptions) -> Vec<OrderStatistics> {
    let mut orders = match_orders(&characters(hypothesis), &characters(reference), options.char_order);
    if options.word_order > 0 {
        let mut vocabulary = Vocabulary::default();
        let reference = vocabulary.learn(words(reference));
        let hypothesis = vocabulary.look_up(words(hypothesis));
        orders.extend(match_orders(&hypothesis, &reference, options.word_order));
    }
    orders
}

fn match_orders(hypothesis: &[u32], reference: &[u32], max_order: usize) -> Vec<OrderStatistics> {
    let mut ngrams = ReferenceNgrams::new(max_order);
    ngrams.add(reference);
    let order_statistics = |(i, matched)| {
        let in_reference = ngram_total(reference.len(), i + 1);
        // sacreBLEU does not count the n-grams of a hypothesis whose reference is too short to have any.
        let in_hypothesis = if in_reference == 0 { 0 } else { ngram_total(hypothesis.len(), i + 1) };
        OrderStatistics { hypothesis: in_hypothesis, reference: in_reference, matched }
    };
    ngrams.matches(hypothesis).into_iter().enumerate().map(order_statistics).collect()
}

fn characters(text: &str) -> Vec<u32> {
    text.chars().filter(|&c| !python::is_space(c)).map(u32::from).collect()
}

/// Words with one ASCII punctuation character split off: the last one, else the first one.
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

fn f_score(orders: &[OrderStatistics], options: &ChrfOptions) -> f64 {
    let (mut precision, mut recall, mut effective_order) = (0.0, 0.0, 0u32);
    for order in orders {
        if order.hypothesis > 0 && order.reference > 0 {
            precision += order.matched as f64 / order.hypothesis as f64;
            recall += order.matched as f64 / order.reference as f64;
            effective_order += 1;
        }
    }
    if precision + recall == 0.0 {
        return 0.0;
    }
    precision /= f64::from(effective_order);
    recall /= f64::from(effective_order);
    let factor = f64::from(options.beta) * f64::from(options.beta);
    100.0 * (1.0 + factor) * precision * recall / (factor * precision + recall)
}
