"""From an error answer to an error: a status, and a body that may be JSON, text, a web page or empty.

Used by all of registry/. Sources: distribution-spec, "Error Codes"; registries that deviate are named at the place.
Reads at most 64 KiB of the body, and raises for nothing in it. Any thread.
"""

from __future__ import annotations

import json
import re
from typing import Any

from regfs.errors import (
    AccessDenied,
    NotFound,
    ProtocolViolation,
    RateLimited,
    RegfsError,
    RegistryTimeout,
    RegistryUnavailable,
    RepositoryUnknown,
    Unsupported,
)
from regfs.registry.http.messages import Answer, Request
from regfs.registry.http.redaction import without_secrets

BODY_LIMIT = 64 * 1024
_TEXT_LIMIT = 300
_TAGS = re.compile(r"<[^>]*>")
# The codes of a repository that does not exist: the specification's, and Harbor's.
_UNKNOWN_REPOSITORY = frozenset({"NAME_UNKNOWN", "NAME_INVALID", "NOT_FOUND"})
# ECR throttles with 400 (go-containerregistry#750), and so do AWS's load balancers in front of others.
_THROTTLING = re.compile(r"ThrottlingException|TOOMANYREQUESTS|Rate exceeded", re.ASCII)


def is_throttling(answer: Answer) -> bool:
    """Tell whether a 400 means "too many requests". Reads the body, which `refusal` still sees afterwards."""
    return _THROTTLING.search(error_text(answer)) is not None


def error_text(answer: Answer) -> str:
    """Return the beginning of the error body, read once and kept with the answer; empty if it cannot be read."""
    if answer.error_body is None:
        try:
            answer.error_body = answer.read_some(BODY_LIMIT)
        except (RegistryUnavailable, RegistryTimeout):
            # The status is what counts; where the deadline has passed, the next wait says so.
            answer.error_body = b""
    return answer.error_body.decode("utf-8", "replace")


def refusal(answer: Answer, *, what: str) -> RegfsError:
    """Return the error that *answer* means for *what*; closes it."""
    host, status = answer.request.origin, answer.status
    text = error_text(answer)
    said = _said(text, answer.request)
    reason = f"{host} answers {status}" + (f": {said}" if said else "")
    if status in (404, 410):
        kind = RepositoryUnknown if _code(text) in _UNKNOWN_REPOSITORY else NotFound
        # *what* mostly begins with the registry's name, which need not be said twice.
        short = " ".join(filter(None, [str(status), said])) if what.startswith(f"{host}/") else reason
        return kind(f"{what}: not found ({short})")
    if status in (401, 403):
        return AccessDenied(f"{what}: {reason}{answer.remedy}")
    if status == 407:
        return AccessDenied(f"{what}: the proxy on the way to {host} wants credentials; name them in https_proxy")
    if status == 429 or (status == 400 and is_throttling(answer)):
        return RateLimited(f"{what}: {reason}")
    if status in (405, 501):
        return Unsupported(f"{what}: {reason}")
    if status >= 500 or status in (408, 499):
        return RegistryUnavailable(f"{what}: {reason}")
    return ProtocolViolation(f"{what}: {reason}")


def _said(text: str, request: Request) -> str:
    """Return one printable line of the error body *text*, without the secrets of *request*."""
    try:
        said = _from_document(json.loads(text))
    except (ValueError, RecursionError):
        said = _TAGS.sub(" ", text)
    said = without_secrets(said, request)  # before it is cut: half a secret would not be found
    printable = "".join(letter if letter.isprintable() else " " for letter in said[: 4 * _TEXT_LIMIT])
    return " ".join(printable.split())[:_TEXT_LIMIT]


def _code(text: str) -> str:
    """Return the code of the first error in an error document of the specification; empty if there is none."""
    try:
        code = json.loads(text)["errors"][0]["code"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    return code if isinstance(code, str) else ""


def _from_document(document: Any) -> str:
    """Return code and message of the first error: `errors[]` by the specification, `message` or `details` elsewhere."""
    if not isinstance(document, dict):
        return ""
    errors = document.get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else document
    parts = (first.get(key) for key in ("code", "error", "message", "details"))
    return " ".join(part for part in parts if isinstance(part, str))
