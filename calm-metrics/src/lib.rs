//! Text metrics and the losses made of them: strings in, `f64` out, no tensor library.
//!
//! | metric | equal to | module |
//! |---|---|---|
//! | BLEU | sacreBLEU 2.6: tokenizers 13a, intl, char, none; all smoothing methods; several references | [`bleu`] |
//! | chrF, chrF++ | sacreBLEU 2.6 | [`chrf`] |
//! | TER | sacreBLEU 2.6 | [`ter`] |
//! | ROUGE-1, 2, L, Lsum | Google's rouge-score 0.1.2, with or without stemming | [`mod@rouge`] |
//! | token-F1, exact match | the official SQuAD 1.1 evaluation | [`squad`] |
//! | confidence intervals, paired tests | sacreBLEU 2.6, with the same random numbers | [`significance`] |
//!
//! [`Metric`] scores a corpus as one number between 0 and 100, the way papers report it; [`Scorer`] is a
//! metric with options, and prints its signature. [`Loss`] turns a pair of texts into a number between 0 and
//! 1, the way risk control wants it.
//!
//! ```
//! use calm_metrics::{Loss, Metric};
//!
//! let outputs = ["the cat sat on the mat", "good morning"];
//! let references = [["the cat is on the mat"], ["good evening"]];
//! let bleu = Metric::Bleu.corpus_score(&outputs, &references)?;
//! assert!((0.0..=100.0).contains(&bleu));
//! let losses = Loss::RougeL.of_each(&outputs, &references)?;
//! assert_eq!(losses[1], 0.5);
//! # Ok::<(), calm_metrics::Error>(())
//! ```
//!
//! The tools that set the standard are written in Python. Where a result depends on what Python takes for
//! white space, lower case, a word, punctuation or a symbol, this crate does the same as Python 3.11, with
//! tables written from it.
//!
//! Corpora are scored and resampled in parallel. Sums are taken in the order of the segments, so results do
//! not depend on the number of threads.

pub mod bleu;
mod caveat;
pub mod chrf;
mod corpus;
mod edit_distance;
mod error;
mod loss;
mod metric;
mod ngrams;
mod positions;
mod python;
pub mod rouge;
mod scorer;
mod signature;
pub mod significance;
pub mod squad;
pub mod ter;
pub mod tokenizer;

pub use bleu::{Bleu, BleuOptions, Smoothing, corpus_bleu, sentence_bleu};
pub use caveat::Caveat;
pub use chrf::{ChrfOptions, corpus_chrf, sentence_chrf};
pub use edit_distance::edit_distance;
pub use error::Error;
pub use loss::{Loss, LossKind, token_disagreement};
pub use metric::Metric;
pub use rouge::{Rouge, RougeKind, RougeOptions, RougePair, rouge};
pub use scorer::{Scorer, Statistics};
pub use signature::Resampling;
pub use significance::{Comparison, Interval, PairedTest};
pub use squad::{exact_match, token_f1};
pub use ter::{Ter, TerOptions, corpus_ter, sentence_ter};
pub use tokenizer::Tokenizer;
