//! Combined orders of WeChat Pay: asked for by one merchant account under a number of their own, made of orders of several.

use contracts::money::{Currency, Money};
use http::Method;
use runtime::secret::Pii;
use serde::{Deserialize, Serialize};

use super::driver::{WechatPay, json, unsent};
use super::wire::{self, CreatedBody, Payer, Scene};
use crate::channel::{CallbackError, ChannelError, Notice, OrderStatus, PartPaid, PaySheet, Whole};
use crate::domain::order::{Terms, TradeType};

#[derive(Serialize)]
struct CombineBody<'a> {
    combine_appid: &'a str,
    combine_mchid: &'a str,
    combine_out_trade_no: &'a str,
    sub_orders: Vec<Part<'a>>,
    time_expire: String,
    notify_url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    combine_payer_info: Option<Payer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scene_info: Option<Scene<'a>>,
}

#[derive(Serialize)]
struct Part<'a> {
    mchid: &'a str,
    out_trade_no: &'a str,
    description: &'a str,
    /// Comes back in bills and answers; the number stands in for it, because WeChat wants one.
    attach: &'a str,
    amount: Asked,
}

#[derive(Serialize)]
struct Asked {
    total_amount: i64,
    currency: String,
}

#[derive(Serialize)]
struct CloseBody<'a> {
    combine_appid: &'a str,
    sub_orders: Vec<Name<'a>>,
}

#[derive(Serialize)]
struct Name<'a> {
    mchid: &'a str,
    out_trade_no: &'a str,
}

/// A combined order as the channel tells it: in the answer to a query and, with the same fields, in a callback.
#[derive(Deserialize)]
pub(super) struct Told {
    combine_appid: String,
    combine_mchid: String,
    combine_out_trade_no: String,
    sub_orders: Vec<PartTold>,
}

#[derive(Deserialize)]
struct PartTold {
    mchid: String,
    out_trade_no: String,
    trade_state: String,
    #[serde(default)]
    transaction_id: String,
    #[serde(default)]
    success_time: String,
    #[serde(default)]
    amount: Option<Taken>,
}

#[derive(Deserialize)]
struct Taken {
    total_amount: i64,
    #[serde(default)]
    currency: String,
}

impl PartTold {
    /// What it says; Err names the field that is missing or senseless.
    fn status(&self) -> Result<OrderStatus, &'static str> {
        wire::status(&self.trade_state, || {
            let taken = self.amount.as_ref().ok_or("amount")?;
            let currency = if taken.currency.is_empty() { Ok(Currency::CNY) } else { taken.currency.parse() };
            let currency = currency.map_err(|_| "amount.currency")?;
            let amount = Money::new(taken.total_amount, currency).map_err(|_| "amount.total_amount")?;
            wire::capture(amount, &self.transaction_id, &self.success_time)
        })
    }
}

impl Told {
    /// What a callback about it tells; nothing unless every part is paid.
    pub(super) fn notice(self, merchant: &str) -> Result<Notice, CallbackError> {
        if self.combine_mchid != merchant {
            return Err(CallbackError::Content("combine_mchid"));
        }
        let mut parts = Vec::new();
        for part in self.sub_orders {
            match part.status().map_err(CallbackError::Content)? {
                OrderStatus::Paid(capture) => {
                    parts.push(PartPaid { merchant: part.mchid, channel_order_no: part.out_trade_no, capture });
                }
                OrderStatus::Pending | OrderStatus::Closed | OrderStatus::Half { .. } | OrderStatus::Differs(_) => {
                    return Ok(Notice::Other);
                }
            }
        }
        let (channel_order_no, app_id) = (self.combine_out_trade_no, self.combine_appid);
        Ok(Notice::PaidTogether { channel_order_no, app_id, parts })
    }
}

impl WechatPay {
    pub(super) async fn combine(
        &self,
        whole: &Whole,
        parts: &[Terms],
        payer: Option<&Pii<String>>,
    ) -> Result<PaySheet, ChannelError> {
        let account = self.account(&whole.merchant.number).ok_or_else(|| unsent("no keys for the merchant"))?;
        let first = parts.first().ok_or_else(|| unsent("no parts"))?;
        let payer = payer.map(|payer| payer.expose().as_str());
        let is_h5 = first.trade_type == TradeType::H5;
        let body = json(&CombineBody {
            combine_appid: &first.app_id,
            combine_mchid: &whole.merchant.number,
            combine_out_trade_no: &whole.channel_order_no,
            sub_orders: parts
                .iter()
                .map(|terms| Part {
                    mchid: &terms.merchant.number,
                    out_trade_no: &terms.channel_order_no,
                    description: &terms.description,
                    attach: &terms.channel_order_no,
                    amount: Asked {
                        total_amount: terms.amount.amount_minor(),
                        currency: terms.amount.currency().to_string(),
                    },
                })
                .collect(),
            time_expire: wire::beijing(first.expire_at).ok_or_else(|| unsent("time of the order's end"))?,
            notify_url: &first.notify_url,
            combine_payer_info: payer.filter(|_| !is_h5).map(|openid| Payer { openid }),
            scene_info: payer.filter(|_| is_h5).map(Scene::new),
        })?;
        let target = format!("/v3/combine-transactions/{}", first.trade_type);
        let told: CreatedBody = self.ask("create", account, Method::POST, &target, body).await?;
        self.sheet(account, first, told)
    }

    pub(super) async fn ask_combined(&self, whole: &Whole, parts: &[Terms]) -> Result<Vec<OrderStatus>, ChannelError> {
        let account = self.account(&whole.merchant.number).ok_or_else(|| unsent("no keys for the merchant"))?;
        let target = format!("/v3/combine-transactions/out-trade-no/{}", whole.channel_order_no);
        let told: Told = self.ask("query", account, Method::GET, &target, String::new()).await?;
        let is_it = told.combine_out_trade_no == whole.channel_order_no
            && told.combine_mchid == whole.merchant.number
            && told.sub_orders.len() == parts.len()
            && parts.iter().all(|terms| terms.app_id == told.combine_appid);
        let find = |terms: &Terms| {
            let is_part = |part: &&PartTold| {
                (&part.mchid, &part.out_trade_no) == (&terms.merchant.number, &terms.channel_order_no)
            };
            told.sub_orders.iter().find(is_part).filter(|_| is_it)
        };
        let another = || ChannelError::unusable("answer about another order");
        let status = |terms| find(terms).ok_or_else(another)?.status().map_err(ChannelError::unusable);
        parts.iter().map(status).collect()
    }

    pub(super) async fn end_combined(&self, whole: &Whole, parts: &[Terms]) -> Result<(), ChannelError> {
        let account = self.account(&whole.merchant.number).ok_or_else(|| unsent("no keys for the merchant"))?;
        let first = parts.first().ok_or_else(|| unsent("no parts"))?;
        let names = parts.iter().map(|terms| (&terms.merchant.number, &terms.channel_order_no));
        let sub_orders = names.map(|(mchid, out_trade_no)| Name { mchid, out_trade_no }).collect();
        let body = json(&CloseBody { combine_appid: &first.app_id, sub_orders })?;
        let target = format!("/v3/combine-transactions/out-trade-no/{}/close", whole.channel_order_no);
        self.call("close", account, Method::POST, &target, body).await.map(|_| ())
    }
}
