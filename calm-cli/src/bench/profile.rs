//! Where the time of a benchmark's calls went.

use std::io::{self, Write};
use std::time::Duration;

use calm_core::profile::{Part, Profile};
use serde::Serialize;

/// What the calls of a case produce, each of them.
pub(super) struct Output {
    pub(super) tokens: usize,
    pub(super) executed_layers: usize,
}

/// Where the time of the median call went.
#[derive(Serialize)]
pub(super) struct CallProfile {
    /// The whole call.
    us_per_token: f64,
    parts: Vec<PartOfCall>,
    /// The share of the call that no part has.
    outside: f64,
    /// How much longer calls took than those that were not recorded, as a fraction of those: medians.
    overhead: f64,
    /// What it takes to decide who leaves, where the policy tests exits.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_tests: Option<ExitTests>,
}

#[derive(Serialize)]
struct PartOfCall {
    part: Part,
    us_per_token: f64,
    share: f64,
}

/// A test of a token's exit beside a layer for a token, each with its waiting.
#[derive(Serialize)]
struct ExitTests {
    tests_per_token: f64,
    layers_per_token: f64,
    us_per_test: f64,
    us_per_layer: f64,
}

impl CallProfile {
    /// Takes the median of some recorded calls. The median of those that were not took `unrecorded` seconds.
    /// Nothing was profiled if there are none.
    pub(super) fn new(mut calls: Vec<Profile>, unrecorded: f64, output: &Output) -> Option<Self> {
        calls.sort_by_key(|call| call.total);
        let call = calls.get(calls.len() / 2)?;
        let share = |time: Duration| time.as_secs_f64() / call.total.as_secs_f64();
        let us_per_token = |time: Duration| 1e6 * time.as_secs_f64() / output.tokens as f64;
        let parts = Part::ALL.iter().map(|&part| {
            let own = call.of(part).own;
            PartOfCall { part, us_per_token: us_per_token(own), share: share(own) }
        });
        Some(CallProfile {
            us_per_token: us_per_token(call.total),
            parts: parts.collect(),
            outside: share(call.outside()),
            overhead: call.total.as_secs_f64() / unrecorded - 1.0,
            exit_tests: ExitTests::of(call, output),
        })
    }

    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{:<16} {:>9} {:>7}", "part", "us/token", "share")?;
        for PartOfCall { part, us_per_token, share } in &self.parts {
            writeln!(out, "{part:<16} {us_per_token:>9.2} {:>6.1}%", 100.0 * share)?;
        }
        writeln!(
            out,
            "{:<16} {:>9.2}, {:.1}% of it in no part; recording makes a call {:+.1}% longer",
            "the call",
            self.us_per_token,
            100.0 * self.outside,
            100.0 * self.overhead
        )?;
        if let Some(tests) = &self.exit_tests {
            writeln!(
                out,
                "{:<16} {:>9.3} us a test ({:.2} a token), {:.1}% of the {:.3} us of a layer ({:.2} a token)",
                "exit tests",
                tests.us_per_test,
                tests.tests_per_token,
                100.0 * tests.us_per_test / tests.us_per_layer,
                tests.us_per_layer,
                tests.layers_per_token
            )?;
        }
        Ok(())
    }
}

impl ExitTests {
    fn of(call: &Profile, output: &Output) -> Option<Self> {
        let whole = |part| 1e6 * call.of(part).whole.as_secs_f64();
        let layers = [Part::SelfAttention, Part::CrossAttention, Part::FeedForward].map(whole);
        (call.exit_tests > 0).then(|| ExitTests {
            tests_per_token: call.exit_tests as f64 / output.tokens as f64,
            layers_per_token: output.executed_layers as f64 / output.tokens as f64,
            us_per_test: whole(Part::Confidence) / call.exit_tests as f64,
            us_per_layer: layers.iter().sum::<f64>() / output.executed_layers as f64,
        })
    }
}
