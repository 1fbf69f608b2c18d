//! Drawing tokens by their probabilities.

use calm_core::{Backbone, DecodeOptions, Entry, Filter, Generation, PolicySpec, Sampling, Token, decode};

use crate::toy::Toy;

const PLAIN: Filter = Filter { temperature: 1.0, top_k: None, top_p: None };

/// How often each token is drawn with so many seeds.
fn counts(filter: Filter, logits: &[f32], draws: usize) -> Vec<f64> {
    let seeds: Vec<u64> = (0..draws as u64).collect();
    let sampling = Sampling::new(filter, seeds).unwrap();
    let mut counts = vec![0.0; logits.len()];
    for row in 0..draws {
        // Different positions, so that neither seeds nor positions may be related.
        counts[sampling.draw(Entry { row, position: row % 7 }, logits) as usize] += 1.0;
    }
    counts
}

/// Pearson's statistic, with tokens that must not be drawn counted as infinitely far off.
fn chi_squared(counts: &[f64], probabilities: &[f64]) -> f64 {
    let draws: f64 = counts.iter().sum();
    let term = |(count, probability): (&f64, &f64)| match *probability {
        0.0 if *count > 0.0 => f64::INFINITY,
        0.0 => 0.0,
        probability => (count - draws * probability).powi(2) / (draws * probability),
    };
    counts.iter().zip(probabilities).map(term).sum()
}

const LOGITS: [f32; 6] = [0.3, 2.0, -1.0, 1.5, f32::NEG_INFINITY, 0.9];

/// Softmax of some of the logits divided by a temperature, 0 for the others.
fn softmax(kept: &[usize], temperature: f64) -> Vec<f64> {
    let weight = |token: usize| (f64::from(LOGITS[token]) / temperature).exp();
    let sum: f64 = kept.iter().map(|&token| weight(token)).sum();
    (0..LOGITS.len()).map(|token| if kept.contains(&token) { weight(token) / sum } else { 0.0 }).collect()
}

/// The 99.9 % points of chi-squared are 20.5 with five degrees of freedom and less with fewer.
#[test]
fn tokens_come_as_often_as_their_probabilities_say() {
    let check = |filter: Filter, kept: &[usize], temperature: f64| {
        let statistic = chi_squared(&counts(filter, &LOGITS, 20_000), &softmax(kept, temperature));
        assert!(statistic < 20.5, "{filter:?}: {statistic}");
    };
    let all: &[usize] = &[0, 1, 2, 3, 5];
    check(PLAIN, all, 1.0);
    check(Filter { temperature: 0.5, ..PLAIN }, all, 0.5);
    check(Filter { temperature: 3.0, ..PLAIN }, all, 3.0);
    check(Filter { top_k: Some(2), ..PLAIN }, &[1, 3], 1.0);
    check(Filter { top_k: Some(100), ..PLAIN }, all, 1.0);
    // Probabilities are 0.44, 0.27, 0.15, 0.08, 0.02, in the order of tokens 1, 3, 5, 0, 2.
    check(Filter { top_p: Some(0.6), ..PLAIN }, &[1, 3], 1.0);
    check(Filter { top_p: Some(0.75), ..PLAIN }, &[1, 3, 5], 1.0);
    check(Filter { top_p: Some(1.0), ..PLAIN }, all, 1.0);
    // Half of the temperature sharpens before the mass is counted, and top-k comes before top-p.
    check(Filter { temperature: 0.5, top_p: Some(0.6), ..PLAIN }, &[1], 0.5);
    check(Filter { top_k: Some(2), top_p: Some(0.65), ..PLAIN }, &[1, 3], 1.0);
    check(Filter { top_k: Some(2), top_p: Some(0.6), ..PLAIN }, &[1], 1.0);
}

#[test]
fn a_wrong_distribution_would_be_noticed() {
    let uniform = softmax(&[0, 1, 2, 3, 5], 1e9);
    assert!(chi_squared(&counts(PLAIN, &LOGITS, 20_000), &uniform) > 1000.0);
}

#[test]
fn draws_depend_on_seed_position_and_logits_alone() {
    let draw = |seeds: &[u64], row, position| {
        Sampling::new(PLAIN, seeds).unwrap().draw(Entry { row, position }, &LOGITS)
    };
    let alone: Vec<Token> = (0..200).map(|position| draw(&[9], 0, position)).collect();
    let among: Vec<Token> = (0..200).map(|position| draw(&[4, 9, 9], 1, position)).collect();
    assert_eq!(alone, among);
    let other: Vec<Token> = (0..200).map(|position| draw(&[10], 0, position)).collect();
    assert_ne!(alone, other);
}

#[test]
fn filters_outside_their_range_are_refused() {
    let check = |filter: Filter, message: &str| {
        assert_eq!(Sampling::new(filter, [1]).unwrap_err().to_string(), message);
    };
    for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let message = format!("the temperature must be above 0, not {temperature}");
        check(Filter { temperature, ..PLAIN }, &message);
    }
    check(Filter { top_k: Some(0), ..PLAIN }, "top-k must be at least 1");
    check(Filter { top_p: Some(0.0), ..PLAIN }, "top-p must be above 0 and at most 1, not 0");
    check(Filter { top_p: Some(1.5), ..PLAIN }, "top-p must be above 0 and at most 1, not 1.5");
}

fn generate(toy: &Toy, id: &str, sources: &[&[Token]], seeds: &[u64]) -> Vec<Generation> {
    let policy = id.parse::<PolicySpec>().unwrap().make(toy).unwrap();
    let sampling = Some(Sampling::new(PLAIN, seeds).unwrap());
    decode(&*toy.read(sources).unwrap(), &*policy, &DecodeOptions { sampling, ..DecodeOptions::new(10) })
        .unwrap()
}

#[test]
fn a_row_draws_alone_what_it_draws_in_a_batch() {
    for id in ["full", "static-2", "calm-softmax-0.4", "calm-state-0.8", "patience-1", "shallow-deep-2-0.3"] {
        for seed in 0..10 {
            let toy = Toy::new(4, seed);
            let sources: [&[Token]; 3] = [&[3], &[4, 5, 6], &[3]];
            let together = generate(&toy, id, &sources, &[1, 2, 3]);
            for (row, source) in sources.iter().enumerate() {
                let alone = generate(&toy, id, &[source], &[row as u64 + 1]);
                assert_eq!(alone[0].tokens, together[row].tokens, "{id}");
                assert_eq!(alone[0].exit_layers, together[row].exit_layers, "{id}");
            }
        }
    }
}

/// The first two tokens of an output, with the probabilities that the chain rule gives them.
#[test]
fn sequences_come_as_often_as_their_probabilities_say() {
    let toy = Toy::new(3, 11).with_eos(&[]);
    let source: &[Token] = &[3, 4];
    let prompt = toy.read(&[source]).unwrap();
    let step = |tokens: &[Token]| {
        let mut session = prompt.start(4).unwrap();
        let mut inputs = prompt.first_inputs();
        inputs.extend(tokens);
        for (position, &input) in inputs.iter().enumerate() {
            let entries = [Entry { row: 0, position }];
            session.embed(&entries, &[input]).unwrap();
            for layer in 1..=3 {
                session.run_layer(layer, &entries).unwrap();
            }
        }
        let entries = [Entry { row: 0, position: tokens.len() }];
        let logits = session.logits(&entries).unwrap().data;
        let weights: Vec<f64> = logits.iter().map(|&logit| f64::from(logit).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect::<Vec<f64>>()
    };
    let first = step(&[]);
    let vocab = first.len();
    let both: Vec<f64> = (0..vocab)
        .flat_map(|token| step(&[token as Token]).into_iter().map(move |next| (token, next)))
        .map(|(token, next)| first[token] * next)
        .collect();
    for id in ["full", "self-speculative-draft1.2", "self-speculative"] {
        let policy = id.parse::<PolicySpec>().unwrap().make(&toy).unwrap();
        let mut counts = vec![0.0; vocab * vocab];
        for batch in 0..60_u64 {
            let seeds: Vec<u64> = (0..100).map(|row| batch * 100 + row).collect();
            let prompt = toy.read(&[source; 100]).unwrap();
            let sampling = Some(Sampling::new(PLAIN, seeds).unwrap());
            let options = DecodeOptions { sampling, ..DecodeOptions::new(2) };
            for generation in decode(&*prompt, &*policy, &options).unwrap() {
                counts[generation.tokens[0] as usize * vocab + generation.tokens[1] as usize] += 1.0;
            }
        }
        // Pairs that hardly come are counted together, as Pearson's statistic needs.
        let (mut rare, mut rare_probability, mut statistic, mut cells) = (0.0, 0.0, 0.0, 0);
        for (count, probability) in counts.iter().zip(&both) {
            let expected = 6000.0 * probability;
            if expected < 5.0 {
                rare += count;
                rare_probability += probability;
            } else {
                statistic += (count - expected).powi(2) / expected;
                cells += 1;
            }
        }
        statistic += (rare - 6000.0 * rare_probability).powi(2) / (6000.0 * rare_probability).max(1e-9);
        // Its mean is the number of cells, and its variance twice that.
        let limit = f64::from(cells) + 4.0 * (2.0 * f64::from(cells)).sqrt();
        assert!(cells > 20 && statistic < limit, "{id}: {statistic} of {cells} cells");
    }
}

#[test]
fn the_oracle_draws_nothing() {
    let toy = Toy::new(3, 0);
    let policy = "oracle".parse::<PolicySpec>().unwrap().make(&toy).unwrap();
    let sampling = Some(Sampling::new(PLAIN, [1]).unwrap());
    let options = DecodeOptions { sampling, ..DecodeOptions::new(4) };
    let error = decode(&*toy.read(&[&[3]]).unwrap(), &*policy, &options).unwrap_err();
    assert_eq!(error.to_string(), "the policy is about the best tokens and cannot draw them");
    let sampling = Some(Sampling::new(PLAIN, [1, 2]).unwrap());
    let options = DecodeOptions { sampling, ..DecodeOptions::new(4) };
    let full = PolicySpec::full().make(&toy).unwrap();
    let error = decode(&*toy.read(&[&[3]]).unwrap(), &*full, &options).unwrap_err();
    assert_eq!(error.to_string(), "tokens of 1 rows need as many seeds, not 2");
}
