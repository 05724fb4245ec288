//! Type definitions, which precede their use in a file, and skipping values of any type.

use std::collections::HashMap;

use crate::GobError;
use crate::reader::Reader;

/// The maximum nesting of values. A file of a Pushgateway needs five levels.
const DEPTH_MAX: usize = 32;

pub(crate) const STRING: i64 = 6;

/// The structure of a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Type<'a> {
    /// The number of elements, then the elements.
    List(i64),
    Map {
        key: i64,
        element: i64,
    },
    /// Names and types of the fields.
    Struct(Vec<(&'a str, i64)>),
    /// Bytes of a type with its own encoding.
    Encoded,
}

/// Type definitions by number.
#[derive(Debug, Default)]
pub(crate) struct Types<'a> {
    defined: HashMap<i64, Type<'a>>,
}

impl<'a> Types<'a> {
    /// Reads a definition: a struct with one field for each kind of type.
    pub fn define(&mut self, number: i64, reader: &mut Reader<'a>) -> Result<(), GobError> {
        let mut defined = None;
        let mut last = None;
        while let Some(field) = reader.field(&mut last)? {
            let kind = match field {
                0 | 1 => Type::List(integers::<1>(reader)?[0]),
                2 => Type::Struct(fields(reader)?),
                3 => {
                    let [key, element] = integers(reader)?;
                    Type::Map { key, element }
                }
                4..=6 => {
                    integers::<0>(reader)?;
                    Type::Encoded
                }
                _ => return Err(reader.error("unknown kind of type")),
            };
            defined = Some(kind);
        }
        let Some(defined) = defined else { return Err(reader.error("a type without a definition")) };
        self.defined.insert(number, defined);
        Ok(())
    }

    pub fn get(&self, number: i64) -> Option<&Type<'a>> {
        self.defined.get(&number)
    }

    /// Skips a value.
    pub fn skip(&self, number: i64, reader: &mut Reader<'a>) -> Result<(), GobError> {
        self.skip_at(number, reader, 0)
    }

    fn skip_at(&self, number: i64, reader: &mut Reader<'a>, depth: usize) -> Result<(), GobError> {
        if depth > DEPTH_MAX {
            return Err(reader.error("values are nested too deeply"));
        }
        match (number, self.get(number)) {
            // Booleans, integers, and floats, which are integers with reversed bytes.
            (1..=4, _) => reader.uint().map(drop),
            (5 | STRING, _) | (_, Some(Type::Encoded)) => reader.bytes("a text").map(drop),
            (7, _) => (0..2).try_for_each(|_| reader.uint().map(drop)),
            (_, Some(Type::List(element))) => self.skip_many(&[*element], reader, depth),
            (_, Some(Type::Map { key, element })) => self.skip_many(&[*key, *element], reader, depth),
            (_, Some(Type::Struct(fields))) => {
                let mut last = None;
                while let Some(field) = reader.field(&mut last)? {
                    let known = usize::try_from(field).ok().and_then(|field| fields.get(field));
                    let Some((_, number)) = known else { return Err(reader.error("an unknown field")) };
                    self.skip_at(*number, reader, depth + 1)?;
                }
                Ok(())
            }
            (_, None) => Err(reader.error(format!("a value of the undefined type {number}"))),
        }
    }

    fn skip_many(&self, parts: &[i64], reader: &mut Reader<'a>, depth: usize) -> Result<(), GobError> {
        let count = reader.uint()?;
        if count > reader.left() as u64 {
            return Err(reader.error(format!("{count} values, but only {} bytes remain", reader.left())));
        }
        for _ in 0..count {
            parts.iter().try_for_each(|number| self.skip_at(*number, reader, depth + 1))?;
        }
        Ok(())
    }
}

/// Reads a definition that consists of a name, a number and integers. Returns the first of the integers.
fn integers<const N: usize>(reader: &mut Reader<'_>) -> Result<[i64; N], GobError> {
    let mut found = [0; N];
    let mut last = None;
    while let Some(field) = reader.field(&mut last)? {
        match field {
            0 => common(reader)?,
            _ => {
                let number = reader.int()?;
                if let Some(place) = found.get_mut(field as usize - 1) {
                    *place = number;
                }
            }
        }
    }
    Ok(found)
}

/// Reads the definition of a struct: a name, a number, and a list of fields with names and types.
fn fields<'a>(reader: &mut Reader<'a>) -> Result<Vec<(&'a str, i64)>, GobError> {
    let mut fields = Vec::new();
    let mut last = None;
    while let Some(field) = reader.field(&mut last)? {
        match field {
            0 => common(reader)?,
            1 => {
                for _ in 0..reader.uint()? {
                    fields.push(name_and_number(reader)?);
                }
            }
            _ => return Err(reader.error("unknown part of a struct definition")),
        }
    }
    Ok(fields)
}

fn common(reader: &mut Reader<'_>) -> Result<(), GobError> {
    name_and_number(reader).map(drop)
}

fn name_and_number<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, i64), GobError> {
    let mut found = ("", 0);
    let mut last = None;
    while let Some(field) = reader.field(&mut last)? {
        match field {
            0 => found.0 = reader.text("a name")?,
            1 => found.1 = reader.int()?,
            _ => return Err(reader.error("unexpected field beside a name and a number")),
        }
    }
    Ok(found)
}
