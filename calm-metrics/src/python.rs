//! What Python's `str`, `re` and `regex` mean by white space, lower case and classes of characters.

mod numbers;
mod punctuation;
mod symbols;
mod word;

use std::borrow::Cow;

use numbers::NUMBERS;
use punctuation::PUNCTUATION;
use symbols::SYMBOLS;
use word::WORD;

/// Python's `str.isspace`: Unicode's white space and the four ASCII separators U+001C to U+001F.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `str.split()` without arguments.
pub(crate) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// Python's `str.rstrip()` without arguments.
pub(crate) fn trim_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// Python's `str.lower()`.
pub(crate) fn to_lowercase(text: &str) -> String {
    if text.contains(is_new_upper_case) {
        // These letters stay as they are. Python does not know them as letters, so a sigma before one of them
        // is final.
        return text.split_inclusive(is_new_upper_case).map(lower_word_end).collect();
    }
    text.to_lowercase()
}

fn lower_word_end(part: &str) -> String {
    let (head, new) = part.split_at(part.trim_end_matches(is_new_upper_case).len());
    head.to_lowercase() + new
}

/// Returns `text`, lower-cased as by `str.lower()` if `lowercase` asks for it.
pub(crate) fn lowered(text: &str, lowercase: bool) -> Cow<'_, str> {
    if lowercase { to_lowercase(text).into() } else { text.into() }
}

/// Whether an upper-case letter is newer than Unicode 14.0, the version of Python 3.11.
fn is_new_upper_case(c: char) -> bool {
    matches!(c, '\u{1c89}' | '\u{a7cb}'..='\u{a7dc}' | '\u{10d50}'..='\u{10d65}' | '\u{16ea0}'..='\u{16eb8}')
        && !matches!(c, '\u{a7d0}' | '\u{a7d6}' | '\u{a7d8}')
}

/// Whether a character matches `\w` in a `str` pattern of Python's `re`.
///
/// [`char::is_alphanumeric`] does not do: it also holds for combining marks and symbols that Unicode counts
/// as alphabetic.
pub(crate) fn is_word(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphanumeric() || c == '_' } else { is_in(&WORD, c) }
}

/// Whether a character matches `\p{P}` of the package `regex`.
pub(crate) fn is_punctuation(c: char) -> bool {
    is_in(&PUNCTUATION, c)
}

/// Whether a character matches `\p{S}` of the package `regex`.
pub(crate) fn is_symbol(c: char) -> bool {
    is_in(&SYMBOLS, c)
}

/// Whether a character matches `\p{N}` of the package `regex`.
pub(crate) fn is_number(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_digit() } else { is_in(&NUMBERS, c) }
}

fn is_in(ranges: &[(char, char)], c: char) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= c);
    after > 0 && c <= ranges[after - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(characters: impl Iterator<Item = char>) -> serde_json::Value {
        let (count, sum) = characters.fold((0, 0), |(count, sum), c| (count + 1, sum + u64::from(c)));
        serde_json::json!({"count": count, "sum": sum})
    }

    #[test]
    fn every_character_is_classified_as_in_python() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../tests/golden/golden.json")).unwrap();
        let golden = &golden["made_with"];
        let all = || '\0'..=char::MAX;
        assert_eq!(golden["classes"]["WORD"], sums(all().filter(|&c| is_word(c))));
        assert_eq!(golden["classes"]["PUNCTUATION"], sums(all().filter(|&c| is_punctuation(c))));
        assert_eq!(golden["classes"]["SYMBOLS"], sums(all().filter(|&c| is_symbol(c))));
        assert_eq!(golden["classes"]["NUMBERS"], sums(all().filter(|&c| is_number(c))));
        assert!(all().filter(|&c| is_word(c)).all(|c| c.is_alphanumeric() || c == '_'));
        let lower = |c: char| to_lowercase(c.encode_utf8(&mut [0; 4]));
        let changed = all().filter(|&c| !lower(c).chars().eq([c]));
        assert_eq!(golden["lower"]["changed"], sums(changed));
        assert_eq!(golden["lower"]["to"], sums(all().flat_map(|c| lower(c).chars().collect::<Vec<_>>())));
        // The characters that `str.isspace` holds for in Python 3.11.
        let spaces: Vec<u32> = all().filter(|&c| is_space(c)).map(u32::from).collect();
        let mut expected: Vec<u32> = (0x09..=0x0d).chain(0x1c..=0x20).chain([0x85, 0xa0, 0x1680]).collect();
        expected.extend((0x2000..=0x200a).chain([0x2028, 0x2029, 0x202f, 0x205f, 0x3000]));
        assert_eq!(spaces, expected);
    }
}
