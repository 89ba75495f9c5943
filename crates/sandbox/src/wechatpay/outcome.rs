//! Errors as API v3 tells them: HTTP status, code, message, and the number at the end of the `Request-ID`.

use http::StatusCode;

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// The code that callers decide by.
    pub code: &'static str,
    /// The text for people.
    pub message: &'static str,
    /// The number at the end of the `Request-ID`.
    pub number: u32,
    /// The field that is wrong, where one is.
    pub field: Option<&'static str>,
}

const fn error(status: StatusCode, code: &'static str, message: &'static str, number: u32) -> ApiError {
    ApiError { status, code, message, number, field: None }
}

/// The request's signature, or what it is made of, is wrong.
pub(super) const SIGN_ERROR: ApiError =
    error(StatusCode::UNAUTHORIZED, "SIGN_ERROR", "签名错误，请检查后再试", 268_443_699);
/// The merchant may not do this.
pub(super) const NO_AUTH: ApiError = error(StatusCode::FORBIDDEN, "NO_AUTH", "商户无权限", 268_435_462);
/// There is no such path.
pub(super) const NO_PATH: ApiError =
    error(StatusCode::NOT_FOUND, "RESOURCE_NOT_EXISTS", "请求的资源不存在", 268_435_463);
/// There is no such order.
pub(super) const NO_ORDER: ApiError = error(StatusCode::NOT_FOUND, "ORDER_NOT_EXIST", "订单不存在", 268_512_771);
/// There is no such refund, or no such order to refund.
pub(super) const NO_REFUND: ApiError = error(StatusCode::NOT_FOUND, "RESOURCE_NOT_EXISTS", "退款单不存在", 268_512_772);
/// The order number came with other parameters before.
pub(super) const OTHER_PARAMETERS: ApiError =
    error(StatusCode::FORBIDDEN, "OUT_TRADE_NO_USED", "请求重入时，参数与首次请求时不一致", 268_498_688);
/// The order of this number is paid.
pub(super) const PAID_ALREADY: ApiError =
    error(StatusCode::FORBIDDEN, "OUT_TRADE_NO_USED", "商户订单号已支付", 268_498_689);
/// The order of this number is closed.
pub(super) const CLOSED: ApiError = error(StatusCode::BAD_REQUEST, "ORDER_CLOSED", "订单已关闭", 268_447_914);
/// A paid order cannot be closed.
pub(super) const CLOSE_OF_PAID: ApiError =
    error(StatusCode::FORBIDDEN, "TRADE_ERROR", "订单已支付，不能关闭", 268_449_538);
/// Only a paid order can be refunded.
pub(super) const REFUND_OF_UNPAID: ApiError =
    error(StatusCode::FORBIDDEN, "TRADE_ERROR", "订单未支付，不能退款", 268_449_539);
/// The refund number came with other parameters before.
pub(super) const OTHER_REFUND: ApiError =
    error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", "退款单号重复且参数与首次请求不一致", 268_498_690);
/// More would be refunded than was paid.
pub(super) const TOO_MUCH: ApiError =
    error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", "订单金额或退款金额与之前请求不一致，请核实后再试", 268_435_464);
/// The app does not belong to the merchant.
pub(super) const OTHER_APP: ApiError =
    error(StatusCode::BAD_REQUEST, "APPID_MCHID_NOT_MATCH", "appid与mchid不匹配", 268_435_465);
/// There is no bill: nothing moved on that day.
pub(super) const NO_BILL: ApiError =
    error(StatusCode::BAD_REQUEST, "NO_STATEMENT_EXIST", "账单文件不存在", 268_435_466);
/// The bill of that day is not made yet.
pub(super) const BILL_NOT_READY: ApiError =
    error(StatusCode::BAD_REQUEST, "STATEMENT_CREATING", "账单生成中", 268_435_467);
/// No bill can be asked for of such a day, or no file under such an address.
pub(super) const BAD_BILL: ApiError = error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", "参数错误", 268_435_468);
/// There is a mixed order of this number, whatever its values.
pub(super) const MIXED_ALREADY: ApiError = error(StatusCode::BAD_REQUEST, "ALREADY_EXISTS", "订单已存在", 268_512_536);
/// There is no such mixed order.
pub(super) const NO_MIXED: ApiError =
    error(StatusCode::NOT_FOUND, "ORDER_NOT_EXIST", "未找到订单，请确认订单号是否正确", 268_529_515);
/// The total of a mixed order is not the sum of its parts.
pub(super) const MIXED_TOTAL: ApiError = rule("订单总金额校验不通过", 268_529_477);
/// What is paid in cash is not what the insurance centre leaves, with what is added and taken off.
pub(super) const MIXED_CASH: ApiError = rule("自费金额校验不通过", 268_529_476);
/// What the insurance centre leaves does not fit the total; or the cash leg is an order of another amount.
pub(super) const MIXED_SUMS: ApiError = rule("混合单金额不正确", 268_529_481);
/// An order that is paid in cash alone has fields of the insurance, or lacks its own.
pub(super) const CASH_FIELDS: ApiError = rule("纯自费单字段校验失败", 268_529_474);
/// An order that the insurance pays of lacks a field, or has one of the leg that it has not.
pub(super) const MIXED_FIELDS: ApiError = rule("合支付单字段校验失败", 268_529_475);
/// Too many calls.
pub(super) const TOO_OFTEN: ApiError =
    error(StatusCode::TOO_MANY_REQUESTS, "FREQUENCY_LIMITED", "频率超限", 268_447_840);
/// Something broke; what was asked may or may not be done.
pub(super) const SYSTEM: ApiError =
    error(StatusCode::INTERNAL_SERVER_ERROR, "SYSTEMERROR", "系统异常，请稍后重试", 268_435_456);

/// A rule of mixed orders is broken.
const fn rule(message: &'static str, number: u32) -> ApiError {
    error(StatusCode::FORBIDDEN, "RULE_LIMIT", message, number)
}

/// A parameter is missing or ill-formed.
pub(super) const fn bad_parameter(field: &'static str) -> ApiError {
    ApiError { field: Some(field), ..error(StatusCode::BAD_REQUEST, "PARAM_ERROR", "参数错误", 268_435_461) }
}

impl ApiError {
    /// The JSON body.
    pub(super) fn body(&self) -> String {
        let detail = self.field.map(|field| {
            serde_json::json!({ "location": "body", "field": format!("/{}", field.replace('.', "/")), "issue": "参数缺失或格式不符" })
        });
        match detail {
            Some(detail) => serde_json::json!({ "code": self.code, "message": self.message, "detail": detail }),
            None => serde_json::json!({ "code": self.code, "message": self.message }),
        }
        .to_string()
    }
}
