//! Checks, before the first step, of what later stages need: hours of steps are not to end in an error.

use std::path::Path;

use calm_checkpoint::{T5Config, Tokenizer};

use crate::Error;
use crate::config::TrainConfig;
use crate::corpus::{Corpus, Share};
use crate::output::real;

/// Checks that what is written does not lie on top of what is read.
///
/// # Errors
/// Fails if two folders of the configuration are one.
pub(crate) fn check_folders(config: &TrainConfig) -> Result<(), Error> {
    let same = |path: &Path| real(path) == real(&config.output);
    let clash = |key: &'static str| Error::SameFolder { key, path: config.output.clone() };
    if config.init.as_deref().is_some_and(same) {
        return Err(clash("init"));
    }
    if same(&config.checkpoints) { Err(clash("checkpoints")) } else { Ok(()) }
}

/// Checks that the network has what the later stages work on.
///
/// # Errors
/// Fails if the exit classifier is to be trained for a network without early exits, or the shallow exit of
/// the objective is not below the last layer.
pub(crate) fn check_network(config: &TrainConfig, network: &T5Config) -> Result<(), Error> {
    let dir = config.init.as_ref();
    let layers = network.decoder_layers();
    let shallow = config.objective.shallow_deep.as_ref().map(|shallow_deep| shallow_deep.layer);
    if let (Some(dir), Some(shallow)) = (dir, shallow.filter(|&shallow| shallow as i64 >= layers)) {
        let reason = format!(
            "objective.shallow_deep.layer is {shallow}, which is not below the last of its decoder's {layers} layers"
        );
        return Err(Error::Init { dir: dir.clone(), reason });
    }
    match dir.filter(|_| config.classifier.steps > 0 && network.decoder_layers() < 2) {
        Some(dir) => Err(Error::Init {
            dir: dir.clone(),
            reason:
                "its decoder has one layer, hence no early exit for the classifier: set classifier.steps = 0"
                    .to_owned(),
        }),
        None => Ok(()),
    }
}

/// Says how many tokens of the training data the tokenizer does not know, as a line for each task that has
/// some.
pub(crate) fn unknown_tokens(corpus: &Corpus, tokenizer: &Tokenizer) -> Vec<String> {
    let Some(unknown) = tokenizer.unknown_token() else { return Vec::new() };
    let of_task = |(name, [source, target]): (&str, [Share; 2])| {
        (source.count + target.count > 0).then(|| {
            format!(
                "task {name}: {} of {} source tokens and {} of {} target tokens are unknown to the tokenizer",
                source.count, source.all, target.count, target.all
            )
        })
    };
    corpus.shares_of(unknown).into_iter().filter_map(of_task).collect()
}
