//! The value of the file: a map of groups.

use std::collections::BTreeMap;

use crate::reader::Reader;
use crate::types::{STRING, Type, Types};
use crate::{Family, GobError, Group};

/// Seconds from the year 1, the epoch of Go, to 1970.
const UNIX_SECONDS: i64 = 62_135_596_800;

pub(crate) fn groups(bytes: &[u8]) -> Result<Vec<Group<'_>>, GobError> {
    let mut file = Reader::new(bytes);
    let mut types = Types::default();
    while !file.is_empty() {
        let mut message = file.message()?;
        let number = message.int()?;
        if number < 0 {
            let defined = number.checked_neg().ok_or_else(|| message.error("type number overflow"))?;
            types.define(defined, &mut message)?;
            finished(&message)?;
            continue;
        }
        // A zero precedes every value that is not a struct.
        if message.uint()? != 0 {
            return Err(message.error("not a map of groups"));
        }
        let mut groups = Vec::new();
        // The key is derived from the labels, which the group contains anyway.
        map(&types, number, &mut message, "groups", |_, reader| {
            groups.push(group(&types, number, reader)?);
            Ok(())
        })?;
        finished(&message)?;
        finished(&file)?;
        return Ok(groups);
    }
    Err(file.error("no value before the end"))
}

fn finished(reader: &Reader<'_>) -> Result<(), GobError> {
    match reader.left() {
        0 => Ok(()),
        left => Err(reader.error(format!("{left} bytes too many"))),
    }
}

fn element(types: &Types<'_>, number: i64, reader: &Reader<'_>, what: &str) -> Result<i64, GobError> {
    match types.get(number) {
        Some(Type::Map { key: STRING, element }) => Ok(*element),
        _ => Err(reader.error(format!("not a map of {what}"))),
    }
}

/// Reads a map with strings as keys. `each` reads the element.
fn map<'a>(
    types: &Types<'a>,
    number: i64,
    reader: &mut Reader<'a>,
    what: &str,
    mut each: impl FnMut(&'a [u8], &mut Reader<'a>) -> Result<(), GobError>,
) -> Result<(), GobError> {
    element(types, number, reader, what)?;
    for _ in 0..reader.uint()? {
        let key = reader.bytes("a key")?;
        each(key, reader)?;
    }
    Ok(())
}

/// Reads a struct. `each` gets the name and the type of a field, and returns whether it has read it.
fn structure<'a>(
    types: &Types<'a>,
    number: i64,
    reader: &mut Reader<'a>,
    what: &str,
    mut each: impl FnMut(&str, i64, &mut Reader<'a>) -> Result<bool, GobError>,
) -> Result<(), GobError> {
    let Some(Type::Struct(fields)) = types.get(number) else {
        return Err(reader.error(format!("{what} is not a struct")));
    };
    let mut last = None;
    while let Some(field) = reader.field(&mut last)? {
        let known = usize::try_from(field).ok().and_then(|field| fields.get(field));
        let Some((name, number)) = known else { return Err(reader.error("an unknown field")) };
        if !each(name, *number, reader)? {
            types.skip(*number, reader)?;
        }
    }
    Ok(())
}

fn group<'a>(types: &Types<'a>, map_number: i64, reader: &mut Reader<'a>) -> Result<Group<'a>, GobError> {
    let number = element(types, map_number, reader, "groups")?;
    let (mut labels, mut families) = (BTreeMap::new(), BTreeMap::new());
    structure(types, number, reader, "a group", |name, number, reader| {
        match name {
            "Labels" => map(types, number, reader, "labels", |name, reader| {
                if element(types, number, reader, "labels")? != STRING {
                    return Err(reader.error("a label is not a string"));
                }
                labels.insert(text(name, reader)?, reader.text("a label value")?);
                Ok(())
            })?,
            "Metrics" => map(types, number, reader, "families", |name, reader| {
                let number = element(types, number, reader, "families")?;
                families.insert(text(name, reader)?, family(types, number, reader)?);
                Ok(())
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Group { labels, families })
}

fn text<'a>(bytes: &'a [u8], reader: &Reader<'_>) -> Result<&'a str, GobError> {
    std::str::from_utf8(bytes).map_err(|_| reader.error("the name before this is not UTF-8"))
}

fn family<'a>(types: &Types<'a>, number: i64, reader: &mut Reader<'a>) -> Result<Family<'a>, GobError> {
    let mut family = Family { push_seconds: 0.0, protobuf: None };
    structure(types, number, reader, "a family", |name, number, reader| {
        let encoded = types.get(number) == Some(&Type::Encoded);
        match name {
            "Timestamp" | "GobbableMetricFamily" if !encoded => {
                Err(reader.error(format!("{name} of a family has an unexpected type")))
            }
            "Timestamp" => {
                let bytes = reader.bytes("a time")?;
                family.push_seconds =
                    seconds(bytes).ok_or_else(|| reader.error("the bytes before this are not a time"))?;
                Ok(true)
            }
            "GobbableMetricFamily" => {
                family.protobuf = Some(reader.bytes("a family")?);
                Ok(true)
            }
            _ => Ok(false),
        }
    })?;
    Ok(family)
}

/// Parses Go's `time.Time`: a version, seconds since the year 1, nanoseconds, and the offset of a time zone, which is ignored.
fn seconds(bytes: &[u8]) -> Option<f64> {
    let (version, rest) = bytes.split_first()?;
    let (seconds, rest) = rest.split_first_chunk()?;
    let (nanoseconds, rest) = rest.split_first_chunk()?;
    let zone_bytes = match version {
        1 => 2,
        2 => 3,
        _ => return None,
    };
    let seconds = i64::from_be_bytes(*seconds).checked_sub(UNIX_SECONDS)?;
    let nanoseconds = i32::from_be_bytes(*nanoseconds);
    if rest.len() != zone_bytes || !(0..1_000_000_000).contains(&nanoseconds) {
        return None;
    }
    // Go converts a time to a float in the same way: first to nanoseconds.
    let all = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    Some(all as f64 / 1e9)
}
