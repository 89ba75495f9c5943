//! What each city fines, where its cameras stand and which units run them. The sandbox's own tariff: the codes are those of
//! GA/T 16.31, the sums and points are plausible and no source for law.

/// One kind of violation in one city.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offence {
    /// Violation code.
    pub code: &'static str,
    /// Its text.
    pub text: &'static str,
    /// Fine, in fen.
    pub fine_minor: i64,
    /// Points.
    pub points: u32,
    /// The rule that was broken.
    pub rule: &'static str,
    /// The law that the penalty rests on.
    pub law: &'static str,
}

const RULE: &str = "《中华人民共和国道路交通安全法》第三十八条";
const PARKING: &str = "《中华人民共和国道路交通安全法》第五十六条";
const SPEED: &str = "《中华人民共和国道路交通安全法》第四十二条";
const LAW: &str = "《中华人民共和国道路交通安全法》第九十条";

const fn offence(code: &'static str, text: &'static str, fine_yuan: i64, points: u32, rule: &'static str) -> Offence {
    Offence { code, text, fine_minor: fine_yuan * 100, points, rule, law: LAW }
}

pub(super) const CHANGSHA: [Offence; 7] = [
    offence("1625", "驾驶机动车违反道路交通信号灯通行的", 200, 6, RULE),
    offence("1039", "机动车违反规定停放、临时停车，妨碍其它车辆、行人通行的", 150, 0, PARKING),
    offence("1345", "机动车违反禁止标线指示的", 100, 1, RULE),
    offence("1636", "驾驶机动车超过规定时速百分之二十以上未达到百分之五十的", 200, 6, SPEED),
    offence("1352A", "驾驶机动车超过规定时速百分之十以上未达到百分之二十的", 50, 1, SPEED),
    offence("1301", "机动车逆向行驶的", 200, 3, RULE),
    offence("1223", "驾驶时拨打接听手持电话的", 50, 3, RULE),
];

pub(super) const TAIYUAN: [Offence; 7] = [
    offence("1625", "驾驶机动车违反道路交通信号灯通行的", 200, 6, RULE),
    offence("1039", "机动车违反规定停放、临时停车，妨碍其它车辆、行人通行的", 200, 0, PARKING),
    offence("1345", "机动车违反禁止标线指示的", 150, 1, RULE),
    offence("1636", "驾驶机动车超过规定时速百分之二十以上未达到百分之五十的", 150, 6, SPEED),
    offence("1352A", "驾驶机动车超过规定时速百分之十以上未达到百分之二十的", 50, 1, SPEED),
    offence("1301", "机动车逆向行驶的", 200, 3, RULE),
    offence("1223", "驾驶时拨打接听手持电话的", 100, 3, RULE),
];

pub(super) const CHANGSHA_PLACES: [&str; 6] = [
    "五一大道与芙蓉中路交叉口",
    "韶山北路与人民东路交叉口",
    "岳麓大道与金星北路交叉口",
    "湘江中路杜甫江阁段",
    "万家丽中路与营盘东路交叉口",
    "猴子石大桥由西往东",
];

pub(super) const TAIYUAN_PLACES: [&str; 6] = [
    "迎泽大街与解放路交叉口",
    "并州北路与双塔西街交叉口",
    "滨河东路南内环桥段",
    "长风街与坞城路交叉口",
    "府西街与新建路交叉口",
    "漪汾桥由东往西",
];

/// Returns the late fee in fen: 3 % of the fine for each day beyond the fifteenth after the decision, never more than the fine.
pub(crate) fn late_fee_minor(fine_minor: i64, days_since_decision: i64) -> i64 {
    const FREE_DAYS: i64 = 15;
    let days = days_since_decision.saturating_sub(FREE_DAYS).max(0);
    (fine_minor.saturating_mul(3).saturating_mul(days) / 100).min(fine_minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_late_fee_starts_on_the_sixteenth_day_and_stops_at_the_fine() {
        for (days, fee) in [(0, 0), (15, 0), (16, 600), (17, 1_200), (48, 19_800), (49, 20_000), (4_000, 20_000)] {
            assert_eq!(late_fee_minor(20_000, days), fee, "{days} days");
        }
        assert_eq!(late_fee_minor(0, 400), 0);
    }
}
