"""Digests: what is one, and whose bytes it is."""

from __future__ import annotations

import hashlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import InvalidName, Unsupported
from regfs.model.digest import Digest

HEX = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "text",
    [
        f"sha256:{HEX}",
        f"sha512:{HEX}{HEX}",
        f"blake3:{HEX}",
        "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8",
    ],
)
def test_a_digest_is_printed_as_it_was_read(text: str) -> None:
    assert str(Digest.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        f":{HEX}",
        HEX,
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX.upper()}",
        f"sha256:{HEX[:-1]}g",
        f"sha256:{HEX}\n",
        f" sha256:{HEX}",
        f"SHA256:{HEX}",
        f"sha256:{HEX[:-1]}٣",
        f"blake3:{HEX.upper()}",
        f"sha512:{HEX}",
        "sha256:../../../etc/passwd",
        "md5:../x",
        "sha256:" + "/" * 64,
        "a" * 200 + ":" + "b" * 200,
        "sha256:\udcff" + HEX[1:],
    ],
)
def test_f41_what_could_leave_its_place_in_a_url_or_path_is_no_digest(text: str) -> None:
    with pytest.raises(InvalidName):
        Digest.parse(text)


def test_the_digest_of_bytes_matches_them_and_no_others() -> None:
    assert Digest.of(b"") == Digest.parse(f"sha256:{HEX}")
    assert Digest.of(b"").matches(b"")
    assert not Digest.of(b"").matches(b"\0")


def test_sha512_is_verified_too() -> None:
    assert Digest("sha512", hashlib.sha512(b"regfs").hexdigest()).matches(b"regfs")


def test_blake3_is_verified_where_its_package_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    of_nothing = Digest("blake3", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")
    assert of_nothing.matches(b"")
    assert not of_nothing.matches(b"x")
    monkeypatch.setitem(sys.modules, "blake3", None)  # as if it were not installed
    with pytest.raises(Unsupported, match=r"regfs\[blake3\]"):
        of_nothing.matches(b"")


def test_an_algorithm_that_cannot_be_verified_is_never_taken_for_a_match() -> None:
    with pytest.raises(Unsupported):
        Digest.parse("md5:d41d8cd98f00b204e9800998ecf8427e").matches(b"")


@given(st.text(max_size=300))
def test_any_text_is_a_digest_or_an_invalid_name(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except InvalidName:
        return
    assert str(digest) == text
    assert "/" not in text
    assert ".." not in text.partition(":")[2]


@given(st.binary())
def test_every_content_matches_its_digest(content: bytes) -> None:
    assert Digest.of(content).matches(content)
