"""jwcrypto and Authlib's joserfc beside our own JOSE: what one makes the other reads, and neither reads what is not right."""

import json
import os
import pathlib
import subprocess

import pytest
from joserfc import jwk as joserfc_jwk
from joserfc import jwt
from jwcrypto import jwe, jwk, jws

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "examples" / "jose"
CURVES = ["X25519", "P-256"]
# RFC 9864 (2025) wants "Ed25519" in place of "EdDSA"; entry points' libraries still write the old name, and so do we.
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
CLAIMS = {"iss": "identity", "sub": "某人", "exp": 1_800_000_900, "sealed": {"traffic/430100": "x"}}


def ours(command, **values):
    done = subprocess.run([BINARY, command], input=json.dumps(values), capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def signing():
    made = ours("make-signing")
    return made["pem"], made["jwk"]


# Signatures.


def test_our_key_file_is_what_openssl_and_jwcrypto_read():
    pem, public = signing()
    key = jwk.JWK.from_pem(pem.encode())
    assert key.thumbprint() == public["kid"]
    assert json.loads(key.export_public())["x"] == public["x"]


@pytest.mark.parametrize("curve", CURVES)
def test_our_agreement_key_file_is_what_jwcrypto_reads(curve):
    made = ours("make-agreement", curve=curve)
    key = jwk.JWK.from_pem(made["pem"].encode())
    assert key.thumbprint() == made["jwk"]["kid"]
    assert json.loads(key.export_public())["x"] == made["jwk"]["x"]


def test_jwcrypto_and_joserfc_verify_what_we_sign():
    pem, public = signing()
    token = ours("sign", pem=pem, typ="citizen+jwt", claims=CLAIMS)["token"]
    theirs = jws.JWS()
    theirs.deserialize(token, jwk.JWK(**public))
    assert json.loads(theirs.payload) == CLAIMS
    assert theirs.jose_header == {"alg": "EdDSA", "kid": public["kid"], "typ": "citizen+jwt"}
    assert jwt.decode(token, joserfc_jwk.import_key(public), algorithms=["EdDSA"]).claims == CLAIMS


@pytest.mark.parametrize("algorithm, made", [("EdDSA", {"kty": "OKP", "crv": "Ed25519"}), ("ES256", {"kty": "EC", "crv": "P-256"})])
def test_we_verify_what_jwcrypto_and_joserfc_sign(algorithm, made):
    key = jwk.JWK.generate(**made)
    public = json.loads(key.export_public())
    header = {"alg": algorithm, "kid": key.thumbprint()}
    theirs = jws.JWS(json.dumps(CLAIMS))
    theirs.add_signature(key, None, json.dumps(header))
    assert ours("verify", jwk=public, token=theirs.serialize(compact=True)) == {"claims": CLAIMS}
    private = joserfc_jwk.import_key(json.loads(key.export_private()))
    token = jwt.encode(header, CLAIMS, private, algorithms=[algorithm])
    assert ours("verify", jwk=public, token=token) == {"claims": CLAIMS}


def test_we_refuse_another_key_and_another_algorithm():
    key, other = (jwk.JWK.generate(kty="OKP", crv="Ed25519") for _ in range(2))
    theirs = jws.JWS(json.dumps(CLAIMS))
    theirs.add_signature(key, None, json.dumps({"alg": "EdDSA", "kid": "k"}))
    token = theirs.serialize(compact=True)
    assert ours("verify", jwk=json.loads(other.export_public()), token=token) == {"error": "signature does not verify"}
    curve = jwk.JWK.generate(kty="EC", crv="P-256")
    assert ours("verify", jwk=json.loads(curve.export_public()), token=token) == {"error": "algorithm not allowed"}
    secret = jwk.JWK.generate(kty="oct", size=256)
    theirs = jws.JWS(json.dumps(CLAIMS))
    theirs.add_signature(secret, None, json.dumps({"alg": "HS256", "kid": "k"}))
    token = theirs.serialize(compact=True)
    assert ours("verify", jwk=json.loads(key.export_public()), token=token) == {"error": "algorithm not allowed"}


def test_we_take_no_private_key_for_a_public_one():
    key = jwk.JWK.generate(kty="OKP", crv="Ed25519")
    theirs = jws.JWS(json.dumps(CLAIMS))
    theirs.add_signature(key, None, json.dumps({"alg": "EdDSA", "kid": "k"}))
    refused = ours("verify", jwk=json.loads(key.export_private()), token=theirs.serialize(compact=True))
    assert refused == {"error": "a private key"}


# Sealed texts.


@pytest.mark.parametrize("curve", CURVES)
def test_jwcrypto_opens_what_we_seal(curve):
    key = jwk.JWK.generate(kty="OKP" if curve == "X25519" else "EC", crv=curve)
    token = ours("seal", jwk=json.loads(key.export_public()), cty="JWT", plain="湘A12345")["token"]
    theirs = jwe.JWE(algs=["ECDH-ES", "A256GCM"])
    theirs.deserialize(token, key)
    assert theirs.payload.decode() == "湘A12345"
    assert theirs.jose_header["kid"] == key.thumbprint()


@pytest.mark.parametrize("party", [{}, {"apu": "QWxpY2U", "apv": "Qm9i"}])
@pytest.mark.parametrize("curve", CURVES)
def test_we_open_what_jwcrypto_seals(curve, party):
    made = ours("make-agreement", curve=curve)
    header = {"alg": "ECDH-ES", "enc": "A256GCM", "kid": made["jwk"]["kid"], **party}
    theirs = jwe.JWE("湘A12345".encode(), json.dumps(header), algs=["ECDH-ES", "A256GCM"])
    theirs.add_recipient(jwk.JWK(**made["jwk"]))
    token = theirs.serialize(compact=True)
    assert ours("open", curve=curve, pem=made["pem"], token=token) == {"plain": "湘A12345"}


def test_we_open_nothing_that_asks_for_more():
    made = ours("make-agreement", curve="X25519")
    for header, algorithms, said in [
        ({"alg": "ECDH-ES", "enc": "A256GCM", "zip": "DEF"}, ["ECDH-ES", "A256GCM"], "a header that is not spoken"),
        ({"alg": "ECDH-ES", "enc": "A128GCM"}, ["ECDH-ES", "A128GCM"], "a header that is not spoken"),
        (
            {"alg": "ECDH-ES+A256KW", "enc": "A256GCM"},
            ["ECDH-ES+A256KW", "A256GCM"],
            "not the five parts of a directly agreed JWE",
        ),
    ]:
        theirs = jwe.JWE(b"x", json.dumps(header), algs=algorithms)
        theirs.add_recipient(jwk.JWK(**made["jwk"]))
        token = theirs.serialize(compact=True)
        assert ours("open", curve="X25519", pem=made["pem"], token=token) == {"error": said}, header
