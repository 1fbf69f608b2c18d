//! Attention of single queries.
//!
//! The keys of a head lie with one element of all positions after the other, so that a vector holds the
//! scores of sixteen positions and nothing has to be added up across it. Values lie position after position
//! for the same reason.

use crate::elementwise::softmax;
use crate::linear::Processor;
use crate::simd::{LANES, Simd, with_simd};
use crate::team::{Scratch, bounds};

/// Positions that a cache has room for when it gets its first entry.
const SMALLEST_CAPACITY: usize = 32;

/// Keys and values of one row in one layer.
#[derive(Clone)]
pub(crate) struct KeysValues {
    heads: Heads,
    /// [heads, d_kv, capacity]
    keys: Vec<f32>,
    /// [heads, capacity, d_kv]
    values: Vec<f32>,
    capacity: usize,
}

/// The heads of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) count: usize,
    pub(crate) d_kv: usize,
}

impl Heads {
    /// Width of all heads together.
    pub(crate) fn inner(self) -> usize {
        self.count * self.d_kv
    }
}

/// One query position of one row: all heads look at the first `length` positions of `cache`.
pub(crate) struct Query<'a> {
    /// [heads * d_kv]
    pub(crate) q: &'a [f32],
    pub(crate) cache: &'a KeysValues,
    pub(crate) length: usize,
    /// Added to the scores: for each head `length` numbers.
    pub(crate) bias: Option<Bias<'a>>,
}

/// A row of biases for each head: [heads, width].
#[derive(Clone, Copy)]
pub(crate) struct Bias<'a> {
    pub(crate) table: &'a [f32],
    pub(crate) width: usize,
    /// Where in a row the first position's is.
    pub(crate) start: usize,
}

impl KeysValues {
    /// Makes room for `capacity` positions, in whole vectors.
    pub(crate) fn new(heads: Heads, capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(LANES);
        let size = capacity * heads.inner();
        KeysValues { heads, keys: vec![0.0; size], values: vec![0.0; size], capacity }
    }

    /// Whether nothing was ever written to it.
    pub(crate) fn is_empty(&self) -> bool {
        self.capacity == 0
    }

    /// Writes the key and the value of one position, [heads * d_kv] each, and makes room where there is none.
    pub(crate) fn write(&mut self, position: usize, key: &[f32], value: &[f32]) {
        if position >= self.capacity {
            self.grow(position + 1);
        }
        for (element, of_positions) in key.iter().zip(self.keys.chunks_exact_mut(self.capacity)) {
            of_positions[position] = *element;
        }
        let width = self.heads.d_kv;
        let of_heads = self.values.chunks_exact_mut(self.capacity * width);
        for (value, of_head) in value.chunks_exact(width).zip(of_heads) {
            of_head[position * width..][..width].copy_from_slice(value);
        }
    }

    /// Makes twice the room, so that each entry is moved once on average.
    fn grow(&mut self, least: usize) {
        let larger = KeysValues::new(self.heads, least.max(2 * self.capacity).max(SMALLEST_CAPACITY));
        let smaller = std::mem::replace(self, larger);
        if smaller.is_empty() {
            return;
        }
        // Whatever there is of one head, or of one element of it, moves to the front of its new room.
        let widths =
            [(&smaller.keys, &mut self.keys, 1), (&smaller.values, &mut self.values, self.heads.d_kv)];
        for (from, to, width) in widths {
            let from_rows = from.chunks_exact(smaller.capacity * width);
            for (from, to) in from_rows.zip(to.chunks_exact_mut(self.capacity * width)) {
                to[..from.len()].copy_from_slice(from);
            }
        }
    }
}

/// Computes the contexts of some queries: [queries, heads * d_kv], in place of what was there. T5 does not
/// divide scores by sqrt(d_kv).
pub(crate) fn attend(processor: &Processor, heads: Heads, queries: &[Query<'_>], contexts: &mut Vec<f32>) {
    let units = queries.len() * heads.count;
    contexts.resize(units * heads.d_kv, 0.0);
    let bounds = bounds(units, 1, processor.team.threads());
    let mut parts = Vec::with_capacity(bounds.len());
    let mut rest = contexts.as_mut_slice();
    for pair in bounds.windows(2) {
        let (contexts, after) = rest.split_at_mut((pair[1] - pair[0]) * heads.d_kv);
        parts.push(Part { first_unit: pair[0], contexts });
        rest = after;
    }
    let job = Job { heads, queries };
    processor.team.each(&mut parts, |part, scratch| {
        let job = &job;
        with_simd!(processor.set, run_part(job: &Job<'_>, part: &mut Part<'_>, scratch: &mut Scratch));
    });
}

struct Job<'a> {
    heads: Heads,
    queries: &'a [Query<'a>],
}

/// Some (query, head) pairs.
struct Part<'a> {
    first_unit: usize,
    contexts: &'a mut [f32],
}

#[inline(always)]
fn run_part<S: Simd>(job: &Job<'_>, part: &mut Part<'_>, scratch: &mut Scratch) {
    let d_kv = job.heads.d_kv;
    for (unit, context) in (part.first_unit..).zip(part.contexts.chunks_exact_mut(d_kv)) {
        let (query, head) = (&job.queries[unit / job.heads.count], unit % job.heads.count);
        let KeysValues { keys, values, capacity, .. } = query.cache;
        let q = &query.q[head * d_kv..][..d_kv];
        let scores = &mut scratch.scores;
        scores.resize(query.length.next_multiple_of(LANES), 0.0);
        weighted_sum(q, &keys[head * d_kv * capacity..], *capacity, scores);
        scores.truncate(query.length);
        if let Some(Bias { table, width, start }) = query.bias {
            let bias = &table[head * width + start..][..query.length];
            for (score, bias) in scores.iter_mut().zip(bias) {
                *score += bias;
            }
        }
        softmax(scores);
        weighted_sum(scores, &values[head * capacity * d_kv..], d_kv, context);
    }
}

/// Adds up the first rows of a matrix, which are `stride` apart, each times its weight.
#[inline(always)]
fn weighted_sum(weights: &[f32], matrix: &[f32], stride: usize, sums: &mut [f32]) {
    let mut start = 0;
    while start < sums.len() {
        let (sums, matrix) = (&mut sums[start..], &matrix[start..]);
        start += match sums.len() {
            64.. => weighted_sum_block::<64>(weights, matrix, stride, sums),
            48.. => weighted_sum_block::<48>(weights, matrix, stride, sums),
            32.. => weighted_sum_block::<32>(weights, matrix, stride, sums),
            16.. => weighted_sum_block::<16>(weights, matrix, stride, sums),
            _ => weighted_sum_block::<1>(weights, matrix, stride, sums),
        };
    }
}

/// Adds up `N` columns, whose sums stay in registers. Sums in memory would wait for their own last values in
/// every row, and a single one in a register for the addition before.
#[inline(always)]
fn weighted_sum_block<const N: usize>(
    weights: &[f32],
    matrix: &[f32],
    stride: usize,
    out: &mut [f32],
) -> usize {
    let mut sums = [0.0; N];
    for (weight, row) in weights.iter().zip(matrix.chunks(stride)) {
        let row = &row[..N];
        for i in 0..N {
            sums[i] += weight * row[i];
        }
    }
    out[..N].copy_from_slice(&sums);
    N
}
