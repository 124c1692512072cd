"""`regfs config`: which options hold without the command line, and where each comes from."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping

from regfs.app.config import OPTIONS
from regfs.cli.arguments import Parser, add_common, add_format, verb_parser
from regfs.cli.json_output import tell_json
from regfs.cli.settings import Setting, apply_settings, config_files, read_settings
from regfs.cli.terminal import tell


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "config",
        "Show which options hold, and why: those of files and of the environment. Options of a command line win over "
        "both. What is printed can be a configuration file.",
    )
    add_format(made)
    return add_common(made)


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print a line for each option."""
    from regfs.app.config import default_config

    settings = read_settings(environment)
    apply_settings(default_config(environment), settings)  # raises where one of them is wrong
    if given.format == "json":
        files = [{"path": str(path), "exists": path.exists()} for path in config_files(environment)]
        options = [
            {"name": each.option.name, "value": each.is_on if each.option.is_flag else each.text, "source": each.source}
            for each in _holding(settings)
        ]
        tell_json({"files": files, "options": options})
    else:
        tell("\n".join(_lines(settings, environment)))
    return 0


def _holding(settings: list[Setting]) -> list[Setting]:
    """Return the settings that count: the last one of each option, all of one that may be repeated."""
    last = {each.option.name: each for each in settings}
    return [each for each in settings if each is last[each.option.name] or each.option.name == "insecure-registry"]


def _lines(settings: list[Setting], environment: Mapping[str, str]) -> Iterator[str]:
    files = [f"{path}{'' if path.exists() else ' (not there)'}" for path in config_files(environment)]
    yield f"# from {', '.join([*files, 'REGFS_… variables'])}; what comes later wins, options of a command over all"
    holding = _holding(settings)
    for option in OPTIONS:
        mine = [each for each in holding if each.option.name == option.name]
        if option.name == "insecure-registry" and mine:
            yield f"{option.name} = {json.dumps([each.text for each in mine])}  # {mine[-1].source}"
        elif mine:
            value = json.dumps(mine[-1].is_on if option.is_flag else mine[-1].text)
            yield f"{option.name} = {value}  # {mine[-1].source}"
        else:
            yield f"# {option.name}: {option.help}"
