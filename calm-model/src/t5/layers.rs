//! The parts of a block, named as in the checkpoint: `SelfAttention`, `EncDecAttention`, `DenseReluDense`,
//! `layer_norm`. Projections that read the same input are one matrix, since a small libtorch call costs more
//! than its work.

use calm_checkpoint::{FeedForward, T5Config};
use tch::{Device, Kind, Tensor};

use super::dropout::Dropout;
use crate::Error;
use crate::decoder::{ALIGNMENT, merge_heads, split_heads};
use crate::weights::Scope;

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
        Ok(SelfAttention {
            qkv: scope.stacked(&["q.weight", "k.weight", "v.weight"], [inner, d_model])?,
            o: scope.tensor("o.weight", &[d_model, inner])?,
            heads: config.num_heads,
        })
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

    /// Attention of whole sequences: x [batch, length, d_model], bias broadcastable to [batch, heads, length,
    /// length].
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
        Ok(EncDecAttention {
            q: scope.tensor("q.weight", &[inner, d_model])?,
            kv: scope.stacked(&["k.weight", "v.weight"], [inner, d_model])?,
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
/// [batch, heads, queries, keys], its rows aligned as [`aligned`](crate::decoder::aligned) says.
fn attend([q, k, v]: &[Tensor; 3], bias: &Tensor, dropout: &Dropout) -> Tensor {
    let (batch, heads, queries, d_kv) = q.size4().expect("four dimensions");
    if has_fused_attention(q.device(), q.kind(), d_kv) {
        let bias = bias.expand([batch, heads, queries, k.size()[2]], false);
        // The general function would ask cuDNN first on new GPUs, which makes a plan for every shape it has
        // not seen.
        let (context, ..) = Tensor::internal_scaled_dot_product_efficient_attention(
            q,
            k,
            v,
            Some(&bias),
            true,
            dropout.rate(),
            false,
            SCALE,
        );
        return context;
    }
    let weights = (q.matmul(&k.transpose(-1, -2)) + bias).softmax(-1, None::<Kind>);
    dropout.apply(&weights).matmul(v)
}

/// T5 does not divide scores by sqrt(d_kv); its initialisation does.
pub(super) const SCALE: f64 = 1.0;

/// Whether libtorch has a kernel that never stores the attention's weights, with a bias that can be learned.
/// On the CPU it has none; on CUDA not for f64, and not for heads whose rows are no multiple of 16 bytes.
pub(super) fn has_fused_attention(device: Device, kind: Kind, d_kv: i64) -> bool {
    device.is_cuda() && kind != Kind::Double && d_kv % ALIGNMENT == 0
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
            scope.stacked(&["wi_0.weight", "wi_1.weight"], [d_ff, d_model])?
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
