use std::collections::HashMap;
use std::hash::Hash;

use crate::positions::Positions;

/// Levenshtein's distance: the least number of insertions, deletions and substitutions between two sequences.
///
/// It takes memory linear in the lengths, and time proportional to their product divided by 64 (Myers 1999,
/// Hyyrö 2003: a column of the table as bits, which say where it goes up or down).
pub fn edit_distance<T: Eq + Hash>(a: &[T], b: &[T]) -> usize {
    let same_start = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same_start..], &b[same_start..]);
    let same_end = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[..a.len() - same_end], &b[..b.len() - same_end]);
    if a.is_empty() || b.is_empty() {
        return a.len().max(b.len());
    }
    let mut numbers = HashMap::new();
    let mut number = |element| {
        let next = numbers.len() as u32;
        *numbers.entry(element).or_insert(next)
    };
    let b: Vec<u32> = b.iter().map(&mut number).collect();
    let a: Vec<u32> = a.iter().map(&mut number).collect();
    of_numbers(&a, &b, numbers.len())
}

/// Holds 64 rows of a column: bit i of `up` is set where cell i is one above the cell before it, bit i of
/// `down` where it is one below.
#[derive(Clone)]
struct Block {
    up: u64,
    down: u64,
}

/// How a cell differs from its neighbour in the column before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Up,
    Same,
    Down,
}

fn of_numbers(a: &[u32], b: &[u32], vocabulary: usize) -> usize {
    let positions = Positions::new(b, vocabulary);
    let mut blocks = vec![Block { up: u64::MAX, down: 0 }; b.len().div_ceil(64)];
    let mut mask = vec![0; blocks.len()];
    let last_bit = (b.len() - 1) % 64;
    let mut distance = b.len();
    for &element in a {
        positions.set(element, &mut mask);
        // The first row of the table counts the elements of `a`.
        let mut step = Step::Up;
        let last = blocks.len() - 1;
        for (i, (block, mask)) in blocks.iter_mut().zip(&mut mask).enumerate() {
            step = block.advance(*mask, step, if i == last { last_bit } else { 63 });
            *mask = 0;
        }
        match step {
            Step::Up => distance += 1,
            Step::Same => {}
            Step::Down => distance -= 1,
        }
    }
    distance
}

impl Block {
    /// Goes to the next column; `equal` marks the rows of the same element.
    ///
    /// Takes the step of the cell above the block and returns that of the row `bottom`.
    fn advance(&mut self, equal: u64, above: Step, bottom: usize) -> Step {
        let (is_up, is_down) = (u64::from(above == Step::Up), u64::from(above == Step::Down));
        let vertical = equal | self.down;
        let equal = equal | is_down;
        let diagonal = ((equal & self.up).wrapping_add(self.up) ^ self.up) | equal;
        let (up, down) = (self.down | !(diagonal | self.up), self.up & diagonal);
        let step = match (up >> bottom & 1, down >> bottom & 1) {
            (1, _) => Step::Up,
            (_, 1) => Step::Down,
            _ => Step::Same,
        };
        let (up, down) = (up << 1 | is_up, down << 1 | is_down);
        self.up = down | !(vertical | up);
        self.down = up & vertical;
        step
    }
}
