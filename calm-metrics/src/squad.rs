//! Token-F1 and exact match of the official SQuAD 1.1 evaluation (Rajpurkar et al. 2016).
//!
//! Both compare normalised texts: in lower case, without ASCII punctuation, without the articles a, an, the.

use std::collections::HashMap;

use crate::python;

/// F1 of the two texts as bags of normalised words, 0 to 1.
///
/// It is 0 if they share no word, even if both have none.
pub fn token_f1(hypothesis: &str, reference: &str) -> f64 {
    let (hypothesis, reference) = (normalize(hypothesis), normalize(reference));
    let mut unmatched: HashMap<&str, usize> = HashMap::new();
    for word in words(&reference) {
        *unmatched.entry(word).or_default() += 1;
    }
    let mut common = 0;
    for word in words(&hypothesis) {
        if let Some(count) = unmatched.get_mut(word).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    if common == 0 {
        return 0.0;
    }
    let precision = f64::from(common) / words(&hypothesis).count() as f64;
    let recall = f64::from(common) / words(&reference).count() as f64;
    2.0 * precision * recall / (precision + recall)
}

/// Whether the two texts are the same once they are normalised.
pub fn exact_match(hypothesis: &str, reference: &str) -> bool {
    normalize(hypothesis) == normalize(reference)
}

/// Returns the words of the text, separated by one space.
fn normalize(text: &str) -> String {
    let mut plain = python::to_lowercase(text);
    plain.retain(|c| !c.is_ascii_punctuation());
    let mut kept = String::with_capacity(plain.len());
    let mut rest = plain.as_str();
    // Articles are removed where `\b` of Python's `re` sees a word, which is not only between spaces.
    while let Some(c) = rest.chars().next() {
        let in_word = python::is_word(c);
        let end = rest.find(|c| python::is_word(c) != in_word).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        kept.push_str(if matches!(run, "a" | "an" | "the") { " " } else { run });
        rest = after;
    }
    python::split(&kept).collect::<Vec<_>>().join(" ")
}

fn words(normalized: &str) -> impl Iterator<Item = &str> {
    normalized.split(' ').filter(|word| !word.is_empty())
}
