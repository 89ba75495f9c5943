//! Reads item and region out of an envelope without decoding its body.
//!
//! Every department request and `OpenCase` carry the item in field 1 and the region in field 2. The peek walks every top-level tag to
//! the end: a second item or region later in the message would win in the adapter's decoder, so it is refused here, and so is a
//! wrong wire type, a compressed message, or more than one message in the body. Nothing is allocated.

/// Longest item or region, bytes.
const NAME_BYTES_MAX: usize = 64;

/// What the gateway knows of an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Item code.
    pub item: &'a str,
    /// Region of the service.
    pub region: &'a str,
    /// The message without its gRPC frame.
    pub message: &'a [u8],
}

/// Why an envelope cannot be read. Its text is the metadata value `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeekError {
    /// Fewer bytes than the frame says, or than a frame has.
    #[error("frame cut short")]
    FrameShort,
    /// More bytes than one message.
    #[error("more than one message")]
    FrameLong,
    /// The compressed flag is set.
    #[error("compressed message")]
    Compressed,
    /// A tag or length that is no protobuf.
    #[error("not protobuf")]
    Malformed,
    /// Item or region stands twice.
    #[error("field repeated")]
    Repeated,
    /// Item or region is not a string field.
    #[error("wrong wire type")]
    WireType,
    /// Item or region is missing or empty.
    #[error("item or region missing")]
    Missing,
    /// Item or region is too long, or has other characters than `[a-z0-9._-]`.
    #[error("item or region malformed")]
    Name,
}

/// Returns the one message of a unary gRPC body.
pub fn unframe(body: &[u8]) -> Result<&[u8], PeekError> {
    let (head, message) = body.split_at_checked(5).ok_or(PeekError::FrameShort)?;
    let &[flag, a, b, c, d] = head else { return Err(PeekError::FrameShort) };
    if flag != 0 {
        return Err(PeekError::Compressed);
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    match message.len().cmp(&length) {
        std::cmp::Ordering::Less => Err(PeekError::FrameShort),
        std::cmp::Ordering::Greater => Err(PeekError::FrameLong),
        std::cmp::Ordering::Equal => Ok(message),
    }
}

/// Reads item and region.
pub fn envelope(body: &[u8]) -> Result<Envelope<'_>, PeekError> {
    let message = unframe(body)?;
    let (mut item, mut region) = (None, None);
    let mut rest = message;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let field = u32::try_from(tag >> 3).map_err(|_| PeekError::Malformed)?;
        let value = value(&mut rest, tag & 7)?;
        let slot = match field {
            0 => return Err(PeekError::Malformed),
            1 => &mut item,
            2 => &mut region,
            _ => continue,
        };
        let Value::Bytes(bytes) = value else { return Err(PeekError::WireType) };
        if slot.replace(bytes).is_some() {
            return Err(PeekError::Repeated);
        }
    }
    let (Some(item), Some(region)) = (item, region) else { return Err(PeekError::Missing) };
    Ok(Envelope { item: name(item)?, region: name(region)?, message })
}

fn name(bytes: &[u8]) -> Result<&str, PeekError> {
    if bytes.is_empty() {
        return Err(PeekError::Missing);
    }
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    if bytes.len() > NAME_BYTES_MAX || !bytes.iter().all(plain) {
        return Err(PeekError::Name);
    }
    std::str::from_utf8(bytes).map_err(|_| PeekError::Name)
}

enum Value<'a> {
    Bytes(&'a [u8]),
    Other,
}

fn value<'a>(rest: &mut &'a [u8], wire_type: u64) -> Result<Value<'a>, PeekError> {
    match wire_type {
        0 => varint(rest).map(|_| Value::Other),
        1 => take(rest, 8).map(|_| Value::Other),
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| PeekError::Malformed)?;
            take(rest, length).map(Value::Bytes)
        }
        5 => take(rest, 4).map(|_| Value::Other),
        // Groups (3, 4) are in no contract of ours; 6 and 7 are no wire types.
        _ => Err(PeekError::Malformed),
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], PeekError> {
    let (head, tail) = rest.split_at_checked(length).ok_or(PeekError::Malformed)?;
    *rest = tail;
    Ok(head)
}

fn varint(rest: &mut &[u8]) -> Result<u64, PeekError> {
    let mut number = 0_u64;
    for shift in (0..70).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(PeekError::Malformed)?;
        *rest = tail;
        // The tenth byte has room for one bit only: more would be cut off by some decoders and not by others.
        if shift == 63 && byte > 1 {
            return Err(PeekError::Malformed);
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(PeekError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::department::v1::QueryRequest;
    use proptest::prelude::*;
    use prost::Message;

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut body = vec![0];
        body.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
        body.extend(message);
        body
    }

    fn query() -> QueryRequest {
        QueryRequest {
            item: "traffic.violation".into(),
            region: "430100".into(),
            request_id: "r-1".into(),
            page_size: 20,
            ..QueryRequest::default()
        }
    }

    #[test]
    fn reads_what_a_client_encodes() {
        let body = framed(&query().encode_to_vec());
        let envelope = envelope(&body).expect("an envelope");
        assert_eq!((envelope.item, envelope.region), ("traffic.violation", "430100"));
    }

    #[test]
    fn refuses_by_name() {
        let good = query().encode_to_vec();
        let with = |extra: &[u8]| framed(&[good.as_slice(), extra].concat());
        let long = QueryRequest { item: "x".repeat(65), ..query() }.encode_to_vec();
        let upper = QueryRequest { item: "Traffic".into(), ..query() }.encode_to_vec();
        let compressed = [&[1_u8], framed(&good).get(1..).expect("a frame")].concat();
        let two = [framed(&good), framed(&good)].concat();
        let cases: &[(&str, Vec<u8>, PeekError)] = &[
            ("empty body", vec![], PeekError::FrameShort),
            ("half a frame", vec![0, 0, 0], PeekError::FrameShort),
            ("message cut", framed(&good)[..20].to_vec(), PeekError::FrameShort),
            ("two messages", two, PeekError::FrameLong),
            ("compressed", compressed, PeekError::Compressed),
            ("second item", with(b"\x0a\x01x"), PeekError::Repeated),
            ("second region", with(b"\x12\x06440100"), PeekError::Repeated),
            ("item as varint", framed(b"\x08\x01\x12\x06430100"), PeekError::WireType),
            ("region as fixed32", framed(b"\x0a\x01x\x15\x00\x00\x00\x00"), PeekError::WireType),
            ("no region", framed(b"\x0a\x01x"), PeekError::Missing),
            ("empty item", framed(b"\x0a\x00\x12\x06430100"), PeekError::Missing),
            ("long item", framed(&long), PeekError::Name),
            ("capital letters", framed(&upper), PeekError::Name),
            ("field zero", with(b"\x00\x00"), PeekError::Malformed),
            ("a group", with(b"\x1b\x1c"), PeekError::Malformed),
            ("length past the end", with(b"\x1a\x7fx"), PeekError::Malformed),
            ("varint without end", with(&[0x18, 0x80]), PeekError::Malformed),
            (
                "varint of eleven bytes",
                with(&[0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
                PeekError::Malformed,
            ),
            ("field number past 32 bits", with(&[0xfa, 0xff, 0xff, 0xff, 0xff, 0x7f, 0]), PeekError::Malformed),
        ];
        for (name, body, expected) in cases {
            assert_eq!(envelope(body), Err(*expected), "{name}");
        }
    }

    proptest! {
        /// What the peek reads is what the adapter's decoder reads, whatever bytes come.
        #[test]
        fn agrees_with_the_decoder(mut bytes in proptest::collection::vec(any::<u8>(), 0..64), prefix in any::<bool>()) {
            if prefix {
                let mut start = query().encode_to_vec();
                start.append(&mut bytes);
                bytes = start;
            }
            let body = framed(&bytes);
            if let Ok(envelope) = envelope(&body)
                && let Ok(decoded) = QueryRequest::decode(envelope.message)
            {
                prop_assert_eq!(decoded.item, envelope.item);
                prop_assert_eq!(decoded.region, envelope.region);
            }
        }
    }
}
