//! Departments' settlement files beside the ledger, by themselves and as the command line reads them.

use std::collections::BTreeSet;
use std::process::Command;

use contracts::payments::v1::{self as pb, BreakKind, BreakResolution, BreakState, ListBreaksRequest, RunState};
use jiff::SignedDuration;
use jiff::civil::{Date, DateTime};
use lastmile_tests::drill::process;
use payments::reconcile::bill::movements::Writer;
use payments::reconcile::{self, Entry, Money, Side, State, What};
use rpc::RemoteFault;

use super::days::{bill, day_before, today};
use super::on_each_engine;
use super::rig::{AMOUNT, CHANGSHA, Engine, OTHERS, Rig, jsapi, until};

on_each_engine!(
    wrong_rows_are_all_named_and_the_command_line_says_the_same,
    a_file_that_is_missing_cut_or_wrong_is_said_so,
    a_settlement_at_the_edge_or_on_two_days_closes_by_itself,
);

const PAYEE: &str = "traffic-430100";

fn row(number: &str, minor: i64, at: DateTime) -> Entry {
    let (party, amount) = (PAYEE.into(), Money { minor, currency: *b"CNY" });
    let (what, side, state) = (What::Settlement, Side::Department, State::Done);
    Entry { what, party, number: number.to_owned(), side, amount, state, at, age_days: 0 }
}

impl Rig {
    fn put_file(&self, day: Date, of: &[&str], rows: &[Entry]) {
        let folder = self.directory().join("departments").join(PAYEE);
        std::fs::create_dir_all(&folder).expect("a directory");
        let mut writer = Writer::create(&folder.join(format!("{day}.csv")), day, of).expect("writes");
        rows.iter().for_each(|row| writer.write(row).expect("writes"));
        writer.finish().expect("writes");
    }

    /// An order of the payee that was paid and posted then.
    async fn settled_at(&self, name: &str, at: DateTime) -> pb::Order {
        let order = self.paid(jsapi(name)).await;
        let order = self.post(name, &order.order_id).await.expect("posts");
        self.paid_at(&order, at).await;
        order
    }

    async fn reconcile_department(&self, request_id: &str, day: Date) -> pb::Run {
        let request = pb::ReconcileRequest {
            request_id: request_id.into(),
            day: day.to_string(),
            payee_id: PAYEE.into(),
            ..Default::default()
        };
        until("the run", async || {
            let answer = self.operators.clone().reconcile(request.clone()).await.expect("answers").into_inner();
            let [run] = &answer.runs[..] else { panic!("one run: {answer:#?}") };
            assert_eq!((run.payee_id.as_str(), run.channel.as_str(), run.fee.clone()), (PAYEE, "", None));
            (run.state() != RunState::Waiting || !run.problem.is_empty()).then(|| run.clone())
        })
        .await
    }

    async fn of_department(&self) -> Vec<pb::Break> {
        let request = ListBreaksRequest { page_size: 100, payee_id: PAYEE.into(), ..Default::default() };
        self.operators.clone().list_breaks(request).await.expect("answers").into_inner().breaks
    }

    /// What the command line says of the same files: kind, side and number of each break.
    async fn verdict(&self, day: Date) -> BTreeSet<(String, String, String)> {
        let ledger = self.file("ledger.csv");
        let scope = reconcile::ledger::Scope::default();
        reconcile::ledger::export(&self.db, day, &scope, &ledger, |_| {}).await.expect("exports");
        let mut command = Command::new(process::binary(None).expect("built"));
        command.current_dir(process::root()).args(["reconcile", "--json"]).arg(ledger);
        command.arg(self.file(&format!("departments/{PAYEE}/{day}.csv")));
        command.arg(self.file(&format!("bills/wechatpay/{CHANGSHA}/{day}.csv")));
        let ended = command.output().expect("runs");
        let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert_eq!(ended.status.code(), Some(1), "{out}{err}");
        let rows = out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("is JSON"));
        let text = |row: &serde_json::Value, key: &str| row[key].as_str().expect("a text").to_owned();
        rows.map(|row| (text(&row, "kind"), text(&row, "side"), text(&row, "number"))).collect()
    }
}

async fn wrong_rows_are_all_named_and_the_command_line_says_the_same(engine: Engine) {
    let rig = Rig::with(engine, super::days::settings).await;
    let day = day_before(today());
    let noon = day.at(12, 0, 0, 0);
    let (mut rows, mut billed, mut wrong) = (Vec::new(), Vec::new(), BTreeSet::new());
    for index in 0..18 {
        let order = rig.settled_at(&format!("o{index}"), noon).await;
        let good = row(&order.channel_transaction, AMOUNT, noon);
        let kind = match index {
            0 | 6 => Some("short"),
            1 | 7 => {
                rows.extend([good.clone(), good.clone()]);
                Some("long")
            }
            2 | 8 => {
                rows.push(Entry { amount: Money { minor: AMOUNT + 1, ..good.amount }, ..good.clone() });
                Some("amount")
            }
            3 | 9 => {
                rows.push(Entry { amount: Money { currency: *b"HKD", ..good.amount }, ..good.clone() });
                Some("amount")
            }
            4 | 10 => {
                rows.push(Entry { state: State::Undone, ..good.clone() });
                Some("state")
            }
            _ => {
                rows.push(good.clone());
                None
            }
        };
        wrong.extend(kind.map(|kind| (kind.to_owned(), "department".to_owned(), good.number.clone())));
        // The channel's bill has one of them with another amount, and one not at all.
        match index {
            11 => {
                billed.push((order.channel_order_no.clone(), AMOUNT + 1, noon));
                wrong.insert(("amount".to_owned(), "channel".to_owned(), order.channel_order_no));
            }
            12 => {
                wrong.insert(("short".to_owned(), "channel".to_owned(), order.channel_order_no));
            }
            _ => billed.push((order.channel_order_no, AMOUNT, noon)),
        }
    }
    rows.push(row("4200000000stranger", 1, noon));
    wrong.insert(("long".to_owned(), "department".to_owned(), "4200000000stranger".to_owned()));
    rig.put_file(day, &["department/traffic-430100"], &rows);
    let billed: Vec<_> = billed.iter().map(|(number, minor, at)| (number.as_str(), *minor, *at)).collect();
    rig.put_bill(CHANGSHA, day, &bill(&billed));
    rig.put_bill(OTHERS, day, &bill(&[]));

    let run = rig.reconcile_department("d", day).await;
    assert_eq!((run.state(), run.matched, run.breaks), (RunState::Done, 10, 11), "{run:#?}");
    assert_eq!(rig.reconcile("c", day).await.breaks, 2);
    let side = |one: &pb::Break| if one.payee_id.is_empty() { "channel" } else { "department" };
    let named = |found: &[pb::Break]| -> BTreeSet<_> {
        found.iter().map(|one| (one.kind.clone(), side(one).to_owned(), one.number.clone())).collect()
    };
    let found = rig.found().await;
    assert_eq!(named(&found), wrong, "all of them, and no other");
    assert_eq!(rig.verdict(day).await, wrong, "the command line says the same");

    // Alone, aged, and closed by a person's word as any other.
    let own = rig.of_department().await;
    assert_eq!(own.len(), 11);
    assert!(own.iter().all(|one| one.channel.is_empty() && one.what == "settlement" && one.age_days == 1), "{own:#?}");
    let stranger = own.iter().find(|one| one.break_kind() == BreakKind::Long && one.ours.is_none()).expect("one");
    let resolved = rig.resolve("operator-1", "x", stranger, BreakResolution::Explained).await.expect("is resolved");
    assert_eq!(resolved.r#break.expect("a break").state(), BreakState::Resolved);
    let both = ListBreaksRequest { channel: "wechatpay".into(), payee_id: PAYEE.into(), ..Default::default() };
    rig.operators.clone().list_breaks(both).await.expect_err("one of them at most");

    // The department mends its file: what is right then closes by itself.
    let good: Vec<_> = rows.iter().filter(|row| row.state == State::Done).cloned().collect();
    rig.put_file(day, &["department/traffic-430100"], &good);
    let run = rig.reconcile_department("d2", day).await;
    assert_eq!((run.matched, run.breaks), (10, 11), "what is missing now is short");
    rig.assert_sound().await;
}

async fn a_file_that_is_missing_cut_or_wrong_is_said_so(engine: Engine) {
    let rig = Rig::with(engine, super::days::settings).await;
    let day = day_before(today());
    let noon = day.at(12, 0, 0, 0);
    let order = rig.settled_at("one", noon).await;
    let run = rig.reconcile_department("r0", day).await;
    assert_eq!(run.state(), RunState::Waiting, "an absent file is no empty day");
    assert!(
        run.problem.contains("there is no settlement file yet") && run.problem.contains("BILL_MISSING"),
        "{run:#?}"
    );
    assert_eq!(rig.found().await, []);

    let good = row(&order.channel_transaction, AMOUNT, noon);
    let path = rig.file(&format!("departments/{PAYEE}/{day}.csv"));
    let own = "department/traffic-430100";
    let others = Entry { party: "traffic-140100".into(), ..good.clone() };
    let ours = Entry { side: Side::Ledger, ..good.clone() };
    let cut = || {
        let text = std::fs::read_to_string(&path).expect("is there");
        std::fs::write(&path, text.rsplit_once("total").expect("a total").0).expect("writes");
    };
    let touched = || {
        let text = std::fs::read_to_string(&path).expect("is there");
        std::fs::write(&path, text.replacen(",20000,", ",20001,", 1)).expect("writes");
    };
    let of_another_day = || {
        let text = std::fs::read_to_string(&path).expect("is there");
        let other = day_before(day).to_string();
        std::fs::write(&path, text.replacen(&format!("1,{day}"), &format!("1,{other}"), 1)).expect("writes");
    };
    let nothing = || ();
    let spoils: [(&str, &Entry, &dyn Fn(), &str); 7] = [
        (own, &good, &cut, "line 4: the file ends before its total: it was cut"),
        (own, &good, &touched, "line 4, total: is not that of the rows: the file was changed or cut"),
        (own, &good, &of_another_day, "is of another day"),
        (own, &others, &nothing, "line 3, side: is none of those whose word the first line says that the file is"),
        (own, &ours, &nothing, "line 3, side: is none of those whose word the first line says that the file is"),
        ("department/traffic-140100", &others, &nothing, "is not department/traffic-430100's"),
        ("ledger", &ours, &nothing, "is not department/traffic-430100's"),
    ];
    for (number, (covers, entry, spoil, words)) in spoils.into_iter().enumerate() {
        rig.put_file(day, &[covers], std::slice::from_ref(entry));
        spoil();
        let run = rig.reconcile_department(&format!("s{number}"), day).await;
        assert_eq!((run.state(), run.problem), (RunState::Failed, format!("the settlement file: {words}")));
        assert_eq!(rig.found().await, [], "nothing was decided");
    }
    rig.put_file(day, &[own], &[good]);
    let run = rig.reconcile_department("r1", day).await;
    assert_eq!((run.state(), run.matched, run.breaks, run.problem.as_str()), (RunState::Done, 1, 0, ""));

    let refused = async |request: pb::ReconcileRequest| {
        let status = rig.operators.clone().reconcile(request).await.expect_err("refused");
        RemoteFault::from(&status).reason().to_owned()
    };
    let ask = pb::ReconcileRequest { request_id: "x".into(), day: day.to_string(), ..Default::default() };
    assert_eq!(refused(pb::ReconcileRequest { payee_id: "nobody".into(), ..ask.clone() }).await, "PAYEE_UNKNOWN");
    assert_eq!(refused(ask.clone()).await, "INVALID_REQUEST");
    let both = pb::ReconcileRequest { payee_id: PAYEE.into(), channel: "wechatpay".into(), ..ask };
    assert_eq!(refused(both).await, "INVALID_REQUEST");
}

async fn a_settlement_at_the_edge_or_on_two_days_closes_by_itself(engine: Engine) {
    let rig = Rig::with(engine, super::days::settings).await;
    let (second, first) = (day_before(today()), day_before(day_before(today())));
    let edge = first.at(23, 59, 58, 0);
    let after = edge.checked_add(SignedDuration::from_secs(3)).expect("a time");
    let evening = first.at(20, 0, 0, 0);
    // One crosses midnight by seconds, of one the answer was lost and found hours later, one the department tells of a day late.
    let close = rig.settled_at("close", after).await;
    let found_late = rig.settled_at("found-late", second.at(2, 0, 0, 0)).await;
    let told_late = rig.settled_at("told-late", evening).await;
    let own = ["department/traffic-430100"];
    rig.put_file(
        first,
        &own,
        &[row(&close.channel_transaction, AMOUNT, edge), row(&found_late.channel_transaction, AMOUNT, evening)],
    );
    rig.put_file(second, &own, &[row(&told_late.channel_transaction, AMOUNT, second.at(1, 0, 0, 0))]);
    let run = rig.reconcile_department("r1", first).await;
    assert_eq!((run.matched, run.breaks, run.rolled_over), (0, 2, 1), "{run:#?}");
    let states = async |name: &str| -> Vec<_> {
        let found = rig.of_department().await;
        [&close, &found_late, &told_late]
            .map(|order| {
                let is_it = |one: &&pb::Break| one.number == order.channel_transaction;
                found.iter().find(is_it).unwrap_or_else(|| panic!("{name}: no break: {found:#?}")).state()
            })
            .to_vec()
    };
    assert_eq!(states("first").await, [BreakState::RolledOver, BreakState::Open, BreakState::Open]);
    let run = rig.reconcile_department("r2", second).await;
    assert_eq!((run.matched, run.rolled_over), (1, 0), "{run:#?}");
    assert_eq!(states("second").await, [BreakState::Repaired; 3]);
    // Whichever day is looked at again, and however often.
    for (name, day) in [("r3", first), ("r4", second), ("r5", first)] {
        rig.reconcile_department(name, day).await;
        assert_eq!(states(name).await, [BreakState::Repaired; 3], "{name}");
    }
    rig.assert_sound().await;
}
