//! Porter's suffix stripping (1980) with the extensions that NLTK makes by default (`nltk/stem/porter.py`).

/// Returns the stem of a word that consists of ASCII letters in lower case and digits.
pub(super) fn stem(word: &str) -> String {
    if let Some(stem) = irregular(word) {
        return stem.to_owned();
    }
    if word.len() <= 2 {
        return word.to_owned();
    }
    let mut word = word.to_owned();
    strip_plural(&mut word);
    strip_past_and_gerund(&mut word);
    if let Some(stem) = word.strip_suffix('y')
        && stem.len() > 1
        && consonants(stem).last() == Some(true)
    {
        replace(&mut word, 1, "i");
    }
    shorten_double_suffix(&mut word);
    apply(&mut word, SUFFIXES, |stem, _| measure(stem) > 0);
    apply(&mut word, ENDINGS, |stem, ending| {
        measure(stem) > 1 && (ending != "ion" || stem.ends_with(['s', 't']))
    });
    if let Some(stem) = word.strip_suffix('e')
        && (measure(stem) > 1 || measure(stem) == 1 && !ends_in_short_syllable(stem))
    {
        replace(&mut word, 1, "");
    }
    if word.ends_with("ll") && measure(&word[..word.len() - 1]) > 1 {
        replace(&mut word, 1, "");
    }
    word
}

fn irregular(word: &str) -> Option<&'static str> {
    Some(match word {
        "sky" | "skies" => "sky",
        "dying" => "die",
        "lying" => "lie",
        "tying" => "tie",
        "news" => "news",
        "innings" | "inning" => "inning",
        "outings" | "outing" => "outing",
        "cannings" | "canning" => "canning",
        "howe" => "howe",
        "proceed" => "proceed",
        "exceed" => "exceed",
        "succeed" => "succeed",
        _ => return None,
    })
}

/// Endings and what takes their place.
///
/// Only the first ending that a word has counts; if its condition fails the word stays as it is.
type Rules = &'static [(&'static str, &'static str)];

const DOUBLE_SUFFIXES: Rules = &[
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
    ("logi", "log"),
];

const SUFFIXES: Rules = &[
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

const ENDINGS: Rules = &[
    ("al", ""),
    ("ance", ""),
    ("ence", ""),
    ("er", ""),
    ("ic", ""),
    ("able", ""),
    ("ible", ""),
    ("ant", ""),
    ("ement", ""),
    ("ment", ""),
    ("ent", ""),
    ("ion", ""),
    ("ou", ""),
    ("ism", ""),
    ("ate", ""),
    ("iti", ""),
    ("ous", ""),
    ("ive", ""),
    ("ize", ""),
];

fn apply(word: &mut String, rules: Rules, condition: impl Fn(&str, &str) -> bool) {
    let found = rules.iter().find(|(ending, _)| word.ends_with(ending));
    if let Some((ending, replacement)) = found
        && condition(&word[..word.len() - ending.len()], ending)
    {
        replace(word, ending.len(), replacement);
    }
}

fn replace(word: &mut String, length: usize, replacement: &str) {
    word.truncate(word.len() - length);
    word.push_str(replacement);
}

/// Step 1a of the algorithm.
fn strip_plural(word: &mut String) {
    if word.len() == 4 && word.ends_with("ies") {
        replace(word, 1, "");
    } else if word.ends_with("sses") || word.ends_with("ies") {
        replace(word, 2, "");
    } else if word.ends_with('s') && !word.ends_with("ss") {
        replace(word, 1, "");
    }
}

/// Step 1b of the algorithm.
fn strip_past_and_gerund(word: &mut String) {
    if word.ends_with("ied") {
        let length = if word.len() == 4 { 1 } else { 2 };
        return replace(word, length, "");
    }
    if let Some(stem) = word.strip_suffix("eed") {
        if measure(stem) > 0 {
            replace(word, 1, "");
        }
        return;
    }
    let has_vowel = |stem: &&str| consonants(stem).any(|is_consonant| !is_consonant);
    let stems = ["ed", "ing"].into_iter().filter_map(|ending| word.strip_suffix(ending));
    let Some(length) = stems.filter(has_vowel).map(str::len).next() else { return };
    word.truncate(length);
    let last = word.as_bytes()[length - 1];
    let is_double = length >= 2 && last == word.as_bytes()[length - 2];
    if ["at", "bl", "iz"].iter().any(|ending| word.ends_with(ending)) {
        word.push('e');
    } else if is_double && consonants(word).last() == Some(true) {
        if !matches!(last, b'l' | b's' | b'z') {
            replace(word, 1, "");
        }
    } else if measure(word) == 1 && ends_in_short_syllable(word) {
        word.push('e');
    }
}

/// Step 2 of the algorithm.
fn shorten_double_suffix(word: &mut String) {
    while let Some(stem) = word.strip_suffix("alli")
        && measure(stem) > 0
    {
        replace(word, 2, "");
    }
    // For "logi" the l counts as part of the stem.
    let in_stem = |ending: &str| usize::from(ending == "logi");
    let whole = word.clone();
    apply(word, DOUBLE_SUFFIXES, |stem, ending| measure(&whole[..stem.len() + in_stem(ending)]) > 0);
}

/// For each letter, whether it is a consonant.
///
/// Consonants are all letters but vowels; y is one at the start of a word and after a vowel.
fn consonants(word: &str) -> impl Iterator<Item = bool> {
    let mut before = false;
    word.bytes().map(move |letter| {
        before = match letter {
            b'a' | b'e' | b'i' | b'o' | b'u' => false,
            b'y' => !before,
            _ => true,
        };
        before
    })
}

/// Porter's m, which is how often a consonant follows a vowel.
fn measure(stem: &str) -> usize {
    consonants(stem).zip(consonants(stem).skip(1)).filter(|&(first, second)| !first && second).count()
}

/// Whether a word ends in a short syllable.
///
/// That is a consonant, a vowel and a consonant other than w, x and y, or a whole word of a vowel and a
/// consonant.
fn ends_in_short_syllable(word: &str) -> bool {
    let consonants: Vec<bool> = consonants(word).collect();
    match consonants.as_slice() {
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        [false, true] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    #[test]
    fn words_have_the_stems_of_nltk() {
        #[derive(serde::Deserialize)]
        struct Golden {
            stems: BTreeMap<String, String>,
        }
        let Golden { stems } = serde_json::from_str(include_str!("../../tests/golden/golden.json")).unwrap();
        assert!(stems.len() > 2000);
        for (word, stem) in stems {
            assert_eq!(super::stem(&word), stem, "{word}");
        }
    }
}
