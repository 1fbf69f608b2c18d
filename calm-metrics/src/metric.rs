use serde::{Deserialize, Serialize};

use crate::{Error, Scorer};
use calm_names::names;

/// A metric as papers report it, with the defaults of its tool.
///
/// Scores go from 0 (worst) to 100 (best), except that [`Ter`](Self::Ter) is 0 at best and may exceed 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Metric {
    /// BLEU, see [`crate::bleu`].
    Bleu,
    /// chrF2, see [`crate::chrf`].
    Chrf,
    /// chrF2++, see [`crate::chrf`].
    ChrfPlusPlus,
    /// Translation edit rate, see [`crate::ter`].
    Ter,
    /// ROUGE-1 F-measure, see [`mod@crate::rouge`].
    Rouge1,
    /// ROUGE-2 F-measure.
    Rouge2,
    /// ROUGE-L F-measure.
    RougeL,
    /// ROUGE-Lsum F-measure.
    RougeLsum,
    /// Token-F1, see [`crate::squad`].
    TokenF1,
    /// Exact match, see [`crate::squad`].
    Exact,
}

names!(Metric, "metric", {
    Bleu => "bleu",
    Chrf => "chrf",
    ChrfPlusPlus => "chrf++",
    Ter => "ter",
    Rouge1 => "rouge-1",
    Rouge2 => "rouge-2",
    RougeL => "rouge-l",
    RougeLsum => "rouge-lsum",
    TokenF1 => "token-f1",
    Exact => "exact",
});

impl Metric {
    /// The name as papers print it, which may differ from the one in configurations.
    pub fn label(self) -> &'static str {
        match self {
            Self::Bleu => "BLEU",
            Self::Chrf => "chrF",
            Self::ChrfPlusPlus => "chrF++",
            Self::Ter => "TER",
            Self::Rouge1 => "ROUGE-1",
            Self::Rouge2 => "ROUGE-2",
            Self::RougeL => "ROUGE-L",
            Self::RougeLsum => "ROUGE-Lsum",
            Self::TokenF1 | Self::Exact => self.name(),
        }
    }

    /// Whether more is better, which is so for all metrics but the edit rate.
    pub fn higher_is_better(self) -> bool {
        self != Self::Ter
    }

    /// Computes the score of a corpus, see [`Scorer::corpus_score`].
    ///
    /// # Errors
    /// Fails if the counts differ, if there are no segments, or if a segment has no reference.
    pub fn corpus_score<H, L, R>(self, hypotheses: &[H], references: &[L]) -> Result<f64, Error>
    where
        H: AsRef<str> + Sync,
        L: AsRef<[R]> + Sync,
        R: AsRef<str>,
    {
        Scorer::from(self).corpus_score(hypotheses, references)
    }

    /// Computes the score of one sentence, see [`Scorer::sentence_score`] and [`Scorer::for_sentences`].
    ///
    /// # Errors
    /// Fails if there is no reference.
    pub fn sentence_score<R: AsRef<str>>(self, hypothesis: &str, references: &[R]) -> Result<f64, Error> {
        Scorer::from(self).for_sentences().sentence_score(hypothesis, references)
    }
}
