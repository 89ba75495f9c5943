//! The storm: what the seed does to the network, the hosts and the world outside, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use runtime::crash::Plan;
use sandbox::{Fault, Operation, Staged};

use crate::hosts::{Ground, Host, Machine};
use crate::record::Record;

/// How long the storm lasts; then everything heals.
pub(crate) const STORM: Duration = Duration::from_secs(100);
/// Before it, the hosts find each other.
pub(crate) const CALM: Duration = Duration::from_secs(3);
/// Messages take this long at most in good weather.
pub(crate) const LATENCY_MAX: Duration = Duration::from_millis(20);
/// Calls that a department refuses while it is closed.
const CLOSED_CALLS: u32 = 60;
/// Who can be cut off from whom, besides the hosts from each other.
const OUTSIDE: &str = "citizens";

/// One thing that happens.
#[derive(Clone, Debug)]
enum Act {
    Crash(Host),
    Start(Host),
    /// The host dies at its next hits of a crash point.
    Arm(Host, Plan),
    Cut(&'static str, &'static str),
    /// Only what goes from the first to the second is lost.
    CutOneWay(&'static str, &'static str),
    Mend(&'static str, &'static str),
    /// Messages wait until the link is released.
    Hold(&'static str, &'static str),
    Release(&'static str, &'static str),
    Latency(Duration),
    /// Chance of a link to break at each message; broken ones mend by chance as well.
    Loss(f64),
    Stage(Staged),
}

/// What is still to come, in order.
pub(crate) struct Weather {
    acts: BTreeMap<(Duration, u32), Act>,
    number: u32,
    random: StdRng,
    record: Record,
    pub(crate) crashes: u32,
    pub(crate) cuts: u32,
    pub(crate) faults: u32,
    healed: bool,
}

impl Weather {
    /// Draws a storm.
    pub(crate) fn drawn(seed: u64, record: &Record) -> Self {
        let mut weather = Self {
            acts: BTreeMap::new(),
            number: 0,
            random: StdRng::seed_from_u64(seed ^ 0x0057_0434),
            record: record.clone(),
            crashes: 0,
            cuts: 0,
            faults: 0,
            healed: false,
        };
        weather.hosts();
        weather.adapters();
        weather.network();
        weather.outside();
        weather
    }

    /// Crashes at any moment, and at the moments that the code names.
    fn hosts(&mut self) {
        for _ in 0..self.random.random_range(3..7) {
            let host = self.host();
            let at = self.moment();
            let back = at + self.millis(100, 6_000);
            self.put(at, Act::Crash(host));
            self.put(back, Act::Start(host));
        }
        for _ in 0..self.random.random_range(15..30) {
            let host =
                self.one(&[Host::Payments, Host::Payments, Host::Cases, Host::Cases, Host::Changsha, Host::Taiyuan]);
            let point = self.one(host.crash_points()).to_owned();
            let hit = self.random.random_range(1..3);
            let at = self.moment();
            self.put(at, Act::Arm(host, Plan { point, hit }));
        }
    }

    /// Settlements are lost on the way, so that an inquiry finds nothing before anybody may believe it; and an adapter dies around one,
    /// early enough that what follows is felt: see [`Weather::close`].
    fn adapters(&mut self) {
        for (host, system) in [(Host::Changsha, "police-430100"), (Host::Taiyuan, "police-140100")] {
            for second in (0..60).step_by(12) {
                let at = CALM + Duration::from_secs(second) + self.millis(0, 4_000);
                let (system, operation, fault) = (system.to_owned(), Operation::Pay, Fault::DropBefore);
                self.put(at, Act::Stage(Staged { system, operation, fault, times: 1, delay: None }));
            }
            for second in (8..50).step_by(7) {
                let at = CALM + Duration::from_secs(second) + self.millis(0, 2_000);
                self.put(at, Act::Arm(host, Plan { point: "adapter.settle.after_reply".to_owned(), hit: 1 }));
            }
        }
    }

    /// The department closes when its adapter has died: whether it took the payment nobody is told for longer than there is time to
    /// deliver. Whoever takes the lost answer for a "no" gives the money back.
    fn close(&mut self, host: Host) {
        let system = match host {
            Host::Changsha => "police-430100",
            Host::Taiyuan => "police-140100",
            _ => return,
        };
        for operation in [Operation::Pay, Operation::Inquire] {
            let (system, fault) = (system.to_owned(), Fault::Closed);
            self.put(Duration::ZERO, Act::Stage(Staged { system, operation, fault, times: CLOSED_CALLS, delay: None }));
        }
    }

    fn network(&mut self) {
        for _ in 0..self.random.random_range(3..7) {
            let (a, b) = self.pair();
            let at = self.moment();
            let back = at + self.millis(500, 25_000);
            let (act, end) = match self.random.random_range(0..4) {
                0 => (Act::CutOneWay(a, b), Act::Mend(a, b)),
                1 => (Act::Hold(a, b), Act::Release(a, b)),
                _ => (Act::Cut(a, b), Act::Mend(a, b)),
            };
            self.put(at, act);
            self.put(back, end);
        }
        for _ in 0..2 {
            let at = self.moment();
            let back = at + self.millis(2_000, 15_000);
            let slow = self.millis(100, 1_500);
            self.put(at, Act::Latency(slow));
            self.put(back, Act::Latency(LATENCY_MAX));
            let at = self.moment();
            let back = at + self.millis(2_000, 15_000);
            let rate = self.random.random_range(0.001..0.02);
            self.put(at, Act::Loss(rate));
            self.put(back, Act::Loss(0.0));
        }
    }

    /// Departments and channel that misbehave. What does not exist for an operation is drawn again.
    fn outside(&mut self) {
        const POLICE: [Fault; 14] = [
            Fault::ErrorAfter,
            Fault::ErrorBefore,
            Fault::Busy,
            Fault::Closed,
            Fault::Slow,
            Fault::Late,
            Fault::Hang,
            Fault::DropAfter,
            Fault::DropBefore,
            Fault::GarbleValue,
            Fault::GarbleCut,
            Fault::TooLong,
            Fault::Duplicate,
            Fault::Fault,
        ];
        const CHANNEL: [Fault; 13] = [
            Fault::ErrorAfter,
            Fault::ErrorBefore,
            Fault::Busy,
            Fault::Slow,
            Fault::Late,
            Fault::Hang,
            Fault::DropAfter,
            Fault::DropBefore,
            Fault::GarbleCut,
            Fault::BadSignature,
            Fault::Lost,
            Fault::Doubled,
            Fault::Forged,
        ];
        use Operation as O;
        let police = [O::List, O::Detail, O::Lock, O::Release, O::Pay, O::Pay, O::Inquire];
        let channel = [O::Order, O::Query, O::Close, O::Refund, O::RefundQuery, O::Notify, O::Notify];
        let board = sandbox::Faults::default();
        let mut left = self.random.random_range(30..50);
        while left > 0 {
            let at = self.moment();
            let times = self.random.random_range(1..3);
            let (system, operation, fault) = match self.random.random_range(0..3) {
                0 => ("police-430100", self.one(&police), self.one(&POLICE)),
                1 => ("police-140100", self.one(&police), self.one(&POLICE)),
                _ => ("wechatpay", self.one(&channel), self.one(&CHANNEL)),
            };
            let staged = Staged { system: system.to_owned(), operation, fault, times, delay: None };
            if board.stage(staged.clone()).is_ok() {
                left -= 1;
                self.put(at, Act::Stage(staged));
            }
        }
    }

    // === as time goes by ===

    /// Does what is due; after the storm, mends everything once.
    pub(crate) fn blow(&mut self, sim: &mut turmoil::Sim<'_>, machines: &[Machine], ground: &Ground) {
        self.bury(sim, machines);
        while let Some(entry) = self.acts.first_entry().filter(|entry| entry.key().0 <= sim.elapsed()) {
            let act = entry.remove();
            self.act(act, sim, machines, ground);
        }
        if !self.healed && sim.elapsed() >= CALM + STORM {
            self.heal(sim, machines, ground);
        }
    }

    pub(crate) fn is_healed(&self) -> bool {
        self.healed
    }

    /// A host that has died at a crash point is gone, and comes back some time later.
    fn bury(&mut self, sim: &mut turmoil::Sim<'_>, machines: &[Machine]) {
        for machine in machines.iter().filter(|machine| machine.points.dead()) {
            let host = machine.host;
            if sim.is_host_running(host.name()) {
                sim.crash(host.name());
                self.crashes += 1;
                if !self.healed {
                    self.close(host);
                }
                let back = if self.healed { sim.elapsed() } else { sim.elapsed() + self.millis(50, 4_000) };
                self.put(back, Act::Start(host));
            }
        }
    }

    fn act(&mut self, act: Act, sim: &mut turmoil::Sim<'_>, machines: &[Machine], ground: &Ground) {
        self.record.note(lastmile_tests::simulation::EPOCH.plus(sim.elapsed()), format!("weather {act:?}"));
        let machine = |host| machines.iter().find(|machine| machine.host == host);
        match act {
            Act::Crash(host) if sim.is_host_running(host.name()) => {
                sim.crash(host.name());
                self.crashes += 1;
            }
            Act::Start(host) if !sim.is_host_running(host.name()) => {
                if let Some(machine) = machine(host) {
                    machine.points.revive();
                }
                sim.bounce(host.name());
            }
            Act::Crash(_) | Act::Start(_) => {}
            Act::Arm(host, plan) => {
                if let Some(machine) = machine(host).filter(|machine| !machine.points.dead()) {
                    machine.points.arm(plan);
                }
            }
            Act::Cut(a, b) => {
                sim.partition(a, b);
                self.cuts += 1;
            }
            Act::CutOneWay(a, b) => {
                sim.partition_oneway(a, b);
                self.cuts += 1;
            }
            Act::Mend(a, b) => sim.repair(a, b),
            Act::Hold(a, b) => {
                sim.hold(a, b);
                self.cuts += 1;
            }
            Act::Release(a, b) => sim.release(a, b),
            Act::Latency(most) => sim.set_max_message_latency(most),
            Act::Loss(rate) => sim.set_fail_rate(rate),
            Act::Stage(staged) => ground.faults(|board| {
                self.faults += u32::from(board.stage(staged).is_ok());
            }),
        }
    }

    /// From here on everything works, and what died comes back.
    fn heal(&mut self, sim: &mut turmoil::Sim<'_>, machines: &[Machine], ground: &Ground) {
        self.healed = true;
        self.acts.clear();
        sim.set_fail_rate(0.0);
        sim.set_max_message_latency(LATENCY_MAX);
        let names = places();
        for (index, a) in names.iter().enumerate() {
            for b in names.iter().skip(index + 1) {
                sim.release(*a, *b);
                sim.repair(*a, *b);
            }
        }
        ground.faults(sandbox::Faults::clear);
        for machine in machines {
            machine.points.revive();
            if !sim.is_host_running(machine.host.name()) {
                sim.bounce(machine.host.name());
            }
        }
        self.record.note(lastmile_tests::simulation::EPOCH.plus(sim.elapsed()), "weather heals");
    }

    // === drawing ===

    fn put(&mut self, at: Duration, act: Act) {
        self.number += 1;
        self.acts.insert((at, self.number), act);
    }

    fn moment(&mut self) -> Duration {
        CALM + self.millis(0, u64::try_from(STORM.as_millis()).unwrap_or(0))
    }

    fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.random.random_range(low..high))
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.random_range(0..of.len())]
    }

    /// Those that keep cases and money twice as often as others.
    fn host(&mut self) -> Host {
        use Host as H;
        self.one(&[
            H::Sandbox,
            H::Identity,
            H::Catalog,
            H::Payments,
            H::Payments,
            H::Changsha,
            H::Taiyuan,
            H::Cases,
            H::Cases,
            H::Gateway,
        ])
    }

    fn pair(&mut self) -> (&'static str, &'static str) {
        let names = places();
        let a = self.one(&names);
        let others: Vec<_> = names.into_iter().filter(|name| *name != a).collect();
        (a, self.one(&others))
    }
}

fn places() -> Vec<&'static str> {
    Host::ALL.map(Host::name).into_iter().chain([OUTSIDE]).collect()
}
