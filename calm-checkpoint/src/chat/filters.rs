//! What transformers gives to templates beside Jinja's own.

use std::error::Error as _;
use std::io;

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// What marks the errors of [`raise_exception`].
#[derive(Debug, thiserror::Error)]
#[error("raised by the template")]
struct Raised;

/// Ends the rendering with a message.
pub(super) fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message).with_source(Raised))
}

/// Whether a template has raised an error itself.
pub(super) fn is_raised(error: &Error) -> bool {
    error.source().is_some_and(|source| source.is::<Raised>())
}

/// Widest field that `str.format` pads a value to.
const WIDEST_FIELD: usize = 1000;

/// Calls what Python's types have as methods and Jinja's have not.
pub(super) fn python_method(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    // Unlike the filter of this name, it takes the memory for any width.
    if method == "format" && value.as_str().is_some_and(has_wide_field) {
        let message = format!("a field is wider than {WIDEST_FIELD}");
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    unknown_method_callback(state, value, method, arguments)
}

/// Whether a format has a number above the limit in braces.
fn has_wide_field(format: &str) -> bool {
    let fields = format.split('{').skip(1).filter_map(|field| field.split('}').next());
    let mut numbers = fields.flat_map(|field| field.split(|letter: char| !letter.is_ascii_digit()));
    numbers.any(|number| {
        !number.is_empty() && number.parse().is_ok_and(|width: usize| width > WIDEST_FIELD)
            || number.len() > 19
    })
}

/// Writes a value as Python's `json.dumps(value, ensure_ascii=False)` does. Jinja's own filter would write
/// some characters for HTML.
pub(super) fn to_json(value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    // Texts stay as they are whatever this says.
    let _: Option<bool> = kwargs.get("ensure_ascii")?;
    kwargs.assert_all_used()?;
    let mut bytes = Vec::new();
    let written = match indent {
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            value.serialize(&mut Serializer::with_formatter(
                &mut bytes,
                PrettyFormatter::with_indent(indent.as_bytes()),
            ))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut bytes, PythonFormatter)),
    };
    let failed = |error: String| Error::new(ErrorKind::BadSerialization, error);
    written.map_err(|error| failed(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| failed(error.to_string()))
}

/// The separators of Python's `json.dumps`.
struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
