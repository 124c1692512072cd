"""`regfs cache du|ls|rm|prune|verify`."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping

from regfs.app.config import Config
from regfs.app.quantities import parse_cache_size
from regfs.cli.arguments import Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.exit_codes import BAD_CONTENT, FAILED
from regfs.cli.json_output import tell_json, tell_json_list
from regfs.cli.terminal import tell, warn
from regfs.errors import InvalidOption

WORDS = ("du", "ls", "rm", "prune", "verify")
_HELP = (
    "du: how much the cache holds; ls: which images; rm IMAGE…: evict what those images alone need; prune: evict what "
    "was used longest ago; verify: look for damaged files"
)
_WORTH_A_LINE = 1 << 20  # bytes
# Kinds of files that people would take for something else.
_KINDS = {"images": "merged tables"}


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser("cache", "Look after the cache; mounts may use it meanwhile.")
    made.add_argument("what", choices=WORDS, metavar="|".join(WORDS), help=_HELP)
    made.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="rm: by name, digest (12 digits do), or path in a mount, also in its .regfs/cache",
    )
    add_format(made)
    made.add_argument("--all", action="store_true", help="prune: everything that no mount has open")
    made.add_argument("--to", metavar="SIZE", help="prune: down to SIZE (default: to --cache-size)")
    made.add_argument("--dry-run", action="store_true", help="rm, prune, verify: change nothing, say what would go")
    return add_common(made, headings=("cache",))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Do what the word says, and print what came of it."""
    from regfs.verbs import cache

    _refuse_options_of_other_words(given)
    config = verb_config(given, environment)
    is_there = cache.is_there(config)
    if not is_there:
        warn(f"there is no cache at {config.cache_dir} yet; --cache-dir names another")
    as_json = given.format == "json"
    if given.what == "du":
        return _show_usage(config, as_json=as_json)
    if given.what == "ls":
        return _list(config, as_json=as_json)
    if given.what == "rm":
        return _remove(given.images, config, dry_run=given.dry_run, as_json=as_json)
    if not is_there:
        if as_json:
            tell_json(_nothing(given.what, dry_run=given.dry_run))
        return 0
    if given.what == "prune":
        keep = 0 if given.all else None if given.to is None else parse_cache_size(given.to)
        return _prune(config, keep, dry_run=given.dry_run, as_json=as_json)
    return _verify(config, drop=not given.dry_run, as_json=as_json)


def _refuse_options_of_other_words(given: argparse.Namespace) -> None:
    """Raise InvalidOption for an option that the word does not have: `du --all` would not do what its user expects."""
    misplaced = {
        "--all": given.all and given.what != "prune",
        "--to": given.to is not None and given.what != "prune",
        "--dry-run": given.dry_run and given.what not in ("rm", "prune", "verify"),
        "--to beside --all": given.all and given.to is not None,
        "an image": bool(given.images) and given.what != "rm",
    }
    for option, is_misplaced in misplaced.items():
        if is_misplaced:
            raise InvalidOption(f"{option} means nothing to regfs cache {given.what}")
    if given.to is not None:
        parse_cache_size(given.to)
    if given.what == "rm" and not given.images:
        raise InvalidOption("regfs cache rm needs an image; regfs cache ls shows those that are here")


def _show_usage(config: Config, *, as_json: bool) -> int:
    from regfs.model.units import in_units
    from regfs.verbs.cache import usage
    from regfs.verbs.progress import in_words

    found = usage(config)
    standing = found.standing
    if as_json:
        fields = {
            "path": str(config.cache_dir),
            "exists": standing is not None,
            "bytes": found.size,
            "limit_bytes": standing.limit if standing is not None else None,
            "free_bytes": standing.free if standing is not None else None,
            "min_free_bytes": standing.min_free if standing is not None else None,
            "max_age_s": standing.max_age_s if standing is not None and math.isfinite(standing.max_age_s) else None,
            "images": found.images,
            "kinds": {
                kind.replace(" ", "_"): {"files": found.counts[kind], "bytes": size}
                for kind, size in found.sizes.items()
            },
        }
        tell_json(fields)
        return 0
    rows = [(_KINDS.get(kind, kind), str(found.counts[kind]), in_units(size)) for kind, size in found.sizes.items()]
    rows.append(("total", "", in_units(found.size)))
    if standing is not None:
        rows.append(("limit", "", in_units(standing.limit) if standing.limit else "0: in use only"))
        rows.append(("free", "", in_units(standing.free)))
        rows.append(("stays free", "", in_units(standing.min_free)))
        if math.isfinite(standing.max_age_s):
            rows.append(("evicted after", "", in_words(standing.max_age_s)))
    rows.append(("images", str(found.images), "(list them: regfs cache ls)"))
    lines = [f"{kind:<14}{count:>8}  {size:>12}".rstrip() for kind, count, size in rows]
    tell("\n".join([str(config.cache_dir), *lines]))
    return 0


def _list(config: Config, *, as_json: bool) -> int:
    from regfs.images.holdings import SHORT_DIGITS
    from regfs.model.path_text import escaped
    from regfs.model.units import in_units
    from regfs.verbs.cache import listing, shown_names
    from regfs.verbs.progress import in_words

    images, unnamed = listing(config)
    if as_json:
        fields = [
            {
                "digest": str(image.digest),
                "names": list(image.names),
                "artifact_type": image.artifact_type,
                "platform": image.platform,
                "layers": image.layers,
                "layers_here": image.layers_here,
                "bytes": image.size,
                "unique_bytes": image.unique_size,
                "used": image.used_ns / 10**9,
            }
            for image in images
        ]
        tell_json_list(fields)
        return 0
    rows = [("DIGEST", "SIZE", "UNIQUE", "LAYERS", "USED", "IMAGE")]
    now_ns = time.time_ns()
    for image in images:
        used = in_words(max(0, now_ns - image.used_ns) // 10**9)
        sizes = in_units(image.size), in_units(image.unique_size)
        layers = "-" if image.artifact_type else f"{image.layers_here}/{image.layers}"
        shown = ", ".join(shown_names(image))
        if image.artifact_type:
            shown += f" ({escaped(image.artifact_type)})"
        rows.append((image.digest.encoded[:SHORT_DIGITS], *sizes, layers, used, shown))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        tell("  ".join([*(cell.ljust(width) for cell, width in zip(row[:5], widths, strict=True)), row[5]]))
    if unnamed >= _WORTH_A_LINE:
        tell(f"{in_units(unnamed)} more belong to no image that is known by name; regfs cache prune removes them")
    return 0


def _remove(asked: list[str], config: Config, *, dry_run: bool, as_json: bool) -> int:
    from regfs.model.units import in_units
    from regfs.verbs.cache import remove

    removed = remove(asked, config, dry_run=dry_run)
    if as_json:
        fields = {
            "images": asked, "freed_bytes": removed.freed, "other_names": removed.other_names,
            "parts_in_use": removed.parts_in_use, "is_dry_run": dry_run,
        }  # fmt: skip
        tell_json(fields)
        return FAILED if removed.parts_in_use else 0
    size = in_units(removed.freed) if removed.freed else "nothing"
    line = f"{', '.join(asked)}: {size} {'would be freed' if dry_run else 'freed'}"
    if removed.other_names:
        gone = "would be gone" if dry_run else "is gone"
        line += f", and the same image by its other name {gone}: {', '.join(removed.other_names)}"
    count = removed.parts_in_use
    if count:
        line += f": {count} part{' is' if count == 1 else 's are'} in use by a mount (regfs umount)"
    tell(line)
    return FAILED if count else 0


def _prune(config: Config, keep: int | None, *, dry_run: bool, as_json: bool) -> int:
    from regfs.model.units import in_units
    from regfs.verbs.cache import prune

    pruned = prune(config, keep=keep, dry_run=dry_run)
    evicted = pruned.evicted
    if as_json:
        units = [{"path": str(path.relative_to(config.cache_dir)), "bytes": size} for path, size in evicted.units]
        fields = {
            "freed_bytes": evicted.freed, "left_bytes": evicted.left, "is_over": pruned.is_over, "evicted": units,
            "is_dry_run": dry_run,
        }  # fmt: skip
        tell_json(fields)
        return 0
    if dry_run:
        for path, size in evicted.units:
            tell(f"{in_units(size):>10}  {path.relative_to(config.cache_dir)}")
    in_use = "; what is in use stays" if evicted.in_use and pruned.is_over else ""
    freed, left = ("would be freed", "would be left") if dry_run else ("freed", "left")
    tell(f"{in_units(evicted.freed)} {freed}, {in_units(evicted.left)} {left}{in_use}")
    return 0


def _nothing(word: str, *, dry_run: bool) -> dict[str, object]:
    """Return what `prune` and `verify` say as JSON where there is no cache, which they do not make."""
    if word == "verify":
        return {"damaged": [], "is_dropped": not dry_run}
    return {"freed_bytes": 0, "left_bytes": 0, "is_over": False, "evicted": [], "is_dry_run": dry_run}


def _verify(config: Config, *, drop: bool, as_json: bool) -> int:
    from regfs.verbs.cache import problems

    if as_json:
        damaged = [{"path": str(each.path), "reason": each.reason} for each in problems(config, drop=drop)]
        tell_json({"damaged": damaged, "is_dropped": drop})
        return BAD_CONTENT if damaged else 0
    count = 0
    for problem in problems(config, drop=drop):
        tell(str(problem))
        count += 1
    if not count:
        tell("all is well")
        return 0
    what_then = (
        "dropped; a mount that has them open shows them until it is mounted again" if drop else "left as they are"
    )
    tell(f"{count} damaged: {what_then}")
    return BAD_CONTENT
