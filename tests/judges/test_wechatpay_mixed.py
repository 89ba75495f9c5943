"""wechatpayv3 against the sandbox's mixed orders (医保自费混合订单), of which it knows nothing: it signs raw requests, seals who is treated,
verifies every answer and opens the callback."""

import hashlib
import json
import queue

import pytest
from wechatpayv3 import WeChatPayType
from wechatpayv3.type import RequestType

from test_wechatpay_sdk import (  # noqa: F401 (fixtures)
    APPID, OTHER_MCHID, SYSTEM, beijing_today, bill, callbacks, mode, numbers, order, sdk, wechat,
)

DIGEST = hashlib.md5(b"44030019000101123X").hexdigest()
WITHOUT_INSURANCE = dict.fromkeys(
    ["pay_order_id", "pay_auth_no", "geo_location", "med_ins_order_create_time", "med_ins_gov_fee", "med_ins_self_fee", "med_ins_other_fee"]
)
SPLIT = {
    "total_fee": 202_000, "med_ins_gov_fee": 100_000, "med_ins_self_fee": 45_000, "med_ins_other_fee": 5_000,
    "med_ins_cash_fee": 50_000, "wechat_pay_cash_fee": 42_000,
    "cash_add_detail": [{"cash_add_fee": 2_000, "cash_add_type": "FREIGHT"}],
    "cash_reduce_detail": [{"cash_reduce_fee": 10_000, "cash_reduce_type": "DEFAULT_REDUCE_TYPE"}],
}


def post(wechat, path, body):
    code, text = wechat._core.request(path, method=RequestType.POST, data=body, cipher_data=True)
    return code, json.loads(text) if text else None


def ask(wechat, number, by="out-trade-no"):
    code, text = wechat._core.request(f"/v3/med-ins/orders/{by}/{number}")
    return code, json.loads(text)


def states(told):
    return told["mix_pay_status"], told["self_pay_status"], told["med_ins_pay_status"]


def request(wechat, callbacks, cash=42_000, **changes):
    """The published example behind a cash leg of its own; None takes a field away."""
    if cash:
        number, made = order(wechat, total=cash, pay_type=WeChatPayType.JSAPI, payer={"openid": "o-judge"})
    else:
        number, made = f"JUDGE{next(numbers):08}", {}
    person = {"name": wechat._core.encrypt("张三"), "id_digest": wechat._core.encrypt(DIGEST), "card_type": "ID_CARD"}
    body = {
        "mix_pay_type": "CASH_AND_INSURANCE", "order_type": "REG_PAY", "appid": APPID, "openid": "o-judge", "payer": person,
        "pay_for_relatives": False, "out_trade_no": number, "serial_no": "1217752501201",
        "pay_order_id": "ORD530100202204022006350000021", "pay_auth_no": "AUTH530100202204022006310000034",
        "geo_location": "102.682296,25.054260", "city_id": "530100", "med_inst_name": "人民医院",
        "med_inst_no": "1217752501201407033233368318", "med_ins_order_create_time": "2018-06-08T10:34:56+08:00",
        "callback_url": callbacks.url, "prepay_id": made.get("prepay_id"), **SPLIT, **changes,
    }
    return {name: value for name, value in body.items() if value is not None}


def make(wechat, callbacks, **more):
    body = request(wechat, callbacks, **more)
    code, told = post(wechat, "/v3/med-ins/orders", body)
    assert code == 200, told
    return body, told


def pay(sandbox, made, **legs):
    body = {"mix_trade_no": made["mix_trade_no"], **legs}
    return sandbox.control("POST", "/wechatpay/pay", 200, json=body).json()["transaction_id"]


def opened(wechat, callbacks, count):
    told = [wechat.callback(*callbacks.next()) for _ in range(count)]
    return {t["event_type"]: t["resource"] for t in told}


def test_a_mixed_order_is_paid_called_back_and_given_back_by_its_legs(mode, wechat, callbacks):
    sandbox = mode[1]
    body, made = make(wechat, callbacks)
    number, mix = body["out_trade_no"], made["mix_trade_no"]
    assert states(made) == ("MIX_PAY_CREATED", "SELF_PAY_CREATED", "MED_INS_PAY_CREATED")
    assert "payer" not in made and made["total_fee"] == 202_000 and made["med_inst_name"] == "人民医院"
    assert post(wechat, "/v3/med-ins/orders", body) == (400, {"code": "ALREADY_EXISTS", "message": "订单已存在"})

    pay(sandbox, made)
    told = opened(wechat, callbacks, 2)
    assert told["TRANSACTION.SUCCESS"]["amount"]["total"] == 42_000, "the cash leg's own"
    whole = told["MEDICAL_INSURANCE.SUCCESS"]
    paid = ("MIX_PAY_SUCCESS", "SELF_PAY_SUCCESS", "MED_INS_PAY_SUCCESS")
    assert (states(whole), whole["out_trade_no"], whole["total_fee"]) == (paid, number, 202_000)
    for code, seen in (ask(wechat, number), ask(wechat, mix, "mix-trade-no")):
        assert (code, states(seen), seen["paid_time"]) == (200, paid, whole["paid_time"])

    refund = {"out_refund_no": f"R{number}", "out_trade_no": number, "amount": {"refund": 42_000, "total": 42_000, "currency": "CNY"}}
    assert wechat.refund(**refund)[0] == 200
    assert wechat.callback(*callbacks.next())["event_type"] == "REFUND.SUCCESS"
    returned = {
        "med_refund_total_fee": 45_000, "med_refund_gov_fee": 40_000, "med_refund_self_fee": 0, "med_refund_other_fee": 5_000,
        "refund_time": "2018-06-08T10:34:56+08:00", "out_refund_no": f"R{number}",
    }
    notify = f"/v3/med-ins/refunds/notify?mix_trade_no={mix}"
    for _ in range(2):
        assert post(wechat, notify, returned) == (204, None)
    more = {**returned, "out_refund_no": f"S{number}", "med_refund_gov_fee": 60_001, "med_refund_other_fee": 0, "med_refund_total_fee": 60_001}
    assert post(wechat, notify, more)[1]["code"] == "INVALID_REQUEST", "more than the fund paid"
    assert states(ask(wechat, number)[1]) == ("MIX_PAY_REFUND", "SELF_PAY_REFUND", "MED_INS_PAY_REFUND")
    journal = [line["event"] for line in sandbox.journal(SYSTEM) if line.get("out_trade_no") == number]
    once = ["order_created", "mixed_created", "order_paid", "insurance_paid", "mixed_paid", "refund_created", "insurance_returned"]
    assert journal == once

    lines = bill(wechat, wechat.trade_bill(beijing_today(), "ALL"))
    mine = [dict(zip(lines[0], row)) for row in lines[1:-2] if number in row]
    assert [(row["交易状态"], row["订单金额"]) for row in mine] == [("SUCCESS", "420.00"), ("REFUND", "0.00")], "the cash leg alone"


@pytest.mark.parametrize(
    "legs, expected",
    [
        ({"insurance": "fail"}, ("MIX_PAY_FAIL", "SELF_PAY_SUCCESS", "MED_INS_PAY_FAIL")),
        ({"cash": "fail"}, ("MIX_PAY_FAIL", "SELF_PAY_FAIL", "MED_INS_PAY_SUCCESS")),
        ({"cash": "wait"}, ("MIX_PAY_CREATED", "SELF_PAY_CREATED", "MED_INS_PAY_SUCCESS")),
    ],
)
def test_a_leg_fails_or_waits_by_itself_and_nobody_is_told_of_success(mode, wechat, callbacks, legs, expected):
    sandbox = mode[1]
    body, made = make(wechat, callbacks)
    pay(sandbox, made, **legs)
    assert states(ask(wechat, body["out_trade_no"])[1]) == expected
    if "cash" not in legs:
        assert callbacks.next() and wechat.query(out_trade_no=body["out_trade_no"])[0] == 200
    with pytest.raises(queue.Empty):
        callbacks.next(0.5)


def test_orders_of_one_leg(mode, wechat, callbacks):
    sandbox = mode[1]
    alone = {"mix_pay_type": "INSURANCE_ONLY", "total_fee": 150_000, "med_ins_cash_fee": 0, "wechat_pay_cash_fee": None}
    _, made = make(wechat, callbacks, cash=None, cash_add_detail=None, cash_reduce_detail=None, **alone)
    assert pay(sandbox, made) == made["mix_trade_no"], "no transaction of WeChat's own"
    told = opened(wechat, callbacks, 1)["MEDICAL_INSURANCE.SUCCESS"]
    assert states(told) == ("MIX_PAY_SUCCESS", "NO_SELF_PAY", "MED_INS_PAY_SUCCESS")
    _, made = make(wechat, callbacks, mix_pay_type="CASH_ONLY", total_fee=52_000, **WITHOUT_INSURANCE)
    pay(sandbox, made)
    told = opened(wechat, callbacks, 2)["MEDICAL_INSURANCE.SUCCESS"]
    assert states(told) == ("MIX_PAY_SUCCESS", "SELF_PAY_SUCCESS", "NO_MED_INS_PAY")


def test_what_breaks_a_rule_is_refused_by_its_name(monkeypatch, mode, wechat, callbacks):
    plain = {"name": "张三", "id_digest": DIGEST, "card_type": "ID_CARD"}
    naked = {"name": wechat._core.encrypt("张三"), "id_digest": wechat._core.encrypt("44030019000101123X"), "card_type": "ID_CARD"}
    for changes, code, name in [
        ({"total_fee": 202_001}, 403, "RULE_LIMIT"),
        ({"wechat_pay_cash_fee": 42_001}, 403, "RULE_LIMIT"),
        ({"med_ins_cash_fee": 50_001}, 403, "RULE_LIMIT"),
        ({"cash": 42_001}, 403, "RULE_LIMIT"),
        ({"pay_auth_no": None}, 403, "RULE_LIMIT"),
        ({"mix_pay_type": "CASH_ONLY"}, 403, "RULE_LIMIT"),
        ({"payer": plain}, 400, "PARAM_ERROR"),
        ({"payer": naked}, 400, "PARAM_ERROR"),
        ({"appid": "wx00000000000000ff"}, 400, "APPID_MCHID_NOT_MATCH"),
    ]:
        body = request(wechat, callbacks, **changes)
        answer = post(wechat, "/v3/med-ins/orders", body)
        assert (answer[0], answer[1]["code"]) == (code, name), changes
        assert ask(wechat, body["out_trade_no"])[0] == 404
    body, made = make(wechat, callbacks)
    other = sdk(monkeypatch, mode[1], mode[0], callbacks.url, mchid=OTHER_MCHID)
    assert ask(other, body["out_trade_no"])[0] == 404 and ask(other, made["mix_trade_no"], "mix-trade-no")[0] == 404


def test_lost_doubled_late_and_forged_words_of_a_mixed_order(mode, wechat, callbacks):
    sandbox = mode[1]
    alone = {
        "cash": None, "mix_pay_type": "INSURANCE_ONLY", "total_fee": 150_000, "med_ins_cash_fee": 0, "wechat_pay_cash_fee": None,
        "cash_add_detail": None, "cash_reduce_detail": None,
    }

    def paid(fault, **more):
        sandbox.stage(SYSTEM, "notify", fault, **more)
        body, made = make(wechat, callbacks, **alone)
        pay(sandbox, made)
        return body["out_trade_no"]

    number = paid("doubled")
    assert [wechat.callback(*callbacks.next())["resource"]["out_trade_no"] for _ in range(2)] == [number] * 2
    number = paid("late", delay="2s")
    with pytest.raises(queue.Empty):
        callbacks.next(0.5)
    assert wechat.callback(*callbacks.next())["resource"]["out_trade_no"] == number
    number = paid("forged")
    assert wechat.callback(*callbacks.next()) is None, "the SDK sees through the forged one"
    assert wechat.callback(*callbacks.next())["resource"]["total_fee"] == 150_000
    number = paid("lost")
    with pytest.raises(queue.Empty):
        callbacks.next(0.5)
    assert ask(wechat, number)[1]["mix_pay_status"] == "MIX_PAY_SUCCESS", "the query finds it"
