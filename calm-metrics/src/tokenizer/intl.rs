//! The international tokenizer of `mteval-v14.pl` (sacreBLEU's `tokenizer_intl.py`).

use super::{Apart, isolate, separate};
use crate::python::{is_number, is_punctuation, is_symbol};

pub(super) fn tokenize(line: &str) -> String {
    let line = separate(line, |c| !is_number(c), is_punctuation, Apart::Second);
    let line = separate(&line, is_punctuation, |c| !is_number(c), Apart::First);
    isolate(&line, is_symbol)
}
