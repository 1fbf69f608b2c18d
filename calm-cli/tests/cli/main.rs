//! The `calm` command as a user meets it: what it prints, and what it says to mistakes.
//!
//! Without the feature `libtorch` only what needs no libtorch is tested.

#![allow(clippy::unwrap_used)]
#![cfg_attr(not(feature = "libtorch"), allow(dead_code))]

#[cfg(feature = "libtorch")]
mod bench;
#[cfg(feature = "libtorch")]
mod calibrate;
mod chat;
mod chat_model;
mod command;
mod confidence;
mod conversations;
#[cfg(feature = "libtorch")]
mod engines;
#[cfg(feature = "libtorch")]
mod generate;
mod gguf_folder;
mod inputs;
mod manual;
#[cfg(feature = "libtorch")]
mod mistakes;
mod reference;
mod score;
mod serve;
#[cfg(feature = "libtorch")]
mod shells;
#[cfg(feature = "libtorch")]
mod tokens;
#[cfg(feature = "libtorch")]
mod training;
