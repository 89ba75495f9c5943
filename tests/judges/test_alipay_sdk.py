"""python-alipay-sdk, a client library that nobody here wrote, against the sandbox's Alipay; Python's own zip and CSV read its bill."""

import csv
import datetime
import http.client
import io
import json
import pathlib
import queue
import urllib.parse
import zipfile

import pytest
import requests
from alipay import AliPay
from alipay.exceptions import AliPayException, AliPayValidationError

from merchant import Endpoint
from sandbox_process import Sandbox, eventually

APP, PID = "2021000000430100", "2088000000430100"
OTHER_APP = "2021000000140100"
SUBJECT = "交通违法罚款"
SYSTEM = "alipay"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    with Sandbox(tmp_path_factory.mktemp("alipay")) as sandbox:
        yield sandbox


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


def sdk(sandbox, notify_url, app=APP, private=None):
    keys = pathlib.Path(sandbox.addresses["alipay_keys_dir"])
    client = AliPay(
        appid=app, app_notify_url=notify_url, sign_type="RSA2",
        app_private_key_string=(private or keys / app / "app_private_key.pem").read_text(),
        alipay_public_key_string=(keys / "alipay_public_key.pem").read_text(),
    )
    client._gateway = sandbox.url(SYSTEM) + "/gateway.do"
    return client


@pytest.fixture
def alipay(sandbox, endpoint):
    return sdk(sandbox, endpoint.url)


numbers = iter(range(1, 10_000))


def number():
    return f"JUDGE{next(numbers):08}"


def order(alipay, amount="200.00", **more):
    no = number()
    made = alipay.api_alipay_trade_precreate(SUBJECT, no, amount, **more)
    assert made["code"] == "10000" and made["qr_code"].startswith("https://qr.alipay.com/"), made
    return no, made["qr_code"]


def act(sandbox, what, expected=200, **who):
    return sandbox.control("POST", f"/alipay/{what}", expected, json=who).json()


def verified(alipay, told):
    """What the SDK makes of a notice: it wants the signature apart, and takes the kind of signature out itself."""
    told = dict(told)
    return alipay.verify(told, told.pop("sign"))


def paid(sandbox, alipay, endpoint, amount="200.00"):
    no, code = order(alipay, amount)
    trade = act(sandbox, "pay", qr_code=code)["trade_no"]
    told = endpoint.next()
    assert verified(alipay, told) and told["trade_status"] == "TRADE_SUCCESS"
    return no, trade


def test_an_order_is_made_opened_paid_told_and_refunded(sandbox, alipay, endpoint):
    no, code = order(alipay, passback_params="a=1&b=2", timeout_express="90m")
    assert alipay.api_alipay_trade_query(out_trade_no=no)["sub_code"] == "ACQ.TRADE_NOT_EXIST", "nobody scanned it yet"
    trade = act(sandbox, "open", qr_code=code)["trade_no"]
    assert alipay.api_alipay_trade_query(out_trade_no=no)["trade_status"] == "WAIT_BUYER_PAY"
    told = endpoint.next()
    assert verified(alipay, told) and told["trade_status"] == "WAIT_BUYER_PAY"
    assert act(sandbox, "pay", qr_code=code)["trade_no"] == trade

    told = endpoint.next()
    assert verified(alipay, told)
    expected = {
        "app_id": APP, "seller_id": PID, "out_trade_no": no, "trade_no": trade, "trade_status": "TRADE_SUCCESS", "total_amount": "200.00",
        "receipt_amount": "200.00", "notify_type": "trade_status_sync", "subject": SUBJECT, "passback_params": "a=1&b=2",
    }
    assert {name: told[name] for name in expected} == expected
    for found in (alipay.api_alipay_trade_query(out_trade_no=no), alipay.api_alipay_trade_query(trade_no=trade)):
        assert (found["trade_status"], found["total_amount"], found["trade_no"]) == ("TRADE_SUCCESS", "200.00", trade)

    refund = {"refund_amount": "50.00", "out_trade_no": no, "out_request_no": f"R{no}"}
    done = alipay.api_alipay_trade_refund(**refund)
    assert (done["fund_change"], done["refund_fee"]) == ("Y", "50.00")
    told = endpoint.next()
    assert verified(alipay, told)
    assert (told["trade_status"], told["refund_fee"], told["out_biz_no"]) == ("TRADE_SUCCESS", "50.00", f"R{no}") and told["gmt_refund"]
    again = alipay.api_alipay_trade_refund(**refund)
    assert (again["fund_change"], again["refund_fee"]) == ("N", "50.00"), "a repetition moves nothing"
    found = alipay.api_alipay_trade_fastpay_refund_query(f"R{no}", out_trade_no=no)
    assert (found["refund_status"], found["refund_amount"], found["total_amount"]) == ("REFUND_SUCCESS", "50.00", "200.00")
    assert alipay.api_alipay_trade_fastpay_refund_query("NOBODY", out_trade_no=no) == {"code": "10000", "msg": "Success"}
    for amount, request, sub_code in [
        ("50.01", f"R{no}", "ACQ.DISCORDANT_REPEAT_REQUEST"), ("150.01", f"S{no}", "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"),
        ("50.00", None, "ACQ.INVALID_PARAMETER"), ("0.001", f"S{no}", "ACQ.INVALID_PARAMETER"),
    ]:
        named = {"out_request_no": request} if request else {}
        assert alipay.api_alipay_trade_refund(amount, out_trade_no=no, **named)["sub_code"] == sub_code, (amount, request)
    assert alipay.api_alipay_trade_refund("150.00", trade_no=trade, out_request_no=f"S{no}")["refund_fee"] == "200.00"
    told = endpoint.next()
    assert verified(alipay, told) and (told["trade_status"], told["refund_fee"]) == ("TRADE_CLOSED", "200.00")
    assert alipay.api_alipay_trade_query(out_trade_no=no)["trade_status"] == "TRADE_CLOSED"
    assert sandbox.control("GET", f"/alipay/payments/{trade}", 200).json() == {"paid_minor": 20_000, "refunded_minor": 20_000}


@pytest.mark.parametrize("kind", ["wap", "page"])
def test_a_page_is_opened_in_a_browser_and_leads_back(sandbox, alipay, endpoint, kind):
    no, back = number(), "http://127.0.0.1:9/back?from=pay"
    sign = getattr(alipay, f"api_alipay_trade_{kind}_pay")
    url = f"{alipay._gateway}?{sign(subject=SUBJECT, out_trade_no=no, total_amount='0.01', return_url=back)}"
    shown = requests.get(url, timeout=30)
    assert shown.status_code == 200 and SUBJECT in shown.text and "¥0.01" in shown.text
    assert alipay.api_alipay_trade_query(out_trade_no=no)["sub_code"] == "ACQ.TRADE_NOT_EXIST", "nobody paid yet"
    action = shown.text.split('action="')[1].split('"')[0]
    done = requests.post(sandbox.url(SYSTEM) + action, timeout=30, allow_redirects=False)
    assert done.status_code == 303 and done.headers["Location"].startswith(back + "&")
    told = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(done.headers["Location"]).query))
    assert told.pop("from") == "pay" and verified(alipay, told), "the way back is signed"
    assert (told["out_trade_no"], told["total_amount"]) == (no, "0.01")
    assert verified(alipay, endpoint.next())
    assert alipay.api_alipay_trade_query(out_trade_no=no)["trade_status"] == "TRADE_SUCCESS"
    assert requests.post(sandbox.url(SYSTEM) + action, timeout=30).status_code == 409, "paid is paid"
    forged = requests.get(url.replace("0.01", "0.02"), timeout=30).json()["alipay_trade_%s_pay_response" % kind]
    assert forged["sub_code"] == "isv.invalid-signature"


def test_an_apps_string_is_paid_with(sandbox, alipay, endpoint):
    no = number()
    string = alipay.api_alipay_trade_app_pay(subject=SUBJECT, out_trade_no=no, total_amount="12.50")
    refused = act(sandbox, "pay", 409, order_string=string.replace("12.50", "12.51"))
    assert refused["error"].startswith("isv.invalid-signature")
    act(sandbox, "pay", 404, page_url=f"http://127.0.0.1/gateway.do?{string}")
    trade = act(sandbox, "pay", order_string=string)["trade_no"]
    told = endpoint.next()
    assert verified(alipay, told) and (told["out_trade_no"], told["trade_no"], told["total_amount"]) == (no, trade, "12.50")


def test_closing_cancelling_and_the_numbers_that_are_used_up(sandbox, alipay, endpoint):
    no, code = order(alipay)
    assert alipay.api_alipay_trade_close(out_trade_no=no)["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    assert "trade_no" not in alipay.api_alipay_trade_cancel(out_trade_no=no)
    act(sandbox, "open", qr_code=code)
    assert endpoint.next()["trade_status"] == "WAIT_BUYER_PAY"
    assert alipay.api_alipay_trade_close(out_trade_no=no)["out_trade_no"] == no
    told = endpoint.next()
    assert verified(alipay, told) and told["trade_status"] == "TRADE_CLOSED" and "gmt_payment" not in told
    assert alipay.api_alipay_trade_close(out_trade_no=no)["sub_code"] == "ACQ.TRADE_STATUS_ERROR"
    assert act(sandbox, "pay", 409, qr_code=code)["error"].startswith("ACQ.TRADE_HAS_CLOSE")
    assert act(sandbox, "pay", qr_code=code, although_closed=True)["trade_no"], "the citizen had agreed before"
    assert endpoint.next()["trade_status"] == "TRADE_SUCCESS"

    no, code = order(alipay)
    assert alipay.api_alipay_trade_precreate(SUBJECT, no, "200.00")["qr_code"] == code, "the same order, the same code"
    assert alipay.api_alipay_trade_precreate(SUBJECT, no, "1.00")["sub_code"] == "ACQ.CONTEXT_INCONSISTENT"
    act(sandbox, "pay", out_trade_no=no, pid=PID)
    assert alipay.api_alipay_trade_precreate(SUBJECT, no, "200.00")["sub_code"] == "ACQ.TRADE_HAS_SUCCESS"
    assert alipay.api_alipay_trade_close(out_trade_no=no)["sub_code"] == "ACQ.TRADE_STATUS_ERROR"
    assert alipay.api_alipay_trade_cancel(out_trade_no=no)["action"] == "refund"
    assert alipay.api_alipay_trade_query(out_trade_no=no)["trade_status"] == "TRADE_CLOSED"

    created = alipay.server_api("alipay.trade.create", {"out_trade_no": number(), "subject": SUBJECT, "total_amount": "1", "buyer_id": "2088111122223333"})
    act(sandbox, "pay", trade_no=created["trade_no"])
    act(sandbox, "finish", trade_no=created["trade_no"])
    assert alipay.api_alipay_trade_refund("1", trade_no=created["trade_no"])["sub_code"] == "ACQ.TRADE_HAS_FINISHED"


def test_requests_that_are_not_the_apps_are_refused(sandbox, alipay, endpoint):
    keys = pathlib.Path(sandbox.addresses["alipay_keys_dir"])
    stranger = sdk(sandbox, endpoint.url, private=keys / OTHER_APP / "app_private_key.pem")
    assert stranger.api_alipay_trade_query(out_trade_no="X")["sub_code"] == "isv.invalid-signature"
    nobody = sdk(sandbox, endpoint.url, private=keys / APP / "app_private_key.pem")
    nobody._appid = "2021000000000000"
    with pytest.raises(AliPayException, match="isv.invalid-app-id"):
        nobody.api_alipay_trade_query(out_trade_no="X")
    no, trade = paid(sandbox, alipay, endpoint)
    other = sdk(sandbox, endpoint.url, app=OTHER_APP)
    for named in ({"out_trade_no": no}, {"trade_no": trade}):
        assert other.api_alipay_trade_query(**named)["sub_code"] == "ACQ.TRADE_NOT_EXIST", "another merchant's"
    with pytest.raises(AliPayException, match="isv.invalid-method"):
        alipay.server_api("alipay.trade.nothing")
    for change, sub_code in [
        ({"sign_type": "RSA"}, "isv.invalid-signature-type"), ({"charset": "gbk"}, "isv.invalid-charset"),
        ({"timestamp": "2020-01-01 00:00:00"}, "isv.invalid-timestamp"), ({"version": "2.0"}, "isv.invalid-format"),
        ({"encrypt_type": "AES"}, "isv.invalid-encrypt-type"), ({}, "isv.invalid-parameter"),
    ]:
        signed = alipay.client_api("alipay.trade.query", {"out_trade_no": no} if change else "[]", **change)
        told = requests.get(f"{alipay._gateway}?{signed}", timeout=30).json()["alipay_trade_query_response"]
        assert (told["code"], told["sub_code"]) == ("40002", sub_code)
    signed = alipay.client_api("alipay.trade.query", {"out_trade_no": no})
    query, _, content = signed.partition("&biz_content=")
    content, _, rest = content.partition("&")
    mixed = requests.post(f"{alipay._gateway}?{query}&{rest}", data=f"biz_content={content}", timeout=30, headers={
        "Content-Type": "application/x-www-form-urlencoded"}).json()
    assert mixed["alipay_trade_query_response"]["out_trade_no"] == no, "some in the address, some in the form"
    connection = http.client.HTTPConnection(sandbox.addresses[SYSTEM])
    connection.request("GET", f"http://openapi.alipay.com/gateway.do?{signed}")
    absolute = json.load(connection.getresponse())
    assert absolute["alipay_trade_query_response"]["out_trade_no"] == no, "the absolute form of a request"
    connection.close()
    twice = requests.get(f"{alipay._gateway}?{signed}&app_id={APP}", timeout=30).json()
    assert twice["error_response"]["code"] == "40002", "a parameter that is there twice"


def test_answers_that_are_not_alipays_are_noticed_by_the_sdk(sandbox, alipay, endpoint):
    no, _ = paid(sandbox, alipay, endpoint)
    query = lambda: alipay.api_alipay_trade_query(out_trade_no=no)
    sandbox.stage(SYSTEM, "query", "bad_signature")
    with pytest.raises(AliPayValidationError):
        query()
    sandbox.stage(SYSTEM, "query", "unsigned")
    with pytest.raises(AliPayException):
        query()
    for fault, code, sub_code in [("busy", "20000", "aop.unknow-error"), ("error_before", "40004", "ACQ.SYSTEM_ERROR")]:
        sandbox.stage(SYSTEM, "query", fault)
        told = query()
        assert (told["code"], told["sub_code"]) == (code, sub_code)
    sandbox.stage(SYSTEM, "query", "garble_value")
    assert query()["trade_status"] == "SANDBOX_UNDEFINED"
    sandbox.stage(SYSTEM, "query", "garble_cut")
    with pytest.raises(ValueError):
        query()
    for fault in ("fault", "drop_before", "drop_after"):
        sandbox.stage(SYSTEM, "query", fault)
        with pytest.raises(OSError):
            query()
    assert query()["trade_status"] == "TRADE_SUCCESS"


def test_what_was_done_behind_a_broken_answer_is_found(sandbox, alipay, endpoint):
    no, trade = paid(sandbox, alipay, endpoint)
    refund = {"refund_amount": "1.00", "out_trade_no": no, "out_request_no": f"R{no}"}
    look = lambda: alipay.api_alipay_trade_fastpay_refund_query(f"R{no}", out_trade_no=no).get("refund_status")
    sandbox.stage(SYSTEM, "refund", "drop_before")
    with pytest.raises(OSError):
        alipay.api_alipay_trade_refund(**refund)
    assert look() is None
    sandbox.stage(SYSTEM, "refund", "drop_after")
    with pytest.raises(OSError):
        alipay.api_alipay_trade_refund(**refund)
    assert look() == "REFUND_SUCCESS"
    assert alipay.api_alipay_trade_refund(**refund)["fund_change"] == "N"
    stuck = {**refund, "out_request_no": f"S{no}"}
    sandbox.stage(SYSTEM, "refund", "stuck")
    assert alipay.api_alipay_trade_refund(**stuck)["fund_change"] == "N"
    assert "refund_status" not in alipay.api_alipay_trade_fastpay_refund_query(f"S{no}", out_trade_no=no)
    assert alipay.api_alipay_trade_refund(**stuck)["fund_change"] == "Y", "asked again, it is done"
    assert sandbox.control("GET", f"/alipay/payments/{trade}", 200).json()["refunded_minor"] == 200


def test_a_refund_takes_its_time(tmp_path, endpoint):
    with Sandbox(tmp_path, alipay={"refund_after": "300ms"}) as sandbox:
        alipay = sdk(sandbox, endpoint.url)
        no, trade = paid(sandbox, alipay, endpoint)
        assert alipay.api_alipay_trade_refund("200.00", trade_no=trade)["fund_change"] == "N"
        told = endpoint.next()
        assert verified(alipay, told) and (told["refund_fee"], told["out_biz_no"]) == ("200.00", no)
        assert alipay.api_alipay_trade_fastpay_refund_query(no, trade_no=trade)["refund_status"] == "REFUND_SUCCESS"


def test_notices_are_sent_again_until_the_merchant_says_success_and_nothing_else(sandbox, alipay, endpoint):
    endpoint.answers = [(200, b"SUCCESS"), (200, b"success\n"), (500, b"success")]
    no, code = order(alipay)
    act(sandbox, "pay", qr_code=code)
    told = [endpoint.next() for _ in range(4)]
    assert all(verified(alipay, one) for one in told) and len({one["notify_id"] for one in told}) == 1
    notice = told[0]["notify_id"]
    ended = eventually(lambda: [e for e in sandbox.journal(SYSTEM) if e["event"] == "notice_ended" and e["notice"] == notice])
    assert (ended[0]["delivered"], ended[0]["attempts"]) == (True, 4)
    sent = [one for one in sandbox.control("GET", "/alipay/notices", 200).json() if one["notice"] == notice]
    assert [(one["status"], one["taken"]) for one in sent] == [(200, False), (200, False), (500, False), (200, True)]


def test_alipay_gives_up_after_the_eighth_attempt(tmp_path, endpoint):
    endpoint.answers = [(200, b"failure")] * 20
    with Sandbox(tmp_path, alipay={"notify_second": "0ms"}) as sandbox:
        alipay = sdk(sandbox, endpoint.url)
        _, code = order(alipay)
        act(sandbox, "pay", qr_code=code)
        ended = eventually(lambda: [e for e in sandbox.journal(SYSTEM) if e["event"] == "notice_ended"])
        assert (ended[0]["delivered"], ended[0]["attempts"], endpoint.received.qsize()) == (False, 8, 8)


def test_lost_doubled_late_and_forged_notices(sandbox, alipay, endpoint):
    def pays(fault, **more):
        sandbox.stage(SYSTEM, "notify", fault, **more)
        no, code = order(alipay)
        act(sandbox, "pay", qr_code=code)
        return no

    no = pays("doubled")
    first, second = endpoint.next(), endpoint.next()
    assert first == second and verified(alipay, first) and first["out_trade_no"] == no

    no = pays("late", delay="2s")
    with pytest.raises(queue.Empty):
        endpoint.next(0.5)
    assert endpoint.next()["out_trade_no"] == no

    no = pays("forged")
    forged, genuine = endpoint.next(), endpoint.next()
    assert (forged["out_trade_no"], forged["total_amount"]) == (no, "0.01") and not verified(alipay, forged), "the SDK sees through it"
    assert verified(alipay, genuine) and genuine["total_amount"] == "200.00"
    assert not verified(alipay, {**genuine, "total_amount": "0.01"})

    no = pays("lost")
    with pytest.raises(queue.Empty):
        endpoint.next(0.5)
    assert alipay.api_alipay_trade_query(out_trade_no=no)["trade_status"] == "TRADE_SUCCESS", "the query finds it"


def test_a_kill_forgets_neither_payment_nor_notice(tmp_path, endpoint):
    with Sandbox(tmp_path, alipay={"notify_second": "10s"}) as sandbox:
        alipay = sdk(sandbox, endpoint.url)
        endpoint.answers = [(500, b"")]
        no, code = order(alipay)
        trade = act(sandbox, "pay", qr_code=code)["trade_no"]
        first = endpoint.next()
        sandbox.kill()
        sandbox.start()
        alipay = sdk(sandbox, endpoint.url)
        again = endpoint.next()
        assert verified(alipay, again) and again["notify_id"] == first["notify_id"], "sent again at once, not after 40 minutes"
        found = alipay.api_alipay_trade_query(out_trade_no=no)
        assert (found["trade_status"], found["trade_no"]) == ("TRADE_SUCCESS", trade)
        act(sandbox, "pay", 409, qr_code=code)


def test_a_strangers_zip_and_csv_readers_read_the_bill(tmp_path, endpoint):
    with Sandbox(tmp_path) as sandbox:
        alipay = sdk(sandbox, endpoint.url)
        first, first_trade = paid(sandbox, alipay, endpoint, "20.00")
        second, _ = paid(sandbox, alipay, endpoint, "16.80")
        assert alipay.api_alipay_trade_refund("5.00", out_trade_no=first, out_request_no="R1")["fund_change"] == "Y"
        day = first_trade[:8]
        date = f"{day[:4]}-{day[4:6]}-{day[6:]}"

        def link(**asked):
            return alipay.server_api("alipay.data.dataservice.bill.downloadurl.query", asked)

        url = link(bill_type="trade", bill_date=date)["bill_download_url"]
        answer = requests.get(url, timeout=30)
        archive = zipfile.ZipFile(io.BytesIO(answer.content))
        assert archive.testzip() is None
        members = archive.infolist()
        assert all(member.flag_bits & 0x800 == 0 for member in members), "nothing says that the names are UTF-8"
        # Without that flag a name's bytes are CP437 to this reader; what they are is GBK.
        names = [member.filename.encode("cp437").decode("gbk") for member in members]
        assert names == [f"{PID}0156_{day}_业务明细.csv", f"{PID}0156_{day}_业务明细(汇总).csv"]
        lines = archive.read(members[0]).decode("gbk").splitlines()
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
        assert all(len(row) == 25 and None not in row and None not in row.values() for row in rows)
        strip = lambda row, *columns: tuple(row[column].strip("\t") for column in columns)
        columns = ("商户订单号", "业务类型", "商品名称", "订单金额（元）", "商家实收（元）", "退款批次号/请求号")
        assert [strip(row, *columns) for row in rows] == [
            (first, "交易", SUBJECT, "20.00", "20.00", ""), (second, "交易", SUBJECT, "16.80", "16.80", ""),
            (first, "退款", SUBJECT, "-5.00", "-5.00", "R1"),
        ]
        assert rows[0]["支付宝交易号"] == f"{first_trade}\t"
        assert lines[-1] == "#交易合计：2笔，商家实收共36.80元，商家优惠共0.00元"

        assert requests.get(url.replace("fileId=", "fileId=0"), timeout=30).status_code == 403
        tomorrow = (datetime.date.fromisoformat(date) + datetime.timedelta(days=2)).isoformat()
        assert link(bill_type="trade", bill_date=tomorrow)["sub_code"] == "isp.bill_not_exist"
        sandbox.stage(SYSTEM, "download", "garble_cut")
        with pytest.raises(zipfile.BadZipFile):
            zipfile.ZipFile(io.BytesIO(requests.get(url, timeout=30).content))
