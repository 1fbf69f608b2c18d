//! The decoding loop against the naive decoder, and the laws that hold for any backbone.

use calm_core::{
    Backbone, Calm, Confidence, DecodeError, DecodeOptions, ExitHead, Exits, Full, Generation, Layer,
    MEASURES, Matrix, Measure, MeasureKind, Oracle, Parameters, Policy, PolicySpec, Propagation, StaticDepth,
    StepMeasure, Threshold, Token, Top2, average_layers, decode,
};
use proptest::prelude::*;

use crate::naive::{self, Rule, View};
use crate::toy::{Toy, argmax};

fn run(
    toy: &Toy,
    sources: &[Vec<Token>],
    policy: &dyn Policy,
    max_tokens: usize,
    propagation: Propagation,
) -> Vec<Generation> {
    let sources: Vec<&[Token]> = sources.iter().map(Vec::as_slice).collect();
    let options = DecodeOptions { propagation, ..DecodeOptions::new(max_tokens) };
    decode(&*toy.read(&sources).unwrap(), policy, &options).unwrap()
}

/// All that is to be equal when two ways of decoding are equivalent.
fn outcome(generation: &Generation) -> Generation {
    Generation { propagated: 0, seconds: 0.0, ..generation.clone() }
}

fn outcomes(generations: &[Generation]) -> Vec<Generation> {
    generations.iter().map(outcome).collect()
}

/// A measure of all inputs at once. Its value has no meaning but changes when any of them does.
struct Everything;

fn everything(layer: usize, position: usize, hidden: &[f32], previous: &[f32], logits: &[f32]) -> f64 {
    let sum = |values: &[f32]| values.iter().map(|&x| f64::from(x)).sum::<f64>();
    let phase = sum(hidden) + 0.7 * sum(previous) + 0.3 * sum(logits) + 0.1 * (layer + 3 * position) as f64;
    0.5 + 0.5 * phase.sin()
}

impl Measure for Everything {
    fn begin_step(&self) -> Box<dyn StepMeasure + '_> {
        Box::new(EverythingStep { previous: Vec::new() })
    }
}

/// States after the layer before, by row.
struct EverythingStep {
    previous: Vec<Option<Vec<f32>>>,
}

impl StepMeasure for EverythingStep {
    fn confidence(&mut self, layer: &mut Layer<'_>) -> Result<Vec<Confidence>, DecodeError> {
        let (hidden, logits) = (layer.hidden()?, layer.logits()?);
        assert_eq!(layer.top2()?.len(), layer.entries().len());
        let mut found = Vec::new();
        for (index, entry) in layer.entries().iter().enumerate() {
            self.previous.resize(self.previous.len().max(entry.row + 1), None);
            let state = hidden.row(index);
            let previous = self.previous[entry.row].replace(state.to_vec()).unwrap_or_default();
            let (number, logits) = (layer.number(), logits.row(index));
            let value = everything(number, entry.position, state, &previous, logits) as f32;
            found.push(Confidence { value, token: Some(Top2::from_logits(logits).token) });
        }
        Ok(found)
    }
}

#[derive(Debug, Clone, Copy)]
enum Chosen {
    BuiltIn(&'static MeasureKind),
    Everything,
}

impl Chosen {
    fn measure(self, toy: &Toy, exits: Exits) -> Box<dyn Measure> {
        match self {
            Chosen::BuiltIn(measure) => measure.make(toy, exits).unwrap(),
            Chosen::Everything => Box::new(Everything),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Chosen::BuiltIn(measure) => measure.name,
            Chosen::Everything => "everything",
        }
    }

    /// Whether the exit heads are asked.
    fn asks_heads(self) -> bool {
        self.name().starts_with("head_") || self.name().starts_with("level_")
    }

    /// The token that an entry would leave with.
    fn token(self, toy: &Toy, view: &View<'_>) -> Token {
        argmax(&if self.asks_heads() { head_logits(toy, view) } else { view.logits.to_vec() })
    }

    /// The definition in the paper, section 3.5, written anew.
    fn naive(self, toy: &Toy, view: &View<'_>) -> f64 {
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        match self.name() {
            // The toy has fewer tokens than the pruned vocabulary.
            "agreement" | "agreement_pruned" | "level_entropy" | "level_gap" | "level_max" => {
                let mapped = match self.name() {
                    "level_entropy" => "head_entropy",
                    "level_gap" => "head_gap",
                    "level_max" => "head_max",
                    _ => "softmax",
                };
                let margin = Chosen::BuiltIn(MEASURES.get(mapped).unwrap()).naive(toy, view);
                let middle = 0.3 + 0.1 * view.layer as f64;
                if margin < 0.5 {
                    2.0 * margin * middle
                } else {
                    middle + (2.0 * margin - 1.0) * (1.0 - middle)
                }
            }
            "beta" => {
                // Beta(2, 1) has the density 2 x, and Beta(1, 2) has 2 (1 - x).
                let margin = Chosen::BuiltIn(MEASURES.get("softmax").unwrap()).naive(toy, view);
                let margin = margin.clamp(1e-4, 1.0 - 1e-4);
                let weight = 0.3 + 0.1 * view.layer as f64;
                weight * margin / (weight * margin + (1.0 - weight) * (1.0 - margin))
            }
            "softmax" | "pruned" => {
                let sum: f64 = view.logits.iter().map(|&logit| f64::from(logit).exp()).sum();
                let mut probabilities: Vec<f64> =
                    view.logits.iter().map(|&logit| f64::from(logit).exp() / sum).collect();
                probabilities.sort_by(f64::total_cmp);
                probabilities[probabilities.len() - 1] - probabilities[probabilities.len() - 2]
            }
            "state" if view.previous_hidden.is_empty() => 0.0,
            "state" => {
                let (now, before) = (view.hidden, view.previous_hidden);
                dot(now, before) / dot(now, now).sqrt() / dot(before, before).sqrt()
            }
            name if name.starts_with("head_") => {
                let mut logits: Vec<f64> = head_logits(toy, view).into_iter().map(f64::from).collect();
                let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
                let entropy: f64 = logits.iter().map(|logit| logit.exp() / sum * (sum.ln() - logit)).sum();
                let count = logits.len();
                logits.sort_by(f64::total_cmp);
                let (best, second) = (logits[count - 1], logits[count - 2]);
                let margin = (best.exp() - second.exp()) / sum;
                match name {
                    "head_confidence" => {
                        let trained = toy.exit_heads().unwrap().confidence(view.layer).unwrap();
                        let length = (dot(view.hidden, view.hidden) / view.hidden.len() as f64).sqrt();
                        let margin = margin.clamp(1e-4, 1.0 - 1e-4);
                        let sum = dot(&trained.weight, view.hidden) / length
                            + f64::from(trained.margin) * (margin / (1.0 - margin)).ln()
                            + f64::from(trained.bias);
                        1.0 / (1.0 + (-sum).exp())
                    }
                    "head_entropy" => 1.0 - entropy / (count as f64).ln(),
                    "head_gap" => 1.0 - (second - best).exp(),
                    "head_max" => best.exp() / sum,
                    _ => margin,
                }
            }
            "classifier" => {
                let classifier = toy.exit_classifier().unwrap();
                1.0 / (1.0 + (-dot(&classifier.weight, view.hidden) - f64::from(classifier.bias)).exp())
            }
            _ => everything(view.layer, view.position, view.hidden, view.previous_hidden, view.logits),
        }
    }
}

/// `h + up(down(norm(h)))` by its definition, through the shared head.
fn head_logits(toy: &Toy, view: &View<'_>) -> Vec<f32> {
    let head = toy.exit_heads().unwrap().get(view.layer).unwrap();
    let ExitHead::LowRank { norm, down, up } = head else { panic!("the toy has heads of low rank") };
    let size = view.hidden.iter().map(|x| x * x).sum::<f32>() / view.hidden.len() as f32;
    let normed: Vec<f32> = view
        .hidden
        .iter()
        .zip(&norm.weight)
        .map(|(x, weight)| weight * x / (size + norm.epsilon).sqrt())
        .collect();
    let times = |matrix: &Matrix, x: &[f32]| {
        matrix.rows().map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
    };
    let narrow: Vec<f32> = times(down, &normed);
    let added: Vec<f32> = times(up, &narrow);
    toy.logits(&view.hidden.iter().zip(added).map(|(x, added)| x + added).collect::<Vec<f32>>())
}

#[derive(Debug, Clone)]
enum Setting {
    Full,
    Static(usize),
    Oracle,
    OracleCopied,
    ShallowCache(usize),
    PerturbedSampling(usize),
    PerturbedLayer(usize),
    Patience(usize),
    Calm { measure: Chosen, threshold: f64, decay: Option<f64>, exits: Option<Exits> },
    ShallowDeep { layers: usize, measure: &'static MeasureKind, threshold: f64, cap: Option<usize> },
}

impl Setting {
    fn policy(&self, toy: &Toy) -> Box<dyn Policy> {
        match *self {
            Setting::Full => Box::new(Full),
            Setting::Static(layers) => Box::new(StaticDepth { layers }),
            Setting::Oracle => Box::new(Oracle),
            Setting::OracleCopied => spec("oracle-copied").make(toy).unwrap(),
            Setting::ShallowCache(layers) => spec(&format!("shallow-cache-{layers}")).make(toy).unwrap(),
            Setting::PerturbedSampling(at) => spec(&format!("perturbed-sampling-{at}")).make(toy).unwrap(),
            Setting::PerturbedLayer(at) => spec(&format!("perturbed-layer-{at}")).make(toy).unwrap(),
            Setting::Patience(layers) => spec(&format!("patience-{layers}")).make(toy).unwrap(),
            Setting::Calm { measure, threshold, decay, exits } => {
                let threshold = Threshold::new(threshold, decay).unwrap();
                let exits = exits.unwrap_or(Exits::all_below(toy.num_layers()));
                Box::new(Calm { measure: measure.measure(toy, exits), threshold, exits })
            }
            Setting::ShallowDeep { layers, measure, threshold, cap } => {
                let threshold = Some(Threshold::new(threshold, None).unwrap());
                let (layers, measure) = (Some(layers), Some(measure));
                let parameters = Parameters { layers, measure, threshold, cap, ..Parameters::default() };
                PolicySpec::new("shallow-deep", parameters).unwrap().make(toy).unwrap()
            }
        }
    }

    fn naive(&self, toy: &Toy, source: &[Token], max_tokens: usize) -> naive::Decoded {
        match *self {
            Setting::Full => naive::decode(toy, source, max_tokens, Rule::Fixed(toy.num_layers())),
            Setting::Static(layers) => naive::decode(toy, source, max_tokens, Rule::Fixed(layers)),
            Setting::Oracle => naive::decode(toy, source, max_tokens, Rule::Agreement),
            Setting::OracleCopied => naive::decode(toy, source, max_tokens, Rule::AgreementCopied),
            Setting::ShallowCache(layers) => naive::decode(toy, source, max_tokens, Rule::LastToken(layers)),
            Setting::PerturbedSampling(position) => {
                let rule = Rule::Changed { position, layer: toy.num_layers(), rank: 10 };
                naive::decode(toy, source, max_tokens, rule)
            }
            Setting::PerturbedLayer(position) => {
                let rule = Rule::Changed { position, layer: 1, rank: 1 };
                naive::decode(toy, source, max_tokens, rule)
            }
            Setting::Patience(layers) => naive::decode(toy, source, max_tokens, Rule::Patience(layers)),
            Setting::Calm { threshold: 1.0, .. } | Setting::ShallowDeep { threshold: 1.0, .. } => {
                naive::decode(toy, source, max_tokens, Rule::Fixed(toy.num_layers()))
            }
            Setting::Calm { measure, threshold, decay, exits } => {
                let exits = exits.unwrap_or(Exits::all_below(toy.num_layers()));
                let exits: Vec<usize> = exits.layers().collect();
                let threshold_at = |t: usize| match decay {
                    None => threshold,
                    // Eq. 5
                    Some(tau) => {
                        let lambda = 0.9 * threshold + 0.1 * (-tau * t as f64 / max_tokens as f64).exp();
                        lambda.clamp(0.0, 1.0)
                    }
                };
                let confidence = |view: &View<'_>| (measure.naive(toy, view), measure.token(toy, view));
                naive::decode(toy, source, max_tokens, Rule::Confidence(&exits, &confidence, &threshold_at))
            }
            Setting::ShallowDeep { layers, measure, threshold, .. } => {
                let measure = Chosen::BuiltIn(measure);
                let confidence = |view: &View<'_>| (measure.naive(toy, view), measure.token(toy, view));
                naive::decode(toy, source, max_tokens, Rule::ShallowDeep(layers, &confidence, threshold))
            }
        }
    }

    /// Layers that ran for each token of an output, where each layer ran as late as may be.
    fn executed(&self, num_layers: usize, exit_layers: &[usize]) -> Vec<usize> {
        match *self {
            Setting::Oracle | Setting::OracleCopied | Setting::ShallowCache(_) => {
                vec![num_layers; exit_layers.len()]
            }
            Setting::ShallowDeep { cap, .. } => {
                let (mut executed, mut waiting) = (exit_layers.to_vec(), 0);
                for at in 0..exit_layers.len() {
                    waiting += 1;
                    if exit_layers[at] == num_layers || cap == Some(waiting) {
                        executed[..=at].fill(num_layers);
                        waiting = 0;
                    }
                }
                executed
            }
            _ => exit_layers.to_vec(),
        }
    }
}

#[derive(Debug, Clone)]
struct Case {
    num_layers: usize,
    seed: u64,
    sources: Vec<Vec<Token>>,
    max_tokens: usize,
    setting: Setting,
}

fn settings(num_layers: usize) -> impl Strategy<Value = Setting> {
    let mut built_in: Vec<Chosen> = MEASURES.all().into_iter().map(Chosen::BuiltIn).collect();
    // A decoder of one layer has no layer to have a head for.
    built_in.retain(|measure| num_layers > 1 || !measure.asks_heads());
    let built_in = proptest::sample::select(built_in);
    let measure = prop_oneof![4 => built_in, 1 => Just(Chosen::Everything)];
    let threshold = prop_oneof![8 => 0.0..1.0, 1 => Just(0.0), 1 => Just(1.0)];
    let some = proptest::collection::vec(any::<bool>(), num_layers - 1);
    let exits = proptest::option::of(some.prop_map(|chosen| {
        let layers: Vec<usize> =
            (1..).zip(chosen).filter(|(_, chosen)| *chosen).map(|(layer, _)| layer).collect();
        Exits::new(&layers).ok()
    }));
    let calm = (measure, threshold, proptest::option::of(0.0..8.0), exits).prop_map(
        |(measure, threshold, decay, exits)| Setting::Calm {
            measure,
            threshold,
            decay,
            exits: exits.flatten(),
        },
    );
    let threshold = prop_oneof![8 => 0.0..1.0, 1 => Just(0.0), 1 => Just(1.0)];
    let cap = proptest::option::of(1..5_usize);
    let measures = proptest::sample::select(MEASURES.all());
    let shallow_deep = (1..num_layers.max(2), measures, threshold, cap).prop_map(
        move |(layers, measure, threshold, cap)| match num_layers {
            1 => Setting::Full,
            _ => Setting::ShallowDeep { layers, measure, threshold, cap },
        },
    );
    prop_oneof![
        1 => Just(Setting::Full),
        1 => (1..=num_layers).prop_map(Setting::Static),
        2 => Just(Setting::Oracle),
        2 => Just(Setting::OracleCopied),
        2 => (1..=num_layers).prop_map(Setting::ShallowCache),
        1 => (0..12_usize).prop_map(Setting::PerturbedSampling),
        1 => (0..12_usize).prop_map(Setting::PerturbedLayer),
        2 => (1..4_usize).prop_map(Setting::Patience),
        8 => calm,
        6 => shallow_deep,
    ]
}

fn cases() -> impl Strategy<Value = Case> {
    let source = proptest::collection::vec(0..11 as Token, 1..6);
    let sources = proptest::collection::vec(source, 0..5);
    (1..=5_usize, any::<u64>(), sources, 0..10_usize).prop_flat_map(
        |(num_layers, seed, sources, max_tokens)| {
            settings(num_layers).prop_map(move |setting| Case {
                num_layers,
                seed,
                sources: sources.clone(),
                max_tokens,
                setting,
            })
        },
    )
}

/// K/V entries that lazy propagation has to write: those of layers which a later token ran.
fn entries_reached_later(exit_layers: &[usize], layers_run: impl Fn(usize) -> usize) -> usize {
    let reached_later = |at: usize| (at + 1..exit_layers.len()).map(&layers_run).max().unwrap_or(0);
    exit_layers.iter().enumerate().map(|(at, &left)| reached_later(at).saturating_sub(left)).sum()
}

proptest! {
    #![proptest_config(crate::cases(512))]

    #[test]
    fn equals_the_naive_decoder(case in cases()) {
        let toy = Toy::new(case.num_layers, case.seed);
        let policy = case.setting.policy(&toy);
        let generations = run(&toy, &case.sources, &*policy, case.max_tokens, Propagation::Lazy);
        prop_assert_eq!(generations.len(), case.sources.len());
        for (source, generation) in case.sources.iter().zip(&generations) {
            let expected = case.setting.naive(&toy, source, case.max_tokens);
            prop_assert_eq!(&generation.tokens, &expected.tokens);
            prop_assert_eq!(&generation.exit_layers, &expected.exit_layers);
            prop_assert_eq!(generation.confidence.len(), expected.confidence.len());
            for (found, expected) in generation.confidence.iter().zip(&expected.confidence) {
                let equal = match (found, expected) {
                    (Some(found), Some(expected)) => (f64::from(*found) - expected).abs() < 1e-6,
                    (None, None) => true,
                    _ => false,
                };
                prop_assert!(equal, "confidence {:?} instead of {:?}", found, expected);
            }
        }
    }

    #[test]
    fn a_row_alone_equals_the_row_in_its_batch(case in cases()) {
        let toy = Toy::new(case.num_layers, case.seed);
        let policy = case.setting.policy(&toy);
        let together = run(&toy, &case.sources, &*policy, case.max_tokens, Propagation::Lazy);
        for (source, generation) in case.sources.iter().zip(&together) {
            let alone = run(&toy, std::slice::from_ref(source), &*policy, case.max_tokens, Propagation::Lazy);
            prop_assert_eq!(outcome(&alone[0]), outcome(generation));
            prop_assert_eq!(alone[0].propagated, generation.propagated);
        }
    }

    #[test]
    fn lazy_propagation_equals_eager_propagation(case in cases()) {
        let toy = Toy::new(case.num_layers, case.seed);
        let policy = case.setting.policy(&toy);
        let lazy = run(&toy, &case.sources, &*policy, case.max_tokens, Propagation::Lazy);
        let eager = run(&toy, &case.sources, &*policy, case.max_tokens, Propagation::Eager);
        let defers = matches!(case.setting, Setting::ShallowDeep { .. });
        for (lazy, eager) in lazy.iter().zip(&eager) {
            let executed = case.setting.executed(case.num_layers, &lazy.exit_layers);
            prop_assert_eq!(lazy.executed_layers, executed.iter().sum::<usize>());
            let mut expected = outcome(lazy);
            if defers && matches!(case.setting, Setting::ShallowDeep { threshold: 0.0..1.0, .. }) {
                expected.executed_layers = case.num_layers * lazy.tokens.len();
            }
            prop_assert_eq!(expected, outcome(eager));
            let reached = entries_reached_later(&lazy.exit_layers, |at| executed[at]);
            prop_assert_eq!(lazy.propagated, if defers { 0 } else { reached });
            let skipped: usize = lazy.exit_layers.iter().map(|left| case.num_layers - left).sum();
            prop_assert_eq!(eager.propagated, if defers { 0 } else { skipped });
        }
    }
}

/// A few dozen decodings of one policy, sources of mixed length.
fn sample(spec: PolicySpec, num_layers: usize) -> Vec<Generation> {
    let sources: Vec<Vec<Token>> = vec![vec![3], vec![4, 5, 6, 7, 2], vec![9, 8], vec![10, 2, 10, 2]];
    let of_seed = |seed| {
        let toy = Toy::new(num_layers, seed);
        run(&toy, &sources, &*spec.make(&toy).unwrap(), 12, Propagation::Lazy)
    };
    (0..20).flat_map(of_seed).collect()
}

fn spec(id: &str) -> PolicySpec {
    id.parse().unwrap()
}

#[test]
fn equivalent_policies_give_the_same() {
    let check = |spec: PolicySpec, other: PolicySpec| {
        assert_eq!(outcomes(&sample(spec, 4)), outcomes(&sample(other, 4)), "{spec} and {other}");
    };
    check(PolicySpec::full(), PolicySpec::fixed(4));
    check(PolicySpec::full(), spec("shallow-cache-4"));
    // No output is as long.
    check(PolicySpec::full(), spec("perturbed-sampling-12"));
    check(PolicySpec::full(), spec("perturbed-layer-12"));
    for measure in MEASURES.all() {
        check(PolicySpec::full(), spec(&format!("calm-{measure}-1")));
        check(PolicySpec::full(), spec(&format!("calm-{measure}-1-tau4")));
    }
}

/// The tests of this module would show little if exits, ends and propagation were rare in the toy.
#[test]
fn the_toy_exercises_the_loop() {
    for id in [
        "calm-softmax-0.4",
        "calm-softmax-0.4-tau4",
        "calm-state-0.85",
        "calm-classifier-0.6",
        "oracle",
        "oracle-copied",
    ] {
        let spec = spec(id);
        let generations = sample(spec, 4);
        let first = usize::from(id.starts_with("calm-state"));
        for layer in first + 1..=4 {
            let at_layer =
                generations.iter().flat_map(|g| &g.exit_layers).filter(|&&left| left == layer).count();
            assert!(at_layer > 20, "{spec}: {at_layer} exits at layer {layer}");
        }
        let ended = generations.iter().filter(|g| g.tokens.last() == Some(&1)).count();
        assert!((10..75).contains(&ended), "{spec}: {ended} of {} ended", generations.len());
        assert!(generations.iter().map(|g| g.propagated).sum::<usize>() > 100, "{spec}");
    }
}

/// An output is the full model's before the position, and is decoded on from the substitute.
#[test]
fn a_perturbed_output_has_one_token_changed() {
    let full = sample(spec("full"), 4);
    for position in [0, 1, 3, 7] {
        for (kind, always_differs) in [("sampling", true), ("layer", false)] {
            let perturbed = sample(spec(&format!("perturbed-{kind}-{position}")), 4);
            let (mut changed, mut ended) = (0, 0);
            for (full, perturbed) in full.iter().zip(&perturbed) {
                assert!(perturbed.exit_layers.iter().all(|&layers| layers == 4));
                assert_eq!(perturbed.fallbacks, 0);
                if full.tokens.len() <= position {
                    assert_eq!(outcome(perturbed), outcome(full));
                    continue;
                }
                assert_eq!(perturbed.tokens[..position], full.tokens[..position]);
                let differs = perturbed.tokens[position] != full.tokens[position];
                assert!(differs || !always_differs, "{kind} {position}");
                assert!(differs || outcome(perturbed) == outcome(full), "{kind} {position}");
                changed += usize::from(differs);
                ended += usize::from(perturbed.tokens.len() == position + 1);
            }
            assert!(changed > 10 && ended > 0, "{kind} {position}: {changed} changed, {ended} ended");
        }
    }
}

/// What missing states do, and copies in their place, shows in the outputs.
#[test]
fn caches_of_lower_layers_change_outputs() {
    let tokens = |id: &str| -> Vec<Vec<Token>> {
        sample(spec(id), 4).into_iter().map(|generation| generation.tokens).collect()
    };
    let all = ["full", "shallow-cache-1", "shallow-cache-2", "oracle", "oracle-copied"].map(tokens);
    for (number, outputs) in all.iter().enumerate() {
        assert!(!all[..number].contains(outputs));
    }
    // The last layer's keys and values are made from the state after the one below it in any case.
    assert_eq!(all[0], tokens("shallow-cache-3"));
}

#[test]
fn generations_end_after_the_end_token_or_at_the_limit() {
    for generation in sample(spec("calm-softmax-0.5"), 3) {
        let end = generation.tokens.iter().position(|&token| token == 1);
        assert_eq!(generation.tokens.len(), end.map_or(12, |at| at + 1));
        assert_eq!(generation.exit_layers.len(), generation.tokens.len());
        assert_eq!(generation.confidence.len(), generation.tokens.len());
        assert!(generation.seconds > 0.0);
    }
}

#[test]
fn any_of_several_end_tokens_ends_a_generation() {
    let ends: &[Token] = &[1, 4, 7];
    let mut seen = Vec::new();
    for seed in 0..20 {
        let toy = Toy::new(2, seed).with_eos(ends);
        let sources = vec![vec![3], vec![4, 5]];
        for generation in run(&toy, &sources, &Full, 12, Propagation::Lazy) {
            let end = generation.tokens.iter().position(|token| ends.contains(token));
            assert_eq!(generation.tokens.len(), end.map_or(12, |at| at + 1));
            seen.extend(end.map(|at| generation.tokens[at]));
        }
        let options = DecodeOptions { ignore_eos: true, ..DecodeOptions::new(12) };
        let endless = decode(&*toy.read(&[&[3]]).unwrap(), &Full, &options).unwrap();
        assert_eq!(endless[0].tokens.len(), 12);
    }
    assert!(ends.iter().all(|end| seen.contains(end)), "{seen:?}");
}

#[test]
fn nothing_to_decode_gives_nothing() {
    let toy = Toy::new(2, 0);
    assert!(run(&toy, &[], &Full, 5, Propagation::Lazy).is_empty());
    assert_eq!(
        run(&toy, &[vec![2], vec![3]], &Oracle, 0, Propagation::Eager),
        vec![Generation::default(), Generation::default()]
    );
}

/// Says what it is told to, and that it was asked.
struct Scripted(fn(usize) -> f32);

impl Measure for Scripted {
    fn begin_step(&self) -> Box<dyn StepMeasure + '_> {
        Box::new(Scripted(self.0))
    }
}

impl StepMeasure for Scripted {
    fn confidence(&mut self, layer: &mut Layer<'_>) -> Result<Vec<Confidence>, DecodeError> {
        assert!(layer.number() < 4 && !layer.is_last(), "nothing is decided after the last layer");
        let confidence = Confidence { value: self.0(layer.number()), token: None };
        Ok(vec![confidence; layer.entries().len()])
    }
}

#[test]
fn a_token_leaves_where_the_confidence_reaches_the_threshold() {
    let check = |confidence: fn(usize) -> f32, threshold: f64, exit: usize, recorded: Option<f32>| {
        let toy = Toy::new(4, 5);
        let threshold = Threshold::new(threshold, None).unwrap();
        let exits = Exits::all_below(toy.shape().num_layers);
        let policy = Calm { measure: Box::new(Scripted(confidence)), threshold, exits };
        for generation in run(&toy, &[vec![3, 4], vec![5]], &policy, 6, Propagation::Lazy) {
            assert!(generation.exit_layers.iter().all(|&left| left == exit), "{:?}", generation.exit_layers);
            for confidence in generation.confidence {
                assert_eq!(confidence.map(f32::to_bits), recorded.map(f32::to_bits));
            }
        }
    };
    // A tie is an exit.
    check(|layer| [0.0, 0.25, 0.5, 0.75][layer], 0.5, 2, Some(0.5));
    check(|layer| [0.0, 0.25, 0.5, 0.75][layer], 0.25, 1, Some(0.25));
    // The f32 nearest to 0.7 is less than 0.7.
    check(|layer| [0.0, 0.7, 0.7, 0.75][layer], 0.7, 3, Some(0.75));
    check(|_| 0.0, 0.0, 1, Some(0.0));
    // No layer is sure, and the last tested has said so.
    check(|layer| [0.0, 0.1, 0.9, 0.3][layer], 0.95, 4, Some(0.3));
    check(|_| f32::NAN, 0.0, 4, Some(f32::NAN));
    // Not even a confidence of 1 is enough for the threshold 1, nor is it asked for.
    check(|_| panic!("not to be asked"), 1.0, 4, None);
}

#[test]
fn mean_exit_layer_is_over_tokens() {
    let check = |lists: &[&[usize]], expected: Option<f64>| {
        let generation = |list: &&[usize]| Generation { exit_layers: list.to_vec(), ..Generation::default() };
        let generations: Vec<Generation> = lists.iter().map(generation).collect();
        assert_eq!(average_layers(&generations), expected);
        if let [generation] = &generations[..] {
            assert_eq!(generation.average_layers(), expected);
        }
    };
    check(&[], None);
    check(&[&[]], None);
    check(&[&[1, 2, 6]], Some(3.0));
    check(&[&[1, 2, 3], &[6]], Some(3.0));
}
