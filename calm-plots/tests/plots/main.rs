//! Tests of figures as their files show them.

#![allow(clippy::unwrap_used)]

mod figures;
mod palette;
