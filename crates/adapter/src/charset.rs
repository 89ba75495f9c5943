//! The departments' code pages. Lossless, or an error that names the byte; never a substitute character.
//!
//! GBK here is the strict set (CP936 without 0x80, which Python's `gbk` and most departments mean), although the library's decoder
//! of that name reads all of GB 18030. GB 18030 is the edition of 2022; its few private-use characters that do not come back as
//! they were written are refused when they are written.

use std::borrow::Cow;

use encoding_rs::{DecoderResult, EncoderResult, Encoding, GB18030, GBK};
use schemars::JsonSchema;
use serde::Deserialize;

/// A code page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Charset {
    /// Strict GBK: ASCII and the two-byte characters of CP936.
    Gbk,
    /// GB 18030: one, two or four bytes a character, every character of Unicode.
    Gb18030,
    /// UTF-8 without a byte order mark.
    #[serde(rename = "utf-8")]
    Utf8,
}

/// Why bytes are no text, or a character has no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The text ends inside a character of several bytes, or a column cuts one.
    #[error("a character of several bytes is cut")]
    Cut,
    /// A byte or pair that the code page gives no character.
    #[error("bytes that {} gives no character", .0.label())]
    Unmapped(Charset),
    /// A sequence of four bytes, which strict GBK does not have.
    #[error("a four-byte sequence, which gbk does not have")]
    FourBytes,
    /// A character that the code page gives no bytes.
    #[error("a character that {} cannot write", .0.label())]
    Unmappable(Charset),
}

/// A flaw and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Byte offset: in the legacy bytes when they were read, in the UTF-8 text when it was to be written.
    pub at: usize,
    /// What is wrong there.
    pub flaw: Flaw,
}

impl Charset {
    /// Returns the name that XML declarations and profiles use.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Gbk => "gbk",
            Self::Gb18030 => "gb18030",
            Self::Utf8 => "utf-8",
        }
    }

    /// Tells whether a peer's name for a code page means this one. `gb2312` is what many systems write and mean GBK by.
    #[must_use]
    pub fn is_called(self, name: &str) -> bool {
        let names: &[&str] = match self {
            Self::Gbk => &["gbk", "gb2312", "cp936"],
            Self::Gb18030 => &["gb18030", "gb18030-2000"],
            Self::Utf8 => &["utf-8", "utf8"],
        };
        names.iter().any(|known| name.eq_ignore_ascii_case(known))
    }

    /// Reads legacy bytes.
    ///
    /// Errors: the first [`Misfit`], with its offset in `bytes`.
    pub fn decode(self, bytes: &[u8]) -> Result<Cow<'_, str>, Misfit> {
        match self {
            Self::Utf8 => decode_utf8(bytes).map(Cow::Borrowed),
            Self::Gbk => {
                check_strict_gbk(bytes)?;
                decode_with(self, GBK, bytes)
            }
            Self::Gb18030 => decode_with(self, GB18030, bytes),
        }
    }

    /// Writes text.
    ///
    /// Errors: the first character that has no bytes, or whose bytes would read as another character, with its offset in `text`.
    pub fn encode(self, text: &str) -> Result<Cow<'_, [u8]>, Misfit> {
        if self == Self::Utf8 || text.is_ascii() {
            return Ok(Cow::Borrowed(text.as_bytes()));
        }
        let mut out = Vec::with_capacity(text.len());
        self.encode_or(text, &mut out, |_, _| false)?;
        Ok(Cow::Owned(out))
    }

    /// Writes XML text: where `in_text` says that a character reference may stand, an unmappable character becomes one (decimal).
    ///
    /// Errors: as [`Charset::encode`], for unmappable characters elsewhere.
    pub fn encode_xml(self, xml: &str) -> Result<Cow<'_, [u8]>, Misfit> {
        if self == Self::Utf8 || xml.is_ascii() {
            return Ok(Cow::Borrowed(xml.as_bytes()));
        }
        let mut out = Vec::with_capacity(xml.len());
        self.encode_or(xml, &mut out, |out, at| {
            let Some((before, c)) = xml.get(..at).zip(xml.get(at..).and_then(|rest| rest.chars().next())) else {
                return false;
            };
            if is_inside_tag(before) {
                return false;
            }
            out.extend_from_slice(format!("&#{};", u32::from(c)).as_bytes());
            true
        })?;
        Ok(Cow::Owned(out))
    }

    /// Tells where in `bytes` the characters of their decoded `text` stand.
    #[must_use]
    pub fn offsets<'r>(self, text: &'r str, bytes: &'r [u8]) -> Offsets<'r> {
        Offsets { text, bytes, is_same: self == Self::Utf8 || text.is_ascii(), text_at: 0, legacy_at: 0 }
    }

    fn encode_or(
        self,
        text: &str,
        out: &mut Vec<u8>,
        mut otherwise: impl FnMut(&mut Vec<u8>, usize) -> bool,
    ) -> Result<(), Misfit> {
        for (at, c) in text.char_indices() {
            if c.is_ascii() {
                out.push(c as u8);
            } else if let Some((bytes, width)) = self.bytes_of(c) {
                out.extend(bytes.iter().take(width));
            } else if !otherwise(out, at) {
                return Err(Misfit { at, flaw: Flaw::Unmappable(self) });
            }
        }
        Ok(())
    }

    /// One character that is not ASCII, if this code page writes it and reads it back as the same.
    fn bytes_of(self, c: char) -> Option<([u8; 4], usize)> {
        let page = match self {
            Self::Utf8 => return None,
            Self::Gbk => GBK,
            Self::Gb18030 => GB18030,
        };
        let (mut bytes, mut utf8) = ([0; 4], [0; 4]);
        let mut encoder = page.new_encoder();
        let (result, _, width) =
            encoder.encode_from_utf8_without_replacement(c.encode_utf8(&mut utf8), &mut bytes, true);
        let written = bytes.get(..width)?;
        let back = self.decode(written).ok()?;
        (result == EncoderResult::InputEmpty && back.chars().eq([c])).then_some((bytes, width))
    }
}

/// Offsets of a decoded text as offsets of its legacy bytes, asked for from the front to the back: all of them cost one pass.
#[derive(Clone, Copy, Debug)]
pub struct Offsets<'r> {
    text: &'r str,
    bytes: &'r [u8],
    is_same: bool,
    text_at: usize,
    legacy_at: usize,
}

impl Offsets<'_> {
    /// The offset in the bytes of the character at `at` in the text. One before the last that was asked for is that one.
    pub fn of(&mut self, at: usize) -> usize {
        if self.is_same {
            return at;
        }
        let between = self.text.get(self.text_at..at).unwrap_or_default();
        for c in between.chars() {
            let rest = self.bytes.get(self.legacy_at..).unwrap_or_default();
            self.legacy_at += width_of(rest);
            self.text_at += c.len_utf8();
        }
        self.legacy_at
    }
}

/// Inside `<…>` no character reference can stand (but in an attribute's value, where nothing of ours puts one).
fn is_inside_tag(before: &str) -> bool {
    before.rfind('<') > before.rfind('>')
}

fn decode_utf8(bytes: &[u8]) -> Result<&str, Misfit> {
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(Misfit { at: 0, flaw: Flaw::Unmapped(Charset::Utf8) });
    }
    std::str::from_utf8(bytes).map_err(|error| Misfit {
        at: error.valid_up_to(),
        flaw: if error.error_len().is_none() { Flaw::Cut } else { Flaw::Unmapped(Charset::Utf8) },
    })
}

fn decode_with<'b>(charset: Charset, page: &'static Encoding, bytes: &'b [u8]) -> Result<Cow<'b, str>, Misfit> {
    page.decode_without_bom_handling_and_without_replacement(bytes).ok_or_else(|| first_misfit(charset, page, bytes))
}

/// Finds the first bad character, one at a time: only errors pay for it.
fn first_misfit(charset: Charset, page: &'static Encoding, bytes: &[u8]) -> Misfit {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let width = width_of(rest);
        let Some(piece) = rest.get(..width) else { return Misfit { at, flaw: Flaw::Cut } };
        let mut text = [0; 16];
        let (result, _, _) =
            page.new_decoder_without_bom_handling().decode_to_utf8_without_replacement(piece, &mut text, true);
        if result != DecoderResult::InputEmpty {
            return Misfit { at, flaw: Flaw::Unmapped(charset) };
        }
        at += width;
    }
    Misfit { at, flaw: Flaw::Unmapped(charset) }
}

/// How many bytes the character takes that begins here, by the rules of GB 18030.
fn width_of(bytes: &[u8]) -> usize {
    match bytes {
        [0x81..=0xFE, 0x30..=0x39, ..] => 4,
        [0x81..=0xFE, ..] => 2,
        _ => 1,
    }
}

/// Refuses what CP936 does not have: single bytes above ASCII, four-byte sequences, and the pairs that GB 18030 added.
fn check_strict_gbk(bytes: &[u8]) -> Result<(), Misfit> {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match *rest {
            [0..=0x7F, ..] => at += 1,
            [0x81..=0xFE] => return Err(Misfit { at, flaw: Flaw::Cut }),
            [0x81..=0xFE, 0x30..=0x39, ..] => return Err(Misfit { at, flaw: Flaw::FourBytes }),
            [lead @ 0x81..=0xFE, trail @ (0x40..=0x7E | 0x80..=0xFE), ..] if is_cp936(lead, trail) => at += 2,
            _ => return Err(Misfit { at, flaw: Flaw::Unmapped(Charset::Gbk) }),
        }
    }
    Ok(())
}

/// The pairs of CP936, out of those the library's table fills. What GB 18030 gave to private use or added later is left out; the
/// list is the difference between that table and Python's `gbk` codec, which the charset judge compares in full.
fn is_cp936(lead: u8, trail: u8) -> bool {
    let pair = u16::from_be_bytes([lead, trail]);
    let user_defined = matches!((lead, trail), (0xAA..=0xAF | 0xF8..=0xFE, 0xA1..=0xFE) | (0xA1..=0xA7, 0x40..=0xA0));
    let added_later = matches!(
        pair,
        0xA2AB..=0xA2B0 | 0xA2E3..=0xA2E4 | 0xA2EF..=0xA2F0 | 0xA2FD..=0xA2FE | 0xA4F4..=0xA4FE | 0xA5F7..=0xA5FE
            | 0xA6B9..=0xA6C0 | 0xA6D9..=0xA6DF | 0xA6EC..=0xA6ED | 0xA6F3 | 0xA6F6..=0xA6FE
            | 0xA7C2..=0xA7D0 | 0xA7F2..=0xA7FE
            | 0xA896..=0xA8A0 | 0xA8BC | 0xA8BF | 0xA8C1..=0xA8C4 | 0xA8EA..=0xA8FE
            | 0xA958 | 0xA95B | 0xA95D..=0xA95F | 0xA989..=0xA995 | 0xA997..=0xA9A3 | 0xA9F0..=0xA9FE
            | 0xD7FA..=0xD7FE | 0xFE50..=0xFEFE
    );
    !user_defined && !added_later
}

#[cfg(test)]
mod tests;
