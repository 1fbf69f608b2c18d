//! JSON files that are not JSON Lines: lists of records, and the official files of SQuAD.

use crate::json_lines::without_byte_order_mark;
use crate::json_value::JsonValue;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// Reads the records of a JSON text.
///
/// The text is one of
///
/// - an array of records;
/// - an object whose `data` is such an array, for example `{"version": "1", "data": [...]}`;
/// - records one after another, as in JSON Lines.
///
/// If the records are SQuAD's articles (<https://rajpurkar.github.io/SQuAD-explorer/>), their questions
/// become the records, with the fields that the files on the Hugging Face hub have: `id`, `title`, `context`,
/// `question`, `answers.text`, `answers.answer_start`.
pub(crate) fn parse(text: &[u8], path: &Path) -> Result<Vec<Value>> {
    let text = without_byte_order_mark(text);
    let values = serde_json::Deserializer::from_slice(text).into_iter::<JsonValue>();
    let values: serde_json::Result<Vec<Value>> = values.map(|value| value.map(|value| value.0)).collect();
    let mut values = values.map_err(|error| Error::malformed_json(path, error.line(), &error))?;
    if values.len() == 1 {
        values = values.into_iter().flat_map(listed).collect();
    }
    let is_squad = values.iter().all(|value| paragraphs(value).is_some());
    Ok(if is_squad { values.iter().flat_map(questions).collect() } else { values })
}

fn listed(value: Value) -> Vec<Value> {
    match value {
        Value::Array(records) => records,
        Value::Object(mut object) if object.get("data").is_some_and(Value::is_array) => {
            listed(object.remove("data").unwrap_or_default())
        }
        record => vec![record],
    }
}

/// Returns the paragraphs of a SQuAD article, each with its questions; `None` for anything else.
fn paragraphs(value: &Value) -> Option<Vec<(&Value, &Vec<Value>)>> {
    let paragraphs = value.get("paragraphs")?.as_array()?;
    paragraphs.iter().map(|paragraph| Some((paragraph, paragraph.get("qas")?.as_array()?))).collect()
}

fn questions(article: &Value) -> Vec<Value> {
    let mut records = Vec::new();
    for (paragraph, questions) in paragraphs(article).into_iter().flatten() {
        for question in questions {
            let mut record = question.as_object().cloned().unwrap_or_default();
            for (key, value) in [("title", article.get("title")), ("context", paragraph.get("context"))] {
                record.extend(value.map(|value| (key.to_owned(), value.clone())));
            }
            if let Some(Value::Array(answers)) = record.get("answers") {
                let answers = struct_of_lists(answers, &["text", "answer_start"]);
                record.insert("answers".to_owned(), answers);
            }
            records.push(Value::Object(record));
        }
    }
    records
}

/// Turns a list of structs into a struct of lists. A field that a struct lacks is null.
fn struct_of_lists(items: &[Value], fields: &[&str]) -> Value {
    let list = |field: &str| items.iter().map(|item| item.get(field).cloned().unwrap_or_default()).collect();
    let lists = fields.iter().map(|&field| (field.to_owned(), Value::Array(list(field))));
    Value::Object(lists.collect::<Map<_, _>>())
}
