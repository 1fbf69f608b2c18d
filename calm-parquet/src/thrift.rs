//! Thrift's compact protocol, in which Parquet writes its footer and the headers of pages: just enough of it
//! to look at single fields and to pass over the others.
//!
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>

use std::io::Read;

use parquet::errors::Result;

use crate::damaged;

/// Structs within structs. Parquet's own definitions need fewer than ten.
const DEEPEST: usize = 32;

/// Type of a value, as the low four bits of a field's header say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    True,
    False,
    Byte,
    /// An integer of 16, 32 or 64 bits, which are all written in the same way.
    Integer,
    Double,
    Binary,
    List,
    Map,
    Struct,
    Uuid,
}

impl Kind {
    fn new(code: u8) -> Result<Kind> {
        Ok(match code {
            1 => Kind::True,
            2 => Kind::False,
            3 => Kind::Byte,
            4..=6 => Kind::Integer,
            7 => Kind::Double,
            8 => Kind::Binary,
            // A set is written as a list.
            9 | 10 => Kind::List,
            11 => Kind::Map,
            12 => Kind::Struct,
            13 => Kind::Uuid,
            _ => return Err(damaged(format_args!("unknown type {code} in its metadata"))),
        })
    }
}

/// Reads values one after another.
pub(crate) struct Compact<R> {
    input: R,
    /// Bytes read so far.
    position: u64,
}

impl<R: Read> Compact<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, position: 0 }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Reads a struct. `field` is given the number and the kind of each field, and has to read its value.
    pub(crate) fn fields(&mut self, mut field: impl FnMut(&mut Self, i64, Kind) -> Result<()>) -> Result<()> {
        let mut number = 0;
        loop {
            let header = self.byte()?;
            if header == 0 {
                return Ok(());
            }
            number = match header >> 4 {
                0 => self.integer()?,
                step => number + i64::from(step),
            };
            field(self, number, Kind::new(header & 0xf)?)?;
        }
    }

    /// Reads the header of a list, and returns the number and the kind of its items.
    pub(crate) fn list(&mut self) -> Result<(u64, Kind)> {
        let header = self.byte()?;
        let length = match header >> 4 {
            15 => self.unsigned()?,
            short => u64::from(short),
        };
        Ok((length, if length == 0 { Kind::Byte } else { Kind::new(header & 0xf)? }))
    }

    pub(crate) fn integer(&mut self) -> Result<i64> {
        let coded = self.unsigned()?;
        Ok((coded >> 1).cast_signed() ^ -(coded & 1).cast_signed())
    }

    /// Passes over a text or bytes, and returns their length.
    pub(crate) fn pass_binary(&mut self) -> Result<u64> {
        let length = self.unsigned()?;
        self.pass_bytes(length)?;
        Ok(length)
    }

    /// Passes over a field's value.
    pub(crate) fn pass(&mut self, kind: Kind) -> Result<()> {
        self.pass_within(kind, DEEPEST)
    }

    fn pass_within(&mut self, kind: Kind, depth: usize) -> Result<()> {
        let depth = depth.checked_sub(1).ok_or_else(|| damaged("its metadata is nested without end"))?;
        match kind {
            // The value of a field is in its header.
            Kind::True | Kind::False => {}
            Kind::Byte => self.pass_bytes(1)?,
            Kind::Integer => drop(self.unsigned()?),
            Kind::Double => self.pass_bytes(8)?,
            Kind::Uuid => self.pass_bytes(16)?,
            Kind::Binary => drop(self.pass_binary()?),
            Kind::Struct => self.fields(|input, _, kind| input.pass_within(kind, depth))?,
            Kind::List => {
                let (length, item) = self.list()?;
                for _ in 0..length {
                    self.pass_item(item, depth)?;
                }
            }
            Kind::Map => {
                let length = self.unsigned()?;
                let kinds = if length == 0 { 0 } else { self.byte()? };
                for _ in 0..length {
                    self.pass_item(Kind::new(kinds >> 4)?, depth)?;
                    self.pass_item(Kind::new(kinds & 0xf)?, depth)?;
                }
            }
        }
        Ok(())
    }

    fn pass_item(&mut self, kind: Kind, depth: usize) -> Result<()> {
        match kind {
            Kind::True | Kind::False => self.pass_bytes(1),
            other => self.pass_within(other, depth),
        }
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(damaged("a number in its metadata has no end"))
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.input.read_exact(&mut byte).map_err(|_| damaged("its metadata is cut off"))?;
        self.position += 1;
        Ok(byte[0])
    }

    fn pass_bytes(&mut self, length: u64) -> Result<()> {
        let passed = std::io::copy(&mut self.input.by_ref().take(length), &mut std::io::sink())?;
        self.position += passed;
        if passed == length { Ok(()) } else { Err(damaged("its metadata is cut off")) }
    }
}
