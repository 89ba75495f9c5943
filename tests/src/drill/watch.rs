//! Watches the processes of a drill while they live: how much they take of what the machine has, and what they tell of their queues.
//!
//! The kernel is asked for the peak of the resident memory, the open files and the threads of every process, the process itself for its
//! tasks and its queues. What was seen is held against the caps of `CAPS`; what its metrics are labelled with is kept, so that it can
//! be searched for personal data.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use invariants::Bound;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Every so many looks the process itself is asked.
const ASK_EVERY: u32 = 5;
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// A page of metrics is far shorter.
const PAGE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What a process may take at any time: where it is read, under which name it is reported, and the cap.
const CAPS: [(Source, &str, u64); 8] = [
    (Source::Status("VmHWM"), "resident memory, KiB", 512 * 1024),
    (Source::Files, "open files", 512),
    (Source::Status("Threads"), "threads", 128),
    (Source::Metric("lastmile_runtime_tasks"), "tasks", 2_000),
    (Source::Metric("lastmile_rpc_connections_open"), "connections", 512),
    (Source::Metric("lastmile_rpc_server_calls_open"), "calls that wait for an answer", 512),
    (Source::Metric("lastmile_cases_in_hand"), "cases in hand", 64),
    (Source::Metric("lastmile_payments_in_hand"), "orders in hand", 64),
];
/// What every process of a drill runs.
const PROGRAM: &str = "lastmile";
/// The sandbox holds its journals in memory: what it takes grows with the drill, and is not ours to bound.
const UNBOUNDED: &str = "sandbox";

/// Where a number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// A line of `/proc/PID/status`.
    Status(&'static str),
    /// The entries of `/proc/PID/fd`.
    Files,
    /// The sum over the series of a gauge on `/metrics`.
    Metric(&'static str),
}

/// Who lives, by name: the process's number and its operations listener. Processes write themselves in and out.
#[derive(Clone, Debug, Default)]
pub struct Roster(Arc<Mutex<BTreeMap<String, (u32, String)>>>);

impl Roster {
    /// Who lives. While this is held nobody who is in it can be replaced by a stranger under the same number: whoever ends a process
    /// strikes it out first.
    pub(super) fn names(&self) -> MutexGuard<'_, BTreeMap<String, (u32, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// The most of each, by process.
    peaks: BTreeMap<(String, &'static str), u64>,
    /// The series of all metrics pages, without their values.
    series: BTreeSet<String>,
}

/// The watch. It ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    roster: Roster,
    seen: Arc<Mutex<Seen>>,
    over: Arc<(Mutex<bool>, std::sync::Condvar)>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    /// Begins to watch whoever is in its roster.
    pub fn start() -> std::io::Result<Self> {
        let (roster, seen) = (Roster::default(), Arc::<Mutex<Seen>>::default());
        let over = Arc::<(Mutex<bool>, std::sync::Condvar)>::default();
        let watching = (roster.clone(), seen.clone(), over.clone());
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            let (roster, seen, over) = watching;
            for look in 0_u32.. {
                look_at(&roster, &seen, look.is_multiple_of(ASK_EVERY));
                let ended = over.0.lock().unwrap_or_else(PoisonError::into_inner);
                let waited = over.1.wait_timeout_while(ended, LOOK_EVERY, |ended| !*ended);
                if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                    return;
                }
            }
        })?;
        Ok(Self { roster, seen, over, thread: Some(thread) })
    }

    /// Where processes write themselves in.
    pub fn roster(&self) -> Roster {
        self.roster.clone()
    }

    /// What was seen against the caps, for these processes. None when there is something that one of them was never seen to take or
    /// tell: then nothing is known.
    pub fn bounds(&self, names: &[&str]) -> Option<Vec<Bound>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bounds = Vec::new();
        for name in names.iter().filter(|name| **name != UNBOUNDED) {
            for (source, what, most) in CAPS {
                let peak = seen.peaks.get(&((*name).to_owned(), what));
                // A role tells of its own queues alone; what the kernel and every process tell must be there.
                let told_by_some = matches!(source, Source::Metric(metric) if metric != "lastmile_runtime_tasks");
                match peak {
                    Some(peak) => bounds.push(Bound { what: format!("{name}: {what}"), seen: *peak, most }),
                    None if told_by_some => {}
                    None => return None,
                }
            }
        }
        // Somebody has each queue.
        let has = |what: &str| bounds.iter().any(|bound| bound.what.ends_with(what));
        CAPS.iter().all(|(_, what, _)| has(what)).then_some(bounds)
    }

    /// The series of all metrics pages, one a line.
    pub fn series(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.series.iter().fold(String::new(), |text, line| text + line + "\n")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.over.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.over.1.notify_all();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// One look at everybody.
fn look_at(roster: &Roster, seen: &Mutex<Seen>, ask: bool) {
    let names: Vec<String> = roster.names().keys().cloned().collect();
    for name in names {
        let mut found = Vec::new();
        let operations = {
            let living = roster.names();
            let Some((process, operations)) = living.get(&name) else { continue };
            found.extend(of_kernel(*process, PROGRAM));
            operations.clone()
        };
        let page = if ask { page(&operations).unwrap_or_default() } else { String::new() };
        found.extend(of_page(&page));
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (what, number) in found {
            let peak = seen.peaks.entry((name.clone(), what)).or_default();
            *peak = number.max(*peak);
        }
        seen.series.extend(lines(&page).map(|(series, _)| series.to_owned()));
    }
}

/// What the kernel tells of a process that runs `program`; nothing of one that is ending, or that does not run it yet. Whoever begot a
/// process hears of its exec before the kernel has closed the files that it was begotten with; its name changes after.
fn of_kernel(process: u32, program: &str) -> Vec<(&'static str, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    if status.lines().next().and_then(|line| line.strip_prefix("Name:")).map(str::trim) != Some(program) {
        return Vec::new();
    }
    let number = |source| match source {
        Source::Status(name) => {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse().ok()
        }
        Source::Files => {
            let count = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?.count();
            u64::try_from(count).ok().filter(|count| *count > 0)
        }
        Source::Metric(_) => None,
    };
    CAPS.into_iter().filter_map(|(source, what, _)| Some((what, number(source)?))).collect()
}

/// What a process tells of itself.
fn of_page(page: &str) -> Vec<(&'static str, u64)> {
    let sum = |metric: &str| {
        let of_metric = lines(page).filter(|(series, _)| series.split('{').next() == Some(metric));
        let numbers: Vec<u64> = of_metric.filter_map(|(_, value)| value.parse().ok()).collect();
        (!numbers.is_empty()).then(|| numbers.iter().sum())
    };
    let told = CAPS.into_iter().filter_map(|(source, what, _)| match source {
        Source::Metric(metric) => Some((what, sum(metric)?)),
        Source::Status(_) | Source::Files => None,
    });
    told.collect()
}

/// The series of a metrics page with their values.
fn lines(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.lines().filter(|line| line.starts_with("lastmile_")).filter_map(|line| line.rsplit_once(' '))
}

/// The metrics page of an operations listener at "ip:port".
fn page(operations: &str) -> Option<String> {
    let address: SocketAddr = operations.parse().ok()?;
    let mut stream = TcpStream::connect_timeout(&address, ASK_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(ASK_TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(ASK_TIMEOUT)).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {operations}\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.take(PAGE_BYTES_MAX).read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_and_its_series_are_summed() {
        let page = "HTTP/1.1 200 OK\r\n\r\n# TYPE lastmile_runtime_tasks gauge\nlastmile_runtime_tasks 7\n\
            lastmile_rpc_connections_open{listener=\"public\"} 3\nlastmile_rpc_connections_open{listener=\"mesh\"} 4\n# EOF\n";
        let told: BTreeMap<_, _> = of_page(page).into_iter().collect();
        assert_eq!(told, BTreeMap::from([("tasks", 7), ("connections", 7)]));
    }

    #[test]
    fn the_kernel_tells_of_this_process_and_nothing_of_none() {
        let (this, name) = (std::process::id(), std::fs::read_to_string("/proc/self/comm").expect("is there"));
        let told: BTreeMap<_, _> = of_kernel(this, name.trim()).into_iter().collect();
        assert!(told.len() == 3 && told.values().all(|number| *number > 0), "{told:?}");
        assert_eq!((of_kernel(u32::MAX, name.trim()), of_kernel(this, "another")), (vec![], vec![]));
    }

    #[test]
    fn who_was_never_seen_is_not_called_bounded() {
        let watch = Watch::start().expect("starts");
        assert_eq!(watch.bounds(&["lastmile"]), None);
        assert_eq!(watch.bounds(&[]), None);
    }
}
