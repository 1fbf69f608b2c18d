//! Attention of single queries. The keys of a head lie with one element of all positions after the other, so that a vector holds the
//! scores of sixteen positions and nothing has to be added up across it; values lie position after position for the same reason.

use crate::elementwise::softmax;
use crate::linear::Processor;
use crate::simd::{LANES, Simd, with_simd};
use crate::team::{Scratch, bounds};

/// Positions that a cache has room for when it gets its first entry.
const SMALLEST_CAPACITY: usize = 32;

/// Keys and values of one row in one layer.
#[derive(Clone, Default)]
pub(crate) struct KeysValues {
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
    /// Room for `capacity` positions, in whole vectors.
    pub(crate) fn new(heads: Heads, capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(LANES);
        let size = heads.count * capacity * heads.d_kv;
        KeysValues { keys: vec![0.0; size], values: vec![0.0; size], capacity }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.capacity == 0
    }

    /// Keys and values of one position, one after the other: `kv` [2 * heads * d_kv]. Makes room where there is none.
    pub(crate) fn write(&mut self, heads: Heads, position: usize, kv: &[f32]) {
        if position >= self.capacity {
            self.grow(heads, position + 1);
        }
        let (keys, values) = kv.split_at(heads.count * heads.d_kv);
        for (key, of_positions) in keys.iter().zip(self.keys.chunks_exact_mut(self.capacity)) {
            of_positions[position] = *key;
        }
        let width = heads.d_kv;
        for (value, of_head) in
            values.chunks_exact(width).zip(self.values.chunks_exact_mut(self.capacity * width))
        {
            of_head[position * width..][..width].copy_from_slice(value);
        }
    }

    /// Twice the room, so that each entry is moved once on average.
    fn grow(&mut self, heads: Heads, least: usize) {
        let larger = KeysValues::new(heads, least.max(2 * self.capacity).max(SMALLEST_CAPACITY));
        let smaller = std::mem::replace(self, larger);
        if smaller.is_empty() {
            return;
        }
        // Whatever there is of one head, or of one element of it, moves to the front of its new room.
        let widths = [(&smaller.keys, &mut self.keys, 1), (&smaller.values, &mut self.values, heads.d_kv)];
        for (from, to, width) in widths {
            let from_rows = from.chunks_exact(smaller.capacity * width);
            for (from, to) in from_rows.zip(to.chunks_exact_mut(self.capacity * width)) {
                to[..from.len()].copy_from_slice(from);
            }
        }
    }
}

/// Contexts of some queries: [queries, heads * d_kv]. T5 does not divide by sqrt(d_kv).
pub(crate) fn attend(processor: &Processor, heads: Heads, queries: &[Query<'_>], contexts: &mut [f32]) {
    let units = queries.len() * heads.count;
    let bounds = bounds(units, 1, processor.team.threads());
    let mut parts = Vec::with_capacity(bounds.len());
    let mut rest = contexts;
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
        let KeysValues { keys, values, capacity } = query.cache;
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

/// The first rows of a matrix whose rows are `stride` apart, each times its weight, added up.
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

/// `N` columns, whose sums stay in registers: a sum in memory would wait for its own last value in every row, and a single one in a
/// register for the addition before.
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
