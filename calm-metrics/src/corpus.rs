use rayon::prelude::*;

use crate::Error;

/// Least number of segments for one thread: fewer are not worth a second thread.
const MIN_SEGMENTS_PER_THREAD: usize = 128;

/// Applies `f` to every hypothesis and its references, in parallel.
///
/// The results are in the order of the segments.
pub(crate) fn map_segments<H, L, R, T>(
    hypotheses: &[H],
    references: &[L],
    f: impl Fn(&str, &[R]) -> T + Sync,
) -> Result<Vec<T>, Error>
where
    H: AsRef<str> + Sync,
    L: AsRef<[R]> + Sync,
    T: Send,
{
    if hypotheses.len() != references.len() {
        return Err(Error::CountMismatch { hypotheses: hypotheses.len(), references: references.len() });
    }
    if hypotheses.is_empty() {
        return Err(Error::EmptyCorpus);
    }
    if let Some(segment) = references.iter().position(|of_segment| of_segment.as_ref().is_empty()) {
        return Err(Error::NoReference { segment });
    }
    let segments = hypotheses.par_iter().zip(references).with_min_len(MIN_SEGMENTS_PER_THREAD);
    Ok(segments.map(|(hypothesis, of_segment)| f(hypothesis.as_ref(), of_segment.as_ref())).collect())
}

/// Sums up the columns. Counts stay exact: a double holds integers up to 2^53.
pub(crate) fn sum<'a>(rows: impl IntoIterator<Item = &'a [f64]>) -> Vec<f64> {
    let mut rows = rows.into_iter();
    let mut total = rows.next().unwrap_or_default().to_vec();
    for row in rows {
        for (sum, number) in total.iter_mut().zip(row) {
            *sum += number;
        }
    }
    total
}
