"""What `regfs --help` prints. Used by main.py and the verb `help`. Any thread."""

from __future__ import annotations

from regfs.cli.arguments import mount_parser
from regfs.cli.verbs import VERBS


def mount_help() -> str:
    """Return all options of a mount, and a line for each verb."""
    shown = [(f"{name} {verb.usage}".rstrip(), verb.summary) for name, verb in VERBS.items() if verb.summary]
    width = max(len(call) for call, _ in shown)
    verbs = "\n".join(f"  regfs {call:<{width}}  {summary}" for call, summary in shown)
    return f"{mount_parser().format_help().rstrip()}\n\nverbs (each has its own --help):\n{verbs}"
