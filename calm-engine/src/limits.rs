//! Ranges of the numbers on command lines and in configurations, with the reasons why they end.

use std::fmt::Display;

use anyhow::ensure;

/// A range of whole numbers.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    least: usize,
    most: usize,
    /// Why larger numbers are refused, as a clause.
    reason: &'static str,
}

/// Where only 0 makes no sense: batches and datasets end by themselves.
pub const AT_LEAST_ONE: Limit = Limit { least: 1, most: usize::MAX, reason: "" };
/// Tokens of a source or an output.
pub const TOKENS: Limit = Limit {
    least: 1,
    most: 1_000_000,
    reason: "memory is set aside for as many, and no T5 was trained on a hundredth",
};
/// Hypotheses of a beam search.
pub const BEAMS: Limit = Limit { least: 1, most: 1_000, reason: "each of them is a row that takes memory" };
/// Rows decoded together where all of them are made up.
pub const ROWS: Limit = Limit { least: 1, most: 65_536, reason: "each row takes memory of its own" };
/// Sources that wait in a server.
pub const WAITING: Limit = Limit { least: 1, most: 1_000_000, reason: "each source that waits takes memory" };
/// Bytes of a request to a server, as far as it is read at once.
pub const REQUEST_BYTES: Limit =
    Limit { least: 1, most: 1 << 30, reason: "as many are held in memory for each connection" };
/// Widths of a network.
pub const WIDTH: Limit = Limit { least: 1, most: 65_536, reason: "no T5 is wider" };
/// Layers of a network.
pub const LAYERS: Limit = Limit { least: 1, most: 1_000, reason: "no T5 comes near" };
/// Times that something is measured.
pub const REPETITIONS: Limit =
    Limit { least: 1, most: 1_000_000, reason: "all times are kept, and the median is long known by then" };

impl Limit {
    /// Threads: a few for each core. The least ceiling lets a configuration made for a larger machine run.
    pub fn threads() -> Self {
        let most = (4 * calm_cpu::all_cores()).max(64);
        Self { least: 1, most, reason: "more threads than cores wait for each other" }
    }

    /// The same with another least number.
    pub const fn at_least(self, least: usize) -> Self {
        Self { least, ..self }
    }

    /// # Errors
    /// The value is out of range; the message begins with a verb, so that it can follow a flag or a key.
    pub fn check(self, value: impl TryInto<usize> + Display + Copy) -> Result<(), String> {
        let Self { least, most, reason } = self;
        match value.try_into() {
            Ok(value) if value > most => Err(format!("is {value}, but must be at most {most}: {reason}")),
            Ok(value) if value >= least => Ok(()),
            _ => Err(format!("is {value}, but must be at least {least}")),
        }
    }
}

/// Checks the numbers that a command line gives; a flag that is not given has none.
///
/// # Errors
/// The first one that is out of range, by its flag.
pub fn check_flags(
    flags: impl IntoIterator<Item = (&'static str, Option<usize>, Limit)>,
) -> anyhow::Result<()> {
    for (flag, value, limit) in flags {
        let checked = value.map_or(Ok(()), |value| limit.check(value));
        ensure!(checked.is_ok(), "{flag} {}", checked.err().unwrap_or_default());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_told_why() {
        for (limit, value, expected) in [
            (TOKENS, 1_i64, Ok(())),
            (TOKENS, 1_000_000, Ok(())),
            (TOKENS, 0, Err("is 0, but must be at least 1")),
            (TOKENS, -7, Err("is -7, but must be at least 1")),
            (
                TOKENS,
                1_000_001,
                Err("is 1000001, but must be at most 1000000: memory is set aside for as many"),
            ),
            (TOKENS.at_least(2), 1, Err("is 1, but must be at least 2")),
            (AT_LEAST_ONE, i64::MAX, Ok(())),
            (Limit::threads(), 64, Ok(())),
            (Limit::threads(), 1_000_000, Err("is 1000000, but must be at most ")),
        ] {
            match (limit.check(value), expected) {
                (Ok(()), Ok(())) => {}
                (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{found}"),
                (found, _) => panic!("{value}: {found:?}"),
            }
        }
    }
}
