"""containers-policy.json: which scope an image is in, and files that are no policy."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regfs.errors import InvalidOption
from regfs.model.names import RepositoryName
from regfs.model.signature_policy import Policy, Requirement, is_repository, parse_policy

SCOPES = ("reg.example.org/team/app", "reg.example.org/team", "reg.example.org", "*.example.org", "*.org", "")
SAMPLE = json.dumps(
    {
        "default": [{"type": "reject"}],
        "transports": {
            "docker": {scope: [{"type": "insecureAcceptAnything"}] for scope in SCOPES},
            "docker-daemon": {},
        },
    }
).encode()


def test_the_most_specific_scope_is_found_first() -> None:
    repository = RepositoryName("reg.example.org", "team/app")
    for left in range(len(SCOPES) + 1):
        scopes = {scope: (Requirement(scope or "all"),) for scope in SCOPES[left:]}
        (found,) = Policy("p", (Requirement("default"),), scopes).requirements(repository, "sha256:0")
        assert found.refusal == ("default" if left == len(SCOPES) else SCOPES[left] or "all")


def test_a_host_s_name_in_a_longer_one_is_no_scope() -> None:
    scopes = {"example.org": (Requirement("scope"),), "*.example.org": (Requirement("wild"),)}
    policy = Policy("p", (), scopes)
    assert policy.requirements(RepositoryName("example.org.evil.test", "app"), "sha256:0") == ()
    assert policy.requirements(RepositoryName("badexample.org", "app"), "sha256:0") == ()


@pytest.mark.parametrize(
    ("named", "is_it"),
    [
        ("docker.io/library/app", True),
        ("index.docker.io/library/app", True),
        ("app:tag", True),
        ("docker.io/library/app2", False),
        ("", False),
        ("../app", False),
    ],
)
def test_a_signature_names_a_repository_as_docker_reads_it(named: str, *, is_it: bool) -> None:
    assert is_repository(named, RepositoryName("docker.io", "library/app"), "") == is_it


@settings(max_examples=60)
@given(st.integers(0, len(SAMPLE) - 1), st.binary(max_size=3))
def test_a_policy_with_wrong_bytes_is_read_or_refused(at: int, wrong: bytes) -> None:
    with suppress(InvalidOption):
        parse_policy(SAMPLE[:at] + wrong + SAMPLE[at + 1 :], "policy.json")
