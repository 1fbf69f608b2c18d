//! BLEU (Papineni et al. 2002) as sacreBLEU 2.6 computes it by default: 13a tokens, n-grams up to four, the reference
//! length closest to the hypothesis, exponential smoothing.

use serde::{Deserialize, Serialize};

use crate::corpus::map_segments;
use crate::ngrams::{ReferenceNgrams, Vocabulary, ngram_total};
use crate::tokenizer::tokenize_13a;
use crate::{Error, python};

/// Longest n-gram.
pub const MAX_ORDER: usize = 4;

/// A BLEU score and what it is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bleu {
    /// 0 to 100.
    pub score: f64,
    /// Per order from 1: n-grams of the hypotheses that match.
    pub counts: [u64; MAX_ORDER],
    /// Per order from 1: n-grams of the hypotheses.
    pub totals: [u64; MAX_ORDER],
    /// Per order from 1: smoothed precision, 0 to 100; all 0 when nothing matches.
    pub precisions: [f64; MAX_ORDER],
    /// 1, or less for hypotheses shorter than the references.
    pub brevity_penalty: f64,
    /// Tokens in the hypotheses.
    pub sys_len: u64,
    /// Tokens in the references, of several to a segment the one closest in length.
    pub ref_len: u64,
}

/// BLEU of a corpus; `references[i]` are the references of `hypotheses[i]`.
///
/// # Errors
/// When the counts differ, when there are no segments, when a segment has no reference.
pub fn corpus_bleu<H, L, R>(hypotheses: &[H], references: &[L]) -> Result<Bleu, Error>
where
    H: AsRef<str> + Sync,
    L: AsRef<[R]> + Sync,
    R: AsRef<str>,
{
    let segments = map_segments(hypotheses, references, Statistics::of)?;
    Ok(segments.iter().fold(Statistics::default(), Statistics::plus).score(false))
}

/// BLEU of one sentence, over the orders it is long enough for (sacreBLEU's effective order).
///
/// # Errors
/// When there is no reference.
pub fn sentence_bleu<R: AsRef<str>>(hypothesis: &str, references: &[R]) -> Result<Bleu, Error> {
    if references.is_empty() {
        return Err(Error::NoReference { segment: 0 });
    }
    Ok(effective_order_bleu(hypothesis, references))
}

/// [`sentence_bleu`] for callers that have a reference for sure.
pub(crate) fn effective_order_bleu<R: AsRef<str>>(hypothesis: &str, references: &[R]) -> Bleu {
    Statistics::of(hypothesis, references).score(true)
}

/// What BLEU needs to know of a segment; a corpus is the sum of its segments.
#[derive(Default)]
struct Statistics {
    sys_len: u64,
    ref_len: u64,
    counts: [u64; MAX_ORDER],
    totals: [u64; MAX_ORDER],
}

impl Statistics {
    fn of<R: AsRef<str>>(hypothesis: &str, references: &[R]) -> Self {
        let tokenize = |text: &str| tokenize_13a(text.trim_end_matches(python::is_space));
        let hypothesis = tokenize(hypothesis);
        let references: Vec<String> = references.iter().map(|r| tokenize(r.as_ref())).collect();
        let mut vocabulary = Vocabulary::default();
        let mut ngrams = ReferenceNgrams::new(MAX_ORDER);
        let mut lengths = Vec::with_capacity(references.len());
        for reference in &references {
            let words = vocabulary.learn(python::split(reference));
            ngrams.add(&words);
            lengths.push(words.len());
        }
        let words = vocabulary.look_up(python::split(&hypothesis));
        let closest = lengths.into_iter().min_by_key(|&length| (length.abs_diff(words.len()), length));
        let mut counts = [0; MAX_ORDER];
        counts.copy_from_slice(&ngrams.matches(&words));
        Self {
            sys_len: words.len() as u64,
            ref_len: closest.unwrap_or(0) as u64,
            counts,
            totals: std::array::from_fn(|i| ngram_total(words.len(), i + 1)),
        }
    }

    fn plus(self, other: &Self) -> Self {
        Self {
            sys_len: self.sys_len + other.sys_len,
            ref_len: self.ref_len + other.ref_len,
            counts: std::array::from_fn(|i| self.counts[i] + other.counts[i]),
            totals: std::array::from_fn(|i| self.totals[i] + other.totals[i]),
        }
    }

    fn score(self, effective_order: bool) -> Bleu {
        let Self { sys_len, ref_len, counts, totals } = self;
        let brevity_penalty = match sys_len {
            _ if sys_len >= ref_len => 1.0,
            0 => 0.0,
            _ => (1.0 - ref_len as f64 / sys_len as f64).exp(),
        };
        let mut precisions = [0.0; MAX_ORDER];
        let mut score = 0.0;
        if counts.iter().any(|&count| count > 0) {
            // Orders without any n-gram keep the precision 0, and with it the score unless they do not take part.
            let orders = totals.iter().take_while(|&&total| total > 0).count();
            let mut smoothing = 1.0;
            for i in 0..orders {
                precisions[i] = if counts[i] > 0 {
                    100.0 * counts[i] as f64 / totals[i] as f64
                } else {
                    smoothing *= 2.0;
                    100.0 / (smoothing * totals[i] as f64)
                };
            }
            let used = if effective_order { orders } else { MAX_ORDER };
            let mean_log = precisions[..used].iter().map(|p| p.ln()).sum::<f64>() / used as f64;
            // Rounding can lift a perfect score above 100 by the last bit.
            score = (brevity_penalty * mean_log.exp()).min(100.0);
        }
        Bleu { score, counts, totals, precisions, brevity_penalty, sys_len, ref_len }
    }
}
