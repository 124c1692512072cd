"""Dates of configs, as builders write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.model.dates import LATEST_NS, date_ns

S = 1_000_000_000
WHEN = 1_600_000_000  # 2020-09-13T12:26:40Z


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("2020-09-13T12:26:40Z", WHEN * S),
        ("2020-09-13t12:26:40z", WHEN * S),
        ("2020-09-13 12:26:40", WHEN * S),
        ("2020-09-13T14:26:40+02:00", WHEN * S),
        ("2020-09-13T07:26:40-0500", WHEN * S),
        ("2020-09-13T12:26:40.5Z", WHEN * S + 500_000_000),
        ("2020-09-13T12:26:40.123456789Z", WHEN * S + 123_456_789),
        ("2020-09-13T12:26:40.123456789123Z", WHEN * S + 123_456_789),
        ("2016-12-31T23:59:60Z", 1_483_228_800 * S),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("0001-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59Z", 0),
        ("9999-12-31T23:59:59Z", LATEST_NS),
        ("10000-01-01T00:00:00Z", LATEST_NS),
        ("", 0),
        ("yesterday", 0),
        ("2020-13-01T00:00:00Z", 0),
        ("2020-02-30T00:00:00Z", 0),
        ("2020-09-13T25:00:00Z", 0),
        ("2020-09-13T12:26:99Z", 0),
        ("2020-09-13", 0),
        ("٢٠٢٠-09-13T12:26:40Z", 0),
    ],
)
def test_a_date_is_nanoseconds_since_1970(text: str, nanoseconds: int) -> None:
    assert date_ns(text) == nanoseconds


@given(st.text(max_size=60) | st.from_regex(r"\d{4,6}-\d\d-\d\dT\d\d:\d\d:\d\d([+-]\d\d:\d\d|Z)"))
def test_any_text_is_a_time_that_fits(text: str) -> None:
    assert 0 <= date_ns(text) <= LATEST_NS
