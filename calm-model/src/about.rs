//! What is known of a network beside its layers.

use std::path::{Path, PathBuf};

use calm_checkpoint::{
    CLASSIFIER_BIAS, CLASSIFIER_WEIGHT, NetworkConfig, Tokenizer, folder_of, read_exit_heads, weights_hash,
};
use calm_core::{BackboneShape, ExitClassifier, ExitHeads};
use tch::{Kind, Tensor};

use crate::device::upload;
use crate::{Error, Weights};

/// What is known of a network beside its layers.
#[derive(Clone)]
pub(crate) struct About {
    pub(crate) shape: BackboneShape,
    pub(crate) classifier: Option<ExitClassifier>,
    pub(crate) exit_heads: Option<ExitHeads>,
    /// Empty for a network that was not loaded from files.
    pub(crate) fingerprint: String,
    /// Tensors of the checkpoint that the network has no use for.
    pub(crate) unexpected: Vec<String>,
    pub(crate) folder: Option<PathBuf>,
}

impl About {
    /// What weights say of a network.
    pub(crate) fn new(shape: BackboneShape, weights: &Weights) -> Result<Self, Error> {
        let root = weights.root();
        let weight = root.optional_tensor(CLASSIFIER_WEIGHT, &[shape.d_model as i64])?;
        let bias = root.optional_tensor(CLASSIFIER_BIAS, &[1])?;
        let classifier = match weight.zip(bias) {
            Some((weight, bias)) => Some(ExitClassifier {
                weight: Vec::<f32>::try_from(weight.detach().to_kind(Kind::Float))?,
                bias: bias.detach().f_double_value(&[0])? as f32,
            }),
            None => None,
        };
        Ok(About {
            shape,
            classifier,
            exit_heads: None,
            fingerprint: weights.fingerprint().to_owned(),
            unexpected: weights.unexpected().to_vec(),
            folder: None,
        })
    }

    /// Adds what a checkpoint says beside the weights, and gives the head without the rows that its
    /// tokenizer does not know. A vocabulary padded to a round size has logits that stand for no token and
    /// must never be emitted.
    pub(crate) fn of_checkpoint(
        &mut self,
        path: &Path,
        config: &dyn NetworkConfig,
        head: Tensor,
    ) -> Result<Tensor, Error> {
        self.folder = Some(folder_of(path));
        let Some(tokenizer) = Tokenizer::of_checkpoint(path, config)? else { return Ok(head) };
        let tokens = tokenizer.vocab_size().min(self.shape.vocab_size);
        self.shape.vocab_size = tokens;
        Ok(head.narrow(0, 0, tokens as i64))
    }

    /// Adds the exit heads that belong to a checkpoint, if there are any, and gives the rows of the head that
    /// they end in.
    pub(crate) fn read_exit_heads(&mut self, path: &Path, head: &Tensor) -> Result<Tensor, Error> {
        let shape = &mut self.shape;
        self.exit_heads = read_exit_heads(&folder_of(path), shape, || weights_hash(path))?;
        if let Some(heads) = &self.exit_heads {
            shape.flops.exit_head = heads.flops(shape);
            shape.bytes.exit_head = heads.bytes(shape);
        }
        let known = self.exit_heads.as_ref().and_then(ExitHeads::vocabulary);
        Ok(known.map_or_else(
            || head.shallow_clone(),
            |tokens| {
                let tokens: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
                head.index_select(0, &upload(&tokens, head.device()))
            },
        ))
    }
}
