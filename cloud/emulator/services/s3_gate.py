"""A gate in front of the S3 server: it checks what each principal may do, and passes the request on.

The request stays as it was signed, so that the S3 server checks its signature.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from cloud.emulator.services.policies import AccessDenied, ApiCall, Authorizer, Principal

_KEY: Final = re.compile(r"Credential=([^/]+)/")
_DELETED: Final = re.compile(rb"<Key>([^<]+)</Key>")
_HOP: Final = {"connection", "transfer-encoding", "keep-alive", "expect"}
_OBJECT_ACTIONS: Final = {
    "GET": "s3:GetObject",
    "HEAD": "s3:GetObject",
    "PUT": "s3:PutObject",
    "POST": "s3:PutObject",
    "DELETE": "s3:DeleteObject",
}
_BUCKET_ACTIONS: Final = {
    "location": "s3:GetBucketLocation",
    "encryption": "s3:GetEncryptionConfiguration",
}


class _Gate(ThreadingHTTPServer):
    """A server on loopback. port: of the S3 server; principals: by access key."""

    daemon_threads = True

    def __init__(self, port: int, authorizer: Authorizer, principals: Mapping[str, Principal]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port, self.authorizer, self.principals = port, authorizer, principals


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server: _Gate

    def handle_one_request(self) -> None:
        """Serve a request; a client that has gone away needs no answer."""
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def pass_on(self) -> None:
        """Check a request and pass it on."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = _KEY.search(self.headers.get("Authorization", ""))
        principal = self.server.principals.get(found[1] if found else "", "caller")
        try:
            for action, resource in s3_actions(self.command, self.path, body):
                self.server.authorizer.check(ApiCall(principal, action, resource))
        except AccessDenied as denied:
            self._refuse(denied)
        else:
            self._forward(body)

    def _forward(self, body: bytes) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.port)) as connection:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP:
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            content = answer.read()
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
        if not any(name.lower() == "content-length" for name, _ in headers) and answer.status != 204:
            headers.append(("Content-Length", str(len(content))))
        self._send(answer.status, headers, content)

    def _refuse(self, denied: AccessDenied) -> None:
        text = f"<Error><Code>AccessDenied</Code><Message>{escape(denied.message)}</Message></Error>"
        content = b"" if self.command == "HEAD" else text.encode()
        self._send(403, [("Content-Type", "application/xml"), ("Content-Length", str(len(content)))], content)

    def _send(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


for _method in _OBJECT_ACTIONS:
    setattr(_Handler, f"do_{_method}", _Handler.pass_on)


@contextlib.contextmanager
def s3_gate(port: int, authorizer: Authorizer, principals: Mapping[str, Principal]) -> Iterator[int]:
    """Serve on loopback until the block ends. Yield the port of the gate.

    port: of the S3 server; principals: by access key.
    """
    server = _Gate(port, authorizer, principals)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def s3_actions(method: str, path: str, body: bytes) -> Iterator[tuple[str, str]]:
    """Yield the action and the resource of every permission that a request needs."""
    parts = urlsplit(path)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    arn = f"arn:aws:s3:::{bucket}"
    if not bucket:
        yield "s3:ListAllMyBuckets", "*"
    elif key:
        yield _OBJECT_ACTIONS[method], f"{arn}/{key}"
    elif method == "POST" and "delete" in query:
        for name in _DELETED.findall(body):
            yield "s3:DeleteObject", f"{arn}/{name.decode()}"
    elif method == "PUT":
        yield "s3:CreateBucket", arn
    else:
        asked = next((name for name in _BUCKET_ACTIONS if name in query), None)
        yield ("s3:ListBucket" if asked is None else _BUCKET_ACTIONS[asked]), arn
