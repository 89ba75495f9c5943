"""The standard token endpoint, asked by PyJWT, jwcrypto and Authlib as RFC 6749, 7523 and 8693 say."""

import time

import jwt
import pytest
import requests

from lastmile_client import JWT_BEARER, EntryPoint, Refused, claims_unverified, sealing_key
from lastmile_process import Lastmile

PROFILES = ["traffic/430100", "traffic/140100"]
PERSON = {"level": 3, "name": "张三", "doc_type": "resident_id", "doc_no": "11010519491231002X"}
TOKEN_BYTES_MAX = 8 * 1024
# RFC 9864 (2025) wants "Ed25519" in place of "EdDSA"; entry points' libraries still write the old name, and so do we.
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")


@pytest.fixture(scope="module")
def lastmile(tmp_path_factory):
    process = Lastmile(tmp_path_factory.mktemp("lastmile"))
    yield process
    assert process.stop() == 0


@pytest.fixture
def client(lastmile):
    def of(client_id, **options):
        key = lastmile.directory / "data" / "sandbox" / "clients" / f"{client_id}.pem"
        return EntryPoint(client_id, key, f"http://{lastmile.public}", **options)

    return of


def refused(call):
    with pytest.raises(Refused) as refusal:
        call()
    return refusal.value.status, refusal.value.error, refusal.value.reason


@pytest.mark.parametrize("curve", ["X25519", "P-256"])
@pytest.mark.parametrize("client_id", ["wechat", "taobao"])
def test_a_real_name_becomes_a_token(client, client_id, curve):
    """wechat signs with EdDSA, taobao with ES256."""
    answer = client(client_id).exchange({**PERSON, "sub": "o1"}, PROFILES, curve)
    assert (answer["token_type"], answer["issued_token_type"]) == ("Bearer", "urn:ietf:params:oauth:token-type:access_token")
    assert 0 < answer["expires_in"] <= 900 and len(answer["access_token"]) <= TOKEN_BYTES_MAX
    assert PERSON["name"] not in str(claims_unverified(answer["access_token"]))


def test_the_token_verifies_with_the_jwks_and_is_for_the_gateway_alone(client):
    wechat = client("wechat")
    token = wechat.exchange({**PERSON, "sub": "o1"}, PROFILES)["access_token"]
    kid = jwt.get_unverified_header(token)["kid"]
    key = jwt.PyJWK(next(key for key in wechat.jwks()["keys"] if key["kid"] == kid), algorithm="EdDSA").key
    claims = jwt.decode(token, key, algorithms=["EdDSA"], audience="gateway", issuer="identity", options={"require": ["exp", "nbf", "iat", "jti", "sub"]})
    assert (claims["act"], claims["level"]) == ({"sub": "wechat"}, 3)
    assert set(claims["sealed"]) == {*PROFILES, "cases", "identity"}
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(token, key, algorithms=["EdDSA"], audience="wechat")


def test_two_entry_points_cannot_join_one_citizen(client):
    def subject(client_id, sub):
        token = client(client_id).exchange({**PERSON, "sub": sub}, PROFILES)["access_token"]
        return claims_unverified(token)["sub"]

    assert subject("wechat", "o1") == subject("wechat", "o1")
    assert len({subject(client_id, "same") for client_id in ["wechat", "qq", "alipay", "taobao"]}) == 4


@pytest.mark.parametrize("client_id", ["alipay", "taobao", "clerk-1"])
def test_authlib_gets_a_token_of_its_own(client, lastmile, client_id):
    session = client(client_id).session()
    token = session.fetch_token(f"http://{lastmile.public}/oauth2/token", grant_type="client_credentials")
    assert token["token_type"] == "Bearer" and not token.is_expired()


def test_refusals_have_the_codes_of_the_rfcs(client):
    wechat, person = client("wechat"), {**PERSON, "sub": "o1"}
    key = wechat.identity_key()
    for call, answer in [
        (lambda: wechat.own_token(grant_type="password"), (400, "unsupported_grant_type", "GRANT_TYPE_UNSUPPORTED")),
        (lambda: wechat.own_token(scope="admin"), (400, "invalid_scope", "SCOPE_REFUSED")),
        (lambda: wechat.own_token(client_assertion_type="x"), (400, "invalid_request", "INVALID_REQUEST")),
        (lambda: wechat.own_token(client_assertion="a.b.c"), (401, "invalid_client", "CLIENT_ASSERTION_INVALID")),
        (lambda: wechat.own_token(client_assertion=wechat.client_assertion(exp=int(time.time()) + 3_600)), (401, "invalid_client", "CLIENT_ASSERTION_INVALID")),
        (lambda: wechat.exchange(person, ["traffic/999999"]), (400, "invalid_target", "AUDIENCE_UNKNOWN")),
        (lambda: wechat.exchange(person, []), (400, "invalid_target", "AUDIENCE_UNKNOWN")),
        (lambda: wechat.exchange(person, PROFILES, subject_token="x"), (400, "invalid_request", "REAL_NAME_ASSERTION_INVALID")),
        (lambda: wechat.exchange({**person, "doc_no": "110105194912310021"}, PROFILES), (400, "invalid_request", "DOCUMENT_NUMBER_INVALID")),
        (lambda: wechat.exchange(person, PROFILES, subject_token=client("qq").real_name(person, key)), (400, "invalid_request", "REAL_NAME_ASSERTION_INVALID")),
    ]:
        assert refused(call) == answer


def test_an_assertion_counts_once(client):
    wechat = client("wechat")
    assertion = wechat.client_assertion()
    wechat.own_token(client_assertion=assertion)
    assert refused(lambda: wechat.own_token(client_assertion=assertion)) == (401, "invalid_client", "JTI_REUSED")
    real_name = wechat.real_name({**PERSON, "sub": "o1"}, wechat.identity_key())
    wechat.exchange({}, PROFILES, subject_token=real_name)
    again = lambda: wechat.exchange({}, PROFILES, subject_token=real_name)
    assert refused(again) == (400, "invalid_request", "JTI_REUSED")


def test_answers_are_never_cached_and_forms_never_ambiguous(client, lastmile):
    wechat = client("wechat")
    url = f"http://{lastmile.public}/oauth2/token"
    form = {"grant_type": "client_credentials", "client_assertion_type": JWT_BEARER, "client_assertion": wechat.client_assertion()}
    answer = requests.post(url, data=form, timeout=10)
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    twice = requests.post(url, data=[*form.items(), ("grant_type", "password")], timeout=10)
    assert (twice.status_code, twice.json()["error"]) == (400, "invalid_request")
    assert sealing_key(wechat.jwks(), "P-256").export(private_key=False)
