//! A place in the bytes of a file that moves on by what was read, and never beyond the end.

use crate::error::{Fault, FaultAt};
use crate::value::{Array, Value, ValueType};

/// Arrays within arrays, counted with the outermost. Real files have no array within an array.
pub(crate) const MOST_NESTING: usize = 8;

/// A name's greatest length in bytes, as llama.cpp has it for keys.
pub(crate) const LONGEST_NAME: usize = 65_535;

#[derive(Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from `at` on, which is not beyond their end.
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Self {
        Reader { bytes, at: at.min(bytes.len()) }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn fault(&self, fault: Fault) -> FaultAt {
        FaultAt { at: self.at, fault }
    }

    pub(crate) fn take(&mut self, count: u64) -> Result<&'a [u8], FaultAt> {
        let left = self.left();
        match usize::try_from(count) {
            Ok(count) if count <= left => {
                let taken = &self.bytes[self.at..self.at + count];
                self.at += count;
                Ok(taken)
            }
            _ => Err(self.fault(Fault::Cut { needed: count.into(), left })),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FaultAt> {
        let taken = self.take(N as u64)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(taken);
        Ok(bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FaultAt> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FaultAt> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reads the number of things that follow, of which each takes at least so many bytes.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, FaultAt> {
        let before = self.at;
        let count = self.u64()?;
        self.check_count(count, least).map_err(|fault| FaultAt { at: before, fault })
    }

    /// Checks a number of things that follow from here on.
    pub(crate) fn check_count(&self, count: u64, least: usize) -> Result<usize, Fault> {
        let left = self.left();
        match usize::try_from(count) {
            Ok(fits) if fits <= left / least => Ok(fits),
            _ => Err(Fault::Count { count, least, left }),
        }
    }

    pub(crate) fn string(&mut self) -> Result<&'a str, FaultAt> {
        let length = self.u64()?;
        let at = self.at;
        std::str::from_utf8(self.take(length)?).map_err(|error| {
            let at = at + error.valid_up_to();
            FaultAt { at, fault: Fault::Utf8 }
        })
    }

    /// Reads a key or the name of a tensor.
    pub(crate) fn name(&mut self) -> Result<&'a str, FaultAt> {
        let length = Reader::u64(&mut self.clone())?;
        if length == 0 || length > LONGEST_NAME as u64 {
            return Err(self.fault(Fault::NameLength { length, most: LONGEST_NAME }));
        }
        self.string()
    }

    pub(crate) fn value_type(&mut self) -> Result<ValueType, FaultAt> {
        let before = self.at;
        let found = self.u32()?;
        ValueType::of_number(found).ok_or(FaultAt { at: before, fault: Fault::ValueType { found } })
    }

    /// Reads a value; `depth` is the number of arrays around it.
    pub(crate) fn value(&mut self, value_type: ValueType, depth: usize) -> Result<Value<'a>, FaultAt> {
        Ok(match value_type {
            ValueType::U8 => Value::U8(self.array().map(u8::from_le_bytes)?),
            ValueType::I8 => Value::I8(self.array().map(i8::from_le_bytes)?),
            ValueType::U16 => Value::U16(self.array().map(u16::from_le_bytes)?),
            ValueType::I16 => Value::I16(self.array().map(i16::from_le_bytes)?),
            ValueType::U32 => Value::U32(self.u32()?),
            ValueType::I32 => Value::I32(self.array().map(i32::from_le_bytes)?),
            ValueType::F32 => Value::F32(self.array().map(f32::from_le_bytes)?),
            ValueType::U64 => Value::U64(self.u64()?),
            ValueType::I64 => Value::I64(self.array().map(i64::from_le_bytes)?),
            ValueType::F64 => Value::F64(self.array().map(f64::from_le_bytes)?),
            ValueType::Bool => match self.take(1)?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                found => return Err(FaultAt { at: self.at - 1, fault: Fault::Bool { found } }),
            },
            ValueType::String => Value::String(self.string()?),
            ValueType::Array => Value::Array(self.values(depth + 1)?),
        })
    }

    /// Reads an array and checks all that is in it; `depth` counts it.
    fn values(&mut self, depth: usize) -> Result<Array<'a>, FaultAt> {
        if depth > MOST_NESTING {
            return Err(self.fault(Fault::Nesting { most: MOST_NESTING }));
        }
        let item = self.value_type()?;
        let length = self.count(item.least_bytes())?;
        let start = self.at;
        if item.has_fixed_size() && item != ValueType::Bool {
            self.take((length * item.least_bytes()) as u64)?;
        } else {
            for _ in 0..length {
                self.value(item, depth)?;
            }
        }
        Ok(Array::new(item, length, &self.bytes[start..self.at]))
    }
}
