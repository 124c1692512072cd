"""Settings: options that come from files and from the environment, each with where it comes from.

    /etc/regfs.toml                                     for the machine
    $XDG_CONFIG_HOME/regfs.toml, ~/.config/regfs.toml   for the user
    REGFS_TAG_TTL=5m, REGFS_OFFLINE=1 …                 for a process: an option's name in capitals, `_` for `-`
    -o words and options                                for a call; they are not read here

What comes later wins. REGFS_CONFIG names one file that takes the place of both; where it is empty, none is read. In a
file, keys are the options' names (`_` may stand for `-`), and values are text, numbers, true or false;
insecure-registry has a list:

    platform = "linux/arm64"
    tag-ttl = "10m"
    insecure-registry = ["10.0.0.0/8"]

    [registry."registry.lab:5000"]      one registry; mirrors and certificates are in hosts.toml
    insecure = true

Used by command_config.py and `regfs config`. Reads files; any thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from regfs.app.config import OPTIONS, Config, Option, default_config, option_named, suggestion, with_options
from regfs.errors import BadConfiguration, InvalidOption
from regfs.process.user import home_directory

SITE_FILE = Path("/etc/regfs.toml")
_NAME = "regfs.toml"
_PREFIX = "REGFS_"
_FILE_VARIABLE = "REGFS_CONFIG"
# The tests and benchmarks of this project read these.
_OF_TESTS = ("REGFS_SOAK_", "REGFS_BENCH_", "REGFS_EXAMPLES")
_REGISTRY = "registry"
_INSECURE = "insecure-registry"
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


class Setting(NamedTuple):
    """One option, its text ('' for a flag), and where it comes from. *is_on* is False for a flag that is false."""

    option: Option
    text: str
    source: str
    is_on: bool = True


def config_files(environment: Mapping[str, str]) -> list[Path]:
    """Return the files that may have settings, whether they are there or not; later ones win."""
    named = environment.get(_FILE_VARIABLE)
    if named is not None:
        return [Path(named)] if named else []
    configured = environment.get("XDG_CONFIG_HOME", "")
    if configured.startswith("/"):
        return [SITE_FILE, Path(configured) / _NAME]
    home = home_directory(environment)
    return [SITE_FILE, *([Path(home) / ".config" / _NAME] if home else [])]


def read_settings(environment: Mapping[str, str]) -> list[Setting]:
    """Return all settings in the order in which they count. Raises BadConfiguration, which names file and key."""
    settings: list[Setting] = []
    for path in config_files(environment):
        settings += _of_file(path, is_named=_FILE_VARIABLE in environment)
    for option in OPTIONS:
        variable = f"{_PREFIX}{option.word.upper()}"
        if variable in environment:
            settings.append(_of_text(option, environment[variable], variable))
    return settings


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a message for each REGFS_… variable that is no setting, with the nearest that is: nothing else tells it.

    It is no mistake that ends regfs: another program may have a use for the name.
    """
    known = [_FILE_VARIABLE.removeprefix(_PREFIX), *(option.word.upper() for option in OPTIONS)]
    messages = []
    for name in sorted(environment):
        word = name.removeprefix(_PREFIX)
        if name != word and word not in known and not name.startswith(_OF_TESTS):
            near = suggestion(word, known).replace("mean ", f"mean {_PREFIX}")
            messages.append(f"{name} is not a setting of regfs, and is ignored{near}")
    return messages


def configured(environment: Mapping[str, str]) -> Config:
    """Return the Config of this machine and user, without the options of a call. Raises BadConfiguration."""
    return apply_settings(default_config(environment), read_settings(environment))


def apply_settings(config: Config, settings: list[Setting]) -> Config:
    """Return *config* with *settings* in it. A flag is as the last source has it. Raises BadConfiguration."""
    last = {setting.option.name: setting for setting in settings}
    for setting in settings:
        if setting.option.is_flag and not last[setting.option.name].is_on:
            continue
        try:
            config = with_options(config, [(setting.option, setting.text)])
        except InvalidOption as error:
            raise BadConfiguration(f"{setting.source}: {error}") from None
    return config


def _of_file(path: Path, *, is_named: bool) -> Iterator[Setting]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        if is_named:
            raise BadConfiguration(f"{_FILE_VARIABLE}: there is no {path}") from None
        return
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"{path} cannot be read: {error}") from None
    import tomllib  # 10 ms, only where there is a file

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfiguration(f"{path}: {error}") from None
    for key, value in document.items():
        if key == _REGISTRY:
            yield from _of_registries(path, value)
            continue
        option = option_named(key)
        if option is None:
            near = suggestion(key, [*(known.name for known in OPTIONS), _REGISTRY])
            raise BadConfiguration(f"{path}: {key!r} is not an option of regfs{near}")
        yield from _of_value(option, value, str(path))


def _of_registries(path: Path, tables: object) -> Iterator[Setting]:
    for registry, table in tables.items() if isinstance(tables, dict) else ():
        for key, value in table.items() if isinstance(table, dict) else ():
            if key != "insecure" or not isinstance(value, bool):
                raise BadConfiguration(f'{path}: [{_REGISTRY}."{registry}"] has insecure = true or false, not {key!r}')
            if value:
                option = option_named(_INSECURE)
                assert option is not None
                yield Setting(option, registry, str(path))


def _of_value(option: Option, value: object, source: str) -> Iterator[Setting]:
    if isinstance(value, list) and option.name == _INSECURE:
        for each in value:
            yield from _of_value(option, each, source)
    elif option.is_flag:
        if not isinstance(value, bool):
            raise BadConfiguration(f"{source}: {option.name} is true or false, not {value!r}")
        yield Setting(option, "", source, is_on=value)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield Setting(option, str(value), source)
    else:
        raise BadConfiguration(f"{source}: {option.name} is a text like {option.metavar}, not {value!r}")


def _of_text(option: Option, text: str, variable: str) -> Setting:
    if not option.is_flag:
        return Setting(option, text, variable)
    if text.lower() not in (*_TRUE, *_FALSE):
        raise BadConfiguration(f"{variable} is 1 or 0, not {text!r}")
    return Setting(option, "", variable, is_on=text.lower() in _TRUE)
