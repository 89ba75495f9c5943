//! The ends of a case that is never paid.

use anyhow::{Context as _, ensure};
use contracts::cases::v1::{self as pb, CaseState};
use lastmile_tests::golden::refused;
use lastmile_tests::super_app::with_token;
use runtime::config::Duration;

use super::rig::{CHANGSHA, TAIYUAN, on_both, on_both_with};

/// For the citizen to pay.
const PAYABLE_FOR: Duration = Duration::from_secs(6);

/// In both cities: the channel confirms that the order is closed, the hold is given back, and the bill can be paid again.
#[test]
fn what_is_not_paid_in_time_expires() {
    let configure = |config: &mut lastmile::Config| {
        config.cases.times.pay_within = PAYABLE_FOR;
        config.cases.times.pay_min = Duration::from_secs(1);
    };
    on_both_with(configure, async |run| {
        let cities = [(CHANGSHA, "expires-1", "again-1"), (TAIYUAN, "expires-2", "again-2")];
        let mut opened = Vec::new();
        for (index, (city, request_id, again)) in cities.into_iter().enumerate() {
            let debtor = run.debtor(50 + u32::try_from(index)?, city).await?;
            let case = run.open(&debtor, request_id).await?;
            let waiting = run.until(&debtor, &case.case_id, CaseState::WaitingPayment).await?;
            ensure!(waiting.resolve_by_time.is_some(), "{waiting:?}");
            let sheet = waiting.pay_sheet.context("a pay sheet")?;
            let prepay_id = sheet.jsapi.get("package").and_then(|package| package.strip_prefix("prepay_id="));
            opened.push((debtor, case.case_id, request_id, again, prepay_id.context("a prepay id")?.to_owned()));
        }
        for (debtor, case_id, request_id, again, prepay_id) in opened {
            let history = run.history(&debtor, &case_id).await?;
            let states: Vec<_> = history.iter().map(pb::CaseEvent::to_state).collect();
            ensure!(states.last() == Some(&CaseState::Expired), "{history:?}");
            ensure!(!states.contains(&CaseState::Paid), "{history:?}");
            run.call(request_id).ended_as = Some("EXPIRED".to_owned());
            let case = run.get(&debtor, &case_id).await?;
            ensure!(case.state() == CaseState::Expired && case.pay_sheet.is_none(), "{case:?}");
            ensure!(case.proof.is_none() && case.resolve_by_time.is_none(), "{case:?}");
            // The order is closed at the channel: whoever kept the sheet cannot pay by it any more.
            let late = run.outside.pay(&prepay_id).await;
            ensure!(late.is_err_and(|error| error.to_string().contains("409")), "the channel took it");
            let cancel = pb::CancelCaseRequest { case_id: case_id.clone(), request_id: format!("cancel-{request_id}") };
            let refusal = run.app.cases().cancel_case(with_token(cancel, &debtor.token)?).await;
            refused(refusal, "cases CASE_NOT_CANCELLABLE", &[])?;
            // The same answer under the same id, also now that it is over; and the bill is free.
            ensure!(run.open(&debtor, request_id).await?.case_id == case_id, "every answer is of one case");
            let second = run.open(&debtor, again).await?;
            run.pay(&debtor, &second.case_id).await?;
            let history = run.history(&debtor, &second.case_id).await?;
            ensure!(history.last().map(pb::CaseEvent::to_state) == Some(CaseState::Done), "{history:?}");
            run.call(again).ended_as = Some("DONE".to_owned());
        }
        Ok(())
    });
}

/// Pages of a citizen's cases: newest first, across both cities, and the last one says that it is the last.
#[test]
fn a_citizens_cases_are_paged() {
    on_both(async |run| {
        let mut ids = Vec::new();
        let mut token = String::new();
        // The same citizen, once in each city; one citizen more, whose case is not among them.
        for (number, city, request_id) in
            [(60, CHANGSHA, "page-1"), (61, CHANGSHA, "page-other"), (60, TAIYUAN, "page-2")]
        {
            let debtor = run.debtor(number, city).await?;
            let case_id = run.open(&debtor, request_id).await?.case_id;
            let cancel = pb::CancelCaseRequest { case_id: case_id.clone(), request_id: format!("cancel-{request_id}") };
            run.app.cases().cancel_case(with_token(cancel, &debtor.token)?).await?;
            run.until(&debtor, &case_id, CaseState::Cancelled).await?;
            if number == 60 {
                ids.insert(0, case_id);
                token = debtor.token;
            }
        }
        let mut cases = run.app.cases();
        let mut list = async |page_size: i32, page_token: &str| {
            let asked = pb::ListCasesRequest { page_size, page_token: page_token.to_owned() };
            cases.list_cases(with_token(asked, &token).expect("a token is a header")).await
        };
        let whole = list(0, "").await?.into_inner();
        let ids_of = |cases: &[pb::Case]| cases.iter().map(|case| case.case_id.clone()).collect::<Vec<_>>();
        ensure!(ids_of(&whole.cases) == ids && whole.next_page_token.is_empty(), "{whole:?}");
        ensure!(list(2, "").await?.into_inner().next_page_token.is_empty(), "a page that is just full is the last");
        let first = list(1, "").await?.into_inner();
        let second = list(1, &first.next_page_token).await?.into_inner();
        let (one, other) = (ids_of(&first.cases), ids_of(&second.cases));
        ensure!([one, other].concat() == ids && second.next_page_token.is_empty(), "{first:?} {second:?}");
        for (size, page_token, field) in [(1, "AAAA", "page_token"), (-1, "", "page_size")] {
            let fault = refused(list(size, page_token).await, "common INVALID_REQUEST", &[])?;
            ensure!(fault.violations().iter().any(|violation| violation.field == field), "{:?}", fault.violations());
        }
        Ok(())
    });
}
