"""Finds the user's signature policy and makes the judge that applies it. Used by composition.py. Blocks on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from regfs.errors import InvalidOption
from regfs.images.judging.judge import Judge
from regfs.process.user import home_directory

_IN_HOME = Path(".config/containers/policy.json")
_OF_MACHINE = Path("/etc/containers/policy.json")
_MOST_BYTES = (1 << 20) + 1


def judge_of(policy: str, environment: Mapping[str, str], *, trusted_root: str = "") -> Judge | None:
    """Return the judge for the option *policy*: a file; "none"; or "" for the user's default file, else the machine's.

    *trusted_root* is the path of a trusted_root.json. A file with `trustPolicies` is a trust policy of notation; its
    trust store is in the same directory. Returns None if every image may be shown. Raises InvalidOption where the file
    cannot be read. Source: containers-policy.json(5), "FILES".
    """
    if policy == "none":
        return None
    home = home_directory(environment)
    of_user = [Path(home) / _IN_HOME] if home else []
    paths = [Path(policy)] if policy else [*of_user, _OF_MACHINE]
    for path in paths:
        try:
            with path.open("rb") as file:
                content = file.read(_MOST_BYTES)
        except (FileNotFoundError, NotADirectoryError) as error:
            if policy:
                raise InvalidOption(f"the policy {path} cannot be read: {error.strerror}") from None
            continue
        except OSError as error:
            raise InvalidOption(
                f"the policy {path} cannot be read: {error.strerror}; with --policy none, all images are shown"
            ) from None
        return _judge(content, str(path), trusted_root)
    return None


def _judge(content: bytes, path: str, trusted_root: str) -> Judge | None:
    # Imported here: most machines have no policy, and each start would pay for it.
    from regfs.model.notation_policy import is_notation, parse_notation_policy
    from regfs.model.signature_policy import parse_policy

    if is_notation(content):
        from regfs.images.judging.notation.rules import NotationRules

        return Judge(NotationRules(parse_notation_policy(content, path)))
    from regfs.images.judging.containers_policy.rules import ContainersRules

    parsed = parse_policy(content, path)
    return None if parsed.accepts_anything else Judge(ContainersRules(parsed, trusted_root=trusted_root))
