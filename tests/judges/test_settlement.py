"""A settlement's file, judged by the Python that docs/settlement.md prints, word for word: nothing of ours but the file, its signature, the key."""

import base64
import json
import re
import subprocess
import sys
import time
import uuid

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lastmile_client import EntryPoint
from lastmile_process import ROOT, Lastmile
from super_app import SuperApp

CALL_SECONDS = 10
SETTLE_SECONDS_MAX = 60
REGION = "430100"
PAYEE = f"treasury-{REGION}-traffic"


@pytest.fixture(scope="module")
def lastmile(tmp_path_factory):
    process = Lastmile(tmp_path_factory.mktemp("lastmile"))
    yield process
    assert process.stop() == 0


@pytest.fixture(scope="module")
def settlement(lastmile, stubs):
    """A fine that was paid and posted, cut and signed: the settlement and its file."""
    app = SuperApp(lastmile, stubs)
    citizen = app.citizen(REGION, 1)
    case = citizen.open(citizen.bill())
    seen = citizen.watch(case, {stubs.cases.CASE_STATE_WAITING_PAYMENT})
    citizen.pay(case)
    citizen.watch(case, {stubs.cases.CASE_STATE_DONE}, seen)

    messages, payments = stubs.payments, stubs.payments_rpc.PaymentServiceStub(grpc.insecure_channel(lastmile.public))
    key = lastmile.directory / "data" / "sandbox" / "clients" / "operator-1.pem"
    token = EntryPoint("operator-1", key, f"http://{lastmile.public}").own_token()["access_token"]
    with_token = {"metadata": [("authorization", f"Bearer {token}")], "timeout": CALL_SECONDS}
    cut = payments.CutSettlement(messages.CutSettlementRequest(request_id=uuid.uuid4().hex, payee_id=PAYEE), **with_token)
    asked = messages.GetSettlementRequest(settlement_id=cut.settlement.settlement_id)
    end = time.monotonic() + SETTLE_SECONDS_MAX
    while (one := payments.GetSettlement(asked, **with_token).settlement).state != messages.SETTLEMENT_STATE_SIGNED:
        assert time.monotonic() < end, one
        time.sleep(0.1)
    data, page = b"", messages.ReadSettlementFileRequest(settlement_id=one.settlement_id)
    while True:
        part = payments.ReadSettlementFile(page, **with_token)
        data, page.page_token = data + part.data, part.next_page_token
        if not page.page_token:
            return one, data


def recipe():
    """The program as it is printed."""
    printed, = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "settlement.md").read_text(), re.DOTALL)
    return printed


def judged(directory, one, data, signature=None, key=None, name=None):
    """How the printed program ends, and the last line of what it says."""
    file = directory / (name or one.file_name)
    file.write_bytes(data)
    (directory / f"{file.name}.jws").write_text(signature or one.signature)
    (directory / "payments.jwk").write_text(key or one.key)
    command = [sys.executable, "-c", recipe(), str(file), str(directory / "payments.jwk")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return ended.returncode, ended.stderr.strip().rpartition("\n")[2]


def test_the_printed_program_believes_the_file(settlement, tmp_path):
    one, data = settlement
    assert one.line_count == 1 and data.count(b"\n") == 3, data
    assert judged(tmp_path, one, data) == (0, "")


@pytest.mark.parametrize("touch", [
    lambda data: data.replace(b'"posting"', b'"refund"', 1),
    lambda data: data[:-1],
    lambda data: data + b"\n",
    lambda data: b"".join(data.splitlines(keepends=True)[:1] + data.splitlines(keepends=True)[2:]),
])
def test_a_touched_file_is_refused(settlement, tmp_path, touch):
    one, data = settlement
    assert touch(data) != data
    assert judged(tmp_path, one, touch(data)) == (1, "AssertionError")


def test_another_name_another_signature_and_another_key_are_refused(settlement, tmp_path):
    one, data = settlement
    assert judged(tmp_path, one, data, name="other.jsonl") == (1, "AssertionError")
    head, claims, signature = one.signature.split(".")
    other = signature[:-4] + ("AAAA" if signature[-4:] != "AAAA" else "BBBB")
    assert "InvalidSignature" in judged(tmp_path, one, data, signature=f"{head}.{claims}.{other}")[1]
    changed = claims[:-4] + ("fQAA" if claims[-4:] != "fQAA" else "fQBB")
    assert "InvalidSignature" in judged(tmp_path, one, data, signature=f"{head}.{changed}.{signature}")[1]
    stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    key = {**json.loads(one.key), "x": base64.urlsafe_b64encode(stranger).decode().rstrip("=")}
    assert "InvalidSignature" in judged(tmp_path, one, data, key=json.dumps(key))[1]
