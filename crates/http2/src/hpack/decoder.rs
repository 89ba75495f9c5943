//! Reading a header block.

use bytes::{Buf, Bytes};

use super::huffman;
use super::table::{Line, Name, Table};

/// The block cannot be read, and with it none that follows on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("header block cannot be read: {0}")]
pub(crate) struct BlockError(pub(crate) &'static str);

impl From<huffman::Invalid> for BlockError {
    fn from(_: huffman::Invalid) -> Self {
        Self("Huffman code")
    }
}

/// A value as it came. One that need not be remembered stays coded until somebody wants its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    bytes: Bytes,
    is_coded: bool,
}

impl Value {
    /// A value of plain text.
    pub fn plain(bytes: Bytes) -> Self {
        Self { bytes, is_coded: false }
    }

    /// The text.
    ///
    /// Errors: None for a code that no encoder makes.
    pub fn text(self) -> Option<Bytes> {
        if self.is_coded { huffman::decode(&self.bytes).ok().map(Bytes::from) } else { Some(self.bytes) }
    }

    /// The bytes as they came: two values with the same ones, coded alike, are the same.
    pub fn as_sent(&self) -> (&[u8], bool) {
        (&self.bytes, self.is_coded)
    }

    /// At most so long is the text.
    pub(crate) fn len_max(&self) -> usize {
        if self.is_coded { self.bytes.len() * 8 / 5 } else { self.bytes.len() }
    }
}

/// Reads blocks, one after the other.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: Table,
}

impl Decoder {
    pub(crate) fn new(table_bytes_max: usize) -> Self {
        Self { table: Table::new(table_bytes_max) }
    }

    /// Reads a block to its end and gives every field to `sink`.
    pub(crate) fn read(&mut self, mut block: Bytes, mut sink: impl FnMut(Name, Value)) -> Result<(), BlockError> {
        let mut may_resize = true;
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let line = self.line(integer(&mut block, 7)?)?;
                sink(line.name.clone(), Value::plain(line.value.clone()));
            } else if first & 0xc0 == 0x40 {
                let (name, value) = self.literal(&mut block, 6)?;
                let value = value.text().ok_or(BlockError("Huffman code"))?;
                // Its own copy: what is remembered must not hold on to all that came with it.
                let value = Bytes::copy_from_slice(&value);
                sink(name.clone(), Value::plain(value.clone()));
                self.table.insert(Line { name, value });
            } else if first & 0xe0 == 0x20 {
                if !may_resize || !self.table.resize(integer(&mut block, 5)?) {
                    return Err(BlockError("size of the table"));
                }
                continue;
            } else {
                let (name, value) = self.literal(&mut block, 4)?;
                sink(name, value);
            }
            may_resize = false;
        }
        Ok(())
    }

    fn line(&self, number: usize) -> Result<&Line, BlockError> {
        self.table.get(number).ok_or(BlockError("no such line"))
    }

    fn literal(&self, block: &mut Bytes, bits: u32) -> Result<(Name, Value), BlockError> {
        let name = match integer(block, bits)? {
            0 => Name::read(&string(block)?.text().ok_or(BlockError("Huffman code"))?),
            number => self.line(number)?.name.clone(),
        };
        Ok((name, string(block)?))
    }
}

/// Reads an integer that begins in the low `bits` of the first byte (RFC 7541, 5.1).
fn integer(block: &mut Bytes, bits: u32) -> Result<usize, BlockError> {
    let short = BlockError("cut short");
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(byte(block).ok_or(short)?) & most;
    if value < most {
        return Ok(value);
    }
    // Four more bytes are 28 bits: more than any length or line here.
    for shift in [0, 7, 14, 21] {
        let next = byte(block).ok_or(short)?;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(BlockError("integer too long"))
}

fn string(block: &mut Bytes) -> Result<Value, BlockError> {
    let is_coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(block, 7)?;
    if length > block.len() {
        return Err(BlockError("cut short"));
    }
    Ok(Value { bytes: block.split_to(length), is_coded })
}

fn byte(block: &mut Bytes) -> Option<u8> {
    block.has_remaining().then(|| block.get_u8())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(decoder: &mut Decoder, block: &str) -> Result<Vec<(Name, String)>, BlockError> {
        let mut fields = Vec::new();
        let block = Bytes::from(hex::decode(block.replace(' ', "")).expect("is hexadecimal"));
        decoder.read(block, |name, value| {
            let text = value.text().expect("is well coded");
            fields.push((name, String::from_utf8(text.to_vec()).expect("is text")));
        })?;
        Ok(fields)
    }

    fn field(name: &'static str, value: &str) -> (Name, String) {
        (Name::read(name.as_bytes()), value.to_owned())
    }

    #[test]
    fn what_the_standard_gives_as_examples() {
        // RFC 7541, C.3 (plain) and C.4 (coded): three requests on one connection.
        for blocks in [
            [
                "828684410f7777772e6578616d706c652e636f6d",
                "828684be58086e6f2d6361636865",
                "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
            ],
            [
                "828684418cf1e3c2e5f23a6ba0ab90f4ff",
                "828684be5886a8eb10649cbf",
                "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
            ],
        ] {
            let mut decoder = Decoder::new(4096);
            let common = |scheme: &str, path: &str| {
                vec![
                    field(":method", "GET"),
                    field(":scheme", scheme),
                    field(":path", path),
                    field(":authority", "www.example.com"),
                ]
            };
            assert_eq!(fields(&mut decoder, blocks[0]), Ok(common("http", "/")));
            let mut second = common("http", "/");
            second.push(field("cache-control", "no-cache"));
            assert_eq!(fields(&mut decoder, blocks[1]), Ok(second));
            let mut third = common("https", "/index.html");
            third.push(field("custom-key", "custom-value"));
            assert_eq!(fields(&mut decoder, blocks[2]), Ok(third));
        }
    }

    #[test]
    fn lines_leave_a_full_table() {
        // RFC 7541, C.5: three responses with a table of 256 bytes.
        let mut decoder = Decoder::new(256);
        let first = fields(
            &mut decoder,
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54\
             6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
        );
        assert_eq!(first.expect("reads").len(), 4);
        let second = fields(&mut decoder, "4803333037c1c0bf").expect("reads");
        assert_eq!(second[0], field(":status", "307"));
        assert_eq!(second[3], field("location", "https://www.example.com"));
        assert_eq!(fields(&mut decoder, "c1").expect("reads"), [field("cache-control", "private")]);
        assert!(fields(&mut decoder, "c2").is_err(), "the first line has gone");
    }

    #[test]
    fn a_line_of_a_bad_name_counts_as_its_peer_counts_it() {
        // A table of 72 bytes holds one line of `Bad` and `x`; with the second the first leaves, on both sides.
        let mut decoder = Decoder::new(72);
        fields(&mut decoder, "4003426164 0178 4003426164 0179").expect("reads");
        assert_eq!(fields(&mut decoder, "be").expect("reads"), [(Name::Malformed(3), "y".to_owned())]);
        assert!(fields(&mut decoder, "bf").is_ok(), "72 = 2 x 36");
        fields(&mut decoder, "4004426164 32 0178").expect("reads");
        assert!(fields(&mut decoder, "bf").is_err(), "37 + 36 is more than 72");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (block, why) in [
            ("80", "no line has the number nought"),
            ("ff00", "no such line: 127"),
            ("7f", "cut within an integer"),
            ("ffffffffff7f", "an integer without an end"),
            ("0005616263", "cut within a string"),
            ("4003616263 8100", "a code of other padding"),
            ("82 20", "a size after a field"),
            ("3fe21f", "a size above what was offered"),
        ] {
            assert!(fields(&mut Decoder::new(4096), block).is_err(), "{block}: {why}");
        }
        assert!(fields(&mut Decoder::new(4096), "3fe11f 20 82").is_ok(), "two sizes before the fields");
    }

    #[test]
    fn a_value_that_is_not_remembered_stays_coded() {
        let token = huffman::encode(b"Bearer abc");
        let block = [&[0x1f, 0x08, 0x80 | u8::try_from(token.len()).expect("is short")], token.as_slice()].concat();
        let mut seen = Vec::new();
        Decoder::new(4096).read(Bytes::from(block), |name, value| seen.push((name, value))).expect("reads");
        let (name, value) = seen.remove(0);
        assert_eq!(name, Name::Field(http::header::AUTHORIZATION));
        assert_eq!(value.as_sent(), (token.as_slice(), true));
        assert_eq!(value.text().as_deref(), Some(b"Bearer abc".as_slice()));
    }

    proptest::proptest! {
        #[test]
        fn nothing_breaks_it(block in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let mut decoder = Decoder::new(4096);
            let _ = decoder.read(Bytes::from(block), |_, value| drop(value.text()));
        }
    }
}
