"""README and the manual page tell what there is, and nothing that there is not.

The manual page is made from the parsers; what it and README.md say beside that is compared with the code here.
"""

from __future__ import annotations

import ast
import errno
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import regfs
from regfs.app.config import OPTIONS
from regfs.cli import exit_codes, manual_page
from regfs.cli.arguments import mount_parser
from regfs.cli.verbs import VERBS, load_verb, verb_named
from regfs.daemon import self_description, serve
from regfs.mount.errnos import ERRNOS
from regfs.tree.image import _PARTS as PARTS_OF_IMAGES
from regfs.tree.layers import _PARTS as PARTS_OF_LAYERS
from tests.conftest import missing
from tests.support.shown import Shown

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGE = manual_page.manual_page()
PLAIN_PAGE = re.sub(r"\\f[BR]", "", PAGE).replace("\\-", "-").replace("\\&", "")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
SHOWN_VERBS = sorted(name for name, verb in VERBS.items() if verb.summary)


def options_of_parsers() -> set[str]:
    """Return every long option of every parser."""
    parsers = [mount_parser(), *(load_verb(name).parser() for name in VERBS)]
    return {
        text
        for parser in parsers
        for action in parser._actions
        for text in action.option_strings
        if text.startswith("--")
    }


def regfs_calls(text: str) -> Iterator[str]:
    """Yield the calls of regfs in the code of README: `regfs WORDS…` up to the end of the command."""
    blocks = re.findall(r"```sh\n(.*?)```|\n((?:    [^\n]*\n)+)", text, re.DOTALL)
    code = "\n".join(fenced or indented for fenced, indented in blocks)
    code += "\n".join(re.findall(r"`([^`\n]+)`", text))
    for line in code.splitlines():
        for call in re.findall(r"(?:^|[;(' ])regfs ([^;|)'`]*)", re.sub(r"(^|\s)#.*", "", line)):
            yield call.strip()


def test_the_page_tells_every_option() -> None:
    assert {f"--{option.name}" for option in OPTIONS} <= options_of_parsers()
    assert options_of_parsers() <= set(OPTION.findall(PLAIN_PAGE))


def test_options_that_readme_tells_of_regfs_are_there() -> None:
    spans = [span for span in re.findall(r"`([^`\n]+)`", README) if span.startswith("--")]
    told = {option for span in spans for option in OPTION.findall(span)}
    told |= {option for call in regfs_calls(README) for option in OPTION.findall(call)}
    others = {"--tmpfs"}  # bwrap's
    assert told - others <= options_of_parsers()


def test_the_page_tells_no_option_that_is_not_there() -> None:
    others = {"--dbpath"}  # rpm's
    assert set(OPTION.findall(PLAIN_PAGE)) - others <= options_of_parsers()


@pytest.mark.parametrize("verb", SHOWN_VERBS)
def test_every_verb_stands_in_readme_and_page(verb: str) -> None:
    assert f"regfs {verb}" in README
    assert f"regfs {verb}" in PLAIN_PAGE


def test_verbs_that_readme_tells_are_there() -> None:
    words = [call.split()[0] for call in regfs_calls(README) if call]
    verbs = [word for word in words if re.fullmatch(r"[a-z]+", word)]
    assert len(verbs) > 5
    assert [word for word in verbs if verb_named(word) is None] == []


def test_control_files_are_those_that_a_daemon_shows(tmp_path: Path) -> None:
    with Shown(tmp_path) as shown:
        names = {*shown.names(".regfs"), self_description.FILE}
    assert set(manual_page.CONTROL_FILES) == names
    assert set(re.findall(r"\.regfs/([a-z.]+[a-z])", README)) <= names
    assert all(name in README for name in names)


def test_extended_attributes_are_those_that_the_code_has() -> None:
    code = "".join(module.read_text() for module in (ROOT / "regfs/tree").glob("*.py"))
    named = set(re.findall(r"user\.regfs\.\w+", code))
    assert set(manual_page.ATTRIBUTES) == named
    assert set(re.findall(r"user\.regfs\.\w+", README)) <= named


def test_errors_are_those_that_a_mount_may_answer() -> None:
    names = {number: name for name, number in vars(errno).items() if name.startswith("E") and name != "ENOTSUP"}
    answers = {names[number] for number in ERRNOS.values()}
    assert set(manual_page.ERRORS) == answers
    assert set(re.findall(r"\bE[A-Z]{3,}\b", README)) - {"EOVERFLOW", "END"} <= answers


def test_exit_codes_are_those_that_the_verbs_end_with() -> None:
    codes = {code for _, code in exit_codes._CODES} | {0, exit_codes.FAILED}
    assert set(exit_codes.MEANINGS) == codes
    sentence = " ".join(README.split()).partition("The verbs end with ")[2].partition(" and where a signal")[0]
    told = {int(code): meaning.strip() for code, meaning in re.findall(r"(\d) ([a-z ]+)", sentence)}
    assert told == exit_codes.MEANINGS


def test_signals_are_those_that_a_daemon_hears() -> None:
    assert list(manual_page.SIGNALS) == [number.name for number in serve._SIGNALS]


@pytest.mark.parametrize(
    "name", sorted({part.name for part in PARTS_OF_IMAGES} | {part.name for part in PARTS_OF_LAYERS})
)
def test_every_name_in_an_image_stands_in_readme(name: str) -> None:
    assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", README)


def test_the_page_is_roff_that_a_formatter_takes() -> None:
    if shutil.which("groff") is None:
        missing("groff is not installed")
    formatter = ["groff", "-man", "-Kutf8", "-Tutf8", "-ww"]
    formatted = subprocess.run(formatter, input=PAGE, capture_output=True, text=True, check=True)
    assert formatted.stderr == ""
    assert "--allow-other" in formatted.stdout


def test_the_overview_names_every_package_and_only_modules_that_are_there() -> None:
    overview = regfs.__doc__ or ""
    listed = overview.partition("Packages")[2].partition("The way of a read()")[0]
    packages = {path.parent.name for path in (ROOT / "regfs").glob("*/__init__.py")}
    assert packages <= set(re.findall(r"\b[a-z]+\b", listed))
    named = re.findall(r"\b[a-z]+/[a-z_/]+\.py", overview)
    assert [name for name in named if not (ROOT / "regfs" / name).is_file() and not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("package", sorted((ROOT / "regfs").rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_modules_that_a_package_lists_are_there(package: Path) -> None:
    text = ast.get_docstring(ast.parse(package.read_text())) or ""
    listed = re.findall(r"^- ([a-z_]+\.py):", text, re.MULTILINE)
    assert [name for name in listed if not (package.parent / name).is_file()] == []


def test_the_manual_page_reads_whole_in_the_c_locale() -> None:
    """man(1) left out each … there, with a warning."""
    assert PAGE.isascii(), {character for character in PAGE if not character.isascii()}
