"""`regfs cache du|prune|verify`: what is in the cache, less of it, and whether it is what it was.

All of them may run while daemons use the cache. cli.py gives the words and prints what is said.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from regfs.config import Config, parse_size
from regfs.errors import InvalidOption
from regfs.progress import in_units
from regfs.store.failures import failures_of
from regfs.store.inventory import take_inventory
from regfs.store.layer_store import LayerStore
from regfs.store.verify import verify
from regfs.store.work_locks import LOCKS, WorkLocks

Say = Callable[[str], None]

BAD_CONTENT = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Let *parser* read the words of `regfs cache`."""
    words = "tell what the cache holds; remove what was used longest ago; look for damaged files"
    parser.add_argument("what", choices=("du", "prune", "verify"), metavar="du|prune|verify", help=words)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="du: how to tell it (default: text)")
    parser.add_argument("--all", action="store_true", help="prune: everything that no mount has open")
    parser.add_argument("--to", metavar="SIZE", help="prune: down to SIZE (default: to --cache-size)")
    parser.add_argument("--dry-run", action="store_true", help="verify: leave damaged files where they are")


def run(given: argparse.Namespace, config: Config, *, say: Say, on_terminal: bool) -> int:
    """Do what the words ask for, and return the exit code. Raises InvalidOption, CacheFailure."""
    _refuse_strangers(given)
    if given.what == "du":
        say(_usage(config, as_json=given.format == "json", for_people=on_terminal))
        return 0
    if given.what == "prune":
        return _prune(given, config, say)
    return _verify(config.cache_dir, drop=not given.dry_run, say=say)


def _refuse_strangers(given: argparse.Namespace) -> None:
    """Refuse options of another word: who writes `du --all` thinks of something that will not happen."""
    strangers = {
        "--format": given.format != "text" and given.what != "du",
        "--all": given.all and given.what != "prune",
        "--to": given.to is not None and given.what != "prune",
        "--dry-run": given.dry_run and given.what != "verify",
        "--to beside --all": given.all and given.to is not None,
    }
    for option, is_strange in strangers.items():
        if is_strange:
            raise InvalidOption(f"{option} means nothing to regfs cache {given.what}")


def _usage(config: Config, *, as_json: bool, for_people: bool) -> str:
    with failures_of(config.cache_dir):
        found = take_inventory(config.cache_dir)
    sizes, counts = found.sizes(), found.counts()
    if as_json:
        kinds = {kind.replace(" ", "_"): {"files": counts[kind], "bytes": sizes[kind]} for kind in sizes}
        return json.dumps({"path": str(config.cache_dir), "bytes": found.size, "kinds": kinds}, indent=1)
    shown = in_units if for_people else str
    rows = [(kind, str(counts[kind]), shown(size)) for kind, size in sizes.items()]
    rows.append(("total", "", shown(found.size)))
    lines = [f"{kind:<10}{count:>8}  {size:>12}" for kind, count, size in rows]
    return "\n".join([str(config.cache_dir), *lines])


def _prune(given: argparse.Namespace, config: Config, say: Say) -> int:
    store = LayerStore(config.cache_dir, limit=config.cache_size)
    to = 0 if given.all else parse_size(given.to) if given.to is not None else store.budget.effective_limit()
    before = _size(config.cache_dir)
    store.sweep()
    WorkLocks(store.root / LOCKS).sweep()
    store.budget.trim(to)
    left = _size(config.cache_dir)
    in_use = "; what is in use stays" if left > to else ""
    say(f"{in_units(max(0, before - left))} freed, {in_units(left)} left{in_use}")
    return 0


def _size(root: Path) -> int:
    with failures_of(root):
        return take_inventory(root).size


def _verify(root: Path, *, drop: bool, say: Say) -> int:
    count = 0
    for problem in verify(root, drop=drop):
        say(str(problem))
        count += 1
    if not count:
        say("all is well")
        return 0
    what_then = (
        "dropped; a mount that has them open shows them until it is mounted anew" if drop else "left as they are"
    )
    say(f"{count} damaged: {what_then}")
    return BAD_CONTENT
