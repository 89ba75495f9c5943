use super::*;
use proptest::prelude::*;

fn today() -> Date {
    jiff::civil::date(2026, 8, 1)
}

fn check_as(kind: DocumentType, number: &str) -> Result<String, Rule> {
    Document::check(kind.as_str(), number, today()).map(|document| document.number().expose().clone())
}

#[test]
fn published_numbers_keep_the_rules() {
    use DocumentType::{PermanentResident, ResidencePermit, ResidentId};
    for (kind, number) in [
        (ResidentId, "11010519491231002X"),
        // The standard's own specimen; its region, a county that is gone, got its code a century after the birth.
        (ResidentId, "440524188001010014"),
        (ResidencePermit, "810000199408230021"),
        (ResidencePermit, "830000199201300022"),
        (PermanentResident, "932682198501010017"),
        // Published, and against the rule of GB 11643: see `permanent_resident`.
        (PermanentResident, "911124198108030028"),
        (PermanentResident, "ABC110123456789"),
    ] {
        assert_eq!(check_as(kind, number), Ok(number.to_owned()), "{kind} {number}");
    }
}

#[test]
fn a_number_of_fifteen_digits_is_one_with_its_form_of_eighteen() {
    assert_eq!(check_as(DocumentType::ResidentId, "610104620927690"), Ok("610104196209276908".to_owned()));
    assert_eq!(check_as(DocumentType::ResidentId, "11010519491231002x"), Ok("11010519491231002X".to_owned()));
}

#[test]
fn each_rule_refuses_by_its_name() {
    use DocumentType::{HongKongMacaoPermit, Passport, PermanentResident, ResidencePermit, ResidentId, TaiwanPermit};
    for (kind, number, rule) in [
        (ResidentId, "", Rule::Length),
        (ResidentId, "1101051949123100", Rule::Length),
        (ResidentId, "11010519491231002XX", Rule::Length),
        (ResidentId, "1101051949123100AX", Rule::Character),
        (ResidentId, "1X010519491231002X", Rule::Character),
        (ResidentId, "11010519491231002*", Rule::Character),
        (ResidentId, "６１０１０４６２０９２７６９０", Rule::Character),
        (ResidentId, "61010462092769X", Rule::Character),
        (ResidentId, "61010462092769 ", Rule::Character),
        (ResidentId, "999999194912310020", Rule::Region),
        (ResidentId, "000000194912310020", Rule::Region),
        (ResidentId, "810000199408230021", Rule::Region),
        (ResidentId, "932682198501010017", Rule::Region),
        (ResidentId, "110105194902300020", Rule::BirthDate),
        (ResidentId, "110105194913310020", Rule::BirthDate),
        (ResidentId, "110105000001010020", Rule::BirthDate),
        (ResidentId, "110105184912310020", Rule::BirthDate),
        (ResidentId, "110105202608020020", Rule::BirthDate),
        (ResidentId, "110105194912310021", Rule::CheckCharacter),
        (ResidencePermit, "820000199408230029", Rule::CheckCharacter),
        (ResidencePermit, "11010519491231002X", Rule::Region),
        (ResidencePermit, "810000199408230", Rule::Length),
        (PermanentResident, "832682198501010017", Rule::Region),
        (PermanentResident, "999682198501010017", Rule::Region),
        (PermanentResident, "932682198502300017", Rule::BirthDate),
        (PermanentResident, "AB1110123456789", Rule::Character),
        (PermanentResident, "932682", Rule::Length),
        (HongKongMacaoPermit, "A12345678", Rule::Character),
        (HongKongMacaoPermit, "H1234567", Rule::Length),
        (HongKongMacaoPermit, "H1234567X", Rule::Character),
        (TaiwanPermit, "T12345678", Rule::Length),
        (TaiwanPermit, "1234567A", Rule::Character),
        (Passport, "E1", Rule::Length),
        (Passport, "E1234567890123456", Rule::Length),
        (Passport, "ABCDEFGH", Rule::Character),
        (Passport, "E1234-678", Rule::Character),
    ] {
        assert_eq!(check_as(kind, number), Err(rule), "{kind} {number}");
    }
    assert_eq!(Document::check("driving_licence", "1", today()), Err(Rule::DocumentType));
}

#[test]
fn the_other_types_go_by_their_form() {
    use DocumentType::{HongKongMacaoPermit, Passport, TaiwanPermit};
    for (kind, number) in [
        (HongKongMacaoPermit, "H12345678"),
        (HongKongMacaoPermit, "M1234567890"),
        (TaiwanPermit, "12345678"),
        (Passport, "EA1234567"),
        (Passport, "G12345678"),
    ] {
        assert_eq!(check_as(kind, number), Ok(number.to_owned()), "{kind} {number}");
    }
}

#[test]
fn somebody_born_today_has_a_number() {
    let body = "11010520260801002";
    let number = format!("{body}{}", check_character(body));
    assert!(check_as(DocumentType::ResidentId, &number).is_ok());
}

#[test]
fn neither_a_document_nor_its_error_shows_the_number() {
    let document = Document::check("resident_id", "11010519491231002X", today()).expect("keeps the rules");
    assert!(!format!("{document:?}").contains("1949"));
    for rule in Rule::ALL {
        assert!(!rule.to_string().bytes().any(|b| b.is_ascii_digit()), "{rule}");
    }
}

#[test]
fn names_read_back() {
    for kind in DocumentType::ALL {
        assert_eq!(kind.as_str().parse(), Ok(kind));
    }
}

proptest! {
    #[test]
    fn one_wrong_digit_is_always_found(at in 0_usize..17, by in 1_u32..10) {
        let number = "11010519491231002X";
        let wrong: String = number.chars().enumerate().map(|(index, digit)| match digit.to_digit(10) {
            Some(value) if index == at => char::from_digit((value + by) % 10, 10).unwrap_or('0'),
            _ => digit,
        }).collect();
        prop_assert!(check_as(DocumentType::ResidentId, &wrong).is_err());
    }

    #[test]
    fn two_swapped_neighbours_are_always_found(at in 0_usize..16) {
        let mut digits: Vec<char> = "11010519491231002X".chars().collect();
        prop_assume!(digits[at] != digits[at + 1]);
        digits.swap(at, at + 1);
        let swapped: String = digits.into_iter().collect();
        prop_assert!(check_as(DocumentType::ResidentId, &swapped).is_err());
    }

    #[test]
    fn no_text_makes_it_panic(kind in prop::sample::select(DocumentType::ALL.to_vec()), number in ".{0,24}") {
        let _ = check_as(kind, &number);
    }
}
