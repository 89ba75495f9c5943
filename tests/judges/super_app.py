"""A super app's back end and its citizens, over grpcio and stubs made from proto/."""

import uuid

import grpc
import requests
from google.protobuf import json_format, struct_pb2

from lastmile_client import EntryPoint

ITEM = "traffic.violation"
CALL_SECONDS = 10
CASE_SECONDS = 60


class SuperApp:
    """The back end of WeChat, as far as a test needs one."""

    def __init__(self, lastmile, stubs):
        self.lastmile, self.stubs, self.citizens = lastmile, stubs, []
        key = lastmile.directory / "data" / "sandbox" / "clients" / "wechat.pem"
        self.entry_point = EntryPoint("wechat", key, f"http://{lastmile.public}")
        channel = grpc.insecure_channel(lastmile.public)
        self.department = stubs.department_rpc.DepartmentServiceStub(channel)
        self.cases = stubs.cases_rpc.CaseServiceStub(channel)
        self.catalog = stubs.catalog_rpc.CatalogServiceStub(channel)
        self.payments = stubs.payments_rpc.PaymentServiceStub(channel)

    def citizen(self, region, number):
        """A load citizen of the sandbox, with a token for the region's traffic police."""
        person = requests.get(f"{self.lastmile.control}/citizens/load/{number}", timeout=CALL_SECONDS).json()
        asserted = {
            "sub": f"judge-{number}", "level": 4, "name": person["name"], "doc_type": "resident_id", "doc_no": person["number"],
            "consents": [ITEM],
        }
        token = self.entry_point.exchange(asserted, [f"traffic/{region}"])["access_token"]
        car = next(vehicle for vehicle in person["vehicles"] if vehicle["region"] == region)
        self.citizens.append(Citizen(self, region, token, person, {"plate": car["plate"], "plate_type": "SMALL"}))
        return self.citizens[-1]


class Citizen:
    """Somebody with one unpaid record."""

    def __init__(self, app, region, token, person, input):
        self.app, self.region, self.person, self.input = app, region, person, struct_pb2.Struct()
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
