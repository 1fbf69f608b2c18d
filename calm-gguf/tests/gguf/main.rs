//! Whole files and files with one mistake.

// Clippy exempts test functions, but not their helpers.
#![allow(clippy::unwrap_used)]

mod made_file;
mod mistakes;
mod reading;
