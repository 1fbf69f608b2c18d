//! What attention knows of positions: a bias on scores by distance (T5), or queries and keys that are turned
//! (Llama).

use std::sync::Arc;

use calm_checkpoint::{Direction, LlamaConfig, T5Config, bucket};

use crate::attention::Bias;
use crate::simd::LANES;

/// The positions below a length, as a network's attention tells them apart.
pub(crate) enum Positions {
    /// The score of a query and a key depends on their distance.
    Biased(PositionBias),
    /// Queries and keys are turned by their positions, so that a product depends on the distance.
    Turned(Arc<Rotary>),
}

/// What is added to the scores of self-attention, by the distance from the query to the key.
pub(crate) struct PositionBias {
    direction: Direction,
    /// [heads, width], each row with a vector of zeros at its end
    table: Vec<f32>,
    width: usize,
    /// Positions that there are biases for.
    length: usize,
}

/// Rotary position embedding: numbers i and i + head_dim / 2 of a head are the coordinates of a point, which
/// a position turns by an angle.
pub(crate) struct Rotary {
    /// Cosines and sines of the angles of each position: [length, 2, head_dim / 2]
    table: Vec<f32>,
    head_dim: usize,
}

impl Positions {
    /// Number of positions.
    pub(crate) fn length(&self) -> usize {
        match self {
            Positions::Biased(bias) => bias.length,
            Positions::Turned(rotary) => rotary.length(),
        }
    }

    /// Turns the heads of a query or a key, where positions do that.
    #[inline(always)]
    pub(crate) fn turn(&self, position: usize, heads: &mut [f32]) {
        if let Positions::Turned(rotary) = self {
            rotary.turn(position, heads);
        }
    }

    /// How many positions the query at `position` sees, and the biases of their scores.
    pub(crate) fn seen(&self, position: usize) -> (usize, Option<Bias<'_>>) {
        match self {
            Positions::Turned(_) => (position + 1, None),
            Positions::Biased(PositionBias { direction, table, width, length }) => {
                let seen = match direction {
                    Direction::Causal => position + 1,
                    Direction::Bidirectional => *length,
                };
                // The first position is `position` before the query, and distance 0 is in column `length -
                // 1`.
                (seen, Some(Bias { table, width: *width, start: length - 1 - position }))
            }
        }
    }
}

impl PositionBias {
    /// Reads the biases of positions below `length` from a table of learned ones, [buckets, heads].
    pub(crate) fn new(config: &T5Config, direction: Direction, learned: &[f32], length: usize) -> Self {
        let last = length as i64 - 1;
        let farthest = match direction {
            Direction::Causal => 0,
            Direction::Bidirectional => last,
        };
        let buckets: Vec<usize> =
            (-last..=farthest).map(|distance| bucket(config, direction, distance) as usize).collect();
        let heads = config.num_heads as usize;
        // [buckets, heads] -> [heads, distances]
        let of_head = |head| {
            let biases = buckets.iter().map(move |bucket| learned[bucket * heads + head]);
            biases.chain([0.0; LANES])
        };
        let table = (0..heads).flat_map(of_head).collect();
        PositionBias { direction, table, width: buckets.len() + LANES, length }
    }
}

impl Rotary {
    /// Number of positions.
    pub(crate) fn length(&self) -> usize {
        self.table.len() / self.head_dim
    }

    /// Computes the angles of positions below `length`.
    pub(crate) fn new(config: &LlamaConfig, length: usize) -> Self {
        let frequencies = config.inverse_frequencies();
        let angles = |position: usize| frequencies.iter().map(move |frequency| position as f64 * frequency);
        let of_position = |position| {
            let cosines = angles(position).map(f64::cos);
            cosines.chain(angles(position).map(f64::sin)).map(|x| x as f32)
        };
        Rotary { table: (0..length).flat_map(of_position).collect(), head_dim: 2 * frequencies.len() }
    }

    #[inline(always)]
    fn turn(&self, position: usize, heads: &mut [f32]) {
        let (cosines, sines) =
            self.table[position * self.head_dim..][..self.head_dim].split_at(self.head_dim / 2);
        for head in heads.chunks_exact_mut(self.head_dim) {
            let (first, second) = head.split_at_mut(self.head_dim / 2);
            for ((x, y), (cos, sin)) in first.iter_mut().zip(second).zip(cosines.iter().zip(sines)) {
                (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
            }
        }
    }
}
