//! What counts as a word, and as the same text.

/// Number of white-space separated words.
pub(super) fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// Whether the text is written in Latin letters and common punctuation. The few others would cost the vocabulary
/// hundreds of characters that occur once or twice.
pub(super) fn is_latin(text: &str) -> bool {
    let has_letter = text.chars().any(char::is_alphabetic);
    has_letter
        && text.chars().all(|c| match c {
            '\u{2010}'..='\u{2044}' | '€' | '−' => true,
            _ => c < '\u{250}' && !c.is_control() && c != '\u{ad}',
        })
}

/// The text's letters in lower case and nothing else: texts that differ in version numbers or punctuation alone share it.
pub(super) fn skeleton(text: &str) -> String {
    text.chars().filter(|c| c.is_alphabetic()).flat_map(char::to_lowercase).collect()
}
