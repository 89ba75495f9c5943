use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::*;

/// What is really true at the department, the channel and the ledger: what the case has to find out.
struct World {
    now: Timestamp,
    idempotency: Idempotency,
    /// The channel's and the ledger's truth about the order.
    order: Option<OrderState>,
    expires: Timestamp,
    late: bool,
    /// How often the department booked the settlement.
    booked: u32,
    /// A settlement that is still on the wire arrives then.
    on_the_wire: Option<Timestamp>,
    refused: bool,
    refund: Option<RefundState>,
    events: Vec<MoneyEvent>,
    /// Clerks may be wrong; what they decide is theirs.
    clerk_decided: bool,
    calm: bool,
}

type Outcome = Result<(), TestCaseError>;

impl World {
    fn new(idempotency: Idempotency) -> Self {
        Self {
            now: START,
            idempotency,
            order: None,
            expires: START,
            late: false,
            booked: 0,
            on_the_wire: None,
            refused: false,
            refund: None,
            events: Vec::new(),
            clerk_decided: false,
            calm: false,
        }
    }

    fn pass(&mut self, to: Timestamp) {
        self.now = self.now.max(to);
        if self.on_the_wire.is_some_and(|at| at <= self.now) {
            self.on_the_wire = None;
            self.book();
        }
    }

    fn book(&mut self) {
        match self.idempotency {
            Idempotency::None => self.booked += 1,
            Idempotency::Key | Idempotency::ByBill => self.booked = 1,
        }
    }

    fn order_answer(&self) -> OrderAnswer {
        let Some(state) = self.order else { return OrderAnswer::NotFound };
        let took =
            matches!(state, OrderState::Paid | OrderState::Posted | OrderState::Refunding | OrderState::Refunded);
        let payment = took.then(|| Payment { at: self.now, transaction: "4200".to_owned() });
        let (expires, late) = (self.expires, self.late);
        OrderAnswer::Order(OrderView { id: "ord_1".to_owned(), state, expires, payment, late, lingers: false })
    }

    /// Turns an answer that was given into one that arrives: perhaps not at all.
    fn order_arrives(&self, luck: u8) -> OrderAnswer {
        match luck % 4 {
            0 if !self.calm => OrderAnswer::Unknown("PEER_UNAVAILABLE".to_owned()),
            _ => self.order_answer(),
        }
    }

    fn lock(&mut self, luck: u8) -> Answer<Locked> {
        let until = self.now.plus(secs(1_800));
        let locked = Answer::Done(Locked { until, rules: rules(self.idempotency), payment_code: None, changed: false });
        match luck % 8 {
            _ if self.calm => locked,
            0 => Answer::Unknown("DEPARTMENT_TIMEOUT".to_owned()),
            1 => Answer::NotSent(not_sent(false)),
            2 if luck > 200 => Answer::Rejected(refused("RECORD_CHANGED")),
            3 => Answer::Pending,
            4 if luck > 200 => Answer::NotSent(not_sent(true)),
            _ => locked,
        }
    }

    fn create(&mut self, luck: u8) -> OrderAnswer {
        if !self.calm && luck.is_multiple_of(5) {
            return OrderAnswer::NotSent(not_sent(false));
        }
        if self.order.is_none() && (self.calm || !luck.is_multiple_of(7)) {
            self.order = Some(if luck.is_multiple_of(3) { OrderState::Creating } else { OrderState::Waiting });
            self.expires = self.now.plus(secs(900));
        }
        match self.order {
            None => OrderAnswer::Unknown("PEER_UNAVAILABLE".to_owned()),
            Some(_) => self.order_arrives(luck),
        }
    }

    fn refresh(&mut self, luck: u8) -> OrderAnswer {
        if self.order == Some(OrderState::Creating) && (self.calm || luck.is_multiple_of(2)) {
            self.order = Some(OrderState::Waiting);
        }
        self.order_arrives(luck)
    }

    fn close(&mut self, luck: u8) -> OrderAnswer {
        let open = matches!(self.order, Some(OrderState::Creating | OrderState::Waiting));
        if open && (self.calm || !luck.is_multiple_of(3)) {
            self.order = Some(OrderState::Closed);
        }
        self.order_arrives(luck / 3)
    }

    fn settle(&mut self, luck: u8) -> Answer<Proof> {
        if self.booked > 0 && self.idempotency == Idempotency::ByBill {
            return Answer::Rejected(refused("ALREADY_PAID"));
        }
        match luck % 9 {
            _ if self.calm && !self.refused => self.settle_now(),
            _ if self.refused => Answer::Rejected(refused("ACCOUNT_CLOSED")),
            0 => Answer::NotSent(not_sent(luck > 200)),
            1 => Answer::Unknown("DEPARTMENT_TIMEOUT".to_owned()),
            2 => {
                self.book();
                Answer::Unknown("REPLY_UNREADABLE".to_owned())
            }
            3 => {
                self.on_the_wire = Some(self.now.plus(secs(u64::from(luck) % 60)));
                Answer::Unknown("DEPARTMENT_TIMEOUT".to_owned())
            }
            4 if self.booked == 0 => {
                self.refused = true;
                Answer::Rejected(refused("ACCOUNT_CLOSED"))
            }
            5 => {
                self.on_the_wire = Some(self.now.plus(secs(u64::from(luck) % 60)));
                Answer::Pending
            }
            _ => self.settle_now(),
        }
    }

    fn settle_now(&mut self) -> Answer<Proof> {
        self.book();
        Answer::Done(proof())
    }

    fn inquire(&mut self, luck: u8, sent_at: Timestamp) -> Answer<Proof> {
        if !self.calm && luck.is_multiple_of(3) {
            return match luck % 2 {
                0 => Answer::Unknown("DEPARTMENT_UNREACHABLE".to_owned()),
                _ => Answer::NotSent(not_sent(false)),
            };
        }
        let quiet = self.now.since(sent_at) >= secs(60);
        match () {
            () if self.booked > 0 => Answer::Done(proof()),
            () if self.refused => Answer::Rejected(refused("ACCOUNT_CLOSED")),
            // An adapter that forgets the quiet period is caught by the case itself.
            () if quiet || luck.is_multiple_of(2) => Answer::Rejected(refused("NEVER_HAPPENED")),
            () => Answer::Pending,
        }
    }

    fn post(&mut self, luck: u8) -> OrderAnswer {
        if self.order == Some(OrderState::Paid) {
            self.order = Some(OrderState::Posted);
        }
        self.order_arrives(luck)
    }

    fn refund(&mut self, luck: u8) -> RefundAnswer {
        if !self.calm && luck.is_multiple_of(4) {
            return RefundAnswer::NotSent(not_sent(false));
        }
        if self.refund.is_none() {
            self.refund = Some(RefundState::Processing);
            self.order = Some(OrderState::Refunding);
        }
        self.find_refund(luck)
    }

    fn find_refund(&mut self, luck: u8) -> RefundAnswer {
        if !self.calm && luck.is_multiple_of(5) {
            return RefundAnswer::Unknown("PEER_UNAVAILABLE".to_owned());
        }
        match self.refund {
            None => return RefundAnswer::NotFound,
            Some(RefundState::Processing) if self.calm || luck.is_multiple_of(2) => {
                let fails = !self.calm && luck.is_multiple_of(6);
                self.refund = Some(if fails { RefundState::Failed } else { RefundState::Succeeded });
                if !fails {
                    self.order = Some(OrderState::Refunded);
                }
            }
            Some(_) => {}
        }
        let state = self.refund.unwrap_or(RefundState::Processing);
        RefundAnswer::Refund(RefundView { id: "rfd_1".to_owned(), state })
    }

    /// The citizen pays, if the channel lets him.
    fn pay(&mut self) {
        match self.order {
            Some(OrderState::Waiting) => {
                self.order = Some(OrderState::Paid);
                self.events.extend([MoneyEvent::Paid, MoneyEvent::Paid]);
            }
            Some(OrderState::Closed) if !self.late => {
                self.order = Some(OrderState::Paid);
                self.late = true;
                self.events.extend([MoneyEvent::Late, MoneyEvent::Moved]);
            }
            _ => {}
        }
    }
}

/// A case in its world.
struct Life {
    story: Story,
    world: World,
}

impl Life {
    fn tell(&mut self, event: &Event) -> Outcome {
        self.story.now = self.world.now;
        let before = self.story.case.clone();
        if self.story.try_tell(event).is_err() {
            return Ok(());
        }
        let case = &self.story.case;
        if case.step == Some(Step::Refund) && before.step != Some(Step::Refund) && !self.world.clerk_decided {
            prop_assert_eq!(self.world.booked, 0, "refunded what the department has booked: {:?}", event);
            prop_assert_eq!(self.world.on_the_wire, None, "refunded while a settlement is under way: {:?}", event);
        }
        Ok(())
    }

    /// Does what a worker does: the deadline first, then the next action.
    fn work(&mut self, luck: u8) -> Outcome {
        let Some(due) = self.story.case.due_at() else { return Ok(()) };
        self.world.pass(due);
        if self.story.case.resolve_by.is_some_and(|by| by <= self.world.now) {
            return self.tell(&Event::Tick);
        }
        let Some(next) = self.story.case.next.filter(|next| next.at <= self.world.now) else { return Ok(()) };
        let world = &mut self.world;
        let event = match next.action {
            Action::Lock => {
                self.tell(&Event::Begin)?;
                Event::Locked(self.world.lock(luck))
            }
            Action::CreateOrder => Event::Ordered(world.create(luck)),
            Action::FindOrder | Action::RefreshOrder => Event::Ordered(world.refresh(luck)),
            Action::CloseOrder => Event::Ordered(world.close(luck)),
            Action::Release => Event::Released(if luck.is_multiple_of(3) { Answer::Pending } else { Answer::Done(()) }),
            Action::Settle if self.story.case.payment.is_none() => Event::PaymentRead(world.order_arrives(luck)),
            Action::Settle => return self.settle(luck),
            Action::InquireSettle => {
                let sent_at = self.story.case.sent_at.unwrap_or(self.world.now);
                Event::Inquired(self.world.inquire(luck, sent_at))
            }
            Action::Post => Event::Posted(world.post(luck)),
            Action::Refund => Event::Refunded(world.refund(luck)),
            Action::FindRefund => Event::Refunded(world.find_refund(luck)),
        };
        self.tell(&event)
    }

    fn settle(&mut self, luck: u8) -> Outcome {
        let sends = self.story.case.sends;
        self.tell(&Event::Begin)?;
        if self.story.case.sends == sends {
            return Ok(());
        }
        let answer = self.world.settle(luck);
        prop_assert!(
            self.world.idempotency != Idempotency::None || self.world.booked <= 1,
            "a department that cannot recognise a repetition was told twice"
        );
        // The worker dies before it can write the answer down.
        let dies = !self.world.calm && luck.is_multiple_of(11);
        if dies { Ok(()) } else { self.tell(&Event::Settled(answer)) }
    }

    fn act(&mut self, op: u8, luck: u8) -> Outcome {
        match op % 16 {
            0..=7 => self.work(luck),
            8 | 9 => {
                self.world.pay();
                Ok(())
            }
            10 | 11 => {
                let told = if self.world.events.is_empty() { return Ok(()) } else { self.world.events.remove(0) };
                self.tell(&money(told))
            }
            12 if luck < 128 => self.tell(&Event::Cancel),
            13 if luck < 96 => {
                let decision =
                    [Decision::DepartmentDidIt, Decision::SendAgain, Decision::Refund][usize::from(luck % 3)];
                let clerk = if luck.is_multiple_of(2) { "a" } else { "b" };
                let open = self.story.case.task.is_some();
                self.world.clerk_decided |= open && (decision != Decision::SendAgain);
                if decision == Decision::Refund && self.world.refund == Some(RefundState::Failed) {
                    self.world.refund = None;
                }
                self.tell(&decide(decision, clerk, "S-1"))
            }
            _ => {
                let later = self.world.now.plus(secs(u64::from(luck)));
                self.world.pass(later);
                Ok(())
            }
        }
    }

    /// Everybody behaves from here on: the case must end by itself, at most with the clerks' help after a failed refund.
    fn settle_down(&mut self) -> Outcome {
        self.world.calm = true;
        for luck in (1..=255_u8).cycle().take(4_000) {
            while let Some(event) = self.world.events.pop() {
                self.tell(&money(event))?;
            }
            if self.story.case.state.is_terminal() {
                return Ok(());
            }
            if self.story.case.refund.failed {
                self.world.refund = None;
                self.tell(&decide(Decision::Refund, "a", "letter"))?;
                self.tell(&decide(Decision::Refund, "b", "letter"))?;
            }
            self.work(luck)?;
        }
        Err(TestCaseError::fail(format!("does not end: {:?}", self.story.case)))
    }

    fn judge(&self) -> Outcome {
        let (case, world) = (&self.story.case, &self.world);
        let took = matches!(
            world.order,
            Some(OrderState::Paid | OrderState::Posted | OrderState::Refunding | OrderState::Refunded)
        );
        match case.state {
            State::Done => {
                prop_assert_eq!(world.order, Some(OrderState::Posted));
                prop_assert!(world.booked == 1 || world.clerk_decided);
                prop_assert_eq!(self.story.late_money, 0);
            }
            State::Refunded => {
                prop_assert_eq!(world.refund, Some(RefundState::Succeeded));
                prop_assert!(world.booked == 0 || world.clerk_decided);
                prop_assert_eq!(self.story.late_money, 0);
            }
            _ => {
                prop_assert_eq!(world.booked, 0, "nothing was paid, nothing is booked");
                prop_assert_eq!(self.story.late_money, u32::from(took), "late money goes back by a case of its own");
                prop_assert!(world.order.is_none_or(|order| order == OrderState::Closed || took));
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any order of work, money, cancellations, clerks, waiting and crashes: the case always ends, and rightly.
    #[test]
    fn every_life_ends_and_no_money_is_lost_or_doubled(
        idempotency in prop_oneof![Just(Idempotency::Key), Just(Idempotency::ByBill), Just(Idempotency::None)],
        id: u128,
        acts in proptest::collection::vec(any::<(u8, u8)>(), 0..160),
    ) {
        let mut story = Story::new();
        story.case.id = CaseId::new(id);
        let mut life = Life { story, world: World::new(idempotency) };
        for (op, luck) in acts {
            life.act(op, luck)?;
        }
        life.settle_down()?;
        life.judge()?;
    }
}
