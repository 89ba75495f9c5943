"""wechatpayv3, a client library that nobody here wrote, against the sandbox's WeChat Pay."""

import csv
import datetime
import gzip
import hashlib
import http.server
import io
import json
import pathlib
import queue
import threading

import pytest
from wechatpayv3 import WeChatPay, WeChatPayType
from wechatpayv3.core import Core

from sandbox_process import Sandbox, eventually

MCHID = "1900430100"
OTHER_MCHID = "1900140100"
APPID = "wx5a4db0c5a4db0c51"
SYSTEM = "wechatpay"


class Callbacks:
    """A merchant's callback endpoint: keeps what comes, answers what it is told to answer."""

    def __init__(self):
        self.received = queue.Queue()
        self.answers = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.received.put((dict(self.headers.items()), body))
                self.send_response(outer.answers.pop(0) if outer.answers else 204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/notify"

    def next(self, seconds=30):
        return self.received.get(timeout=seconds)


@pytest.fixture
def callbacks():
    endpoint = Callbacks()
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()


def merchants(signed_by):
    return [{"mchid": mchid, "appids": [APPID], "callbacks_signed_by": signed_by} for mchid in (MCHID, OTHER_MCHID)]


@pytest.fixture(scope="module", params=["public_key", "certificate"])
def mode(request, tmp_path_factory):
    """The sandbox in each of the two ways in which WeChat Pay signs."""
    with Sandbox(tmp_path_factory.mktemp("wechatpay"), merchants=merchants(request.param)) as sandbox:
        yield request.param, sandbox


def sdk(monkeypatch, sandbox, mode, notify_url, trade_type=WeChatPayType.NATIVE, mchid=MCHID, **other):
    keys = pathlib.Path(sandbox.addresses["keys_dir"])
    # The constructor overwrites the address and may call it at once.
    monkeypatch.setattr(Core, "_gate_way", property(lambda _: sandbox.url(SYSTEM), lambda _, __: None), raising=False)
    options = {
        "mchid": mchid, "appid": APPID, "notify_url": notify_url,
        "private_key": (keys / mchid / "private_key.pem").read_text(),
        "cert_serial_no": (keys / mchid / "serial_no.txt").read_text().strip(),
        "apiv3_key": (keys / mchid / "apiv3_key.txt").read_text().strip(),
    }
    if mode == "public_key":
        options["public_key"] = (keys / "platform" / "public_key.pem").read_text()
        options["public_key_id"] = (keys / "platform" / "public_key_id.txt").read_text().strip()
    return WeChatPay(trade_type, timeout=(10, 30), **{**options, **other})


@pytest.fixture
def wechat(monkeypatch, mode, callbacks):
    return sdk(monkeypatch, mode[1], mode[0], callbacks.url)


numbers = iter(range(1, 10_000))


def order(wechat, total=20_000, **more):
    number = f"JUDGE{next(numbers):08}"
    code, body = wechat.pay(description="交通违法罚款", out_trade_no=number, amount={"total": total}, **more)
    assert code == 200, body
    return number, json.loads(body)


def pay(sandbox, **what):
    return sandbox.control("POST", "/wechatpay/pay", 200, json=what).json()["transaction_id"]


def test_an_order_is_made_paid_called_back_and_refunded(mode, wechat, callbacks):
    sandbox = mode[1]
    number, made = order(wechat)
    assert made["code_url"].startswith("weixin://wxpay/bizpayurl?pr=")
    code, body = wechat.query(out_trade_no=number)
    assert (code, json.loads(body)["trade_state"]) == (200, "NOTPAY")

    transaction = pay(sandbox, code_url=made["code_url"])
    told = wechat.callback(*callbacks.next())
    assert told["event_type"] == "TRANSACTION.SUCCESS"
    resource = told["resource"]
    assert (resource["out_trade_no"], resource["transaction_id"]) == (number, transaction)
    assert (resource["trade_state"], resource["amount"]["total"], resource["trade_type"]) == ("SUCCESS", 20_000, "NATIVE")
    for found in (wechat.query(out_trade_no=number), wechat.query(transaction_id=transaction)):
        assert json.loads(found[1])["trade_state"] == "SUCCESS"

    refund = {"out_refund_no": f"R{number}", "out_trade_no": number, "amount": {"refund": 5_000, "total": 20_000, "currency": "CNY"}}
    code, body = wechat.refund(**refund)
    assert (code, json.loads(body)["status"]) == (200, "PROCESSING")
    told = wechat.callback(*callbacks.next())
    assert told["event_type"] == "REFUND.SUCCESS" and told["resource"]["amount"]["refund"] == 5_000
    assert json.loads(wechat.query_refund(f"R{number}")[1])["status"] == "SUCCESS"
    assert json.loads(wechat.query(out_trade_no=number)[1])["trade_state"] == "REFUND"
    assert json.loads(wechat.refund(**refund)[1])["status"] == "SUCCESS", "a repetition is the same refund"
    code, body = wechat.refund(**{**refund, "out_refund_no": f"S{number}", "amount": {"refund": 15_001, "total": 20_000, "currency": "CNY"}})
    assert (code, json.loads(body)["code"]) == (400, "INVALID_REQUEST"), "more than was paid"


def test_every_trade_type_gives_its_pay_sheet(monkeypatch, mode, wechat, callbacks):
    _, made = order(wechat, pay_type=WeChatPayType.JSAPI, payer={"openid": "o-judge"})
    assert len(made["prepay_id"]) == 36 and made["prepay_id"].startswith("wx")
    _, made = order(wechat, pay_type=WeChatPayType.APP)
    assert made["prepay_id"]
    scene = {"payer_client_ip": "127.0.0.1", "h5_info": {"type": "Wap"}}
    _, made = order(wechat, pay_type=WeChatPayType.H5, scene_info=scene)
    assert made["h5_url"].startswith("https://")


@pytest.mark.parametrize(
    "fault, event, status",
    [(None, "REFUND.SUCCESS", "SUCCESS"), ("abnormal", "REFUND.ABNORMAL", "ABNORMAL"), ("closed", "REFUND.CLOSED", "CLOSED")],
)
def test_how_a_refund_ended_is_called_back_behind_a_forged_word(mode, wechat, callbacks, fault, event, status):
    sandbox = mode[1]
    number, made = order(wechat)
    pay(sandbox, code_url=made["code_url"])
    wechat.callback(*callbacks.next())
    if fault:
        sandbox.stage(SYSTEM, "refund", fault)
    sandbox.stage(SYSTEM, "notify", "forged")
    refund_number = f"R{number}"
    wechat.refund(out_refund_no=refund_number, out_trade_no=number, amount={"refund": 700, "total": 20_000, "currency": "CNY"})
    assert wechat.callback(*callbacks.next()) is None, "the SDK sees through the forged one"
    told = wechat.callback(*callbacks.next())
    assert (told["event_type"], told["resource"]["refund_status"]) == (event, status)
    assert (told["resource"]["out_refund_no"], told["resource"]["amount"]["refund"]) == (refund_number, 700)
    assert json.loads(wechat.query_refund(refund_number)[1])["status"] == status


def test_a_refund_stays_in_process_until_somebody_ends_it(mode, wechat, callbacks):
    sandbox = mode[1]
    number, made = order(wechat)
    pay(sandbox, code_url=made["code_url"])
    wechat.callback(*callbacks.next())
    sandbox.stage(SYSTEM, "refund", "stuck")
    refund = {"out_refund_no": f"R{number}", "out_trade_no": number, "amount": {"refund": 700, "total": 20_000, "currency": "CNY"}}
    assert json.loads(wechat.refund(**refund)[1])["status"] == "PROCESSING"
    with pytest.raises(queue.Empty):
        callbacks.next(0.5)
    assert json.loads(wechat.query_refund(f"R{number}")[1])["status"] == "PROCESSING"
    sandbox.control("POST", f"/wechatpay/refunds/{MCHID}/R{number}", 204, json={"status": "SUCCESS"})
    assert wechat.callback(*callbacks.next())["event_type"] == "REFUND.SUCCESS"
    sandbox.control("POST", f"/wechatpay/refunds/{MCHID}/R{number}", 409, json={"status": "CLOSED"})
    sandbox.control("POST", f"/wechatpay/refunds/{MCHID}/NOBODY", 404, json={"status": "CLOSED"})


def combine(wechat, pay_type=WeChatPayType.NATIVE, **more):
    """Two departments, one payment. Returns the number of the whole, its parts and the pay sheet."""
    number = f"WHOLE{next(numbers):08}"
    parts = [
        {"mchid": mchid, "out_trade_no": f"{number}-{part}", "description": "交通违法罚款", "attach": "a",
         "amount": {"total_amount": amount, "currency": "CNY"}}
        for part, (mchid, amount) in enumerate([(MCHID, 20_000), (OTHER_MCHID, 5_000)])
    ]
    code, body = wechat.combine_pay(combine_out_trade_no=number, sub_orders=parts, pay_type=pay_type, **more)
    assert code == 200, body
    return number, parts, json.loads(body)


def test_a_combined_order_is_paid_at_once_and_refunded_in_its_parts(monkeypatch, mode, wechat, callbacks):
    sandbox = mode[1]
    number, parts, made = combine(wechat)
    states = lambda: [part["trade_state"] for part in json.loads(wechat.combine_query(number)[1])["sub_orders"]]
    assert states() == ["NOTPAY", "NOTPAY"]
    assert json.loads(wechat.query(out_trade_no=parts[0]["out_trade_no"])[1])["code"] == "ORDER_NOT_EXIST", "only as a whole"
    pay(sandbox, code_url=made["code_url"])
    sandbox.control("POST", "/wechatpay/pay", 409, json={"out_trade_no": number, "mchid": MCHID})
    told = wechat.callback(*callbacks.next())
    assert told["event_type"] == "TRANSACTION.SUCCESS" and told["resource"]["combine_out_trade_no"] == number
    paid = told["resource"]["sub_orders"]
    assert [(part["mchid"], part["amount"]["total_amount"], part["trade_state"]) for part in paid] == [
        (MCHID, 20_000, "SUCCESS"), (OTHER_MCHID, 5_000, "SUCCESS"),
    ]
    assert len({part["transaction_id"] for part in paid}) == 2 and states() == ["SUCCESS", "SUCCESS"]

    other = sdk(monkeypatch, sandbox, mode[0], callbacks.url, mchid=OTHER_MCHID)
    refund = {"out_refund_no": f"R{number}", "out_trade_no": parts[1]["out_trade_no"], "amount": {"refund": 5_000, "total": 5_000, "currency": "CNY"}}
    code, body = other.refund(**refund)
    assert code == 200, body
    assert other.callback(*callbacks.next())["event_type"] == "REFUND.SUCCESS"
    assert states() == ["SUCCESS", "REFUND"]
    assert wechat.combine_close(number, [{k: part[k] for k in ("mchid", "out_trade_no")} for part in parts])[0] == 403


def test_combined_orders_of_every_kind_are_made_and_closed_as_a_whole(mode, wechat):
    payer = {"openid": "o-judge"}
    scene = {"payer_client_ip": "127.0.0.1", "h5_info": {"type": "Wap"}}
    for pay_type, more, sheet in [
        (WeChatPayType.JSAPI, {"combine_payer_info": payer}, "prepay_id"),
        (WeChatPayType.APP, {}, "prepay_id"),
        (WeChatPayType.H5, {"scene_info": scene}, "h5_url"),
        (WeChatPayType.NATIVE, {}, "code_url"),
    ]:
        number, parts, made = combine(wechat, pay_type, **more)
        assert made[sheet]
        names = [{k: part[k] for k in ("mchid", "out_trade_no")} for part in parts]
        assert wechat.combine_close(number, names[:1] * 2)[0] == 400
        assert wechat.combine_close(number, names)[0] == 204
        told = json.loads(wechat.combine_query(number)[1])
        assert [part["trade_state"] for part in told["sub_orders"]] == ["CLOSED", "CLOSED"]


def beijing_today():
    return datetime.datetime.now(datetime.timezone(datetime.timedelta(hours=8))).date().isoformat()


def bill(wechat, asked):
    """Fetches a bill as its answer says; returns its lines, cells without their backticks, in a reader that is not ours."""
    code, body = asked
    assert code == 200, body
    told = json.loads(body)
    code, content = wechat.download_bill(told["download_url"])
    assert code == 200 and isinstance(content, bytes)
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    assert told["hash_type"] == "SHA1" and hashlib.sha1(content).hexdigest() == told["hash_value"]
    text = content.decode("utf-8")
    assert text.startswith("\ufeff") and text.endswith("\r\n") and "\n" not in text.replace("\r\n", "")
    return list(csv.reader(io.StringIO(text[1:].replace("`", ""), newline="")))


def test_bills_say_what_was_paid_and_refunded(mode, wechat, callbacks):
    sandbox = mode[1]
    number, made = order(wechat)
    transaction = pay(sandbox, code_url=made["code_url"])
    wechat.callback(*callbacks.next())
    wechat.refund(out_refund_no=f"R{number}", out_trade_no=number, amount={"refund": 1_234, "total": 20_000, "currency": "CNY"})
    wechat.callback(*callbacks.next())
    day = beijing_today()
    for kind, columns in [("ALL", 27), ("SUCCESS", 20), ("REFUND", 29)]:
        for packed in ("GZIP", None):
            if packed:
                asked = wechat.trade_bill(day, kind)
            else:
                asked = wechat._core.request(f"/v3/bill/tradebill?bill_date={day}&bill_type={kind}")
            lines = bill(wechat, asked)
            head, rows, sums = lines[0], lines[1:-2], lines[-1]
            assert len(head) == columns and all(len(row) == columns for row in rows), kind
            assert int(sums[0]) == len(rows)
            mine = [dict(zip(head, row)) for row in rows if number in row]
            states = [(row["交易状态"], row["微信订单号"], row["订单金额"]) for row in mine]
            expected = {"ALL": [("SUCCESS", transaction, "200.00"), ("REFUND", transaction, "0.00")]}
            expected.update(SUCCESS=expected["ALL"][:1], REFUND=expected["ALL"][1:])
            assert states == expected[kind]
            refunds = [(row["商户退款单号"], row["申请退款金额"], row["退款状态"]) for row in mine if row["交易状态"] == "REFUND"]
            assert refunds == ([] if kind == "SUCCESS" else [(f"R{number}", "12.34", "SUCCESS")])
            yuan = lambda name: sum(round(float(row[head.index(name)]) * 100) for row in rows)
            assert round(float(sums[5]) * 100) == yuan("订单金额")
    lines = bill(wechat, wechat.fundflow_bill(day))
    moved = [row for row in lines[1:-2] if row[-1] in (number, f"R{number}")]
    assert [(row[5], row[6]) for row in moved] == [("收入", "200.00"), ("支出", "12.34")]

    refused = lambda answer: (answer[0], json.loads(answer[1])["code"])
    assert refused(wechat.trade_bill("2020-01-01")) == (400, "INVALID_REQUEST"), "three months back at most"
    assert refused(wechat.trade_bill("yesterday")) == (400, "PARAM_ERROR")
    assert refused(wechat.fundflow_bill(day, "FEES")) == (400, "NO_STATEMENT_EXIST")
    told = json.loads(wechat.trade_bill(day)[1])
    code, _ = wechat.download_bill(told["download_url"][:-1])
    assert code == 400, "an address that was never given out"


def test_a_bill_must_be_waited_for_where_the_sandbox_is_told_so(monkeypatch, tmp_path, callbacks):
    with Sandbox(tmp_path, merchants=merchants("public_key"), bills_wait=True) as sandbox:
        wechat = sdk(monkeypatch, sandbox, "public_key", callbacks.url)
        _, made = order(wechat)
        pay(sandbox, code_url=made["code_url"])
        code, body = wechat.trade_bill(beijing_today())
        assert (code, json.loads(body)["code"]) == (400, "STATEMENT_CREATING")


def test_closing_and_the_numbers_that_are_used_up(mode, wechat):
    sandbox = mode[1]
    number, made = order(wechat)
    assert wechat.close(number)[0] == 204
    assert wechat.close(number)[0] == 204, "closed is closed"
    assert json.loads(wechat.query(out_trade_no=number)[1])["trade_state"] == "CLOSED"
    sandbox.control("POST", "/wechatpay/pay", 409, json={"code_url": made["code_url"]})

    number, made = order(wechat)
    again = {"description": "交通违法罚款", "out_trade_no": number, "amount": {"total": 20_000}}
    assert json.loads(wechat.pay(**again)[1]) == made, "the same parameters, the same session"
    code, body = wechat.pay(**{**again, "amount": {"total": 1}})
    assert (code, json.loads(body)["code"]) == (403, "OUT_TRADE_NO_USED")
    pay(sandbox, mchid=MCHID, out_trade_no=number)
    assert json.loads(wechat.close(number)[1])["code"] == "TRADE_ERROR"
    assert json.loads(wechat.pay(**again)[1])["code"] == "OUT_TRADE_NO_USED"
    assert json.loads(wechat.query(out_trade_no="NOBODY0001")[1])["code"] == "ORDER_NOT_EXIST"
    assert wechat.query_refund("NOBODY")[0] == 404


def test_signatures_that_are_not_the_merchants_are_refused(monkeypatch, mode, wechat, callbacks):
    kind, sandbox = mode
    if kind == "certificate":
        # Its constructor already needs a good signature.
        with pytest.raises(Exception, match="platform certificate"):
            sdk(monkeypatch, sandbox, kind, callbacks.url, cert_serial_no="0" * 40)
    else:
        stranger = sdk(monkeypatch, sandbox, kind, callbacks.url, cert_serial_no="0" * 40)
        code, body = stranger.query(out_trade_no="ANYTHING")
        assert (code, json.loads(body)["code"]) == (401, "SIGN_ERROR")
    lower = (pathlib.Path(sandbox.addresses["keys_dir"]) / MCHID / "serial_no.txt").read_text().strip().lower()
    other_client = sdk(monkeypatch, sandbox, kind, callbacks.url, cert_serial_no=lower)
    assert other_client.query(out_trade_no="ANYTHING")[0] == 404, "some clients write the serial number in lower case"
    code, body = wechat.query(out_trade_no="ANYTHING", mchid=OTHER_MCHID)
    assert (code, json.loads(body)["code"]) == (403, "NO_AUTH")


def test_answers_that_are_not_wechats_are_noticed_by_the_sdk(mode, wechat):
    sandbox = mode[1]
    number, _ = order(wechat)
    sandbox.stage(SYSTEM, "query", "bad_signature")
    with pytest.raises(Exception, match="verify the signature"):
        wechat.query(out_trade_no=number)
    sandbox.stage(SYSTEM, "query", "unsigned")
    with pytest.raises(Exception, match="verify the signature"):
        wechat.query(out_trade_no=number)
    for fault, code, name in [("busy", 429, "FREQUENCY_LIMITED"), ("error_before", 500, "SYSTEMERROR")]:
        sandbox.stage(SYSTEM, "query", fault)
        answer = wechat.query(out_trade_no=number)
        assert (answer[0], json.loads(answer[1])["code"]) == (code, name)
    sandbox.stage(SYSTEM, "query", "garble_value")
    assert json.loads(wechat.query(out_trade_no=number)[1])["trade_state"] == "SANDBOX_UNDEFINED"


def test_callbacks_are_sent_again_until_they_are_taken(mode, wechat, callbacks):
    sandbox = mode[1]
    callbacks.answers = [500, 404]
    _, made = order(wechat)
    pay(sandbox, code_url=made["code_url"])
    told = [wechat.callback(*callbacks.next()) for _ in range(3)]
    assert len({t["id"] for t in told}) == 1 and all(t["resource"] == told[0]["resource"] for t in told)
    ended = eventually(lambda: [e for e in sandbox.journal(SYSTEM) if e.get("notice") == told[0]["id"] and e["event"] == "notice_ended"])
    assert (ended[0]["delivered"], ended[0]["attempts"]) == (True, 3)


def test_lost_doubled_late_reordered_forged_and_probing_callbacks(mode, wechat, callbacks):
    sandbox = mode[1]

    def paid(fault, **more):
        sandbox.stage(SYSTEM, "notify", fault, **more)
        number, made = order(wechat)
        pay(sandbox, code_url=made["code_url"])
        return number

    number = paid("doubled")
    assert [wechat.callback(*callbacks.next())["resource"]["out_trade_no"] for _ in range(2)] == [number] * 2

    number = paid("late", delay="2s")
    with pytest.raises(queue.Empty):
        callbacks.next(0.5)
    assert wechat.callback(*callbacks.next())["resource"]["out_trade_no"] == number

    number = paid("forged")
    assert wechat.callback(*callbacks.next()) is None, "the SDK sees through the forged one"
    assert wechat.callback(*callbacks.next())["resource"]["out_trade_no"] == number

    number = paid("wrong_serial")
    if mode[0] == "certificate":
        assert not wechat.callback(*callbacks.next()), "nor do newly downloaded certificates have that serial number"
    else:
        # It takes an unknown key id for the serial number of a certificate.
        with pytest.raises(ValueError, match="PUB_KEY_ID_7"):
            wechat.callback(*callbacks.next())
    assert wechat.callback(*callbacks.next())["resource"]["out_trade_no"] == number

    first, second = paid("reordered"), order(wechat)
    pay(sandbox, code_url=second[1]["code_url"])
    told = [wechat.callback(*callbacks.next())["resource"]["out_trade_no"] for _ in range(2)]
    assert told == [second[0], first], "the later one overtakes"

    number = paid("probe")
    headers, body = callbacks.next()
    signature = next(v for k, v in headers.items() if k.lower() == "wechatpay-signature")
    assert signature.startswith("WECHATPAY/SIGNTEST/")
    assert not wechat.callback(headers, body)
    assert wechat.callback(*callbacks.next())["resource"]["out_trade_no"] == number

    number = paid("lost")
    with pytest.raises(queue.Empty):
        callbacks.next(0.5)
    assert json.loads(wechat.query(out_trade_no=number)[1])["trade_state"] == "SUCCESS", "the query finds it"


def test_a_kill_forgets_neither_payment_nor_callback(monkeypatch, tmp_path, callbacks):
    with Sandbox(tmp_path, merchants=merchants("public_key"), notify_second="10s") as sandbox:
        wechat = sdk(monkeypatch, sandbox, "public_key", callbacks.url)
        number, made = order(wechat)
        callbacks.answers = [500]
        transaction = pay(sandbox, code_url=made["code_url"])
        first = wechat.callback(*callbacks.next())
        sandbox.kill()
        sandbox.start()
        wechat = sdk(monkeypatch, sandbox, "public_key", callbacks.url)
        again = wechat.callback(*callbacks.next())
        assert again["id"] == first["id"], "sent again at once, not after 150 s"
        told = json.loads(wechat.query(out_trade_no=number)[1])
        assert (told["trade_state"], told["transaction_id"]) == ("SUCCESS", transaction)
        sandbox.control("POST", "/wechatpay/pay", 409, json={"code_url": made["code_url"]})
