//! The two code pages of the departments: GBK (the strict set of CP936) and GB 18030. Lossless, or an error; never a substitute.

use encoding_rs::{EncoderResult, Encoding, GB18030, GBK};

/// Bytes that are no text of the code page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes that are not {page}")]
pub(crate) struct NotText {
    page: &'static str,
}

/// Reads GBK. What only GB 18030 has (four-byte sequences, the later additions) is an error here.
pub(crate) fn decode_gbk(bytes: &[u8]) -> Result<String, NotText> {
    let text = decode(GBK, bytes).ok_or(NotText { page: "GBK" })?;
    // The library's GBK decoder reads all of GB 18030: what strict GBK cannot write back was not GBK.
    let mut gbk = Gbk::new();
    let strict = text.chars().all(|c| c.is_ascii() || gbk.pair(c).is_some());
    if strict { Ok(text) } else { Err(NotText { page: "GBK" }) }
}

/// Reads GB 18030.
pub(crate) fn decode_gb18030(bytes: &[u8]) -> Result<String, NotText> {
    decode(GB18030, bytes).ok_or(NotText { page: "GB 18030" })
}

/// Writes XML text in GBK: what GBK does not have becomes a decimal character reference, which only XML can carry.
pub(crate) fn encode_gbk_xml(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut gbk = Gbk::new();
    for c in text.chars() {
        match u8::try_from(c) {
            Ok(byte) if byte.is_ascii() => out.push(byte),
            _ => match gbk.pair(c) {
                Some(pair) => out.extend(pair),
                None => out.extend(format!("&#{};", u32::from(c)).into_bytes()),
            },
        }
    }
    out
}

/// Writes GB 18030. `None` for the few private-use characters that it has no place for.
pub(crate) fn encode_gb18030(text: &str) -> Option<Vec<u8>> {
    let (bytes, _, unmappable) = GB18030.encode(text);
    (!unmappable).then(|| bytes.into_owned())
}

fn decode(page: &'static Encoding, bytes: &[u8]) -> Option<String> {
    page.decode_without_bom_handling_and_without_replacement(bytes).map(std::borrow::Cow::into_owned)
}

/// Writes single characters in strict GBK: ASCII, or a pair that CP936 and every other GBK table agree on.
struct Gbk(encoding_rs::Encoder);

impl Gbk {
    fn new() -> Self {
        Self(GBK.new_encoder())
    }

    /// The pair of a character that is not ASCII.
    fn pair(&mut self, c: char) -> Option<[u8; 2]> {
        if matches!(c, '\u{E000}'..='\u{F8FF}') {
            return None;
        }
        let (mut pair, mut utf8) = ([0; 8], [0; 4]);
        let text = c.encode_utf8(&mut utf8);
        // The encoder has no state from one character to the next.
        let (result, _, written) = self.0.encode_from_utf8_without_replacement(text, &mut pair, false);
        if result != EncoderResult::InputEmpty || written != 2 {
            return None;
        }
        let pair = [pair[0], pair[1]];
        let added_later = matches!(
            u16::from_be_bytes(pair),
            0xA2E3 | 0xA6D9..=0xA6DF | 0xA6EC..=0xA6ED | 0xA6F3 | 0xA8BC | 0xA8BF | 0xA989..=0xA995 | 0xFE50..
        );
        (!added_later).then_some(pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rare_names_are_references_in_gbk_and_bytes_in_gb18030() {
        assert_eq!(encode_gbk_xml("湘A㼆"), b"\xCF\xE6A&#16134;");
        assert_eq!(encode_gbk_xml("䶮"), b"&#19886;");
        assert_eq!(encode_gbk_xml("€"), b"&#8364;");
        assert_eq!(encode_gb18030("㼆").as_deref(), Some(&[0x82, 0x32, 0x8D, 0x37][..]));
        assert_eq!(encode_gb18030("䶮").as_deref(), Some(&[0xFE, 0x9F][..]));
        assert_eq!(encode_gb18030("𬭚").as_deref(), Some(&[0x99, 0x33, 0xAA, 0x34][..]));
    }

    #[test]
    fn halves_and_strangers_are_errors() {
        assert!(decode_gbk(b"\xCF").is_err(), "half a pair");
        assert!(decode_gbk(b"\xFF").is_err(), "a byte that is in no page");
        assert!(decode_gbk(&[0x82, 0x32, 0x8D, 0x37]).is_err(), "four bytes are GB 18030, not GBK");
        assert!(decode_gbk(&[0xFE, 0x9F]).is_err(), "䶮 came after GBK");
        assert!(decode_gb18030(b"\xCF").is_err());
        assert!(decode_gb18030(b"\xFF ").is_err());
        assert_eq!(decode_gbk(b"\xCF\xE6A").as_deref(), Ok("湘A"));
    }

    proptest! {
        #[test]
        fn gb18030_round_trips(text in "[\u{20}-\u{7e}一-龥㐀-䶵\u{20000}-\u{2A6D6}]{0,40}") {
            let bytes = encode_gb18030(&text).expect("everything here has a place");
            prop_assert_eq!(decode_gb18030(&bytes), Ok(text));
        }

        #[test]
        fn strict_gbk_round_trips(text in "[\u{20}-\u{25}\u{27}-\u{7e}一-龥，。（）]{0,40}") {
            prop_assert_eq!(decode_gbk(&encode_gbk_xml(&text)), Ok(text));
        }
    }
}
