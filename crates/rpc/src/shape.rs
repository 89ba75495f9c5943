//! Counts what a message would become before it becomes it.
//!
//! A protobuf decoder allocates as it reads: one mebibyte of `Value`s turns into hundreds. This pass walks the encoded bytes along the
//! contract's types without allocating and refuses what is malformed, too deep, too long or too many.
//!
//! Limits: see the constants. Depth counts messages within messages; within a `Struct` it counts JSON levels.
//! Measured on a bare decoder: 1 MiB of nested lists became 371 MiB.

use std::collections::BTreeMap;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// Deepest nesting of messages.
pub const DEPTH_MAX: u32 = 32;
/// Most values of google.protobuf.Struct in one message.
pub const STRUCT_VALUES_MAX: u32 = 1_000;
/// Most fields, list elements and map entries in one message, nested ones included.
pub const ELEMENTS_MAX: u32 = 10_000;
/// Longest string or bytes field, in bytes.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;

/// Why a message is refused before it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are no message of this type.
    #[error("not a message of the contract: {0}")]
    Malformed(&'static str),
    /// More than a limit allows.
    #[error("{limit} passed: at most {max} {unit}")]
    TooMuch {
        /// Which limit, lowerCamel.
        limit: &'static str,
        /// Its value.
        max: u64,
        /// Its unit.
        unit: &'static str,
    },
}

/// Index of a message type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShapeId(usize);

/// Every message type that a request can contain.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    ids: BTreeMap<String, ShapeId>,
    shapes: Vec<Shape>,
}

#[derive(Clone, Debug, Default)]
struct Shape {
    /// Sorted by field number.
    fields: Vec<(u32, Field)>,
    /// How entering it counts.
    nesting: Nesting,
}

/// What a message adds to depth and to the count of struct values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Nesting {
    /// One level.
    #[default]
    Message,
    /// One level, for `Struct` and `ListValue`.
    Container,
    /// No level, one struct value.
    Value,
    /// No level: the entry of a map.
    Entry,
}

#[derive(Clone, Copy, Debug)]
struct Field {
    kind: FieldKind,
    /// Whether a scalar may come packed.
    repeated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldKind {
    Varint,
    Fixed32,
    Fixed64,
    Bytes,
    Text,
    Message(ShapeId),
}

impl Shapes {
    /// Adds a type with all that it contains.
    pub(crate) fn add(&mut self, message: &MessageDescriptor) -> ShapeId {
        if let Some(id) = self.ids.get(message.full_name()) {
            return *id;
        }
        let id = ShapeId(self.shapes.len());
        self.ids.insert(message.full_name().to_owned(), id);
        self.shapes.push(Shape::default());
        let mut fields: Vec<_> = message.fields().map(|field| (field.number(), self.field(&field))).collect();
        fields.sort_by_key(|(number, _)| *number);
        let nesting = match message.full_name() {
            "google.protobuf.Struct" | "google.protobuf.ListValue" => Nesting::Container,
            "google.protobuf.Value" => Nesting::Value,
            _ if message.is_map_entry() => Nesting::Entry,
            _ => Nesting::Message,
        };
        if let Some(shape) = self.shapes.get_mut(id.0) {
            *shape = Shape { fields, nesting };
        }
        id
    }

    fn field(&mut self, field: &FieldDescriptor) -> Field {
        let kind = match field.kind() {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => FieldKind::Fixed64,
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => FieldKind::Fixed32,
            Kind::Int32
            | Kind::Int64
            | Kind::Uint32
            | Kind::Uint64
            | Kind::Sint32
            | Kind::Sint64
            | Kind::Bool
            | Kind::Enum(_) => FieldKind::Varint,
            Kind::String => FieldKind::Text,
            Kind::Bytes => FieldKind::Bytes,
            Kind::Message(message) => FieldKind::Message(self.add(&message)),
        };
        Field { kind, repeated: field.is_list() }
    }

    /// Walks one encoded message.
    pub(crate) fn check(&self, id: ShapeId, message: &[u8]) -> Result<(), Refusal> {
        let mut walk = Walk { shapes: self, elements: 0, struct_values: 0 };
        walk.message(id, message, 0)
    }

    fn shape(&self, id: ShapeId) -> Result<&Shape, Refusal> {
        self.shapes.get(id.0).ok_or(Refusal::Malformed("type"))
    }
}

impl Shape {
    fn field(&self, number: u32) -> Option<Field> {
        let at = self.fields.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.fields.get(at).map(|(_, field)| *field)
    }
}

struct Walk<'a> {
    shapes: &'a Shapes,
    elements: u32,
    struct_values: u32,
}

impl Walk<'_> {
    fn message(&mut self, id: ShapeId, bytes: &[u8], depth: u32) -> Result<(), Refusal> {
        let shape = self.shapes.shape(id)?;
        let depth = match shape.nesting {
            Nesting::Message | Nesting::Container => depth + 1,
            Nesting::Entry => depth,
            Nesting::Value => {
                self.struct_values += 1;
                depth
            }
        };
        if depth > DEPTH_MAX {
            return Err(Refusal::TooMuch { limit: "messageDepth", max: DEPTH_MAX.into(), unit: "levels" });
        }
        if self.struct_values > STRUCT_VALUES_MAX {
            return Err(Refusal::TooMuch { limit: "structValues", max: STRUCT_VALUES_MAX.into(), unit: "values" });
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let key = varint(&mut rest)?;
            // A tag has 32 bits: 29 of number, three of wire type.
            let number = u32::try_from(key).map_err(|_| Refusal::Malformed("field number"))? >> 3;
            if number == 0 {
                return Err(Refusal::Malformed("field number"));
            }
            self.count(1)?;
            match shape.field(number) {
                Some(field) => self.known(field, key & 7, &mut rest, depth)?,
                None => unknown(key & 7, &mut rest)?,
            }
        }
        Ok(())
    }

    fn known(&mut self, field: Field, wire: u64, rest: &mut &[u8], depth: u32) -> Result<(), Refusal> {
        match (field.kind, wire) {
            (FieldKind::Varint, 0) => varint(rest).map(drop),
            (FieldKind::Fixed64, 1) => take(rest, 8).map(drop),
            (FieldKind::Fixed32, 5) => take(rest, 4).map(drop),
            (FieldKind::Bytes, 2) => text(rest).map(drop),
            (FieldKind::Text, 2) => {
                std::str::from_utf8(text(rest)?).map(drop).map_err(|_| Refusal::Malformed("string is not UTF-8"))
            }
            (FieldKind::Message(id), 2) => {
                let inner = delimited(rest)?;
                self.message(id, inner, depth)
            }
            (FieldKind::Varint | FieldKind::Fixed32 | FieldKind::Fixed64, 2) if field.repeated => {
                let mut packed = delimited(rest)?;
                while !packed.is_empty() {
                    self.count(1)?;
                    match field.kind {
                        FieldKind::Fixed32 => take(&mut packed, 4).map(drop)?,
                        FieldKind::Fixed64 => take(&mut packed, 8).map(drop)?,
                        FieldKind::Varint | FieldKind::Bytes | FieldKind::Text | FieldKind::Message(_) => {
                            varint(&mut packed).map(drop)?;
                        }
                    }
                }
                Ok(())
            }
            _ => Err(Refusal::Malformed("wire type")),
        }
    }

    fn count(&mut self, more: u32) -> Result<(), Refusal> {
        self.elements += more;
        if self.elements > ELEMENTS_MAX {
            return Err(Refusal::TooMuch { limit: "messageElements", max: ELEMENTS_MAX.into(), unit: "elements" });
        }
        Ok(())
    }
}

/// Skips a field that this version does not know. Groups are not spoken.
fn unknown(wire: u64, rest: &mut &[u8]) -> Result<(), Refusal> {
    match wire {
        0 => varint(rest).map(drop),
        1 => take(rest, 8).map(drop),
        2 => delimited(rest).map(drop),
        5 => take(rest, 4).map(drop),
        _ => Err(Refusal::Malformed("wire type")),
    }
}

fn varint(rest: &mut &[u8]) -> Result<u64, Refusal> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(Refusal::Malformed("number is cut"))?;
        *rest = tail;
        if shift == 63 && byte > 1 {
            return Err(Refusal::Malformed("number is too long"));
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Refusal::Malformed("number is too long"))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Refusal> {
    let (head, tail) = rest.split_at_checked(length).ok_or(Refusal::Malformed("field is cut"))?;
    *rest = tail;
    Ok(head)
}

fn delimited<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Refusal> {
    let length = usize::try_from(varint(rest)?).map_err(|_| Refusal::Malformed("length"))?;
    take(rest, length)
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Refusal> {
    let text = delimited(rest)?;
    if text.len() > TEXT_BYTES_MAX {
        return Err(Refusal::TooMuch { limit: "textBytes", max: TEXT_BYTES_MAX as u64, unit: "bytes" });
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
