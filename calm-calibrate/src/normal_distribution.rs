//! The standard normal distribution in logarithms.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// At this point and below it, the series has all digits.
const SERIES_BELOW: f64 = -20.0;

/// Computes `ln P(X <= z)`; minus infinity at minus infinity.
pub(crate) fn log_cdf(z: f64) -> f64 {
    if z > 0.0 {
        (-0.5 * libm::erfc(z * FRAC_1_SQRT_2)).ln_1p()
    } else if z > SERIES_BELOW {
        (0.5 * libm::erfc(-z * FRAC_1_SQRT_2)).ln()
    } else if z == f64::NEG_INFINITY {
        z
    } else {
        // It is the density over -z, times 1 - 1/z^2 + 3/z^4 - 15/z^6 ... (Abramowitz and Stegun 26.2.12).
        let square = z * z;
        let (mut term, mut sum) = (1.0, 0.0);
        for k in 1..=12 {
            term *= -f64::from(2 * k - 1) / square;
            sum += term;
        }
        -0.5 * square - 0.5 * (2.0 * PI).ln() - (-z).ln() + sum.ln_1p()
    }
}
