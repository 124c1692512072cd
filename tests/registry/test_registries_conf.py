"""registries.conf: podman's rules about registries, as far as they are about whole ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import AccessDenied, BadConfiguration
from regfs.registry.hosts.endpoints import ALL_CAPABILITIES, Endpoint, Hosts
from regfs.registry.hosts.registries_conf import RegistriesConf, parse_registries, registries_files


class Machine:
    def __init__(self, directory: Path) -> None:
        self.main = directory / "registries.conf"
        self.drop_ins = directory / "registries.conf.d"
        self.containerd = directory / "certs.d"
        self.drop_ins.mkdir()

    def endpoints(self, registry: str) -> tuple[Endpoint, ...]:
        return Hosts(hosts_directories=[self.containerd], registries_files=([self.main], [self.drop_ins])).endpoints(
            registry
        )

    def bases(self, registry: str) -> list[str]:
        return [endpoint.base for endpoint in self.endpoints(registry)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_mirrors_come_before_the_registry(machine: Machine) -> None:
    machine.main.write_text(
        """
        [[registry]]
        prefix = "docker.io"
        [[registry.mirror]]
        location = "one.example:5000"
        [[registry.mirror]]
        location = "two.example/hub/proxy"
        """
    )
    assert machine.bases("docker.io") == [
        "https://one.example:5000/v2",
        "https://two.example/v2/hub/proxy",
        "https://registry-1.docker.io/v2",
    ]
    assert [endpoint.upstream for endpoint in machine.endpoints("docker.io")] == [False, False, True]
    assert machine.bases("quay.io") == ["https://quay.io/v2"]


def test_a_mirror_for_digests_does_not_resolve_tags(machine: Machine) -> None:
    machine.main.write_text(
        """
        [[registry]]
        location = "reg.example"
        [[registry.mirror]]
        location = "one.example"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "two.example"
        [[registry]]
        location = "other.example"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "three.example"
        """
    )
    without = ALL_CAPABILITIES - {"resolve"}
    assert [each.capabilities for each in machine.endpoints("reg.example")] == [
        without,
        ALL_CAPABILITIES,
        ALL_CAPABILITIES,
    ]
    assert [each.capabilities for each in machine.endpoints("other.example")] == [without, ALL_CAPABILITIES]


def test_a_registry_may_really_be_elsewhere(machine: Machine) -> None:
    machine.main.write_text('[[registry]]\nprefix = "*.example.com"\nlocation = "inside.example/all"\n')
    assert machine.bases("a.example.com") == machine.bases("b.a.example.com") == ["https://inside.example/v2/all"]
    assert machine.bases("example.com") == ["https://example.com/v2"]
    assert machine.bases("evilexample.com") == ["https://evilexample.com/v2"]


def test_the_most_special_rule_wins(machine: Machine) -> None:
    machine.main.write_text(
        """
        [[registry]]
        prefix = "*.com"
        location = "wide.example"
        [[registry]]
        prefix = "a.example.com"
        location = "exact.example"
        [[registry]]
        prefix = "*.example.com"
        location = "narrow.example"
        """
    )
    assert [machine.bases(name)[0] for name in ("a.example.com", "b.example.com", "b.com")] == [
        "https://exact.example/v2",
        "https://narrow.example/v2",
        "https://wide.example/v2",
    ]


def test_a_blocked_registry_is_denied(machine: Machine) -> None:
    machine.main.write_text('[[registry]]\nlocation = "reg.example"\nblocked = true\n')
    with pytest.raises(AccessDenied, match="blocked"):
        machine.endpoints("reg.example")


def test_insecure_is_said_of_one_place(machine: Machine) -> None:
    machine.main.write_text(
        """
        [[registry]]
        location = "reg.example"
        [[registry.mirror]]
        location = "mirror.example"
        insecure = true
        """
    )
    mirror, upstream = machine.endpoints("reg.example")
    assert (mirror.plain_http, mirror.tls.verify, mirror.insecure) == ("fallback", False, True)
    assert (upstream.plain_http, upstream.tls.verify, upstream.insecure) == ("never", True, False)


def test_later_files_replace_rules_of_earlier_ones(machine: Machine) -> None:
    machine.main.write_text('[[registry]]\nlocation = "reg.example"\nblocked = true\n')
    (machine.drop_ins / "b.conf").write_text('[[registry]]\nprefix = "reg.example"\nlocation = "b.example"\n')
    (machine.drop_ins / "a.conf").write_text('[[registry]]\nprefix = "reg.example"\nlocation = "a.example"\n')
    (machine.drop_ins / "c.conf.bak").write_text("not read")
    assert machine.bases("reg.example") == ["https://b.example/v2"]


def test_a_hosts_toml_goes_before_it(machine: Machine) -> None:
    machine.main.write_text('[[registry]]\nlocation = "reg.example"\nblocked = true\n')
    (machine.containerd / "reg.example").mkdir(parents=True)
    (machine.containerd / "reg.example/hosts.toml").write_text('server = "https://s.example"\n')
    assert machine.bases("reg.example") == ["https://s.example/v2"]


def test_a_rule_for_a_part_of_a_registry_is_warned_about(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.main.write_text('[[registry]]\nprefix = "reg.example/team"\nlocation = "x.example"\n')
    assert machine.bases("reg.example") == ["https://reg.example/v2"]
    assert "reg.example/team" in caplog.text


def test_what_is_not_about_registries_is_nothing_to_us(machine: Machine) -> None:
    machine.main.write_text(
        'unqualified-search-registries = ["docker.io"]\n[aliases]\n"debian" = "docker.io/library/debian"\n'
    )
    assert machine.bases("docker.io") == ["https://registry-1.docker.io/v2"]


@pytest.mark.parametrize(
    "text",
    [
        "[[registry",
        "registry = 7",
        "registry = [7]",
        "[[registry]]",
        "[[registry]]\nprefix = 7",
        '[[registry]]\nprefix = "https://x"',
    ],
)
def test_a_file_that_cannot_be_understood_is_told_by_its_name(machine: Machine, text: str) -> None:
    machine.main.write_text(text)
    with pytest.raises(BadConfiguration, match=r"registries\.conf"):
        machine.endpoints("reg.example")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[[registry]]\nlocation = "x.example"\nblocked = "yes"', 3),
        ('[[registry]]\nprefix = "x.example"\n\nlocation = "y.example/../z"', 4),
        ('# x\n[[registry]]\nprefix = "x.example"\nlocation = "y.example/a?b"', 4),
        ('[[registry]]\nlocation = "x.example"\nmirror = 7', 3),
        ('[[registry]]\nlocation = "x.example"\n[[registry.mirror]]', 3),
        (
            '[[registry]]\nlocation = "x.example"\n[[registry.mirror]]\nlocation = "y.example"\npull-from-mirror = "x"',
            5,
        ),
        (
            '[[registry]]\nlocation = "a.example"\ninsecure = true\n[[registry.mirror]]\nlocation = "b.example"\n'
            '[[registry]]\nlocation = "x.example"\n[[registry.mirror]]\nlocation = "y.example"\ninsecure = 7',
            10,
        ),
    ],
)
def test_a_rule_that_makes_no_sense_is_told_by_its_line_and_costs_its_registry_alone(
    machine: Machine, text: str, line: int
) -> None:
    machine.main.write_text(text)
    with pytest.raises(BadConfiguration, match=rf"registries\.conf, line {line}:"):
        machine.endpoints("x.example")
    assert machine.bases("reg.example") == ["https://reg.example/v2"]


def test_a_file_that_becomes_wrong_keeps_its_last_good_rules(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.main.write_text('[[registry]]\nlocation = "bad.example"\nblocked = true\n')
    rules = RegistriesConf([machine.main], [])
    assert rules.rule("reg.example") is None
    machine.main.write_text("[[registry")
    assert rules.rule("reg.example") is None
    assert getattr(rules.rule("bad.example"), "blocked", False)
    assert f"{machine.main}, line 1: it is not TOML" in caplog.text
    machine.main.unlink()
    assert rules.rule("bad.example") is None


def test_the_users_file_counts_instead_of_the_systems(tmp_path: Path) -> None:
    files, directories = registries_files({"HOME": "/h"})
    assert [str(path) for path in files] == ["/h/.config/containers/registries.conf", "/etc/containers/registries.conf"]
    assert [str(path) for path in directories] == [
        "/etc/containers/registries.conf.d",
        "/h/.config/containers/registries.conf.d",
    ]
    assert registries_files({"HOME": "/h", "CONTAINERS_REGISTRIES_CONF": "/x"}) == ((Path("/x"),), ())
    assert RegistriesConf([tmp_path / "none"], [tmp_path / "none"]).rule("docker.io") is None


_LINES = st.sampled_from(
    [
        "[[registry]]",
        "[[registry.mirror]]",
        "[registry]",
        'prefix = "a.b"',
        'location = "*.a"',
        'location = "a.b/c"',
        "blocked = true",
        "insecure = 1",
        'pull-from-mirror = "all"',
        "mirror = []",
    ]
)


@given(st.binary(max_size=80) | st.lists(_LINES, max_size=8).map("\n".join).map(str.encode))
def test_any_bytes_are_rules_or_a_bad_configuration(content: bytes) -> None:
    try:
        parse_registries(content, path=Path("/x/registries.conf"))
    except BadConfiguration:
        pass
