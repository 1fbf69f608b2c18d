//! The paper's experiment: sweep, calibration, tables and plots.

fn main() {}
