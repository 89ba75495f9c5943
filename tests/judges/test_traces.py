"""Our spans, as a collector with OpenTelemetry's own messages receives them: from the public port to the department's bytes, one trace.

All of it on one process with every role and on a process a role, where each exports for itself and only the headers between them, and the
row of the case, hold a trace together.
"""

import threading
import time
import uuid
from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from lastmile_process import Lastmile, Split
from super_app import SuperApp

FLUSH_SECONDS_MAX = 20
PARENT_ID = "b7ad6b7169203331"


class Told:
    """A span, and the process that told of it."""

    def __init__(self, service, span):
        self.service, self.span, self.name = service, span, span.name
        self.trace, self.id, self.parent = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
        self.attributes = {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self):
        self.spans, self.arrived = [], threading.Condition()

    def Export(self, request, context):
        with self.arrived:
            for resource in request.resource_spans:
                service = next(each.value.string_value for each in resource.resource.attributes if each.key == "service.name")
                for scope in resource.scope_spans:
                    self.spans.extend(Told(service, span) for span in scope.spans)
            self.arrived.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def wait(self, enough):
        """The spans, once they are enough."""
        end = time.monotonic() + FLUSH_SECONDS_MAX
        with self.arrived:
            while not enough(self.spans):
                assert self.arrived.wait(end - time.monotonic()), [span.name for span in self.spans]
            return list(self.spans)


@pytest.fixture(scope="module")
def collector():
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector
    server.stop(None).wait()


@pytest.fixture(scope="module", params=[Lastmile, Split])
def app(request, tmp_path_factory, collector, stubs):
    directory = tmp_path_factory.mktemp("traces")
    otlp = f'[telemetry.otlp]\nendpoint = "http://127.0.0.1:{collector.port}"\n'
    if request.param is Split:
        process = Split(directory, otlp)
    else:
        config = directory / "otlp.toml"
        config.write_text(otlp)
        process = Lastmile(directory, config)
    yield SuperApp(process, stubs)
    ended = process.stop()
    assert ended == 0 or set(ended.values()) == {0}, ended


class Trace:
    """One trace of the super app's own, which its calls say they belong to."""

    def __init__(self, app, collector):
        self.app, self.collector, self.id = app, collector, uuid.uuid4().hex
        self.header = ("traceparent", f"00-{self.id}-{PARENT_ID}-01")

    def whole(self, *wanted):
        """All of its spans, once those are there that are wanted, and of each the way up to the super app."""

        def enough(spans):
            mine = self.of(spans)
            return all(any(want(span) for span in mine.values()) for want in wanted) and all(self.way(mine, span) for span in mine.values())

        return self.of(self.collector.wait(enough))

    def of(self, spans):
        return {span.id: span for span in spans if span.trace == self.id}

    def way(self, spans, span):
        """Through which spans, of which processes, a span came from the super app; nothing while one of them is missing."""
        way = [(span.name, span.service)]
        while span.parent in spans:
            span = spans[span.parent]
            way.append((span.name, span.service))
        return way if span.parent == PARENT_ID else None

    def ways(self, spans, want):
        return [self.way(spans, span) for span in spans.values() if want(span)]

    def process(self, *way):
        """The way as names of spans and roles; where all roles share a process, it has one name."""
        split = isinstance(self.app.lastmile, Split)
        return [(name, f"lastmile-{role}" if split else "lastmile") for name, role in way]


DOOR = [("rpc.client", "gateway"), ("gateway", "gateway")]


@pytest.mark.parametrize("region", ["430100", "140100"])
def test_one_trace_from_the_super_app_to_the_departments_bytes(app, collector, region):
    trace, citizen = Trace(app, collector), app.citizen(region, 3)
    citizen.metadata.append(trace.header)
    citizen.query()

    def exchange(span):
        return span.name == "department.exchange"

    spans = trace.whole(exchange, lambda span: span.parent == PARENT_ID)
    exchanges = [span for span in spans.values() if exchange(span)]
    assert len(exchanges) >= 2, [span.name for span in spans.values()]
    for each in exchanges:
        told = each.attributes
        assert told["profile"] == f"traffic/{region}" and told["end"] == "answered"
        assert int(told["request_bytes"]) > 0 and int(told["reply_bytes"]) > 0
        assert trace.way(spans, each) == trace.process(("department.exchange", "adapter"), ("rpc.server", "adapter"), *DOOR)


def test_a_case_is_one_trace_through_payments_and_department(app, collector):
    """Also what is done long after the call that opened it has been answered."""
    trace, citizen = Trace(app, collector), app.citizen("430100", 4)
    bill = citizen.bill()
    citizen.metadata.append(trace.header)
    case = citizen.open(bill)
    citizen.metadata.remove(trace.header)
    cases = app.stubs.cases
    seen = citizen.watch(case, {cases.CASE_STATE_WAITING_PAYMENT})
    citizen.pay(case)
    citizen.watch(case, {cases.CASE_STATE_DONE}, seen)

    def paid(span):
        return span.name == "department.exchange" and span.attributes["exchange"] == "pay" and span.attributes["end"] == "answered"

    def ordered(span):
        return span.name == "payments.channel" and span.attributes["call"] == "create"

    spans = trace.whole(paid, ordered)
    worked = [("rpc.client", "cases"), ("cases.work", "cases"), ("rpc.server", "cases"), *DOOR]
    adapter, payments = ("rpc.server", "adapter"), ("rpc.server", "payments")
    assert trace.ways(spans, paid) == [trace.process(("department.exchange", "adapter"), adapter, *worked)]
    assert trace.ways(spans, ordered) == [trace.process(("payments.channel", "payments"), payments, *worked)]


def test_no_span_tells_who_it_was(app, collector):
    """Of everybody who did anything above."""
    with collector.arrived:
        spans = list(collector.spans)
    told = b"".join(span.span.SerializeToString() for span in spans).decode("utf-8", "replace")
    assert app.citizens and any(span.name == "payments.channel" for span in spans), "the tests above leave spans"
    for citizen in app.citizens:
        for secret in (citizen.person["name"], citizen.person["number"], citizen.input["plate"], citizen.openid):
            assert secret not in told
