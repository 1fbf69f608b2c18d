//! Tests of the kernels against plain sums in f64, on every instruction set that this machine has.

mod attendance;
mod attention;
mod blocks;
mod caches;
mod head;
mod products;
mod team;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::linear::Processor;
use crate::simd::InstructionSet;
use crate::team::Team;
use crate::weights::Stored;

/// Draws numbers from -1 to 1.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| random.random::<f32>() * 2.0 - 1.0).collect()
}

fn matrix(rows: usize, columns: usize, seed: u64) -> Stored {
    Stored::from_rows(numbers(rows * columns, seed), columns)
}

/// Makes a processor for each instruction set with some numbers of threads, of which all take part or all but
/// one.
fn processors() -> Vec<Processor> {
    let processor = |set, threads, present| {
        let team = Team::new(threads);
        team.leave_out_all_but(present);
        Processor::new(team, set)
    };
    let teams = [[1, 1], [2, 2], [3, 3], [3, 2]];
    let sets = InstructionSet::available().into_iter();
    sets.flat_map(|set| teams.map(|[threads, present]| processor(set, threads, present))).collect()
}

fn name(processor: &Processor) -> String {
    format!("{:?} with {} threads", processor.set, processor.team.threads())
}
