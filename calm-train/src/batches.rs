//! Batches of similar lengths, in an order that depends only on the seed and the epoch.

use calm_model::device::pinned;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor};

use crate::tokens::{PairLength, TokenPair};

/// How examples are grouped.
#[derive(Debug, Clone, Copy)]
pub struct BatchConfig {
    /// Largest number of padded source tokens plus padded target tokens of a batch.
    pub batch_tokens: usize,
    /// Seed of the order of the batches.
    pub seed: u64,
}

/// The token tensors of one batch, padded at the end.
pub struct Batch {
    /// The sources: [rows, source length]
    pub sources: Tensor,
    /// Number of tokens of each source: `[rows]`
    pub source_lengths: Tensor,
    /// The targets shifted right by the start token: [rows, target length]
    pub decoder_inputs: Tensor,
    /// Positions of the flattened [rows * target length] that hold a target token.
    pub positions: Tensor,
    /// Target tokens at these positions.
    pub targets: Tensor,
    /// Number of target tokens.
    pub target_tokens: usize,
}

/// The tokens that frame a batch.
#[derive(Debug, Clone, Copy)]
pub struct FrameTokens {
    /// The first input of the decoder.
    pub start: u32,
    /// The token that fills up short rows.
    pub pad: u32,
}

/// Divides the members of an epoch into batches, in training order.
pub fn epoch_batches<T: Copy>(
    mut members: Vec<T>,
    length: impl Fn(T) -> PairLength,
    config: &BatchConfig,
    epoch: u64,
) -> Vec<Vec<T>> {
    let mut random = ChaCha8Rng::seed_from_u64(config.seed);
    random.set_stream(epoch);
    members.shuffle(&mut random);
    // The shuffle decides among examples of equal lengths, so that batches differ between epochs.
    members.sort_by_cached_key(|&member| {
        let PairLength { source, target } = length(member);
        (target, source / 4)
    });
    let mut batches: Vec<Vec<T>> = Vec::new();
    let mut batch: Vec<T> = Vec::new();
    let (mut source, mut target) = (0, 0);
    for member in members {
        let own = length(member);
        let (longest_source, longest_target) = (source.max(own.source), target.max(own.target));
        let padded = (batch.len() + 1) * (longest_source + longest_target);
        if !batch.is_empty() && padded > config.batch_tokens {
            batches.push(std::mem::take(&mut batch));
            (source, target) = (own.source, own.target);
        } else {
            (source, target) = (longest_source, longest_target);
        }
        batch.push(member);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches.shuffle(&mut random);
    batches
}

/// Makes the tensors of a batch, in the processor's memory.
pub fn collate(examples: &[TokenPair], frame: FrameTokens) -> Batch {
    let rows = examples.len();
    let source_length = examples.iter().map(|e| e.source.len()).max().unwrap_or(0);
    let target_length = examples.iter().map(|e| e.target.len()).max().unwrap_or(0);
    let mut sources = vec![i64::from(frame.pad); rows * source_length];
    let mut inputs = vec![i64::from(frame.pad); rows * target_length];
    let lengths: Vec<i64> = examples.iter().map(|example| example.source.len() as i64).collect();
    let (mut positions, mut targets) = (Vec::new(), Vec::new());
    for (row, example) in examples.iter().enumerate() {
        for (i, &token) in example.source.iter().enumerate() {
            sources[row * source_length + i] = i64::from(token);
        }
        let shifted = std::iter::once(&frame.start).chain(&example.target);
        for (i, (&input, &target)) in shifted.zip(&example.target).enumerate() {
            inputs[row * target_length + i] = i64::from(input);
            positions.push((row * target_length + i) as i64);
            targets.push(i64::from(target));
        }
    }
    let matrix = |data: &[i64], columns: usize| Tensor::from_slice(data).view([rows as i64, columns as i64]);
    Batch {
        sources: matrix(&sources, source_length),
        source_lengths: Tensor::from_slice(&lengths),
        decoder_inputs: matrix(&inputs, target_length),
        positions: Tensor::from_slice(&positions),
        target_tokens: targets.len(),
        targets: Tensor::from_slice(&targets),
    }
}

impl Batch {
    /// Copies the batch to memory from which a GPU copies while it computes.
    pub fn pinned(self, device: Device) -> Batch {
        self.map(|tensor| pinned(tensor, device))
    }

    /// Copies the batch to a device. Nothing waits for a copy out of pinned memory.
    pub fn to_device(self, device: Device) -> Batch {
        self.map(|tensor| tensor.to_device_(device, tensor.kind(), true, false))
    }

    fn map(self, f: impl Fn(&Tensor) -> Tensor) -> Batch {
        Batch {
            sources: f(&self.sources),
            source_lengths: f(&self.source_lengths),
            decoder_inputs: f(&self.decoder_inputs),
            positions: f(&self.positions),
            targets: f(&self.targets),
            target_tokens: self.target_tokens,
        }
    }
}
