//! Text metrics and the losses made of them: strings in, `f64` out, no tensor library.
//!
//! | metric | equal to | module |
//! |---|---|---|
//! | BLEU | sacreBLEU 2.6: 13a tokenizer, exponential smoothing, several references | [`bleu`] |
//! | chrF, chrF++ | sacreBLEU 2.6 | [`chrf`] |
//! | ROUGE-L | Google's rouge-score 0.1.2, without stemming | [`rouge`] |
//! | token-F1, exact match | the official SQuAD 1.1 evaluation | [`squad`] |
//!
//! [`Metric`] scores a corpus as one number between 0 and 100, the way papers report it. [`Loss`] turns a pair of
//! texts into a number between 0 and 1, the way risk control wants it.
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
//! The tools that set the standard are written in Python. Where a result hangs on what Python takes for white space,
//! lower case or a word, this crate does the same as Python 3.11.
//!
//! Corpora are scored in parallel. Counts are added as integers and means in the order of the segments, so results do
//! not depend on the number of threads.

pub mod bleu;
pub mod chrf;
mod corpus;
mod error;
mod loss;
mod metric;
mod names;
mod ngrams;
mod python;
pub mod rouge;
pub mod squad;
pub mod tokenizer;

pub use bleu::{Bleu, corpus_bleu, sentence_bleu};
pub use chrf::{ChrfOptions, corpus_chrf, sentence_chrf};
pub use error::Error;
pub use loss::{Loss, LossKind, token_disagreement};
pub use metric::Metric;
pub use rouge::{Rouge, rouge_l};
pub use squad::{exact_match, token_f1};
