//! A TOML file with `--set` overrides on top, which still knows where each value was written.
//!
//! An override is parsed as one more line below the file: its text gets as many line breaks in front as the file has
//! bytes. Every span is then unique to the place it came from, and an error can name that place.

use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// The texts of a document.
pub(crate) struct Sources<'a> {
    path: &'a Path,
    file: String,
    overrides: Vec<Override<'a>>,
}

/// One `--set KEY=VALUE`.
struct Override<'a> {
    argument: &'a str,
    /// A line of TOML behind as many line breaks as there are bytes in the sources before it.
    text: String,
    span: Range<usize>,
}

impl<'a> Sources<'a> {
    /// The content of `path`, and `overrides` (each `KEY.PATH=VALUE`) to put on top of it in this order.
    pub(crate) fn new(path: &'a Path, file: String, overrides: &'a [String]) -> Result<Self, ConfigError> {
        let mut sources = Self { path, file, overrides: Vec::new() };
        let mut start = sources.file.len();
        for argument in overrides {
            let (key, value) =
                argument.split_once('=').ok_or_else(|| invalid_override(argument, "expected KEY=VALUE"))?;
            let mut text = "\n".repeat(start) + argument;
            if DeTable::parse(&text).is_err() {
                // What is not a TOML value is a string that nobody wants to quote twice in a shell.
                text = "\n".repeat(start) + &format!("{key}={}", toml::Value::String(value.to_owned()));
            }
            let span = start..text.len();
            start = text.len();
            sources.overrides.push(Override { argument, text, span });
        }
        Ok(sources)
    }

    fn error(&self, span: Option<Range<usize>>, key: &str, message: &str) -> ConfigError {
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        // Of several lines only the first one says what is wrong.
        let message = message.lines().next().unwrap_or_default().to_owned();
        ConfigError::Invalid { place: self.place(span), key, message }
    }

    /// `FILE:LINE` or `--set ARGUMENT`.
    fn place(&self, span: Option<Range<usize>>) -> String {
        let file = self.path.display();
        let Some(start) = span.map(|span| span.start) else { return file.to_string() };
        if let Some(given) = self.overrides.iter().find(|given| given.span.contains(&start)) {
            return format!("--set {}", given.argument);
        }
        let line = 1 + self.file.bytes().take(start).filter(|&byte| byte == b'\n').count();
        format!("{file}:{line}")
    }
}

fn invalid_override(argument: &str, message: &str) -> ConfigError {
    let place = format!("--set {argument}");
    ConfigError::Invalid { place, key: String::new(), message: message.to_owned() }
}

/// The merged document.
pub(crate) struct Document<'a> {
    sources: &'a Sources<'a>,
    table: Spanned<DeTable<'a>>,
}

impl<'a> Document<'a> {
    /// Parses and merges the sources.
    pub(crate) fn parse(sources: &'a Sources<'a>) -> Result<Self, ConfigError> {
        let mut table = DeTable::parse(&sources.file)
            .map_err(|error| sources.error(error.span(), "", error.message()))?;
        for Override { argument, text, .. } in &sources.overrides {
            let values = DeTable::parse(text).map_err(|error| invalid_override(argument, error.message()))?;
            merge(table.get_mut(), values.into_inner());
        }
        Ok(Self { sources, table })
    }

    /// The document as a `T`; the error has the place and the key path.
    pub(crate) fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let deserializer = toml::Deserializer::from(self.table.clone());
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let key = error.path().to_string();
            let key = if key == "." { "" } else { key.as_str() };
            let inner = error.inner();
            // A missing key has no place of its own, but the section that lacks it has, unless that is the whole file.
            let span = if key.is_empty() { None } else { inner.span().or_else(|| self.find(key)) };
            self.sources.error(span, key, inner.message())
        })
    }

    /// An error about the value at `key`, such as `sweep.thresholds[2]`.
    pub(crate) fn invalid(&self, key: &str, message: impl ToString) -> ConfigError {
        self.sources.error(self.find(key), key, &message.to_string())
    }

    /// Where the value at `key` is, or else the innermost section around it.
    fn find(&self, key: &str) -> Option<Range<usize>> {
        let mut table = self.table.get_ref();
        let mut span = None;
        let mut value: Option<&DeValue<'_>> = None;
        for part in key.split(['.', '[']).filter(|part| !part.is_empty()) {
            let next = match (part.strip_suffix(']'), value) {
                (Some(index), Some(DeValue::Array(items))) => {
                    index.parse().ok().and_then(|i: usize| items.get(i))
                }
                _ => table.get(part),
            };
            let Some(next) = next else { break };
            span = Some(next.span());
            value = Some(next.get_ref());
            match next.get_ref() {
                DeValue::Table(inner) => table = inner,
                DeValue::Array(_) => {}
                _ => break,
            }
        }
        span
    }
}

/// Puts the values of `over` into `table`, section by section.
fn merge<'a>(table: &mut DeTable<'a>, over: DeTable<'a>) {
    for (key, value) in over {
        match (table.get_mut(key.get_ref().as_ref()), value.get_ref()) {
            (Some(old), DeValue::Table(_)) if old.get_ref().is_table() => {
                if let (DeValue::Table(old), DeValue::Table(new)) = (old.get_mut(), value.into_inner()) {
                    merge(old, new);
                }
            }
            _ => {
                table.remove(key.get_ref().as_ref());
                table.insert(key, value);
            }
        }
    }
}
