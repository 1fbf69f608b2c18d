//! Pairs the blocks of an English page with those of its French translation.

use super::super::{tasks, text};

/// One text in both languages.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// Name of the text, unique within its page.
    pub key: String,
    pub english: String,
    pub french: String,
}

/// A paragraph, heading, list item or the like.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The kind of element, which is the same in both languages.
    pub kind: &'static str,
    /// The normalized text; `None` if it is not prose but, say, program code.
    pub text: Option<String>,
}

/// A heading with all that follows it until the next one.
pub(super) type Section = Vec<Block>;

/// Pairs the blocks of a page that has the same number of sections in both languages.
///
/// Blocks are paired in every section that has the same kinds in the same order; blocks that are too long are
/// paired by their sentences. Everything else is left out, since one block more or less is enough to pair the
/// wrong texts.
pub(super) fn pairs(english: Vec<Section>, french: Vec<Section>) -> Vec<Pair> {
    if english.len() != french.len() {
        return Vec::new();
    }
    let mut pairs = Vec::new();
    for (number, (english, french)) in english.into_iter().zip(french).enumerate() {
        let has_same_kinds = english.iter().map(|block| block.kind).eq(french.iter().map(|block| block.kind));
        if !has_same_kinds {
            continue;
        }
        for (position, blocks) in english.into_iter().zip(french).enumerate() {
            if let (Block { text: Some(english), .. }, Block { text: Some(french), .. }) = blocks {
                add(&mut pairs, format!("{number}.{position}"), english, french);
            }
        }
    }
    pairs
}

fn add(pairs: &mut Vec<Pair>, key: String, english: String, french: String) {
    let is_long = text::words(&english).max(text::words(&french)) > tasks::MAX_PARAGRAPH_WORDS;
    let [english_sentences, french_sentences] = [&english, &french].map(|text| sentences(text));
    if is_long && english_sentences.len() == french_sentences.len() {
        let sentences = english_sentences.into_iter().zip(french_sentences).enumerate();
        pairs.extend(sentences.map(|(number, (english, french))| Pair {
            key: format!("{key}.{number}"),
            english: english.to_owned(),
            french: french.to_owned(),
        }));
    } else {
        pairs.push(Pair { key, english, french });
    }
}

/// Splits a text into sentences.
///
/// A sentence ends with a full stop, an exclamation mark or a question mark, perhaps followed by a closing
/// bracket or quotation mark, then a space with a capital letter after it.
fn sentences(text: &str) -> Vec<&str> {
    const ABBREVIATIONS: [&str; 7] = ["e.g.", "i.e.", "etc.", "cf.", "ex.", "vs.", "M."];
    let mut sentences = Vec::new();
    let mut start = 0;
    for (space, _) in text.match_indices(' ') {
        let sentence = &text[start..space];
        let ends = sentence.trim_end_matches([')', '"', '\'', '»']).trim_end().ends_with(['.', '!', '?']);
        let last_word = sentence.rsplit(' ').next().unwrap_or(sentence);
        let is_abbreviation = ABBREVIATIONS.contains(&last_word.trim_start_matches('('));
        let next = text[space + 1..].trim_start_matches(['(', '"', '«', ' ']);
        if ends && !is_abbreviation && next.starts_with(char::is_uppercase) {
            sentences.push(sentence);
            start = space + 1;
        }
    }
    sentences.push(&text[start..]);
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a page of one-letter kinds and texts; the text `-` stands for a block that is not prose.
    fn page(sections: &[&[(&'static str, &str)]]) -> Vec<Section> {
        let block = |(kind, text): &(&'static str, &str)| Block {
            kind,
            text: (*text != "-").then(|| (*text).to_owned()),
        };
        sections.iter().map(|blocks| blocks.iter().map(block).collect()).collect()
    }

    #[track_caller]
    fn check(english: Vec<Section>, french: Vec<Section>, expected: &[[&str; 3]]) {
        let found = pairs(english, french);
        let found: Vec<[&str; 3]> =
            found.iter().map(|pair| [&*pair.key, &*pair.english, &*pair.french]).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn sections_of_the_same_kinds_are_paired() {
        let english = page(&[
            &[("h", "One"), ("p", "two"), ("pre", "-"), ("p", "three")],
            &[("h", "Four"), ("p", "five")],
        ]);
        let french = |last| {
            page(&[
                &[("h", "Un"), ("p", "deux"), ("pre", "-"), ("p", "-")],
                &[("h", "Quatre"), (last, "cinq")],
            ])
        };
        let first = [["0.0", "One", "Un"], ["0.1", "two", "deux"]];
        check(english, french("li"), &first);
        let english = || page(&[&[("h", "Four"), ("p", "five")]]);
        check(english(), page(&[&[("h", "Quatre"), ("p", "cinq"), ("p", "six")]]), &[]);
        check(english(), page(&[&[("h", "Quatre"), ("p", "cinq")], &[("h", "Six")]]), &[]);
    }

    #[test]
    fn long_paragraphs_are_paired_by_sentence() {
        let long = "word ".repeat(80);
        let english = format!("{long}ends. Is there more? Yes.");
        let french = format!("{long}finit. Y a-t-il plus ? Oui.");
        let (first, premier) = (format!("{long}ends."), format!("{long}finit."));
        check(
            page(&[&[("p", &english)]]),
            page(&[&[("p", &french)]]),
            &[
                ["0.0.0", &first, &premier],
                ["0.0.1", "Is there more?", "Y a-t-il plus ?"],
                ["0.0.2", "Yes.", "Oui."],
            ],
        );
        let joined = format!("{long}finit, non sans suite.");
        check(page(&[&[("p", &english)]]), page(&[&[("p", &joined)]]), &[["0.0", &english, &joined]]);
        check(
            page(&[&[("p", "One. Two.")]]),
            page(&[&[("p", "Un. Deux.")]]),
            &[["0.0", "One. Two.", "Un. Deux."]],
        );
    }

    #[test]
    fn sentences_end_before_a_capital() {
        for (text, expected) in [
            ("", vec![""]),
            ("One. Two", vec!["One.", "Two"]),
            ("Version 1.2 or e.g. Three. four", vec!["Version 1.2 or e.g. Three. four"]),
            ("\"One!\" (Two.) Étui", vec!["\"One!\"", "(Two.)", "Étui"]),
            ("« Un. » « Deux »", vec!["« Un. »", "« Deux »"]),
        ] {
            assert_eq!(sentences(text), expected);
        }
    }
}
