//! A TOML file with `--set` overrides on top, which still knows where each value was written.
//!
//! An override is parsed as one more line below the file: its text gets as many line breaks in front as the
//! file has bytes. Every span is then unique to the place it came from, and an error can name that place.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Error;

/// A TOML file with overrides.
///
/// ```
/// # use std::{collections::BTreeMap, path::Path};
/// # use calm_files::Document;
/// let overrides = ["steps=10".to_owned()];
/// let document = Document::new(Path::new("run.toml"), "\nsteps = 9\nseed = 1".to_owned(), &overrides)?;
/// let numbers: BTreeMap<String, u64> = document.deserialize()?;
/// assert_eq!((numbers["steps"], numbers["seed"]), (10, 1));
/// assert_eq!(document.invalid("seed", "is odd").to_string(), "run.toml:3: seed: is odd");
/// assert_eq!(document.invalid("steps", "is even").to_string(), "--set steps=10: steps: is even");
/// # Ok::<(), calm_files::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Document {
    path: PathBuf,
    file: String,
    overrides: Vec<Override>,
    /// The list and the number of its table that lies over the file.
    overlay: Option<(String, usize)>,
}

/// One `--set KEY=VALUE`.
#[derive(Debug, Clone)]
struct Override {
    argument: String,
    /// A line of TOML behind as many line breaks as there are bytes in the sources before it.
    text: String,
    span: Range<usize>,
}

impl Document {
    /// Reads a file and puts `overrides` (each `KEY.PATH=VALUE`, a TOML value or else a string) on top of it
    /// in this order.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Document`]
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, Error> {
        Self::new(path, crate::read_to_string(path)?, overrides)
    }

    /// As [`Document::read`], for a text that is already read; `path` is only named in errors.
    ///
    /// # Errors
    /// [`Error::Document`], for an override that is not `KEY=VALUE`.
    pub fn new(path: &Path, file: String, overrides: &[String]) -> Result<Self, Error> {
        let mut document = Self { path: path.to_owned(), file, overrides: Vec::new(), overlay: None };
        let mut start = document.file.len();
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
            document.overrides.push(Override { argument: argument.clone(), text, span });
        }
        Ok(document)
    }

    /// How many tables the list at a key of the file has; 0 if there is none.
    ///
    /// # Errors
    /// [`Error::Document`], if the file is no TOML, or has something else at the key.
    pub fn count_tables(&self, list: &str) -> Result<usize, Error> {
        match self.parse()?.get_ref().get(list) {
            None => Ok(0),
            Some(tables) => match tables.get_ref() {
                DeValue::Array(tables) if tables.iter().all(|table| table.get_ref().is_table()) => {
                    Ok(tables.len())
                }
                _ => Err(self.invalid(list, "expected a list of tables")),
            },
        }
    }

    /// The document with one of the tables of a list on top of the file, below the overrides, and without the
    /// list.
    #[must_use]
    pub fn with_table_of(mut self, list: &str, index: usize) -> Self {
        self.overlay = Some((list.to_owned(), index));
        self
    }

    /// The document as a `T`.
    ///
    /// # Errors
    /// [`Error::Document`], with the place and the path of the key.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let deserializer = toml::Deserializer::from(self.parse()?);
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let key = error.path().to_string();
            let key = if key == "." { "" } else { key.as_str() };
            let inner = error.inner();
            // A missing key has no place of its own, but the section that lacks it has, unless that is the
            // whole file.
            let span = if key.is_empty() { None } else { inner.span().or_else(|| self.find(key)) };
            self.error(span, key, inner.message())
        })
    }

    /// An error about the value at `key`, such as `sweep.thresholds[2]`.
    pub fn invalid(&self, key: &str, message: impl ToString) -> Error {
        self.error(self.find(key), key, &message.to_string())
    }

    /// The file with the overrides on top of it.
    fn parse(&self) -> Result<Spanned<DeTable<'_>>, Error> {
        let mut table =
            DeTable::parse(&self.file).map_err(|error| self.error(error.span(), "", error.message()))?;
        if let Some((list, index)) = &self.overlay
            && let Some((_, tables)) = table.get_mut().remove_entry(list.as_str())
            && let DeValue::Array(tables) = tables.into_inner()
            && let Some(values) = tables.into_iter().nth(*index)
            && let DeValue::Table(values) = values.into_inner()
        {
            merge(table.get_mut(), values);
        }
        for Override { argument, text, .. } in &self.overrides {
            let values = DeTable::parse(text).map_err(|error| invalid_override(argument, error.message()))?;
            merge(table.get_mut(), values.into_inner());
        }
        Ok(table)
    }

    fn error(&self, span: Option<Range<usize>>, key: &str, message: &str) -> Error {
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        // Of several lines only the first one says what is wrong.
        let message = message.lines().next().unwrap_or_default().to_owned();
        Error::Document { place: self.place(span), key, message }
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

    /// Where the value at `key` is, or else the innermost section around it.
    fn find(&self, key: &str) -> Option<Range<usize>> {
        let document = self.parse().ok()?;
        let mut table = document.get_ref();
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

fn invalid_override(argument: &str, message: &str) -> Error {
    let place = format!("--set {argument}");
    Error::Document { place, key: String::new(), message: message.to_owned() }
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
