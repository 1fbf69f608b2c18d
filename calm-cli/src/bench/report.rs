//! What a benchmark found, as tables and as JSON.

use std::io::{self, Write};

use calm_engine::waiting::BUSY;
use calm_names::counted;
use serde::Serialize;

use super::profile::CallProfile;

#[derive(Serialize)]
pub(super) struct Report {
    pub(super) model: String,
    pub(super) threads: usize,
    /// Best of the reads between the repetitions, in bytes a second, by the threads.
    pub(super) memory_rate: f64,
    /// A GPU adds up its own memory at this rate; it is missing where libtorch is on the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) device_memory_rate: Option<f64>,
    pub(super) source_tokens: usize,
    pub(super) new_tokens: usize,
    pub(super) repetitions: usize,
    pub(super) cases: Vec<Measured>,
}

#[derive(Serialize)]
pub(super) struct Measured {
    pub(super) engine: &'static str,
    /// The engine computed on this device, as --device names it.
    pub(super) device: String,
    pub(super) dtype: String,
    pub(super) cache_dtype: &'static str,
    pub(super) policy: String,
    pub(super) batch_size: usize,
    /// Rate of whole calls, all rows together: median, least and most.
    pub(super) tokens_per_second: [f64; 3],
    /// Encoder and first step, in milliseconds: median.
    pub(super) time_to_first_token_ms: f64,
    /// A step of all rows after the first one, in milliseconds: median.
    pub(super) ms_per_token: f64,
    pub(super) memory_fraction: f64,
    /// Layers run for a token.
    pub(super) executed_layers: f64,
    /// Share of whole calls in which the calling thread waited for a core that other programs had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waited: Option<f64>,
    /// Share of the operations of the CPU engine that fewer threads did, since the system did not run all of
    /// them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) with_fewer_threads: Option<f64>,
    /// Where the time of a call went, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) profile: Option<CallProfile>,
}

impl Report {
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{}: {} source tokens, {} new tokens, {}, memory read at {:.1} GB/s",
            self.model,
            self.source_tokens,
            self.new_tokens,
            counted(self.threads, "thread"),
            self.memory_rate / 1e9
        )?;
        if let Some(rate) = self.device_memory_rate {
            writeln!(out, "libtorch on a GPU, whose memory is read at {:.1} GB/s", rate / 1e9)?;
        }
        writeln!(
            out,
            "{:<9} {:<5} {:<5} {:<22} {:>5} {:>9} {:>17} {:>9} {:>9} {:>7} {:>7}",
            "engine",
            "dtype",
            "cache",
            "policy",
            "batch",
            "tokens/s",
            "least - most",
            "first ms",
            "ms/token",
            "memory",
            "layers"
        )?;
        for case in &self.cases {
            case.write(out)?;
        }
        for case in &self.cases {
            if let Some(share) = case.with_fewer_threads.filter(|&share| share > 0.0) {
                writeln!(
                    out,
                    "{} {} {} {}, batch {}: {:.0}% of the operations by fewer than {} threads, since the cores were \
                     busy",
                    case.engine,
                    case.dtype,
                    case.cache_dtype,
                    case.policy,
                    case.batch_size,
                    100.0 * share,
                    self.threads
                )?;
            }
        }
        let waited = self.cases.iter().filter_map(|case| case.waited).fold(0.0, f64::max);
        if waited > BUSY {
            writeln!(
                out,
                "warning: these times mean little: other programs kept the cores busy, and up to {:.0}% of a case's time \
                 was waiting for one",
                100.0 * waited
            )?;
        }
        for case in &self.cases {
            if let Some(profile) = &case.profile {
                let Measured { engine, dtype, cache_dtype, policy, batch_size, .. } = case;
                writeln!(out, "\n{engine} {dtype} {cache_dtype} {policy}, batch {batch_size}")?;
                profile.write(out)?;
            }
        }
        Ok(())
    }
}

impl Measured {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let [rate, least, most] = self.tokens_per_second;
        writeln!(
            out,
            "{:<9} {:<5} {:<5} {:<22} {:>5} {:>9.1} {:>17} {:>9.2} {:>9.3} {:>6.0}% {:>7.2}",
            self.engine,
            self.dtype,
            self.cache_dtype,
            self.policy,
            self.batch_size,
            rate,
            format!("{least:.1} - {most:.1}"),
            self.time_to_first_token_ms,
            self.ms_per_token,
            100.0 * self.memory_fraction,
            self.executed_layers
        )
    }
}
