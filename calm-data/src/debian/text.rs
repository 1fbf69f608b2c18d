//! What counts as a word, and when two texts are the same.

/// Counts the words, which white space separates.
pub(super) fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// Whether the text is written in Latin letters and common punctuation.
///
/// The few other texts would cost the vocabulary hundreds of characters that occur once or twice.
pub(super) fn is_latin(text: &str) -> bool {
    let has_letter = text.chars().any(char::is_alphabetic);
    has_letter
        && text.chars().all(|c| match c {
            '\u{2010}'..='\u{2044}' | '€' | '−' => true,
            _ => c < '\u{250}' && !c.is_control() && c != '\u{ad}',
        })
}

/// Keeps only the letters of a text, in lower case.
///
/// Texts that differ only in version numbers or punctuation become the same.
pub(super) fn skeleton(text: &str) -> String {
    text.chars().filter(|c| c.is_alphabetic()).flat_map(char::to_lowercase).collect()
}
