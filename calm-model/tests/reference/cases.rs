//! The cases of this folder, and how to compare an engine with them. Test suites of engines include this
//! file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use calm_core::{
    Backbone, DecodeOptions, DecoderSession, Entry, Filter, Generation, Matrix, PolicySpec, Propagation,
    Sampling, Token, decode, dot,
};

#[derive(serde::Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Clone, serde::Deserialize)]
pub(crate) struct Case {
    pub(crate) input_ids: Vec<Token>,
    pub(crate) max_tokens: usize,
    pub(crate) policy: PolicySpec,
    pub(crate) tokens: Vec<Token>,
    pub(crate) exit_layers: Vec<usize>,
    pub(crate) confidence: Vec<Option<f32>>,
    /// Layer-tokens that run if layers run as late as may be, where exits do not tell.
    pub(crate) executed_layers: Option<usize>,
}

/// Finds the folder of a checkpoint: where the test was compiled or, on another machine, in the repository in
/// which it runs.
pub(crate) fn checkpoint(name: &str) -> PathBuf {
    let compiled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../calm-model/tests/reference");
    let folder = if compiled.is_dir() { compiled } else { PathBuf::from("calm-model/tests/reference") };
    folder.join(name)
}

/// Tolerance of the confidences of an f32 network against f64; decisions are 1e-3 away from a tie.
pub(crate) const F32_TOLERANCE: f32 = 5e-4;

/// Checkpoints of encoder-decoders, and of decoders.
pub(crate) const T5: [&str; 2] = ["v1_0", "v1_1"];
pub(crate) const LLAMA: [&str; 2] = ["llama_gqa_tied", "llama_mha_untied"];

/// Checkpoints that are there as a GGUF file of f32, too.
pub(crate) const GGUF_F32: [&str; 3] = ["v1_0", "v1_1", "llama_gqa_tied"];

/// Finds the cases that hold for a GGUF file of a checkpoint, which has no exit classifier.
pub(crate) fn cases_of_gguf(name: &str) -> Vec<Case> {
    let mut cases = cases(name);
    cases.retain(|case| !case.policy.to_string().contains("classifier"));
    assert!(cases.len() > 100);
    cases
}

pub(crate) fn cases(name: &str) -> Vec<Case> {
    let files = ["cases.json", "shallow_deep.json"].map(|file| checkpoint(name).join(file));
    let of_file = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        serde_json::from_str::<Cases>(&text).unwrap().cases
    };
    files.iter().filter(|path| path.is_file()).flat_map(of_file).collect()
}

pub(crate) fn check(case: &Case, generation: &Generation, tolerance: f32) {
    let context = format!("{} on {} tokens", case.policy, case.input_ids.len());
    assert_eq!(generation.tokens, case.tokens, "{context}");
    assert_eq!(generation.exit_layers, case.exit_layers, "{context}");
    assert_eq!(generation.confidence.len(), case.confidence.len(), "{context}");
    for (found, expected) in generation.confidence.iter().zip(&case.confidence) {
        match (found, expected) {
            (Some(found), Some(expected)) => {
                assert!((found - expected).abs() < tolerance, "{context}: {found} instead of {expected}");
            }
            _ => assert_eq!(found, expected, "{context}"),
        }
    }
}

pub(crate) fn decode_cases(
    model: &dyn Backbone,
    cases: &[&Case],
    propagation: Propagation,
) -> Vec<Generation> {
    let sources: Vec<&[Token]> = cases.iter().map(|case| case.input_ids.as_slice()).collect();
    let policy = cases[0].policy.make(model).unwrap();
    let options = DecodeOptions { propagation, ..DecodeOptions::new(cases[0].max_tokens) };
    decode(&*model.read(&sources).unwrap(), &*policy, &options).unwrap()
}

/// Checks every case by itself.
pub(crate) fn check_alone(model: &dyn Backbone, cases: &[Case], tolerance: f32) {
    for case in cases {
        let generation = &decode_cases(model, &[case], Propagation::Lazy)[0];
        check(case, generation, tolerance);
        if let Some(executed_layers) = case.executed_layers {
            assert_eq!(generation.executed_layers, executed_layers, "{}", case.policy);
        }
    }
}

/// Drafts that are verified give the full model's tokens, in batches of all sizes, best ones and drawn ones.
/// Gives how many of the drafts stayed.
pub(crate) fn check_speculation(model: &dyn Backbone, cases: &[Case]) -> usize {
    let sources: Vec<&[Token]> = cases.iter().map(|case| case.input_ids.as_slice()).collect();
    let filter = Filter { temperature: 0.7, top_k: Some(50), top_p: Some(0.95) };
    let mut stayed = 0;
    for size in [1, 3, sources.len()] {
        for sources in sources.chunks(size) {
            let prompt = model.read(sources).unwrap();
            let seeds: Vec<u64> = (0..sources.len() as u64).collect();
            for sampling in [None, Some(Sampling::new(filter, seeds).unwrap())] {
                let options = DecodeOptions { sampling, ..DecodeOptions::new(20) };
                let run = |policy: &str| {
                    let policy: PolicySpec = policy.parse().unwrap();
                    decode(&*prompt, &*policy.make(model).unwrap(), &options).unwrap()
                };
                let full = run("full");
                for policy in ["self-speculative-draft1.2", "self-speculative-draft2.4", "self-speculative"] {
                    for (full, drafted) in full.iter().zip(run(policy)) {
                        assert_eq!(full.tokens, drafted.tokens, "{policy}");
                        let num_layers = model.shape().num_layers;
                        stayed += drafted.exit_layers.iter().filter(|&&layer| layer < num_layers).count();
                    }
                }
            }
        }
    }
    stayed
}

/// Checks all cases in batches of mixed lengths.
pub(crate) fn check_in_batches(model: &dyn Backbone, cases: &[Case], tolerance: f32) {
    let mut by_policy: BTreeMap<(String, usize), Vec<&Case>> = BTreeMap::new();
    for case in cases {
        by_policy.entry((case.policy.to_string(), case.max_tokens)).or_default().push(case);
    }
    for (size, propagation) in [(3, Propagation::Lazy), (8, Propagation::Lazy), (8, Propagation::Eager)] {
        for cases in by_policy.values() {
            for rows in cases.chunks(size) {
                for (case, generation) in rows.iter().zip(decode_cases(model, rows, propagation)) {
                    check(case, &generation, tolerance);
                }
            }
        }
    }
}

/// What is decoded in [`check_entries`]: rows of different lengths. The tokens need not be likely.
const SOURCES: [&[Token]; 3] = [&[5, 9, 13, 7], &[21, 4], &[8, 8, 30, 2, 17, 6]];
const TARGETS: [&[Token]; 3] = [&[0, 14, 3, 92, 41, 7], &[0, 77, 5, 60], &[0, 19]];

fn entries(positions: &[(usize, std::ops::Range<usize>)]) -> Vec<Entry> {
    let entries = |(row, positions): &(usize, std::ops::Range<usize>)| {
        let row = *row;
        positions.clone().map(move |position| Entry { row, position }).collect::<Vec<_>>()
    };
    positions.iter().flat_map(entries).collect()
}

fn embed(session: &mut dyn DecoderSession, entries: &[Entry]) {
    let tokens: Vec<Token> = entries.iter().map(|entry| TARGETS[entry.row][entry.position]).collect();
    session.embed(entries, &tokens).unwrap();
}

/// The short ways of measures give what the long ones do: products with states to the last bit, the tokens of
/// the exact head, margins that are about as large.
fn check_what_measures_ask(session: &mut dyn DecoderSession, entries: &[Entry], states: &Matrix) {
    let weight: Vec<f32> = (0..states.columns).map(|i| (i as f32).sin()).collect();
    let mut products = vec![0.5];
    session.dot_hidden(entries, &weight, &mut products).unwrap();
    let expected: Vec<f64> = states.rows().map(|state| dot(&weight, state)).collect();
    assert_eq!(products, expected);

    let exact = session.top2(entries).unwrap();
    let estimated = session.estimated_top2(entries).unwrap();
    for (exact, estimated) in exact.iter().zip(&estimated) {
        assert_eq!(estimated.token, exact.token);
        assert!((estimated.margin - exact.margin).abs() < 0.05, "{estimated:?} instead of {exact:?}");
    }
    let shortlists = session.shortlists(entries, 5).unwrap();
    for (shortlist, estimated) in shortlists.iter().zip(&estimated) {
        assert_eq!(shortlist.top2, *estimated);
        assert!(shortlist.tokens.len() == 5 && shortlist.tokens.is_sorted_by(|a, b| a < b));
        assert!(shortlist.tokens.contains(&estimated.token));
    }
    // The best token of all is the best one of a shortlist.
    let candidates: Vec<&[Token]> = shortlists.iter().map(|shortlist| &shortlist.tokens[..]).collect();
    for (among, exact) in session.top2_among(entries, &candidates).unwrap().iter().zip(&exact) {
        assert_eq!(among.token, exact.token);
    }
}

/// The contract of a session beyond what the decoding loop uses: several positions of a row in one call, rows
/// at different positions, layers that run later for several positions at once, and positions that are
/// forgotten. All of it gives the states that a row gets by itself, a position at a time.
pub(crate) fn check_entries(model: &dyn Backbone, tolerance: f32) {
    let num_layers = model.shape().num_layers;
    let mut expected = BTreeMap::new();
    for (row, source) in SOURCES.iter().enumerate() {
        let prompt = model.read(&[source]).unwrap();
        let mut session = prompt.start(8).unwrap();
        for (position, &token) in TARGETS[row].iter().enumerate() {
            let alone = [Entry { row: 0, position }];
            session.embed(&alone, &[token]).unwrap();
            for layer in 1..=num_layers {
                session.run_layer(layer, &alone).unwrap();
            }
            expected.insert(Entry { row, position }, session.hidden(&alone).unwrap().data);
        }
    }
    let prompt = model.read(&SOURCES).unwrap();
    let check = |session: &mut dyn DecoderSession, entries: &[Entry]| {
        let states = session.hidden(entries).unwrap();
        assert_eq!(states.num_rows(), entries.len());
        for (entry, state) in entries.iter().zip(states.rows()) {
            for (found, expected) in state.iter().zip(&expected[entry]) {
                let difference = (found - expected).abs();
                assert!(difference <= tolerance, "{entry:?}: {found} instead of {expected}");
            }
        }
        let tokens = session.predict(entries).unwrap();
        let best: Vec<Token> = session.top2(entries).unwrap().iter().map(|top2| top2.token).collect();
        assert_eq!(tokens, best);
        check_what_measures_ask(session, entries, &states);
    };
    let run =
        |session: &mut dyn DecoderSession, layers: std::ops::RangeInclusive<usize>, entries: &[Entry]| {
            for layer in layers {
                session.run_layer(layer, entries).unwrap();
            }
        };

    // All positions of all rows at once.
    let all = entries(&[(0, 0..6), (1, 0..4), (2, 0..2)]);
    let mut session = prompt.start(8).unwrap();
    embed(&mut *session, &all);
    run(&mut *session, 1..=num_layers, &all);
    check(&mut *session, &all);

    // Some of what was seen comes again after it was forgotten and something else was there.
    for (row, length) in [(0, 3), (1, 0)] {
        session.crop(row, length).unwrap();
    }
    let other = entries(&[(0, 3..5)]);
    session.embed(&other, &[50, 51]).unwrap();
    run(&mut *session, 1..=num_layers, &other);
    session.crop(0, 3).unwrap();
    let again = entries(&[(0, 3..6), (1, 0..4)]);
    embed(&mut *session, &again);
    run(&mut *session, 1..=num_layers, &again);
    check(&mut *session, &again);

    // Rows begin with different numbers of positions, and go on at different ones.
    let mut session = prompt.start(8).unwrap();
    for positions in [
        entries(&[(0, 0..3), (1, 0..2)]),
        entries(&[(0, 3..4), (1, 2..3), (2, 0..1)]),
        entries(&[(1, 3..4)]),
        entries(&[(0, 4..6), (2, 1..2)]),
    ] {
        embed(&mut *session, &positions);
        run(&mut *session, 1..=num_layers, &positions);
        check(&mut *session, &positions);
    }

    // The layers above the first wait for three positions of the first row, whose states are also put back.
    let mut session = prompt.start(8).unwrap();
    for position in 0..3 {
        let step = entries(&[(0, position..position + 1), (1, position..position + 1)]);
        embed(&mut *session, &step);
        run(&mut *session, 1..=1, &step);
        run(&mut *session, 2..=num_layers, &step[1..]);
        check(&mut *session, &step[1..]);
    }
    let waiting = entries(&[(0, 0..3)]);
    let states = session.hidden(&waiting).unwrap();
    session.set_hidden(&waiting, &states).unwrap();
    run(&mut *session, 2..=num_layers, &waiting);
    check(&mut *session, &waiting);
}
