//! Which part has the time of a call, by a clock that ticks whenever it is looked at.

use std::time::Duration;

use calm_checkpoint::LoadOptions;
use calm_core::profile::{Part, Profile, record_by};
use calm_core::{Backbone, DecodeOptions, Generation, PolicySpec, decode};
use calm_cpu::{T5, Weights};

use crate::files::tiny;

const TICK: Duration = Duration::from_nanos(1);

fn call(model: &T5, policy: &str) -> (Vec<Generation>, Profile) {
    let policy = policy.parse::<PolicySpec>().unwrap().make(model).unwrap();
    let options = DecodeOptions { ignore_eos: true, ..DecodeOptions::new(6) };
    let mut ticks = 0;
    let clock = move || {
        ticks += 1;
        ticks * TICK
    };
    record_by(clock, || {
        let prompt = model.read(&[&[5, 17, 42, 1], &[7, 1]]).unwrap();
        decode(&*prompt, &*policy, &options).unwrap()
    })
}

#[test]
fn the_parts_are_all_of_a_call() {
    let (config, weights) = (tiny(), Weights::random(&tiny(), 7));
    for threads in [1, 2] {
        let model = T5::new(&config, &weights, &LoadOptions { threads, ..LoadOptions::default() }).unwrap();
        for policy in ["full", "static-2", "oracle", "calm-softmax-0.1", "calm-pruned-0.3", "calm-state-0.9"]
        {
            let (_, profile) = call(&model, policy);
            // Before the encoder, between it and the loop, and behind the loop.
            assert_eq!(profile.outside(), 3 * TICK, "{policy}");
            for part in [Part::Encoder, Part::Loop] {
                assert_eq!(profile.of(part).times, 1, "{policy}");
            }
            assert!(threads > 1 || profile.of(Part::Waiting).times == 0, "{policy}");
        }
    }
}

#[test]
fn a_part_is_entered_for_what_it_is_called_after() {
    let model = T5::new(&tiny(), &Weights::random(&tiny(), 7), &LoadOptions::default()).unwrap();
    let steps = 6;
    let times = |policy: &str| {
        let (generations, profile) = call(&model, policy);
        let propagated = generations.iter().map(|generation| generation.propagated).sum::<usize>() > 0;
        (Part::ALL.iter().map(|&part| profile.of(part).times).collect::<Vec<_>>(), propagated)
    };
    // Of the decoder's three layers all run; the encoder's two have no parts of their own. The head is asked
    // once a step, and the policy when the step begins and after each layer.
    let [layers, decisions] = [3 * steps, 4 * steps];
    assert_eq!(times("full"), (vec![1, layers, layers, layers, steps, decisions, 0, 1, 0], false));
    let layers = 2 * steps;
    assert_eq!(times("static-2"), (vec![1, layers, layers, layers, steps, 3 * steps, 0, 1, 0], false));
    // Nobody leaves at confidence 1, and the head is asked after each of the lower layers and for the token.
    let layers = 3 * steps;
    assert_eq!(
        times("calm-softmax-0.9999999"),
        (vec![1, layers, layers, layers, layers, decisions, 0, 1, 0], false)
    );
    // The oracle has to write what tokens left out.
    let (oracle, propagated) = times("oracle");
    assert_eq!(oracle[Part::Propagation as usize] > 0, propagated);
}
