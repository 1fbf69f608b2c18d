//! Products of a few rows with a weight matrix, with what comes before (normalisation) and after (residual, activation) in the same pass.

use calm_checkpoint::FeedForward;
use calm_names::names;
use half::bf16;

use crate::elementwise::{self, RmsNorm};
use crate::panels::{PANEL, Panels, Weight};
use crate::simd::{InstructionSet, LANES, Simd, with_simd};
use crate::team::{Columns, Scratch, Team, bounds};
use crate::weights::Stored;

/// How weights lie in memory. Inputs and sums are f32 throughout; with `Int8` inputs are rounded to 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// As in most published checkpoints.
    F32,
    /// Half the bytes. A checkpoint that is stored in bf16 gives the outputs it has in f32.
    Bf16,
    /// A quarter of the bytes: each output's weights in 255 steps of its largest one.
    Int8,
}

names!(WeightType, "weight type", { F32 => "f32", Bf16 => "bf16", Int8 => "int8" });

/// The threads that share a product and the instructions they use.
pub(crate) struct Processor {
    pub(crate) team: Team,
    pub(crate) set: InstructionSet,
}

/// A weight matrix [outputs, inputs].
pub(crate) struct Linear {
    weights: Weights,
    inputs: usize,
}

enum Weights {
    F32(Panels<f32>),
    Bf16(Panels<bf16>),
    Int8(Int8Panels),
}

/// Weights in 255 steps.
pub(crate) struct Int8Panels {
    pub(crate) panels: Panels<i8>,
    /// Size of a step of each output, filled up to whole panels.
    pub(crate) scales: Vec<f32>,
}

/// Where a product goes.
pub(crate) enum Output<'a> {
    /// [rows, outputs]
    Store(&'a mut [f32]),
    /// Added to what is there: [rows, outputs]
    Add(&'a mut [f32]),
    /// Through the activation; of a matrix made by [`Linear::gated`] if it is gated: [rows, d_ff]
    Activate(FeedForward, &'a mut [f32]),
}

#[derive(Clone, Copy)]
enum Mode {
    Store,
    Add,
    Relu,
    Gate(FeedForward),
}

impl Linear {
    /// The rows of all `matrices` one below the other.
    pub(crate) fn new(matrices: &[Stored], weight_type: WeightType) -> Self {
        let rows: Vec<(usize, usize)> = matrices
            .iter()
            .enumerate()
            .flat_map(|(i, matrix)| (0..matrix.rows()).map(move |row| (i, row)))
            .collect();
        Self::pack(rows.len(), matrices[0].columns(), weight_type, |output, to| {
            let (matrix, row) = rows[output];
            matrices[matrix].read_row(row, to);
        })
    }

    /// `wi_0` and `wi_1` of a gated feed-forward network, panel by panel, so that one thread has both.
    pub(crate) fn gated(gate: &Stored, linear: &Stored, weight_type: WeightType) -> Self {
        let outputs = gate.rows().next_multiple_of(PANEL) * 2;
        Self::pack(outputs, gate.columns(), weight_type, |output, to| {
            let (panel, column) = (output / PANEL, output % PANEL);
            let row = panel / 2 * PANEL + column;
            match [gate, linear][panel % 2] {
                matrix if row < matrix.rows() => matrix.read_row(row, to),
                _ => to.fill(0.0),
            }
        })
    }

    fn pack(
        outputs: usize,
        inputs: usize,
        weight_type: WeightType,
        read_row: impl FnMut(usize, &mut [f32]),
    ) -> Self {
        let weights = match weight_type {
            WeightType::F32 => Weights::F32(pack_floats(outputs, inputs, read_row, |weight| weight)),
            WeightType::Bf16 => Weights::Bf16(pack_floats(outputs, inputs, read_row, bf16::from_f32)),
            WeightType::Int8 => Weights::Int8(Int8Panels::pack(outputs, inputs, read_row)),
        };
        Linear { weights, inputs }
    }

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        match &self.weights {
            Weights::F32(panels) => panels.bytes(),
            Weights::Bf16(panels) => panels.bytes(),
            Weights::Int8(weights) => weights.panels.bytes(),
        }
    }

    /// `input` [rows, inputs], normalised before if asked for, times the matrix.
    pub(crate) fn run(
        &self,
        processor: &Processor,
        norm: Option<&RmsNorm>,
        input: &[f32],
        output: Output<'_>,
    ) {
        let (out, mode) = match output {
            Output::Store(out) => (out, Mode::Store),
            Output::Add(out) => (out, Mode::Add),
            Output::Activate(FeedForward::Relu, out) => (out, Mode::Relu),
            Output::Activate(activation, out) => (out, Mode::Gate(activation)),
        };
        let columns = out.len() / (input.len() / self.inputs);
        let bounds = bounds(columns, PANEL, processor.team.threads());
        let mut parts = Columns::split(out, columns, &bounds);
        let job = Job { linear: self, norm, input, mode };
        processor.team.each(&mut parts, |part, scratch| {
            let job = &job;
            with_simd!(processor.set, run_part(job: &Job<'_>, part: &mut Columns<'_>, scratch: &mut Scratch));
        });
    }
}

struct Job<'a> {
    linear: &'a Linear,
    norm: Option<&'a RmsNorm>,
    input: &'a [f32],
    mode: Mode,
}

#[inline(always)]
fn run_part<S: Simd>(job: &Job<'_>, part: &mut Columns<'_>, scratch: &mut Scratch) {
    let Scratch { normed, quantised, scales, gate, .. } = scratch;
    let input = normalise(job.norm, job.input, normed);
    let width = job.linear.inputs;
    let mut writer = Writer { part, mode: job.mode, gate };
    match &job.linear.weights {
        Weights::F32(panels) => run_floats::<S, _>(panels, input, &mut writer),
        Weights::Bf16(panels) => run_floats::<S, _>(panels, input, &mut writer),
        Weights::Int8(weights) => {
            quantise(input, width, weights.panels.padded_inputs(), quantised, scales);
            weights.panels.product::<S>(
                writer.panels(),
                quantised,
                #[inline(always)]
                |panel, row, sums| {
                    writer.write(panel, row, &weights.scaled(panel, sums, scales[row]));
                },
            );
        }
    }
}

#[inline(always)]
fn run_floats<S: Simd, W: Weight<Input = f32>>(
    panels: &Panels<W>,
    input: &[f32],
    writer: &mut Writer<'_, '_>,
) {
    panels.product::<S>(
        writer.panels(),
        input,
        #[inline(always)]
        |panel, row, sums| writer.write(panel, row, sums),
    );
}

/// Every thread normalises for itself, which takes less than waiting for another one to do it.
#[inline(always)]
pub(crate) fn normalise<'a>(norm: Option<&RmsNorm>, input: &'a [f32], normed: &'a mut Vec<f32>) -> &'a [f32] {
    let Some(norm) = norm else { return input };
    normed.resize(input.len(), 0.0);
    let width = norm.weight.len();
    for (x, to) in input.chunks_exact(width).zip(normed.chunks_exact_mut(width)) {
        norm.apply(x, to);
    }
    normed
}

/// Rounds rows [rows, width] to integers of at most 16 bits, and few enough that no sum of products with 8-bit weights overflows:
/// [rows, padded], each row with its scale.
#[inline(always)]
pub(crate) fn quantise(
    input: &[f32],
    width: usize,
    padded: usize,
    quantised: &mut Vec<i16>,
    scales: &mut Vec<f32>,
) {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding and taking it away rounds
    let largest_integer = (i32::MAX / (127 * padded as i32)).min(i32::from(i16::MAX)) as f32;
    let rows = input.len() / width;
    quantised.clear();
    quantised.resize(rows * padded, 0);
    scales.clear();
    for (x, to) in input.chunks_exact(width).zip(quantised.chunks_exact_mut(padded)) {
        let largest = largest_size(x);
        let scale = if largest > 0.0 { largest / largest_integer } else { 1.0 };
        let factor = 1.0 / scale;
        for (to, &x) in to.iter_mut().zip(x) {
            *to = ((x * factor + ROUND) - ROUND) as i16;
        }
        scales.push(scale);
    }
}

#[inline(always)]
fn largest_size(x: &[f32]) -> f32 {
    let mut largest = [0.0_f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    for chunk in chunks {
        for i in 0..LANES {
            let size = chunk[i].abs();
            largest[i] = if size > largest[i] { size } else { largest[i] };
        }
    }
    largest.into_iter().fold(rest, f32::max)
}

/// Takes a thread's products to where they belong.
struct Writer<'a, 'b> {
    part: &'a mut Columns<'b>,
    mode: Mode,
    /// What `wi_0` gave for one panel, until `wi_1` has: [rows, 32]
    gate: &'a mut Vec<f32>,
}

impl Writer<'_, '_> {
    /// The panels that this thread's columns are made of.
    fn panels(&self) -> std::ops::Range<usize> {
        let (first, end) = (self.part.range.start / PANEL, self.part.range.end.div_ceil(PANEL));
        match self.mode {
            Mode::Gate(_) => 2 * first..2 * end,
            _ => first..end,
        }
    }

    #[inline(always)]
    fn write(&mut self, panel: usize, row: usize, sums: &[f32; PANEL]) {
        let column = match self.mode {
            Mode::Gate(_) => panel / 2 * PANEL,
            _ => panel * PANEL,
        };
        let first = column - self.part.range.start;
        let out = &mut self.part.row(row)[first..];
        let width = out.len().min(PANEL);
        let out = &mut out[..width];
        match self.mode {
            Mode::Store => out.copy_from_slice(&sums[..width]),
            Mode::Add => {
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out += sum;
                }
            }
            Mode::Relu => {
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = sum.max(0.0);
                }
            }
            Mode::Gate(activation) => {
                if self.gate.len() < (row + 1) * PANEL {
                    self.gate.resize((row + 1) * PANEL, 0.0);
                }
                let gate = &mut self.gate[row * PANEL..][..PANEL];
                if panel.is_multiple_of(2) {
                    gate.copy_from_slice(sums);
                } else {
                    elementwise::gate(activation, gate, sums);
                    out.copy_from_slice(&gate[..width]);
                }
            }
        }
    }
}

/// 1 / scale, or 0 for the scale of a row of zeros.
pub(crate) fn inverse(scale: f32) -> f32 {
    if scale > 0.0 { 1.0 / scale } else { 0.0 }
}

fn pack_floats<W: Weight + Default>(
    outputs: usize,
    inputs: usize,
    mut read_row: impl FnMut(usize, &mut [f32]),
    convert: impl Fn(f32) -> W,
) -> Panels<W> {
    let mut row = vec![0.0; inputs];
    Panels::pack(outputs, inputs, |output, input| {
        if input == 0 {
            read_row(output, &mut row);
        }
        convert(row[input])
    })
}

impl Int8Panels {
    /// Weights whose rows `read_row` writes.
    pub(crate) fn pack(outputs: usize, inputs: usize, mut read_row: impl FnMut(usize, &mut [f32])) -> Self {
        let mut row = vec![0.0; inputs];
        let mut scales = vec![0.0; outputs.next_multiple_of(PANEL)];
        let mut factor = 0.0;
        let panels = Panels::pack(outputs, inputs, |output, input| {
            if input == 0 {
                read_row(output, &mut row);
                scales[output] = largest_size(&row) / 127.0;
                factor = inverse(scales[output]);
            }
            (row[input] * factor).round() as i8
        });
        Int8Panels { panels, scales }
    }

    /// Sums of integers as the numbers that they stand for.
    #[inline(always)]
    pub(crate) fn scaled(&self, panel: usize, sums: &[f32; PANEL], input_scale: f32) -> [f32; PANEL] {
        let scales = &self.scales[panel * PANEL..][..PANEL];
        let mut scaled = [0.0; PANEL];
        for i in 0..PANEL {
            scaled[i] = sums[i] * (scales[i] * input_scale);
        }
        scaled
    }
}
