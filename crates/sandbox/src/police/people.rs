//! Who lives in the sandbox: the cast, the magic citizens and the load citizens. The same people in both cities.
//!
//! Everybody is fictitious and was born before 1910, so that no number is a living person's.

use jiff::ToSpan;
use jiff::civil::{Date, date};

/// How many load citizens there are: 70,000 with ordinary plates, then 100,000 with new-energy plates.
pub const LOAD_CITIZENS: u32 = 170_000;
/// How many magic citizens there are: one for each `AM` plate.
pub const MAGIC_CITIZENS: u32 = 10_000;

const LOAD_LETTERS: [char; 7] = ['T', 'U', 'V', 'W', 'X', 'Y', 'Z'];
const LOAD_PER_LETTER: u32 = 10_000;
const LOAD_ORDINARY: u32 = 70_000;
const LOAD_PER_DAY: u32 = 500;
const MAGIC_PER_DAY: u32 = 100;
const SEQUENCE_FIRST: u32 = 100;
const LOAD_BORN: Date = date(1900, 1, 1);
const MAGIC_BORN: Date = date(1901, 1, 1);
/// 浏阳市, and 宁乡县 (a county until 2016: a historical region code).
const LOAD_DISTRICT: &str = "430181";
const MAGIC_DISTRICT: &str = "430124";

/// Which list a person is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The named cast.
    Cast,
    /// The owner of a magic plate; the index is the plate's four digits.
    Magic,
    /// One of many.
    Load,
}

/// A person, by list and place on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersonId {
    /// The list.
    pub kind: Kind,
    /// The place on it, from 0.
    pub index: u32,
}

/// A plate with its type in the coding of GA (`02` small, `52` small new energy …).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vehicle {
    /// Plate type, GA coding.
    pub class: &'static str,
    /// The plate, with the city's prefix.
    pub plate: String,
}

/// What both cities know of a person.
#[derive(Clone, Debug)]
pub struct Person {
    /// Name.
    pub name: String,
    /// Resident ID number, which is the licence number too.
    pub number: String,
    /// Points that stand from records which no sandbox system holds.
    pub points_base: u32,
    /// Vehicle classes of the licence.
    pub classes: &'static str,
}

/// One member of the cast: name, number, points, licence classes, vehicles as (class, plate without its `湘A` or `晋A`, by city).
pub struct Member {
    pub name: &'static str,
    pub number: &'static str,
    pub points_base: u32,
    pub classes: &'static str,
    pub class: &'static str,
    pub changsha: &'static str,
    pub taiyuan: &'static str,
}

const fn member(
    name: &'static str,
    number: &'static str,
    plates: (&'static str, &'static str, &'static str),
) -> Member {
    let (class, changsha, taiyuan) = plates;
    Member { name, number, points_base: 0, classes: "C1", class, changsha, taiyuan }
}

/// The cast. What records each has stands in `registry.rs`, by the same order.
pub const CAST: [Member; 10] = [
    member("陈思远", "430102190503170035", ("02", "8K2J6", "5L3N7")),
    member("王䶮", "430103190409211060", ("02", "7R9Q2", "6C8H4")),
    member("赵㼆", "140106190306150074", ("02", "3F6P8", "9B2E5")),
    member("刘𬭚", "430124190611081054", ("52", "DK1234", "DK5678")),
    Member { points_base: 9, classes: "A2", ..member("郭建军", "140102190202030080", ("01", "B6152", "B7263")) },
    member("何丽", "43010519070729109X", ("02", "5H8G3", "4G7S6")),
    member("李明珠", "14010719011224006X", ("02", "2S5W9", "8Y1K3")),
    member("孙桂兰", "430111190805021074", ("02", "6N4C7", "2P5R8")),
    member("马晓东", "140105190909190044", ("02", "9E1B5", "7J6A9")),
    Member { points_base: 6, ..member("吴海涛", "430104190001011053", ("51", "12345D", "54321D")) },
];

const SURNAMES: [char; 20] = [
    '王', '李', '张', '刘', '陈', '杨', '黄', '赵', '吴', '周', '徐', '孙', '马', '朱', '胡', '郭', '何', '林', '高',
    '罗',
];
const GIVEN: [char; 24] = [
    '安', '宁', '平', '和', '明', '远', '思', '文', '志', '雅', '静', '美', '华', '建', '国', '秀', '芳', '丽', '强',
    '磊', '洋', '勇', '艳', '杰',
];

/// Returns what is known of a person, `None` when the index is beyond its list.
pub fn person(id: PersonId) -> Option<Person> {
    match id.kind {
        Kind::Cast => CAST.get(usize::try_from(id.index).ok()?).map(|m| Person {
            name: m.name.into(),
            number: m.number.into(),
            points_base: m.points_base,
            classes: m.classes,
        }),
        Kind::Magic | Kind::Load => {
            Some(Person { name: made_name(id.index), number: made_number(id)?, points_base: 0, classes: "C1" })
        }
    }
}

/// Finds the person of a resident ID number.
pub fn by_number(number: &str) -> Option<PersonId> {
    if let Some(index) = CAST.iter().position(|m| m.number == number) {
        return Some(PersonId { kind: Kind::Cast, index: u32::try_from(index).ok()? });
    }
    if number.len() != 18 || !number.is_ascii() {
        return None;
    }
    let (kind, first, per_day) = match number.get(..6)? {
        LOAD_DISTRICT => (Kind::Load, LOAD_BORN, LOAD_PER_DAY),
        MAGIC_DISTRICT => (Kind::Magic, MAGIC_BORN, MAGIC_PER_DAY),
        _ => return None,
    };
    let born = Date::strptime("%Y%m%d", number.get(6..14)?).ok()?;
    let days = u32::try_from(first.until(born).ok()?.get_days()).ok()?;
    let sequence = number.get(14..17)?.parse::<u32>().ok()?.checked_sub(SEQUENCE_FIRST)?;
    let id = PersonId { kind, index: days.checked_mul(per_day)?.checked_add(sequence)? };
    (made_number(id)? == number).then_some(id)
}

/// Returns the person's vehicle in a city whose plates start with `prefix` (`湘A`, `晋A`).
pub fn vehicle(id: PersonId, prefix: &str) -> Option<Vehicle> {
    let (class, rest) = match id.kind {
        Kind::Cast => {
            let member = CAST.get(usize::try_from(id.index).ok()?)?;
            (member.class, if prefix.starts_with('湘') { member.changsha.into() } else { member.taiyuan.into() })
        }
        Kind::Magic if id.index < MAGIC_CITIZENS => ("02", format!("M{:04}", id.index)),
        Kind::Load if id.index < LOAD_ORDINARY => {
            let letter = LOAD_LETTERS.get(usize::try_from(id.index / LOAD_PER_LETTER).ok()?)?;
            ("02", format!("{letter}{:04}", id.index % LOAD_PER_LETTER))
        }
        Kind::Load if id.index < LOAD_CITIZENS => ("52", format!("D{:05}", id.index - LOAD_ORDINARY)),
        Kind::Magic | Kind::Load => return None,
    };
    Some(Vehicle { class, plate: format!("{prefix}{rest}") })
}

/// Finds the owner of a plate of a city.
pub fn by_plate(class: &str, plate: &str, prefix: &str) -> Option<PersonId> {
    let rest = plate.strip_prefix(prefix)?;
    let cast = CAST.iter().position(|m| rest == if prefix.starts_with('湘') { m.changsha } else { m.taiyuan });
    let id = match cast {
        Some(index) => PersonId { kind: Kind::Cast, index: u32::try_from(index).ok()? },
        None => by_pattern(rest)?,
    };
    (vehicle(id, prefix)?.class == class).then_some(id)
}

fn by_pattern(rest: &str) -> Option<PersonId> {
    let letter = rest.chars().next()?;
    let digits = rest.get(1..)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u32 = digits.parse().ok()?;
    match (letter, digits.len()) {
        ('M', 4) => Some(PersonId { kind: Kind::Magic, index: number }),
        ('D', 5) => Some(PersonId { kind: Kind::Load, index: LOAD_ORDINARY + number }),
        (_, 4) => {
            let row = u32::try_from(LOAD_LETTERS.iter().position(|l| *l == letter)?).ok()?;
            Some(PersonId { kind: Kind::Load, index: row * LOAD_PER_LETTER + number })
        }
        _ => None,
    }
}

fn made_number(id: PersonId) -> Option<String> {
    let (district, first, per_day, count) = match id.kind {
        Kind::Load => (LOAD_DISTRICT, LOAD_BORN, LOAD_PER_DAY, LOAD_CITIZENS),
        Kind::Magic => (MAGIC_DISTRICT, MAGIC_BORN, MAGIC_PER_DAY, MAGIC_CITIZENS),
        Kind::Cast => return None,
    };
    if id.index >= count {
        return None;
    }
    let born = first.checked_add(i64::from(id.index / per_day).days()).ok()?;
    let body = format!("{district}{}{:03}", born.strftime("%Y%m%d"), SEQUENCE_FIRST + id.index % per_day);
    let check = check_digit(&body)?;
    Some(format!("{body}{check}"))
}

/// The check character of GB 11643 for the first 17 digits.
fn check_digit(body: &str) -> Option<char> {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let sum: u32 = body.chars().zip(WEIGHTS).map(|(c, weight)| c.to_digit(10).unwrap_or(0) * weight).sum();
    "10X98765432".chars().nth(usize::try_from(sum % 11).ok()?)
}

fn made_name(index: u32) -> String {
    let pick =
        |list: &[char], at: u32| list.get(usize::try_from(at).unwrap_or(0) % list.len()).copied().unwrap_or('某');
    let mixed = index.wrapping_mul(2_654_435_761) >> 8;
    [pick(&SURNAMES, mixed), pick(&GIVEN, mixed / 20), pick(&GIVEN, mixed / 480)].into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everybody() -> impl Iterator<Item = PersonId> {
        let list =
            |kind, step: u32, count: u32| (0..count).step_by(step as usize).map(move |index| PersonId { kind, index });
        list(Kind::Cast, 1, 10).chain(list(Kind::Magic, 7, MAGIC_CITIZENS)).chain(list(Kind::Load, 101, LOAD_CITIZENS))
    }

    #[test]
    fn every_number_is_valid_and_finds_its_person() {
        for id in everybody() {
            let number = person(id).expect("a person").number;
            assert_eq!(check_digit(&number[..17]), number.chars().last(), "{id:?}");
            assert!(&number[6..10] < "1910", "{id:?} could be alive");
            assert_eq!(by_number(&number), Some(id));
        }
    }

    #[test]
    fn every_plate_finds_its_owner_in_both_cities_and_has_no_i_or_o() {
        for id in everybody() {
            for prefix in ["湘A", "晋A"] {
                let vehicle = vehicle(id, prefix).expect("a vehicle");
                assert_eq!(by_plate(vehicle.class, &vehicle.plate, prefix), Some(id), "{}", vehicle.plate);
                assert_eq!(by_plate("07", &vehicle.plate, prefix), None, "another type is another vehicle");
                assert!(!vehicle.plate.contains(['I', 'O']));
                let length = if matches!(vehicle.class, "51" | "52") { 8 } else { 7 };
                assert_eq!(vehicle.plate.chars().count(), length, "{}", vehicle.plate);
            }
        }
    }

    #[test]
    fn strangers_are_nobody() {
        for number in ["", "11010519491231002X", "430102190503170036", "430181190001010991", "４30181190001011001"] {
            assert_eq!(by_number(number), None, "{number}");
        }
        for plate in ["湘A", "晋AT0000", "湘AT000", "湘AS0000", "湘AD000000", "湘AT00é", "京A12345"] {
            assert_eq!(by_plate("02", plate, "湘A"), None, "{plate}");
        }
        assert!(person(PersonId { kind: Kind::Load, index: LOAD_CITIZENS }).is_none());
    }
}
