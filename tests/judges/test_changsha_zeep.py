"""zeep, a SOAP client that nobody here wrote, calls the Changsha traffic police through its WSDL."""

import datetime

import pytest
import requests
import zeep
import zeep.exceptions
from zeep.helpers import serialize_object
from zeep.transports import Transport

from sandbox_process import Sandbox, eventually

SERIAL = "CSJJ-SANDBOX-0001"
SYSTEM = "police-430100"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    with Sandbox(tmp_path_factory.mktemp("changsha")) as sandbox:
        yield sandbox


def client(sandbox, timeout=30):
    wsdl = sandbox.url("police_430100") + "/services/WfclService?wsdl"
    return zeep.Client(wsdl, transport=Transport(operation_timeout=timeout)).service


@pytest.fixture
def police(sandbox):
    return client(sandbox)


def citizen(sandbox, path):
    return sandbox.control("GET", path, 200).json()


def cast(sandbox, index):
    return citizen(sandbox, "/citizens")["citizens"][index]


def bill(sandbox, path):
    """A citizen's Changsha record, its total in yuan, and the citizen."""
    person = citizen(sandbox, path)
    record = next(r for r in person["records"] if r["region"] == "430100")
    return record["number"], f"{(record['fine_minor'] + record['late_minor']) / 100:.2f}", person


def pay(police, order, record, amount, **more):
    now = datetime.datetime.now(datetime.timezone(datetime.timedelta(hours=8)))
    return police.tzJk(
        jkxlh=SERIAL, ddh=order, xh=record, jfje=amount, jfsj=now.strftime("%Y-%m-%d %H:%M:%S"),
        jfqd="WX", qdlsh="4200001234", **more,
    )


def test_the_wsdl_has_every_operation_of_the_page(police):
    operations = set(dir(police)) & {"cxWfxx", "cxWfxq", "sdWfjl", "jcSd", "tzJk", "cxJk", "cxJsrjf"}
    assert len(operations) == 7


def test_a_plate_and_a_licence_tell_the_same_records(sandbox, police):
    person = cast(sandbox, 0)
    plate = next(v for v in person["vehicles"] if v["region"] == "430100")
    by_plate = police.cxWfxx(jkxlh=SERIAL, hpzl=plate["class"], hphm=plate["plate"])
    by_licence = police.cxWfxx(jkxlh=SERIAL, jszh=person["number"])
    assert (by_plate.fhm, by_plate.fhxx, by_plate.zjls) == ("0000", "成功", "2")
    assert [r.xh for r in by_plate.wfxxlb.wfxx] == [r.xh for r in by_licence.wfxxlb.wfxx]
    captured, decided = by_plate.wfxxlb.wfxx
    assert (captured.qrbj, captured.jdsbh, captured.jkm) == ("0", None, None), "a capture has no decision"
    assert len(decided.jkm) == 20 and decided.jkm.isdigit() and decided.jkm.startswith("430100")
    assert (decided.qrbj, decided.wfxw, decided.fkje, decided.wfjfs) == ("1", "1625", "200.00", "6")
    assert decided.hphm == plate["plate"] and decided.dsr == person["name"]
    assert "交通信号灯" in decided.wfms and decided.cjjgmc.startswith("长沙市公安局")


def test_a_name_outside_gbk_arrives_whole_as_a_reference(sandbox, police):
    person = cast(sandbox, 1)
    assert person["name"] == "王䶮"
    assert police.cxJsrjf(jkxlh=SERIAL, jszh=person["number"]).dsr == "王䶮"
    body = (
        '<?xml version="1.0" encoding="GBK"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
        f'<w:cxJsrjf xmlns:w="urn:csjj:wfcl:1"><jkxlh>{SERIAL}</jkxlh><jszh>{person["number"]}</jszh></w:cxJsrjf>'
        "</s:Body></s:Envelope>"
    )
    answer = requests.post(
        sandbox.url("police_430100") + "/services/WfclService", data=body.encode("gbk"),
        headers={"Content-Type": "text/xml; charset=GBK"}, timeout=10,
    )
    assert answer.headers["Content-Type"] == "text/xml; charset=GBK"
    assert answer.content.startswith(b'<?xml version="1.0" encoding="GBK"?>')
    assert "<dsr>王&#19886;</dsr>" in answer.content.decode("gbk")


def test_paying_handles_the_record_and_the_points_fall(sandbox, police):
    record, amount, person = bill(sandbox, "/citizens/load/1")
    detail = police.cxWfxq(jkxlh=SERIAL, xh=record)
    assert detail.wfxx.zje == amount and len(detail.zjlb.zj) == int(detail.wfxx.zjsl) >= 2
    before = int(police.cxJsrjf(jkxlh=SERIAL, jszh=person["number"]).ljjf)

    lock = police.sdWfjl(jkxlh=SERIAL, xh=record, ywlsh="case-1", sdfz="30")
    assert lock.fhm == "0000" and lock.wfxx.zje == amount
    assert police.sdWfjl(jkxlh=SERIAL, xh=record, ywlsh="case-1", sdfz="30").sdbh == lock.sdbh
    assert police.sdWfjl(jkxlh=SERIAL, xh=record, ywlsh="case-2", sdfz="30").fhm == "3006"
    assert police.cxJk(jkxlh=SERIAL, ddh="order-1").fhm == "4001"

    paid = pay(police, "order-1", record, amount, sdbh=lock.sdbh)
    assert (paid.fhm, paid.jkzt, paid.jkbj, paid.clbj) == ("0000", "1", "1", "1")
    assert int(paid.ljjfq) == before and int(paid.ljjfh) == before - int(detail.wfxx.wfjfs)
    assert int(police.cxJsrjf(jkxlh=SERIAL, jszh=person["number"]).ljjf) == int(paid.ljjfh)
    assert pay(police, "order-1", record, amount, sdbh=lock.sdbh) == paid, "a duplicate gets the first answer"
    assert pay(police, "order-2", record, amount).fhm == "3003", "paid already"
    assert pay(police, "order-1", record, "1.00").fhm == "3007", "the same number with other content"
    asked = police.cxJk(jkxlh=SERIAL, ddh="order-1")
    assert (asked.jkzt, asked.jflsh, asked.jjm) == ("1", paid.jflsh, None)
    posted = [e for e in sandbox.journal(SYSTEM) if e.get("order") == "order-1"]
    assert [e["state"] for e in posted] == ["posted"]


def test_what_may_not_be_paid_is_refused_with_its_reason(sandbox, police):
    for copy, code in [("10", "3001"), ("20", "3002"), ("30", "3003"), ("50", "3009"), ("90", "3006")]:
        record, amount, _ = bill(sandbox, f"/citizens/magic/{copy}")
        if copy != "50":
            assert police.sdWfjl(jkxlh=SERIAL, xh=record, ywlsh=f"k{copy}", sdfz="30").fhm == code
        assert pay(police, f"m{copy}", record, amount).fhm == code
        assert police.cxJk(jkxlh=SERIAL, ddh=f"m{copy}").jjm == code, "a refusal is remembered"
    record, amount, _ = bill(sandbox, "/citizens/load/2")
    assert pay(police, "short", record, "0.01").fhm == "3004"


def test_the_fine_changes_between_reading_and_locking(sandbox, police):
    record, _, _ = bill(sandbox, "/citizens/magic/40")
    assert police.cxWfxq(jkxlh=SERIAL, xh=record).wfxx.fkje == "200.00"
    assert police.sdWfjl(jkxlh=SERIAL, xh=record, ywlsh="k40", sdfz="30").wfxx.fkje == "250.00"


def test_mistakes_of_the_caller_have_codes(sandbox, police):
    record, _, person = bill(sandbox, "/citizens/load/3")
    assert police.cxWfxq(jkxlh="wrong", xh=record).fhm == "1001"
    bad = police.sdWfjl(jkxlh=SERIAL, xh=record, ywlsh="spaces are bad", sdfz="30")
    assert (bad.fhm, bad.fhxx) == ("1002", "参数错误：ywlsh")
    both = police.cxWfxx(jkxlh=SERIAL, hpzl="02", hphm="湘AT0003", jszh=person["number"])
    assert both.fhxx == "参数错误：jszh"
    assert police.cxWfxq(jkxlh=SERIAL, xh="4301009999999999").fhm == "2001"
    assert police.cxJsrjf(jkxlh=SERIAL, jszh="11010519491231002X").fhm == "2002"
    assert police.cxWfxx(jkxlh=SERIAL, hpzl="02", hphm="湘A00000").zjls == "0"


def test_sixty_records_come_in_pages(sandbox, police):
    person = cast(sandbox, 8)
    pages = [police.cxWfxx(jkxlh=SERIAL, jszh=person["number"], dqy=str(p), mys="25") for p in (1, 2, 3, 4)]
    numbers = [[r.xh for r in page.wfxxlb.wfxx] for page in pages if page.wfxxlb]
    assert [p.zjls for p in pages] == ["60"] * 4 and [len(n) for n in numbers][:3] == [25, 25, 10]
    assert len({n for page in numbers for n in page}) == 60


def test_faults_look_like_faults_and_the_inquiry_knows(sandbox, police):
    record, amount, _ = bill(sandbox, "/citizens/load/4")
    sandbox.stage(SYSTEM, "pay", "fault")
    with pytest.raises(zeep.exceptions.Fault) as fault:
        pay(police, "f4", record, amount)
    assert fault.value.code == "soap:Server"
    assert police.cxJk(jkxlh=SERIAL, ddh="f4").jkzt == "1", "the payment was posted all the same"

    record, amount, _ = bill(sandbox, "/citizens/load/5")
    sandbox.stage(SYSTEM, "pay", "drop_after")
    with pytest.raises(requests.exceptions.ConnectionError):
        pay(police, "f5", record, amount)
    assert police.cxJk(jkxlh=SERIAL, ddh="f5").jkzt == "1"

    record, amount, _ = bill(sandbox, "/citizens/load/6")
    sandbox.stage(SYSTEM, "pay", "drop_before")
    with pytest.raises(requests.exceptions.ConnectionError):
        pay(police, "f6", record, amount)
    assert police.cxJk(jkxlh=SERIAL, ddh="f6").fhm == "4001", "nothing happened"


@pytest.mark.parametrize("fault", ["garble_cut", "garble_unmappable", "garble_doctype", "too_long"])
def test_garbled_replies_do_not_pass_for_replies(sandbox, police, fault):
    person = cast(sandbox, 0)
    sandbox.stage(SYSTEM, "points", fault)
    if fault == "too_long":
        assert len(police.cxJsrjf(jkxlh=SERIAL, jszh=person["number"]).fhxx) >= 1 << 20
    else:
        # zeep's parser refuses the bytes; a DOCTYPE it refuses by name.
        with pytest.raises((zeep.exceptions.Error, zeep.exceptions.XMLSyntaxError, ValueError)):
            police.cxJsrjf(jkxlh=SERIAL, jszh=person["number"])


def test_a_late_payment_happens_although_the_caller_gave_up(sandbox, police):
    record, amount, _ = bill(sandbox, "/citizens/load/7")
    sandbox.stage(SYSTEM, "pay", "late", delay="3s")
    with pytest.raises(requests.exceptions.Timeout):
        pay(client(sandbox, timeout=0.3), "l7", record, amount)
    assert police.cxJk(jkxlh=SERIAL, ddh="l7").fhm == "4001", "not yet"
    assert eventually(lambda: police.cxJk(jkxlh=SERIAL, ddh="l7").jkzt == "1")


def test_a_kill_forgets_nothing_that_was_answered(tmp_path):
    with Sandbox(tmp_path) as sandbox:
        record, amount, person = bill(sandbox, "/citizens/load/8")
        paid = pay(client(sandbox), "k8", record, amount)
        assert paid.fhm == "0000"
        sandbox.kill()
        with open(tmp_path / "sandbox" / "police-430100.journal", "ab") as journal:
            journal.write(b'{"seq":99,"at":1,"event":"pay')  # torn by the kill
        sandbox.start()
        police = client(sandbox)
        again = pay(police, "k8", record, amount)
        assert serialize_object(again) == serialize_object(paid)
        assert police.cxJsrjf(jkxlh=SERIAL, jszh=person["number"]).ljjf == paid.ljjfh
        assert pay(police, "k9", record, amount).fhm == "3003"
