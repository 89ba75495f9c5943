"""python-alipay-sdk in certificate mode (公钥证书), a client library that nobody here wrote, against the sandbox's Alipay."""

import pathlib

import pytest
import requests
from alipay import DCAliPay
from alipay.exceptions import AliPayException

from merchant import Endpoint
from sandbox_process import Sandbox

APP, PID = "2021000000430100", "2088000000430100"
SUBJECT = "交通违法罚款"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    apps = [{"app_id": APP, "pid": PID, "certificates": True}]
    with Sandbox(tmp_path_factory.mktemp("alipay"), alipay={"apps": apps}) as sandbox:
        yield sandbox


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


def sdk(sandbox, notify_url, app_certificate=None):
    keys = pathlib.Path(sandbox.addresses["alipay_keys_dir"])
    read = lambda name: (keys / name).read_text()
    client = DCAliPay(
        appid=APP, app_notify_url=notify_url, sign_type="RSA2",
        app_private_key_string=read(f"{APP}/app_private_key.pem"),
        app_public_key_cert_string=app_certificate or read(f"{APP}/app_certificate.pem"),
        alipay_public_key_cert_string=read("alipay_certificate.pem"),
        alipay_root_cert_string=read("alipay_root.pem"),
    )
    client._gateway = sandbox.url("alipay") + "/gateway.do"
    return client


def test_an_order_is_made_paid_and_told(sandbox, endpoint):
    alipay = sdk(sandbox, endpoint.url)
    made = alipay.api_alipay_trade_precreate(SUBJECT, "CERTIFIED1", "200.00")
    assert made["code"] == "10000", made
    sandbox.control("POST", "/alipay/pay", 200, json={"qr_code": made["qr_code"]})
    told = endpoint.next()
    assert alipay.verify(told, told.pop("sign")) and told["trade_status"] == "TRADE_SUCCESS"
    assert alipay.api_alipay_trade_query(out_trade_no="CERTIFIED1")["trade_status"] == "TRADE_SUCCESS"


def test_an_answer_names_alipays_certificate_as_the_client_counts_it(sandbox, endpoint):
    alipay = sdk(sandbox, endpoint.url)
    body = alipay.build_body("alipay.trade.query", {"out_trade_no": "NOWHERE"})
    answer = requests.get(alipay._gateway + "?" + alipay.sign_data(body), timeout=10)
    certificate = pathlib.Path(sandbox.addresses["alipay_keys_dir"], "alipay_certificate.pem").read_text()
    assert answer.json()["alipay_cert_sn"] == alipay.get_cert_sn(certificate)


def test_who_names_another_certificate_or_none_is_refused(sandbox, endpoint):
    keys = pathlib.Path(sandbox.addresses["alipay_keys_dir"])
    another = sdk(sandbox, endpoint.url, (keys / "alipay_certificate.pem").read_text())
    with pytest.raises(AliPayException, match="isv.invalid-signature"):
        refused = another.api_alipay_trade_query(out_trade_no="CERTIFIED1")
        raise AliPayException(refused["code"], refused["sub_code"])
    alipay = sdk(sandbox, endpoint.url)
    body = alipay.build_body("alipay.trade.query", {"out_trade_no": "CERTIFIED1"})
    del body["app_cert_sn"], body["alipay_root_cert_sn"]
    answer = requests.get(alipay._gateway + "?" + alipay.sign_data(body), timeout=10).json()
    assert answer["alipay_trade_query_response"]["sub_code"] == "isv.invalid-signature", answer
