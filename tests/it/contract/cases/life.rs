//! The ways of a case that nobody has to decide.

use anyhow::{Context as _, ensure};
use contracts::cases::v1::{self as pb, CaseState};
use contracts::payments::v1::TradeType;
use futures::StreamExt;
use invariants::{Call, Probe};
use lastmile_tests::super_app::with_token;
use rpc::RemoteFault;

use super::rig::{CHANGSHA, Debtor, TAIYUAN, ended, on_both};

#[test]
fn a_fine_is_paid_in_both_cities_and_every_book_agrees() {
    on_both(async |run| {
        for (index, city) in [CHANGSHA, TAIYUAN].into_iter().enumerate() {
            let request_id = format!("fine-{index}");
            let debtor = run.debtor(10 + u32::try_from(index)?, city).await?;
            let opened = run.open(&debtor, &request_id).await?;
            ensure!(opened.state() == CaseState::Accepted, "{opened:?}");
            ensure!(run.open(&debtor, &request_id).await? == opened, "every answer for a request id is equal");
            run.pay(&debtor, &opened.case_id).await?;
            let history = run.history(&debtor, &opened.case_id).await?;
            let states: Vec<_> = history.iter().map(pb::CaseEvent::to_state).collect();
            ensure!(states.last() == Some(&CaseState::Done), "{history:?}");
            ensure!(states.starts_with(&[CaseState::Accepted, CaseState::Confirming]), "{states:?}");
            let case = run.get(&debtor, &opened.case_id).await?;
            let proof = case.proof.context("a proof")?;
            ensure!(proof.profile == city.1 && !proof.department_serial.is_empty() && !proof.jws.is_empty());
            run.call(&request_id).ended_as = Some("DONE".to_owned());
        }
        Ok(())
    });
}

#[test]
fn a_refusal_after_payment_sends_the_money_back() {
    on_both(async |run| {
        let debtor = run.debtor(20, CHANGSHA).await?;
        let case = run.open(&debtor, "refused").await?;
        run.until(&debtor, &case.case_id, CaseState::WaitingPayment).await?;
        run.outside.officer(debtor.region, &debtor.bill.bill_no, "dispute").await?;
        run.pay(&debtor, &case.case_id).await?;
        let history = run.history(&debtor, &case.case_id).await?;
        let end = history.last().map(pb::CaseEvent::to_state);
        ensure!(end == Some(CaseState::Refunded), "{history:?}");
        run.call("refused").ended_as = Some("REFUNDED".to_owned());
        Ok(())
    });
}

#[test]
fn a_settlement_that_never_arrived_is_found_out_and_sent_again() {
    on_both(async |run| {
        let debtor = run.debtor(21, CHANGSHA).await?;
        let case = run.open(&debtor, "lost").await?;
        run.until(&debtor, &case.case_id, CaseState::WaitingPayment).await?;
        run.outside.stage("police-430100", "pay", "drop_before").await?;
        run.pay(&debtor, &case.case_id).await?;
        let history = run.history(&debtor, &case.case_id).await?;
        let reasons: Vec<_> = history.iter().map(|event| event.reason.as_str()).collect();
        let end = history.last().map(pb::CaseEvent::to_state);
        ensure!(end == Some(CaseState::Done) && reasons.contains(&"NEVER_HAPPENED"), "{history:?}");
        run.call("lost").ended_as = Some("DONE".to_owned());
        Ok(())
    });
}

#[test]
fn a_case_belongs_to_its_citizen_and_a_bill_to_its_case() {
    on_both(async |run| {
        let (li, wang) = (run.debtor(30, CHANGSHA).await?, run.debtor(31, CHANGSHA).await?);
        let case = run.open(&li, "own").await?;
        let mut cases = run.app.cases();
        for asked in [
            pb::GetCaseRequest { case_id: case.case_id.clone(), request_id: String::new() },
            pb::GetCaseRequest { case_id: String::new(), request_id: "own".to_owned() },
        ] {
            let fault = run.refusal(cases.get_case(with_token(asked, &wang.token)?).await).await?;
            let leaked = !fault.is("cases.lastmile", "CASE_NOT_FOUND");
            run.probes.push(Probe { what: format!("another citizen gets a case: {fault}"), leaked });
        }
        let asked = run.asks(&wang, "own")?;
        let fault = run.refusal(cases.open_case(with_token(asked, &wang.token)?).await).await?;
        ensure!(fault.is("common.lastmile", "REQUEST_ID_REUSED"), "{fault}");
        let asked = run.asks(&li, "own-again")?;
        let fault = run.refusal(cases.open_case(with_token(asked, &li.token)?).await).await?;
        ensure!(fault.is("cases.lastmile", "BILL_IN_PROGRESS"), "{fault}");
        let mut asked = run.asks(&wang, "in-euro")?;
        if let Some(pb::open_case_request::Action::Pay(pay)) = &mut asked.action
            && let Some(amount) = &mut pay.amount
        {
            amount.currency = "EUR".to_owned();
        }
        let answer = cases.open_case(with_token(asked, &wang.token)?).await;
        lastmile_tests::golden::refused(answer, "cases NOT_PAYABLE", &[])?;
        let cancel =
            |case_id: &str| pb::CancelCaseRequest { case_id: case_id.to_owned(), request_id: "stop".to_owned() };
        let fault = run.refusal(cases.cancel_case(with_token(cancel(&case.case_id), &wang.token)?).await).await?;
        run.probes.push(Probe {
            what: format!("another citizen cancels a case: {fault}"),
            leaked: !fault.is("cases.lastmile", "CASE_NOT_FOUND"),
        });
        run.until(&li, &case.case_id, CaseState::WaitingPayment).await?;
        cases.cancel_case(with_token(cancel(&case.case_id), &li.token)?).await?;
        run.until(&li, &case.case_id, CaseState::Cancelled).await?;
        run.call("own").ended_as = Some("CANCELLED".to_owned());
        let listed = cases.list_cases(with_token(pb::ListCasesRequest::default(), &li.token)?).await?.into_inner();
        ensure!(listed.cases.iter().any(|listed| listed.case_id == case.case_id), "{listed:?}");
        let foreign = cases.list_cases(with_token(pb::ListCasesRequest::default(), &wang.token)?).await?.into_inner();
        run.probes.push(Probe { what: "another citizen lists a case".to_owned(), leaked: !foreign.cases.is_empty() });

        // One stream has the cases of everybody: it is the entry point's own, and no citizen's token opens it.
        let asked = with_token(pb::WatchCasesRequest::default(), &run.app.own_token().await?)?;
        let first = cases.watch_cases(asked).await?.into_inner().next().await.context("a line")??;
        ensure!(first.sequence == 1 && first.case_id == case.case_id, "{first:?}");
        let asked = with_token(pb::WatchCasesRequest::default(), &li.token)?;
        let fault = run.refusal(cases.watch_cases(asked).await).await?;
        run.probes.push(Probe {
            what: format!("a citizen's token opens the stream of all cases: {fault}"),
            leaked: !fault.is_common("CALLER_NOT_ALLOWED"),
        });
        let rate = pb::RateCaseRequest { case_id: case.case_id, request_id: "rate".to_owned(), rating: 1 };
        let fault = run.refusal(cases.rate_case(with_token(rate, &li.token)?).await).await?;
        ensure!(fault.is_common("NOT_SERVED"), "{fault}");
        Ok(())
    });
}

/// Through another super app, with its channel: the same department, books of another merchant account.
#[test]
fn a_fine_is_paid_with_alipay_and_every_book_agrees() {
    on_both(async |run| {
        let alipay = run.client("alipay")?;
        let citizen = run.outside.citizen(34).await?;
        let token = alipay.citizen_token(&citizen, &[CHANGSHA.1]).await?;
        let bill = alipay.bill(&token, &citizen, CHANGSHA.0).await?;
        let debtor = Debtor { citizen, token, region: CHANGSHA.0, bill };
        let mut asked = run.asks(&debtor, "fine")?;
        if let Some(pb::open_case_request::Action::Pay(pay)) = &mut asked.action {
            pay.channel = "alipay".to_owned();
            pay.trade_type = TradeType::Native.into();
            pay.payer_reference = String::new();
        }
        let opened = alipay.cases().open_case(with_token(asked, &debtor.token)?).await?.into_inner();
        let case_id = opened.case.context("a case")?.case_id;
        run.opened(&debtor, &case_id, "fine")?;
        let case = run.until(&debtor, &case_id, CaseState::WaitingPayment).await?;
        let sheet = case.pay_sheet.context("a pay sheet")?;
        ensure!(sheet.jsapi.is_empty() && !sheet.code_url.is_empty(), "{sheet:?}");
        run.outside.pay_alipay(&sheet.code_url).await?;
        let history = run.history(&debtor, &case_id).await?;
        ensure!(history.last().map(pb::CaseEvent::to_state) == Some(CaseState::Done), "{history:?}");
        let proof = run.get(&debtor, &case_id).await?.proof.context("a proof")?;
        ensure!(proof.profile == CHANGSHA.1 && !proof.department_serial.is_empty() && !proof.jws.is_empty());
        run.calls.push(Call {
            caller: "alipay".to_owned(),
            request_id: "fine".to_owned(),
            answers: vec![case_id],
            ended_as: Some("DONE".to_owned()),
            ..Call::default()
        });
        Ok(())
    });
}

/// Another entry point's client: it has cases of its own, and its stream tells of no other's.
#[test]
fn an_entry_point_sees_its_own_cases_alone() {
    on_both(async |run| {
        let li = run.debtor(32, CHANGSHA).await?;
        let case = run.open(&li, "of-wechat").await?;
        let alipay = run.client("alipay")?;
        let wang = run.outside.citizen(33).await?;
        let token = alipay.citizen_token(&wang, &[CHANGSHA.1]).await?;
        let bill = alipay.bill(&token, &wang, CHANGSHA.0).await?;
        let debtor = Debtor { citizen: wang, token, region: CHANGSHA.0, bill };
        // The same request id: each entry point has its own.
        let asked = run.asks(&debtor, "of-wechat")?;
        let own =
            alipay.cases().open_case(with_token(asked, &debtor.token)?).await?.into_inner().case.context("a case")?;
        ensure!(own.case_id != case.case_id, "two entry points share a request id");
        let opened = Call {
            caller: "alipay".to_owned(),
            request_id: "of-wechat".to_owned(),
            answers: vec![own.case_id.clone()],
            ..Call::default()
        };
        run.calls.push(opened);
        let mut cases = alipay.cases();
        let cancel = pb::CancelCaseRequest { case_id: own.case_id.clone(), request_id: "stop".to_owned() };
        // At this entry point nobody takes WeChat Pay's money: the case may have ended by itself before.
        let cancelled = cases.cancel_case(with_token(cancel, &debtor.token)?).await.map_err(RemoteFault::from);
        if let Err(fault) = cancelled {
            ensure!(fault.reason() == "CASE_NOT_CANCELLABLE", "{fault}");
        }
        let asked = with_token(pb::WatchCasesRequest::default(), &alipay.own_token().await?)?;
        let mut lines = cases.watch_cases(asked).await?.into_inner();
        loop {
            let line = lines.next().await.context("a line")??;
            let leaked = line.case_id != own.case_id;
            run.probes.push(Probe { what: format!("the stream of alipay tells of {}", line.case_id), leaked });
            if line.event.is_some_and(|event| ended(event.to_state())) {
                break;
            }
        }
        let cancel = pb::CancelCaseRequest { case_id: case.case_id.clone(), request_id: "stop".to_owned() };
        run.app.cases().cancel_case(with_token(cancel, &li.token)?).await?;
        run.until(&li, &case.case_id, CaseState::Cancelled).await?;
        run.call("of-wechat").ended_as = Some("CANCELLED".to_owned());
        Ok(())
    });
}
