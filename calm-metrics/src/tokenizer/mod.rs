//! The tokenizers of sacreBLEU.

mod intl;
mod mteval;
mod tercom;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::python;
use calm_names::names;

pub(crate) use tercom::tokenize_tercom;

/// How BLEU cuts a line into tokens; the names are sacreBLEU's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Tokenizer {
    /// The tokenizer of `mteval-v13a.pl`, by which WMT computes BLEU.
    ///
    /// It unescapes four HTML entities, joins lines hyphenated at their end, and sets ASCII punctuation
    /// apart; a period or comma stays within a number, a hyphen stays unless it follows a digit. Characters
    /// outside ASCII are never split.
    #[default]
    V13a,
    /// The tokenizer of `mteval-v14.pl`.
    ///
    /// It sets apart all of Unicode's symbols, and its punctuation unless it stands between numbers.
    Intl,
    /// One token for each character that is not white space.
    Char,
    /// The words between white space.
    None,
}

names!(Tokenizer, "tokenizer", { V13a => "13a", Intl => "intl", Char => "char", None => "none" });

impl Tokenizer {
    /// Puts white space between the tokens of a line; [`tokens`](Self::tokens) cuts there.
    pub fn tokenize(self, line: &str) -> Cow<'_, str> {
        match self {
            Self::V13a => mteval::tokenize_13a(line).into(),
            Self::Intl => intl::tokenize(line).into(),
            Self::Char => line.chars().flat_map(|c| [c, ' ']).collect::<String>().into(),
            Self::None => line.into(),
        }
    }

    /// Splits a line that [`tokenize`](Self::tokenize) returned into tokens.
    pub fn tokens(tokenized: &str) -> impl Iterator<Item = &str> {
        python::split(tokenized)
    }
}

/// Puts spaces around the characters of a class.
fn isolate(line: &str, is_isolated: impl Fn(char) -> bool) -> String {
    let mut result = String::with_capacity(line.len() * 2);
    for c in line.chars() {
        if is_isolated(c) {
            result.extend([' ', c, ' ']);
        } else {
            result.push(c);
        }
    }
    result
}

/// Where [`separate`] puts spaces into a pair.
#[derive(Clone, Copy)]
enum Apart {
    /// Spaces go before and after the first character.
    First,
    /// Spaces go before and after the second character.
    Second,
}

/// Substitutes by a regular expression of two characters.
///
/// A match uses both characters up, so the second one cannot begin the next match. This shows in runs of
/// marks such as "a..5", hence one pass for each expression.
fn separate(
    line: &str,
    is_first: impl Fn(char) -> bool,
    is_second: impl Fn(char) -> bool,
    apart: Apart,
) -> String {
    let mut result = String::with_capacity(line.len() * 2);
    let mut chars = line.chars().peekable();
    while let Some(first) = chars.next() {
        let second = if is_first(first) { chars.next_if(|&c| is_second(c)) } else { None };
        match (second, apart) {
            (None, _) => result.push(first),
            (Some(second), Apart::First) => result.extend([' ', first, ' ', second]),
            (Some(second), Apart::Second) => result.extend([first, ' ', second, ' ']),
        }
    }
    result
}
