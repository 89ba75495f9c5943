"""An entry point's back end, made of libraries that are not ours.

PyJWT signs the assertions, jwcrypto seals the citizen's, Authlib and requests speak to the token endpoint. Nothing here knows how
lastmile is built: it reads the JWKS, makes the two assertions that the contract asks for, and exchanges them, over HTTP or over gRPC
with stubs that grpcio-tools generated from proto/.
"""

import json
import pathlib
import time
import uuid

import jwt
import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc.jwk import ECKey, OKPKey
from jwcrypto import jwe, jwk

CLIENT_CREDENTIALS = "client_credentials"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
IDENTITY = "identity"
TIMEOUT_SECONDS = 10
LIFE_SECONDS_MAX = 60


class Refused(Exception):
    """What the token endpoint said instead of giving a token."""

    def __init__(self, status, body):
        super().__init__(f"{status} {body}")
        self.status, self.body = status, body
        self.error, self.reason = body.get("error"), body.get("reason")


class EntryPoint:
    """One client of the token endpoint: an entry point, a clerk or an operator."""

    def __init__(self, client_id, private_key_pem, base_url=None, audience=IDENTITY):
        """`base_url` is where /oauth2/token and /.well-known/jwks.json are; `audience` what assertions are addressed to."""
        pem = pathlib.Path(private_key_pem).read_bytes()
        self.id, self.base_url, self.audience = client_id, base_url, audience
        self.key = load_pem_private_key(pem, None)
        self.jwk = jwk.JWK.from_pem(pem)
        self.kid = self.jwk.thumbprint()
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            self.alg = "EdDSA"
        elif isinstance(self.key, ec.EllipticCurvePrivateKey):
            self.alg = "ES256"
        else:
            raise ValueError("neither Ed25519 nor P-256")

    # What is signed.

    def sign(self, claims, headers=None):
        return jwt.encode(claims, self.key, algorithm=self.alg, headers={"kid": self.kid, **(headers or {})})

    def once(self, **claims):
        now = int(time.time())
        return {"iss": self.id, "aud": self.audience, "iat": now, "exp": now + LIFE_SECONDS_MAX, "jti": uuid.uuid4().hex, **claims}

    def client_assertion(self, **changes):
        return self.sign(self.once(sub=self.id, **changes))

    def real_name(self, person, identity_key, **changes):
        """Signs what is known of a person and seals it. `person`: sub, level, name, doc_type, doc_no and what else was verified."""
        return seal(self.sign(self.once(**person, **changes)), identity_key)

    # The token endpoint over HTTP.

    def jwks(self):
        answer = requests.get(f"{self.base_url}/.well-known/jwks.json", timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
        return answer.json()

    def identity_key(self, curve="X25519"):
        return sealing_key(self.jwks(), curve)

    def post(self, **form):
        answer = requests.post(f"{self.base_url}/oauth2/token", data=form, timeout=TIMEOUT_SECONDS)
        if answer.status_code != 200:
            raise Refused(answer.status_code, answer.json())
        return answer.json()

    def exchange(self, person, profiles, curve="X25519", **changes):
        """Asks for a citizen token that addresses `profiles`. `changes` overwrite fields of the form."""
        form = {
            "grant_type": TOKEN_EXCHANGE,
            "client_assertion_type": JWT_BEARER,
            "client_assertion": self.client_assertion(),
            "subject_token": self.real_name(person, self.identity_key(curve)),
            "subject_token_type": JWT_TYPE,
            "audience": profiles,
        }
        return self.post(**{**form, **changes})

    def own_token(self, **changes):
        form = {"grant_type": CLIENT_CREDENTIALS, "client_assertion_type": JWT_BEARER, "client_assertion": self.client_assertion()}
        return self.post(**{**form, **changes})

    def session(self):
        """Authlib's own session, which makes client assertions by itself at every call."""
        load = OKPKey if self.alg == "EdDSA" else ECKey
        session = OAuth2Session(self.id, load.import_key(self.jwk.export_to_pem(True, None)), token_endpoint_auth_method="private_key_jwt")
        session.register_client_auth_method(FreshPrivateKeyJWT(self))
        return session

    # The same over gRPC.

    def exchange_grpc(self, stub, messages, person, profiles, identity_key):
        """`stub` is an IdentityServiceStub, `messages` the module of identity.proto."""
        return stub.IssueToken(messages.IssueTokenRequest(
            grant_type=TOKEN_EXCHANGE,
            client_assertion_type=JWT_BEARER,
            client_assertion=self.client_assertion(),
            subject_token=self.real_name(person, identity_key),
            subject_token_type=JWT_TYPE,
            audience=profiles,
        ), timeout=TIMEOUT_SECONDS)

    def own_token_grpc(self, stub, messages):
        return stub.IssueToken(messages.IssueTokenRequest(
            grant_type=CLIENT_CREDENTIALS,
            client_assertion_type=JWT_BEARER,
            client_assertion=self.client_assertion(),
        ), timeout=TIMEOUT_SECONDS)


class FreshPrivateKeyJWT(PrivateKeyJWT):
    """Authlib's private_key_jwt, told the algorithm and kid, and to let an assertion live one minute and not an hour."""

    def __init__(self, client):
        super().__init__(token_endpoint=client.audience, alg=client.alg)
        self.client = client

    def sign(self, auth, token_endpoint):
        self.headers = {"kid": self.client.kid}
        self.claims = {"exp": int(time.time()) + LIFE_SECONDS_MAX}
        return super().sign(auth, token_endpoint)


def sealing_key(jwks, curve="X25519"):
    """Finds identity's key of a curve in a JWKS."""
    found = [key for key in jwks["keys"] if key.get("use") == "enc" and key["crv"] == curve]
    assert found, f"no key to seal for on {curve}"
    return jwk.JWK(**found[-1])


def seal(text, key):
    """Seals a text for a public key with ECDH-ES and A256GCM."""
    header = {"alg": "ECDH-ES", "enc": "A256GCM", "cty": "JWT", "kid": key.thumbprint()}
    sealed = jwe.JWE(text.encode(), json.dumps(header), recipient=key)
    return sealed.serialize(compact=True)


def open_sealed(text, key):
    """Opens what was sealed for a private key."""
    opened = jwe.JWE(algs=["ECDH-ES", "A256GCM"])
    opened.deserialize(text, key)
    return opened.payload


def claims_unverified(token):
    return jwt.decode(token, options={"verify_signature": False})
