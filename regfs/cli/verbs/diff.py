"""`regfs diff [OPTIONS] A B [PATH]`. Its exit status is that of diff(1): 0 the same, 1 different, 2 trouble."""

from __future__ import annotations

import argparse
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from regfs.cli.arguments import IMAGE_HELP, Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_json
from regfs.cli.terminal import say_nothing, tell, warn
from regfs.errors import RegfsError
from regfs.images.comparing.text import LETTERS, config_line, file_line, layer_text, type_of
from regfs.model.units import in_units

if TYPE_CHECKING:
    from regfs.images.comparing.image_differences import FileChange
    from regfs.model.attributes import Attributes
    from regfs.verbs.diff import Compared

SAME, DIFFERENT, TROUBLE = 0, 1, 2


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "diff",
        "Tell what differs from image A to image B: a line for each path that was added (A), deleted (D) or modified "
        "(M), with what changed, and the layer and command that did it; then what their configs say. Times are not "
        "compared. Exit status: 0 the same, 1 different, 2 trouble.",
    )
    made.add_argument("a", metavar="IMAGE", help=IMAGE_HELP)
    made.add_argument("b", metavar="OTHER", help="the same, for the image that is compared with it")
    made.add_argument("path", metavar="PATH", nargs="?", help="compare what is at and below this path alone")
    made.add_argument("--stat", action="store_true", help="count: changes by kind, by layer, and bytes")
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    add_format(made)
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print what differs, and tell by the exit code whether something does."""
    from regfs.verbs.diff import diff

    say = say_nothing if given.quiet else warn
    try:
        config = verb_config(given, environment)
        with diff(given.a, given.b, given.path, config=config, environment=environment, say=say) as compared:
            return _show(compared, with_stat=given.stat, as_json=given.format == "json")
    except RegfsError as error:
        warn(str(error))
        return TROUBLE


def _show(compared: Compared, *, with_stat: bool, as_json: bool) -> int:
    stat_of = _Stat()
    changes = stat_of.counted(compared.files)
    if as_json:
        listed = [_as_json(each) for each in changes]
        config = [each._asdict() for each in compared.config]
        tell_json(
            {
                "a": compared.a, "b": compared.b, "is_different": bool(listed or config),
                **({} if with_stat else {"files": listed}), "config": config, "stat": stat_of.as_json(),
            }
        )  # fmt: skip
    else:
        for each in changes:
            if not with_stat:
                tell(file_line(each))
        for line in (*(stat_of.lines() if with_stat else ()), *map(config_line, compared.config)):
            tell(line)
    return DIFFERENT if stat_of.kinds or compared.config else SAME


class _Stat:
    """How many paths changed: by kind and by layer, and by how many bytes the files of each kind grew."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._layers: Counter[tuple[str, int | None, str]] = Counter()

    def counted(self, changes: Iterable[FileChange]) -> Iterator[FileChange]:
        """Yield *changes*, and count them."""
        for each in changes:
            self.kinds[each.kind] += 1
            self._bytes[each.kind] += _size(each.b) - _size(each.a)
            self._layers[each.image, each.layer, each.command] += 1
            yield each

    def lines(self) -> Iterator[str]:
        """Yield a line for each kind, and one for each layer."""
        for kind in LETTERS:
            if self.kinds[kind]:
                yield f"{LETTERS[kind]} {self.kinds[kind]:>8}  {_signed(self._bytes[kind]):>11}"
        for (image, layer, command), count in self._layers.most_common():
            yield f"  {count:>8}  {layer_text(image, layer, command)}".rstrip()

    def as_json(self) -> dict[str, object]:
        """Return the same as an object: paths and bytes by kind, and the layers."""
        kinds = {kind: {"paths": self.kinds[kind], "bytes": self._bytes[kind]} for kind in LETTERS}
        layers = [
            {"image": image, "layer": layer, "command": command, "paths": count}
            for (image, layer, command), count in self._layers.most_common()
        ]
        return {**kinds, "layers": layers}


def _as_json(change: FileChange) -> dict[str, object]:
    return {
        "path": f"/{os.fsdecode(change.path)}", "kind": change.kind, "fields": list(change.fields),
        "image": change.image, "layer": change.layer, "digest": change.digest, "command": change.command,
        "a": _attributes(change.a), "b": _attributes(change.b),
    }  # fmt: skip


def _attributes(of: Attributes | None) -> dict[str, object] | None:
    if of is None:
        return None
    return {"type": type_of(of), "mode": stat.S_IMODE(of.mode), "uid": of.uid, "gid": of.gid, "size": of.size}


def _size(of: Attributes | None) -> int:
    return of.size if of is not None and stat.S_ISREG(of.mode) else 0


def _signed(size: int) -> str:
    return f"{'-' if size < 0 else '+'}{in_units(abs(size))}"
