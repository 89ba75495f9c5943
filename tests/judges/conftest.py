"""What several judges share."""

import subprocess
import sys

import pytest

from lastmile_process import ROOT


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    """Messages and stubs that grpcio-tools makes from proto/ alone."""
    out = tmp_path_factory.mktemp("stubs")
    files = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}"]
    subprocess.run([*command, *files], check=True)
    sys.path.insert(0, str(out))
    from lastmile.cases.v1 import cases_pb2, cases_pb2_grpc
    from lastmile.catalog.v1 import catalog_pb2, catalog_pb2_grpc
    from lastmile.common.v1 import common_pb2
    from lastmile.department.v1 import department_pb2, department_pb2_grpc
    from lastmile.payments.v1 import payments_pb2, payments_pb2_grpc

    class Stubs:
        cases, cases_rpc = cases_pb2, cases_pb2_grpc
        catalog, catalog_rpc = catalog_pb2, catalog_pb2_grpc
        common = common_pb2
        payments, payments_rpc = payments_pb2, payments_pb2_grpc
        department, department_rpc = department_pb2, department_pb2_grpc

    return Stubs
