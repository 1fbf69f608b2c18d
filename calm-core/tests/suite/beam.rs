//! Beam search on the toy, against greedy decoding and against all outputs there are.

use calm_core::{
    Backbone, BeamOptions, DecodeError, DecodeOptions, Full, Generation, Token, beam_search, decode,
};
use proptest::prelude::*;

use crate::toy::{START, Toy, Vector};

const SOURCES: [&[Token]; 4] = [&[3], &[4, 5, 6, 7, 2], &[9, 8], &[2, 2, 10, 6]];

fn search(toy: &Toy, sources: &[&[Token]], options: BeamOptions) -> Vec<Generation> {
    let prompt = toy.read(&options.rows(sources)).unwrap();
    beam_search(&*prompt, &options).unwrap()
}

fn tokens(generations: Vec<Generation>) -> Vec<Vec<Token>> {
    generations.into_iter().map(|generation| generation.tokens).collect()
}

#[test]
fn one_beam_is_greedy() {
    let mut ended = 0;
    for seed in 0..20 {
        let toy = Toy::new(3, seed).with_eos(&[1, 5]);
        let prompt = toy.read(&SOURCES).unwrap();
        let greedy = tokens(decode(&*prompt, &Full, &DecodeOptions::new(9)).unwrap());
        for length_penalty in [-1.0, 0.0, 1.0, 3.0] {
            let options = BeamOptions { length_penalty, ..BeamOptions::new(1, 9) };
            assert_eq!(tokens(search(&toy, &SOURCES, options)), greedy, "seed {seed}");
        }
        ended += greedy.iter().filter(|tokens| tokens.len() < 9).count();
    }
    assert!((10..70).contains(&ended), "{ended} of 80 ended");
}

/// Logits behind a prefix, all computed anew.
fn logits(toy: &Toy, source: &[Vector], prefix: &[Token]) -> Vector {
    let inputs = std::iter::once(START).chain(prefix.iter().copied());
    let mut states: Vec<Vector> = inputs.map(|token| toy.embed(token)).collect();
    for layer in 1..=toy.num_layers() {
        let kv: Vec<_> = states.iter().map(|state| toy.key_value(layer, state)).collect();
        let run = |(at, state): (usize, &Vector)| toy.block(layer, state, &kv[..=at], source);
        states = states.iter().enumerate().map(run).collect();
    }
    toy.logits(&states[prefix.len()])
}

/// All outputs that continue a prefix, with the logarithms of their probabilities.
fn outputs(
    toy: &Toy,
    source: &[Vector],
    prefix: &[Token],
    score: f64,
    max_tokens: usize,
) -> Vec<(Vec<Token>, f64)> {
    let logits = logits(toy, source, prefix);
    let ln_sum = logits.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln();
    let continued = |(token, &logit): (Token, &f32)| {
        let output: Vec<Token> = prefix.iter().copied().chain([token]).collect();
        let score = score + f64::from(logit) - ln_sum;
        let ends = toy.shape().eos_tokens.contains(&token) || output.len() == max_tokens;
        if ends { vec![(output, score)] } else { outputs(toy, source, &output, score, max_tokens) }
    };
    (0..).zip(&logits).flat_map(continued).collect()
}

#[test]
fn enough_beams_find_the_best_of_all_outputs() {
    let mut lengths = [0; 4];
    for seed in 0..4 {
        for eos in [&[1][..], &[1, 4, 7]] {
            let toy = Toy::new(2, seed).with_eos(eos);
            for source in SOURCES {
                let all = outputs(&toy, &toy.source_states(source), &[], 0.0, 3);
                assert!(all.len() > 500);
                let total: f64 = all.iter().map(|(_, score)| score.exp()).sum();
                assert!((total - 1.0).abs() < 1e-6, "{total}");
                for length_penalty in [-1.0, 0.0, 0.7, 2.0] {
                    let value = |(output, score): &(Vec<Token>, f64)| {
                        score / (output.len() as f64).powf(length_penalty)
                    };
                    let best = all.iter().max_by(|a, b| value(a).total_cmp(&value(b))).unwrap();
                    // As many as there are beginnings of two tokens, and one more.
                    let options = BeamOptions { length_penalty, ..BeamOptions::new(122, 3) };
                    assert_eq!(
                        tokens(search(&toy, &[source], options)),
                        std::slice::from_ref(&best.0),
                        "seed {seed}"
                    );
                    lengths[best.0.len()] += 1;
                }
            }
        }
    }
    assert!(lengths[1..].iter().all(|&count| count > 1), "{lengths:?}");
}

#[test]
fn more_beams_find_what_greedy_decoding_misses() {
    let (mut better, mut worse) = (0, 0);
    for seed in 0..10 {
        let toy = Toy::new(3, seed).with_eos(&[]);
        let score = |source: &[Token], output: &[Token]| {
            let source = toy.source_states(source);
            let of_token = |(at, &token): (usize, &Token)| {
                let logits = logits(&toy, &source, &output[..at]);
                let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
                f64::from(logits[token as usize]) - sum.ln()
            };
            output.iter().enumerate().map(of_token).sum::<f64>()
        };
        let with = |beams| tokens(search(&toy, &SOURCES, BeamOptions::new(beams, 6)));
        for ((source, greedy), found) in SOURCES.iter().zip(with(1)).zip(with(4)) {
            assert_eq!(found.len(), 6);
            let gain = score(source, &found) - score(source, &greedy);
            better += usize::from(gain > 1e-4);
            worse += usize::from(gain < -1e-4);
        }
    }
    assert!(better > 5 && worse < 3, "better {better}, worse {worse}");
}

#[test]
fn a_generation_says_what_all_hypotheses_took() {
    let toy = Toy::new(3, 1).with_eos(&[]);
    for generation in search(&toy, &SOURCES, BeamOptions::new(4, 5)) {
        assert_eq!(generation.exit_layers, [3; 5]);
        assert_eq!(generation.confidence, [None; 5]);
        // The first token has one hypothesis alone.
        assert_eq!(generation.executed_layers, 3 * (1 + 4 * 4));
        assert_eq!(generation.propagated, 0);
    }
    assert_eq!(search(&toy, &SOURCES, BeamOptions::new(2, 0)), vec![Generation::default(); 4]);
    assert_eq!(search(&toy, &[], BeamOptions::new(2, 5)), []);
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let toy = Toy::new(2, 0);
    let said = |rows: &[&[Token]], options: BeamOptions| {
        let error = beam_search(&*toy.read(rows).unwrap(), &options).unwrap_err();
        assert!(matches!(error, DecodeError::Beams(_)), "{error:?}");
        error.to_string()
    };
    assert_eq!(
        said(&SOURCES, BeamOptions::new(3, 5)),
        "cannot search with beams: 3 beams for each source do not make 4 rows"
    );
    assert_eq!(
        said(&SOURCES, BeamOptions::new(0, 5)),
        "cannot search with beams: 0 beams for each source do not make 4 rows"
    );
    let options = BeamOptions { length_penalty: f64::NAN, ..BeamOptions::new(2, 5) };
    assert_eq!(said(&SOURCES, options), "cannot search with beams: NaN is no length penalty");
}

proptest! {
    #![proptest_config(crate::cases(32))]

    /// Sources end at different steps; the others go on as if they were alone.
    #[test]
    fn sources_do_not_depend_on_each_other(
        seed in 0..1000_u64,
        beams in 1..6_usize,
        length_penalty in -1.0..2.0_f64,
        max_tokens in 1..9_usize,
    ) {
        let toy = Toy::new(2, seed).with_eos(&[1, 6]);
        let options = BeamOptions { beams, length_penalty, max_tokens };
        let together = search(&toy, &SOURCES, options);
        for (source, found) in SOURCES.iter().zip(together) {
            let alone = search(&toy, &[source], options).swap_remove(0);
            prop_assert_eq!(Generation { seconds: alone.seconds, ..found }, alone);
        }
    }
}
