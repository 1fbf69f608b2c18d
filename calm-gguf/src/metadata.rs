//! Where each key of a file lies, and its values.

use std::path::Path;

use crate::error::{Fault, FaultAt, Place};
use crate::reader::Reader;
use crate::value::value_at;
use crate::{Array, Error, FromValue, Gguf, Value};

/// Bytes of a pair at least: length and text of the key, type, and value.
pub(crate) const LEAST_PAIR: usize = 8 + 1 + 4 + 1;

/// Where the pairs of key and value lie in a file, in the order of their keys.
///
/// Places take a part of what the pairs themselves take in the file; copies would take a multiple of it.
pub(crate) struct Pairs(Vec<usize>);

impl Pairs {
    /// Reads so many pairs, checks them all, and moves on behind them.
    pub(crate) fn read(
        path: &Path,
        bytes: &[u8],
        reader: &mut Reader<'_>,
        count: usize,
    ) -> Result<Self, Error> {
        let mut places = Vec::with_capacity(count);
        for number in 0..count {
            places.push(reader.at());
            let in_pair = |fault: FaultAt| fault.in_file(path, Place::Pair(number as u64));
            let key = reader.name().map_err(in_pair)?;
            let value_type = reader.value_type();
            let value = value_type.and_then(|value_type| reader.value(value_type, 0));
            value.map_err(|fault| fault.in_file(path, Place::Key(key.to_owned())))?;
        }
        places.sort_unstable_by_key(|&place| (name_at(bytes, place), place));
        if let Some((first, at)) = first_twice(&places, |&place| name_at(bytes, place)) {
            let key = String::from_utf8_lossy(name_at(bytes, at)).into_owned();
            return Err(FaultAt { at, fault: Fault::Duplicate { first } }.in_file(path, Place::Key(key)));
        }
        Ok(Pairs(places))
    }

    /// Where the value of a key lies.
    pub(crate) fn find(&self, bytes: &[u8], key: &str) -> Option<usize> {
        let found = self.0.binary_search_by_key(&key.as_bytes(), |&place| name_at(bytes, place)).ok()?;
        Some(self.0[found] + size_of::<u64>() + key.len())
    }
}

/// The first two of sorted places that have one name.
fn first_twice<'a>(places: &[usize], name: impl Fn(&usize) -> &'a [u8]) -> Option<(usize, usize)> {
    places.windows(2).find(|two| name(&two[0]) == name(&two[1])).map(|two| (two[0], two[1]))
}

/// The bytes of a name that lies at a place which was checked before.
fn name_at(bytes: &[u8], at: usize) -> &[u8] {
    let mut reader = Reader::new(bytes, at);
    reader.u64().and_then(|length| reader.take(length)).unwrap_or_default()
}

impl Gguf {
    /// Goes through keys and values, in the order of the keys.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.pairs.0.iter().filter_map(|&place| {
            let key = std::str::from_utf8(name_at(&self.map, place)).ok()?;
            Some((key, self.metadata(key)?))
        })
    }

    /// The value of a key.
    pub fn metadata(&self, key: &str) -> Option<Value<'_>> {
        value_at(&self.map, self.pairs.find(&self.map, key)?).ok()
    }

    /// The value of a key as a type, if the key is there.
    ///
    /// # Errors
    /// [`Error::Value`]
    pub fn get<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.metadata(key) else { return Ok(None) };
        T::from_value(value).map(Some).ok_or_else(|| self.not_expected(key, T::EXPECTED, &value))
    }

    /// The value of a key that has to be there, as a type.
    ///
    /// # Errors
    /// [`Error::MissingKey`] and [`Error::Value`]
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T, Error> {
        self.get(key)?.ok_or_else(|| self.missing(key))
    }

    /// The values of an array that has to be there, as a type that is at most twice as large as the file's.
    ///
    /// # Errors
    /// [`Error::MissingKey`] and [`Error::Value`]
    pub fn list<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Vec<T>, Error> {
        let array: Array<'a> = self.require(key)?;
        let items = format!("an array whose values are each {}", T::EXPECTED);
        if size_of::<T>() > 2 * array.item_type().least_bytes() {
            return Err(self.not_expected(key, &items, &Value::Array(array)));
        }
        let mut list = Vec::with_capacity(array.len());
        for (number, value) in array.iter().enumerate() {
            let item = T::from_value(value);
            list.push(
                item.ok_or_else(|| self.invalid(key, format!("value {number} is not {}", T::EXPECTED)))?,
            );
        }
        Ok(list)
    }

    /// The error of a value that cannot be what it is, for a reason that ends a sentence about the key.
    pub fn invalid(&self, key: &str, reason: impl Into<String>) -> Error {
        Error::Value { path: self.path().to_owned(), key: key.to_owned(), reason: reason.into() }
    }

    fn missing(&self, key: &str) -> Error {
        Error::MissingKey { path: self.path().to_owned(), key: key.to_owned() }
    }

    fn not_expected(&self, key: &str, expected: &str, found: &Value<'_>) -> Error {
        self.invalid(key, format!("it should be {expected}, and is {}", described(found)))
    }
}

/// A value for a message.
fn described(value: &Value<'_>) -> String {
    match value {
        Value::String(text) if text.len() <= 40 => format!("the text `{text}`"),
        Value::String(text) => format!("a text of {} bytes", text.len()),
        Value::Array(array) => format!("an array of {} {}", array.len(), array.item_type()),
        Value::Bool(truth) => truth.to_string(),
        Value::F32(number) => format!("{number:?} ({})", value.value_type()),
        Value::F64(number) => format!("{number:?} ({})", value.value_type()),
        _ => format!("{} ({})", value.integer().unwrap_or_default(), value.value_type()),
    }
}
