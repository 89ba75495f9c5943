"""The slice through grpcio: read the record, pay it, see the points cleared, hold the proof. Only the region differs between the cities."""

import hashlib
import json
import uuid
from urllib.parse import parse_qsl, urlsplit

import grpc
import jwt
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from lastmile_process import Lastmile
from super_app import SuperApp

CITIES = ["430100", "140100"]


@pytest.fixture(scope="module")
def lastmile(tmp_path_factory):
    process = Lastmile(tmp_path_factory.mktemp("lastmile"))
    yield process
    assert process.stop() == 0


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
    assert done.receipt.payment_code == bill.payment_code
    verify_receipt(app, done.receipt)


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


def verify_receipt(app, receipt):
    """With what its QR code says, by nobody in particular."""
    printed = dict(parse_qsl(urlsplit(receipt.verify_url).query))
    messages = app.stubs.payments
    amount = app.stubs.common.Money(amount_minor=int(printed["amount"]), currency=printed["currency"])
    request = messages.VerifyReceiptRequest(
        code=printed["code"], number=printed["number"], check_code=printed["check"], amount=amount, issue_day=printed["day"]
    )
    verify = app.payments.VerifyReceipt
    told = verify(request, timeout=10)
    assert told.state == messages.RECEIPT_STATE_VALID and told.settled == receipt.amount
    request.check_code = f"{(int(request.check_code) + 1) % 1_000_000:06}"
    with pytest.raises(grpc.RpcError) as refused:
        verify(request, timeout=10)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


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


def test_the_public_port_says_what_it_serves_and_how_it_is(lastmile):
    with grpc.insecure_channel(lastmile.public) as channel:
        served = ProtoReflectionDescriptorDatabase(channel)
        names = served.get_services()
        for name in ("cases.v1.CaseService", "catalog.v1.CatalogService", "department.v1.DepartmentService"):
            assert f"lastmile.{name}" in names, names
        method = DescriptorPool(served).FindServiceByName("lastmile.cases.v1.CaseService").FindMethodByName("OpenCase")
        assert method.input_type.full_name == "lastmile.cases.v1.OpenCaseRequest"
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            health.Check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=10)
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
