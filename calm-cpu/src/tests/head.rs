use calm_checkpoint::WeightType;
use calm_core::{Shortlist, Token, Top2, best_tokens};
use proptest::prelude::*;

use super::{matrix, name, numbers, processors};
use crate::elementwise::{RmsNorm, dot_rounded};
use crate::head::{Head, MARGIN_ERROR, Room};
use crate::linear::Packing;
use crate::linear::Processor;
use crate::states::States;
use crate::team::Team;
use crate::weights::{Stored, Table};

/// Makes a head whose logits are as large as `sharpness`, and states for it.
fn head(
    vocab_size: usize,
    width: usize,
    sharpness: f32,
    weight_type: WeightType,
    seed: u64,
) -> (Head, Vec<f32>) {
    let norm = RmsNorm { weight: vec![sharpness; width], epsilon: 1e-6, scale: 1.0 };
    (
        Head::new(norm, Table::Rows(matrix(vocab_size, width, seed)), Packing::As(weight_type)),
        numbers(3 * width, !seed),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Screening keeps the best token, and the margin within what is promised, for flat and sharp softmax.
    #[test]
    fn screening_finds_what_all_logits_say(
        vocab_size in 2_usize..3000,
        width in 1_usize..80,
        sharpness in 0.01_f32..8.0,
        seed: u64,
    ) {
        let (head, mut states) = head(vocab_size, width, sharpness, WeightType::F32, seed);
        let states = States::new(&mut states, width, &[0, 1, 2]);
        for processor in processors() {
            let logits = head.logits(&processor, &states, &mut Room::default());
            let expected: Vec<Top2> = logits.chunks_exact(vocab_size).map(Top2::from_logits).collect();
            let found = head.top2(&processor, &states, &mut Room::default());
            let best = head.best(&processor, &states, &mut Room::default());
            for ((found, expected), best) in found.iter().zip(&expected).zip(best) {
                prop_assert_eq!(found.token, expected.token, "{}", name(&processor));
                prop_assert_eq!(best, expected.token);
                let difference = (found.margin - expected.margin).abs();
                prop_assert!(difference <= MARGIN_ERROR, "{} instead of {}", found.margin, expected.margin);
            }
        }
    }

    /// One row far longer than all others, as a token that was hardly trained may have it, makes no margin
    /// infinite and none wrong.
    #[test]
    fn a_long_row_leaves_margins_what_they_are(
        vocab_size in 2_usize..3000,
        width in 1_usize..80,
        sharpness in 0.01_f32..8.0,
        factor in prop::sample::select(vec![1e2_f32, -1e2, 1e4, -1e4, 1e8, -1e8, 1e30]),
        seed: u64,
    ) {
        let mut rows = matrix(vocab_size, width, seed).to_vec();
        let long = seed as usize % vocab_size;
        rows[long * width..][..width].iter_mut().for_each(|weight| *weight *= factor);
        let norm = || RmsNorm { weight: vec![sharpness; width], epsilon: 1e-6, scale: 1.0 };
        for &weight_type in WeightType::ALL {
            let head = Head::new(norm(), Table::Rows(Stored::from_rows(rows.clone(), width)), Packing::As(weight_type));
            let mut states = numbers(3 * width, !seed);
            let states = States::new(&mut states, width, &[0, 1, 2]);
            for processor in processors() {
                let room = &mut Room::default();
                let logits = head.logits(&processor, &states, room);
                let expected: Vec<Top2> = logits.chunks_exact(vocab_size).map(Top2::from_logits).collect();
                let found = head.top2(&processor, &states, room);
                for (found, expected) in found.iter().zip(&expected) {
                    prop_assert_eq!(found.token, expected.token, "{}", name(&processor));
                    let difference = (found.margin - expected.margin).abs();
                    prop_assert!(difference <= MARGIN_ERROR, "{} instead of {}", found.margin, expected.margin);
                }
                for (found, expected) in head.estimated_top2(&processor, &states, room).iter().zip(&expected) {
                    prop_assert_eq!(found.token, expected.token, "{}", name(&processor));
                    prop_assert!((0.0..=1.0).contains(&found.margin), "{}", found.margin);
                }
            }
        }
    }

    /// Estimates give the exact token, which is in its shortlist. Their margin is near the exact one where
    /// logits have usual sizes, and the same to the last bit beside other states and for any number of
    /// threads.
    #[test]
    fn estimates_are_near_and_depend_on_the_state_alone(
        vocab_size in 2_usize..3000,
        width in 1_usize..80,
        count in 1_usize..80,
        sharpness in 0.01_f32..2.0,
        seed: u64,
    ) {
        for &weight_type in WeightType::ALL {
            let (head, mut states) = head(vocab_size, width, sharpness, weight_type, seed);
            for processor in processors() {
                let room = &mut Room::default();
                let expected = head.top2(&processor, &States::new(&mut states, width, &[0, 1, 2]), room);
                let found =
                    head.estimated_top2(&processor, &States::new(&mut states, width, &[0, 1, 2]), room);
                let all = States::new(&mut states, width, &[0, 1, 2]);
                let shortlists = head.shortlists(&processor, &all, count, room);
                for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let Shortlist { top2, tokens } = &shortlists[row];
                    prop_assert_eq!(top2, found);
                    prop_assert_eq!(tokens.len(), count.min(vocab_size));
                    prop_assert!(tokens.is_sorted_by(|a, b| a < b) && tokens.contains(&found.token));
                    let alone = States::new(&mut states, width, std::slice::from_ref(&row));
                    let of_alone = head.shortlists(&processor, &alone, count, room);
                    prop_assert_eq!(&of_alone[0], &shortlists[row]);
                    prop_assert_eq!(found.token, expected.token, "{}", name(&processor));
                    prop_assert!((0.0..=1.0).contains(&found.margin));
                    let difference = (found.margin - expected.margin).abs();
                    prop_assert!(difference < 0.05, "{} instead of {}", found.margin, expected.margin);
                    let alone = States::new(&mut states, width, std::slice::from_ref(&row));
                    prop_assert_eq!(&head.estimated_top2(&processor, &alone, room), &[*found]);
                }
                let alone = Processor::new(Team::new(1), processor.set);
                let states = States::new(&mut states, width, &[0, 1, 2]);
                prop_assert_eq!(head.estimated_top2(&alone, &states, room), found);
            }
        }
    }

    /// Neither does what is exact depend on other states or on threads, to the last bit.
    #[test]
    fn answers_depend_on_the_state_alone(
        vocab_size in 64_usize..2000,
        width in 1_usize..80,
        sharpness in 0.01_f32..8.0,
        seed: u64,
    ) {
        for &weight_type in WeightType::ALL {
            let (head, mut states) = head(vocab_size, width, sharpness, weight_type, seed);
            let first = &processors()[0];
            let set = first.set;
            for threads in [1, 3] {
                let processor = Processor::new(Team::new(threads), set);
                let room = &mut Room::default();
                let found = head.top2(&processor, &States::new(&mut states, width, &[0, 1, 2]), room);
                for (row, found) in found.iter().enumerate() {
                    let alone = States::new(&mut states, width, std::slice::from_ref(&row));
                    prop_assert_eq!(&head.top2(first, &alone, room), &[*found]);
                    prop_assert_eq!(head.best(first, &alone, room), [found.token]);
                }
            }
        }
    }

    /// The best tokens, and the judgement of some tokens alone, agree with all logits.
    #[test]
    fn some_tokens_are_judged_by_their_logits(
        vocab_size in 2_usize..3000,
        width in 1_usize..60,
        count in 1_usize..80,
        sharpness in 0.01_f32..8.0,
        seed: u64,
    ) {
        for weight_type in [WeightType::F32, WeightType::Int8] {
            let (head, mut states) = head(vocab_size, width, sharpness, weight_type, seed);
            let states = States::new(&mut states, width, &[2, 0, 1]);
            for processor in processors() {
                let logits = head.logits(&processor, &states, &mut Room::default());
                let rows = || logits.chunks_exact(vocab_size);
                let best: Vec<Vec<Token>> = rows().map(|logits| best_tokens(logits, count)).collect();
                let found = head.best_tokens(&processor, &states, count, &mut Room::default());
                prop_assert_eq!(&found, &best, "{}", name(&processor));
                let candidates: Vec<&[Token]> = best.iter().map(Vec::as_slice).collect();
                let expected = rows().zip(&candidates);
                let expected: Vec<Top2> =
                    expected.map(|(logits, some)| Top2::among(some, |token| logits[token as usize])).collect();
                let found = head.top2_among(&processor, &states, &candidates, &mut Room::default());
                prop_assert_eq!(found, expected);
            }
        }
    }

    /// Without exact rows the 8-bit logits are the head.
    #[test]
    fn eight_bits_are_a_head_of_their_own(vocab_size in 2_usize..500, width in 1_usize..80, seed: u64) {
        let (head, mut states) = head(vocab_size, width, 2.0, WeightType::Int8, seed);
        let states = States::new(&mut states, width, &[0, 1, 2]);
        let processor = &processors()[0];
        let logits = head.logits(processor, &states, &mut Room::default());
        let expected: Vec<Top2> = logits.chunks_exact(vocab_size).map(Top2::from_logits).collect();
        for (found, expected) in head.top2(processor, &states, &mut Room::default()).iter().zip(&expected) {
            prop_assert_eq!(found.token, expected.token);
            prop_assert!((found.margin - expected.margin).abs() < 1e-5);
        }
    }
}

#[test]
fn the_lower_of_two_equal_tokens_wins() {
    let mut row = numbers(16, 1);
    let rows = [vec![0.0; 16], row.clone(), row.clone(), vec![0.0; 16]].concat();
    let norm = RmsNorm { weight: vec![1.0; 16], epsilon: 1e-6, scale: 1.0 };
    for &weight_type in WeightType::ALL {
        let norm = RmsNorm { weight: norm.weight.clone(), ..norm };
        let head =
            Head::new(norm, Table::Rows(Stored::from_rows(rows.clone(), 16)), Packing::As(weight_type));
        let state = States::new(&mut row, 16, &[0]);
        let found = head.top2(&processors()[0], &state, &mut Room::default())[0];
        assert_eq!((found.token, found.margin), (1, 0.0), "{}", weight_type.name());
    }
}

#[test]
fn weights_are_rounded_as_they_were_packed() {
    // Halves, what is just beside them, and both ends of the range.
    let halves = (-127..=126).map(|n| n as f32 + 0.5);
    let weights: Vec<f32> =
        halves.flat_map(|x| [x.next_down(), x, x.next_up()]).chain([-127.0, 127.0]).collect();
    for width in [1, 15, 16, 17, weights.len()] {
        for weights in weights.windows(width) {
            let inputs: Vec<i16> = (1..=width as i16).collect();
            let expected: i32 =
                weights.iter().zip(&inputs).map(|(w, &x)| w.round() as i32 * i32::from(x)).sum();
            assert_eq!(dot_rounded(&inputs, weights, 1.0, |w| w), expected);
        }
    }
}
