use serde::{Deserialize, Serialize};

use crate::corpus::{map_segments, sum};
use crate::{
    BleuOptions, ChrfOptions, Error, Metric, RougeKind, RougeOptions, TerOptions, bleu, chrf, exact_match,
    rouge, ter, token_f1,
};

/// A metric with its options. [`Metric`] names the ones with the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "metric", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Scorer {
    /// BLEU, see [`crate::bleu`].
    Bleu(BleuOptions),
    /// chrF or chrF++, see [`crate::chrf`].
    Chrf(ChrfOptions),
    /// Translation edit rate, see [`crate::ter`].
    Ter(TerOptions),
    /// F-measure of ROUGE, see [`mod@crate::rouge`].
    Rouge(RougeOptions),
    /// Token-F1, see [`crate::squad`].
    TokenF1,
    /// Exact match, see [`crate::squad`].
    Exact,
}

impl From<Metric> for Scorer {
    fn from(metric: Metric) -> Self {
        match metric {
            Metric::Bleu => Self::Bleu(BleuOptions::default()),
            Metric::Chrf => Self::Chrf(ChrfOptions::CHRF),
            Metric::ChrfPlusPlus => Self::Chrf(ChrfOptions::PLUS_PLUS),
            Metric::Ter => Self::Ter(TerOptions::default()),
            Metric::Rouge1 => Self::Rouge(RougeOptions::new(RougeKind::N(1))),
            Metric::Rouge2 => Self::Rouge(RougeOptions::new(RougeKind::N(2))),
            Metric::RougeL => Self::Rouge(RougeOptions::new(RougeKind::L)),
            Metric::RougeLsum => Self::Rouge(RougeOptions::new(RougeKind::Lsum)),
            Metric::TokenF1 => Self::TokenF1,
            Metric::Exact => Self::Exact,
        }
    }
}

impl Scorer {
    /// Returns the scorer for single sentences: BLEU with effective order as in sacreBLEU, any other
    /// unchanged.
    pub fn for_sentences(self) -> Self {
        match self {
            Self::Bleu(options) => Self::Bleu(BleuOptions { effective_order: true, ..options }),
            other => other,
        }
    }

    /// Computes the score of a corpus in percent; `references[i]` are the references of `hypotheses[i]`.
    ///
    /// BLEU, chrF and TER add up the counts of all segments; the others take the mean over the segments of
    /// the best score among the references. TER may exceed 100, the others may not.
    ///
    /// # Errors
    /// Fails if the counts differ, if there are no segments, or if a segment has no reference.
    pub fn corpus_score<H, L, R>(&self, hypotheses: &[H], references: &[L]) -> Result<f64, Error>
    where
        H: AsRef<str> + Sync,
        L: AsRef<[R]> + Sync,
        R: AsRef<str>,
    {
        Ok(self.statistics(hypotheses, references)?.score())
    }

    /// Computes the score of one sentence in percent. BLEU pools the references, the others take the best
    /// one.
    ///
    /// # Errors
    /// Fails if there is no reference.
    pub fn sentence_score<R: AsRef<str>>(&self, hypothesis: &str, references: &[R]) -> Result<f64, Error> {
        if references.is_empty() {
            return Err(Error::NoReference { segment: 0 });
        }
        Ok(self.score_of(&self.segment(hypothesis, references)))
    }

    /// Computes the statistics from which the score of the corpus and of any part of it follows.
    ///
    /// # Errors
    /// Fails if the counts differ, if there are no segments, or if a segment has no reference.
    pub fn statistics<H, L, R>(&self, hypotheses: &[H], references: &[L]) -> Result<Statistics, Error>
    where
        H: AsRef<str> + Sync,
        L: AsRef<[R]> + Sync,
        R: AsRef<str>,
    {
        let rows = map_segments(hypotheses, references, |h, rs: &[R]| self.segment(h, rs))?;
        Ok(Statistics { scorer: *self, rows })
    }

    /// Computes the numbers of a segment.
    fn segment<R: AsRef<str>>(&self, hypothesis: &str, references: &[R]) -> Vec<f64> {
        let mean_of = |score: &dyn Fn(&str) -> f64| {
            let best = references.iter().map(|reference| score(reference.as_ref())).fold(0.0, f64::max);
            vec![100.0 * best, 1.0]
        };
        match self {
            Self::Bleu(options) => bleu::statistics(hypothesis, references, options),
            Self::Chrf(options) => chrf::statistics(hypothesis, references, options),
            Self::Ter(options) => ter::statistics(hypothesis, references, options),
            Self::Rouge(options) => mean_of(&|reference| rouge(hypothesis, reference, options).f_measure),
            Self::TokenF1 => mean_of(&|reference| token_f1(hypothesis, reference)),
            Self::Exact => mean_of(&|reference| f64::from(exact_match(hypothesis, reference))),
        }
    }

    /// Computes the score from the sum of some segments' numbers.
    pub(crate) fn score_of(&self, sums: &[f64]) -> f64 {
        match self {
            Self::Bleu(options) => bleu::bleu(sums, options).score,
            Self::Chrf(options) => chrf::f_score(sums, options),
            Self::Ter(_) => ter::ter(sums).score,
            Self::Rouge(_) | Self::TokenF1 | Self::Exact => sums[0] / sums[1],
        }
    }
}

/// A few numbers for each segment of a corpus, made by [`Scorer::statistics`].
///
/// The score of any set of segments follows from the sums of their numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    pub(crate) scorer: Scorer,
    pub(crate) rows: Vec<Vec<f64>>,
}

impl Statistics {
    /// Number of segments, at least 1.
    pub fn segments(&self) -> usize {
        self.rows.len()
    }

    /// The score of the corpus in percent.
    pub fn score(&self) -> f64 {
        self.score_of(0..self.segments())
    }

    /// The score of each segment in percent, see [`Scorer::for_sentences`].
    pub fn segment_scores(&self) -> Vec<f64> {
        let scorer = self.scorer.for_sentences();
        self.rows.iter().map(|row| scorer.score_of(row)).collect()
    }

    /// Computes the score of some segments, which may be repeated.
    pub(crate) fn score_of(&self, segments: impl Iterator<Item = usize>) -> f64 {
        self.scorer.score_of(&sum(segments.map(|segment| self.rows[segment].as_slice())))
    }
}
