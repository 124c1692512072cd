"""Settings: options from files and from the environment, and `regfs config`, which says where each comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regfs.app.config import OPTIONS
from regfs.cli import settings
from regfs.cli.main import run as run_regfs
from regfs.cli.settings import config_files, configured
from regfs.errors import BadConfiguration


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's file, which is not there yet."""
    path = tmp_path / "etc-regfs.toml"
    monkeypatch.setattr(settings, "SITE_FILE", path)
    return path


def of_user(home: Path) -> Path:
    path = home / ".config/regfs.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_what_is_nearer_to_the_call_wins(site: Path, tmp_path: Path) -> None:
    site.write_text('tag-ttl = "10m"\ntimeout = 30\noffline = true\ncache_dir = "/site"\n')
    of_user(tmp_path).write_text('tag-ttl = "5m"\noffline = false\n')
    config = configured({"HOME": str(tmp_path), "REGFS_CACHE_DIR": "/mine"})
    assert (config.tag_ttl_s, config.timeout_s, config.offline) == (300.0, 30.0, False)
    assert config.cache_dir == Path("/mine")


def test_registries_are_named_in_a_list_or_have_a_table(site: Path, tmp_path: Path) -> None:
    site.write_text('insecure-registry = ["10.0.0.0/8"]\n[registry."lab:5000"]\ninsecure = true\n')
    config = configured({"HOME": str(tmp_path), "REGFS_INSECURE_REGISTRY": "other:5000"})
    assert config.insecure_registries == {"10.0.0.0/8", "lab:5000", "other:5000"}


def test_one_file_may_take_the_place_of_both(site: Path, tmp_path: Path) -> None:
    site.write_text("offline = true\n")
    only = tmp_path / "only.toml"
    only.write_text("hub-listing = true\n")
    config = configured({"HOME": str(tmp_path), "REGFS_CONFIG": str(only)})
    assert (config.offline, config.hub_listing) == (False, True)
    assert config_files({"REGFS_CONFIG": ""}) == []
    with pytest.raises(BadConfiguration, match=r"REGFS_CONFIG: there is no /none\.toml"):
        configured({"REGFS_CONFIG": "/none.toml"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plattform = 1", "'plattform' is not an option of regfs; did you mean platform"),
        ("tag-ttl = 'soon'", "tag-ttl: 'soon'"),
        ("offline = 1", "offline is true or false, not 1"),
        ("timeout = true", "timeout is a text like TIME, not True"),
        ("timeout = [1]", "timeout is a text like TIME"),
        ("= 1", "line 1"),
        ('[registry."a:1"]\nmirror = "b"', 'registry."a:1"'),
    ],
)
def test_a_mistake_in_a_file_names_file_and_key(site: Path, tmp_path: Path, text: str, said: str) -> None:
    site.write_text(text)
    with pytest.raises(BadConfiguration, match=f"{site.name}: .*{said}"):
        configured({"HOME": str(tmp_path)})


def test_a_mistake_in_a_variable_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="REGFS_OFFLINE is 1 or 0, not 'perhaps'"):
        configured({"REGFS_CONFIG": "", "REGFS_OFFLINE": "perhaps"})
    with pytest.raises(BadConfiguration, match="REGFS_TIMEOUT: timeout: "):
        configured({"REGFS_CONFIG": "", "REGFS_TIMEOUT": "perhaps"})


def test_a_variable_that_is_no_setting_is_told_once_with_the_nearest_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """REGFS_OFLINE=1 was ignored without a word."""
    environment = {"REGFS_CONFIG": "", "HOME": str(tmp_path), "REGFS_SOAK_KILLS": "9", "REGFS_EXAMPLES": "9"}
    assert run_regfs(["config"], environment) == 0
    assert capsys.readouterr().err == ""
    environment |= {"REGFS_OFLINE": "1", "REGFS_BOGUS_SWITCH": ""}
    assert run_regfs(["config"], environment) == 0
    assert capsys.readouterr().err.splitlines() == [
        "regfs: REGFS_BOGUS_SWITCH is not a setting of regfs, and is ignored",
        "regfs: REGFS_OFLINE is not a setting of regfs, and is ignored; did you mean REGFS_OFFLINE?",
    ]
    run_regfs(["complete", "--", "l"], environment)
    assert capsys.readouterr().err == ""


def test_config_says_what_holds_and_why(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.write_text('tag-ttl = "10m"\n')
    environment = {"HOME": str(tmp_path), "REGFS_OFFLINE": "yes"}
    run_regfs(["config"], environment)
    lines = capsys.readouterr().out.splitlines()
    assert f'tag-ttl = "10m"  # {site}' in lines
    assert "offline = true  # REGFS_OFFLINE" in lines
    assert str(site) in lines[0]
    assert len(lines) == len(OPTIONS) + 1
    run_regfs(["config", "--json"], environment)
    shown = json.loads(capsys.readouterr().out)
    assert shown["options"] == [
        {"name": "tag-ttl", "value": "10m", "source": str(site)},
        {"name": "offline", "value": True, "source": "REGFS_OFFLINE"},
    ]


def test_what_config_prints_is_a_configuration_file(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {"HOME": str(tmp_path), "REGFS_OFFLINE": "1", "REGFS_INSECURE_REGISTRY": "a:1", "REGFS_TIMEOUT": "9s"}
    run_regfs(["config"], environment)
    site.write_text(capsys.readouterr().out)
    assert configured({"HOME": str(tmp_path)}) == configured(environment)
