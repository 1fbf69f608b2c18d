//! What Python's `str` and `re` mean by white space and by a word.

mod word_characters;

use word_characters::WORD_CHARACTERS;

/// `str.isspace`: Unicode's white space and the four ASCII separators U+001C to U+001F.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.split()` without arguments.
pub(crate) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// `\w` in a `str` pattern.
///
/// [`char::is_alphanumeric`] also holds for combining marks and symbols that Unicode counts as alphabetic.
pub(crate) fn is_word(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '_';
    }
    let after = WORD_CHARACTERS.partition_point(|&(first, _)| first <= c);
    after > 0 && c <= WORD_CHARACTERS[after - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_is_classified_as_in_python() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../tests/golden/golden.json")).unwrap();
        let words: Vec<char> = ('\0'..=char::MAX).filter(|&c| is_word(c)).collect();
        assert_eq!(golden["made_with"]["word_characters"], words.len());
        assert_eq!(golden["made_with"]["word_code_points"], words.iter().map(|&c| u64::from(c)).sum::<u64>());
        assert!(words.iter().all(|&c| c.is_alphanumeric() || c == '_'));
        // What str.isspace holds for in Python 3.11.
        let spaces: Vec<u32> = ('\0'..=char::MAX).filter(|&c| is_space(c)).map(u32::from).collect();
        let mut expected: Vec<u32> = (0x09..=0x0d).chain(0x1c..=0x20).chain([0x85, 0xa0, 0x1680]).collect();
        expected.extend((0x2000..=0x200a).chain([0x2028, 0x2029, 0x202f, 0x205f, 0x3000]));
        assert_eq!(spaces, expected);
    }
}
