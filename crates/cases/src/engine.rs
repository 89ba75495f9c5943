//! What holds the parts together: a citizen's, clerk's or worker's event becomes one transaction.

use std::sync::Arc;

use contracts::ids::{CaseId, TaskId};
use rpc::digest;
use runtime::{Context, Timestamp, telemetry};
use store::lease::{Lease, Leases};
use store::{Db, Tx};

use crate::caller::{Citizen, Clerk};
use crate::config::Config;
use crate::convert::{Ask, Ruling};
use crate::domain::{self, Case, Event, Policy, Transition};
use crate::error::Error;
use crate::hints::Hints;
use crate::metrics::Metrics;
use crate::peers::{INPUT, PAYER, Peers, Routes};
use crate::repo::{self, About, File, Hand};
use crate::seal::Sealer;

/// How often a transaction is run again because another writer moved the case in between.
const RACES_MAX: usize = 16;
const OPEN: &str = "OpenCase";
const CANCEL: &str = "CancelCase";
const RESOLVE: &str = "ResolveTask";

/// The machine room of the service.
pub(crate) struct Engine {
    pub(crate) db: Db,
    pub(crate) context: Context,
    pub(crate) config: Config,
    pub(crate) policy: Policy,
    pub(crate) leases: Leases,
    pub(crate) peers: Arc<Peers>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) hints: Hints,
    pub(crate) metrics: Metrics,
}

/// A case before and after an event.
pub(crate) struct Moved {
    pub(crate) before: File,
    pub(crate) after: Transition,
    /// The case that returns money which came too late, opened by the same transaction.
    pub(crate) late: Option<(CaseId, Transition)>,
}

/// What a leased case looks like after a worker's event.
pub(crate) enum Standing {
    /// It is due again at once, and the worker still has it.
    Mine(Box<File>),
    /// It was given back.
    Released,
    /// Another worker has it; what this one brought counts for nothing.
    Lost,
}

/// What the citizen asks, with what identifies a repetition.
pub(crate) struct Request<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) digest: [u8; 32],
}

impl<'a> Request<'a> {
    /// Binds a request to who sent it: another citizen's request under the same id is another request.
    pub(crate) fn new(request_id: &'a str, sender: &str, message: [u8; 32]) -> Self {
        Self { request_id, digest: digest::sha256_parts(&[sender.as_bytes(), &message]) }
    }
}

impl Engine {
    fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    fn point(&self, name: &'static str) {
        self.context.crash.point(name);
    }

    /// Opens a case and returns the encoded answer: the same bytes for every repetition of the request.
    ///
    /// The case grant is fetched before anything is stored: a case that is accepted never needs the citizen's token again. A grant
    /// whose case then does not come to be opens nothing, since it names that case.
    pub(crate) async fn open(
        &self,
        citizen: &Citizen,
        request: Request<'_>,
        ask: Ask,
        encode: impl Fn(&File) -> Vec<u8> + Sync,
    ) -> Result<Vec<u8>, Error> {
        let scope = citizen.entry_point.as_str();
        let mut reader = self.db.read().await?;
        let known = repo::answered(&mut reader, scope, OPEN, request.request_id, &request.digest).await?;
        drop(reader);
        if let Some(answer) = known {
            return Ok(answer);
        }
        let id = CaseId::new(self.context.ids.uuid().as_u128());
        let about = self.about(id, citizen, &ask).await?;
        let now = self.now();
        let opened = domain::open(id, ask.amount, &self.policy, now);
        let answer = encode(&fresh(&about, &opened.case, now));
        self.point("cases.open.before_commit");
        let stored = self.store_opened(scope, &request, &about, &opened, &answer, now).await;
        match stored {
            Ok(()) => {
                self.point("cases.open.after_commit");
                self.metrics.moved(&opened);
                self.hints.due();
                Ok(answer)
            }
            // The same request was faster, on another connection: its answer is the answer. Its own lock is no conflict either.
            Err(error) if matches!(error, Error::BillInProgress) || error.conflict().is_some() => {
                let mut reader = self.db.read().await?;
                let first = repo::answered(&mut reader, scope, OPEN, request.request_id, &request.digest).await?;
                first.ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn store_opened(
        &self,
        scope: &str,
        request: &Request<'_>,
        about: &About,
        opened: &Transition,
        answer: &[u8],
        now: Timestamp,
    ) -> Result<(), Error> {
        self.db
            .transact(async |mut tx: Tx| {
                repo::keep_answer(&mut tx, scope, OPEN, request.request_id, &request.digest, answer, now).await?;
                repo::insert(&mut tx, about, opened, now).await?;
                repo::append(&mut tx, &about.entry_point, opened.case.id, &opened.lines, now).await
            })
            .await
    }

    /// Collects what the case is about: the route from the catalogue, the grant from identity, the personal parts sealed.
    async fn about(&self, id: CaseId, citizen: &Citizen, ask: &Ask) -> Result<About, Error> {
        let route = self.routes.find(&ask.item, &ask.region, &citizen.entry_point).await?.ok_or(Error::NotPayable)?;
        let payable = route.depth >= contracts::common::v1::Depth::Pay as i32 && !route.payee_id.is_empty();
        if !payable || route.currency != ask.amount.currency().as_str() {
            return Err(Error::NotPayable);
        }
        if i32::from(citizen.level) < route.level_min {
            return Err(Error::NotAllowed);
        }
        if !citizen.addresses(&route.profile) {
            return Err(Error::GrantRefused { profile: route.profile });
        }
        let mut reader = self.db.read().await?;
        let locked = repo::bill_is_locked(&mut reader, &route.profile, &ask.bill_no).await?;
        drop(reader);
        if locked {
            return Err(Error::BillInProgress);
        }
        let title = self.peers.title(&ask.item, &ask.region, &citizen.entry_point).await;
        self.point("cases.open.before_grant");
        let until = self.now().plus(self.config.times.grant_for());
        let grant = self.peers.case_grant(id, citizen, &route.profile, &ask.item, until).await?;
        self.point("cases.open.after_grant");
        let seal = |column, plain: &Option<runtime::secret::Pii<Vec<u8>>>| {
            plain.as_ref().map(|plain| self.sealer.seal(id, column, plain.expose())).transpose()
        };
        Ok(About {
            entry_point: citizen.entry_point.clone(),
            request_id: ask.request_id.clone(),
            owner: citizen.owner.clone(),
            item: ask.item.clone(),
            region: ask.region.clone(),
            profile: route.profile,
            profile_region: if route.profile_region.is_empty() { ask.region.clone() } else { route.profile_region },
            bill_no: ask.bill_no.clone(),
            record_digest: ask.record_digest.clone(),
            channel: ask.channel.clone(),
            trade_type: ask.trade_type,
            payee_id: route.payee_id,
            title,
            linked: None,
            input_sealed: seal(INPUT, &ask.input)?,
            payer_sealed: seal(PAYER, &ask.payer)?,
            grant: Some(grant),
            trace: telemetry::kept(),
        })
    }

    /// Cancels a case of the citizen, as far as it goes, and returns the encoded answer.
    pub(crate) async fn cancel(
        &self,
        citizen: &Citizen,
        request: Request<'_>,
        id: CaseId,
        encode: impl Fn(&File) -> Vec<u8> + Sync,
    ) -> Result<Vec<u8>, Error> {
        let scope = citizen.entry_point.as_str();
        for _ in 0..RACES_MAX {
            let done = self
                .db
                .transact(async |mut tx: Tx| {
                    let known = repo::answered(&mut tx, scope, CANCEL, request.request_id, &request.digest).await?;
                    if let Some(answer) = known {
                        return Ok((answer, None));
                    }
                    let file = repo::load(&mut tx, id).await?.filter(|file| file.about.owner == citizen.owner);
                    let file = file.ok_or(Error::CaseNotFound)?;
                    let now = self.now();
                    let moved = self.move_case(&mut tx, file, &Event::Cancel, now).await?;
                    let answer = encode(&moved.file(now));
                    repo::keep_answer(&mut tx, scope, CANCEL, request.request_id, &request.digest, &answer, now)
                        .await?;
                    self.store(&mut tx, &moved, Hand::Free, now).await?;
                    self.point("cases.cancel.before_commit");
                    Ok((answer, Some(moved)))
                })
                .await;
            match done {
                Ok((answer, moved)) => {
                    self.point("cases.cancel.after_commit");
                    self.announce(moved.as_slice());
                    return Ok(answer);
                }
                Err(error) if may_run_again(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Raced)
    }

    /// Applies a clerk's decision and returns the encoded answer. `encode` gets the task and whether a second clerk is needed.
    pub(crate) async fn resolve(
        &self,
        clerk: &Clerk,
        request: Request<'_>,
        ruling: &Ruling,
        encode: impl Fn(&repo::TaskRow, bool) -> Vec<u8> + Sync,
    ) -> Result<Vec<u8>, Error> {
        let scope = clerk.scope();
        let event = Event::Decide {
            decision: ruling.decision,
            clerk: clerk.subject.clone(),
            evidence: ruling.evidence.clone(),
        };
        for _ in 0..RACES_MAX {
            let done = self
                .db
                .transact(async |mut tx: Tx| {
                    let known = repo::answered(&mut tx, &scope, RESOLVE, request.request_id, &request.digest).await?;
                    if let Some(answer) = known {
                        return Ok((answer, None));
                    }
                    let task = repo::task(&mut tx, ruling.task).await?.filter(|task| clerk.covers(&task.profile));
                    let task = task.ok_or(Error::TaskNotFound)?;
                    if task.resolved {
                        return Err(Error::Refused(domain::Refused::TaskNotOpen, None));
                    }
                    let file = repo::load(&mut tx, task.case).await?.ok_or(Error::Corrupt("case_id"))?;
                    let now = self.now();
                    let moved = self.move_case(&mut tx, file, &event, now).await?;
                    let second = moved.after.needs_second_clerk;
                    let answer = encode(&task.after(&moved.after), second);
                    repo::keep_answer(&mut tx, &scope, RESOLVE, request.request_id, &request.digest, &answer, now)
                        .await?;
                    self.store(&mut tx, &moved, Hand::Free, now).await?;
                    self.point("cases.resolve.before_commit");
                    Ok((answer, Some(moved)))
                })
                .await;
            match done {
                Ok((answer, moved)) => {
                    self.point("cases.resolve.after_commit");
                    self.announce(moved.as_slice());
                    return Ok(answer);
                }
                Err(error) if may_run_again(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Raced)
    }

    /// Applies what a worker learned to the case that it has leased, whatever else happened to the case meanwhile.
    pub(crate) async fn advance(&self, lease: &Lease, id: CaseId, event: &Event) -> Result<Standing, Error> {
        self.commit(lease, id, event, false).await
    }

    /// Notes what a call will need to be known by, just before it leaves. The worker keeps the case, due or not.
    pub(crate) async fn note(&self, lease: &Lease, id: CaseId) -> Result<Standing, Error> {
        self.commit(lease, id, &Event::Begin, true).await
    }

    async fn commit(&self, lease: &Lease, id: CaseId, event: &Event, keeps: bool) -> Result<Standing, Error> {
        for _ in 0..RACES_MAX {
            let done = self
                .db
                .transact(async |mut tx: Tx| {
                    let file = repo::load(&mut tx, id).await?.ok_or(Error::Corrupt("case_id"))?;
                    if !file.is_leased_by(lease) {
                        return Ok::<_, Error>(None);
                    }
                    let now = self.now();
                    let moved = self.move_case(&mut tx, file, event, now).await?;
                    let due = keeps || moved.after.case.due_at().is_some_and(|at| at <= now);
                    let hand = if due {
                        Hand::Keeps(lease, now.plus(self.config.worker.lease.get()))
                    } else {
                        Hand::GivesBack(lease)
                    };
                    self.store(&mut tx, &moved, hand, now).await?;
                    self.point("cases.step.before_commit");
                    Ok(Some((moved, due, now)))
                })
                .await;
            match done {
                Ok(None) => return Ok(Standing::Lost),
                Ok(Some((moved, due, now))) => {
                    self.point("cases.step.after_commit");
                    self.announce(std::slice::from_ref(&moved));
                    let file = moved.file(now);
                    return Ok(if due { Standing::Mine(Box::new(file)) } else { Standing::Released });
                }
                Err(error) if error.is_raced() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Raced)
    }

    /// Works out what an event makes of a case. Nothing is written yet.
    pub(crate) async fn move_case(
        &self,
        tx: &mut Tx,
        mut before: File,
        event: &Event,
        now: Timestamp,
    ) -> Result<Moved, Error> {
        repo::attach_task(tx, &mut before).await?;
        let mut after = domain::apply(&before.case, event, &self.policy, now)
            .map_err(|refused| Error::Refused(refused, before.case.step))?;
        if let Some(task) = &mut after.case.task {
            task.id.get_or_insert_with(|| TaskId::new(self.context.ids.uuid().as_u128()));
        }
        let late = after.late_money.then(|| {
            let id = CaseId::new(self.context.ids.uuid().as_u128());
            (id, domain::open_late_money(id, &after.case, &self.policy, now))
        });
        Ok(Moved { before, after, late })
    }

    /// Writes what an event made of a case, and opens the case that returns late money.
    pub(crate) async fn store(&self, tx: &mut Tx, moved: &Moved, hand: Hand<'_>, now: Timestamp) -> Result<(), Error> {
        self.store_rows(tx, moved, hand, now).await?;
        self.store_history(tx, std::slice::from_ref(moved), now).await
    }

    /// The rows alone, for a transaction that moves several cases: what it appends comes after all of them.
    pub(crate) async fn store_rows(
        &self,
        tx: &mut Tx,
        moved: &Moved,
        hand: Hand<'_>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let unmoved = moved.after.case == moved.before.case && moved.after.lines.is_empty();
        if unmoved && matches!(hand, Hand::Free) {
            return Ok(());
        }
        repo::save(tx, &moved.before, &moved.after, hand, now).await?;
        if let Some((late, opened)) = &moved.late {
            let about = About {
                request_id: late.to_string(),
                linked: Some(moved.before.case.id),
                input_sealed: None,
                payer_sealed: None,
                grant: None,
                ..moved.before.about.clone()
            };
            repo::insert(tx, &about, opened, now).await?;
        }
        Ok(())
    }

    /// The histories, and the streams that are made of them: last in a transaction, and in one order, so that two transactions
    /// never wait for each other's streams.
    pub(crate) async fn store_history(&self, tx: &mut Tx, moved: &[Moved], now: Timestamp) -> Result<(), Error> {
        let mut all: Vec<_> = moved
            .iter()
            .flat_map(|moved| {
                let entry_point = moved.before.about.entry_point.as_str();
                let own = (entry_point, moved.before.case.id, &moved.after.lines);
                let late = moved.late.as_ref().map(|(late, opened)| (entry_point, *late, &opened.lines));
                std::iter::once(own).chain(late)
            })
            .collect();
        all.sort_by_key(|(entry_point, ..)| *entry_point);
        for (entry_point, case, lines) in all {
            repo::append(tx, entry_point, case, lines, now).await?;
        }
        Ok(())
    }

    /// Tells whoever waits, after the commit.
    pub(crate) fn announce(&self, moved: &[Moved]) {
        for moved in moved {
            self.metrics.moved(&moved.after);
            self.hints.moved(moved.before.case.id);
            let due = moved.after.case.due_at().is_some_and(|at| at <= self.now());
            if due || moved.late.is_some() {
                self.hints.due();
            }
        }
    }
}

/// A race, or the same request on another connection that was a moment faster: the next run finds its answer.
fn may_run_again(error: &Error) -> bool {
    error.is_raced() || error.conflict() == Some("answers_pkey")
}

/// The file of a case that is about to be stored.
fn fresh(about: &About, case: &Case, now: Timestamp) -> File {
    File {
        about: about.clone(),
        case: case.clone(),
        created: now,
        updated: now,
        version: 1,
        lease_owner: None,
        fence: 0,
    }
}

impl Moved {
    /// The file as it is after the event was stored.
    fn file(&self, now: Timestamp) -> File {
        File { case: self.after.case.clone(), updated: now, version: self.before.version + 1, ..self.before.clone() }
    }
}

impl File {
    /// Whether a lease on the row is still good.
    pub(crate) fn is_leased_by(&self, lease: &Lease) -> bool {
        self.fence == lease.fence && self.lease_owner.as_deref() == Some(lease.owner.as_str())
    }
}
