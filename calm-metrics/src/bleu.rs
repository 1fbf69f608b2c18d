//! BLEU (Papineni et al. 2002) as sacreBLEU 2.6 computes it.
//!
//! It counts n-grams up to four, takes the reference length closest to the hypothesis, and has all of
//! sacreBLEU's smoothing methods and four of its tokenizers.

use serde::{Deserialize, Serialize};

use crate::corpus::{map_segments, sum};
use crate::ngrams::{ReferenceNgrams, Vocabulary, ngram_total};
use crate::tokenizer::Tokenizer;
use crate::{Error, python};

/// Length of the longest n-gram.
pub const MAX_ORDER: usize = 4;

/// Number of statistics that BLEU needs of a segment: two lengths, then the matches and the n-grams of each
/// order.
const STATISTICS: usize = 2 + 2 * MAX_ORDER;

/// sacreBLEU's options of the same names, with its defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BleuOptions {
    /// How a line is cut into tokens.
    pub tokenizer: Tokenizer,
    /// How many matches an order without any counts as.
    pub smoothing: Smoothing,
    /// Whether to leave out the orders that the hypotheses are too short for, instead of scoring 0.
    ///
    /// This is meant for sentences.
    pub effective_order: bool,
    /// Whether to ignore case.
    pub lowercase: bool,
}

impl BleuOptions {
    /// The defaults with effective order, by which sacreBLEU scores single sentences.
    pub const SENTENCE: Self = Self {
        tokenizer: Tokenizer::V13a,
        smoothing: Smoothing::Exp,
        effective_order: true,
        lowercase: false,
    };
}

/// How many matches an order without any counts as (Chen and Cherry 2014).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Smoothing {
    /// The first such order counts as half a match, the second as a quarter, and so on.
    #[default]
    Exp,
    /// Such an order counts as this many matches, 0.1 by convention.
    Floor(f64),
    /// All orders above the first have this many matches and n-grams more, 1 by convention.
    AddK(f64),
    /// Such an order counts as nothing, so that the score is 0.
    None,
}

/// A BLEU score and what it is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bleu {
    /// The score, 0 to 100.
    pub score: f64,
    /// Number of n-grams of the hypotheses that match, for each order from 1.
    pub counts: [u64; MAX_ORDER],
    /// Number of n-grams of the hypotheses, for each order from 1.
    pub totals: [u64; MAX_ORDER],
    /// Smoothed precision, 0 to 100, for each order from 1; all 0 if nothing matches.
    pub precisions: [f64; MAX_ORDER],
    /// Factor that is 1, or less for hypotheses shorter than the references.
    pub brevity_penalty: f64,
    /// Number of tokens in the hypotheses.
    pub sys_len: u64,
    /// Number of tokens in the references.
    ///
    /// Of several references to a segment the one closest in length counts.
    pub ref_len: u64,
}

/// Scores a corpus by BLEU; `references[i]` are the references of `hypotheses[i]`.
///
/// # Errors
/// Fails if the counts differ, if there are no segments, or if a segment has no reference.
pub fn corpus_bleu<H, L, R>(hypotheses: &[H], references: &[L], options: &BleuOptions) -> Result<Bleu, Error>
where
    H: AsRef<str> + Sync,
    L: AsRef<[R]> + Sync,
    R: AsRef<str>,
{
    let segments = map_segments(hypotheses, references, |h, rs: &[R]| statistics(h, rs, options))?;
    Ok(bleu(&sum(segments.iter().map(Vec::as_slice)), options))
}

/// Scores one sentence by BLEU; [`BleuOptions::SENTENCE`] is meant for it.
///
/// # Errors
/// Fails if there is no reference.
pub fn sentence_bleu<R: AsRef<str>>(
    hypothesis: &str,
    references: &[R],
    options: &BleuOptions,
) -> Result<Bleu, Error> {
    if references.is_empty() {
        return Err(Error::NoReference { segment: 0 });
    }
    Ok(bleu(&statistics(hypothesis, references, options), options))
}

/// Computes what BLEU needs to know of a segment.
///
/// The statistics of a corpus are the sum of those of its segments.
pub(crate) fn statistics<R: AsRef<str>>(
    hypothesis: &str,
    references: &[R],
    options: &BleuOptions,
) -> Vec<f64> {
    let lowered = |text| python::lowered(text, options.lowercase);
    let texts: Vec<_> = references.iter().map(|reference| lowered(reference.as_ref())).collect();
    let tokenized: Vec<_> =
        texts.iter().map(|text| options.tokenizer.tokenize(python::trim_end(text))).collect();
    let mut vocabulary = Vocabulary::default();
    let mut ngrams = ReferenceNgrams::new(MAX_ORDER);
    let mut lengths = Vec::with_capacity(tokenized.len());
    for reference in &tokenized {
        let words = vocabulary.learn(Tokenizer::tokens(reference));
        ngrams.add(&words);
        lengths.push(words.len());
    }
    let hypothesis = lowered(hypothesis);
    let words = options.tokenizer.tokenize(python::trim_end(&hypothesis));
    let words = vocabulary.look_up(Tokenizer::tokens(&words));
    let closest = lengths.into_iter().min_by_key(|&length| (length.abs_diff(words.len()), length));
    let mut row = Vec::with_capacity(STATISTICS);
    row.extend([words.len() as f64, closest.unwrap_or(0) as f64]);
    row.extend(ngrams.matches(&words).into_iter().map(|count| count as f64));
    row.extend((1..=MAX_ORDER).map(|order| ngram_total(words.len(), order) as f64));
    row
}

/// Computes BLEU from the statistics of a segment or a corpus.
pub(crate) fn bleu(statistics: &[f64], options: &BleuOptions) -> Bleu {
    let &[sys_len, ref_len, ref orders @ ..] = statistics else {
        unreachable!("statistics() makes {STATISTICS} numbers")
    };
    let (counts, totals) = orders.split_at(MAX_ORDER);
    let brevity_penalty = match sys_len {
        _ if sys_len >= ref_len => 1.0,
        0.0 => 0.0,
        _ => (1.0 - ref_len / sys_len).exp(),
    };
    let mut precisions = [0.0; MAX_ORDER];
    let mut score = 0.0;
    if counts.iter().any(|&count| count > 0.0) {
        let orders = smoothed_precisions(counts, totals, options.smoothing, &mut precisions);
        let used = if options.effective_order { orders } else { MAX_ORDER };
        let mean_log = precisions[..used].iter().map(|p| p.ln()).sum::<f64>() / used as f64;
        // Rounding can lift a perfect score above 100 by the last bit.
        score = (brevity_penalty * mean_log.exp()).min(100.0);
    }
    Bleu {
        score,
        counts: std::array::from_fn(|i| counts[i] as u64),
        totals: std::array::from_fn(|i| totals[i] as u64),
        precisions,
        brevity_penalty,
        sys_len: sys_len as u64,
        ref_len: ref_len as u64,
    }
}

/// Smooths the precisions, and returns how many orders have n-grams.
///
/// The other orders keep the precision 0, and the score is then 0 too unless they are left out.
fn smoothed_precisions(
    counts: &[f64],
    totals: &[f64],
    smoothing: Smoothing,
    precisions: &mut [f64; MAX_ORDER],
) -> usize {
    let mut halved = 1.0;
    for order in 0..MAX_ORDER {
        let added = match smoothing {
            Smoothing::AddK(k) if order > 0 => k,
            _ => 0.0,
        };
        let (count, total) = (counts[order] + added, totals[order] + added);
        if total == 0.0 {
            return order;
        }
        precisions[order] = match smoothing {
            _ if count > 0.0 => 100.0 * count / total,
            Smoothing::Exp => {
                halved *= 2.0;
                100.0 / (halved * total)
            }
            Smoothing::Floor(floor) => 100.0 * floor / total,
            Smoothing::AddK(_) | Smoothing::None => 0.0,
        };
    }
    MAX_ORDER
}
