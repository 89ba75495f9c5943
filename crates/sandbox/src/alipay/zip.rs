//! A zip archive whose names are GBK and do not say so, which no library writes any more.

use std::io::{self, Write as _};

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use jiff::civil::DateTime;

const LOCAL: u32 = 0x0403_4B50;
const CENTRAL: u32 = 0x0201_4B50;
const END: u32 = 0x0605_4B50;
const VERSION: u16 = 20;
/// No flag at all: not the one that says that names are UTF-8.
const FLAGS: u16 = 0;
const DEFLATED: u16 = 8;

/// A file in an archive.
pub(super) struct Member {
    /// Its name as bytes, of whatever code page.
    pub name: Vec<u8>,
    pub content: Vec<u8>,
}

/// Packs the members.
pub(super) fn archive(members: &[Member], at: DateTime) -> io::Result<Vec<u8>> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for member in members {
        let offset = size(out.len())?;
        let header = header(member, at)?;
        out.extend(LOCAL.to_le_bytes());
        out.extend(&header.common);
        out.extend(&member.name);
        out.extend(&header.packed);
        directory.extend(CENTRAL.to_le_bytes());
        directory.extend(VERSION.to_le_bytes());
        directory.extend(&header.common);
        // No remark, the first disk, no attributes.
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(&member.name);
    }
    let (start, length) = (size(out.len())?, size(directory.len())?);
    let count = u16::try_from(members.len()).map_err(io::Error::other)?;
    out.extend(directory);
    out.extend(END.to_le_bytes());
    out.extend([0; 4]);
    out.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    out.extend([length.to_le_bytes(), start.to_le_bytes()].concat());
    out.extend([0; 2]);
    Ok(out)
}

struct Header {
    /// What both headers of a member have: from the version to the length of what is extra.
    common: Vec<u8>,
    packed: Vec<u8>,
}

fn header(member: &Member, at: DateTime) -> io::Result<Header> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&member.content)?;
    let packed = encoder.finish()?;
    let mut crc = Crc::new();
    crc.update(&member.content);
    let mut common = Vec::new();
    common.extend(VERSION.to_le_bytes());
    common.extend(FLAGS.to_le_bytes());
    common.extend(DEFLATED.to_le_bytes());
    let bits = |value: i16, shift: u32| u16::try_from(value).unwrap_or(0) << shift;
    let time = bits(at.hour().into(), 11) | bits(at.minute().into(), 5) | bits(i16::from(at.second()) / 2, 0);
    let day = bits(at.year() - 1980, 9) | bits(at.month().into(), 5) | bits(at.day().into(), 0);
    common.extend([time.to_le_bytes(), day.to_le_bytes()].concat());
    common.extend(crc.sum().to_le_bytes());
    common.extend([size(packed.len())?.to_le_bytes(), size(member.content.len())?.to_le_bytes()].concat());
    common.extend(u16::try_from(member.name.len()).map_err(io::Error::other)?.to_le_bytes());
    common.extend([0; 2]);
    Ok(Header { common, packed })
}

fn size(length: usize) -> io::Result<u32> {
    u32::try_from(length).map_err(io::Error::other)
}
