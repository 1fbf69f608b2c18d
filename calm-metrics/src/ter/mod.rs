//! Translation edit rate (Snover et al. 2006) as sacreBLEU 2.6 computes it after tercom (`metrics/ter.py`).

mod edit_distance;
mod shifts;

use serde::{Deserialize, Serialize};

use crate::corpus::{map_segments, sum};
use crate::ngrams::Vocabulary;
use crate::tokenizer::tokenize_tercom;
use crate::{Error, python};

/// tercom's options, with sacreBLEU's defaults. Without `normalize`, tokens are the words between white
/// space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TerOptions {
    /// Whether to unescape HTML entities and set punctuation apart (sacreBLEU's `normalized`).
    pub normalize: bool,
    /// Whether to remove punctuation (sacreBLEU's `no_punct`).
    pub no_punctuation: bool,
    /// Whether the other two apply to CJK too: each ideograph is a token, full-width punctuation is
    /// punctuation.
    pub asian_support: bool,
    /// Whether to distinguish upper from lower case.
    pub case_sensitive: bool,
}

/// An edit rate and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ter {
    /// Edits per token of the references, in percent: 0 is best, and there is no upper limit.
    ///
    /// It is 100 if the references have no tokens but the hypotheses do.
    pub score: f64,
    /// Number of insertions, deletions, substitutions and shifts of phrases.
    ///
    /// Of several references the one that takes fewest counts.
    pub edits: u64,
    /// Number of tokens in the references; the mean, if a segment has several.
    pub ref_length: f64,
}

/// Computes the edit rate of a corpus; `references[i]` are the references of `hypotheses[i]`.
///
/// # Errors
/// Fails if the counts differ, if there are no segments, or if a segment has no reference.
pub fn corpus_ter<H, L, R>(hypotheses: &[H], references: &[L], options: &TerOptions) -> Result<Ter, Error>
where
    H: AsRef<str> + Sync,
    L: AsRef<[R]> + Sync,
    R: AsRef<str>,
{
    let segments = map_segments(hypotheses, references, |h, rs: &[R]| statistics(h, rs, options))?;
    Ok(ter(&sum(segments.iter().map(Vec::as_slice))))
}

/// Computes the edit rate of one sentence.
///
/// # Errors
/// Fails if there is no reference.
pub fn sentence_ter<R: AsRef<str>>(
    hypothesis: &str,
    references: &[R],
    options: &TerOptions,
) -> Result<Ter, Error> {
    if references.is_empty() {
        return Err(Error::NoReference { segment: 0 });
    }
    Ok(ter(&statistics(hypothesis, references, options)))
}

/// Counts the edits of a segment and the mean length of its references.
///
/// The statistics of a corpus are the sum of those of its segments.
pub(crate) fn statistics<R: AsRef<str>>(
    hypothesis: &str,
    references: &[R],
    options: &TerOptions,
) -> Vec<f64> {
    let hypothesis = tokenize_tercom(hypothesis, options);
    let (mut fewest, mut lengths) = (usize::MAX, 0);
    for reference in references {
        let reference = tokenize_tercom(reference.as_ref(), options);
        let mut vocabulary = Vocabulary::default();
        let hypothesis = vocabulary.learn(python::split(&hypothesis));
        let reference = vocabulary.learn(python::split(&reference));
        fewest = fewest.min(shifts::edits(hypothesis, &reference));
        lengths += reference.len();
    }
    vec![fewest as f64, lengths as f64 / references.len() as f64]
}

/// Computes the edit rate from the statistics of a segment or a corpus.
pub(crate) fn ter(statistics: &[f64]) -> Ter {
    let &[edits, ref_length] = statistics else { unreachable!("statistics() makes two numbers") };
    let rate = if ref_length > 0.0 { edits / ref_length } else { f64::from(edits > 0.0) };
    Ter { score: 100.0 * rate, edits: edits as u64, ref_length }
}
