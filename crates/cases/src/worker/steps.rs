//! One action of one case: what must survive a crash is noted, the call is made, what it brought is stored.

use store::lease::Lease;

use crate::domain::{Action, Answer, Event, Proof, State};
use crate::engine::{Engine, Standing};
use crate::error::Error;
use crate::repo::File;

/// The crash points around the call of an action.
fn points(action: Action) -> (&'static str, &'static str) {
    match action {
        Action::Lock => ("cases.lock.before_send", "cases.lock.after_answer"),
        Action::CreateOrder => ("cases.order.before_send", "cases.order.after_answer"),
        Action::FindOrder => ("cases.find_order.before_send", "cases.find_order.after_answer"),
        Action::RefreshOrder => ("cases.refresh.before_send", "cases.refresh.after_answer"),
        Action::CloseOrder => ("cases.close.before_send", "cases.close.after_answer"),
        Action::Release => ("cases.release.before_send", "cases.release.after_answer"),
        Action::Settle => ("cases.settle.before_send", "cases.settle.after_answer"),
        Action::InquireSettle => ("cases.inquire.before_send", "cases.inquire.after_answer"),
        Action::Post => ("cases.post.before_send", "cases.post.after_answer"),
        Action::Refund => ("cases.refund.before_send", "cases.refund.after_answer"),
        Action::FindRefund => ("cases.find_refund.before_send", "cases.find_refund.after_answer"),
    }
}

/// Takes the next action of a leased case.
pub(super) async fn act(engine: &Engine, lease: &Lease, file: &File, action: Action) -> Result<Standing, Error> {
    match action {
        Action::Lock if file.case.state == State::Accepted => match engine.note(lease, file.case.id).await? {
            Standing::Mine(noted) if noted.case.state == State::Confirming => {
                call(engine, lease, &noted, Action::Lock).await
            }
            other => Ok(other),
        },
        Action::Settle => settle(engine, lease, file).await,
        _ => call(engine, lease, file, action).await,
    }
}

/// Tells the department of the payment: first the payment is read, then the settlement is noted, and only then it leaves.
async fn settle(engine: &Engine, lease: &Lease, file: &File) -> Result<Standing, Error> {
    if file.case.payment.is_none() {
        let read = Event::PaymentRead(engine.peers.find_order(file).await);
        return engine.advance(lease, file.case.id, &read).await;
    }
    engine.context.crash.point("cases.settle.before_note");
    match engine.note(lease, file.case.id).await? {
        Standing::Mine(noted) if noted.case.sends > file.case.sends => {
            call(engine, lease, &noted, Action::Settle).await
        }
        other => Ok(other),
    }
}

/// The domain does not take an adapter's word that nothing happened before the quiet period is over. Such a word is a fault of the adapter
/// that nobody would notice otherwise.
fn tell_early(engine: &Engine, file: &File, answer: &Answer<Proof>) {
    let case = &file.case;
    let (Answer::Rejected(rejection), Some(sent_at), Some(rules)) = (answer, case.sent_at, case.rules) else { return };
    if rejection.code == "NEVER_HAPPENED" && engine.context.clock.now().since(sent_at) < rules.quiet_period {
        tracing::warn!(case_id = %case.id, "an adapter says too early that a settlement never happened: it is not believed");
    }
}

async fn call(engine: &Engine, lease: &Lease, file: &File, action: Action) -> Result<Standing, Error> {
    let (before, after) = points(action);
    engine.context.crash.point(before);
    let peers = &engine.peers;
    let event = match action {
        Action::Lock => Event::Locked(peers.lock(file).await?),
        Action::CreateOrder => Event::Ordered(Box::pin(peers.create_order(file)).await?),
        Action::FindOrder => Event::Ordered(peers.find_order(file).await),
        Action::RefreshOrder => Event::Ordered(peers.refresh_order(file).await?),
        Action::CloseOrder => Event::Ordered(peers.close_order(file).await?),
        Action::Release => Event::Released(peers.release(file).await?),
        Action::Settle => Event::Settled(peers.settle(file).await?),
        Action::InquireSettle => {
            let answer = peers.inquire(file).await?;
            tell_early(engine, file, &answer);
            Event::Inquired(answer)
        }
        Action::Post => Event::Posted(peers.post_order(file).await?),
        Action::Refund => Event::Refunded(peers.refund(file).await?),
        Action::FindRefund => Event::Refunded(peers.find_refund(file).await),
    };
    engine.context.crash.point(after);
    engine.advance(lease, file.case.id, &event).await
}
