use super::*;
use proptest::prelude::*;

#[test]
fn rare_names_are_bytes_in_gb18030_and_references_in_gbk_xml() {
    assert_eq!(Charset::Gb18030.encode("㼆").as_deref(), Ok(&[0x82, 0x32, 0x8D, 0x37][..]));
    assert_eq!(Charset::Gb18030.encode("䶮").as_deref(), Ok(&[0xFE, 0x9F][..]));
    assert_eq!(Charset::Gb18030.encode("𬭚").as_deref(), Ok(&[0x99, 0x33, 0xAA, 0x34][..]));
    assert_eq!(Charset::Gbk.encode_xml("<a>湘䶮</a>").as_deref(), Ok(&b"<a>\xCF\xE6&#19886;</a>"[..]));
    let misfit = Misfit { at: 3, flaw: Flaw::Unmappable(Charset::Gbk) };
    assert_eq!(Charset::Gbk.encode("湘䶮"), Err(misfit));
    assert!(Charset::Gbk.encode_xml("<䶮/>").is_err(), "a reference cannot stand in a tag");
}

#[test]
fn what_is_no_text_is_named_with_its_offset() {
    let cases: &[(Charset, &[u8], usize, Flaw)] = &[
        (Charset::Gbk, b"ab\xCF", 2, Flaw::Cut),
        (Charset::Gbk, b"\xCF\xE6\xFF", 2, Flaw::Unmapped(Charset::Gbk)),
        (Charset::Gbk, b"a\x80", 1, Flaw::Unmapped(Charset::Gbk)),
        (Charset::Gbk, &[0x41, 0x82, 0x32, 0x8D, 0x37], 1, Flaw::FourBytes),
        (Charset::Gbk, &[0xFE, 0x9F], 0, Flaw::Unmapped(Charset::Gbk)),
        (Charset::Gbk, &[0xA2, 0xE3], 0, Flaw::Unmapped(Charset::Gbk)),
        (Charset::Gbk, &[0xCF, 0x20], 0, Flaw::Unmapped(Charset::Gbk)),
        (Charset::Gb18030, b"ab\xCF", 2, Flaw::Cut),
        (Charset::Gb18030, &[0xCF, 0xE6, 0x82, 0x32, 0x8D], 2, Flaw::Cut),
        (Charset::Gb18030, b"\xFF ", 0, Flaw::Unmapped(Charset::Gb18030)),
        (Charset::Utf8, b"ab\xE6\xB9", 2, Flaw::Cut),
        (Charset::Utf8, b"ab\xFF", 2, Flaw::Unmapped(Charset::Utf8)),
        (Charset::Utf8, b"\xEF\xBB\xBFa", 0, Flaw::Unmapped(Charset::Utf8)),
    ];
    for (charset, bytes, at, flaw) in cases {
        assert_eq!(charset.decode(bytes), Err(Misfit { at: *at, flaw: *flaw }), "{charset:?} {bytes:x?}");
    }
}

#[test]
fn strict_gbk_has_as_many_pairs_as_cp936() {
    let pairs = (0x81..=0xFEu8)
        .flat_map(|lead| (0x40..=0xFEu8).map(move |trail| [lead, trail]))
        .filter(|pair| Charset::Gbk.decode(pair).is_ok())
        .count();
    assert_eq!(pairs, 21_791, "the number of pairs in Python's gbk codec");
}

#[test]
fn offsets_lead_back_to_the_legacy_bytes() {
    let text = "湘A㼆b";
    let bytes = Charset::Gb18030.encode(text).expect("encodes");
    let mut offsets = Charset::Gb18030.offsets(text, &bytes);
    let found: Vec<_> = text.char_indices().map(|(at, _)| offsets.of(at)).collect();
    assert_eq!((found, offsets.of(text.len())), (vec![0, 2, 3, 7], bytes.len()));
}

#[test]
fn names_of_code_pages() {
    assert!(Charset::Gbk.is_called("GB2312") && Charset::Gbk.is_called("gbk"));
    assert!(!Charset::Gbk.is_called("GB18030") && !Charset::Gbk.is_called("UTF-8"));
}

proptest! {
    #[test]
    fn whatever_is_written_reads_back_the_same(text: String) {
        for charset in [Charset::Gbk, Charset::Gb18030] {
            match charset.encode(&text) {
                Ok(bytes) => prop_assert!(charset.decode(&bytes).is_ok_and(|back| back == text)),
                Err(misfit) => prop_assert!(text.is_char_boundary(misfit.at) && misfit.at < text.len()),
            }
        }
    }

    #[test]
    fn whatever_is_read_writes_back_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(text) = Charset::Gbk.decode(&bytes) {
            prop_assert!(Charset::Gbk.encode(&text).is_ok_and(|back| *back == *bytes));
        }
        for charset in [Charset::Gbk, Charset::Gb18030, Charset::Utf8] {
            if let Err(misfit) = charset.decode(&bytes) {
                prop_assert!(misfit.at < bytes.len());
            }
        }
    }

    #[test]
    fn gb18030_writes_every_character_outside_private_use(c: char) {
        let is_private = matches!(c, '\u{E000}'..='\u{F8FF}');
        prop_assert!(is_private || Charset::Gb18030.encode(&c.to_string()).is_ok());
    }
}
