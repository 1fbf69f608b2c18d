//! The text of a `tokenizer.json`, checked for what the crate `tokenizers` does not survive.

use std::path::Path;

use serde_json::Value;

use super::limits::check;
use crate::Error;

/// Files of tokenizers that have to be converted.
const OTHER_FORMATS: [&str; 5] =
    ["spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "vocab.txt", "vocab.json"];

/// How the file of Git LFS begins that stands for one that was not fetched.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// Reads a tokenizer's file, without the byte order mark that it may begin with.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    let failed = |reason: String| Error::Tokenizer { path: path.to_owned(), reason };
    let dir = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().unwrap_or_default();
    if name == super::FILE && !path.exists() {
        return Err(missing(dir));
    }
    let bytes = calm_files::read(path)?;
    if bytes.starts_with(LFS_POINTER) {
        return Err(failed(
            "it is a pointer of Git LFS: fetch the file itself with `git lfs pull`".to_owned(),
        ));
    }
    if OTHER_FORMATS.iter().any(|other| name == *other) {
        return Err(failed(format!("it is no tokenizer.json: {} makes one of it", converter(dir))));
    }
    let text = String::from_utf8(bytes).map_err(|error| failed(format!("it is no text: {error}")))?;
    let text = match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    };
    // The crate itself panics where the text ends inside some parts of it.
    let document: Value = calm_files::parse_json(path, &text)?;
    check(&document).map_err(failed)?;
    Ok(text)
}

/// The error of a checkpoint directory that has no `tokenizer.json`.
pub(super) fn missing(dir: &Path) -> Error {
    let other = OTHER_FORMATS.iter().find(|name| dir.join(name).is_file());
    let advice = other.map(|name| format!("; {} makes one of {name}", converter(dir)));
    Error::NoTokenizer { dir: dir.to_owned(), advice: advice.unwrap_or_default() }
}

/// The command that writes `tokenizer.json` beside a tokenizer of another format.
fn converter(dir: &Path) -> String {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir }.display();
    format!(
        "`python3 -c \"from transformers import AutoTokenizer as T; T.from_pretrained('{dir}').save_pretrained('{dir}')\"` \
         (after `pip install transformers sentencepiece protobuf`)"
    )
}
