//! Dropout whose masks are drawn together for a whole pass.

use std::cell::RefCell;

use tch::{Device, Kind, Tensor};

use super::T5;
use super::layers::has_fused_attention;

/// Dropout of one pass over a batch.
///
/// A mask is shared along the length of a sequence, as in T5X: one random number serves a whole column, which
/// on a CPU is the difference between 1 % and 20 % of a training step. All masks are parts of one tensor,
/// since on a GPU a hundred small ones cost more than the numbers in them.
pub struct Dropout {
    rate: f64,
    /// Number of random numbers that are drawn at once.
    elements: i64,
    /// The probability with which a row skips each decoder layer; a layer without one is never skipped.
    skips: Vec<f64>,
    /// The drawn numbers that are in no mask yet.
    unused: RefCell<Option<Tensor>>,
}

impl T5 {
    /// Prepares dropout that zeroes an element with the probability `rate`, in [0,1).
    ///
    /// It is for [`T5::decoder_states`] of a batch and the head inputs of `exits` exits; sources and decoder
    /// inputs are [rows, length].
    pub fn dropout(&self, rate: f64, sources: &Tensor, decoder_inputs: &Tensor, exits: usize) -> Dropout {
        let config = &self.config;
        let (rows, source_length) = sources.size2().expect("two dimensions");
        let target_length = decoder_inputs.size()[1];
        let is_fused = has_fused_attention(self.device(), self.head.kind(), config.d_kv);
        // The fused kernel drops attention weights by itself.
        let weights = |keys: i64| if is_fused { 0 } else { config.num_heads * keys };
        let encoder_layer = 2 * config.d_model + config.d_ff + weights(source_length);
        let decoder_layer =
            3 * config.d_model + config.d_ff + weights(target_length) + weights(source_length);
        // In addition to the layers there are the inputs of encoder and decoder, the encoder's output, and
        // the exits.
        let others = (3 + exits as i64) * config.d_model;
        let columns = config.num_layers * encoder_layer + config.decoder_layers() * decoder_layer + others;
        Dropout { rate, elements: rows * columns, skips: Vec::new(), unused: RefCell::default() }
    }
}

impl Dropout {
    /// Makes no dropout, as in evaluation.
    pub fn off() -> Self {
        Dropout { rate: 0.0, elements: 0, skips: Vec::new(), unused: RefCell::default() }
    }

    /// Lets each row skip decoder layer i, from 0, with the probability `probabilities[i]`, from 0 to 1.
    #[must_use]
    pub fn skipping_layers(self, probabilities: Vec<f64>) -> Self {
        Dropout { skips: probabilities, ..self }
    }

    /// The probability of zeroing an element.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Number of random numbers that were drawn and are in no mask yet.
    pub fn unused(&self) -> i64 {
        self.unused.borrow().as_ref().map_or(0, |numbers| numbers.size()[0])
    }

    /// Applies dropout to x [.., length, features], with one mask for all of the length.
    pub fn apply(&self, x: &Tensor) -> Tensor {
        if self.rate == 0.0 { x.shallow_clone() } else { x * self.mask(x) }
    }

    /// Computes x + h, where h [.., length, features] has one mask for all of the length.
    pub fn add(&self, x: &Tensor, h: &Tensor) -> Tensor {
        if self.rate == 0.0 { x + h } else { x.addcmul(h, &self.mask(h)) }
    }

    /// Draws which rows skip a decoder layer, numbered from 0. These keep their states of `before`, and the
    /// others have theirs of `after`, both [rows, length, d_model].
    ///
    /// Each row draws for itself, as each sample does in LayerSkip (section 4.1; torchtune's `LayerDropout`),
    /// so that one batch trains many depths. There the layer runs for the samples that are left. Here it runs
    /// for all rows, since on a GPU the step would wait for the list of those that are left, and since that
    /// would save little: less than 5 % of the decoder's layers if a tenth of the rows skip the last one.
    pub(super) fn skip(&self, layer: usize, before: &Tensor, after: Tensor) -> Tensor {
        match self.skips.get(layer) {
            Some(&probability) if probability > 0.0 => {
                let options = (Kind::Bool, before.device());
                let skips = Tensor::empty([before.size()[0], 1, 1], options).bernoulli_float_(probability);
                before.where_self(&skips, &after)
            }
            _ => after,
        }
    }

    /// Makes a mask of 0 or 1 / (1 - rate) for each column of x [.., length, features]: [.., 1, features]
    fn mask(&self, x: &Tensor) -> Tensor {
        let mut shape = x.size();
        let length = shape.len() - 2;
        shape[length] = 1;
        let count: i64 = shape.iter().product();
        let mut unused = self.unused.borrow_mut();
        let numbers = match unused.take() {
            Some(numbers) if numbers.size()[0] >= count => numbers,
            _ => self.draw(count.max(self.elements), (x.kind(), x.device())),
        };
        *unused = Some(numbers.narrow(0, count, numbers.size()[0] - count));
        numbers.narrow(0, 0, count).view(shape.as_slice())
    }

    fn draw(&self, count: i64, options: (Kind, Device)) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let keep = 1.0 - self.rate;
        Tensor::empty([count], options).bernoulli_float_(keep).g_div_scalar_(keep)
    }
}

#[cfg(test)]
mod tests {
    use calm_checkpoint::T5Config;

    use super::*;
    use crate::{TeacherForcing, init};

    fn model() -> T5 {
        let config = T5Config {
            d_model: 16,
            d_kv: 8,
            d_ff: 24,
            num_layers: 2,
            num_decoder_layers: Some(3),
            num_heads: 2,
            vocab_size: 50,
            ..T5Config::published("t5-v1_1-small").expect("a published shape")
        };
        T5::new(&config, &init::random_weights(&config, 1)).expect("its own weights")
    }

    #[test]
    fn a_pass_draws_its_numbers_at_once_and_needs_them_all() {
        let model = model();
        for (rows, source, target) in [(1, 1, 1), (3, 5, 2), (2, 4, 9)] {
            let tokens = |length: i64| Tensor::full([rows, length], 7, (Kind::Int64, Device::Cpu));
            let (sources, decoder_inputs) = (tokens(source), tokens(target));
            for exits in [0, 2] {
                let dropout = model.dropout(0.25, &sources, &decoder_inputs, exits);
                let states = model.decoder_states(&TeacherForcing {
                    sources: &sources,
                    source_lengths: &Tensor::full([rows], source, (Kind::Int64, Device::Cpu)),
                    decoder_inputs: &decoder_inputs,
                    dropout: &dropout,
                });
                for state in &states[..exits] {
                    assert!(dropout.unused() > 0);
                    let _ = dropout.apply(state);
                }
                assert_eq!(dropout.unused(), 0, "{rows} rows, {source} to {target} tokens, {exits} exits");
            }
        }
    }

    #[test]
    fn a_mask_covers_whole_columns_and_keeps_the_mean() {
        let dropout = Dropout { rate: 0.25, ..Dropout::off() };
        let ones = Tensor::ones([40, 5, 300], (Kind::Float, Device::Cpu));
        for dropped in [dropout.apply(&ones), dropout.add(&ones, &ones) - 1.0] {
            let values = Vec::<f32>::try_from(dropped.view(-1)).expect("numbers");
            assert!(values.iter().all(|value| *value == 0.0 || (value - 4.0 / 3.0).abs() < 1e-6));
            assert_eq!(dropped.amax([1i64].as_slice(), false), dropped.amin([1i64].as_slice(), false));
            // The bound is five standard deviations of 12,000 independent masks.
            assert!(
                (dropped.mean(Kind::Float).double_value(&[]) - 1.0).abs() < 5.0 * 0.577 / 12_000f64.sqrt()
            );
        }
        assert_eq!(Dropout::off().apply(&ones), ones);
    }
}
