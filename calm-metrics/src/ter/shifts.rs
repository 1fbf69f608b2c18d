//! The greedy search for shifts (sacreBLEU's `metrics/lib_ter.py`, after tercom).

use std::cmp::Reverse;

use super::edit_distance::{EditDistance, Operation};

/// Length of the longest phrase that is shifted.
const MAX_SHIFT_SIZE: usize = 10;
/// Largest distance between the two places of a phrase.
const MAX_SHIFT_DISTANCE: usize = 50;
/// Number of shifts that are tried for a pair of texts.
const MAX_CANDIDATES: usize = 1000;

/// Counts the shifts, insertions, deletions and substitutions that turn the hypothesis into the reference.
///
/// They are as few as a greedy search finds: the shift that helps most comes first, until none helps.
pub(super) fn edits(mut hypothesis: Vec<u32>, reference: &[u32]) -> usize {
    if reference.is_empty() {
        return hypothesis.len();
    }
    let mut distance = EditDistance::new(&hypothesis, reference);
    let (mut shifts, mut tried) = (0, 0);
    while let Some(best) = best_shift(&hypothesis, reference, &mut distance, &mut tried)
        && tried < MAX_CANDIDATES
        && best.gain > 0
    {
        shifts += 1;
        hypothesis = best.shift.apply(&hypothesis);
        distance = EditDistance::new(&hypothesis, reference);
    }
    shifts + distance.cost()
}

/// A phrase of the hypothesis and where it goes: before the word `target` of the hypothesis.
#[derive(Clone, Copy)]
struct Shift {
    start: usize,
    length: usize,
    target: usize,
}

struct Candidate {
    /// By how much the edit distance falls.
    gain: i64,
    shift: Shift,
}

impl Shift {
    fn apply(self, words: &[u32]) -> Vec<u32> {
        let Self { start, length, target } = self;
        let end = start + length;
        let phrase = &words[start..end];
        let parts = if target < start {
            [&words[..target], phrase, &words[target..start], &words[end..]]
        } else {
            // The target is behind the phrase, or inside it. Then the phrase moves on by as many words as the
            // target is inside it.
            let target = if target > end { target } else { (target + length).min(words.len()) };
            [&words[..start], &words[end..target], phrase, &words[target..]]
        };
        parts.concat()
    }

    /// The first word that the shift changes.
    fn first_changed(self) -> usize {
        self.start.min(self.target)
    }
}

fn best_shift(
    hypothesis: &[u32],
    reference: &[u32],
    distance: &mut EditDistance,
    tried: &mut usize,
) -> Option<Candidate> {
    let before = distance.cost() as i64;
    let alignment = Alignment::new(&distance.operations());
    let mut best: Option<Candidate> = None;
    for (start, start_in_reference, length) in matching_phrases(hypothesis, reference) {
        let positions = start_in_reference..start_in_reference + length;
        let is_wrong = alignment.hypothesis_errors[start..start + length].contains(&true)
            && alignment.reference_errors[positions.clone()].contains(&true);
        let within_itself =
            (start as i64..(start + length) as i64).contains(&alignment.of_reference[start_in_reference]);
        if !is_wrong || within_itself {
            continue;
        }
        let mut previous = None;
        // The phrase goes before its place in the reference, then behind each of its words there.
        for position in std::iter::once(start_in_reference.checked_sub(1)).chain(positions.map(Some)) {
            let target = position.map_or(0, |position| (alignment.of_reference[position] + 1) as usize);
            if previous == Some(target) {
                continue;
            }
            previous = Some(target);
            let shift = Shift { start, length, target };
            let after = distance.cost_of_changed(&shift.apply(hypothesis), shift.first_changed());
            let candidate = Candidate { gain: before - after as i64, shift };
            *tried += 1;
            if best.as_ref().is_none_or(|best| candidate.rank() > best.rank()) {
                best = Some(candidate);
            }
        }
        if *tried >= MAX_CANDIDATES {
            break;
        }
    }
    best
}

impl Candidate {
    /// Key of tercom's order: the most useful, then the longest, then the first, then the nearest to the
    /// start.
    fn rank(&self) -> impl Ord {
        (self.gain, self.shift.length, Reverse(self.shift.start), Reverse(self.shift.target))
    }
}

/// Finds places in both texts, with a length, at which they hold the same words.
fn matching_phrases<'a>(
    hypothesis: &'a [u32],
    reference: &'a [u32],
) -> impl Iterator<Item = (usize, usize, usize)> + 'a {
    (0..hypothesis.len()).flat_map(move |start| {
        let nearest = start.saturating_sub(MAX_SHIFT_DISTANCE);
        let farthest = (start + MAX_SHIFT_DISTANCE + 1).min(reference.len());
        (nearest..farthest).flat_map(move |in_reference| {
            let pairs = hypothesis[start..].iter().zip(&reference[in_reference..]).take(MAX_SHIFT_SIZE);
            let longest = pairs.take_while(|(a, b)| a == b).count();
            (1..=longest).map(move |length| (start, in_reference, length))
        })
    })
}

/// Which words belong together according to an edit path, and which ones are wrong.
struct Alignment {
    /// The place in the hypothesis of each word of the reference.
    ///
    /// If the word has none, it is that of the word before it, or -1 before the first.
    of_reference: Vec<i64>,
    reference_errors: Vec<bool>,
    hypothesis_errors: Vec<bool>,
}

impl Alignment {
    fn new(operations: &[Operation]) -> Self {
        let (mut of_reference, mut reference_errors, mut hypothesis_errors) = (vec![], vec![], vec![]);
        for &operation in operations {
            let is_error = operation != Operation::Keep;
            if operation != Operation::Insert {
                hypothesis_errors.push(is_error);
            }
            if operation != Operation::Delete {
                of_reference.push(hypothesis_errors.len() as i64 - 1);
                reference_errors.push(is_error);
            }
        }
        Self { of_reference, reference_errors, hypothesis_errors }
    }
}
