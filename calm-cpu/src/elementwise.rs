//! What happens to single vectors between the products. Plain `for` loops, which the compiler turns into
//! vector code where they are inlined into a kernel; what is inside an iterator's closure may stay outside of
//! it, without the kernel's instructions.

use calm_checkpoint::FeedForward;

use crate::simd::{LANES, Simd, sums_of_products};

/// Adding this to an f32 and taking it away rounds the number. In between the integer is in the low bits.
pub(crate) const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23

/// Root-mean-square normalisation without a mean or a bias (`T5LayerNorm`).
#[derive(Clone)]
pub(crate) struct RmsNorm {
    pub(crate) weight: Vec<f32>,
    pub(crate) epsilon: f32,
    /// A factor on the result, 1 but for a head that is tied to the embedding.
    pub(crate) scale: f32,
}

impl RmsNorm {
    /// x [d_model] -> to [d_model]
    #[inline(always)]
    pub(crate) fn apply(&self, x: &[f32], to: &mut [f32]) {
        let mean = dot(x, x) / x.len() as f32;
        let factor = self.scale / (mean + self.epsilon).sqrt();
        for ((to, &x), &weight) in to.iter_mut().zip(x).zip(&self.weight) {
            *to = weight * (x * factor);
        }
    }
}

/// Sum of products, in 16 sums that are added pairwise, as on any processor.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    pairwise_sum(sums) + rest
}

/// The same with numbers that are stored as the bytes of f32 or bf16.
#[inline(always)]
pub(crate) fn dot_stored<S: Simd, const SIZE: usize>(
    a: &[f32],
    b: &[[u8; SIZE]],
    number: impl Fn([u8; SIZE]) -> f32,
) -> f32 {
    let whole = a.len() / LANES * LANES;
    let rest: f32 = a[whole..].iter().zip(&b[whole..]).map(|(a, &b)| a * number(b)).sum();
    pairwise_sum(sums_of_products::<S, SIZE>(a, b)) + rest
}

/// Sum of products with numbers that are multiplied with `factor` and rounded to at most 8 bits, as
/// [`f32::round`] does.
#[inline(always)]
pub(crate) fn dot_rounded<N: Copy>(a: &[i16], b: &[N], factor: f32, number: impl Fn(N) -> f32) -> i32 {
    // `f32::round` is a call for each number. Adding `ROUND` rounds too, but halves to even numbers.
    let rounded = |b: N| {
        let x = number(b) * factor;
        let size = x.abs();
        let even = (size + ROUND) - ROUND;
        let size = if size - even >= 0.5 { even + 1.0 } else { even };
        // The low bits are the integer.
        (size.copysign(x) + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32
    };
    let mut sums = [0; LANES];
    let whole = a.len() / LANES * LANES;
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        let mut integers = [0; LANES];
        for i in 0..LANES {
            integers[i] = rounded(b[i]);
        }
        for i in 0..LANES {
            sums[i] += i32::from(a[i]) * integers[i];
        }
    }
    let rest: i32 = a[whole..].iter().zip(&b[whole..]).map(|(&a, &b)| i32::from(a) * rounded(b)).sum();
    sums.into_iter().sum::<i32>() + rest
}

#[inline(always)]
fn pairwise_sum(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0]
}

/// The largest, minus infinity if there is none.
#[inline(always)]
pub(crate) fn maximum(x: &[f32]) -> f32 {
    let mut largest = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, larger);
    for chunk in chunks {
        for i in 0..LANES {
            largest[i] = larger(largest[i], chunk[i]);
        }
    }
    larger(largest_of(largest), rest)
}

/// The largest lane, found pairwise.
#[inline(always)]
pub(crate) fn largest_of(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = larger(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// `f32::max` takes several instructions, since it knows what to do with what is not a number. Here it is the
/// first if the second is none.
#[inline(always)]
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

#[inline(always)]
pub(crate) fn smaller(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

/// Turns scores into probabilities.
#[inline(always)]
pub(crate) fn softmax(scores: &mut [f32]) {
    let largest = maximum(scores);
    for score in scores.iter_mut() {
        *score = exp(*score - largest);
    }
    let factor = 1.0 / sum(scores);
    for score in scores {
        *score *= factor;
    }
}

/// Sum in 16 parts that are added pairwise.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for i in 0..LANES {
            sums[i] += chunk[i];
        }
    }
    pairwise_sum(sums) + rest
}

/// The activation of a gated feed-forward network: `gate` of `wi_0` times `linear` of `wi_1`, into `gate`.
#[inline(always)]
pub(crate) fn gate(activation: FeedForward, gate: &mut [f32], linear: &[f32]) {
    match activation {
        FeedForward::GatedSilu => {
            for (gate, linear) in gate.iter_mut().zip(linear) {
                *gate = silu(*gate) * linear;
            }
        }
        _ => {
            for (gate, linear) in gate.iter_mut().zip(linear) {
                *gate = gelu(*gate) * linear;
            }
        }
    }
}

/// The tanh approximation of gelu (`gelu_new`).
#[inline(always)]
fn gelu(x: f32) -> f32 {
    // x/2 (1 + tanh u) = x sigmoid(2 u)
    let twice_u = 1.595_769 * (x + 0.044_715 * x * x * x);
    x * sigmoid(twice_u)
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// e^x to 1e-4 of it for x up to 0; e^-87 below -87.
#[inline(always)]
pub(crate) fn exp_roughly(x: f32) -> f32 {
    let exponent = (if x > -87.0 { x } else { -87.0 }) * std::f32::consts::LOG2_E;
    let shifted = exponent + ROUND;
    let r = exponent - (shifted - ROUND);
    // 2^r by the first terms of its series
    let p = 9.618_13e-3 * r + 5.550_411e-2;
    let p = p * r + 2.402_265e-1;
    let p = p * r + std::f32::consts::LN_2;
    let p = p * r + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// e^x to 2e-7 of it, without branches; 0 below -87 and e^88 above 88.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // x = n ln 2 + r with |r| <= ln 2 / 2; the polynomial is Cephes' expf.
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * 0.693_359_4;
    let r = r + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    // The lowest bits of `shifted` are n, which is added to the exponent: p 2^n.
    let power = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x < -87.0 { 0.0 } else { power }
}
