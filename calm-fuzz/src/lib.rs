//! What is done with files of unknown origin, whatever is in them: one function for each kind of file.
//!
//! None of them may panic, overflow the stack, go on for long, or ask for much memory because a small file
//! says so. `scripts/fuzz.sh` has libFuzzer look for inputs on which one of them does, and the tests of this
//! crate replay what it has found interesting, with changes.

#[path = "../../calm-data/tests/damaged/allocations.rs"]
mod allocations;
mod certificate;
mod chat;
mod checkpoint;
mod experiment;
mod fitted;
mod gguf;
mod json;
mod losses;
mod parquet;
mod records;
mod scratch;
mod tokenizer;
mod unit;
mod weights;

use anyhow::Context;

/// More than any small file needs in one piece.
const LARGEST_ALLOCATION: usize = 256 << 20;

/// A kind of file.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name of the target, which is that of its folder of inputs too.
    pub name: &'static str,
    read: fn(&[u8]) -> anyhow::Result<()>,
}

/// All kinds of files.
pub const TARGETS: &[Target] = &[
    Target { name: "experiment", read: experiment::read },
    Target { name: "certificate", read: certificate::read },
    Target { name: "unit", read: unit::read },
    Target { name: "fitted", read: fitted::read },
    Target { name: "weights", read: weights::read },
    Target { name: "gguf", read: gguf::read },
    Target { name: "gguf-tokenizer", read: gguf::read_tokenizer },
    Target { name: "tokenizer", read: tokenizer::read },
    Target { name: "checkpoint", read: checkpoint::read },
    Target { name: "chat", read: chat::read },
    Target { name: "parquet", read: parquet::read },
    Target { name: "json", read: json::read },
    Target { name: "records", read: records::read },
    Target { name: "losses", read: losses::read },
];

impl Target {
    /// Finds the target of a name.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> anyhow::Result<Self> {
        let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
        let found = TARGETS.iter().find(|target| target.name == name).copied();
        found.with_context(|| format!("no target `{name}`: there are {}", names()))
    }

    /// Reads an input as a file of this kind, and uses what is in it.
    ///
    /// # Errors
    /// The input is no file of this kind.
    ///
    /// # Panics
    /// Reading it panics, or asks for too much memory at once.
    pub fn read(self, input: &[u8]) -> anyhow::Result<()> {
        allocations::take_largest();
        let result = (self.read)(input);
        let largest = allocations::take_largest();
        assert!(largest <= LARGEST_ALLOCATION, "{}: {largest} bytes at once", self.name);
        result
    }
}
