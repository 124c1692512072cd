"""What `regfs --help` prints: the ten verbs that matter first, the others, the options. Used by main.py and `help`."""

from __future__ import annotations

from collections.abc import Iterable

from regfs.cli.arguments import MOUNT_USAGE, mount_parser
from regfs.cli.verbs import VERBS

GROUPS: dict[str, tuple[str, ...]] = {
    "look into an image, without a mount": ("ls", "cat", "cp", "inspect", "diff"),
    "run it, mount it": ("run", "mount", "umount", "status", "doctor"),
    "more about images": ("find", "get", "history", "which", "du", "tags", "repos", "shell", "unpack", "path"),
    "registries and the cache": (
        "login", "logout", "prefetch", "record", "index", "pin", "unpin", "pins", "export", "import", "cache",
    ),
}  # fmt: skip
"""The verbs by heading, the most used first; those of no group come last, under `this machine`."""
_REST = "this machine"


def mount_help() -> str:
    """Return a line for each verb, and all options of a mount."""
    named = {name for names in GROUPS.values() for name in names}
    shown = {name for name, verb in VERBS.items() if verb.summary}
    groups = {**GROUPS, _REST: tuple(name for name in VERBS if name in shown - named)}
    width = max(len(_call(name)) for name in shown)
    verbs = "\n".join(_group(heading, names, width) for heading, names in groups.items())
    usage, _, options = mount_parser().format_help().rstrip().partition("\n\n")
    description, _, options = options.partition("\n\n")
    first = f"{usage}\n\n{' '.join(description.split())}\n\n  {MOUNT_USAGE:<{width + 6}}  mount all registries\n"
    return f"{first}\n{verbs}\nEach verb has its own --help. Options of a mount:\n\n{options}"


def _group(heading: str, names: Iterable[str], width: int) -> str:
    lines = "".join(f"  regfs {_call(name):<{width}}  {VERBS[name].summary}\n" for name in names)
    return f"{heading}:\n{lines}"


def _call(name: str) -> str:
    return f"{name} {VERBS[name].usage}".rstrip()
