//! The ways through a case that together pass every crash point, each led by a citizen.

use anyhow::ensure;
use contracts::cases::v1::CaseState;
use invariants::Call;

use super::people::{CHANGSHA, City, Debtor, ENTRY_POINT, People, TAIYUAN, Watching, ended, state_name};

/// What the citizen does once the case waits for payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acts {
    /// Pays at once.
    Pays,
    /// Thinks it over, so that payments is asked meanwhile, and pays.
    PaysSlowly,
    /// Pays, while an officer takes the record back: the department will refuse.
    PaysInVain,
    /// Cancels.
    Cancels,
    /// Does nothing.
    Sleeps,
}

/// A way through a case.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Its name in reports.
    pub name: &'static str,
    acts: Acts,
    /// Asks once: when the answer is lost, the citizen hangs up and asks later what became of it.
    hangs_up: bool,
    /// What goes wrong for the next call: ("police" or "wechatpay", operation, fault), staged before the case is opened.
    before: &'static [(&'static str, &'static str, &'static str)],
    /// The same, staged before the citizen acts.
    meanwhile: &'static [(&'static str, &'static str, &'static str)],
    /// The magic citizen whose record misbehaves by itself; else one of many.
    magic: Option<u32>,
    /// Crash points that begin so are passed for certain, in this order.
    passes: &'static [&'static str],
}

const PLAIN: Way =
    Way { name: "paid", acts: Acts::Pays, hangs_up: false, before: &[], meanwhile: &[], magic: None, passes: &[] };

/// The usual way.
pub const PAID: Way = PLAIN;
/// The citizen changes their mind.
pub const CANCELLED: Way = Way { name: "cancelled", acts: Acts::Cancels, ..PLAIN };
/// The department refuses after the payment, and the money goes back.
pub const REFUSED: Way = Way { name: "the department refuses", acts: Acts::PaysInVain, ..PLAIN };

/// All ways.
pub const WAYS: &[Way] = &[
    Way {
        passes: &[
            "cases.open.",
            "cases.claim.",
            "cases.step.",
            "cases.lock.",
            "cases.order.",
            "payments.create.",
            "payments.callback.",
            "payments.book.",
            "cases.events.",
            "cases.settle.",
            "adapter.settle.",
            "cases.post.",
            "payments.post.",
            "payments.settle.",
            "payments.day.",
            "payments.resolve.",
            "payments.proposal.",
        ],
        ..PLAIN
    },
    Way {
        name: "thought over, the callback is lost",
        acts: Acts::PaysSlowly,
        meanwhile: &[("wechatpay", "notify", "lost")],
        passes: &["cases.refresh.", "payments.query.", "payments.work."],
        ..PLAIN
    },
    Way {
        name: "the order's answer is lost",
        before: &[("wechatpay", "order", "drop_after")],
        passes: &["cases.find_order."],
        ..PLAIN
    },
    Way { name: "the lock's answer is lost", before: &[("police", "lock", "drop_after")], ..PLAIN },
    Way { passes: &["cases.cancel.", "cases.close.", "payments.close.", "cases.release."], ..CANCELLED },
    Way {
        name: "cancelled, the channel's answer is lost",
        acts: Acts::Cancels,
        meanwhile: &[("wechatpay", "close", "drop_after"), ("police", "release", "drop_after")],
        ..PLAIN
    },
    Way { passes: &["cases.refund.", "payments.refund.", "cases.find_refund."], ..REFUSED },
    Way {
        name: "the department refuses, the channel cannot give back, clerks decide",
        acts: Acts::PaysInVain,
        meanwhile: &[("wechatpay", "refund", "closed")],
        passes: &["cases.resolve."],
        ..PLAIN
    },
    Way {
        name: "the settlement's answer is lost",
        meanwhile: &[("police", "pay", "drop_after")],
        passes: &["cases.inquire."],
        ..PLAIN
    },
    Way { name: "the settlement's answer is cut", meanwhile: &[("police", "pay", "garble_cut")], ..PLAIN },
    Way { name: "the settlement is lost", meanwhile: &[("police", "pay", "drop_before")], ..PLAIN },
    Way { name: "the department is closed for a moment", meanwhile: &[("police", "pay", "closed")], ..PLAIN },
    Way { name: "the callback is late", meanwhile: &[("wechatpay", "notify", "late")], ..PLAIN },
    Way { name: "the channel makes the order late", before: &[("wechatpay", "order", "late")], ..PLAIN },
    Way { name: "the callback comes twice", meanwhile: &[("wechatpay", "notify", "doubled")], ..PLAIN },
    Way { name: "the callback is forged first", meanwhile: &[("wechatpay", "notify", "forged")], ..PLAIN },
    Way { name: "asked once", hangs_up: true, passes: &["cases.open."], ..PLAIN },
];

/// Those that take the longest: nobody pays until the time for it is over; the department never decides, so that clerks must.
pub const LONG: [Way; 2] = [
    Way { name: "never paid", acts: Acts::Sleeps, ..PLAIN },
    Way { name: "in process for ever", magic: Some(120), ..PLAIN },
];

/// The ways that lead to a crash point; all of them for a point that nobody has said anything about.
pub fn ways_to(point: &str) -> Vec<&'static Way> {
    let leads = |way: &&Way| way.passes.iter().any(|prefix| point.starts_with(prefix));
    let leading: Vec<_> = WAYS.iter().filter(leads).collect();
    if leading.is_empty() { WAYS.iter().collect() } else { leading }
}

/// Where a crash point lies: on which way, and how far along. None for a point that nobody has said anything about.
pub fn place_of(point: &str) -> Option<(usize, usize)> {
    let places = WAYS.iter().enumerate().filter_map(|(index, way)| {
        way.passes.iter().position(|prefix| point.starts_with(prefix)).map(|place| (index, place))
    });
    places.min()
}

impl Way {
    /// Leads case number `number` to its end, whatever happens to the servers meanwhile.
    pub async fn live(&self, people: &People, number: u32) -> anyhow::Result<Call> {
        if let Some(magic) = self.magic {
            let debtor = people.magic_debtor(magic, CHANGSHA).await?;
            return self.lead(people, &debtor, &format!("r-{number}")).await;
        }
        let city = if number.is_multiple_of(2) { CHANGSHA } else { TAIYUAN };
        let debtor = people.debtor(number / 2, city).await?;
        self.lead(people, &debtor, &format!("r-{number}")).await
    }

    /// Leads the case of a debtor to its end.
    pub async fn lead(&self, people: &People, debtor: &Debtor, request_id: &str) -> anyhow::Result<Call> {
        stage(people, debtor.city, self.before).await?;
        let opened = match self.hangs_up {
            false => people.open(debtor, request_id).await?,
            true => match people.open_once(debtor, request_id).await? {
                Ok(opened) => opened,
                Err(never_happened) => return Ok(never_happened),
            },
        };
        people.pry(debtor, &opened.case_id, request_id).await?;
        let (mut acted, mut watching) = (false, Watching::default());
        let deadline = people.deadline();
        let mut told = None;
        let last = loop {
            let case = match told.take() {
                Some(case) => case,
                None => people.get(debtor, &opened.case_id).await?,
            };
            if ended(case.state()) {
                break case;
            }
            if case.state() == CaseState::WaitingPayment && !acted {
                // What a stream tells has no pay sheet.
                let case = people.get(debtor, &opened.case_id).await?;
                if case.pay_sheet.is_some() {
                    acted = true;
                    stage(people, debtor.city, self.meanwhile).await?;
                    self.act(people, debtor, &case).await?;
                }
            }
            ensure!(tokio::time::Instant::now() < deadline, "{}: {} does not end: {case:?}", self.name, case.case_id);
            told = people.watch(debtor, &opened.case_id, &mut watching).await?;
        };
        // The answer to the same request is the same for ever.
        let again = people.open(debtor, request_id).await?;
        Ok(Call {
            caller: ENTRY_POINT.to_owned(),
            request_id: request_id.to_owned(),
            answers: vec![opened.case_id, again.case_id],
            ended_as: Some(state_name(last.state())),
            ..Call::default()
        })
    }

    async fn act(&self, people: &People, debtor: &Debtor, case: &contracts::cases::v1::Case) -> anyhow::Result<()> {
        const THINKS_PAUSES: u32 = 20;
        match self.acts {
            Acts::Pays => people.pay(case).await,
            Acts::PaysSlowly => {
                for _ in 0..THINKS_PAUSES {
                    people.pause().await;
                }
                people.pay(case).await
            }
            Acts::PaysInVain => {
                people.outside.officer(debtor.city.region, &debtor.bill.bill_no, "dispute").await?;
                people.pay(case).await
            }
            Acts::Cancels => people.cancel(debtor, &case.case_id).await,
            Acts::Sleeps => Ok(()),
        }
    }
}

async fn stage(people: &People, city: City, faults: &[(&str, &str, &str)]) -> anyhow::Result<()> {
    for (system, operation, fault) in faults {
        let system = if *system == "police" { city.system } else { system };
        people.outside.stage(system, operation, fault).await?;
    }
    Ok(())
}
