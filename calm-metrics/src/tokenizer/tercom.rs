//! The normalisation of tercom (sacreBLEU's `tokenizer_ter.py`).

use super::isolate;
use super::mteval::{isolate_symbols, separate_marks, unescape};
use crate::{TerOptions, python};

/// Puts white space between the tokens of a line.
pub(crate) fn tokenize_tercom(line: &str, options: &TerOptions) -> String {
    let mut line = python::lowered(python::trim_end(line), !options.case_sensitive).into_owned();
    if options.normalize {
        line = unescape(line.replace("\n-", "").replace('\n', " "));
        line = isolate_symbols(&format!(" {line} ")).replace("'s ", " 's ");
        line = separate_marks(&line);
        // sacreBLEU also has rules for runs of kana, which never match: they ask for the start of a line that
        // by then begins with a space.
        if options.asian_support {
            line = isolate(&line, |c| is_ideograph(c) || is_asian_punctuation(c));
        }
    }
    if options.no_punctuation {
        line.retain(|c| !matches!(c, '.' | ',' | '?' | ':' | ';' | '!' | '"' | '(' | ')'));
        if options.asian_support {
            line.retain(|c| !is_asian_punctuation(c));
        }
    }
    line
}

/// Whether a character is in one of the CJK blocks as sacreBLEU delimits them.
fn is_ideograph(c: char) -> bool {
    matches!(
        c,
        '\u{4e00}'..='\u{9fff}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{31c0}'..='\u{31ef}'
            | '\u{2e80}'..='\u{2eff}'
            | '\u{3300}'..='\u{33ff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{fe30}'..='\u{fe4f}'
            | '\u{3200}'..='\u{3f22}'
    )
}

fn is_asian_punctuation(c: char) -> bool {
    matches!(
        c,
        '\u{3001}' | '\u{3002}' | '\u{3008}'..='\u{3011}' | '\u{3014}'..='\u{301f}' | '\u{ff61}'..='\u{ff65}' | '\u{30fb}'
    ) || matches!(c, '．' | '，' | '？' | '：' | '；' | '！' | '＂' | '（' | '）')
}
