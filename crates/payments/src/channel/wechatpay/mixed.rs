//! Mixed orders of WeChat Pay (医保自费混合收款): what the insurance pays and what the citizen pays of a hospital's bill, as one.
//!
//! The cash leg is an order of its own, made first: its session is named in the mixed order, and it is refunded as any other. The
//! insurance's money never passes here: its refund happens at the insurance centre, and WeChat is told of it. Who is treated is sealed
//! for WeChat's public key, so that only accounts in public-key mode can have mixed orders.

use contracts::money::{Currency, Money};
use http::Method;
use md5::{Digest, Md5};
use runtime::Timestamp;
use runtime::secret::Pii;
use serde::{Deserialize, Serialize};

use super::driver::{WechatPay, json, possible, unsent};
use super::keys::Account;
use super::trust::{PublicKey, Trust};
use super::wire::{self, CreateBody, CreatedBody};
use crate::channel::ChannelError;
pub use crate::channel::Person;
use crate::domain::insurance::{Funds, LegState, MixType, Papers, Split, Standing, Wrong, standing};
use crate::domain::order::{Terms, TradeType};

/// WeChat's code for a number that has a mixed order already.
const MADE_BEFORE: &str = "ALREADY_EXISTS";

/// What a mixed order says beyond an order. Personal: who is treated, where they are, and what lets the insurance be charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mixed {
    /// Who pays.
    pub mix: MixType,
    /// What for, in WeChat's words: `REG_PAY`, `DIAG_PAY` and others.
    pub order_type: String,
    /// How the bill is split; its total is the order's amount.
    pub split: Split,
    /// Who pays and, unless another is named, is treated.
    pub payer: Person,
    /// The relative who is treated instead.
    pub relative: Option<Person>,
    /// The hospital's own number of the bill.
    pub serial_no: String,
    /// The insurance centre's number of the payment.
    pub pay_order_id: Option<String>,
    /// The citizen's authorisation.
    pub pay_auth_no: Option<Pii<String>>,
    /// Where the citizen is: longitude and latitude.
    pub geo_location: Option<Pii<String>>,
    /// When the insurance centre took the order.
    pub insurance_created_at: Option<Timestamp>,
    /// WeChat's own code of the city, which need not be the state's.
    pub city_id: String,
    /// The medical institution's number.
    pub institution_no: String,
    /// Its name.
    pub institution_name: String,
}

/// How WeChat names an identity number: MD5 of it in capitals, lower-case hexadecimal. It hides nothing, since there are few numbers: it
/// is as personal as the number.
pub fn id_digest(number: &Pii<String>) -> Pii<String> {
    Pii::new(hex::encode(Md5::digest(number.expose().to_ascii_uppercase())))
}

/// Why there is no answer about a mixed order.
#[derive(Debug, thiserror::Error)]
pub enum MixedError {
    /// The order is wrong in itself; nothing was sent.
    #[error("the mixed order is wrong")]
    Wrong(#[from] Wrong),
    /// The channel.
    #[error("the channel did not do it")]
    Channel(#[from] ChannelError),
}

/// What WeChat says of a mixed order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MixedStatus {
    /// Its number of the whole.
    pub mix_trade_no: String,
    /// How it stands.
    pub standing: Standing,
    /// When it was paid, where it is.
    pub paid_at: Option<Timestamp>,
}

/// A refund that the insurance centre has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// Our number of the refund; that of the cash leg's refund too, where there is one.
    pub out_refund_no: String,
    /// What went back to each fund.
    pub funds: Funds,
    /// When.
    pub at: Timestamp,
}

#[derive(Serialize)]
struct MixedBody<'a> {
    mix_pay_type: String,
    order_type: &'a str,
    appid: &'a str,
    openid: &'a str,
    payer: SealedPerson<'a>,
    pay_for_relatives: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    relative: Option<SealedPerson<'a>>,
    out_trade_no: &'a str,
    serial_no: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pay_order_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pay_auth_no: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    geo_location: Option<&'a str>,
    city_id: &'a str,
    med_inst_name: &'a str,
    med_inst_no: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    med_ins_order_create_time: Option<String>,
    total_fee: i64,
    med_ins_gov_fee: i64,
    med_ins_self_fee: i64,
    med_ins_other_fee: i64,
    med_ins_cash_fee: i64,
    wechat_pay_cash_fee: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cash_add_detail: Vec<Added>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cash_reduce_detail: Vec<Reduced>,
    callback_url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    prepay_id: Option<String>,
}

#[derive(Serialize)]
struct SealedPerson<'a> {
    name: String,
    id_digest: String,
    card_type: &'a str,
}

#[derive(Serialize)]
struct Added {
    cash_add_fee: i64,
    cash_add_type: String,
}

#[derive(Serialize)]
struct Reduced {
    cash_reduce_fee: i64,
    cash_reduce_type: String,
}

#[derive(Serialize)]
struct ReturnedBody<'a> {
    med_refund_total_fee: i64,
    med_refund_gov_fee: i64,
    med_refund_self_fee: i64,
    med_refund_other_fee: i64,
    refund_time: String,
    out_refund_no: &'a str,
}

/// A mixed order as the channel tells it: when it is made and, with the order and its sums, when it is asked for.
#[derive(Deserialize)]
struct Told {
    mix_trade_no: String,
    mix_pay_status: String,
    self_pay_status: String,
    med_ins_pay_status: String,
    #[serde(default)]
    paid_time: String,
    #[serde(default)]
    appid: String,
    #[serde(default)]
    out_trade_no: String,
    #[serde(default)]
    total_fee: i64,
    #[serde(default)]
    med_ins_gov_fee: i64,
    #[serde(default)]
    med_ins_self_fee: i64,
    #[serde(default)]
    med_ins_other_fee: i64,
    #[serde(default)]
    wechat_pay_cash_fee: i64,
}

impl Told {
    fn standing(&self, mix: MixType) -> Standing {
        let whole = state(&self.mix_pay_status, "MIX_PAY_", None);
        let cash = state(&self.self_pay_status, "SELF_PAY_", Some("NO_SELF_PAY"));
        let insurance = state(&self.med_ins_pay_status, "MED_INS_PAY_", Some("NO_MED_INS_PAY"));
        standing(mix, whole, cash, insurance)
    }

    /// What it says; Err names the field that is missing or senseless.
    fn status(self, standing: Standing) -> Result<MixedStatus, &'static str> {
        if !wire::is_prepay_id(&self.mix_trade_no) {
            return Err("mix_trade_no");
        }
        let paid_at = match standing {
            Standing::Paid => Some(wire::moment(&self.paid_time).ok_or("paid_time")?),
            Standing::Pending | Standing::Failed | Standing::Half { .. } | Standing::Differs => None,
        };
        Ok(MixedStatus { mix_trade_no: self.mix_trade_no, standing, paid_at })
    }

    fn has_sums_of(&self, split: &Split) -> bool {
        let funds =
            Funds { government: self.med_ins_gov_fee, personal: self.med_ins_self_fee, other: self.med_ins_other_fee };
        self.total_fee == split.total && funds == split.funds && self.wechat_pay_cash_fee == split.paid_in_cash
    }
}

/// What a status word says. One that is not known is pending.
fn state(word: &str, prefix: &str, absent: Option<&str>) -> LegState {
    match word.strip_prefix(prefix) {
        _ if Some(word) == absent => LegState::Absent,
        Some("SUCCESS") => LegState::Paid,
        Some("REFUND") => LegState::Returned,
        Some("FAIL") => LegState::Failed,
        _ => LegState::Pending,
    }
}

impl Mixed {
    /// Holds it against the rules, and against the order that it belongs to.
    fn check(&self, terms: &Terms) -> Result<(), MixedError> {
        self.split.check(self.mix)?;
        let papers = Papers {
            pay_order_id: self.pay_order_id.is_some(),
            pay_auth_no: self.pay_auth_no.is_some(),
            geo_location: self.geo_location.is_some(),
            insurance_created_at: self.insurance_created_at.is_some(),
        };
        papers.check(self.mix)?;
        let amount = (terms.amount.amount_minor(), terms.amount.currency());
        if amount != (self.split.total, Currency::CNY) || terms.trade_type != TradeType::Jsapi {
            return Err(unsent("order of a mixed order").into());
        }
        Ok(())
    }
}

impl Person {
    fn sealed<'a>(&'a self, to: &PublicKey) -> Option<SealedPerson<'a>> {
        Some(SealedPerson {
            name: to.key.encrypt(self.name.expose())?,
            id_digest: to.key.encrypt(self.id_digest.expose())?,
            card_type: &self.card_type,
        })
    }
}

impl WechatPay {
    /// Creates a mixed order, or repeats its creation: first the cash leg's order, where there is one, then the whole.
    ///
    /// Errors: Wrong, before anything is sent; Channel, also when the cash leg came to exist and the whole did not: it is closed as any
    /// order is.
    pub async fn create_mixed(
        &self,
        terms: &Terms,
        mixed: &Mixed,
        openid: &Pii<String>,
    ) -> Result<MixedStatus, MixedError> {
        mixed.check(terms)?;
        let account = self.account(&terms.merchant.number).ok_or_else(|| unsent("no keys for the merchant"))?;
        // All that can go wrong without WeChat goes wrong before it has heard anything.
        let mut body = body(terms, mixed, openid, account)?;
        if mixed.mix.has_cash() {
            body.prepay_id = Some(self.cash_leg(account, terms, mixed.split.paid_in_cash, openid).await?);
        }
        let told = match json(&body) {
            Ok(body) => self.made(account, terms, mixed, body).await,
            Err(error) => Err(error),
        };
        let told = told.map_err(|error| if mixed.mix.has_cash() { after_cash(error) } else { error })?;
        let standing = told.standing(mixed.mix);
        Ok(told.status(standing).map_err(ChannelError::unusable)?)
    }

    /// Asks how a mixed order stands; by WeChat's number where it is known, else by ours.
    pub async fn query_mixed(
        &self,
        terms: &Terms,
        mixed: &Mixed,
        mix_trade_no: Option<&str>,
    ) -> Result<MixedStatus, ChannelError> {
        self.told_mixed(terms, mixed.mix, &mixed.split, mix_trade_no).await.map(|(status, _)| status)
    }

    /// The same, with how the insurance's leg stands.
    pub(super) async fn told_mixed(
        &self,
        terms: &Terms,
        mix: MixType,
        split: &Split,
        mix_trade_no: Option<&str>,
    ) -> Result<(MixedStatus, LegState), ChannelError> {
        let account = self.account(&terms.merchant.number).ok_or_else(|| unsent("no keys for the merchant"))?;
        let target = match mix_trade_no {
            Some(number) if wire::is_prepay_id(number) => format!("/v3/med-ins/orders/mix-trade-no/{number}"),
            Some(_) => return Err(unsent("mix_trade_no")),
            None => format!("/v3/med-ins/orders/out-trade-no/{}", terms.channel_order_no),
        };
        let told: Told = self.ask("query_mixed", account, Method::GET, &target, String::new()).await?;
        let is_other = mix_trade_no.is_some_and(|number| number != told.mix_trade_no);
        if is_other || told.appid != terms.app_id || told.out_trade_no != terms.channel_order_no {
            return Err(ChannelError::unusable("answer about another order"));
        }
        let standing = match told.standing(mix) {
            Standing::Paid if !told.has_sums_of(split) => Standing::Differs,
            standing => standing,
        };
        let insurance = state(&told.med_ins_pay_status, "MED_INS_PAY_", Some("NO_MED_INS_PAY"));
        let status = told.status(standing).map_err(ChannelError::unusable)?;
        Ok((status, insurance))
    }

    /// Tells WeChat what the insurance centre gave back, or tells it again unchanged.
    pub async fn tell_returned(
        &self,
        terms: &Terms,
        mix_trade_no: &str,
        returned: &Returned,
    ) -> Result<(), ChannelError> {
        let account = self.account(&terms.merchant.number).ok_or_else(|| unsent("no keys for the merchant"))?;
        if !wire::is_prepay_id(mix_trade_no) {
            return Err(unsent("mix_trade_no"));
        }
        let body = json(&ReturnedBody {
            med_refund_total_fee: returned.funds.sum().ok_or_else(|| unsent("sums of the refund"))?,
            med_refund_gov_fee: returned.funds.government,
            med_refund_self_fee: returned.funds.personal,
            med_refund_other_fee: returned.funds.other,
            refund_time: wire::beijing(returned.at).ok_or_else(|| unsent("time of the refund"))?,
            out_refund_no: &returned.out_refund_no,
        })?;
        let target = format!("/v3/med-ins/refunds/notify?mix_trade_no={mix_trade_no}");
        self.call("tell_returned", account, Method::POST, &target, body).await.map(|_| ())
    }

    /// Makes the whole. WeChat refuses to hear of a number again, whatever it hears: then it is asked for what it made of it before.
    async fn made(&self, account: &Account, terms: &Terms, mixed: &Mixed, body: String) -> Result<Told, ChannelError> {
        match self.ask("create_mixed", account, Method::POST, "/v3/med-ins/orders", body).await {
            Err(ChannelError::Refused { code }) if code == MADE_BEFORE => {}
            told => return told,
        }
        let target = format!("/v3/med-ins/orders/out-trade-no/{}", terms.channel_order_no);
        let told = self.ask::<Told>("query_mixed", account, Method::GET, &target, String::new()).await;
        let is_same = |told: &Told| {
            (&told.appid, &told.out_trade_no) == (&terms.app_id, &terms.channel_order_no)
                && told.has_sums_of(&mixed.split)
        };
        let otherwise = || ChannelError::Otherwise { code: MADE_BEFORE.to_owned() };
        told.ok().filter(is_same).ok_or_else(otherwise)
    }

    /// Makes the cash leg's order, whose session the mixed order names.
    async fn cash_leg(
        &self,
        account: &Account,
        terms: &Terms,
        minor: i64,
        openid: &Pii<String>,
    ) -> Result<String, ChannelError> {
        let amount = Money::new(minor, Currency::CNY).map_err(|_| unsent("amount of the cash leg"))?;
        let terms = Terms { amount, insured: None, ..terms.clone() };
        let body = CreateBody::new(&terms, Some(openid.expose())).ok_or_else(|| unsent("time of the order's end"))?;
        let body = json(&body)?;
        let told: CreatedBody = self.ask("create", account, Method::POST, "/v3/pay/transactions/jsapi", body).await?;
        if wire::is_prepay_id(&told.prepay_id) { Ok(told.prepay_id) } else { Err(ChannelError::unusable("body")) }
    }
}

/// A failure of the second call: the cash leg's order exists, so that it is never as if nothing had been sent. Whatever WeChat's word, how
/// the order stands decides, and it is closed as any is that cannot be paid.
fn after_cash(error: ChannelError) -> ChannelError {
    match error {
        ChannelError::Refused { code } | ChannelError::Otherwise { code } => ChannelError::Otherwise { code },
        ChannelError::NotKnown => ChannelError::Otherwise { code: "NOT_KNOWN".to_owned() },
        error => possible("the cash leg's order exists", error),
    }
}

/// The whole as it is sent, but for the cash leg's session.
fn body<'a>(
    terms: &'a Terms,
    mixed: &'a Mixed,
    openid: &'a Pii<String>,
    account: &Account,
) -> Result<MixedBody<'a>, ChannelError> {
    let Trust::Keys(keys) = &account.trust else { return Err(unsent("no public key of the channel")) };
    let key = keys.current();
    let split = &mixed.split;
    let time = |at| wire::beijing(at).ok_or_else(|| unsent("time of the insurance's order"));
    let unsealed = || unsent("sealing");
    Ok(MixedBody {
        mix_pay_type: mixed.mix.to_string(),
        order_type: &mixed.order_type,
        appid: &terms.app_id,
        openid: openid.expose(),
        payer: mixed.payer.sealed(&key).ok_or_else(unsealed)?,
        pay_for_relatives: mixed.relative.is_some(),
        relative: match &mixed.relative {
            Some(relative) => Some(relative.sealed(&key).ok_or_else(unsealed)?),
            None => None,
        },
        out_trade_no: &terms.channel_order_no,
        serial_no: &mixed.serial_no,
        pay_order_id: mixed.pay_order_id.as_deref(),
        pay_auth_no: mixed.pay_auth_no.as_ref().map(|number| number.expose().as_str()),
        geo_location: mixed.geo_location.as_ref().map(|place| place.expose().as_str()),
        city_id: &mixed.city_id,
        med_inst_name: &mixed.institution_name,
        med_inst_no: &mixed.institution_no,
        med_ins_order_create_time: mixed.insurance_created_at.map(time).transpose()?,
        total_fee: split.total,
        med_ins_gov_fee: split.funds.government,
        med_ins_self_fee: split.funds.personal,
        med_ins_other_fee: split.funds.other,
        med_ins_cash_fee: split.cash,
        wechat_pay_cash_fee: split.paid_in_cash,
        cash_add_detail: split
            .added
            .iter()
            .map(|(kind, minor)| Added { cash_add_fee: *minor, cash_add_type: kind.to_string() })
            .collect(),
        cash_reduce_detail: split
            .reduced
            .iter()
            .map(|(kind, minor)| Reduced { cash_reduce_fee: *minor, cash_reduce_type: kind.to_string() })
            .collect(),
        callback_url: &terms.notify_url,
        prepay_id: None,
    })
}
