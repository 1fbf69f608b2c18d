use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::team::{Columns, Team, bounds};

#[test]
fn every_part_is_visited_once_in_every_operation() {
    for threads in [1, 2, 5] {
        let team = Team::new(threads);
        assert_eq!(team.threads(), threads);
        let mut parts = vec![0_u32; threads];
        for _ in 0..2000 {
            team.each(&mut parts, |part, _| *part += 1);
        }
        assert_eq!(parts, vec![2000; threads]);
        team.each(&mut parts[..1], |part, _| *part += 1);
        assert_eq!(parts[0], 2001);
    }
}

/// An operation may have been divided before a thread was left out.
#[test]
fn parts_are_shared_by_the_threads_that_take_part() {
    let team = Team::new(5);
    for present in [5, 2, 1, 3, 5, 4] {
        team.leave_out_all_but(present);
        assert_eq!(team.threads(), present);
        for count in 1..=5 {
            let mut parts = vec![0_u32; count];
            for _ in 0..40 {
                team.each(&mut parts, |part, _| *part += 1);
            }
            assert_eq!(parts, vec![40; count], "{present} of 5 threads");
        }
    }
    let teamwork = team.teamwork();
    assert_eq!((teamwork.operations, teamwork.with_fewer), (1200, 800));
}

#[test]
fn a_panic_reaches_the_caller_and_leaves_the_team_whole() {
    let team = Team::new(3);
    for failing in 0..3 {
        let mut parts = [0, 1, 2];
        let result = catch_unwind(AssertUnwindSafe(|| {
            team.each(&mut parts, |part, _| assert_ne!(*part, failing, "this one"));
        }));
        let panic = result.expect_err("one part fails");
        assert!(panic.downcast_ref::<String>().is_some_and(|message| message.contains("this one")));
    }
    let mut parts = [0; 3];
    team.each(&mut parts, |part, _| *part = 7);
    assert_eq!(parts, [7; 3]);
}

#[test]
fn a_team_works_for_one_thread_at_a_time() {
    let team = Team::new(2);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let mut parts = [1, 2];
                    team.each(&mut parts, |part, _| *part *= 2);
                    assert_eq!(parts, [2, 4]);
                }
            });
        }
    });
}

#[test]
fn columns_are_divided_evenly_and_written_apart() {
    assert_eq!(bounds(100, 32, 2), [0, 64, 100]);
    assert_eq!(bounds(10, 32, 4), [0, 10]);
    assert_eq!(bounds(6, 1, 4), [0, 1, 3, 4, 6]);
    let mut matrix = vec![0.0; 12];
    for mut columns in Columns::split(&mut matrix, 4, &[0, 1, 4]) {
        for row in 0..3 {
            let value = columns.range.start as f32 + 1.0;
            columns.row(row).fill(value);
        }
    }
    assert_eq!(matrix, [1.0, 2.0, 2.0, 2.0].repeat(3));
}
