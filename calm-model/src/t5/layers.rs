//! The parts of a block, named as in the checkpoint: `SelfAttention`, `EncDecAttention`, `DenseReluDense`, `layer_norm`.
//! Projections that read the same input are stacked into one matrix, since a small libtorch call costs more than its work.

use calm_checkpoint::{FeedForward, T5Config};
use tch::{Kind, Tensor};

use crate::Error;
use crate::weights::Scope;

/// Root-mean-square normalisation without a mean or a bias (`T5LayerNorm`).
pub(super) struct LayerNorm {
    weight: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    pub(super) fn share(&self) -> Self {
        LayerNorm { weight: self.weight.shallow_clone(), epsilon: self.epsilon }
    }

    pub(super) fn new(scope: &Scope<'_>, config: &T5Config) -> Result<Self, Error> {
        let weight = scope.tensor("weight", &[config.d_model])?;
        Ok(LayerNorm { weight, epsilon: config.layer_norm_epsilon })
    }

    /// [.., d_model] -> [.., d_model]. libtorch computes the variance in f32 whatever the type, as transformers does.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        x.rms_norm(self.weight.size(), Some(&self.weight), Some(self.epsilon))
    }
}

/// Self-attention's projections.
pub(super) struct SelfAttention {
    /// Queries, keys and values stacked: [3 * inner, d_model].
    qkv: Tensor,
    o: Tensor,
    heads: i64,
}

impl SelfAttention {
    pub(super) fn share(&self) -> Self {
        SelfAttention { qkv: self.qkv.shallow_clone(), o: self.o.shallow_clone(), heads: self.heads }
    }

    pub(super) fn new(scope: &Scope<'_>, config: &T5Config) -> Result<Self, Error> {
        let (inner, d_model) = (config.inner(), config.d_model);
        let input = |name| scope.tensor(name, &[inner, d_model]);
        let qkv = Tensor::cat(&[input("q.weight")?, input("k.weight")?, input("v.weight")?], 0);
        Ok(SelfAttention { qkv, o: scope.tensor("o.weight", &[d_model, inner])?, heads: config.num_heads })
    }

    /// Queries, keys and values of `x`: [.., d_model] -> [.., 3 * inner].
    pub(super) fn project(&self, x: &Tensor) -> Tensor {
        x.linear(&self.qkv, None::<&Tensor>)
    }

    /// Keys and values alone, one after the other: [.., d_model] -> [.., 2 * inner].
    pub(super) fn project_kv(&self, x: &Tensor) -> Tensor {
        let inner = self.qkv.size()[0] / 3;
        x.linear(&self.qkv.narrow(0, inner, 2 * inner), None::<&Tensor>)
    }

    pub(super) fn output(&self, context: &Tensor) -> Tensor {
        context.linear(&self.o, None::<&Tensor>)
    }

    /// Attention of whole sequences: x [batch, length, d_model], bias broadcastable to [batch, heads, length, length].
    pub(super) fn forward(&self, x: &Tensor, bias: &Tensor, dropout: &Dropout) -> Tensor {
        let qkv = self.project(x).chunk(3, -1);
        let [q, k, v] = [0, 1, 2].map(|i: usize| split_heads(&qkv[i], self.heads));
        self.output(&merge_heads(&attend(&[q, k, v], bias, dropout)))
    }
}

/// Cross-attention's projections.
pub(super) struct EncDecAttention {
    q: Tensor,
    /// Keys and values stacked: [2 * inner, d_model].
    kv: Tensor,
    o: Tensor,
    heads: i64,
}

impl EncDecAttention {
    pub(super) fn share(&self) -> Self {
        let [q, kv, o] = [&self.q, &self.kv, &self.o].map(Tensor::shallow_clone);
        EncDecAttention { q, kv, o, heads: self.heads }
    }

    pub(super) fn new(scope: &Scope<'_>, config: &T5Config) -> Result<Self, Error> {
        let (inner, d_model) = (config.inner(), config.d_model);
        let input = |name| scope.tensor(name, &[inner, d_model]);
        Ok(EncDecAttention {
            q: input("q.weight")?,
            kv: Tensor::cat(&[input("k.weight")?, input("v.weight")?], 0),
            o: scope.tensor("o.weight", &[d_model, inner])?,
            heads: config.num_heads,
        })
    }

    pub(super) fn project_q(&self, x: &Tensor) -> Tensor {
        x.linear(&self.q, None::<&Tensor>)
    }

    /// Keys and values of the encoder's output, each [batch, heads, source length, d_kv].
    pub(super) fn project_kv(&self, encoded: &Tensor) -> [Tensor; 2] {
        let kv = encoded.linear(&self.kv, None::<&Tensor>).chunk(2, -1);
        [0, 1].map(|i: usize| split_heads(&kv[i], self.heads))
    }

    pub(super) fn output(&self, context: &Tensor) -> Tensor {
        context.linear(&self.o, None::<&Tensor>)
    }

    /// Attention of whole sequences: x [batch, target length, d_model], mask [batch, 1, 1, source length].
    pub(super) fn forward(&self, x: &Tensor, encoded: &Tensor, mask: &Tensor, dropout: &Dropout) -> Tensor {
        let q = split_heads(&self.project_q(x), self.heads);
        let [k, v] = self.project_kv(encoded);
        self.output(&merge_heads(&attend(&[q, k, v], mask, dropout)))
    }
}

/// Attention of whole sequences: queries, keys and values [batch, heads, length, d_kv], bias broadcastable to
/// [batch, heads, queries, keys]. On CUDA libtorch's fused kernel, which never stores the weights; on the CPU it has none whose
/// bias can be learned.
fn attend([q, k, v]: &[Tensor; 3], bias: &Tensor, dropout: &Dropout) -> Tensor {
    // T5 does not divide by sqrt(d_kv); its initialisation does.
    const SCALE: f64 = 1.0;
    if q.device().is_cuda() {
        return Tensor::scaled_dot_product_attention(q, k, v, Some(bias), dropout.rate, false, SCALE, false);
    }
    let weights = (q.matmul(&k.transpose(-1, -2)) + bias).softmax(-1, None::<Kind>);
    dropout.apply(&weights).matmul(v)
}

/// The feed-forward layer, gated or not.
pub(super) struct DenseReluDense {
    /// `wi`, or `wi_0` and `wi_1` stacked.
    wi: Tensor,
    wo: Tensor,
    activation: FeedForward,
}

impl DenseReluDense {
    pub(super) fn share(&self) -> Self {
        let (wi, wo) = (self.wi.shallow_clone(), self.wo.shallow_clone());
        DenseReluDense { wi, wo, activation: self.activation }
    }

    pub(super) fn new(scope: &Scope<'_>, config: &T5Config) -> Result<Self, Error> {
        let (d_ff, d_model) = (config.d_ff, config.d_model);
        let wi = if config.feed_forward_proj.is_gated() {
            let input = |name| scope.tensor(name, &[d_ff, d_model]);
            Tensor::cat(&[input("wi_0.weight")?, input("wi_1.weight")?], 0)
        } else {
            scope.tensor("wi.weight", &[d_ff, d_model])?
        };
        let wo = scope.tensor("wo.weight", &[d_model, d_ff])?;
        Ok(DenseReluDense { wi, wo, activation: config.feed_forward_proj })
    }

    /// [.., d_model] -> [.., d_model]
    pub(super) fn forward(&self, x: &Tensor, dropout: &Dropout) -> Tensor {
        let h = x.linear(&self.wi, None::<&Tensor>);
        let h = match self.activation {
            FeedForward::Relu => h.relu(),
            FeedForward::GatedGelu => {
                let h = h.chunk(2, -1);
                h[0].gelu("tanh") * &h[1]
            }
            FeedForward::GatedSilu => {
                let h = h.chunk(2, -1);
                h[0].silu() * &h[1]
            }
        };
        dropout.apply(&h).linear(&self.wo, None::<&Tensor>)
    }
}

/// Dropout whose mask is shared along the length of a sequence, as T5X does it. It needs one random number for a
/// whole column, which on a CPU is the difference between 1 % and 20 % of a training step.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    /// Probability of zeroing an element; 0 switches dropout off.
    pub rate: f64,
}

impl Dropout {
    /// No dropout, as in evaluation.
    pub const OFF: Dropout = Dropout { rate: 0.0 };

    /// x [.., length, features], with one mask for all of the length.
    pub fn apply(&self, x: &Tensor) -> Tensor {
        if self.rate == 0.0 {
            return x.shallow_clone();
        }
        let mut shape = x.size();
        let length = shape.len() - 2;
        shape[length] = 1;
        let keep = Tensor::rand(&shape, (Kind::Float, x.device())).ge(self.rate);
        x * (keep.to_kind(x.kind()) / (1.0 - self.rate))
    }
}

/// [batch, length, heads * d_kv] -> [batch, heads, length, d_kv]
pub(super) fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    let (batch, length, inner) = x.size3().expect("three dimensions");
    x.view([batch, length, heads, inner / heads]).transpose(1, 2)
}

/// [batch, heads, length, d_kv] -> [batch, length, heads * d_kv]
pub(super) fn merge_heads(x: &Tensor) -> Tensor {
    x.transpose(1, 2).flatten(2, 3)
}
