//! What metadata consist of.

use crate::error::FaultAt;
use crate::reader::Reader;

/// The type of a value of the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 32 bits.
    I32,
    /// A floating-point number of 32 bits.
    F32,
    /// True or false.
    Bool,
    /// A text.
    String,
    /// Any number of values of one type.
    Array,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 64 bits.
    I64,
    /// A floating-point number of 64 bits.
    F64,
}

calm_names::names!(ValueType, "type of values", {
    U8 => "u8", I8 => "i8", U16 => "u16", I16 => "i16", U32 => "u32", I32 => "i32", F32 => "f32", Bool => "bool",
    String => "string", Array => "array", U64 => "u64", I64 => "i64", F64 => "f64",
});

impl ValueType {
    /// The type that a file writes as this number: the order of the variants.
    pub(crate) fn of_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// How many bytes a value takes, those of varying length at least.
    pub(crate) fn least_bytes(self) -> usize {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => 1,
            ValueType::U16 | ValueType::I16 => 2,
            ValueType::U32 | ValueType::I32 | ValueType::F32 => 4,
            ValueType::U64 | ValueType::I64 | ValueType::F64 | ValueType::String => 8,
            ValueType::Array => 12,
        }
    }

    pub(crate) fn has_fixed_size(self) -> bool {
        !matches!(self, ValueType::String | ValueType::Array)
    }
}

/// A value of the metadata, as it lies in the file.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(&'a str),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// The type of the value.
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// The value of any type of integers.
    pub fn integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(number) => number.into(),
            Value::I8(number) => number.into(),
            Value::U16(number) => number.into(),
            Value::I16(number) => number.into(),
            Value::U32(number) => number.into(),
            Value::I32(number) => number.into(),
            Value::U64(number) => number.into(),
            Value::I64(number) => number.into(),
            _ => return None,
        })
    }
}

/// Values of one type, as they lie in the file.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    item: ValueType,
    length: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// An array whose values were checked.
    pub(crate) fn new(item: ValueType, length: usize, bytes: &'a [u8]) -> Self {
        Array { item, length, bytes }
    }

    /// The type of the values.
    pub fn item_type(&self) -> ValueType {
        self.item
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The values as bytes, where they are numbers of 8 bits.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        matches!(self.item, ValueType::U8 | ValueType::I8).then_some(self.bytes)
    }

    /// Goes through the values, which are read one by one.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (item, mut reader) = (self.item, Reader::new(self.bytes, 0));
        // They were checked when the file was opened: none is missing while the file stays what it was.
        (0..self.length).map_while(move |_| reader.value(item, 1).ok())
    }
}

impl PartialEq for Array<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.item == other.item && self.length == other.length && self.iter().eq(other.iter())
    }
}

impl std::fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Array({} x {})", self.length, self.item)
    }
}

/// What a value of the metadata can be asked for as.
///
/// An integer may be stored as any type of integers in which it fits, a floating-point number as either type.
pub trait FromValue<'a>: Sized {
    /// What the value has to be, for messages.
    const EXPECTED: &'static str;

    /// The value, if it is one.
    fn from_value(value: Value<'a>) -> Option<Self>;
}

macro_rules! integers {
    ($($integer:ty => $expected:literal),+) => {
        $(impl FromValue<'_> for $integer {
            const EXPECTED: &'static str = $expected;

            fn from_value(value: Value<'_>) -> Option<Self> {
                value.integer()?.try_into().ok()
            }
        })+
    };
}

integers!(i32 => "an integer of 32 bits", u32 => "an integer from 0 on, below 2^32", u64 => "an integer from 0 on", i64 => "an integer of 64 bits",
    usize => "an integer from 0 on");

impl FromValue<'_> for f32 {
    const EXPECTED: &'static str = "a floating-point number";

    fn from_value(value: Value<'_>) -> Option<Self> {
        match value {
            Value::F32(number) => Some(number),
            Value::F64(number) => Some(number as f32),
            _ => None,
        }
    }
}

impl FromValue<'_> for f64 {
    const EXPECTED: &'static str = "a floating-point number";

    fn from_value(value: Value<'_>) -> Option<Self> {
        match value {
            Value::F32(number) => Some(number.into()),
            Value::F64(number) => Some(number),
            _ => None,
        }
    }
}

impl FromValue<'_> for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_value(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Bool(truth) => Some(truth),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const EXPECTED: &'static str = "a text";

    fn from_value(value: Value<'a>) -> Option<Self> {
        match value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for Array<'a> {
    const EXPECTED: &'static str = "an array";

    fn from_value(value: Value<'a>) -> Option<Self> {
        match value {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }
}

/// Reads a value that lies at a place which was checked before.
pub(crate) fn value_at(bytes: &[u8], at: usize) -> Result<Value<'_>, FaultAt> {
    let mut reader = Reader::new(bytes, at);
    let value_type = reader.value_type()?;
    reader.value(value_type, 0)
}
