"""Our spans, as a collector with OpenTelemetry's own messages receives them: from the public port to the department's bytes, one trace."""

import threading
import time
from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from lastmile_process import Lastmile
from super_app import SuperApp

FLUSH_SECONDS_MAX = 20
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self):
        self.spans, self.arrived = [], threading.Condition()

    def Export(self, request, context):
        with self.arrived:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    self.spans.extend(scope.spans)
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


@pytest.fixture(scope="module")
def app(tmp_path_factory, collector, stubs):
    directory = tmp_path_factory.mktemp("traces")
    config = directory / "otlp.toml"
    config.write_text(f'[telemetry.otlp]\nendpoint = "http://127.0.0.1:{collector.port}"\n')
    process = Lastmile(directory, config)
    yield SuperApp(process, stubs)
    assert process.stop() == 0


def attributes(span):
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


@pytest.mark.parametrize("region", ["430100", "140100"])
def test_one_trace_from_the_super_app_to_the_departments_bytes(app, collector, region):
    citizen = app.citizen(region, 3)
    trace_id = TRACE_ID[:-6] + region
    citizen.metadata.append(("traceparent", f"00-{trace_id}-{PARENT_ID}-01"))
    citizen.query()

    def of_trace(spans):
        return [span for span in spans if span.trace_id.hex() == trace_id]

    spans = of_trace(collector.wait(lambda spans: any(span.parent_span_id.hex() == PARENT_ID for span in of_trace(spans))))
    by_id = {span.span_id: span for span in spans}
    exchanges = [span for span in spans if span.name == "department.exchange"]
    assert len(exchanges) >= 2, [span.name for span in spans]
    for exchange in exchanges:
        told = attributes(exchange)
        assert told["profile"] == f"traffic/{region}" and told["end"] == "answered"
        assert int(told["request_bytes"]) > 0 and int(told["reply_bytes"]) > 0
        path, span = [], exchange
        while span.span_id in by_id and span.parent_span_id in by_id:
            span = by_id[span.parent_span_id]
            path.append(span.name)
        assert path == ["rpc.server", "rpc.client", "gateway"], path
        assert span.parent_span_id.hex() == PARENT_ID, "the super app's own span is the parent of ours"


def test_a_case_leaves_spans_of_channel_and_department(app, collector):
    citizen = app.citizen("430100", 4)
    case = citizen.open(citizen.bill())
    cases = app.stubs.cases
    seen = citizen.watch(case, {cases.CASE_STATE_WAITING_PAYMENT})
    citizen.pay(case)
    citizen.watch(case, {cases.CASE_STATE_DONE}, seen)

    def said(spans, name, **wanted):
        return any(span.name == name and wanted.items() <= attributes(span).items() for span in spans)

    collector.wait(lambda spans: said(spans, "department.exchange", exchange="pay", end="answered") and said(spans, "payments.channel"))


def test_no_span_tells_who_it_was(app, collector):
    """Of everybody who did anything above."""
    with collector.arrived:
        spans = list(collector.spans)
    told = b"".join(span.SerializeToString() for span in spans).decode("utf-8", "replace")
    assert app.citizens and any(span.name == "payments.channel" for span in spans), "the tests above leave spans"
    for citizen in app.citizens:
        for secret in (citizen.person["name"], citizen.person["number"], citizen.input["plate"], citizen.openid):
            assert secret not in told
