//! Mixed orders as the seam knows them: one order with two legs, of which the cash leg is an order of WeChat's own.

use contracts::money::{Currency, Money};
use runtime::secret::Pii;

use super::driver::{SHEET_LIFE, WechatPay, possible, unsent};
use super::mixed::{Mixed, MixedError, MixedStatus, Returned};
use super::trust::Trust;
use crate::channel::{ChannelError, OrderStatus, Patient, PaySheet, RefundStatus};
use crate::domain::insurance::{Insured, LegState, Legs, Standing};
use crate::domain::order::{Capture, Terms, TradeType};
use crate::domain::refund::{Decision, Refund};

/// What the client needs to pay a mixed order.
const SHEET_FIELD: &str = "mix_trade_no";
/// A code of ours: who is treated can be sealed for WeChat's public key alone, and the merchant account knows none.
const NO_PUBLIC_KEY: &str = "PUBLIC_KEY_NEEDED";
/// WeChat's own code for a split that it refuses.
const SPLIT_REFUSED: &str = "RULE_LIMIT";

impl WechatPay {
    /// Creates a mixed order, or repeats its creation.
    pub(super) async fn create_insured(
        &self,
        terms: &Terms,
        insured: &Insured,
        payer: Option<&Pii<String>>,
    ) -> Result<PaySheet, ChannelError> {
        let account = self.account(&terms.merchant.number).ok_or_else(|| unsent("no keys for the merchant"))?;
        if !matches!(account.trust, Trust::Keys(_)) {
            return Err(ChannelError::Refused { code: NO_PUBLIC_KEY.to_owned() });
        }
        let (openid, patient) = payer.and_then(Patient::read).ok_or_else(|| unsent("no payer"))?;
        let mix_trade_no = match self.create_mixed(terms, &Mixed::of(insured, patient), &openid).await {
            Ok(told) => told.mix_trade_no,
            // WeChat takes a number once: an order whose answer was lost is there, and says by which number it is paid.
            Err(MixedError::Channel(error @ (ChannelError::Refused { .. } | ChannelError::Otherwise { .. }))) => {
                let known = self.told_mixed(terms, insured.mix, &insured.split, None).await;
                known.map(|(told, _)| told.mix_trade_no).map_err(|_| error)?
            }
            Err(MixedError::Channel(error)) => return Err(error),
            // It was held against the same rules before it was kept.
            Err(MixedError::Wrong(_)) => return Err(ChannelError::Refused { code: SPLIT_REFUSED.to_owned() }),
        };
        let mut sheet = PaySheet::empty(TradeType::Jsapi, terms.expire_at.min(self.now().plus(SHEET_LIFE)));
        sheet.jsapi.insert(SHEET_FIELD.to_owned(), mix_trade_no);
        Ok(sheet)
    }

    /// Asks how a mixed order stands. The whole decides; where that says nothing, its cash leg may be closed, and with it the whole.
    pub(super) async fn ask_insured(&self, terms: &Terms, insured: &Insured) -> Result<OrderStatus, ChannelError> {
        let told = self.told_mixed(terms, insured.mix, &insured.split, None).await;
        let (status, insurance) = match told {
            Ok(told) => told,
            Err(ChannelError::NotKnown) if insured.mix.has_cash() => return self.ask_cash_alone(terms).await,
            Err(error) => return Err(error),
        };
        Ok(match status.standing {
            Standing::Paid => OrderStatus::Paid(capture(insured, status)?),
            Standing::Failed => OrderStatus::Closed,
            Standing::Differs => OrderStatus::Differs("legs"),
            Standing::Half { cash: false, insurance } => OrderStatus::Half { cash: None, insurance },
            // What of it came, the order of the cash leg says.
            Standing::Half { cash: true, insurance } => match self.query_order(terms).await? {
                OrderStatus::Paid(capture) => OrderStatus::Half { cash: Some(capture), insurance },
                _ => OrderStatus::Differs("self_pay_status"),
            },
            Standing::Pending if insured.mix.has_cash() => match self.query_order(terms).await {
                Ok(OrderStatus::Closed) if insurance == LegState::Paid => {
                    OrderStatus::Half { cash: None, insurance: true }
                }
                Ok(OrderStatus::Closed) => OrderStatus::Closed,
                Ok(_) | Err(ChannelError::NotKnown) => OrderStatus::Pending,
                Err(error) => return Err(error),
            },
            Standing::Pending => OrderStatus::Pending,
        })
    }

    /// WeChat does not know the whole: its cash leg may exist all the same, and be there to be closed.
    async fn ask_cash_alone(&self, terms: &Terms) -> Result<OrderStatus, ChannelError> {
        Ok(match self.query_order(terms).await? {
            // Nobody has a pay sheet of it.
            OrderStatus::Paid(_) => OrderStatus::Differs("cash leg without the whole"),
            status => status,
        })
    }

    /// Sends a refund of a mixed order, or repeats it: the cash leg as any refund; when that has gone back, or where there is none, WeChat
    /// is told of what the insurance centre gave back, under the same number.
    pub(super) async fn give_back(
        &self,
        terms: &Terms,
        insured: &Insured,
        refund: &Refund,
    ) -> Result<RefundStatus, ChannelError> {
        let legs = refund.legs.ok_or_else(|| unsent("legs of the refund"))?;
        if legs.cash == 0 {
            return self.tell_insurance(terms, insured, refund, legs).await.map(|at| succeeded(refund, at));
        }
        let status = self.send_refund(terms, refund).await?;
        self.then_insurance(terms, insured, refund, status).await
    }

    /// Asks how a refund of a mixed order stands. Of what the insurance gets back WeChat cannot be asked, but be told again.
    pub(super) async fn ask_back(
        &self,
        terms: &Terms,
        insured: &Insured,
        refund: &Refund,
    ) -> Result<RefundStatus, ChannelError> {
        if refund.legs.is_none_or(|legs| legs.cash == 0) {
            return Err(ChannelError::NotKnown);
        }
        let status = self.ask_refund(terms, refund).await?;
        self.then_insurance(terms, insured, refund, status).await
    }

    /// Goes on with the insurance's leg when the cash leg has gone back.
    async fn then_insurance(
        &self,
        terms: &Terms,
        insured: &Insured,
        refund: &Refund,
        status: RefundStatus,
    ) -> Result<RefundStatus, ChannelError> {
        let legs = refund.legs.unwrap_or_default();
        let RefundStatus::Decided(Decision::Succeeded { channel_refund, at }) = &status else { return Ok(status) };
        if legs == legs.cash_alone() {
            return Ok(status);
        }
        match self.tell_insurance(terms, insured, refund, legs).await {
            Ok(_) => Ok(status),
            Err(ChannelError::Refused { code } | ChannelError::Otherwise { code }) => {
                Ok(RefundStatus::Decided(Decision::Half { channel_refund: channel_refund.clone(), at: *at, code }))
            }
            Err(error) => Err(possible("the cash leg has gone back", error)),
        }
    }

    /// Tells WeChat what the insurance centre gave back; hands back when that was. Which number WeChat knows the whole by, it says itself.
    async fn tell_insurance(
        &self,
        terms: &Terms,
        insured: &Insured,
        refund: &Refund,
        legs: Legs,
    ) -> Result<runtime::Timestamp, ChannelError> {
        let at = refund.insurance_returned_at.ok_or_else(|| unsent("time of the insurance's refund"))?;
        let known = self.told_mixed(terms, insured.mix, &insured.split, None).await;
        // Nothing was told by asking: that it is not known now proves nothing about the refund.
        let (status, _) = known.map_err(|error| match error {
            ChannelError::NoAnswer { what, source, .. } => {
                ChannelError::NoAnswer { effect: runtime::http::Effect::None, what, source }
            }
            ChannelError::NotNow { code } => ChannelError::NotNow { code },
            _ => unsent("number of the whole"),
        })?;
        let returned = Returned { out_refund_no: refund.channel_refund_no(), funds: legs.funds, at };
        self.tell_returned(terms, &status.mix_trade_no, &returned).await.map(|()| at)
    }
}

impl Mixed {
    fn of(insured: &Insured, patient: Patient) -> Self {
        let insured = insured.clone();
        Self {
            mix: insured.mix,
            order_type: insured.order_type,
            split: insured.split,
            payer: patient.payer,
            relative: patient.relative,
            serial_no: insured.serial_no,
            pay_order_id: insured.pay_order_id,
            pay_auth_no: patient.pay_auth_no,
            geo_location: patient.geo_location,
            insurance_created_at: insured.insurance_created_at,
            city_id: insured.city_id,
            institution_no: insured.institution_no,
            institution_name: insured.institution_name,
        }
    }
}

/// What came in on all legs, under WeChat's number of the whole.
fn capture(insured: &Insured, status: MixedStatus) -> Result<Capture, ChannelError> {
    let amount = Legs::of(&insured.split).sum().and_then(|minor| Money::new(minor, Currency::CNY).ok());
    let amount = amount.ok_or_else(|| ChannelError::unusable("sums"))?;
    let at = status.paid_at.ok_or_else(|| ChannelError::unusable("paid_time"))?;
    Ok(Capture { amount, transaction: status.mix_trade_no, at })
}

/// WeChat gives a refund of insurance alone no number of its own.
fn succeeded(refund: &Refund, at: runtime::Timestamp) -> RefundStatus {
    RefundStatus::Decided(Decision::Succeeded { channel_refund: refund.channel_refund_no(), at })
}
