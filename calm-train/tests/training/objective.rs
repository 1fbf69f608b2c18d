use calm_train::objective::{HeadLoss, exit_nll, exit_weights, exits_of_step, nll_sums};
use calm_train::{ExitSampling, ExitWeights, ObjectiveConfig};
use tch::{Device, Kind, Reduction, Tensor};

use crate::tiny::alone;

fn config(exit_weights: ExitWeights, sampled_exits: Option<usize>) -> ObjectiveConfig {
    ObjectiveConfig { exit_weights, sampled_exits, ..ObjectiveConfig::default() }
}

#[test]
fn exit_weights_are_those_of_the_paper() {
    for layers in 1..=12 {
        let weights = exit_weights(&config(ExitWeights::Linear, None), layers);
        let sum = (layers * (layers + 1) / 2) as f64;
        for (layer, weight) in (1..).zip(&weights) {
            assert!((weight - layer as f64 / sum).abs() < 1e-15, "layer {layer} of {layers}");
        }
        for kind in [ExitWeights::Linear, ExitWeights::Uniform, ExitWeights::Last] {
            let sum: f64 = exit_weights(&config(kind, None), layers).iter().sum();
            assert!((sum - 1.0).abs() < 1e-12, "{kind:?} of {layers} layers sum to {sum}");
        }
    }
    assert_eq!(exit_weights(&config(ExitWeights::Uniform, None), 4), [0.25; 4]);
    assert_eq!(exit_weights(&config(ExitWeights::Last, None), 3), [0.0, 0.0, 1.0]);
}

#[test]
fn a_step_computes_the_exits_it_is_told_to() {
    let layers = |config: &ObjectiveConfig| -> Vec<usize> {
        exits_of_step(config, 5, 1, 1).iter().map(|exit| exit.layer).collect()
    };
    for all in [None, Some(4), Some(9)] {
        assert_eq!(layers(&config(ExitWeights::Linear, all)), [1, 2, 3, 4, 5], "{all:?}");
    }
    assert_eq!(layers(&config(ExitWeights::Last, None)), [5]);
    assert_eq!(layers(&config(ExitWeights::Last, Some(2))), [5]);
    for step in 1..50 {
        let exits = exits_of_step(&config(ExitWeights::Linear, Some(2)), 5, 1, step);
        let ascend = exits.windows(2).all(|pair| pair[0].layer < pair[1].layer);
        assert!(ascend && (2..=3).contains(&exits.len()) && exits.last().unwrap().layer == 5, "{exits:?}");
        assert_eq!(exits, exits_of_step(&config(ExitWeights::Linear, Some(2)), 5, 1, step));
    }
}

/// Each weight is an average of independent draws.
///
/// Five standard deviations of it are a bound that the fixed seed keeps.
#[test]
fn sampled_exits_have_the_full_weights_on_average() {
    const STEPS: u64 = 20_000;
    for (kind, draws, layers) in
        [(ExitWeights::Linear, 1, 8), (ExitWeights::Linear, 3, 8), (ExitWeights::Uniform, 2, 4)]
    {
        let config = config(kind, Some(draws));
        let full = exit_weights(&config, layers);
        let mut sums = vec![0.0; layers];
        for step in 1..=STEPS {
            for exit in exits_of_step(&config, layers, 7, step) {
                sums[exit.layer - 1] += exit.weight;
            }
        }
        let mass: f64 = full[..layers - 1].iter().sum();
        for (layer, (sum, weight)) in (1..).zip(sums.iter().zip(&full)) {
            let found = sum / STEPS as f64;
            let probability = if layer == layers { 1.0 } else { weight / mass };
            let deviation = mass * (probability * (1.0 - probability) / (draws as f64 * STEPS as f64)).sqrt();
            assert!((found - weight).abs() <= 5.0 * deviation + 1e-9, "layer {layer}: {found}, not {weight}");
        }
    }
}

#[test]
fn the_last_weight_leaves_the_others_their_proportions() {
    let config = ObjectiveConfig { last_weight: Some(0.5), ..config(ExitWeights::Linear, None) };
    let weights = exit_weights(&config, 4);
    let expected = [1.0 / 12.0, 2.0 / 12.0, 3.0 / 12.0, 0.5];
    assert!(weights.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{weights:?}");
    assert_eq!(exit_weights(&config, 1), [1.0]);
    let last = ObjectiveConfig { exit_weights: ExitWeights::Last, ..config };
    assert_eq!(exit_weights(&last, 3), [0.0, 0.0, 1.0]);
}

/// A turn of LayerSkip's rotation gives exactly the full sum.
#[test]
fn rotating_exits_take_turns() {
    for (layers, draws) in [(5, 1), (9, 2), (7, 4)] {
        let rotating = ExitSampling::Rotating;
        let config = ObjectiveConfig { sampling: rotating, ..config(ExitWeights::Linear, Some(draws)) };
        let turns = layers as u64 - 1;
        let mut sums = vec![0.0; layers];
        for step in 1..=turns {
            let exits = exits_of_step(&config, layers, 7, step);
            assert_eq!(exits.len(), draws + 1);
            for exit in exits {
                sums[exit.layer - 1] += exit.weight / turns as f64;
            }
        }
        for (sum, weight) in sums.iter().zip(exit_weights(&config, layers)) {
            assert!((sum - weight).abs() < 1e-12, "{sums:?}");
        }
    }
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

/// Token counts are around the 512 rows that are computed at a time.
///
/// The last of two exits may teach the other.
#[test]
fn the_losses_of_the_exits_are_libtorchs_cross_entropies() {
    const VOCABULARY: i64 = 37;
    const WIDTH: i64 = 8;
    let _alone = alone();
    tch::set_num_threads(1);
    let options = (Kind::Float, Device::Cpu);
    for tokens in [1, 5, 511, 512, 513, 1100] {
        for (label_smoothing, distillation, step_tokens) in
            [(0.0, 0.0, tokens), (0.1, 0.0, tokens), (0.1, 0.4, tokens), (0.0, 0.9, 3 * tokens)]
        {
            let context =
                format!("{tokens} tokens, smoothing {label_smoothing}, distillation {distillation}");
            let inputs = [0, 1].map(|_| Tensor::randn([tokens, WIDTH], options).set_requires_grad(true));
            let head = Tensor::randn([VOCABULARY, WIDTH], options).set_requires_grad(true);
            let targets = Tensor::randint(VOCABULARY, [tokens], (Kind::Int64, Device::Cpu));
            let logits = inputs.each_ref().map(|inputs| inputs.matmul(&head.transpose(0, 1)));
            let cross_entropy = |exit: usize, smoothing: f64| {
                logits[exit].cross_entropy_loss::<Tensor>(&targets, None, Reduction::Mean, -100, smoothing)
            };
            let teacher = logits[1].detach().softmax(-1, None::<Kind>);
            let taught =
                -(teacher * logits[0].log_softmax(-1, None::<Kind>)).sum(Kind::Float) / tokens as f64;
            let below = cross_entropy(0, label_smoothing) * (1.0 - distillation) + taught * distillation;
            let share = tokens as f64 / step_tokens as f64;
            ((below * 0.3 + cross_entropy(1, label_smoothing) * 0.7) * share).backward();
            let expected_inputs = inputs.each_ref().map(|inputs| inputs.grad().copy());
            let expected_head = head.grad();

            let inputs = inputs.map(|inputs| inputs.detach());
            let inputs_of_last = inputs[1].shallow_clone();
            let before = Tensor::randn([VOCABULARY, WIDTH], options);
            let mut head_gradient = before.copy();
            let head_loss = HeadLoss {
                head: &head.detach(),
                targets: &targets,
                step_tokens: step_tokens as usize,
                label_smoothing,
                distillation,
            };
            for (exit, (inputs, weight)) in inputs.iter().zip([0.3, 0.7]).enumerate() {
                let teacher = (exit == 0).then_some(&inputs_of_last);
                let loss = head_loss.exit(weight, inputs, teacher, &mut head_gradient);
                let nll = nll_sums(&loss.target_probabilities).double_value(&[]) / tokens as f64;
                let alone = exit_nll(inputs, &head, &targets).double_value(&[]) / tokens as f64;
                let expected = cross_entropy(exit, 0.0).double_value(&[]);
                assert!((nll - expected).abs() < 2e-5, "{context}: {nll}, not {expected}");
                assert!((alone - expected).abs() < 2e-5, "{context}: {alone}, not {expected}");
                // The gradients are means over the tokens, so that 1e-5 of their size is far less than 1e-5.
                let difference = largest_difference(&loss.gradient, &expected_inputs[exit]);
                assert!(difference < 1e-5 / step_tokens as f64, "{context}: inputs differ by {difference}");
            }
            let difference = largest_difference(&(head_gradient - before), &expected_head);
            assert!(difference < 1e-5, "{context}: head differs by {difference}");
        }
    }
}
