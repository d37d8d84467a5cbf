"""The HTTP endpoint of a rehearsal's AWS clients: SageMaker is ours, all else except S3 is moto's."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from cloud.emulator.control_plane import ROLE, ControlPlane
from cloud.emulator.jobs import ACCOUNT
from cloud.emulator.s3_server import ACCESS_KEY
from cloud.emulator.services.api import ApiError, check_api_request
from cloud.emulator.services.batch_queue import BatchQueue
from cloud.emulator.services.catalog import API_TARGETS, Catalog
from cloud.emulator.services.policies import CALLER_ARN, ApiCall, Authorizer, Principal, simulate
from cloud.emulator.services.requests import (
    ApiRequest,
    error_xml,
    identity_xml,
    read_api_request,
    simulation_xml,
)
from psa.core.errors import UserError
from psa.core.extras import how_to_install

_LOG = logging.getLogger(__name__)
_SAGEMAKER: Final = "SageMaker"
_QUERY_SERVICES: Final = ("iam", "sts")
# the codes of the query protocol
_QUERY_CODE: Final = {
    "AccessDeniedException": "AccessDenied",
    "UnrecognizedClientException": "InvalidClientTokenId",
}
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
def serve_http(
    plane: ControlPlane, queue: BatchQueue, catalog: Catalog, authorizer: Authorizer
) -> Iterator[str]:
    """Serve on loopback until the block ends. Yield the address."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        """A request handler that logs nothing."""

        def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 -- werkzeug's name
            _LOG.debug(message, *args)

    server = make_server(
        "127.0.0.1", 0, _application(plane, queue, catalog, authorizer), threaded=True, request_handler=Silent
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _application(plane: ControlPlane, queue: BatchQueue, catalog: Catalog, authorizer: Authorizer) -> _App:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    others: _App = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        request = read_api_request(environ)
        is_query = request.service in _QUERY_SERVICES
        try:
            answer = _answered(request, environ, plane, queue, catalog, authorizer)
            if answer is None:
                return others(environ, start)
            status = "200 OK"
        except ApiError as refusal:
            status, answer = "400 Bad Request", {"__type": refusal.code, "message": refusal.message}
            if is_query:
                status, answer = (
                    "403 Forbidden",
                    error_xml(_QUERY_CODE.get(refusal.code, refusal.code), refusal.message),
                )
        except NotImplementedError as error:  # moto does not implement the operation
            status, answer = "501 Not Implemented", {"__type": "NotImplemented", "message": str(error)}
        except Exception as error:  # noqa: BLE001 -- an internal error fails one request, not the rehearsal
            _LOG.exception("%s", request.operation)
            status = "500 Internal Server Error"
            answer = {"__type": "InternalFailure", "message": str(error)}
        body = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        kind = "text/xml" if isinstance(answer, str) else "application/x-amz-json-1.1"
        start(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    return application


def _answered(
    request: ApiRequest,
    environ: dict[str, Any],
    plane: ControlPlane,
    queue: BatchQueue,
    catalog: Catalog,
    authorizer: Authorizer,
) -> dict[str, Any] | str | None:
    """Return the answer of our own services, or None for a request to moto. Raises ApiError."""
    if request.target == _SAGEMAKER:
        _check_key(environ)
        return plane.answer(request.operation, request.body)
    if request.operation == "GetCallerIdentity":  # needs no permission
        _check_key(environ)
        return identity_xml(CALLER_ARN)
    operation = queue.operation(request.path)
    if request.service == "batch" and operation:
        _check_key(environ)
        called = request._replace(operation=operation)
        authorizer.check(ApiCall("caller", called.action, called.resource))
        if operation == "SubmitServiceJob":
            plane.check_role_passed(json.loads(request.body["serviceRequestPayload"]))
        return queue.answer(operation, request.body)
    if request.service:
        authorizer.check(ApiCall("caller", request.action, request.resource))
    if request.target in API_TARGETS:
        return catalog.answer(API_TARGETS[request.target], request.operation, request.body)
    if request.operation == "SimulatePrincipalPolicy":
        check_api_request("iam", request.operation, request.body)
        principal: Principal = "role" if ":role/" in request.body["PolicySourceArn"] else "caller"
        return simulation_xml(list(simulate(authorizer, principal, request.body)))
    return None


def _check_key(environ: dict[str, Any]) -> None:
    if f"Credential={ACCESS_KEY}/" not in environ.get("HTTP_AUTHORIZATION", ""):
        raise ApiError(
            "UnrecognizedClientException", "The security token included in the request is invalid."
        )
