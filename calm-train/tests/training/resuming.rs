//! What a run makes of a checkpoint that it finds.

use std::collections::BTreeMap;
use std::fs::{File, create_dir, create_dir_all, read_dir, write};

use calm_train::checkpoint::{self, Slot};
use calm_train::{ExitWeights, TrainConfig};
use tch::Tensor;

use crate::runs::{bytes, error, newest, run, truncate};
use crate::tiny::Tiny;

/// The tensors of a run's checkpoint with a number in them that is none.
fn with_nan(config: &TrainConfig) -> BTreeMap<String, Tensor> {
    let mut tensors = checkpoint::load(&newest(config)).unwrap().1;
    let _ = tensors.get_mut("shared.weight").unwrap().get(3).fill_(f64::NAN);
    tensors
}

#[test]
fn a_damaged_checkpoint_does_not_hide_a_good_one() {
    let tiny = Tiny::new();
    let [mut straight, mut config] = ["straight", "model"].map(|name| tiny.config(name));
    straight.schedule.steps = 15;
    run(&straight);
    run(&config);
    let good = newest(&config);
    let mut state = checkpoint::load(&good).unwrap().0;
    let text = std::fs::read(good.join("run.json")).unwrap();
    let tensors = with_nan(&config);
    let folder = |step: u64| config.checkpoints.join(format!("step-{step:08}"));

    create_dir(folder(99)).unwrap();
    create_dir(folder(98)).unwrap();
    write(folder(98).join("run.json"), text).unwrap();
    write(folder(98).join("state.safetensors"), "").unwrap();
    write(folder(97), "this is no folder").unwrap();
    // A folder that is written next to the others would replace them.
    let elsewhere = tiny.path("elsewhere");
    state.step = 96;
    checkpoint::save(&elsewhere, Slot::Newest, &state, tensors, 1 << 30).unwrap();
    std::fs::rename(elsewhere.join("step-00000096"), folder(96)).unwrap();

    config.schedule.steps = 15;
    run(&config);
    assert!(bytes(&straight) == bytes(&config));
    let left = read_dir(&config.checkpoints).unwrap().map(|entry| entry.unwrap());
    let left: Vec<_> = left
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, ["step-00000015"]);
}

#[test]
fn a_checkpoint_that_is_not_finite_is_neither_written_nor_taken() {
    let tiny = Tiny::new();
    let mut config = tiny.config("model");
    config.schedule.steps = 4;
    run(&config);
    let before = bytes(&config);
    config.schedule.steps = 12;
    config.checkpoint_every = 1;
    let sane = config.optimizer.clone();
    // The loss is finite before the parameters are not.
    config.optimizer.learning_rate = 3e38;
    config.optimizer.weight_decay = Some(100.0);
    let message = error(&config);
    assert!(message.starts_with("the training diverged: after step 5 "), "{message}");
    assert!(message.ends_with(" is not finite; the checkpoint of step 4 is intact"), "{message}");
    assert!(before == bytes(&config));

    config.optimizer = sane;
    let (state, tensors) = (checkpoint::load(&newest(&config)).unwrap().0, with_nan(&config));
    checkpoint::save(&config.checkpoints, Slot::Newest, &state, tensors, 1 << 30).unwrap();
    let message = error(&config);
    let expected =
        "step-00000004 is no usable checkpoint (shared.weight is not finite); remove it to begin anew";
    assert!(message.ends_with(expected), "{message}");
}

#[test]
fn a_run_goes_on_with_what_may_change_alone() {
    let tiny = Tiny::new();
    let mut config = tiny.config("model");
    config.schedule.steps = 6;
    run(&config);
    let made_with = |config: &TrainConfig| checkpoint::load(&newest(config)).unwrap().0.made_with.unwrap();
    let setting = |config: &TrainConfig, key: &str| made_with(config).settings[key].to_string();
    assert_eq!(setting(&config, "objective.dropout"), "0.1");
    assert_eq!(made_with(&config).init, None);

    config.schedule.steps = 8;
    config.objective.dropout = 0.02;
    config.objective.exit_weights = ExitWeights::Uniform;
    config.optimizer.learning_rate = 0.002;
    run(&config);
    assert_eq!(setting(&config, "objective.dropout"), "0.02");
    assert_eq!(setting(&config, "optimizer.learning_rate"), "0.002");

    config.schedule.steps = 10;
    config.optimizer.accumulate = 2;
    let message = error(&config);
    assert!(message.contains("another run (optimizer.accumulate was 1, not 2: "), "{message}");

    // Another run starts from this one's model.
    let mut next = tiny.config("next");
    let model = next.model.take();
    next.init = Some(config.output.clone());
    run(&next);
    next.schedule.steps = 14;
    let check = |next: &TrainConfig, expected: &str| {
        let message = error(next);
        assert!(
            message.contains("holds a checkpoint of another run (") && message.contains(expected),
            "{message}"
        );
    };
    let mut without = next.clone();
    (without.model, without.init) = (model, None);
    check(&without, "it began with the weights of an init");
    config.optimizer.accumulate = 1;
    run(&config);
    check(&next, "it began with other weights than those of init");
}

#[test]
fn one_training_at_a_time_has_a_folder_of_checkpoints() {
    let tiny = Tiny::new();
    let config = tiny.config("model");
    create_dir_all(&config.checkpoints).unwrap();
    let other = File::create(config.checkpoints.join("lock")).unwrap();
    other.lock().unwrap();
    let message = error(&config);
    assert!(
        message.contains("another training is running in ") && message.contains("checkpoints"),
        "{message}"
    );
    drop(other);
    run(&config);
}

/// The weights of the best validation may have been removed, or were not kept before there was patience.
#[test]
fn best_weights_that_are_gone_are_not_waited_for() {
    let tiny = Tiny::new();
    let mut config = tiny.config("model");
    config.validation.every = 3;
    config.classifier.steps = 0;
    run(&config);
    let state = |config: &TrainConfig| checkpoint::load(&newest(config)).unwrap().0;
    assert!(state(&config).best_loss.is_some());
    config.schedule.steps = 20;
    config.validation.patience = 5;
    run(&config);
    let best = checkpoint::find(&config.checkpoints, Slot::Best).expect("a later validation is the best");
    truncate(&best.join("state.safetensors"));
    config.schedule.steps = 25;
    let message = error(&config);
    assert!(message.contains("is no usable checkpoint") && message.contains("best-"), "{message}");
}
