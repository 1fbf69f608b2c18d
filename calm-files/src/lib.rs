//! Files that are written whole or not at all, claims to work that others could do as well, JSON files, TOML
//! documents whose errors name the place, and the streams that a program prints to, progress included.

mod claim;
mod document;
mod error;
mod map;
mod panics;
mod progress;
mod streams;
mod target;
mod unfinished;
mod write;

use std::path::Path;

use serde::de::DeserializeOwned;

pub use claim::Claim;
pub use document::Document;
pub use error::Error;
pub use map::{FileVersion, map_file};
pub use panics::catch_panic;
pub use progress::{Progress, minutes};
pub use streams::{LogFormat, print, print_aside, set_log_format, tell};
pub use unfinished::{TemporaryFolder, remove_unfinished};
pub use write::{Writer, check_output, is_standard_output, rename, write, write_by, write_json};

/// Reads a file.
///
/// # Errors
/// [`Error::Read`]
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(Error::read(path))
}

/// Reads a text.
///
/// # Errors
/// [`Error::Read`], for a file that is no UTF-8 either.
pub fn read_to_string(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(Error::read(path))
}

/// Writes a file as [`write()`] does, unless it has these bytes already: what is finished may lie where
/// nothing can be written.
///
/// # Errors
/// [`Error::Write`]
pub fn write_changed(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
    match std::fs::read(path) {
        Ok(found) if found == bytes.as_ref() => Ok(()),
        _ => write(path, bytes),
    }
}

/// Reads a JSON file, which may begin with a byte order mark, as editors on Windows write it.
///
/// # Errors
/// [`Error::Read`], and [`Error::Json`] with the path of the key whose value is wrong.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    parse_json(path, &read_to_string(path)?)
}

/// Reads JSON that lies in memory; `path` is only named in errors.
///
/// # Errors
/// [`Error::Json`], as [`read_json`] does.
pub fn parse_json<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let key = match error.path().to_string().as_str() {
            "." => String::new(),
            key if error.inner().is_data() => format!("{key}: "),
            // What is no JSON has a line and a column, and no key.
            _ => String::new(),
        };
        Error::Json { path: path.to_owned(), key, source: error.into_inner() }
    })?;
    deserializer.end().map_err(Error::json(path))?;
    Ok(value)
}

/// Bytes in hexadecimal, as hashes are written.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::parse_json;

    #[test]
    fn errors_name_the_file_and_the_key() {
        type Nested = BTreeMap<String, BTreeMap<String, Vec<u32>>>;
        let parse =
            |text: &str| parse_json::<Nested>(Path::new("f.json"), text).map_err(|error| error.to_string());
        let expected = BTreeMap::from([("a".to_owned(), BTreeMap::from([("b".to_owned(), vec![1])]))]);
        assert_eq!(parse("{\"a\": {\"b\": [1]}}").unwrap(), expected);
        assert_eq!(parse("\u{feff}{\"a\": {\"b\": [1]}}\n").unwrap(), expected);
        for (text, message) in [
            (
                "{\"a\": {\"b\": [1, \"c\"]}}",
                "f.json: a.b[1]: invalid type: string \"c\", expected u32 at line 1 column 19",
            ),
            ("[]", "f.json: invalid type: sequence, expected a map at line 1 column 0"),
            ("{\"a\": {\"b\": [1", "f.json: EOF while parsing a list at line 1 column 14"),
            ("{} {}", "f.json: trailing characters at line 1 column 4"),
        ] {
            assert_eq!(parse(text).unwrap_err(), message);
        }
    }
}
