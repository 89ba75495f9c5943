"""The slice through grpcio: read the record, pay it, see the points cleared, hold the proof. Only the region differs between the cities."""

import hashlib
import json
import subprocess
import sys
import uuid

import grpc
import jwt
import pytest
import requests
from google.protobuf import json_format, struct_pb2

from lastmile_client import EntryPoint
from lastmile_process import ROOT, Lastmile

ITEM = "traffic.violation"
CITIES = ["430100", "140100"]
CALL_SECONDS = 10
CASE_SECONDS = 60


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    """Messages and stubs that grpcio-tools makes from proto/ alone."""
    out = tmp_path_factory.mktemp("stubs")
    files = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}"]
    subprocess.run([*command, *files], check=True)
    sys.path.insert(0, str(out))
    from lastmile.cases.v1 import cases_pb2, cases_pb2_grpc
    from lastmile.catalog.v1 import catalog_pb2, catalog_pb2_grpc
    from lastmile.common.v1 import common_pb2
    from lastmile.department.v1 import department_pb2, department_pb2_grpc
    from lastmile.payments.v1 import payments_pb2

    class Stubs:
        cases, cases_rpc = cases_pb2, cases_pb2_grpc
        catalog, catalog_rpc = catalog_pb2, catalog_pb2_grpc
        common, payments = common_pb2, payments_pb2
        department, department_rpc = department_pb2, department_pb2_grpc

    return Stubs


@pytest.fixture(scope="module")
def lastmile(tmp_path_factory):
    process = Lastmile(tmp_path_factory.mktemp("lastmile"))
    yield process
    assert process.stop() == 0


class SuperApp:
    """The back end of WeChat, as far as a test needs one."""

    def __init__(self, lastmile, stubs):
        self.lastmile, self.stubs = lastmile, stubs
        key = lastmile.directory / "data" / "sandbox" / "clients" / "wechat.pem"
        self.entry_point = EntryPoint("wechat", key, f"http://{lastmile.public}")
        channel = grpc.insecure_channel(lastmile.public)
        self.department = stubs.department_rpc.DepartmentServiceStub(channel)
        self.cases = stubs.cases_rpc.CaseServiceStub(channel)
        self.catalog = stubs.catalog_rpc.CatalogServiceStub(channel)

    def citizen(self, region, number):
        """A load citizen of the sandbox, with a token for the region's traffic police."""
        person = requests.get(f"{self.lastmile.control}/citizens/load/{number}", timeout=CALL_SECONDS).json()
        asserted = {
            "sub": f"judge-{number}", "level": 4, "name": person["name"], "doc_type": "resident_id", "doc_no": person["number"],
            "consents": [ITEM],
        }
        token = self.entry_point.exchange(asserted, [f"traffic/{region}"])["access_token"]
        car = next(vehicle for vehicle in person["vehicles"] if vehicle["region"] == region)
        return Citizen(self, region, token, {"plate": car["plate"], "plate_type": "SMALL"})


class Citizen:
    """Somebody with one unpaid record."""

    def __init__(self, app, region, token, input):
        self.app, self.region, self.input = app, region, struct_pb2.Struct()
        self.input.update(input)
        self.metadata = [("authorization", f"Bearer {token}")]
        self.openid = f"o{uuid.uuid4().hex[:27]}"

    def call(self, method, request):
        return method(request, metadata=self.metadata, timeout=CALL_SECONDS)

    def query(self):
        messages = self.app.stubs.department
        request = messages.QueryRequest(item=ITEM, region=self.region, request_id=uuid.uuid4().hex, input=self.input)
        answer = self.call(self.app.department.Query, request)
        assert answer.outcome == self.app.stubs.common.OUTCOME_DONE, answer
        return json_format.MessageToDict(answer.result)

    def bill(self):
        messages = self.app.stubs.department
        request = messages.ListBillsRequest(item=ITEM, region=self.region, request_id=uuid.uuid4().hex, input=self.input)
        bills = self.call(self.app.department.ListBills, request).bills
        assert len(bills) == 1, bills
        return bills[0]

    def open(self, bill, request_id=None):
        cases, payments = self.app.stubs.cases, self.app.stubs.payments
        pay = cases.PayAction(
            bill_no=bill.bill_no, record_digest=bill.record_digest, amount=bill.amount, channel="wechatpay",
            trade_type=payments.TRADE_TYPE_JSAPI, payer_reference=self.openid, input=self.input,
        )
        request = cases.OpenCaseRequest(item=ITEM, region=self.region, request_id=request_id or uuid.uuid4().hex, pay=pay)
        return self.call(self.app.cases.OpenCase, request).case

    def get(self, case):
        return self.call(self.app.cases.GetCase, self.app.stubs.cases.GetCaseRequest(case_id=case.case_id)).case

    def watch(self, case, states, after=0):
        """Follows the history until one of the states; resumes where a stream ends."""
        cases = self.app.stubs.cases
        request = cases.WatchCaseRequest(case_id=case.case_id, after_sequence=after)
        for step in self.app.cases.WatchCase(request, metadata=self.metadata, timeout=CASE_SECONDS):
            assert step.event.sequence == after + 1, "the history has no gaps"
            after = step.event.sequence
            if step.event.to_state in states:
                return after
        raise AssertionError("the stream ended before the case did")

    def pay(self, case):
        prepay = self.get(case).pay_sheet.jsapi["package"].removeprefix("prepay_id=")
        paid = requests.post(f"{self.app.lastmile.control}/wechatpay/pay", json={"prepay_id": prepay}, timeout=CALL_SECONDS)
        assert paid.status_code == 200, paid.text


@pytest.fixture(scope="module")
def app(lastmile, stubs):
    return SuperApp(lastmile, stubs)


@pytest.mark.parametrize("region", CITIES)
def test_a_fine_is_read_paid_and_its_points_are_cleared(app, region):
    citizen = app.citizen(region, 1)
    before = citizen.query()
    record, = before["violations"]
    bill = citizen.bill()
    assert bill.bill_no == record["record_no"]
    assert bill.amount.currency == "CNY" and bill.amount.amount_minor > 0
    assert len(bill.record_digest) == hashlib.sha256().digest_size

    case = citizen.open(bill)
    cases = app.stubs.cases
    seen = citizen.watch(case, {cases.CASE_STATE_WAITING_PAYMENT, cases.CASE_STATE_REJECTED})
    citizen.pay(case)
    citizen.watch(case, {cases.CASE_STATE_DONE, cases.CASE_STATE_REFUNDED}, seen)

    done = citizen.get(case)
    assert done.state == cases.CASE_STATE_DONE, done
    after = citizen.query()
    assert after["driver"]["points"] == before["driver"]["points"] - record["points"]
    verify_proof(app, done, region)


def verify_proof(app, case, region):
    """With PyJWT and the public key set: what the department did, signed by its adapter."""
    header = jwt.get_unverified_header(case.proof.jws)
    key, = [key for key in app.entry_point.jwks()["keys"] if key["kid"] == header["kid"]]
    claims = jwt.decode(
        case.proof.jws, jwt.PyJWK(key).key, algorithms=["EdDSA"], options={"verify_aud": False, "verify_exp": False, "verify_iat": False}
    )
    assert case.bill_no in json.dumps(claims)
    assert case.proof.department_serial in json.dumps(claims)
    assert case.proof.profile == f"traffic/{region}"


@pytest.mark.parametrize("region", CITIES)
def test_the_same_request_id_is_the_same_case(app, region):
    citizen = app.citizen(region, 2)
    bill, request_id = citizen.bill(), uuid.uuid4().hex
    first, again = citizen.open(bill, request_id), citizen.open(bill, request_id)
    assert first.case_id == again.case_id
    bill.amount.amount_minor += 100
    with pytest.raises(grpc.RpcError) as refused:
        citizen.open(bill, request_id)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION


def test_schemas_are_equal_in_both_cities(app):
    """The same item answers with the same fields, over values that the two dialects write differently."""
    records = {region: app.citizen(region, 3).query()["violations"][0] for region in CITIES}
    kinds = [{name: type(value) for name, value in record.items()} for record in records.values()]
    assert kinds[0] == kinds[1], records


def test_a_token_opens_its_own_department_only(app):
    citizen = app.citizen("430100", 4)
    citizen.region = "140100"
    with pytest.raises(grpc.RpcError) as refused:
        citizen.query()
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_what_is_listed_without_an_adapter_is_refused_as_such(app):
    citizen = app.citizen("430100", 5)
    messages = app.stubs.department
    request = messages.QueryRequest(item="library.search", region="430100", request_id="r1", input=citizen.input)
    with pytest.raises(grpc.RpcError) as refused:
        citizen.call(app.department.Query, request)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "no adapter" in refused.value.details()
    request = app.stubs.catalog.ListItemsRequest(region="430100", page_size=100)
    items = citizen.call(app.catalog.ListItems, request).items
    listed, = [item for item in items if item.item == "library.search"]
    assert listed.availability == app.stubs.catalog.AVAILABILITY_NO_ADAPTER
