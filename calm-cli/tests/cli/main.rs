//! The `calm` command as a user meets it: what it prints, and what it says to mistakes.

#![allow(clippy::unwrap_used)]

mod bench;
mod calibrate;
mod command;
mod confidence;
mod engines;
mod generate;
mod mistakes;
mod reference;
mod score;
mod shells;
mod tokens;
mod training;
