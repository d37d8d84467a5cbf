"""Identities of AWS without keys in sight: roles of pods and containers, profiles, addresses of services."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("boto3", reason="the extra aws is not installed")
pytest.importorskip("dotenv", reason="the extra aws is not installed")

from botocore.utils import ContainerMetadataFetcher
from clusters import broken_ray
from processes import ROOT
from s3 import s3_server

from cloud.aws.account import open_account
from cloud.aws.settings import Settings, read_settings
from cloud.emulator.s3_server import ACCESS_KEY, S3, SECRET_KEY
from cloud.ray.driver_process import Driver
from psa.core.errors import RunFailure, UserError

PLACE = {"S3_BUCKET_NAME": "a-bucket", "AWS_SAGEMAKER_ROLE": "arn:aws:iam::123456789012:role/psa"}
TOKEN = "of-the-container"  # noqa: S105 - of an endpoint that listens on loopback only
ASSUMED = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId>
<SecretAccessKey>x</SecretAccessKey><SessionToken>t</SessionToken>
<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""


class Endpoint(BaseHTTPRequestHandler):
    """The credential endpoint of a container, and the STS that takes the token of a pod."""

    def do_GET(self) -> None:
        """Answer as the agent of ECS and EKS."""
        if self.path != "/role" or self.headers.get("Authorization") != TOKEN:
            self._say(403, "{}")
            return
        keys = {"AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "Token": ""}
        self._say(200, json.dumps({**keys, "Expiration": "2999-01-01T00:00:00Z"}))

    def do_POST(self) -> None:
        """Answer AssumeRoleWithWebIdentity."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        known = "WebIdentityToken=of-the-pod" in body and "RoleArn=" in body
        self._say(200 if known else 400, ASSUMED.format(key="ASIAPOD"))

    def _say(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Run the endpoint on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leave nothing of AWS's in the environment, and no file of the user's."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**PLACE, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)


def access_key(found: Settings) -> str:
    """Return the key that requests of a client are signed with."""
    credentials = found.client("sagemaker")._request_signer._credentials
    return str(credentials.get_frozen_credentials().access_key)


def test_the_role_of_a_pod(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token in a file and the name of a role, as Kubernetes and GitHub's actions hand them out."""
    (tmp_path / "token").write_text("of-the-pod")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pod")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", endpoint)
    assert access_key(read_settings(tmp_path)) == "ASIAPOD"


@pytest.mark.parametrize("name", ["FULL", "RELATIVE"])
def test_the_role_of_a_container(
    name: str, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its address as ECS gives it, and as EKS does."""
    monkeypatch.setattr(ContainerMetadataFetcher, "IP_ADDRESS", endpoint.removeprefix("http://"))
    address = f"{endpoint}/role" if name == "FULL" else "/role"
    monkeypatch.setenv(f"AWS_CONTAINER_CREDENTIALS_{name}_URI", address)
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", TOKEN)
    assert access_key(read_settings(tmp_path)) == ACCESS_KEY


@pytest.mark.slow
def test_an_endpoint_that_refuses_is_one_line(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token of the container is missing."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{endpoint}/role")
    with pytest.raises(UserError, match=r"AWS's own settings cannot be used: .*metadata"):
        read_settings(tmp_path)


CONFIG = """[profile local]
region = eu-central-1
aws_access_key_id = {key}
aws_secret_access_key = {secret}
endpoint_url = http://127.0.0.1:1001
services = mine
[services mine]
s3 =
  endpoint_url = http://127.0.0.1:1002
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "addresses"),
    [
        ({"AWS_PROFILE": "local"}, {"s3": "http://127.0.0.1:1002", "sagemaker": "http://127.0.0.1:1001"}),
        (
            {"AWS_PROFILE": "local", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1003"},
            {"s3": "http://127.0.0.1:1003", "sagemaker": "http://127.0.0.1:1001"},
        ),
        (
            {"AWS_PROFILE": "local", "AWS_ENDPOINT_URL_SAGEMAKER": "http://127.0.0.1:1004"},
            {"s3": "http://127.0.0.1:1002", "sagemaker": "http://127.0.0.1:1004"},
        ),
        (
            {"AWS_PROFILE": "local", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            {"s3": "amazonaws.com", "sagemaker": "amazonaws.com"},
        ),
    ],
)
def test_addresses_of_services(
    environment: dict[str, str],
    addresses: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The endpoint of a profile, of its services or of the environment is used by every command."""
    (tmp_path / "config").write_text(CONFIG.format(key=ACCESS_KEY, secret=SECRET_KEY))
    for name, value in {"AWS_CONFIG_FILE": str(tmp_path / "config"), **environment}.items():
        monkeypatch.setenv(name, value)
    for found in (read_settings(tmp_path), open_account()):
        for service, address in addresses.items():
            assert address in found.client(service).meta.endpoint_url


# What Ray's storage makes of them: it asks through another client of S3, in other processes.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """Run one S3 server."""
    with s3_server(tmp_path_factory.mktemp("s3")) as found:
        yield found


STORE = "import sys; from cloud.object_store import ObjectStore; ObjectStore.at(sys.argv[1]).check_writable()"


@pytest.mark.slow
@pytest.mark.parametrize("identity", ["container", "profile", "address"])
def test_the_storage_of_ray(
    identity: str, endpoint: str, server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No keys in the environment; or no address in that of the storage."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    uri, environment = server.uri("runs"), {"AWS_REGION": "us-east-1"}
    if identity == "container":
        environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{endpoint}/role"
        environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = TOKEN
    elif identity == "profile":
        keys = f"[local]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
        (tmp_path / "credentials").write_text(keys)
        environment |= {"AWS_PROFILE": "local", "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}
    else:
        uri, environment = f"s3://{server.bucket}/runs", dict(server.environment)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-c", STORE, uri], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


FILES = (
    "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_CA_BUNDLE",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_files_are_found_by_processes_of_ray(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run in another folder than the one where the command was typed."""
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "file").write_text("the content")
    line = f"import os; raise ImportError(open(os.environ[{name!r}]).read())"
    monkeypatch.setenv("PYTHONPATH", broken_ray(tmp_path, line))
    monkeypatch.setenv(name, "settings/file")
    with pytest.raises(RunFailure, match="ImportError: the content"):
        list(Driver(tmp_path / "models").events({}))
