//! Recordings of where time goes, by a clock that the tests move.

use std::cell::Cell;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::time::Duration;

use calm_core::profile::{Part, Profile, Spent, count_exit_tests, enter, record, record_by, within};
use calm_core::{Backbone, DecodeOptions, PolicySpec, decode};

use crate::toy::Toy;

/// Records what takes the seconds that it says.
fn recording(f: impl FnOnce(&dyn Fn(u64))) -> Profile {
    let now = Rc::new(Cell::new(Duration::ZERO));
    let clock = Rc::clone(&now);
    let work = |seconds| now.set(now.get() + Duration::from_secs(seconds));
    record_by(move || clock.get(), || f(&work)).1
}

fn spent(own: u64, whole: u64, times: usize) -> Spent {
    Spent { own: Duration::from_secs(own), whole: Duration::from_secs(whole), times }
}

#[test]
fn time_in_an_inner_part_is_that_parts_alone() {
    let profile = recording(|work| {
        work(1);
        let _part = enter(Part::Loop);
        work(2);
        within(Part::Confidence, || {
            work(4);
            within(Part::Head, || work(8));
            work(16);
            within(Part::Head, || work(32));
        });
        work(64);
    });
    assert_eq!(profile.of(Part::Head), spent(40, 40, 2));
    assert_eq!(profile.of(Part::Confidence), spent(20, 60, 1));
    assert_eq!(profile.of(Part::Loop), spent(66, 126, 1));
    assert_eq!(profile.of(Part::Encoder), spent(0, 0, 0));
    assert_eq!(profile.total, Duration::from_secs(127));
    assert_eq!(profile.outside(), Duration::from_secs(1));
}

#[test]
fn a_part_inside_itself_is_one() {
    let profile = recording(|work| {
        within(Part::Head, || {
            work(1);
            within(Part::Head, || work(2));
            work(4);
        });
    });
    assert_eq!(profile.of(Part::Head), spent(7, 7, 1));
}

#[test]
fn nothing_is_recorded_outside_of_a_recording() {
    within(Part::Head, || count_exit_tests(|| unreachable!("nobody asked")));
    let early = enter(Part::Loop);
    let profile = recording(|work| {
        drop(early);
        work(1);
        count_exit_tests(|| 3);
    });
    assert_eq!((profile.outside(), profile.exit_tests), (Duration::from_secs(1), 3));
}

#[test]
fn a_recording_keeps_to_itself() {
    let mut inner = Profile::default();
    let outer = recording(|work| {
        within(Part::Encoder, || {
            inner = recording(|work| within(Part::Head, || work(1)));
            work(2);
            std::thread::scope(|scope| scope.spawn(|| within(Part::Head, || ())).join().unwrap());
        });
    });
    assert_eq!(inner.of(Part::Head), spent(1, 1, 1));
    assert_eq!((outer.of(Part::Encoder), outer.of(Part::Head)), (spent(2, 2, 1), spent(0, 0, 0)));
}

#[test]
fn a_panic_ends_its_recording() {
    assert!(catch_unwind(|| record(|| within(Part::Head, || panic!("on purpose")))).is_err());
    count_exit_tests(|| unreachable!("nobody records"));
}

#[test]
fn every_test_of_an_exit_is_counted() {
    let toy = Toy::new(4, 11).with_eos(&[]);
    let sources: [&[u32]; 2] = [&[3, 4, 5], &[6, 7]];
    for (policy, tests) in [("full", 0), ("static-2", 0), ("calm-softmax-1", 0), ("calm-state-0.999999", 3)] {
        let policy = policy.parse::<PolicySpec>().unwrap().make(&toy).unwrap();
        let decode = || decode(&*toy.read(&sources).unwrap(), &*policy, &DecodeOptions::new(5)).unwrap();
        let (generations, profile) = record(decode);
        let exits = generations.iter().flat_map(|generation| &generation.exit_layers);
        assert_eq!(profile.exit_tests, exits.map(|&layer| layer.min(tests)).sum::<usize>());
        assert!(profile.of(Part::Confidence).times > 0 && profile.of(Part::Loop).times == 1);
    }
}
