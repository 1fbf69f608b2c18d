//! Relative position buckets (`T5Attention._relative_position_bucket` in transformers).

use super::T5Config;

/// The formula that maps a distance to a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The encoder's formula: past and future have half of the buckets each.
    Bidirectional,
    /// The decoder's formula: the future is never seen, so that the past has all buckets.
    Causal,
}

/// Returns the bucket of a key that is `key - query` positions away.
pub fn bucket(config: &T5Config, direction: Direction, relative: i64) -> i64 {
    let (buckets, offset, distance) = match direction {
        Direction::Bidirectional => {
            let half = config.relative_attention_num_buckets / 2;
            (half, if relative > 0 { half } else { 0 }, relative.abs())
        }
        Direction::Causal => (config.relative_attention_num_buckets, 0, (-relative).max(0)),
    };
    let exact = buckets / 2;
    if distance < exact {
        return offset + distance;
    }
    let log_distance = (distance as f64 / exact as f64).ln()
        / (config.relative_attention_max_distance as f64 / exact as f64).ln();
    offset + (exact + (log_distance * (buckets - exact) as f64) as i64).min(buckets - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> T5Config {
        T5Config::published("t5-small").expect("a published shape")
    }

    /// The first distance of each bucket from 16 (decoder) or 8 (encoder) on, as transformers 5.17 computes
    /// it.
    #[test]
    fn buckets_start_where_transformers_starts_them() {
        let config = config();
        let decoder = [
            (16, 16),
            (17, 19),
            (18, 21),
            (19, 24),
            (20, 27),
            (21, 31),
            (22, 35),
            (23, 40),
            (24, 46),
            (25, 52),
            (26, 59),
            (27, 67),
            (28, 77),
            (29, 87),
            (30, 99),
            (31, 113),
        ];
        for (expected, distance) in decoder {
            assert_eq!(bucket(&config, Direction::Causal, -distance), expected, "distance {distance}");
            assert_eq!(
                bucket(&config, Direction::Causal, -distance + 1),
                expected - 1,
                "distance {distance}"
            );
        }
        let encoder = [(8, 8), (9, 12), (10, 16), (11, 23), (12, 32), (13, 46), (14, 64), (15, 91)];
        for (expected, distance) in encoder {
            assert_eq!(bucket(&config, Direction::Bidirectional, -distance), expected);
            assert_eq!(bucket(&config, Direction::Bidirectional, -distance + 1), expected - 1);
            assert_eq!(bucket(&config, Direction::Bidirectional, distance), 16 + expected);
        }
        assert_eq!(bucket(&config, Direction::Causal, 0), 0);
        assert_eq!(bucket(&config, Direction::Causal, 5), 0);
        assert_eq!(bucket(&config, Direction::Bidirectional, 1), 17);
        assert_eq!(bucket(&config, Direction::Bidirectional, -100_000), 15);
    }
}
