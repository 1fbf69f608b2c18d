//! Datasets: JSON Lines, Parquet, and the bundled corpus.
