"""HTTP requests of AWS's protocols: which service and operation they ask for, and with which parameters."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from cloud.emulator.jobs import ACCOUNT

_SCOPE: Final = re.compile(r"Credential=[^/]+/[0-9]{8}/[^/]+/([^/]+)/aws4_request")
_MEMBER: Final = re.compile(r"([A-Za-z]+)\.member\.([0-9]+)(?:\.(.+))?")
_LOGS: Final = "/aws/sagemaker/TrainingJobs"


class ApiRequest(NamedTuple):
    """A request. target: the first part of X-Amz-Target, "" for other protocols; service: as in a credential
    scope; operation: "" if the path says it; body: parsed.
    """

    target: str
    service: str
    operation: str
    path: str
    body: Mapping[str, Any]

    @property
    def action(self) -> str:
        """The action of IAM."""
        prefix = {"api.ecr": "ecr", "service-quotas": "servicequotas"}.get(self.service, self.service)
        return f"{prefix}:{self.operation}"

    @property
    def resource(self) -> str:
        """The ARN that the action is checked on, "*" for actions without one."""
        if self.service == "iam" and self.operation == "GetRole":
            return f"arn:aws:iam::{ACCOUNT}:role/{self.body.get('RoleName', '')}"
        if self.service == "iam" and self.operation == "SimulatePrincipalPolicy":
            return str(self.body.get("PolicySourceArn", "*"))
        if self.service == "batch" and self.operation == "SubmitServiceJob":
            queue = str(self.body.get("jobQueue", "")).rpartition("/")[2]
            return f"arn:aws:batch:us-east-1:{ACCOUNT}:job-queue/{queue}"
        if self.service == "logs" and self.operation != "DescribeLogGroups":
            return f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{self.body.get('logGroupName', _LOGS)}:*"
        if self.service in ("ecr", "api.ecr"):
            registry = self.body.get("registryId", ACCOUNT)
            return f"arn:aws:ecr:us-east-1:{registry}:repository/{self.body.get('repositoryName', '')}"
        return "*"


def read_api_request(environ: dict[str, Any]) -> ApiRequest:
    """Parse a request of WSGI. Its body can be read again afterwards."""
    content = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(content)
    target, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")
    scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    service, path = scope[1] if scope else "", environ.get("PATH_INFO", "")
    if "x-www-form-urlencoded" in environ.get("CONTENT_TYPE", ""):
        form = {name: values[0] for name, values in parse_qs(content.decode()).items()}
        return ApiRequest("", service, form.get("Action", ""), path, parse_query(form))
    try:
        body = json.loads(content or b"{}")
    except ValueError:
        body = {}
    return ApiRequest(target, service, operation, path, body if isinstance(body, dict) else {})


def parse_query(form: Mapping[str, str]) -> dict[str, Any]:
    """Parse the parameters of AWS's query protocol, `Name.member.1.Field=value`, into nested values."""
    body: dict[str, Any] = {}
    lists: dict[str, dict[int, dict[str, str]]] = {}
    for name, value in form.items():
        match = _MEMBER.fullmatch(name)
        if match is None:
            if name not in ("Action", "Version"):
                body[name] = value
        else:
            lists.setdefault(match[1], {}).setdefault(int(match[2]), {})[match[3] or ""] = value
    for name, items in lists.items():
        body[name] = [_item(items[number]) for number in sorted(items)]
    return body


def _item(fields: Mapping[str, str]) -> Any:
    if set(fields) == {""}:
        return fields[""]
    return parse_query(fields)


def simulation_xml(results: list[tuple[str, str, bool]]) -> str:
    """Return the response of SimulatePrincipalPolicy."""
    members = "".join(
        f"<member><EvalActionName>{escape(action)}</EvalActionName>"
        f"<EvalResourceName>{escape(resource)}</EvalResourceName>"
        f"<EvalDecision>{'allowed' if allowed else 'implicitDeny'}</EvalDecision></member>"
        for action, resource, allowed in results
    )
    return (
        '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
        f"<SimulatePrincipalPolicyResult><EvaluationResults>{members}</EvaluationResults>"
        "<IsTruncated>false</IsTruncated></SimulatePrincipalPolicyResult>"
        "<ResponseMetadata><RequestId>rehearsal</RequestId></ResponseMetadata>"
        "</SimulatePrincipalPolicyResponse>"
    )


def identity_xml(arn: str) -> str:
    """Return the response of GetCallerIdentity."""
    return (
        '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
        f"<Arn>{escape(arn)}</Arn><UserId>AIDAREHEARSAL</UserId><Account>{ACCOUNT}</Account>"
        "</GetCallerIdentityResult><ResponseMetadata><RequestId>rehearsal</RequestId></ResponseMetadata>"
        "</GetCallerIdentityResponse>"
    )


def error_xml(code: str, message: str) -> str:
    """Return an error response of the query protocol."""
    return (
        f"<ErrorResponse><Error><Type>Sender</Type><Code>{escape(code)}</Code>"
        f"<Message>{escape(message)}</Message></Error><RequestId>rehearsal</RequestId></ErrorResponse>"
    )
