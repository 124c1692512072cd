"""Parses the part of an image's config that says how to run it: program, environment, user, working directory.

Used by verbs/run.py and images/starts/. Source: image-spec, config.md, "config". Pure; any thread.
"""

from __future__ import annotations

from typing import NamedTuple

from regfs.model.strict_json import DOCUMENT_LIMIT, Fields, naming, parse_document

_MOST_WORDS = 65_536
_KEYS = ("Entrypoint", "Cmd", "Env", "User", "WorkingDir")


class RunConfig(NamedTuple):
    """The `config` object of an image's config; missing fields are empty. *env* has texts `NAME=VALUE`."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""


def parse_run_config(content: bytes, *, limit: int = DOCUMENT_LIMIT) -> RunConfig:
    """Return the RunConfig of the image config *content*. Raises BadManifest, TooLarge over *limit* bytes."""
    with naming(content):
        config = parse_document(content, limit=limit).child("config") or Fields({}, "config.")
        config.refuse_variants(_KEYS)
        found = RunConfig(
            config.texts("Entrypoint", limit=_MOST_WORDS),
            config.texts("Cmd", limit=_MOST_WORDS),
            config.texts("Env", limit=_MOST_WORDS),
            config.text("User"),
            config.text("WorkingDir"),
        )
        for key, texts in zip(_KEYS, (*found[:3], found[3:4], found[4:5]), strict=True):
            if any("\0" in text for text in texts):
                config.fail(key, "has a zero byte in it")
        return found
