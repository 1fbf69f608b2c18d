use crate::records::Needed;
use crate::{DatasetPaths, Error, HubCache, Result, records};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// One example of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// Name of the example in results.
    pub id: String,
    /// The model's input, prefix included.
    pub source: String,
    /// The text to learn, which is the first of the references.
    pub target: String,
    /// All texts that count as right: at least one, and each only once.
    pub references: Vec<String>,
    /// Whether the source is what a user says, see [`Columns::chat`].
    #[serde(default)]
    pub chat: bool,
    /// What the example belongs to, see [`Columns::group`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Which columns of a dataset its examples are made of, and how.
///
/// A field of a struct is named `STRUCT.FIELD`, an element of a list `LIST.NUMBER`, from 0.
///
/// The default reads the bundled corpus. WMT's files on the Hugging Face hub need
/// `source = "translation.en"`, `target = "translation.fr"`, `prefix = "translate English to French: "`;
/// CNN/DailyMail's `source = "article"`, `target = "highlights"`, `prefix = "summarize: "`; SQuAD's
/// `source = "question"`, `context = "context"`, `target = "answers.text"`, `prefix = "question: "`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// The column of the id, a string or an integer.
    ///
    /// `None` takes the column `id` if there is one, else the number of the record, counted from 1 through
    /// all files.
    pub id: Option<String>,
    /// The column of the source, a string: `messages.0.content` is the first message of a conversation.
    pub source: String,
    /// Whether a source is what a user says to a model that was taught to answer: its tokens are those of the
    /// model's template of conversations around it, up to where the answer begins.
    pub chat: bool,
    /// The column of a text that follows the source after ` context: `, as T5 writes questions about a text;
    /// a string.
    pub context: Option<String>,
    /// The column of the references: a string, or a list of strings.
    pub target: String,
    /// More columns of references: each a string, a list of strings, or null.
    pub more_references: Vec<String>,
    /// The column of what an example belongs to where examples come in groups that resemble each other, such
    /// as the document of a sentence; a string or an integer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What to do with a record whose target is an empty list.
    pub without_reference: WithoutReference,
    /// Text in front of every source: T5's task prefix, with its last space.
    pub prefix: String,
}

impl Default for Columns {
    fn default() -> Columns {
        Columns {
            id: None,
            source: "source".to_owned(),
            chat: false,
            context: None,
            target: "target".to_owned(),
            more_references: Vec::new(),
            group: None,
            without_reference: WithoutReference::Refuse,
            prefix: String::new(),
        }
    }
}

/// What to do with records without any reference.
///
/// SQuAD 2.0 has them for questions that its texts do not answer. No metric of this project has a score for
/// them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WithoutReference {
    /// Such a record is an error.
    #[default]
    Refuse,
    /// Such a record makes no example.
    LeaveOut,
}

/// Reads all examples of a dataset, of which there must be at least one.
///
/// The files of the dataset may have different formats, which the endings of their names tell:
///
/// - `.parquet`;
/// - `.jsonl`, with one record a line;
/// - `.json`: an array of records, an object with such an array as `data`, or SQuAD's official files, whose
///   questions become records like those of the Hugging Face hub (`id`, `title`, `context`, `question`,
///   `answers.text`);
/// - `.csv` and `.tsv`, whose first line names the columns;
/// - all but Parquet with `.gz` or `.zst` behind.
///
/// Upper and lower case are the same in these endings.
///
/// # Errors
/// Fails if a file does not exist, cannot be read or is malformed, and if a record lacks a column or holds
/// something else in it. All errors name the file, and the line where there is one.
pub fn read_examples(paths: impl Into<DatasetPaths>, columns: &Columns) -> Result<Vec<Example>> {
    let paths = paths.into();
    let (mut examples, mut number) = (Vec::new(), 0);
    for path in paths.files(&HubCache::from_env())? {
        let needed = columns.needed();
        let needed =
            if columns.id.is_none() { Needed::ColumnsAndId(&needed) } else { Needed::Columns(&needed) };
        for record in records::open(&path, needed)? {
            let (line, value) = record?;
            number += 1;
            examples.extend(Record { path: &path, line, number, value: &value }.example(columns)?);
        }
    }
    if examples.is_empty() { Err(Error::Empty { paths }) } else { Ok(examples) }
}

impl Columns {
    /// What is one of many that resemble each other no more than others do, in the singular: an example, or a
    /// group of examples.
    pub fn exchangeable(&self) -> &'static str {
        if self.group.is_some() { "group" } else { "example" }
    }

    fn needed(&self) -> Vec<&str> {
        let id = self.id.as_deref();
        let texts = [Some(self.source.as_str()), self.context.as_deref(), Some(self.target.as_str())];
        let more = self.more_references.iter().map(String::as_str);
        let texts = texts.into_iter().flatten().chain(self.group.as_deref());
        id.into_iter().chain(texts).chain(more).collect()
    }
}

/// One record of any format.
pub(crate) struct Record<'a> {
    pub(crate) path: &'a Path,
    /// Number of the line or record in its file, from 1.
    pub(crate) line: usize,
    /// Number of the record in all files, from 1.
    pub(crate) number: usize,
    pub(crate) value: &'a Value,
}

impl<'a> Record<'a> {
    /// Makes an example of the record; `None` if the record is to be left out.
    fn example(&self, columns: &Columns) -> Result<Option<Example>> {
        let mut source = columns.prefix.clone() + self.text(&columns.source)?;
        if let Some(context) = &columns.context {
            source += " context: ";
            source += self.text(context)?;
        }
        let references = self.references(columns)?;
        let Some(target) = references.first().cloned() else {
            return match columns.without_reference {
                WithoutReference::LeaveOut => Ok(None),
                WithoutReference::Refuse => Err(Error::NoReference {
                    path: self.path.to_owned(),
                    line: self.line,
                    column: columns.target.clone(),
                }),
            };
        };
        let id = self.id(columns.id.as_deref())?;
        let group = columns.group.as_deref().map(|column| self.name(column, self.column(column)?));
        Ok(Some(Example { id, source, target, references, chat: columns.chat, group: group.transpose()? }))
    }

    fn references(&self, columns: &Columns) -> Result<Vec<String>> {
        let mut texts = self.texts(&columns.target)?;
        for column in &columns.more_references {
            if !self.column(column)?.is_null() {
                texts.extend(self.texts(column)?);
            }
        }
        let mut references: Vec<String> = Vec::with_capacity(texts.len());
        for text in texts {
            // Several people answered each of SQuAD's questions, and often gave the same answer.
            if !references.iter().any(|reference| reference == text) {
                references.push(text.to_owned());
            }
        }
        Ok(references)
    }

    fn id(&self, column: Option<&str>) -> Result<String> {
        let value = match column {
            Some(column) => self.column(column)?,
            None => match self.value.get("id") {
                Some(value) => value,
                None => return Ok(self.number.to_string()),
            },
        };
        self.name(column.unwrap_or("id"), value)
    }

    /// What a value names.
    fn name(&self, column: &str, value: &Value) -> Result<String> {
        match value {
            Value::String(name) => Ok(name.clone()),
            Value::Number(name) if !name.is_f64() => Ok(name.to_string()),
            other => Err(self.wrong_type(column, "a string or an integer", other)),
        }
    }

    fn text(&self, column: &str) -> Result<&'a str> {
        let value = self.column(column)?;
        value.as_str().ok_or_else(|| self.wrong_type(column, "a string", value))
    }

    /// The texts of a column: one if it is a string, any number if it is a list.
    pub(crate) fn texts(&self, column: &str) -> Result<Vec<&'a str>> {
        const EXPECTED: &str = "a string or a list of strings";
        let value = self.column(column)?;
        match value {
            Value::String(text) => Ok(vec![text]),
            Value::Array(items) => {
                let text =
                    |item: &'a Value| item.as_str().ok_or_else(|| self.wrong_type(column, EXPECTED, item));
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

/// Finds the value of a column; dots lead into structs, and numbers from 0 into lists.
pub fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let get = |name: &str| match value {
        Value::Array(list) => list.get(name.parse::<usize>().ok()?),
        _ => value.get(name),
    };
    get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        find(get(first)?, rest)
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
