//! Payments at the public door: operators and whoever else the contract names, and nobody beside them.

use anyhow::{Context as _, ensure};
use contracts::common::v1::{Credential, Exposure};
use contracts::payments::v1 as pb;
use contracts::payments::v1::{BreakResolution, BreakState, RunState};
use lastmile_tests::Cluster;
use lastmile_tests::cluster::{on_both, on_both_with};
use lastmile_tests::golden::refused;
use lastmile_tests::super_app::{SuperApp, with_token};
use rpc::{Contract, Method, RemoteFault};
use runtime::Context;
use tonic::{Response, Status};

use super::super::payments::days::{bill, day_before, today};
use super::rig::{Door, bearer, framed};

const SERVICE: &str = "/lastmile.payments.v1.PaymentService/";
const MERCHANTS: [&str; 2] = ["1900430100", "1900140100"];
/// Every kind of caller, as the door's refusals name them.
const CALLERS: [(&str, &str); 5] = [
    ("nobody", "anonymous"),
    ("entry point", "entry_point"),
    ("citizen", "citizen"),
    ("clerk", "staff"),
    ("operator", "staff"),
];

/// Whom the contract's words let in.
fn let_in(method: &Method) -> &'static [&'static str] {
    match (method.exposure, method.credential) {
        (Exposure::Operator, Credential::Staff) => &["operator"],
        (Exposure::Clerk, Credential::Staff) => &["clerk", "operator"],
        (Exposure::Public, Credential::None) => &["nobody", "entry point", "citizen"],
        (Exposure::Public, Credential::EntryPoint) => &["entry point", "citizen"],
        (Exposure::Public, Credential::Citizen) => &["citizen"],
        _ => &[],
    }
}

/// Holds that payments itself has answered an empty message.
fn reached(answer: Result<Response<()>, Status>) -> anyhow::Result<()> {
    let Err(status) = answer else { return Ok(()) };
    let fault = RemoteFault::from(&status);
    let is_its_own = fault.is_common("INVALID_REQUEST") || fault.domain() == payments::REASONS.domain;
    ensure!(is_its_own, "payments did not answer: {fault}");
    Ok(())
}

#[test]
fn payments_is_open_to_whom_the_contract_names() {
    on_both(async |cluster| {
        let door = Door::of(cluster, 735).await?;
        let staff = async |id: &str| anyhow::Ok(bearer(&person(cluster, id)?.own_token().await?));
        let own = bearer(&door.app.own_token().await?);
        let credentials = [
            None,
            Some(own),
            Some(bearer(&door.token)),
            Some(staff("clerk-1").await?),
            Some(staff("operator-1").await?),
        ];
        let contract = Contract::lastmile().context("the contract")?;
        let methods: Vec<_> = contract.methods().filter(|method| method.path.starts_with(SERVICE)).collect();
        let (mut inside, mut closed) = (Vec::new(), 0);
        for method in methods {
            for ((who, label), credential) in CALLERS.into_iter().zip(&credentials) {
                let headers: Vec<_> = credential.iter().map(|value| ("authorization", value.as_str())).collect();
                let answer = door.send(&method.path, &headers, framed(&[])).await?;
                let held = match (method.exposure, credential) {
                    (Exposure::Internal, _) => refused(answer, "gateway METHOD_UNKNOWN", &[]).map(drop),
                    _ if let_in(method).contains(&who) => reached(answer),
                    (_, None) => refused(answer, "common UNAUTHENTICATED", &[("check", "missing")]).map(drop),
                    _ => refused(answer, "common CALLER_NOT_ALLOWED", &[("caller", label)]).map(drop),
                };
                held.with_context(|| format!("{who} at {}", method.path))?;
            }
            match let_in(method) {
                [] => closed += 1,
                _ => inside.push(method.path.trim_start_matches(SERVICE)),
            }
        }
        for name in ["GetAccount", "ListBreaks", "ListTransfers", "Reconcile", "ResolveBreak"] {
            ensure!(inside.contains(&name), "{name} is for operators: {inside:?}");
        }
        ensure!(closed >= 9, "{closed} methods are not for the door");
        Ok(())
    });
}

/// From a bill that does not fit to the word of two persons, all through the public port.
#[test]
fn operators_find_a_break_and_two_of_them_resolve_it() {
    let bills = tempfile::tempdir().expect("a directory");
    let place = bills.path().to_owned();
    let day = day_before(today());
    for (merchant, rows) in MERCHANTS.into_iter().zip([&[("stranger", 100, day.at(12, 0, 0, 0))][..], &[]]) {
        let folder = place.join("wechatpay").join(merchant);
        std::fs::create_dir_all(&folder).expect("a directory");
        std::fs::write(folder.join(format!("{day}.csv")), bill(rows)).expect("writes");
    }
    let configure = move |config: &mut lastmile::Config| config.payments.reconcile.bills_dir.clone_from(&place);
    on_both_with(configure, async |cluster| {
        let (one, two) = (Desk::of(cluster, "operator-1").await?, Desk::of(cluster, "operator-2").await?);
        let told = one.reconcile(&day.to_string()).await?;
        ensure!((told.matched, told.breaks, told.runs.len()) == (0, 1, 2), "{told:?}");
        let found = one.breaks().await?;
        let [only] = &found[..] else { anyhow::bail!("one break: {found:?}") };
        ensure!(only.number == "stranger" && only.state() == BreakState::Open, "{only:?}");

        let proposed = one.resolve("1", only).await?.into_inner();
        let told = proposed.r#break.clone().unwrap_or_default();
        ensure!(proposed.needs_second_person && told.resolved_by == "operator-1", "{proposed:?}");
        ensure!(one.resolve("1", only).await?.into_inner() == proposed, "the same answer");
        refused(one.resolve("2", only).await, "payments SAME_PERSON", &[])?;
        let agreed = two.resolve("1", only).await?.into_inner();
        let told = agreed.r#break.clone().unwrap_or_default();
        ensure!(!agreed.needs_second_person && told.state() == BreakState::Resolved, "{agreed:?}");
        ensure!(two.breaks().await? == [told], "both see it");
        refused(one.resolve("3", only).await, "payments BREAK_NOT_OPEN", &[])?;

        // Nobody was paid: the ledger has no such account, and says so to an operator alone.
        let account = pb::GetAccountRequest { account: "payee/treasury-430100-traffic".to_owned() };
        let answer = one.app.payments().get_account(with_token(account, &one.token)?).await;
        refused(answer, "payments ACCOUNT_NOT_FOUND", &[])?;
        Ok(())
    });
}

fn person(cluster: &Cluster, id: &str) -> anyhow::Result<SuperApp> {
    SuperApp::new(&Context::system(), &cluster.public(), id, &cluster.client_keys())
}

/// An operator at the public port.
struct Desk {
    app: SuperApp,
    token: String,
}

impl Desk {
    async fn of(cluster: &Cluster, id: &str) -> anyhow::Result<Self> {
        let app = person(cluster, id)?;
        let token = app.own_token().await?;
        Ok(Self { app, token })
    }

    /// Asks until the day's runs are over, as the contract says.
    async fn reconcile(&self, day: &str) -> anyhow::Result<pb::ReconcileResponse> {
        let request = pb::ReconcileRequest {
            request_id: "day".into(),
            day: day.to_owned(),
            channel: "wechatpay".into(),
            ..Default::default()
        };
        loop {
            let asked = with_token(request.clone(), &self.token)?;
            let told = self.app.payments().reconcile(asked).await?.into_inner();
            if told.runs.iter().all(|run| run.state() != RunState::Waiting) {
                return Ok(told);
            }
        }
    }

    async fn breaks(&self) -> anyhow::Result<Vec<pb::Break>> {
        let asked = with_token(pb::ListBreaksRequest::default(), &self.token)?;
        Ok(self.app.payments().list_breaks(asked).await?.into_inner().breaks)
    }

    /// Says that the money was given back.
    async fn resolve(&self, request_id: &str, one: &pb::Break) -> Result<Response<pb::ResolveBreakResponse>, Status> {
        let request = pb::ResolveBreakRequest {
            request_id: request_id.to_owned(),
            break_id: one.break_id.clone(),
            note: "letter 7".to_owned(),
            resolution: BreakResolution::Returned.into(),
        };
        let asked = with_token(request, &self.token).expect("a token is a header");
        self.app.payments().resolve_break(asked).await
    }
}
