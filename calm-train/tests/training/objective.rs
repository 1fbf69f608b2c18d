use calm_train::objective::{HeadLoss, exit_weights, exits_of_step};
use calm_train::{ExitWeights, ObjectiveConfig};
use tch::{Device, Kind, Reduction, Tensor};

fn config(exit_weights: ExitWeights, sampled_exits: Option<usize>) -> ObjectiveConfig {
    ObjectiveConfig { exit_weights, sampled_exits, ..ObjectiveConfig::default() }
}

#[test]
fn exit_weights_are_those_of_the_paper() {
    for layers in 1..=12 {
        let weights = exit_weights(ExitWeights::Linear, layers);
        let sum = (layers * (layers + 1) / 2) as f64;
        for (layer, weight) in (1..).zip(&weights) {
            assert!((weight - layer as f64 / sum).abs() < 1e-15, "layer {layer} of {layers}");
        }
        for kind in [ExitWeights::Linear, ExitWeights::Uniform, ExitWeights::Last] {
            let sum: f64 = exit_weights(kind, layers).iter().sum();
            assert!((sum - 1.0).abs() < 1e-12, "{kind:?} of {layers} layers sum to {sum}");
        }
    }
    assert_eq!(exit_weights(ExitWeights::Uniform, 4), [0.25; 4]);
    assert_eq!(exit_weights(ExitWeights::Last, 3), [0.0, 0.0, 1.0]);
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

/// Each weight is an average of independent draws: five standard deviations of it are a bound that the fixed seed keeps.
#[test]
fn sampled_exits_have_the_full_weights_on_average() {
    const STEPS: u64 = 20_000;
    for (kind, draws, layers) in
        [(ExitWeights::Linear, 1, 8), (ExitWeights::Linear, 3, 8), (ExitWeights::Uniform, 2, 4)]
    {
        let config = config(kind, Some(draws));
        let mut sums = vec![0.0; layers];
        for step in 1..=STEPS {
            for exit in exits_of_step(&config, layers, 7, step) {
                sums[exit.layer - 1] += exit.weight;
            }
        }
        let full = exit_weights(kind, layers);
        let mass: f64 = full[..layers - 1].iter().sum();
        for (layer, (sum, weight)) in (1..).zip(sums.iter().zip(&full)) {
            let found = sum / STEPS as f64;
            let probability = if layer == layers { 1.0 } else { weight / mass };
            let deviation = mass * (probability * (1.0 - probability) / (draws as f64 * STEPS as f64)).sqrt();
            assert!((found - weight).abs() <= 5.0 * deviation + 1e-9, "layer {layer}: {found}, not {weight}");
        }
    }
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

/// Token counts around the 512 rows that are computed at a time.
#[test]
fn the_loss_of_an_exit_is_libtorchs_cross_entropy() {
    const VOCABULARY: i64 = 37;
    const WIDTH: i64 = 8;
    tch::set_num_threads(1);
    let options = (Kind::Float, Device::Cpu);
    for tokens in [1, 5, 511, 512, 513, 1100] {
        for (label_smoothing, weight) in [(0.0, 1.0), (0.1, 0.3)] {
            let inputs = Tensor::randn([tokens, WIDTH], options).set_requires_grad(true);
            let head = Tensor::randn([VOCABULARY, WIDTH], options).set_requires_grad(true);
            let targets = Tensor::randint(VOCABULARY, [tokens], (Kind::Int64, Device::Cpu));
            let logits = inputs.matmul(&head.transpose(0, 1));
            let cross_entropy = |smoothing: f64| {
                logits.cross_entropy_loss::<Tensor>(&targets, None, Reduction::Mean, -100, smoothing)
            };
            (cross_entropy(label_smoothing) * weight).backward();
            let (expected_inputs, expected_head) = (inputs.grad().copy(), head.grad());

            let mut inputs = inputs.detach().set_requires_grad(true);
            let before = Tensor::randn([VOCABULARY, WIDTH], options);
            let mut head_gradient = before.copy();
            let loss = HeadLoss { head: &head.detach(), targets: &targets, label_smoothing }.exit(
                &inputs,
                weight,
                &mut head_gradient,
            );
            inputs.zero_grad();
            loss.surrogate.backward();
            let context = format!("{tokens} tokens, smoothing {label_smoothing}");
            let nll = loss.nll.double_value(&[0]);
            assert!((nll - cross_entropy(0.0).double_value(&[])).abs() < 2e-5, "{context}: {nll}");
            // The gradients are means over the tokens, so that 1e-5 of their size is far less than 1e-5.
            let scale = weight / tokens as f64;
            let difference = largest_difference(&inputs.grad(), &expected_inputs);
            assert!(difference < 1e-5 * scale, "{context}: inputs differ by {difference}");
            let difference = largest_difference(&(head_gradient - before), &expected_head);
            assert!(difference < 1e-5, "{context}: head differs by {difference}");
        }
    }
}
