//! The records that exist without anybody having done anything: laid out from the person and the day of the first start.

use aws_lc_rs::digest;
use jiff::ToSpan;
use jiff::civil::Date;
use runtime::Timestamp;

use super::people::{self, Kind, PersonId, Vehicle};
use super::tariff::{self, Offence};
use crate::beijing;

/// How many records the member of the cast with very many has.
pub(crate) const MANY: u8 = 60;

/// One city's traffic police: its name on the wire and what it lays out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct City {
    /// Region code, and the last part of the system's name.
    pub region: &'static str,
    /// The system's name: `police-430100`.
    pub system: &'static str,
    /// What its plates start with.
    pub plate_prefix: &'static str,
    number_prefix: &'static str,
    decision_width: usize,
    unit_code: &'static str,
    unit: &'static str,
    offences: &'static [Offence],
    places: &'static [&'static str],
}

/// Changsha: 16-digit record numbers, 15-digit decisions.
pub(crate) const CHANGSHA: City = City {
    region: "430100",
    system: "police-430100",
    plate_prefix: "湘A",
    number_prefix: "430100",
    decision_width: 6,
    unit_code: "430102000400",
    unit: "长沙市公安局交通警察支队芙蓉大队",
    offences: &tariff::CHANGSHA,
    places: &tariff::CHANGSHA_PLACES,
};

/// Taiyuan: 20-digit record numbers, 16-digit decisions.
pub(crate) const TAIYUAN: City = City {
    region: "140100",
    system: "police-140100",
    plate_prefix: "晋A",
    number_prefix: "1401000000",
    decision_width: 7,
    unit_code: "140106000300",
    unit: "太原市公安局交通警察支队迎泽大队",
    offences: &tariff::TAIYUAN,
    places: &tariff::TAIYUAN_PLACES,
};

/// A record, by its person and its place among that person's records (from 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordId {
    /// Whose it is.
    pub person: PersonId,
    /// Which of theirs.
    pub ordinal: u8,
}

/// What a record is before anybody touches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Initial {
    /// Captured only.
    Captured,
    /// Confirmed, decided, unpaid.
    Confirmed,
    /// Decided and disputed.
    Disputed,
    /// Paid and handled.
    Paid,
    /// A warning: decided, handled, nothing to pay.
    Warning,
}

/// A record as it is laid out.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    /// The record.
    pub id: RecordId,
    /// Its number on the wire.
    pub number: String,
    /// The vehicle.
    pub vehicle: Vehicle,
    /// When the violation was.
    pub occurred_at: Timestamp,
    /// When the decision is (or would be) dated.
    pub decided_at: Timestamp,
    /// The decision's number and check digit, once there is one.
    pub decision: (String, u32),
    /// What was violated, with fine and points.
    pub offence: Offence,
    /// Where.
    pub place: &'static str,
    /// Code of the place.
    pub place_code: String,
    /// What it starts as.
    pub initial: Initial,
}

/// A photo or a video of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// Its number.
    pub number: String,
    /// Whether it moves.
    pub video: bool,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// Where the department keeps it.
    pub reference: String,
    /// SHA-256, lower hex.
    pub digest: String,
}

struct Plan {
    code: &'static str,
    days_ago: i32,
    initial: Initial,
}

const fn plan(code: &'static str, days_ago: i32, initial: Initial) -> Plan {
    Plan { code, days_ago, initial }
}

/// The cast's records, in the order of `people::CAST`. The ninth has [`MANY`].
const PLANS: [&[Plan]; 10] = [
    &[plan("1625", 10, Initial::Confirmed), plan("1039", 3, Initial::Captured)],
    &[plan("1625", 9, Initial::Confirmed), plan("1345", 60, Initial::Paid)],
    &[plan("1301", 12, Initial::Confirmed)],
    &[plan("1352A", 6, Initial::Confirmed)],
    &[plan("1636", 8, Initial::Confirmed)],
    &[],
    &[plan("1345", 20, Initial::Disputed), plan("1625", 50, Initial::Paid), plan("1039", 40, Initial::Warning)],
    &[plan("1625", 40, Initial::Confirmed), plan("1301", 200, Initial::Confirmed)],
    &[],
    &[plan("1625", 7, Initial::Confirmed)],
];
const MANY_OWNER: u32 = 8;
/// From the violation to the decision.
const DAYS_TO_DECISION: i64 = 2;

impl City {
    /// Returns the record as laid out for a system that was first started on `day` (Beijing).
    pub(crate) fn record(&self, id: RecordId, day: Date) -> Option<Base> {
        let plan = plan_of(id)?;
        let offence = *self.offences.iter().find(|offence| offence.code == plan.code)?;
        let vehicle = people::vehicle(id.person, self.plate_prefix)?;
        let mixed = mix(id);
        let minute = 6 * 60 + i64::from(mixed % 900);
        let date = day.checked_sub(i64::from(plan.days_ago).days()).ok()?;
        let occurred = date.at(0, 0, 0, 0).checked_add(minute.minutes()).ok()?;
        let decided = date.checked_add(DAYS_TO_DECISION.days()).ok()?.at(9, 30, 0, 0);
        let spot = usize::try_from(mixed >> 10).ok()? % self.places.len();
        Some(Base {
            id,
            number: self.number(id),
            vehicle,
            occurred_at: beijing::moment(occurred),
            decided_at: beijing::moment(decided),
            decision: self.decision(id),
            offence: if plan.initial == Initial::Warning {
                Offence { fine_minor: 0, points: 0, ..offence }
            } else {
                offence
            },
            place: self.places.get(spot)?,
            place_code: format!("{}{:06}", self.region, 101_000 + spot),
            initial: plan.initial,
        })
    }

    /// Returns a person's records, newest first.
    pub(crate) fn records(&self, person: PersonId, day: Date) -> Vec<Base> {
        let mut all: Vec<Base> =
            (1..=u8::MAX).map_while(|ordinal| self.record(RecordId { person, ordinal }, day)).collect();
        all.sort_by(|a, b| b.occurred_at.cmp(&a.occurred_at).then(a.id.cmp(&b.id)));
        all
    }

    /// Writes a record's number.
    pub(crate) fn number(&self, id: RecordId) -> String {
        format!("{}{}{:07}{:02}", self.number_prefix, kind_digit(id.person.kind), id.person.index, id.ordinal)
    }

    /// Reads a record's number; `None` when it is not one of this city's.
    pub(crate) fn parse_number(&self, number: &str) -> Option<RecordId> {
        let rest = number.strip_prefix(self.number_prefix)?;
        if rest.len() != 10 || !rest.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let kind = match rest.get(..1)? {
            "1" => Kind::Cast,
            "2" => Kind::Magic,
            "3" => Kind::Load,
            _ => return None,
        };
        let person = PersonId { kind, index: rest.get(1..8)?.parse().ok()? };
        Some(RecordId { person, ordinal: rest.get(8..)?.parse().ok()? })
    }

    /// Returns the archive number of a person's licence.
    pub(crate) fn archive_number(&self, person: PersonId) -> String {
        format!("{}{}{:07}", &self.region[..4], kind_digit(person.kind), person.index)
    }

    /// Returns code and name of the unit that captures.
    pub(crate) fn unit(&self) -> (&'static str, &'static str) {
        (self.unit_code, self.unit)
    }

    /// Returns the evidence of a record: two photos, and a video where speed was measured.
    pub(crate) fn evidence(&self, base: &Base) -> Vec<Evidence> {
        let pieces = if matches!(base.offence.code, "1636" | "1352A") { 3 } else { 2 };
        (1..=pieces)
            .map(|n| {
                let video = n == 3;
                let reference =
                    format!("zj://jg{}/{}/{n}.{}", self.region, base.number, if video { "mp4" } else { "jpg" });
                Evidence {
                    number: format!("{}-{n}", base.number),
                    video,
                    taken_at: base.occurred_at.plus(std::time::Duration::from_secs(n - 1)),
                    digest: hex::encode(digest::digest(&digest::SHA256, reference.as_bytes())),
                    reference,
                }
            })
            .collect()
    }

    fn decision(&self, id: RecordId) -> (String, u32) {
        let width = self.decision_width;
        let number =
            format!("{}{}{:0width$}{:02}", self.region, kind_digit(id.person.kind), id.person.index, id.ordinal);
        let check =
            number.chars().rev().zip(1..).map(|(c, weight)| c.to_digit(10).unwrap_or(0) * weight).sum::<u32>() % 10;
        (number, check)
    }
}

fn plan_of(id: RecordId) -> Option<Plan> {
    let PersonId { kind, index } = id.person;
    match kind {
        Kind::Cast if index == MANY_OWNER => {
            (1..=MANY).contains(&id.ordinal).then(|| plan("1039", i32::from(id.ordinal) / 4 + 3, Initial::Confirmed))
        }
        Kind::Cast => {
            let plans = PLANS.get(usize::try_from(index).ok()?)?;
            plans.get(usize::from(id.ordinal).checked_sub(1)?).map(|p| plan(p.code, p.days_ago, p.initial))
        }
        Kind::Magic if id.ordinal == 1 => magic_plan(index),
        Kind::Load if id.ordinal == 1 => {
            const CODES: [&str; 5] = ["1625", "1345", "1301", "1636", "1223"];
            let code = CODES.get(usize::try_from(index % 5).ok()?)?;
            Some(plan(code, 3 + i32::try_from(index % 8).ok()?, Initial::Confirmed))
        }
        Kind::Magic | Kind::Load => None,
    }
}

/// The record of a magic plate: the digits after `M` are operation, two of fault, copy (docs/sandbox/README.md).
fn magic_plan(index: u32) -> Option<Plan> {
    let (days_ago, initial) = match index / 10 {
        1 => (10, Initial::Captured),
        2 => (10, Initial::Disputed),
        3 => (10, Initial::Paid),
        10 => return None,
        11 => (300, Initial::Confirmed),
        _ => (10, Initial::Confirmed),
    };
    Some(plan("1625", days_ago, initial))
}

fn kind_digit(kind: Kind) -> u8 {
    match kind {
        Kind::Cast => 1,
        Kind::Magic => 2,
        Kind::Load => 3,
    }
}

fn mix(id: RecordId) -> u32 {
    let seed = id.person.index.wrapping_mul(31).wrapping_add(u32::from(id.ordinal)).wrapping_add(7);
    seed.wrapping_mul(2_654_435_761) >> 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    const DAY: Date = date(2026, 11, 22);

    #[test]
    fn numbers_round_trip_and_have_their_length() {
        for (city, length, decision) in [(CHANGSHA, 16, 15), (TAIYUAN, 20, 16)] {
            for (kind, index) in [(Kind::Cast, 0), (Kind::Magic, 9_999), (Kind::Load, people::LOAD_CITIZENS - 1)] {
                let id = RecordId { person: PersonId { kind, index }, ordinal: 1 };
                let base = city.record(id, DAY).expect("a record");
                assert_eq!(base.number.len(), length);
                assert_eq!(base.decision.0.len(), decision);
                assert_eq!(city.parse_number(&base.number), Some(id));
                assert_eq!(city.archive_number(id.person).len(), 12);
            }
            for number in ["", "4301004000000001", "430100100000001", "43010010000000é1"] {
                assert_eq!(city.parse_number(number), None);
            }
        }
    }

    #[test]
    fn the_cast_has_what_the_pages_say() {
        let count = |index| CHANGSHA.records(PersonId { kind: Kind::Cast, index }, DAY).len();
        assert_eq!((0..10).map(count).collect::<Vec<_>>(), [2, 2, 1, 1, 1, 0, 3, 2, 60, 1]);
        let first = CHANGSHA.records(PersonId { kind: Kind::Cast, index: 0 }, DAY);
        assert_eq!(first[0].initial, Initial::Captured, "the newest comes first");
        assert_eq!(beijing::day(first[1].occurred_at), date(2026, 11, 12));
    }

    #[test]
    fn texts_fit_the_columns_of_both_wires() {
        for city in [CHANGSHA, TAIYUAN] {
            let bytes = |text: &str| crate::charset::encode_gb18030(text).expect("text").len();
            assert!(city.places.iter().all(|place| bytes(place) <= 60));
            assert!(city.offences.iter().all(|o| bytes(o.text) <= 80 && bytes(o.rule) <= 120 && bytes(o.law) <= 120));
            assert!(bytes(city.unit) <= 40);
        }
    }
}
