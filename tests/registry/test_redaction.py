"""What a server repeats of our request in its error gives no secret away. See test_secrets.py for the client."""

from __future__ import annotations

import base64

import pytest

from regfs.registry.http.messages import Request
from regfs.registry.http.redaction import without_secrets

BASIC = base64.b64encode(b"robot:sEcret-1").decode()


@pytest.mark.parametrize(
    ("request_", "said", "left"),
    [
        (Request("GET", "https://r.example/v2/"), "nothing to hide", "nothing to hide"),
        (
            Request("GET", "https://r.example/v2/", headers={"Authorization": "Bearer abc.def"}),
            "invalid token abc.def in Bearer abc.def",
            "invalid token *** in ***",
        ),
        (
            Request("GET", "https://r.example/v2/", headers={"Authorization": f"Basic {BASIC}"}),
            f"{BASIC}: robot may not, with sEcret-1",
            "***: robot may not, with ***",
        ),
        (Request("GET", "https://r.example/v2/", headers={"X-Key": "k-123"}), "k-123 is unknown", "*** is unknown"),
        (
            Request("POST", "https://t.example/token", body=b"grant_type=password&password=p%26ss&service=r.example"),
            "p&ss (p%26ss) is no password for r.example",
            "*** (***) is no password for r.example",
        ),
        (
            Request("GET", "https://cdn.example/blob?X-Amz-Signature=cafe0123&n=5"),
            "cafe0123 is too old; 5 s",
            "*** is too old; 5 s",
        ),
        (
            Request("GET", "https://t.example/token?service=r.example&scope=repository:a/b:pull"),
            "repository:a/b:pull is not for r.example",
            "repository:a/b:pull is not for r.example",
        ),
    ],
)
def test_secrets_of_a_request_are_taken_out(request_: Request, said: str, left: str) -> None:
    assert without_secrets(said, request_) == left
