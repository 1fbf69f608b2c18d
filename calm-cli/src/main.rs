//! The calm command.

fn main() {}
