"""The HTTP endpoint of a rehearsal's AWS clients: SageMaker is ours, all else except S3 is moto's."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from cloud.emulator.control_plane import ROLE, ApiError, ControlPlane
from cloud.emulator.jobs import ACCOUNT
from cloud.emulator.s3_server import ACCESS_KEY
from psa.core.errors import UserError
from psa.core.extras import how_to_install

_LOG = logging.getLogger(__name__)
_SAGEMAKER: Final = "SageMaker."
_NEEDED: Final = (
    "botocore.session",
    "moto.iam.models",
    "moto.logs.models",
    "moto.moto_server.werkzeug_app",
    "regex",
    "werkzeug.serving",
)
_TRUST: Final = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "sagemaker.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)
_SHARING: Final = threading.Lock()
_SHARERS: Final[list[object]] = []
_Start = Callable[[str, list[tuple[str, str]]], Any]
_App = Callable[[dict[str, Any], _Start], Iterable[bytes]]


def import_modules() -> None:
    """Import modules that are slow to load. Raises UserError if they are not installed."""
    try:
        for name in _NEEDED:
            importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed, which a rehearsal needs", how_to_install("rehearse")
        ) from None


def role_exists(name: str) -> bool:
    """Return whether moto's IAM has a role of that name."""
    return any(role.name == name for role in _iam().roles.values())


def create_role() -> None:
    """Create the role of a rehearsal's jobs, as on AWS."""
    if not role_exists(ROLE):
        _iam().create_role(
            role_name=ROLE,
            assume_role_policy_document=_TRUST,
            path="/",
            permissions_boundary=None,
            description="for rehearsals",
            tags=[],
            max_session_duration="3600",
        )


@contextlib.contextmanager
def moto_state() -> Iterator[None]:
    """Reset moto's in-memory state, and keep it for the duration of the block.

    The state is shared by all rehearsals that run at the same time in a process.
    """
    from moto.iam.models import iam_backends
    from moto.logs.models import logs_backends

    with _SHARING:
        if not _SHARERS:
            iam_backends.reset()
            logs_backends.reset()
        create_role()
        me = object()
        _SHARERS.append(me)
    try:
        yield
    finally:
        with _SHARING:
            _SHARERS.remove(me)


def _iam() -> Any:
    from moto.iam.models import iam_backends

    return iam_backends[ACCOUNT]["aws"]


@contextlib.contextmanager
def serve_http(plane: ControlPlane) -> Iterator[str]:
    """Serve on loopback until the block ends. Yield the address."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        """A request handler that logs nothing."""

        def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 -- werkzeug's name
            _LOG.debug(message, *args)

    server = make_server("127.0.0.1", 0, _application(plane), threaded=True, request_handler=Silent)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _application(plane: ControlPlane) -> _App:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    others: _App = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if not target.startswith(_SAGEMAKER):
            try:
                return others(environ, start)
            except NotImplementedError as error:  # moto does not implement the operation
                status, answer = "501 Not Implemented", {"__type": "NotImplemented", "message": str(error)}
        else:
            status, answer = _answered(plane, target.removeprefix(_SAGEMAKER), environ)
        body = json.dumps(answer).encode()
        start(status, [("Content-Type", "application/x-amz-json-1.1"), ("Content-Length", str(len(body)))])
        return [body]

    return application


def _answered(plane: ControlPlane, operation: str, environ: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    try:
        _check_key(environ)
        return "200 OK", plane.answer(operation, json.loads(body or b"{}"))
    except ApiError as refusal:
        return "400 Bad Request", {"__type": refusal.code, "message": refusal.message}
    except Exception as error:  # noqa: BLE001 -- an internal error fails one request, not the rehearsal
        _LOG.exception("%s", operation)
        return "500 Internal Server Error", {"__type": "InternalFailure", "message": str(error)}


def _check_key(environ: dict[str, Any]) -> None:
    if f"Credential={ACCESS_KEY}/" not in environ.get("HTTP_AUTHORIZATION", ""):
        raise ApiError(
            "UnrecognizedClientException", "The security token included in the request is invalid."
        )
