"""An operator at the public port, with PyJWT, requests and grpcio: payments' methods for operators are for operators."""

import grpc
import pytest

from lastmile_client import EntryPoint
from lastmile_process import Lastmile

CALL_SECONDS = 10


@pytest.fixture(scope="module")
def lastmile(tmp_path_factory):
    process = Lastmile(tmp_path_factory.mktemp("lastmile"))
    yield process
    assert process.stop() == 0


def credential(lastmile, client_id):
    key = lastmile.directory / "data" / "sandbox" / "clients" / f"{client_id}.pem"
    token = EntryPoint(client_id, key, f"http://{lastmile.public}").own_token()["access_token"]
    return [("authorization", f"Bearer {token}")]


def test_an_operator_lists_breaks_and_nobody_else_does(lastmile, stubs):
    messages = stubs.payments
    payments = stubs.payments_rpc.PaymentServiceStub(grpc.insecure_channel(lastmile.public))
    operator = credential(lastmile, "operator-1")
    assert not payments.ListBreaks(messages.ListBreaksRequest(), metadata=operator, timeout=CALL_SECONDS).breaks
    unknown = messages.ResolveBreakRequest(
        request_id="1", break_id=f"brk_{'0' * 32}", resolution=messages.BREAK_RESOLUTION_EXPLAINED, note="letter 7",
    )
    with pytest.raises(grpc.RpcError) as refused:
        payments.ResolveBreak(unknown, metadata=operator, timeout=CALL_SECONDS)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND, refused.value
    others = [
        (None, grpc.StatusCode.UNAUTHENTICATED),
        (credential(lastmile, "wechat"), grpc.StatusCode.PERMISSION_DENIED),
        (credential(lastmile, "clerk-1"), grpc.StatusCode.PERMISSION_DENIED),
    ]
    for metadata, code in others:
        with pytest.raises(grpc.RpcError) as refused:
            payments.ListBreaks(messages.ListBreaksRequest(), metadata=metadata, timeout=CALL_SECONDS)
        assert refused.value.code() == code, refused.value
