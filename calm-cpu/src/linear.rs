//! Products of a few rows with a weight matrix, with what comes before them (normalisation) and after them
//! (residual, activation) in the same pass.

use std::ops::Range;
use std::sync::Arc;

use calm_checkpoint::{FeedForward, WeightType};
use half::bf16;

use crate::elementwise::{self, RmsNorm};
use crate::int8::{Int8Panels, halve, quantise};
use crate::panels::{PANEL, Panels, Weight};
use crate::simd::{InstructionSet, Simd, with_simd};
use crate::states::States;
use crate::team::{Columns, Scratch, Team, bounds};
use crate::weights::Stored;

/// The threads that share a product and the instructions they use.
pub(crate) struct Processor {
    pub(crate) team: Team,
    pub(crate) set: InstructionSet,
}

/// A weight matrix [outputs, inputs], or some rows of one.
pub(crate) struct Linear {
    packed: Arc<Packed>,
    /// The first of the panels that are multiplied.
    first_panel: usize,
    inputs: usize,
    /// Columns of what a product gives.
    outputs: usize,
}

/// The panels of a matrix.
enum Packed {
    F32(Panels<f32>),
    Bf16(Panels<bf16>),
    Int8(Int8Panels),
}

/// What a product reads.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    /// Rows one after the other: [rows, inputs]
    Rows(&'a [f32]),
    /// States, each normalised. This copies them into a thread's own memory, wherever they lie.
    Normed(&'a RmsNorm, &'a States<'a>),
}

/// Where a product goes.
pub(crate) enum Output<'a, 'b> {
    /// It replaces what is there, of any length: [rows, outputs]
    Store(&'a mut Vec<f32>),
    /// Like `Store`, through the activation. The matrix was made by [`Linear::gated`] if the activation is
    /// gated.
    Activate(FeedForward, &'a mut Vec<f32>),
    /// It is added to states, as many as there are rows.
    Add(&'a mut States<'b>),
}

#[derive(Clone, Copy)]
enum Mode<'a> {
    Store,
    Relu,
    Gate(FeedForward),
    /// The row of the output that belongs to each row of the input.
    Add(&'a [usize]),
}

impl Linear {
    /// Packs a matrix.
    pub(crate) fn new(matrix: &Stored, weight_type: WeightType) -> Self {
        Self::stacked(std::slice::from_ref(matrix), matrix.rows(), weight_type)
    }

    /// Packs matrices of the same shape one below the other, each filled up to whole panels.
    pub(crate) fn parallel(matrices: &[Stored], weight_type: WeightType) -> Self {
        let outputs = matrices[0].rows().next_multiple_of(PANEL) * matrices.len();
        Self::stacked(matrices, outputs, weight_type)
    }

    /// Packs matrices of the same shape that begin at whole panels, with `outputs` rows in all.
    fn stacked(matrices: &[Stored], outputs: usize, weight_type: WeightType) -> Self {
        let height = matrices[0].rows().next_multiple_of(PANEL);
        Self::pack([outputs, outputs], matrices[0].columns(), weight_type, |output, to| {
            let (matrix, row) = (&matrices[output / height], output % height);
            matrix.read_row_or_zeros(row, to);
        })
    }

    /// Packs `wi_0` and `wi_1` of a gated feed-forward network panel by panel in turns, so that one thread
    /// has both.
    pub(crate) fn gated(gate: &Stored, linear: &Stored, weight_type: WeightType) -> Self {
        let rows = gate.rows().next_multiple_of(PANEL) * 2;
        Self::pack([rows, gate.rows()], gate.columns(), weight_type, |output, to| {
            let (panel, column) = (output / PANEL, output % PANEL);
            [gate, linear][panel % 2].read_row_or_zeros(panel / 2 * PANEL + column, to);
        })
    }

    fn pack(
        [rows, outputs]: [usize; 2],
        inputs: usize,
        weight_type: WeightType,
        read_row: impl FnMut(usize, &mut [f32]),
    ) -> Self {
        let packed = match weight_type {
            WeightType::F32 => Packed::F32(pack_floats(rows, inputs, read_row, |weight| weight)),
            WeightType::Bf16 => Packed::Bf16(pack_floats(rows, inputs, read_row, bf16::from_f32)),
            WeightType::Int8 => Packed::Int8(Int8Panels::pack(rows, inputs, read_row)),
        };
        Linear { packed: Arc::new(packed), first_panel: 0, inputs, outputs }
    }

    /// The same matrix without its first `count` rows, which are whole panels. The weights are shared.
    pub(crate) fn without_first(&self, count: usize) -> Self {
        assert!(count.is_multiple_of(PANEL) && count < self.outputs, "not whole panels");
        Linear {
            packed: Arc::clone(&self.packed),
            first_panel: self.first_panel + count / PANEL,
            inputs: self.inputs,
            outputs: self.outputs - count,
        }
    }

    /// Columns of what a product gives.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes of the weights that a product reads.
    pub(crate) fn bytes(&self) -> usize {
        let (bytes, panels) = match &*self.packed {
            Packed::F32(panels) => (panels.bytes(), panels.len()),
            Packed::Bf16(panels) => (panels.bytes(), panels.len()),
            Packed::Int8(weights) => (weights.panels.bytes(), weights.panels.len()),
        };
        bytes / panels * (panels - self.first_panel)
    }

    /// Multiplies rows with the matrix.
    pub(crate) fn run(&self, processor: &Processor, input: Input<'_>, output: Output<'_, '_>) {
        let rows = match input {
            Input::Rows(rows) => rows.len() / self.inputs,
            Input::Normed(_, states) => states.len(),
        };
        let (out, mode) = match output {
            Output::Store(out) => (self.room(rows, out), Mode::Store),
            Output::Activate(FeedForward::Relu, out) => (self.room(rows, out), Mode::Relu),
            Output::Activate(activation, out) => (self.room(rows, out), Mode::Gate(activation)),
            Output::Add(states) => {
                assert!((states.len(), states.width()) == (rows, self.outputs), "states of another shape");
                let (matrix, slots) = states.parts();
                (matrix, Mode::Add(slots))
            }
        };
        let bounds = bounds(self.outputs, PANEL, processor.team.threads());
        let mut parts = Columns::split(out, self.outputs, &bounds);
        let job = Job { linear: self, input, mode };
        processor.team.each(&mut parts, |part, scratch| {
            let job = &job;
            with_simd!(processor.set, run_part(job: &Job<'_>, part: &mut Columns<'_>, scratch: &mut Scratch));
        });
    }

    /// [rows, outputs]
    fn room<'a>(&self, rows: usize, out: &'a mut Vec<f32>) -> &'a mut [f32] {
        out.resize(rows * self.outputs, 0.0);
        out
    }
}

struct Job<'a> {
    linear: &'a Linear,
    input: Input<'a>,
    mode: Mode<'a>,
}

#[inline(always)]
fn run_part<S: Simd>(job: &Job<'_>, part: &mut Columns<'_>, scratch: &mut Scratch) {
    let Scratch { normed, quantised, narrow, scales, gate, .. } = scratch;
    let Linear { packed, first_panel, inputs, .. } = job.linear;
    let input = match job.input {
        Input::Rows(rows) => rows,
        Input::Normed(norm, states) => normalise(norm, states, normed),
    };
    let mut writer = Writer { part, mode: job.mode, first_panel: *first_panel, gate };
    match &**packed {
        Packed::F32(panels) => run_floats::<S, _>(panels, input, &mut writer),
        Packed::Bf16(panels) => run_floats::<S, _>(panels, input, &mut writer),
        Packed::Int8(weights) => {
            quantise(input, *inputs, quantised, scales);
            halve(quantised, *inputs, weights.panels.stride(), narrow);
            weights.product::<S>(
                writer.panels(),
                narrow,
                scales,
                #[inline(always)]
                |panel, row, sums| writer.write(panel, row, sums),
            );
        }
    }
}

#[inline(always)]
fn run_floats<S: Simd, W: Weight<Input = f32, Output = f32>>(
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

/// Normalises states: [states, width]. Every thread does it for itself, which takes less than waiting for
/// another one.
#[inline(always)]
pub(crate) fn normalise<'a>(norm: &RmsNorm, states: &States<'_>, normed: &'a mut Vec<f32>) -> &'a [f32] {
    let width = states.width();
    normed.resize(states.len() * width, 0.0);
    for (index, to) in normed.chunks_exact_mut(width).enumerate() {
        norm.apply(states.row(index), to);
    }
    normed
}

/// Takes a thread's products to where they belong.
struct Writer<'a, 'b> {
    part: &'a mut Columns<'b>,
    mode: Mode<'a>,
    /// The panel of the first column.
    first_panel: usize,
    /// What `wi_0` gave for one panel, until `wi_1` has been multiplied too: [rows, 32]
    gate: &'a mut Vec<f32>,
}

impl Writer<'_, '_> {
    /// The panels that this thread's columns are made of.
    fn panels(&self) -> Range<usize> {
        let (first, end) = (self.part.range.start / PANEL, self.part.range.end.div_ceil(PANEL));
        match self.mode {
            Mode::Gate(_) => 2 * first..2 * end,
            _ => self.first_panel + first..self.first_panel + end,
        }
    }

    #[inline(always)]
    fn write(&mut self, panel: usize, row: usize, sums: &[f32; PANEL]) {
        let column = match self.mode {
            Mode::Gate(_) => panel / 2 * PANEL,
            _ => (panel - self.first_panel) * PANEL,
        };
        let first = column - self.part.range.start;
        let out_row = match self.mode {
            Mode::Add(slots) => slots[row],
            _ => row,
        };
        let out = &mut self.part.row(out_row)[first..];
        let width = out.len().min(PANEL);
        let out = &mut out[..width];
        match self.mode {
            Mode::Store => out.copy_from_slice(&sums[..width]),
            Mode::Add(_) => {
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out += sum;
                }
            }
            Mode::Relu => {
                for (out, &sum) in out.iter_mut().zip(sums) {
                    // `f32::max` makes 0 of what is no number.
                    *out = if sum < 0.0 { 0.0 } else { sum };
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

fn pack_floats<W: Weight>(
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
