"""WWW-Authenticate and scopes: text that other programs wrote is parsed, and nothing in it raises another error."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.registry.auth.challenge import Challenge, parse_challenges
from regfs.registry.auth.demand import Demand, readable_scopes
from tests.support.growth import assert_linear

TOKENS = st.text(st.sampled_from("abcXYZ019-_.~+!"), min_size=1, max_size=12)
# What may stand between quotes, once escaped.
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30)


def quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


@st.composite
def challenges(draw: st.DrawFn) -> list[Challenge]:
    names = st.dictionaries(TOKENS.map(str.lower), TEXTS, min_size=1, max_size=4)
    return [Challenge(draw(TOKENS).lower(), draw(names)) for _ in range(draw(st.integers(1, 4)))]


@given(challenges(), st.sampled_from([", ", ",", " , ", ",\t"]), st.booleans())
def test_what_is_written_is_read(written: list[Challenge], comma: str, one_header: bool) -> None:
    headers = [
        f"{challenge.scheme} " + comma.join(f"{name}={quoted(value)}" for name, value in challenge.parameters.items())
        for challenge in written
    ]
    assert parse_challenges([comma.join(headers)] if one_header else headers) == written


@given(st.lists(st.text(max_size=300), max_size=5))
def test_junk_is_never_an_error(headers: list[str]) -> None:
    Demand.of(parse_challenges(headers))


@given(st.text(st.sampled_from('Bearer basic=",\\ \t'), max_size=60))
def test_nearly_a_challenge_is_never_an_error(header: str) -> None:
    for challenge in parse_challenges([header]):
        assert challenge.scheme == challenge.scheme.lower()


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ("Basic realm=/", [("basic", {"realm": "/"})]),
        ("Negotiate", [("negotiate", {})]),
        ('Negotiate, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("Negotiate YWJj==, Basic", [("negotiate", {"ywjj": "="}), ("basic", {})]),
        ('Bearer REALM = "a,b=c" , Service=s', [("bearer", {"realm": "a,b=c", "service": "s"})]),
        (r'Bearer realm="say \"hi\" \\ now"', [("bearer", {"realm": 'say "hi" \\ now'})]),
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
        ('Bearer realm="no end, Basic realm=x', [("bearer", {})]),
        ("", []),
        (",,,", []),
        ('="x"', []),
    ],
)
def test_challenges_of_real_and_odd_registries(header: str, found: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges([header]) == [Challenge(scheme, parameters) for scheme, parameters in found]


@pytest.mark.timing
@pytest.mark.parametrize("repeated", ['"', "a=", 'a="', "\\", "Bearer "])
def test_a_long_header_costs_work_in_proportion_to_its_length(repeated: str) -> None:
    assert_linear(lambda count: parse_challenges([repeated * count]), 500)


def test_bearer_and_basic_are_known_and_others_are_not() -> None:
    assert Demand.of(parse_challenges(["Negotiate", "Digest a=b"])) is None
    demand = Demand.of(parse_challenges(['Basic realm="b"', 'Bearer realm="t"']))
    assert demand is not None
    assert (demand.bearer, demand.basic) == (Challenge("bearer", {"realm": "t"}), Challenge("basic", {"realm": "b"}))


@pytest.mark.parametrize(
    ("text", "scopes"),
    [
        ("repository:a/b:pull", ("repository:a/b:pull",)),
        ("repository:a:pull,push repository:b:push,delete", ("repository:a:pull",)),
        ("repository:host:5000/a:pull", ("repository:host:5000/a:pull",)),
        ("registry:catalog:*", ("registry:catalog:*",)),
        ("nonsense", ()),
        ("", ()),
        ("::", ()),
    ],
)
def test_the_right_to_write_is_never_asked_for(text: str, scopes: tuple[str, ...]) -> None:
    assert readable_scopes(text) == scopes


@given(st.text(max_size=200))
def test_any_scope_is_read_without_the_right_to_write(text: str) -> None:
    for scope in readable_scopes(text):
        assert not {"push", "delete"} & set(scope.rpartition(":")[2].split(","))
