//! What `mteval-v13a.pl` and tercom do to text in the Latin script.
//!
//! It is in sacreBLEU's `tokenizer_13a.py` and `tokenizer_re.py`.

use super::{Apart, isolate, separate};

pub(super) fn tokenize_13a(line: &str) -> String {
    let mut line = line.replace("<skipped>", "").replace("-\n", "");
    line = line.replace('\n', " ");
    line = isolate_symbols(&format!(" {} ", unescape(line)));
    separate_marks(&line)
}

/// Unescapes four HTML entities, one after the other: `&amp;lt;` becomes `<`.
pub(super) fn unescape(line: String) -> String {
    if !line.contains('&') {
        return line;
    }
    line.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
}

/// Sets symbols apart.
///
/// They are matched by the regular expression ``[\{-\~\[-\` -\&\(-\+\:-\@\/]``, which also contains the
/// space.
pub(super) fn isolate_symbols(line: &str) -> String {
    isolate(line, |c| matches!(c, '{'..='~' | '['..='`' | '!'..='&' | '('..='+' | ':'..='@' | '/'))
}

/// Sets apart periods and commas unless they stand in a number, and hyphens after digits.
pub(super) fn separate_marks(line: &str) -> String {
    let is_digit = |c: char| c.is_ascii_digit();
    let is_other = |c: char| !c.is_ascii_digit();
    let is_mark = |c: char| c == '.' || c == ',';
    let line = separate(line, is_other, is_mark, Apart::Second);
    let line = separate(&line, is_mark, is_other, Apart::First);
    separate(&line, is_digit, |c| c == '-', Apart::Second)
}
