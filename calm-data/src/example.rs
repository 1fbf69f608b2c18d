use crate::parquet_file::ParquetFile;
use crate::{Error, JsonLines, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// One example of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// Names the example in results.
    pub id: String,
    /// The model's input, prefix included.
    pub source: String,
    /// The text to learn: the first of the references.
    pub target: String,
    /// All texts that count as right, at least one.
    pub references: Vec<String>,
}

/// Which columns of a dataset make its examples, and how. A field of a struct is `STRUCT.FIELD`.
///
/// The default reads the bundled corpus. SQuAD's files, for one, need `source = "question"`, `context = "context"`,
/// `target = "answers.text"`, `prefix = "question: "`; WMT's `source = "translation.en"`, `target = "translation.fr"`,
/// `prefix = "translate English to French: "`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// A string or an integer. `None`: the column `id` where there is one, else the record's number from 1.
    pub id: Option<String>,
    /// A string.
    pub source: String,
    /// A string that follows the source after ` context: `, as T5 writes questions about a text.
    pub context: Option<String>,
    /// A string, or a list of at least one.
    pub target: String,
    /// Put in front of every source: T5's task prefix, its last space included.
    pub prefix: String,
}

impl Default for Columns {
    fn default() -> Columns {
        Columns {
            id: None,
            source: "source".to_owned(),
            context: None,
            target: "target".to_owned(),
            prefix: String::new(),
        }
    }
}

/// Reads all examples of a `.jsonl` or `.parquet` file, of which there must be one at least.
pub fn read_examples(path: &Path, columns: &Columns) -> Result<Vec<Example>> {
    let examples = match path.extension().and_then(|extension| extension.to_str()) {
        Some("jsonl") => from_json_lines(path, columns)?,
        Some("parquet") => from_parquet(path, columns)?,
        _ => return Err(Error::UnknownFormat { path: path.to_owned() }),
    };
    if examples.is_empty() { Err(Error::Empty { path: path.to_owned() }) } else { Ok(examples) }
}

fn from_json_lines(path: &Path, columns: &Columns) -> Result<Vec<Example>> {
    let file = File::open(path).map_err(Error::io(path))?;
    let lines = JsonLines::<_, Value>::new(BufReader::new(file), path);
    lines
        .map(|line| {
            let (line, value) = line?;
            Record { path, line, value: &value }.example(columns)
        })
        .collect()
}

fn from_parquet(path: &Path, columns: &Columns) -> Result<Vec<Example>> {
    let file = ParquetFile::open(path)?;
    let id = match &columns.id {
        Some(id) => Some(id.as_str()),
        None => file.columns().iter().any(|name| name == "id").then_some("id"),
    };
    let texts = [Some(columns.source.as_str()), columns.context.as_deref(), Some(columns.target.as_str())];
    let needed: Vec<&str> = id.into_iter().chain(texts.into_iter().flatten()).collect();
    let records = file.records(&needed)?;
    records.iter().map(|(line, value)| Record { path, line: *line, value }.example(columns)).collect()
}

/// One record of either format.
struct Record<'a> {
    path: &'a Path,
    line: usize,
    value: &'a Value,
}

impl<'a> Record<'a> {
    fn example(&self, columns: &Columns) -> Result<Example> {
        let mut source = columns.prefix.clone() + self.text(&columns.source)?;
        if let Some(context) = &columns.context {
            source += " context: ";
            source += self.text(context)?;
        }
        let references = self.texts(&columns.target)?;
        let target = references.first().cloned().unwrap_or_default();
        Ok(Example { id: self.id(columns.id.as_deref())?, source, target, references })
    }

    fn id(&self, column: Option<&str>) -> Result<String> {
        let value = match column {
            Some(column) => self.column(column)?,
            None => match self.value.get("id") {
                Some(value) => value,
                None => return Ok(self.line.to_string()),
            },
        };
        match value {
            Value::String(id) => Ok(id.clone()),
            Value::Number(id) if !id.is_f64() => Ok(id.to_string()),
            other => Err(self.wrong_type(column.unwrap_or("id"), "a string or an integer", other)),
        }
    }

    fn text(&self, column: &str) -> Result<&'a str> {
        let value = self.column(column)?;
        value.as_str().ok_or_else(|| self.wrong_type(column, "a string", value))
    }

    fn texts(&self, column: &str) -> Result<Vec<String>> {
        const EXPECTED: &str = "a string or a list of strings";
        let value = self.column(column)?;
        match value {
            Value::String(text) => Ok(vec![text.clone()]),
            Value::Array(items) if !items.is_empty() => {
                let text = |item: &Value| {
                    item.as_str().map(str::to_owned).ok_or_else(|| self.wrong_type(column, EXPECTED, item))
                };
                items.iter().map(text).collect()
            }
            other => Err(self.wrong_type(column, EXPECTED, other)),
        }
    }

    fn column(&self, name: &str) -> Result<&'a Value> {
        find(self.value, name).ok_or_else(|| {
            let mut available = Vec::new();
            add_names("", self.value, &mut available);
            Error::MissingColumn {
                path: self.path.to_owned(),
                line: Some(self.line),
                column: name.to_owned(),
                available,
            }
        })
    }

    fn wrong_type(&self, column: &str, expected: &'static str, found: &Value) -> Error {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(items) if items.is_empty() => "an empty list",
            Value::Array(_) => "a list",
            Value::Object(_) => "a struct",
        };
        let (path, column) = (self.path.to_owned(), column.to_owned());
        Error::WrongType { path, line: self.line, column, expected, found }
    }
}

/// The value of a column; dots lead into structs.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        find(value.get(first)?, rest)
    })
}

fn add_names(prefix: &str, value: &Value, names: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let name = format!("{prefix}{name}");
        if value.is_object() {
            add_names(&format!("{name}."), value, names);
        } else {
            names.push(name);
        }
    }
}
