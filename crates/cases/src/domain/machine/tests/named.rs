use super::*;

#[test]
fn a_fine_is_paid_and_proven() {
    let mut story = Story::new();
    story.until_sent(Idempotency::Key).wait(secs(2)).tell(&Event::Settled(Answer::Done(proof())));
    story.stands(State::Sent, Some(Step::Post), Some(Action::Post));
    let posted = Event::Posted(view(OrderState::Posted, story.now));
    story.tell(&posted).ends(State::Done);
    let expected =
        ["CASE_OPENED", "LOCKING", "BILL_HELD", "ORDER_CREATED", "PAYMENT_RECEIVED", "DEPARTMENT_DONE", "POSTED"];
    assert_eq!(story.reasons(), expected);
    assert_eq!(story.case.proof, Some(proof()));
}

#[test]
fn a_changed_record_is_rejected_before_anything_is_paid() {
    let mut story = Story::new();
    story.tell(&Event::Begin).tell(&Event::Locked(Answer::Rejected(refused("RECORD_CHANGED")))).ends(State::Rejected);
    assert_eq!(story.case.rejection, Some(refused("RECORD_CHANGED")));
    assert_eq!(story.lines.last().map(|line| line.note.as_str()), Some("RECORD_CHANGED"));
}

#[test]
fn a_department_that_never_answers_the_lock_costs_nobody_anything() {
    let mut story = Story::new();
    story.tell(&Event::Begin).tell(&Event::Locked(Answer::Unknown("DEPARTMENT_TIMEOUT".into())));
    story.stands(State::Unknown, Some(Step::Lock), Some(Action::Lock)).time_out();
    story.stands(State::Confirming, Some(Step::Release), Some(Action::Release)).time_out().ends(State::Rejected);
    assert_eq!(story.case.rejection, Some(Rejection::ours("DEPARTMENT_NO_ANSWER")));
}

#[test]
fn a_case_that_was_never_begun_needs_no_release() {
    Story::new().time_out().ends(State::Rejected);
}

#[test]
fn a_hold_that_is_too_short_to_pay_in_is_given_back() {
    let mut story = Story::new();
    let short =
        Locked { until: START.plus(secs(30)), rules: rules(Idempotency::Key), payment_code: None, changed: false };
    story.tell(&Event::Begin).tell(&Event::Locked(Answer::Done(short)));
    story.stands(State::Confirming, Some(Step::Release), Some(Action::Release));
    assert_eq!(story.case.resolve_by, Some(START.plus(secs(30))), "the hold lapses by itself");
    story.tell(&Event::Released(Answer::Done(()))).ends(State::Rejected);
}

#[test]
fn a_hold_on_something_else_than_the_citizen_read_is_given_back() {
    let mut story = Story::new();
    let until = START.plus(secs(900));
    let changed = Locked { until, rules: rules(Idempotency::Key), payment_code: None, changed: true };
    story.tell(&Event::Begin).tell(&Event::Locked(Answer::Done(changed)));
    story.tell(&Event::Released(Answer::Done(()))).ends(State::Rejected);
    assert_eq!(story.case.rejection, Some(Rejection::ours("RECORD_CHANGED")));
}

#[test]
fn an_order_without_an_answer_is_looked_for_and_made_again_under_its_key() {
    let mut story = Story::new();
    let held = held(START, Idempotency::Key);
    story.tell(&Event::Begin).tell(&held).tell(&Event::Ordered(OrderAnswer::Unknown("CHANNEL_UNAVAILABLE".into())));
    story.stands(State::Unknown, Some(Step::Order), Some(Action::FindOrder));
    story.tell(&Event::Ordered(OrderAnswer::NotFound));
    story.stands(State::Confirming, Some(Step::Order), Some(Action::CreateOrder));
    let creating = Event::Ordered(view(OrderState::Creating, START));
    story.tell(&creating).stands(State::Confirming, Some(Step::Order), Some(Action::FindOrder));
    story.time_out().stands(State::WaitingPayment, Some(Step::Close), Some(Action::CloseOrder));
    assert_eq!(story.case.ending, Some(Ending::Rejected));
}

#[test]
fn an_order_that_nobody_ever_saw_ends_the_case() {
    let mut story = Story::new();
    let held = held(START, Idempotency::Key);
    story.tell(&Event::Begin).tell(&held).tell(&Event::Ordered(OrderAnswer::Unknown("PEER_UNAVAILABLE".into())));
    story.time_out().stands(State::Unknown, Some(Step::Order), Some(Action::FindOrder));
    story.tell(&Event::Ordered(OrderAnswer::NotFound));
    story.tell(&Event::Released(Answer::Done(()))).ends(State::Rejected);
    assert_eq!(story.case.rejection, Some(Rejection::ours("PAYMENTS_NO_ANSWER")));

    let mut silent = Story::new();
    silent.tell(&Event::Begin).tell(&held).tell(&Event::Ordered(OrderAnswer::Unknown("PEER_UNAVAILABLE".into())));
    silent.time_out().time_out().stands(State::NeedsClerk, Some(Step::Order), Some(Action::FindOrder));
}

#[test]
fn an_unpaid_order_expires_only_once_the_channel_has_closed_it() {
    let mut story = Story::new();
    story.until_waiting(Idempotency::Key).time_out();
    story.stands(State::WaitingPayment, Some(Step::Close), Some(Action::CloseOrder));
    let waiting = Event::Ordered(view(OrderState::Waiting, story.now));
    story.tell(&waiting).stands(State::WaitingPayment, Some(Step::Close), Some(Action::CloseOrder));
    assert_eq!(story.case.close_round, 1, "a definite answer ends the round");
    story.tell(&Event::Ordered(OrderAnswer::Unknown("PEER_UNAVAILABLE".into())));
    story.stands(State::Unknown, Some(Step::Close), Some(Action::CloseOrder));
    assert_eq!(story.case.close_round, 1, "no answer repeats it");
    let closed = Event::Ordered(view(OrderState::Closed, story.now));
    story.tell(&closed).stands(State::WaitingPayment, Some(Step::Release), Some(Action::Release));
    story.tell(&Event::Released(Answer::Done(()))).ends(State::Expired);
}

#[test]
fn a_cancelled_order_that_lingers_has_until_its_end_to_be_closed() {
    let mut story = Story::new();
    story.until_waiting(Idempotency::Key).tell(&Event::Cancel);
    let soon = story.case.resolve_by.expect("a deadline");
    let OrderAnswer::Order(order) = view(OrderState::Waiting, story.now) else { unreachable!("an order") };
    let expires = order.expires;
    story.tell(&Event::Ordered(OrderAnswer::Order(order.clone())));
    assert_eq!(story.case.resolve_by, Some(soon), "a channel that knows the order closes it at once");
    story.tell(&Event::Ordered(OrderAnswer::Order(OrderView { lingers: true, ..order })));
    story.stands(State::WaitingPayment, Some(Step::Close), Some(Action::CloseOrder));
    assert_eq!(story.case.resolve_by, Some(expires.plus(Policy::default().close_within)));
    story.time_out().stands(State::NeedsClerk, Some(Step::Close), Some(Action::CloseOrder));
}

#[test]
fn money_wins_over_a_cancellation() {
    let mut story = Story::new();
    story.until_waiting(Idempotency::Key).tell(&Event::Cancel);
    story.stands(State::WaitingPayment, Some(Step::Close), Some(Action::CloseOrder));
    let paid = Event::Ordered(view(OrderState::Paid, story.now));
    story.tell(&paid).stands(State::Paid, Some(Step::Settle), Some(Action::Settle));
    assert_eq!(story.case.ending, None);
    assert_eq!(story.try_tell(&Event::Cancel).err(), Some(Refused::NotCancellable));
}

#[test]
fn a_cancellation_ends_every_unpaid_case() {
    let mut early = Story::new();
    early.tell(&Event::Cancel).ends(State::Cancelled);

    let mut locking = Story::new();
    locking.tell(&Event::Begin).tell(&Event::Cancel);
    locking.stands(State::Confirming, Some(Step::Release), Some(Action::Release));
    let held = held(START, Idempotency::Key);
    locking.tell(&held).tell(&Event::Released(Answer::Done(()))).ends(State::Cancelled);

    let mut ordering = Story::new();
    ordering.tell(&Event::Begin).tell(&held).tell(&Event::Cancel);
    ordering.stands(State::Confirming, Some(Step::Order), Some(Action::FindOrder));
    let waiting = Event::Ordered(view(OrderState::Waiting, START));
    ordering.tell(&waiting).stands(State::WaitingPayment, Some(Step::Close), Some(Action::CloseOrder));
    let closed = Event::Ordered(view(OrderState::Closed, START));
    ordering.tell(&closed).tell(&Event::Released(Answer::Pending)).time_out().ends(State::Cancelled);
    assert_eq!(ordering.try_tell(&Event::Cancel).err(), Some(Refused::NotCancellable));
}

#[test]
fn money_that_comes_after_the_end_goes_back_by_a_case_of_its_own() {
    let mut story = Story::new();
    story.until_waiting(Idempotency::Key).tell(&Event::Cancel);
    let closed = Event::Ordered(view(OrderState::Closed, story.now));
    story.tell(&closed).tell(&Event::Released(Answer::Done(()))).ends(State::Cancelled);
    story.tell(&money(MoneyEvent::Late)).ends(State::Cancelled);
    story.tell(&money(MoneyEvent::Late)).tell(&money(MoneyEvent::Paid));
    assert_eq!(story.late_money, 1, "however often it is told");

    let late = open_late_money(CaseId::new(9), &story.case, &story.policy, story.now);
    check(None, &late);
    assert_eq!((late.case.kind, late.case.state), (Kind::LateMoney, State::Refunding));
    assert_eq!((late.case.order.clone(), late.case.amount), (story.case.order.clone(), story.case.amount));
    let mut back = Story { case: late.case, lines: late.lines, late_money: 0, ..story };
    back.tell(&money(MoneyEvent::Late)).tell(&refund(RefundState::Processing)).tell(&money(MoneyEvent::Moved));
    back.stands(State::Refunding, Some(Step::Refund), Some(Action::FindRefund));
    assert_eq!(back.case.next.map(|next| next.at), Some(back.now), "the event is a hint to look");
    back.tell(&refund(RefundState::Succeeded)).ends(State::Refunded);
    assert_eq!(back.late_money, 0);
}

#[test]
fn late_money_is_never_taken_for_a_payment() {
    let mut story = Story::new();
    story.until_waiting(Idempotency::Key).tell(&money(MoneyEvent::Late)).tell(&money(MoneyEvent::Paid));
    story.stands(State::WaitingPayment, Some(Step::Payment), Some(Action::RefreshOrder));
    for state in [OrderState::Paid, OrderState::Refunding, OrderState::Refunded] {
        let OrderAnswer::Order(order) = view(state, story.now) else { unreachable!("an order") };
        let answer = Event::Ordered(OrderAnswer::Order(OrderView { late: true, ..order }));
        let mut seen = Story { case: story.case.clone(), lines: Vec::new(), ..Story::new() };
        seen.tell(&answer).stands(State::WaitingPayment, Some(Step::Release), Some(Action::Release));
        assert_eq!((seen.case.ending, seen.late_money), (Some(Ending::Expired), 0), "the stream was first");
    }
    assert_eq!(story.late_money, 1);
}

#[test]
fn money_for_an_order_that_was_never_seen_is_returned_too() {
    let mut story = Story::new();
    story.time_out().ends(State::Rejected);
    story.tell(&money(MoneyEvent::Paid));
    assert_eq!(story.late_money, 1);
    assert_eq!(story.case.order.as_ref().map(|order| order.id.as_str()), Some("ord_1"));
}

#[test]
fn a_refusal_after_payment_sends_the_money_back() {
    let mut story = Story::new();
    story.until_sent(Idempotency::None).tell(&Event::Settled(Answer::Rejected(refused("ALREADY_PAID"))));
    story.stands(State::Refunding, Some(Step::Refund), Some(Action::Refund));
    story.tell(&Event::Refunded(RefundAnswer::Unknown("PEER_UNAVAILABLE".into())));
    story.stands(State::Unknown, Some(Step::Refund), Some(Action::FindRefund));
    story.tell(&Event::Refunded(RefundAnswer::NotFound));
    story.stands(State::Refunding, Some(Step::Refund), Some(Action::Refund));
    story.tell(&refund(RefundState::Processing)).tell(&refund(RefundState::Succeeded)).ends(State::Refunded);
    assert_eq!(story.case.rejection, Some(refused("ALREADY_PAID")));
}

#[test]
fn no_answer_is_inquired_until_there_is_one() {
    let mut story = Story::new();
    story.until_sent(Idempotency::None).tell(&Event::Settled(Answer::Unknown("DEPARTMENT_TIMEOUT".into())));
    story.stands(State::Unknown, Some(Step::Settle), Some(Action::InquireSettle));
    for _ in 0..3 {
        story.wait(secs(5)).tell(&Event::Inquired(Answer::Unknown("DEPARTMENT_UNREACHABLE".into())));
    }
    story.tell(&Event::Inquired(Answer::Done(proof()))).stands(State::Sent, Some(Step::Post), Some(Action::Post));
    let unknown = ["PAYMENT_RECEIVED", "NO_ANSWER", "DEPARTMENT_DONE"];
    assert_eq!(story.reasons()[4..], unknown, "tries without news are not told");
}

#[test]
fn never_happened_counts_only_after_the_quiet_period() {
    for idempotency in [Idempotency::None, Idempotency::Key, Idempotency::ByBill] {
        let mut story = Story::new();
        let never = Event::Inquired(Answer::Rejected(refused("NEVER_HAPPENED")));
        story.until_sent(idempotency).tell(&Event::Settled(Answer::Unknown("DEPARTMENT_TIMEOUT".into())));
        story.wait(secs(59)).tell(&never).stands(State::Unknown, Some(Step::Settle), Some(Action::InquireSettle));
        assert!(story.case.next.is_some_and(|next| next.at >= story.now.plus(secs(1))), "not before it is over");
        story.wait(secs(1)).tell(&never);
        if idempotency == Idempotency::None {
            story.stands(State::Refunding, Some(Step::Refund), Some(Action::Refund));
            continue;
        }
        story.stands(State::Paid, Some(Step::Settle), Some(Action::Settle)).tell(&Event::Begin);
        assert_eq!(story.case.sends, 2, "sent again under the same key");
        story.tell(&Event::Settled(Answer::Rejected(refused("ALREADY_PAID"))));
        story.stands(State::Unknown, Some(Step::Settle), Some(Action::InquireSettle));
        story.tell(&Event::Inquired(Answer::Done(proof())));
        story.stands(State::Sent, Some(Step::Post), Some(Action::Post));
    }
}

#[test]
fn a_settlement_that_keeps_vanishing_is_given_up() {
    let mut story = Story::new();
    story.until_paid(Idempotency::Key);
    for _ in 0..story.policy.sends_max {
        story.tell(&Event::Begin).tell(&Event::Settled(Answer::Unknown("REPLY_UNREADABLE".into())));
        story.wait(secs(60)).tell(&Event::Inquired(Answer::Rejected(refused("NEVER_HAPPENED"))));
    }
    story.stands(State::Refunding, Some(Step::Refund), Some(Action::Refund));
    assert_eq!(story.case.sends, 3);
}

#[test]
fn what_certainly_never_left_may_be_tried_again_even_by_who_must_not_repeat() {
    let mut story = Story::new();
    story.until_sent(Idempotency::None);
    for tries in 1..=4 {
        let closed = NotSent { retry_after: Some(secs(3_600)), ..not_sent(false) };
        story.tell(&Event::Settled(Answer::NotSent(closed)));
        story.stands(State::Paid, Some(Step::Settle), Some(Action::Settle));
        assert_eq!((story.case.sends, story.case.tries, story.case.sent_at), (0, tries, None));
        story.wait(secs(3_600)).tell(&Event::Begin);
        assert_eq!(story.case.sends, 1);
    }
    assert!(!story.reasons().contains(&"NOT_SENT"), "nothing moved");
}

#[test]
fn a_department_out_of_reach_for_a_day_means_the_money_goes_back() {
    let mut story = Story::new();
    story.until_sent(Idempotency::Key).tell(&Event::Settled(Answer::NotSent(not_sent(false)))).time_out();
    story.stands(State::Refunding, Some(Step::Refund), Some(Action::Refund));
    assert_eq!(story.case.rejection, Some(Rejection::ours("DEPARTMENT_UNREACHABLE")));
}

#[test]
fn an_adapter_that_refuses_for_good_is_believed_after_some_tries() {
    let mut story = Story::new();
    story.until_paid(Idempotency::Key);
    for _ in 0..story.policy.refusals_max {
        story.stands(State::Paid, Some(Step::Settle), Some(Action::Settle)).tell(&Event::Begin);
        story.tell(&Event::Settled(Answer::NotSent(not_sent(true))));
    }
    story.stands(State::Refunding, Some(Step::Refund), Some(Action::Refund));
}

#[test]
fn a_crash_between_the_note_and_the_call_is_inquired_never_repeated() {
    let mut story = Story::new();
    story.until_sent(Idempotency::None);
    assert_eq!(story.case.next.map(|next| next.at), Some(story.now.plus(story.policy.settle_call)));
    let again = apply(&story.case, &Event::Begin, &story.policy, story.now).expect("applies");
    assert_eq!(again.case.sends, 1, "beginning again begins nothing");
}

#[test]
fn two_clerks_end_what_nobody_can_find_out() {
    let mut story = Story::new();
    story.until_sent(Idempotency::None).tell(&Event::Settled(Answer::Unknown("DEPARTMENT_TIMEOUT".into()))).time_out();
    story.stands(State::NeedsClerk, Some(Step::Settle), Some(Action::InquireSettle));
    assert_eq!(
        story.try_tell(&decide(Decision::SendAgain, "a", "phone call")).err(),
        Some(Refused::DecisionNotAllowed),
        "never told twice"
    );
    story.tell(&decide(Decision::DepartmentDidIt, "a", "S-1"));
    assert_eq!(story.try_tell(&decide(Decision::DepartmentDidIt, "a", "S-1")).err(), Some(Refused::SameClerk));
    story.tell(&decide(Decision::DepartmentDidIt, "b", "S-2"));
    story.stands(State::NeedsClerk, Some(Step::Settle), Some(Action::InquireSettle));
    story.tell(&decide(Decision::DepartmentDidIt, "a", "S-2"));
    story.stands(State::Sent, Some(Step::Post), Some(Action::Post));
    assert_eq!(story.case.proof.as_ref().map(|proof| proof.serial.as_str()), Some("S-2"));
    assert_eq!(story.try_tell(&decide(Decision::Refund, "b", "x")).err(), Some(Refused::TaskNotOpen));
}

#[test]
fn a_task_that_nobody_decides_escalates_and_an_answer_ends_it() {
    let mut story = Story::new();
    story.until_sent(Idempotency::Key).tell(&Event::Settled(Answer::Pending)).time_out();
    for escalations in 1..4 {
        story.time_out();
        assert_eq!(story.case.task.as_ref().map(|task| task.escalations), Some(escalations));
    }
    story.tell(&decide(Decision::Refund, "a", "letter 7"));
    story.tell(&Event::Inquired(Answer::Done(proof()))).stands(State::Sent, Some(Step::Post), Some(Action::Post));
}

#[test]
fn an_answer_beats_a_refund_that_was_decided_and_not_begun() {
    let mut story = Story::new();
    story.until_sent(Idempotency::Key).tell(&Event::Settled(Answer::Pending)).time_out();
    story.tell(&decide(Decision::Refund, "a", "letter 7")).tell(&decide(Decision::Refund, "b", "letter 8"));
    story.stands(State::Refunding, Some(Step::Refund), Some(Action::Refund));
    let mut begun = Story { case: story.case.clone(), lines: Vec::new(), ..story };
    story = Story { case: begun.case.clone(), lines: Vec::new(), ..begun };
    story.tell(&Event::Inquired(Answer::Done(proof()))).stands(State::Sent, Some(Step::Post), Some(Action::Post));

    begun = Story { case: begun.case, lines: Vec::new(), ..story };
    begun.tell(&refund(RefundState::Processing)).tell(&Event::Inquired(Answer::Done(proof())));
    begun.stands(State::Refunding, Some(Step::Refund), Some(Action::FindRefund));
    assert_eq!(begun.lines.last().map(|line| line.reason.as_ref()), Some("DONE_AFTER_REFUND"));
}

#[test]
fn a_failed_refund_is_tried_anew_when_two_clerks_say_so() {
    let mut story = Story::new();
    story.until_sent(Idempotency::Key).tell(&Event::Settled(Answer::Rejected(refused("CLOSED_ACCOUNT"))));
    story.tell(&refund(RefundState::Failed)).stands(State::NeedsClerk, Some(Step::Refund), Some(Action::FindRefund));
    for decision in [Decision::SendAgain, Decision::DepartmentDidIt] {
        assert_eq!(story.try_tell(&decide(decision, "a", "x")).err(), Some(Refused::DecisionNotAllowed));
    }
    story.tell(&decide(Decision::Refund, "a", "bank letter")).tell(&decide(Decision::Refund, "b", "bank letter"));
    story.stands(State::Refunding, Some(Step::Refund), Some(Action::Refund));
    assert_eq!(story.case.refund, Refund { round: 1, id: None, failed: false }, "a new key");
    story.tell(&refund(RefundState::Succeeded)).ends(State::Refunded);
}

#[test]
fn the_ledger_is_asked_until_it_posts() {
    let mut story = Story::new();
    story.until_sent(Idempotency::Key).tell(&Event::Settled(Answer::Done(proof())));
    story.tell(&Event::Posted(OrderAnswer::Unknown("STORE_UNAVAILABLE".into())));
    story.stands(State::Unknown, Some(Step::Post), Some(Action::Post)).time_out();
    story.stands(State::NeedsClerk, Some(Step::Post), Some(Action::Post));
    assert_eq!(story.try_tell(&decide(Decision::Refund, "a", "x")).err(), Some(Refused::DecisionNotAllowed));
    let posted = Event::Posted(view(OrderState::Posted, story.now));
    story.tell(&posted).ends(State::Done);
}

#[test]
fn a_code_of_a_peer_is_kept_only_if_it_is_one() {
    for (sent, kept) in [("ALREADY_PAID", "ALREADY_PAID"), ("湘A12345", "UNNAMED"), ("", "UNNAMED"), ("a b", "UNNAMED")]
    {
        let mut story = Story::new();
        story.tell(&Event::Begin).tell(&Event::Locked(Answer::Rejected(refused(sent)))).ends(State::Rejected);
        assert_eq!(story.lines.last().map(|line| line.note.as_str()), Some(kept));
    }
}
