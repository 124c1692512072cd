"""Hides user names and passwords in text that users typed, before a message repeats it.

    bob:secret@registry.example/app          ***@registry.example/app
    https://bob:secret@registry.example      https://***@registry.example
    debian:12@sha256:4401…                   unchanged: after the last @ is a digest, or a time (@2026-11-01T00:00Z)

A reference cannot have them (RFC 3986 section 3.2.1 calls them userinfo), but users paste them with URLs, and messages
end up in logs, in `.regfs/errors` and in the output of CI. Used wherever text leaves regfs: the terminal, the log, the
journal; and by model/names.py. Pure; any thread.
"""

from __future__ import annotations

import re

HIDDEN = "***"

_DIGEST = r"(?:(?:sha[0-9]+|blake3)[:-]|(?:[0-9a-f]+|\d{4}-\d\d-\d\d(?:T[\d:]+Z)?)(?![\w./-]|:\S))"
_HOST = r"(?:[\w\[][\w:\]-]*[./:]|localhost)"
# A host has no @, so the password ends at the last @ that no digest follows.
_WITH_PASSWORD = re.compile(rf"(?<![^\s/'\"(=,])[^\s/:@'\"(=,]*:(?!//|[0-9]{{1,5}}/)\S*@(?!{_DIGEST})(?={_HOST})")
_IN_URL = re.compile(rf"(?<=://)[^\s/@]+@(?={_HOST})")
# A whole reference: its password may have blanks, and a token has no colon before it.
_OF_REFERENCE = re.compile(
    rf"((?:docker|https?)://)?(?:[^/:@]*:(?!//|[0-9]{{1,5}}/).*|[^/:@]+)@(?!{_DIGEST})(?={_HOST})", re.DOTALL
)
_IS_NAME_AND_VERSION = re.compile(r"[^/:@]+@[^/]*")


def without_userinfo(text: str) -> str:
    """Return the message *text* with the user names and passwords of pasted references hidden."""
    if "@" not in text:
        return text
    return _IN_URL.sub(f"{HIDDEN}@", _WITH_PASSWORD.sub(f"{HIDDEN}@", text))


def reference_without_userinfo(text: str) -> str | None:
    """Return the reference *text* with its user name and password hidden; None if it has none."""
    if "@" not in text or _IS_NAME_AND_VERSION.fullmatch(text):
        return None
    found = _OF_REFERENCE.match(text)
    return None if found is None else f"{found[1] or ''}{HIDDEN}@{text[found.end() :]}"
