"""Bytes are checked while they pass: the last chunk of wrong ones is never given."""

from __future__ import annotations

import pytest

from regfs.errors import DigestMismatch, Unsupported
from regfs.model.digest import Digest
from regfs.model.verification import verified

RIGHT = [b"one ", b"two ", b"three"]
CONTENT = b"".join(RIGHT)
DIGEST = Digest.of(CONTENT)


def test_right_bytes_pass() -> None:
    assert list(verified(RIGHT, DIGEST, len(CONTENT))) == RIGHT


def test_a_blob_of_no_bytes_passes_and_only_under_its_own_digest() -> None:
    assert list(verified([], Digest.of(b""), 0)) == []
    with pytest.raises(DigestMismatch, match="have the digest"):
        list(verified([], DIGEST, 0))


@pytest.mark.parametrize(
    ("wrong", "passed"),
    [
        ([b"one ", b"two ", b"threE"], [b"one ", b"two "]),
        ([b"one ", b"two ", b"three!"], [b"one ", b"two "]),
        ([b"one ", b"two "], [b"one ", b"two "]),
        ([b"one two three", b"!"], [b"one two three"]),
        ([], []),
    ],
    ids=["a flipped byte", "too long", "too short", "more after the end", "none"],
)
def test_wrong_bytes_fail_before_the_end_is_told(wrong: list[bytes], passed: list[bytes]) -> None:
    chunks = iter(verified(wrong, DIGEST, len(CONTENT), what=f"a/b@{DIGEST}"))
    assert [next(chunks) for _ in passed] == passed
    with pytest.raises(DigestMismatch, match=f"a/b@{DIGEST}"):
        next(chunks)


def test_a_digest_that_python_cannot_compute_fails_before_the_first_byte() -> None:
    with pytest.raises(Unsupported):
        verified(RIGHT, Digest("md5", "0" * 32), len(CONTENT))
