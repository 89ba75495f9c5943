//! Errors as Alipay tells them: the gateway's code, the code of the business behind it, and the HTTP status of the REST form.

use http::StatusCode;

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    /// The gateway's code.
    pub code: &'static str,
    /// What callers decide by.
    pub sub_code: &'static str,
    /// The text for people.
    pub sub_msg: String,
    /// HTTP status in the REST form; the gateway answers 200 in any case.
    pub status: StatusCode,
}

/// A parameter of the gateway is missing.
pub(super) fn missing(sub_code: &'static str) -> ApiError {
    ApiError { code: "40001", sub_code, sub_msg: "缺少必选参数".to_owned(), status: StatusCode::BAD_REQUEST }
}

/// A parameter of the gateway is wrong.
pub(super) fn invalid(sub_code: &'static str, sub_msg: &str) -> ApiError {
    ApiError { code: "40002", sub_code, sub_msg: sub_msg.to_owned(), status: StatusCode::BAD_REQUEST }
}

/// The signature is not of this request by this app.
pub(super) fn bad_signature() -> ApiError {
    let error = invalid("isv.invalid-signature", "验签出错，建议检查签名字符串或签名私钥与应用公钥是否匹配");
    ApiError { status: StatusCode::UNAUTHORIZED, ..error }
}

/// There is no such app.
pub(super) fn bad_app() -> ApiError {
    ApiError { status: StatusCode::UNAUTHORIZED, ..invalid("isv.invalid-app-id", "无效的AppID参数") }
}

/// There is no such method, or not by this way.
pub(super) fn bad_method() -> ApiError {
    ApiError { status: StatusCode::NOT_FOUND, ..invalid("isv.invalid-method", "不存在的方法名") }
}

/// A parameter of the business is missing or ill-formed.
pub(super) fn bad_parameter(field: &str) -> ApiError {
    business("ACQ.INVALID_PARAMETER", &format!("参数无效：{field}"))
}

/// The gateway cannot serve now; nothing was done.
pub(super) fn unavailable() -> ApiError {
    ApiError {
        code: "20000",
        sub_code: "aop.unknow-error",
        sub_msg: "服务暂不可用".to_owned(),
        status: StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Something broke; what was asked may or may not be done.
pub(super) fn system() -> ApiError {
    ApiError { status: StatusCode::INTERNAL_SERVER_ERROR, ..business("ACQ.SYSTEM_ERROR", "系统繁忙") }
}

/// The business says no.
pub(super) fn business(sub_code: &'static str, sub_msg: &str) -> ApiError {
    ApiError { code: "40004", sub_code, sub_msg: sub_msg.to_owned(), status: StatusCode::BAD_REQUEST }
}

/// Nobody opened this order yet, or it never was.
pub(super) fn no_trade() -> ApiError {
    business("ACQ.TRADE_NOT_EXIST", "交易不存在")
}

/// The order is paid already.
pub(super) fn paid() -> ApiError {
    business("ACQ.TRADE_HAS_SUCCESS", "交易已被支付")
}

/// The order is closed already.
pub(super) fn closed() -> ApiError {
    business("ACQ.TRADE_HAS_CLOSE", "交易已经关闭")
}

/// The order is in a state in which this cannot be.
pub(super) fn bad_state() -> ApiError {
    business("ACQ.TRADE_STATUS_ERROR", "交易状态不合法")
}

/// The order takes no refund any more.
pub(super) fn finished() -> ApiError {
    business("ACQ.TRADE_HAS_FINISHED", "交易已完结")
}

/// The number came with other parameters before.
pub(super) fn other_parameters() -> ApiError {
    business("ACQ.CONTEXT_INCONSISTENT", "交易信息被篡改")
}

/// The refund number came with another amount before.
pub(super) fn other_refund() -> ApiError {
    business("ACQ.DISCORDANT_REPEAT_REQUEST", "请求号重复且退款金额不一致")
}

/// More would be refunded than was paid.
pub(super) fn too_much() -> ApiError {
    business("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL", "退款金额超限")
}

/// There is no bill of that time.
pub(super) fn no_bill() -> ApiError {
    business("isp.bill_not_exist", "账单不存在")
}

impl ApiError {
    /// What the gateway's code means.
    pub(super) fn msg(&self) -> &'static str {
        match self.code {
            "20000" => "Service Currently Unavailable",
            "40001" => "Missing Required Arguments",
            "40002" => "Invalid Arguments",
            _ => "Business Failed",
        }
    }
}
