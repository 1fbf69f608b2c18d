//! Products of a few rows with a weight matrix, with what comes before them (normalisation) and after them
//! (residual, activation) in the same pass.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use calm_checkpoint::{FeedForward, WeightType};
use half::bf16;

use crate::blocks::{BLOCK, Blocks, InputBlock, round_to_blocks};
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
    /// Inputs of a product that the threads have rounded together.
    rounded: Mutex<Vec<InputBlock>>,
}

impl Processor {
    pub(crate) fn new(team: Team, set: InstructionSet) -> Self {
        Processor { team, set, rounded: Mutex::default() }
    }
}

/// Weight matrices with the same inputs that are multiplied together.
pub(crate) struct Linear {
    /// Matrices one below the other, or those of [`Linear::gated`].
    matrices: Vec<Placed>,
    inputs: usize,
    /// Columns of what a product gives.
    outputs: usize,
}

/// A matrix [outputs, inputs], and the column of a product at which it begins: that of a whole panel.
struct Placed {
    packed: Arc<Packed>,
    start: usize,
}

/// The panels of a matrix.
enum Packed {
    F32(Panels<f32>),
    Bf16(Panels<bf16>),
    Int8(Int8Panels),
    Blocks(Blocks),
}

/// Panels of which both matrices of [`Linear::gated`] are multiplied before the next ones are.
const GATED_PANELS: usize = 4;

/// Numbers from which on threads divide the rounding of inputs among them. Fewer take each of them less time
/// than waiting for the others.
const SHARED_INPUTS: usize = 8192;

/// How the weights of a matrix are to lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Rounded to a type, or widened to it.
    As(WeightType),
    /// As they are stored, blocks as blocks.
    AsStored,
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
    pub(crate) fn new(matrix: &Stored, packing: Packing) -> Self {
        let outputs = matrix.rows();
        Linear { outputs, ..Self::parallel(std::slice::from_ref(matrix), packing) }
    }

    /// Packs matrices one below the other, each filled up to whole panels.
    pub(crate) fn parallel(matrices: &[Stored], packing: Packing) -> Self {
        let mut start = 0;
        let place = |matrix: &Stored| {
            let placed = Placed { packed: Arc::new(Packed::new(matrix, packing)), start };
            start += matrix.rows().next_multiple_of(PANEL);
            placed
        };
        let placed = matrices.iter().map(place).collect();
        Linear { matrices: placed, inputs: matrices[0].columns(), outputs: start }
    }

    /// Packs the two matrices of a gated feed-forward network, which have the same shape.
    pub(crate) fn gated(gate: &Stored, linear: &Stored, packing: Packing) -> Self {
        let place = |matrix: &Stored| Placed { packed: Arc::new(Packed::new(matrix, packing)), start: 0 };
        Linear { matrices: vec![place(gate), place(linear)], inputs: gate.columns(), outputs: gate.rows() }
    }

    /// The same without the first of the matrices that lie one below the other. The weights are shared.
    pub(crate) fn without_first(&self) -> Self {
        let first = self.matrices[1].start;
        let rest = self.matrices[1..].iter();
        let placed =
            |matrix: &Placed| Placed { packed: Arc::clone(&matrix.packed), start: matrix.start - first };
        Linear { matrices: rest.map(placed).collect(), inputs: self.inputs, outputs: self.outputs - first }
    }

    /// Columns of what a product gives.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes of the weights that a product reads.
    pub(crate) fn bytes(&self) -> usize {
        self.matrices.iter().map(|matrix| matrix.packed.bytes()).sum()
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
        let mut shared = processor.rounded.lock().unwrap_or_else(PoisonError::into_inner);
        let is_shared =
            processor.team.threads() > 1 && rows * self.inputs >= SHARED_INPUTS && self.is_of_blocks();
        if is_shared {
            self.round_together(processor, input, rows, &mut shared);
        }
        let job = Job { linear: self, input, blocks: is_shared.then_some(&shared), mode };
        processor.team.each(&mut parts, |part, scratch| {
            let job = &job;
            with_simd!(processor.set, run_part(job: &Job<'_>, part: &mut Columns<'_>, scratch: &mut Scratch));
        });
    }

    /// Whether all weights are in blocks.
    fn is_of_blocks(&self) -> bool {
        self.matrices.iter().all(|matrix| matches!(*matrix.packed, Packed::Blocks(_)))
    }

    /// Rounds the inputs, each thread some rows.
    fn round_together(&self, processor: &Processor, input: Input<'_>, rows: usize, to: &mut Vec<InputBlock>) {
        let blocks = self.inputs / BLOCK;
        to.resize(rows * blocks, InputBlock::default());
        let bounds = bounds(rows, 1, processor.team.threads());
        let mut rest = to.as_mut_slice();
        let mut parts = Vec::with_capacity(bounds.len());
        for pair in bounds.windows(2) {
            let (part, after) = rest.split_at_mut((pair[1] - pair[0]) * blocks);
            parts.push((pair[0], part));
            rest = after;
        }
        let width = self.inputs;
        processor.team.each(&mut parts, |(first, part), scratch| {
            let (input, first, to) = (&input, *first, &mut **part);
            with_simd!(processor.set, round_rows(
                input: &Input<'_>, first: usize, width: usize, to: &mut [InputBlock], scratch: &mut Scratch
            ));
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
    /// The input in blocks, if the threads have rounded it together.
    blocks: Option<&'a [InputBlock]>,
    mode: Mode<'a>,
}

/// Rounds some rows of an input from `first` on, as many as there is room for.
#[inline(always)]
fn round_rows<S: Simd>(
    input: &Input<'_>,
    first: usize,
    width: usize,
    to: &mut [InputBlock],
    scratch: &mut Scratch,
) {
    for (row, to) in to.chunks_exact_mut(width / BLOCK).enumerate() {
        let row = first + row;
        match input {
            Input::Rows(rows) => round_to_blocks(&rows[row * width..][..width], to),
            Input::Normed(norm, states) => {
                scratch.normed.resize(width, 0.0);
                norm.apply(states.row(row), &mut scratch.normed);
                round_to_blocks(&scratch.normed, to);
            }
        }
    }
}

#[inline(always)]
fn run_part<S: Simd>(job: &Job<'_>, part: &mut Columns<'_>, scratch: &mut Scratch) {
    let Linear { matrices, inputs, .. } = job.linear;
    let Scratch { normed, rounded, gates, .. } = scratch;
    let inputs = match job.blocks {
        Some(blocks) => Inputs { numbers: &[], rounded, blocks },
        None => {
            let numbers = match job.input {
                Input::Rows(rows) => rows,
                Input::Normed(norm, states) => normalise(norm, states, normed),
            };
            rounded.fill(matrices, numbers, *inputs);
            Inputs { numbers, rounded, blocks: &rounded.blocks }
        }
    };
    let Range { start, end } = part.range.clone();
    if let Mode::Gate(activation) = job.mode {
        for first in (start..end).step_by(GATED_PANELS * PANEL) {
            let columns = first..end.min(first + GATED_PANELS * PANEL);
            run_gated::<S>(
                [&matrices[0].packed, &matrices[1].packed],
                columns,
                activation,
                inputs,
                part,
                gates,
            );
        }
        return;
    }
    for Placed { packed, start: of_matrix } in matrices {
        let (first, end) = (start.max(*of_matrix), end.min(of_matrix + packed.len() * PANEL));
        if first >= end {
            continue;
        }
        let panels = (first - of_matrix) / PANEL..(end - of_matrix).div_ceil(PANEL);
        packed.product::<S>(
            panels,
            inputs,
            #[inline(always)]
            |panel, row, sums| write(part, job.mode, of_matrix + panel * PANEL - start, row, sums),
        );
    }
}

/// Computes some columns of a gated product, [`GATED_PANELS`] panels at most, so that what both matrices give
/// for them is at hand.
#[inline(always)]
fn run_gated<S: Simd>(
    matrices: [&Packed; 2],
    columns: Range<usize>,
    activation: FeedForward,
    inputs: Inputs<'_>,
    part: &mut Columns<'_>,
    gates: &mut [Vec<f32>; 2],
) {
    let panels = columns.start / PANEL..columns.end.div_ceil(PANEL);
    let width = panels.len() * PANEL;
    let first = panels.start;
    for (matrix, of_matrix) in matrices.into_iter().zip(&mut *gates) {
        of_matrix.clear();
        matrix.product::<S>(
            panels.clone(),
            inputs,
            #[inline(always)]
            |panel, row, sums| {
                let at = row * width + (panel - first) * PANEL;
                if of_matrix.len() < at + PANEL {
                    of_matrix.resize((row + 1) * width, 0.0);
                }
                of_matrix[at..][..PANEL].copy_from_slice(sums);
            },
        );
    }
    let [gates, linears] = gates;
    let first = columns.start - part.range.start;
    for (row, (gate, linear)) in gates.chunks_exact_mut(width).zip(linears.chunks_exact(width)).enumerate() {
        elementwise::gate(activation, gate, linear);
        part.row(row)[first..][..columns.len()].copy_from_slice(&gate[..columns.len()]);
    }
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

/// Takes what a panel gave for a row to where it belongs, `first` columns behind the thread's first one.
#[inline(always)]
fn write(part: &mut Columns<'_>, mode: Mode<'_>, first: usize, row: usize, sums: &[f32; PANEL]) {
    let out_row = match mode {
        Mode::Add(slots) => slots[row],
        _ => row,
    };
    let out = &mut part.row(out_row)[first..];
    let width = out.len().min(PANEL);
    let out = &mut out[..width];
    match mode {
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
        Mode::Store | Mode::Gate(_) => out.copy_from_slice(&sums[..width]),
    }
}

/// Rows of inputs in the forms that weights are multiplied with.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    /// [rows, inputs]
    numbers: &'a [f32],
    rounded: &'a Rounded,
    /// [rows, blocks]
    blocks: &'a [InputBlock],
}

/// Inputs of products with integers.
#[derive(Default)]
pub(crate) struct Rounded {
    integers: Vec<i16>,
    /// Halves of 15-bit integers, as products read them: [2 * rows, stride]
    halves: Vec<i8>,
    /// Size of the steps of each row's.
    scales: Vec<f32>,
    /// [rows, blocks]
    blocks: Vec<InputBlock>,
}

impl Rounded {
    /// Rounds rows of inputs [rows, width] as the matrices need them.
    #[inline(always)]
    fn fill(&mut self, matrices: &[Placed], numbers: &[f32], width: usize) {
        let int8 = matrices.iter().find_map(|matrix| match &*matrix.packed {
            Packed::Int8(weights) => Some(weights.panels.stride()),
            _ => None,
        });
        if let Some(stride) = int8 {
            quantise(numbers, width, &mut self.integers, &mut self.scales);
            halve(&self.integers, width, stride, &mut self.halves);
        }
        if matrices.iter().any(|matrix| matches!(*matrix.packed, Packed::Blocks(_))) {
            self.blocks.resize(numbers.len() / BLOCK, InputBlock::default());
            round_to_blocks(numbers, &mut self.blocks);
        }
    }
}

impl Packed {
    fn new(matrix: &Stored, packing: Packing) -> Self {
        match packing {
            Packing::As(WeightType::F32) => Packed::F32(pack_floats(matrix, |weight| weight)),
            Packing::As(WeightType::Bf16) => Packed::Bf16(pack_floats(matrix, bf16::from_f32)),
            Packing::As(WeightType::Int8) => {
                let read_row = |row, to: &mut [f32]| matrix.read_row(row, to);
                Packed::Int8(Int8Panels::pack(matrix.rows(), matrix.columns(), read_row))
            }
            Packing::AsStored => match matrix.blocks() {
                Some(blocks) => Packed::Blocks(blocks),
                None if matrix.is_bf16() => Self::new(matrix, Packing::As(WeightType::Bf16)),
                None => Self::new(matrix, Packing::As(WeightType::F32)),
            },
        }
    }

    /// Number of panels.
    fn len(&self) -> usize {
        match self {
            Packed::F32(panels) => panels.len(),
            Packed::Bf16(panels) => panels.len(),
            Packed::Int8(weights) => weights.panels.len(),
            Packed::Blocks(blocks) => blocks.len(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Packed::F32(panels) => panels.bytes(),
            Packed::Bf16(panels) => panels.bytes(),
            Packed::Int8(weights) => weights.panels.bytes(),
            Packed::Blocks(blocks) => blocks.bytes(),
        }
    }

    /// Multiplies rows with some panels. Calls `emit(panel, row, sums)`, for any row panel after panel.
    #[inline(always)]
    fn product<S: Simd>(
        &self,
        panels: Range<usize>,
        inputs: Inputs<'_>,
        mut emit: impl FnMut(usize, usize, &[f32; PANEL]),
    ) {
        let Inputs { numbers, rounded, blocks: of_blocks } = inputs;
        match self {
            Packed::F32(weights) => weights.product::<S>(panels, numbers, emit),
            Packed::Bf16(weights) => weights.product::<S>(panels, numbers, emit),
            Packed::Int8(weights) => weights.product::<S>(panels, &rounded.halves, &rounded.scales, emit),
            Packed::Blocks(blocks) => blocks.product(S::SET, panels, of_blocks, &mut emit),
        }
    }
}

fn pack_floats<W: Weight + Copy + Default>(matrix: &Stored, convert: impl Fn(f32) -> W) -> Panels<W> {
    let mut row = vec![0.0; matrix.columns()];
    Panels::pack(matrix.rows(), matrix.columns(), |output, input| {
        if input == 0 {
            matrix.read_row(output, &mut row);
        }
        convert(row[input])
    })
}
