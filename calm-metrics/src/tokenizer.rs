//! Tokenizers of sacreBLEU.

use crate::python;

/// sacreBLEU's `13a`, the tokenizer of `mteval-v13a.pl` that WMT scores BLEU with: the tokens, separated by one space.
///
/// Unescapes four HTML entities, joins lines hyphenated at their end, and sets ASCII punctuation apart; a period or comma
/// stays within a number, a hyphen stays unless it follows a digit. Characters outside ASCII are never split.
pub fn tokenize_13a(line: &str) -> String {
    let mut line = line.replace("<skipped>", "").replace("-\n", "");
    line = line.replace('\n', " ");
    if line.contains('&') {
        line = line.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    }
    line = isolate_symbols(&format!(" {line} "));
    line = isolate_marks_after_non_digits(&line);
    line = isolate_marks_before_non_digits(&line);
    line = isolate_hyphens_after_digits(&line);
    python::split(&line).collect::<Vec<_>>().join(" ")
}

/// The regular expression ``[\{-\~\[-\` -\&\(-\+\:-\@\/]``, without the space that it also holds.
fn is_symbol(c: char) -> bool {
    matches!(c, '{'..='~' | '['..='`' | '!'..='&' | '('..='+' | ':'..='@' | '/')
}

fn is_mark(c: char) -> bool {
    c == '.' || c == ','
}

fn isolate_symbols(line: &str) -> String {
    let mut result = String::with_capacity(line.len() * 2);
    for c in line.chars() {
        if is_symbol(c) {
            result.extend([' ', c, ' ']);
        } else {
            result.push(c);
        }
    }
    result
}

// The next three are regular expressions of two characters. A match uses both up, so the second cannot begin the next
// match; this shows in runs of marks such as "a..5", hence three passes instead of one rule.

/// `([^0-9])([\.,])` to `\1 \2 `
fn isolate_marks_after_non_digits(line: &str) -> String {
    let mut result = String::with_capacity(line.len() * 2);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        result.push(c);
        if !c.is_ascii_digit()
            && let Some(mark) = chars.next_if(|&next| is_mark(next))
        {
            result.extend([' ', mark, ' ']);
        }
    }
    result
}

/// `([\.,])([^0-9])` to ` \1 \2`
fn isolate_marks_before_non_digits(line: &str) -> String {
    let mut result = String::with_capacity(line.len() * 2);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if is_mark(c)
            && let Some(next) = chars.next_if(|next| !next.is_ascii_digit())
        {
            result.extend([' ', c, ' ', next]);
        } else {
            result.push(c);
        }
    }
    result
}

/// `([0-9])(-)` to `\1 \2 `
fn isolate_hyphens_after_digits(line: &str) -> String {
    let mut result = String::with_capacity(line.len() * 2);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        result.push(c);
        if c.is_ascii_digit() && chars.next_if_eq(&'-').is_some() {
            result.push_str(" - ");
        }
    }
    result
}
