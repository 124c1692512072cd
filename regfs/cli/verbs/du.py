"""`regfs du [OPTIONS] IMAGE[:/PATH]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from regfs.cli.arguments import IMAGE_PATH_HELP, Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_json
from regfs.cli.terminal import say_nothing, tell, warn
from regfs.cli.treemap import Area, treemap
from regfs.errors import InvalidOption
from regfs.model.path_text import escaped
from regfs.model.units import in_units

if TYPE_CHECKING:
    from regfs.verbs.du import Sizes

_BAR = 30
_MAP_DEPTH = 3


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "du",
        "Show where the bytes of an image are: by layer, and by directory, the biggest first; with PATH, the "
        "directories at and below it.",
    )
    made.add_argument("image", metavar="IMAGE[:/PATH]", help=IMAGE_PATH_HELP)
    made.add_argument(
        "--depth", metavar="N", default="1", help="directories so far below the root, or PATH (default: 1)"
    )
    made.add_argument("--most", metavar="N", default="20", help="how many directories are shown (default: 20)")
    made.add_argument("--map", action="store_true", help="draw the directories as areas as big as their bytes")
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    add_format(made)
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the layers, and the biggest directories with a bar each."""
    from regfs.verbs.du import du

    depth, most = _number(given.depth, "--depth"), _number(given.most, "--most")
    if given.map:
        depth = max(depth, _MAP_DEPTH)
    say = say_nothing if given.quiet else warn
    sizes = du(given.image, depth=depth, config=verb_config(given, environment), environment=environment, say=say)
    if given.format == "json":
        layers = [each._asdict() for each in sizes.layers]
        directories = [each._asdict() for each in sizes.directories]
        tell_json({"path": sizes.path, "layers": layers, "directories": directories})
    elif given.map:
        tell("\n".join([*_layers(sizes), _map(sizes)]))
    else:
        tell("\n".join([*_layers(sizes), *_directories(sizes, most)]))
    return 0


def _number(text: str, option: str) -> int:
    if not text.isdecimal() or not text.isascii():
        raise InvalidOption(f"{option} {text}: a number is needed")
    return int(text)


def _layers(sizes: Sizes) -> Iterator[str]:
    if not sizes.layers:
        return
    yield f"{'LAYER':<5} {'DIGEST':<19} {'COMPRESSED':>10} {'SIZE':>10} {'ENTRIES':>8} {'WASTED':>10}"
    for each in sizes.layers:
        yield (
            f"{each.layer:03d}   {each.digest[:19]} {in_units(each.compressed):>10} {in_units(each.size):>10} "
            f"{each.entries:>8} {in_units(each.wasted) if each.wasted else '-':>10}"
        )
    yield ""


def _directories(sizes: Sizes, most: int) -> Iterator[str]:
    root, *others = sizes.directories
    for each in [root, *others[:most]]:
        bar = "█" * round(_BAR * each.size / root.size) if root.size else ""
        yield f"{in_units(each.size):>10} {each.entries:>8}  {bar:<{_BAR}}  {escaped(each.path)}"
    if len(others) > most:
        yield f"{'':>20} {len(others) - most} smaller ones; --most shows more, --json all"


def _map(sizes: Sizes) -> str:
    """Return the map of the directories, as big as the terminal and in colours, where there is one."""
    from io import StringIO

    from rich.console import Console
    from rich.text import Text

    width, height = get_terminal_size((100, 30))
    drawn = StringIO()
    console = Console(file=drawn, force_terminal=sys.stdout.isatty(), width=width, highlight=False)
    for pieces in treemap(_areas(sizes), width, max(8, height - len(sizes.layers) - 5)):
        console.print(Text.assemble(*pieces, no_wrap=True, end=""))
    return drawn.getvalue().rstrip("\n")


def _areas(sizes: Sizes) -> list[Area]:
    """Return the directories below the first one, each with those in it."""
    top = sizes.directories[0].path
    inside: dict[str, list[Area]] = {}
    for each in sorted(sizes.directories, key=lambda each: -each.path.count("/")):  # the deepest first
        if each.path != top:
            above, _, name = each.path.rpartition("/")
            shown = escaped(name)
            inside.setdefault(above, []).append(Area(shown, each.size, in_units(each.size), inside.get(each.path, ())))
    return inside.get(top.rstrip("/"), [])
