use super::*;
use proptest::prelude::*;

fn zone() -> Zone {
    Zone::parse("+08:00").expect("a zone")
}

fn kind(yaml: &str) -> Kind {
    serde_yaml_ng::from_str(yaml).expect("a kind")
}

fn read(kind: &Kind, text: &str) -> Result<Value, Misfit> {
    kind.read(text, zone())
}

#[test]
fn yuan_and_fen_read_as_the_same_fen() {
    let (yuan, fen) = (kind("{kind: money, unit: yuan}"), kind("{kind: money, unit: fen}"));
    assert_eq!(read(&yuan, "200.00"), read(&fen, "000000020000"));
    assert_eq!(read(&yuan, "0.05"), Ok(Value::from(5)));
    for bad in ["", "200", "200.0", "200.000", "-1.00", "+1.00", "01.00", "1,000.00", "٢.00", " 1.00", "1e2.00", ".50"]
    {
        assert!(read(&yuan, bad).is_err(), "{bad:?}");
    }
    for bad in ["", "12.00", "-5", "0x10", "12 ", "9999999999999999999", "9007199254740992"] {
        assert!(read(&fen, bad).is_err(), "{bad:?}");
    }
}

#[test]
fn local_times_become_utc_and_nothing_is_guessed() {
    let dashed = kind("{kind: time, format: '%Y-%m-%d %H:%M:%S'}");
    let packed = kind("{kind: time, format: '%Y%m%d%H%M%S'}");
    let expected = Ok(Value::from("2026-11-12T00:31:00Z"));
    assert_eq!(read(&dashed, "2026-11-12 08:31:00"), expected);
    assert_eq!(read(&packed, "20261112083100"), expected);
    for bad in [
        "2026-11-12",
        "2026-11-12 8:31:00",
        "2026-11-12  08:31:00",
        "2026-02-30 08:31:00",
        "2026-11-12 24:00:00",
        "2026-11-12 08:31:60",
        "2026-11-12T08:31:00",
        "2026-11-12 08:31:00 ",
        "26-11-12 08:31:00",
    ] {
        assert!(read(&dashed, bad).is_err(), "{bad:?}");
    }
    for bad in ["2026111208310", "20261112083100 ", "202611120831000", "20261312083100", "ZZZZZZZZZZZZZZ"] {
        assert!(read(&packed, bad).is_err(), "{bad:?}");
    }
    assert_eq!(packed.write(&Value::from("2026-11-12T00:31:00Z"), zone()).as_deref(), Ok("20261112083100"));
    assert_eq!(packed.write(&Value::from("2026-11-12T08:31:00.5+08:00"), zone()).as_deref(), Ok("20261112083100"));
}

#[test]
fn dates_stay_dates() {
    let (packed, dashed) = (kind("{kind: date, format: '%Y%m%d'}"), kind("{kind: date, format: '%Y-%m-%d'}"));
    assert_eq!(read(&packed, "20260401"), Ok(Value::from("2026-04-01")));
    assert_eq!(read(&dashed, "2026-04-01"), Ok(Value::from("2026-04-01")));
    assert!(read(&packed, "20260431").is_err());
    assert_eq!(packed.write(&Value::from("2026-04-01"), zone()).as_deref(), Ok("20260401"));
}

#[test]
fn codes_outside_the_table_are_errors() {
    let plate = kind("{kind: code, table: {'01': LARGE, '02': SMALL}}");
    let flag = kind("{kind: code, table: {'0': false, '1': true}}");
    assert_eq!(read(&plate, "02"), Ok(Value::from("SMALL")));
    assert_eq!(read(&flag, "1"), Ok(Value::from(true)));
    assert_eq!(read(&plate, "03"), Err(Misfit::Code("`01`, `02`".into())));
    assert_eq!(plate.write(&Value::from("LARGE"), zone()).as_deref(), Ok("01"));
    assert!(plate.write(&Value::from("01"), zone()).is_err());
}

#[test]
fn text_and_identifiers() {
    let text = kind("{kind: text, chars_max: 3}");
    assert_eq!(read(&text, "湘䶮"), Ok(Value::from("湘䶮")));
    assert!(read(&text, "湘湘湘湘").is_err() && read(&text, "a\u{7}").is_err() && read(&text, "a\u{FFFD}").is_err());
    let id = kind("{kind: ascii, chars: digits, min: 16, max: 16}");
    assert!(read(&id, "4301001000000101").is_ok());
    assert!(read(&id, "430100100000010").is_err() && read(&id, "430100100000010x").is_err());
    let number = kind("{kind: number, max: 12}");
    assert_eq!(read(&number, "06"), Ok(Value::from(6)));
    assert!(read(&number, "13").is_err() && read(&number, "").is_err() && read(&number, "-1").is_err());
    assert!(number.write(&Value::from("6"), zone()).is_err(), "a number is given as a number");
}

#[test]
fn bad_declarations_say_what_would_be_right() {
    let error = serde_yaml_ng::from_str::<Kind>("{kind: time, format: 'yyyy-MM-dd'}").expect_err("no strftime letters");
    assert!(error.to_string().contains("%Y-%m-%d"), "{error}");
    assert!(serde_yaml_ng::from_str::<Kind>("{kind: time, format: '%Y %Q!'}").is_err());
    assert!(serde_yaml_ng::from_str::<Kind>("{kind: text, chars_max: 3, charz: 4}").is_err());
    for bad in ["", "8", "+8", "+08", "+08:60", "+15:00", "08:00", "+0a:00"] {
        assert_eq!(Zone::parse(bad), None, "{bad:?}");
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(minor in 0..=AMOUNT_MINOR_MAX, seconds in 0..4_000_000_000i64) {
        let at = time::rfc3339(runtime::Timestamp::from_micros(seconds * 1_000_000)).expect("in range");
        let cases = [
            ("{kind: money, unit: yuan}", Value::from(minor)),
            ("{kind: money, unit: fen}", Value::from(minor)),
            ("{kind: time, format: '%Y-%m-%d %H:%M:%S'}", Value::from(at.clone())),
            ("{kind: time, format: '%Y%m%d%H%M%S'}", Value::from(at)),
        ];
        for (yaml, value) in cases {
            let kind = kind(yaml);
            let written = kind.write(&value, zone()).expect("writes");
            prop_assert_eq!(kind.read(&written, zone()), Ok(value));
        }
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "\\PC{0,30}") {
        for yaml in ["{kind: money, unit: yuan}", "{kind: time, format: '%Y%m%d%H%M%S'}", "{kind: date, format: '%Y-%m-%d'}"] {
            let _ = kind(yaml).read(&text, zone());
        }
    }
}
