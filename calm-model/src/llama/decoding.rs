//! A Llama's layers as one decoding runs them.

use tch::Tensor;

use super::Llama;
use crate::decoder::{Attention, Layers};

pub(super) struct Decoding<'a>(pub(super) &'a Llama);

impl Layers for Decoding<'_> {
    fn count(&self) -> usize {
        self.0.layers.len()
    }

    fn attention(&self) -> Attention {
        let config = &self.0.config;
        Attention {
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            scale: (config.head_dim as f64).powf(-0.5),
        }
    }

    fn head(&self) -> &Tensor {
        &self.0.head
    }

    fn exit_head(&self) -> &Tensor {
        &self.0.exit_head
    }

    fn head_input(&self, states: &Tensor) -> Tensor {
        self.0.norm.forward(states)
    }

    fn embed(&self, tokens: &Tensor) -> Tensor {
        Tensor::embedding(&self.0.embed_tokens, tokens, -1, false, false)
    }

    fn project(&self, layer: usize, x: &Tensor) -> Tensor {
        let layer = &self.0.layers[layer - 1];
        layer.input_layernorm.forward(x).linear(&layer.qkv_proj, None::<&Tensor>)
    }

    fn project_kv(&self, layer: usize, x: &Tensor) -> Tensor {
        let layer = &self.0.layers[layer - 1];
        let config = &self.0.config;
        let kv_proj = layer.qkv_proj.narrow(0, config.inner(), 2 * config.kv_inner());
        layer.input_layernorm.forward(x).linear(&kv_proj, None::<&Tensor>)
    }

    fn attended(&self, layer: usize, x: Tensor, context: &Tensor) -> Tensor {
        x + context.linear(&self.0.layers[layer - 1].o_proj, None::<&Tensor>)
    }

    fn feed_forward(&self, layer: usize, x: &Tensor) -> Tensor {
        let layer = &self.0.layers[layer - 1];
        let h = layer.post_attention_layernorm.forward(x).linear(&layer.gate_up_proj, None::<&Tensor>);
        // [entries, 2 * intermediate_size] -> 2 x [entries, intermediate_size]
        let h = h.chunk(2, -1);
        x + (h[0].silu() * &h[1]).linear(&layer.down_proj, None::<&Tensor>)
    }
}
