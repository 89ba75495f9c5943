"""Our SOAP connector calls a server that is not ours: spyne stands in for the traffic police of Changsha behind `lastmile serve`.

spyne checks the envelope, the action, the namespace and the order of elements of what our connector sends, reads the text by the charset that
our bytes declare, and writes its answer in GBK with a writer of its own.
"""

import threading
from wsgiref.simple_server import WSGIRequestHandler, make_server

import grpc
import pytest
from google.protobuf import json_format
from spyne import Application, Array, ComplexModel, ServiceBase, Unicode, rpc
from spyne.protocol.soap import Soap11
from spyne.server.wsgi import WsgiApplication

from lastmile_process import Lastmile
from super_app import SuperApp

NAMESPACE = "urn:csjj:wfcl:1"
PATH = "/services/WfclService"
REGION = "430100"
# GBK has no such character; it goes as a character reference, both ways.
NAME = "李䶮"
PLACE = "芙蓉中路与解放路交叉口 <东> & \"北\""
NUMBER = "4301000000000001"
# WfclService qualifies its wrapper elements only.
Text = Unicode(sub_ns="")


def fields(name, *names, **others):
    """A type whose elements are text in no namespace, in this order."""
    described = {"__namespace__": NAMESPACE, "_type_info": [(each, Text) for each in names] + list(others.items())}
    return type(ComplexModel)(name, (ComplexModel,), described)


VIOLATION = (
    "xh hphm hpzl wfsj wfdz wfdd wfxw wfms fkje wfjfs znj zje jdsbh wsjyw jdsj qrbj yybj jkbj clbj clsj dsr jszh dabh cjjg cjjgmc zjsl jkm"
).split()
Violation = fields("wfxx", *VIOLATION)
Evidence = fields("zj", "zjbh", "zjlx", "zjdz", "pssj", "zjzy")
Violations = fields("wfxxlb", wfxx=Violation.customize(sub_ns="", min_occurs=0, max_occurs="unbounded"))
Evidences = fields("zjlb", zj=Evidence.customize(sub_ns="", min_occurs=0, max_occurs="unbounded"))
Listed = fields("cxWfxxResponse", "fhm", "fhxx", "zjls", "dqy", wfxxlb=Violations.customize(sub_ns=""))
Detailed = fields(
    "cxWfxqResponse", "fhm", "fhxx",
    wfxx=Violation.customize(sub_ns=""), wfgd=Text, fltw=Text, zjlb=Evidences.customize(sub_ns=""),
)
Driver = fields("cxJsrjfResponse", "fhm", "fhxx", "jszh", "dsr", "dabh", "zjcx", "zt", "ljjf", "qsrq", "jzrq", "wcls")


class Police:
    """What the department knows, and what it was asked."""

    def __init__(self):
        self.asked, self.person, self.spoil = [], None, None

    def violation(self):
        person = self.person
        car = next(vehicle for vehicle in person["vehicles"] if vehicle["region"] == REGION)
        return Violation(
            xh=NUMBER, hphm=car["plate"], hpzl=car["class"], wfsj="2026-10-01 08:30:00", wfdz=PLACE, wfdd="430102000001", wfxw="1625",
            wfms="驾驶机动车违反道路交通信号灯通行的", fkje="200.00", wfjfs="6", znj="15.50", zje="215.50", jdsbh="430100000000001",
            wsjyw="7", jdsj="2026-10-08 09:00:00", qrbj="1", yybj="0", jkbj="0", clbj="0", clsj="", dsr=NAME, jszh=person["number"],
            dabh="430100000001", cjjg="430100000000", cjjgmc="长沙市公安局交通警察支队", zjsl="1", jkm="43010026000000000014",
        )


def service(police):
    """WfclService, as far as a query needs it."""
    said = {"fhm": "0000", "fhxx": "成功"}

    def bare(name, parameters, answers):
        def decorate(function):
            message = fields(name, *parameters)
            return rpc(message, _returns=answers, _body_style="bare", _in_message_name=f"{{{NAMESPACE}}}{name}",
                       _out_message_name=f"{{{NAMESPACE}}}{name}Response", _operation_name=name)(function)
        return decorate

    class WfclService(ServiceBase):
        @bare("cxWfxx", ["jkxlh", "hpzl", "hphm", "jszh", "clbj", "dqy", "mys"], Listed)
        def cxWfxx(ctx, asked):
            police.asked.append(("cxWfxx", asked.hphm, asked.hpzl))
            found = Violations(wfxx=[police.violation()])
            return Listed(**said, zjls="1", dqy=asked.dqy, wfxxlb=found)

        @bare("cxWfxq", ["jkxlh", "xh"], Detailed)
        def cxWfxq(ctx, asked):
            police.asked.append(("cxWfxq", asked.xh))
            evidence = Evidence(zjbh="ZJ0001", zjlx="1", zjdz="evidence/1.jpg", pssj="2026-10-01 08:30:00", zjzy="ab" * 32)
            return Detailed(**said, wfxx=police.violation(), wfgd="第三十八条", fltw="第九十条", zjlb=Evidences(zj=[evidence]))

        @bare("cxJsrjf", ["jkxlh", "jszh"], Driver)
        def cxJsrjf(ctx, asked):
            police.asked.append(("cxJsrjf", asked.jszh))
            if police.spoil == "fault":
                raise RuntimeError("the department's own mistake")
            return Driver(
                **said, jszh=asked.jszh, dsr=NAME, dabh="430100000001", zjcx="C1", zt="A", ljjf="6", qsrq="2026-03-01", jzrq="2027-02-28",
                wcls="1",
            )

    return WfclService


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def police():
    known = Police()
    # The strict validator wants every element qualified, which this interface does not do; the soft one checks what was read.
    written = Soap11(encoding="GBK")
    written.mime_type = "text/xml; charset=GBK"
    application = Application([service(known)], NAMESPACE, "WfclService", Soap11(validator="soft"), written)
    server = make_server("127.0.0.1", 0, WsgiApplication(application), handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    known.address = f"http://127.0.0.1:{server.server_port}"
    yield known
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def app(tmp_path_factory, police, stubs):
    directory = tmp_path_factory.mktemp("spyne")
    config = directory / "police.toml"
    config.write_text(f'[adapter.profiles."traffic/{REGION}"]\nendpoint = "{police.address}"\n')
    process = Lastmile(directory, config)
    yield SuperApp(process, stubs)
    assert process.stop() == 0


def test_what_spyne_tells_is_what_the_citizen_reads(app, police):
    citizen = app.citizen(REGION, 1)
    police.person, police.spoil = citizen.person, None
    police.asked.clear()
    answer = citizen.query()
    plate = citizen.input["plate"]
    assert police.asked == [("cxWfxx", plate, "02"), ("cxWfxq", NUMBER), ("cxJsrjf", citizen.person["number"])]
    record, = answer["violations"]
    told = {key: record[key] for key in ("record_no", "state", "plate", "plate_type", "time", "place", "fine_minor", "late_fee_minor")}
    assert told == {
        "record_no": NUMBER, "state": "PAYABLE", "plate": plate, "plate_type": "SMALL", "time": "2026-10-01T00:30:00Z", "place": PLACE,
        "fine_minor": "20000", "late_fee_minor": "1550",
    }
    assert record["party"]["name"] == NAME and answer["driver"]["name"] == NAME
    assert record["evidence"][0]["sha256"] == "ab" * 32
    assert answer["driver"]["points"] == 6


def test_a_fault_of_spyne_is_an_error_and_no_answer(app, police):
    citizen = app.citizen(REGION, 1)
    police.person, police.spoil = citizen.person, "fault"
    with pytest.raises(grpc.RpcError) as refused:
        citizen.query()
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "mistake" not in refused.value.details(), "a back end's inner words do not leave"
