//! Certified thresholds: p-values, family-wise error control, calibration of a table of losses.
