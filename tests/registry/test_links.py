"""The Link header and Content-Range: any text of another program is parsed, or is a ProtocolViolation."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import ProtocolViolation
from regfs.registry.http.links import next_page, page_of
from regfs.registry.http.messages import Answer, Headers, Request
from regfs.registry.http.ranges import body_range, range_header
from tests.support.growth import assert_linear

URL = "https://registry.example/v2/a/tags/list?n=1"
TARGETS = st.text(st.sampled_from("abc/?&=%41,;:@-._~"), max_size=40).map("/v2/{}".format)


NEXT = [
    '; rel="next"',
    ";rel=next",
    " ; rel = next ;",
    '; title="a, b\\"; rel=x"; rel="next"',
    '; REL="prev next"',
    "; rel='next'",
]


@given(TARGETS, st.sampled_from([*NEXT, "", '; title="page 2"']))
def test_the_target_that_is_written_is_read(target: str, parameters: str) -> None:
    page = page_of(URL, target)
    assert next_page(URL, [f"<{target}>{parameters}"]) == page
    assert next_page(URL, ['</other>; rel="prev"', f"</first>; rel=first, <{target}>{parameters}"]) == page
    assert next_page(URL, [f"<{target}>{parameters},</first>; rel=first"]) == page


@pytest.mark.parametrize("parameters", [*NEXT, ""])
@pytest.mark.parametrize(
    "target", ["/v2/a/tags/list?last=b,c&n=2", "?last=b", "https://registry.example/v2/a?x", "list?n=2"]
)
def test_a_target_without_brackets_is_read_as_quay_wrote_it(target: str, parameters: str) -> None:
    page = page_of(URL, target)
    assert next_page(URL, [target + parameters]) == page
    assert next_page(URL, [f'/v2/first; rel="first", {target}{parameters}']) == page
    assert next_page(URL, ['</v2/first>; rel="first"', target + parameters]) == page


@pytest.mark.parametrize(
    "values",
    [
        ['</x>; rel="next", </y>; rel="next"'],
        ["</x>", "</y>"],
        ["</x; rel=next"],
        ["/x>; rel=next"],
        ['"next"'],
        ["; rel=next"],
        ["<x> y; rel=next"],
        ['</first>; rel="first"', "<<>>"],
        ['<http://[/>; rel="next"'],
        ["<javascript:alert(1)>"],
    ],
)
def test_a_link_header_without_one_meaning_is_an_error_and_not_the_end(values: list[str]) -> None:
    with pytest.raises(ProtocolViolation):
        next_page(URL, values)


def test_the_same_page_may_be_named_twice_and_beside_what_cannot_be_read() -> None:
    assert next_page(URL, ["</x>; rel=next", "<http://inside:5000/x>; rel=next", "<<>>"]) == "/x"


@given(st.lists(st.text(max_size=200), max_size=4))
def test_junk_is_the_end_or_a_violation(headers: list[str]) -> None:
    try:
        page = next_page(URL, headers)
    except ProtocolViolation:
        return
    assert page is None or page.startswith("/")


@given(st.text(st.sampled_from('<>;,="rel next/\\'), max_size=80))
def test_nearly_a_link_is_the_end_or_a_violation(header: str) -> None:
    try:
        next_page(URL, [header])
    except ProtocolViolation:
        pass


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="<>"), max_size=60))
def test_no_target_leads_to_another_host(target: str) -> None:
    try:
        page = next_page(URL, [f'<{target}>; rel="next"'])
    except ProtocolViolation:
        return
    assert page is not None
    assert page.startswith("/")
    assert not page.startswith("//")


@pytest.mark.timing
@pytest.mark.parametrize(
    ("begin", "repeated"),
    [("", "<"), ("", "<a>;"), ("", '<a>; x="'), ("<a>", "; a=b"), ("", "a,"), ('<a>; x="', "\\\\"), ("<a>", " ;")],
)
def test_a_long_header_costs_work_in_proportion_to_its_length(begin: str, repeated: str) -> None:
    def read(count: int) -> None:
        with suppress(ProtocolViolation):
            next_page(URL, [begin + repeated * count])

    assert_linear(read, 500)


def test_a_link_without_next_is_the_end() -> None:
    assert next_page(URL, []) is None
    assert next_page(URL, ['</x>; rel="prev"', "</y>; rel=", "</z>; title=next; rel=last", "", " , "]) is None
    assert next_page(URL, ['/style.css; rel="preload", /first; rel=first']) is None


def answer(status: int, content_range: list[str], length: int | None) -> Answer:
    headers = Headers([("Content-Range", value) for value in content_range])
    request = Request("GET", "https://registry.example/")
    return Answer(request, status, headers=headers, content_length=length, chunks=iter(()), close=lambda: None)


@given(st.integers(0, 50), st.integers(1, 50), st.integers(0, 50), st.text(max_size=40), st.sampled_from([200, 206]))
def test_a_range_is_inside_what_was_asked_for_or_a_violation(
    start: int, length: int, rest: int, text: str, status: int
) -> None:
    size = start + length + rest
    try:
        first, last = body_range(
            answer(status, [f"bytes {text}"], None), start=start, stop=start + length, size=size, what="x"
        )
    except ProtocolViolation:
        return
    assert start == first < last <= start + length


@given(st.integers(0, 10**12), st.integers(1, 10**12))
def test_a_range_is_written_inclusively_and_read_half_open(start: int, length: int) -> None:
    stop = start + length
    assert range_header(start, stop) == f"bytes={start}-{stop - 1}"
    right = answer(206, [f"bytes {start}-{stop - 1}/{stop}"], length)
    assert body_range(right, start=start, stop=stop, size=stop, what="x") == (start, stop)


@pytest.mark.parametrize("values", [[], ["bytes 0-9/10", "bytes 0-9/10"], [""], ["bytes */10"], ["bytes 0-9/10 x"]])
def test_206_needs_one_content_range(values: list[str]) -> None:
    with pytest.raises(ProtocolViolation):
        body_range(answer(206, values, None), start=0, stop=10, size=10, what="x")
