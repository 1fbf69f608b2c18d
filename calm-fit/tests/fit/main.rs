//! Fitting confidences to a model's own outputs, and choosing exits by them.

#![allow(clippy::unwrap_used)]

mod fitting;
mod made_up;
mod observing;
mod tuning;
