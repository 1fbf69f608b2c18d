//! Batches of similar lengths in an order that depends on the seed and the epoch alone.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor};

/// Tokens of one training example, both with their end-of-sequence token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPair {
    /// The encoder's input.
    pub source: Vec<u32>,
    /// What the decoder learns to write.
    pub target: Vec<u32>,
}

/// How examples are grouped.
#[derive(Debug, Clone, Copy)]
pub struct BatchConfig {
    /// Padded source tokens plus padded target tokens of a batch, at most.
    pub batch_tokens: usize,
    /// Seed of the order.
    pub seed: u64,
}

/// Token tensors of one batch, padded at the end.
pub struct Batch {
    /// [rows, source length]
    pub sources: Tensor,
    /// [rows, target length]: the targets shifted right by the start token.
    pub decoder_inputs: Tensor,
    /// Positions of the flattened [rows * target length] that hold a target token.
    pub positions: Tensor,
    /// Target tokens at these positions.
    pub targets: Tensor,
    /// How many these are.
    pub target_tokens: usize,
}

/// Tokens a batch is framed by.
#[derive(Debug, Clone, Copy)]
pub struct FrameTokens {
    /// First decoder input.
    pub start: u32,
    /// Fills up short rows.
    pub pad: u32,
}

/// Example indices of every batch of an epoch, in training order.
pub fn epoch_batches(examples: &[TokenPair], config: &BatchConfig, epoch: u64) -> Vec<Vec<usize>> {
    let mut random = ChaCha8Rng::seed_from_u64(config.seed);
    random.set_stream(epoch);
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.shuffle(&mut random);
    // The shuffle decides among examples of equal lengths, so that batches differ between epochs.
    order.sort_by_key(|&i| (examples[i].target.len(), examples[i].source.len() / 4));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut batch: Vec<usize> = Vec::new();
    let (mut source, mut target) = (0, 0);
    for i in order {
        let (new_source, new_target) =
            (source.max(examples[i].source.len()), target.max(examples[i].target.len()));
        if !batch.is_empty() && (batch.len() + 1) * (new_source + new_target) > config.batch_tokens {
            batches.push(std::mem::take(&mut batch));
            (source, target) = (examples[i].source.len(), examples[i].target.len());
        } else {
            (source, target) = (new_source, new_target);
        }
        batch.push(i);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches.shuffle(&mut random);
    batches
}

/// The tensors of a batch.
pub fn collate(examples: &[&TokenPair], frame: FrameTokens, device: Device) -> Batch {
    let rows = examples.len();
    let source_length = examples.iter().map(|e| e.source.len()).max().unwrap_or(0);
    let target_length = examples.iter().map(|e| e.target.len()).max().unwrap_or(0);
    let mut sources = vec![i64::from(frame.pad); rows * source_length];
    let mut inputs = vec![i64::from(frame.pad); rows * target_length];
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
    let matrix = |data: &[i64], columns: usize| {
        Tensor::from_slice(data).view([rows as i64, columns as i64]).to_device(device)
    };
    Batch {
        sources: matrix(&sources, source_length),
        decoder_inputs: matrix(&inputs, target_length),
        positions: Tensor::from_slice(&positions).to_device(device),
        target_tokens: targets.len(),
        targets: Tensor::from_slice(&targets).to_device(device),
    }
}
