use tch::Tensor;

use crate::Error;
use crate::weights::Scope;

/// Root-mean-square normalisation without a mean or a bias (`T5LayerNorm`, `LlamaRMSNorm`).
pub(crate) struct RmsNorm {
    weight: Tensor,
    epsilon: f64,
}

impl RmsNorm {
    pub(crate) fn new(scope: &Scope<'_>, width: i64, epsilon: f64) -> Result<Self, Error> {
        Ok(RmsNorm { weight: scope.tensor("weight", &[width])?, epsilon })
    }

    pub(crate) fn share(&self) -> Self {
        RmsNorm { weight: self.weight.shallow_clone(), epsilon: self.epsilon }
    }

    /// [.., width] -> [.., width]. libtorch computes the variance in f32 whatever the type, as transformers
    /// does.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_by(&self.weight, x)
    }

    /// The same with other weights [width].
    pub(crate) fn forward_by(&self, weight: &Tensor, x: &Tensor) -> Tensor {
        x.rms_norm(weight.size(), Some(weight), Some(self.epsilon))
    }

    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }
}
