"""Hosts: where a registry is asked, in which order, and with which trust."""

from __future__ import annotations

import logging
import os
import pwd
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import BadConfiguration, InvalidOption
from regfs.registry.hosts.certificates import certificates_in, system_authorities
from regfs.registry.hosts.endpoints import (
    ALL_CAPABILITIES,
    Endpoint,
    Hosts,
    certificate_directories,
    hosts_directories,
)
from regfs.registry.hosts.hosts_toml import parse_hosts
from regfs.registry.http.trust import Authorities, Tls


class Machine:
    """A machine's /etc, as far as hosts are concerned, and a clock that does not move by itself."""

    def __init__(self, directory: Path) -> None:
        self.containerd = directory / "containerd"
        self.docker = directory / "docker"
        self.now = 0.0

    def toml(self, registry: str, text: str) -> Path:
        path = self.containerd / registry / "hosts.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def hosts(self, *insecure: str) -> Hosts:
        return Hosts(
            insecure=insecure,
            hosts_directories=[self.containerd],
            certificate_directories=[self.docker],
            clock=lambda: self.now,
        )

    def endpoints(self, registry: str) -> tuple[Endpoint, ...]:
        return self.hosts().endpoints(registry)

    def bases(self, registry: str) -> list[str]:
        return [endpoint.base for endpoint in self.endpoints(registry)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def only(endpoints: tuple[Endpoint, ...]) -> Endpoint:
    (endpoint,) = endpoints
    return endpoint


# Without any file.


def test_a_registry_is_asked_at_its_own_host(machine: Machine) -> None:
    assert machine.endpoints("ghcr.io") == (Endpoint("https://ghcr.io/v2", "ghcr.io", True),)


def test_docker_hub_has_a_host_of_another_name_and_needs_no_namespace(machine: Machine) -> None:
    endpoint = only(machine.endpoints("docker.io"))
    assert (endpoint.base, endpoint.namespace) == ("https://registry-1.docker.io/v2", None)


def test_what_an_endpoint_may_do_without_files_is_everything(machine: Machine) -> None:
    endpoint = only(machine.endpoints("ghcr.io"))
    assert endpoint.capabilities == ALL_CAPABILITIES == {"pull", "resolve", "referrers"}
    assert endpoint.tls == Tls()


@pytest.mark.parametrize("registry", ["localhost:5000", "127.0.0.1:5000", "127.8.9.1:5000", "[::1]:5000", "localhost"])
def test_loopback_may_be_asked_without_tls_but_tls_comes_first(machine: Machine, registry: str) -> None:
    endpoint = only(machine.endpoints(registry))
    assert (endpoint.base, endpoint.plain_http) == (f"https://{registry}/v2", "fallback")
    assert endpoint.tls.verify
    assert not endpoint.insecure


@pytest.mark.parametrize(
    "registry", ["ghcr.io", "10.0.0.1:5000", "192.168.0.1", "[fd00::1]:5000", "localhost.evil.net:5000", "0.0.0.0:5000"]
)
def test_nothing_but_loopback_is_asked_without_tls_unasked(machine: Machine, registry: str) -> None:
    assert only(machine.endpoints(registry)).plain_http == "never"


def test_the_well_known_ports_say_whether_it_is_tls(machine: Machine) -> None:
    assert only(machine.endpoints("localhost:80")).base == "http://localhost:80/v2"
    assert only(machine.endpoints("localhost:80")).plain_http == "always"
    assert only(machine.endpoints("localhost:443")).plain_http == "never"


@pytest.mark.parametrize(
    ("insecure", "registry"),
    [
        ("reg.example", "reg.example"),
        ("reg.example:5000", "reg.example:5000"),
        ("10.0.0.0/8", "10.1.2.3:5000"),
        ("10.0.0.0/8", "10.1.2.3"),
        ("fd00::/8", "[fd00::1]:5000"),
    ],
)
def test_an_insecure_registry_needs_neither_tls_nor_a_right_certificate(
    machine: Machine, insecure: str, registry: str
) -> None:
    endpoint = only(machine.hosts(insecure).endpoints(registry))
    assert (endpoint.plain_http, endpoint.tls.verify, endpoint.insecure) == ("fallback", False, True)


@pytest.mark.parametrize("registry", ["reg.example:5001", "reg.example", "evil.reg.example:5000", "11.0.0.1:5000"])
def test_another_registry_is_not_insecure_with_it(machine: Machine, registry: str) -> None:
    endpoint = only(machine.hosts("reg.example:5000", "10.0.0.0/8").endpoints(registry))
    assert (endpoint.plain_http, endpoint.tls.verify, endpoint.insecure) == ("never", True, False)


def test_a_network_that_is_none_is_an_invalid_option() -> None:
    with pytest.raises(InvalidOption, match=r"10\.0\.0\.0/99"):
        Hosts(insecure=["10.0.0.0/99"])


# hosts.toml.


def test_mirrors_come_in_the_order_of_the_file_and_the_registry_last(machine: Machine) -> None:
    machine.toml(
        "docker.io", '[host."https://b.example"]\n[host."https://a.example:5000"]\n[host."http://c.example"]\n'
    )
    assert machine.bases("docker.io") == [
        "https://b.example/v2",
        "https://a.example:5000/v2",
        "http://c.example/v2",
        "https://registry-1.docker.io/v2",
    ]
    assert [endpoint.upstream for endpoint in machine.endpoints("docker.io")] == [False, False, False, True]


def test_f69_a_mirror_is_told_the_namespace_and_the_registry_is_not(machine: Machine) -> None:
    machine.toml("docker.io", 'server = "https://registry-1.docker.io"\n[host."https://mirror.example"]\n')
    assert [endpoint.namespace for endpoint in machine.endpoints("docker.io")] == ["docker.io", None]


def test_server_takes_the_place_of_the_registry(machine: Machine) -> None:
    machine.toml("ghcr.io", 'server = "https://inside.example"\n')
    endpoint = only(machine.endpoints("ghcr.io"))
    assert (endpoint.base, endpoint.upstream, endpoint.namespace) == ("https://inside.example/v2", True, "ghcr.io")


def test_docker_hub_as_server_means_its_api_host(machine: Machine) -> None:
    machine.toml("docker.io", 'server = "https://docker.io"\n')
    assert machine.bases("docker.io") == ["https://registry-1.docker.io/v2"]


def test_all_settings_of_a_host_are_kept(machine: Machine) -> None:
    path = machine.toml(
        "reg.example",
        """
        [host."https://mirror.example"]
          capabilities = ["pull", "resolve"]
          ca = ["one.crt", "/abs/two.crt"]
          client = [["client.cert", "client.key"]]
          skip_verify = true
          dial_timeout = "5s"
          [host."https://mirror.example".header]
            X-Token = "a"
            X-List = ["b", "c"]
        """,
    )
    mirror = machine.endpoints("reg.example")[0]
    assert mirror.capabilities == {"pull", "resolve"}
    assert mirror.headers == {"X-Token": "a", "X-List": "b, c"}
    here = path.parent
    assert mirror.tls == Tls(
        (f"{here}/one.crt", "/abs/two.crt"), (f"{here}/client.cert", f"{here}/client.key"), verify=False
    )
    assert mirror.insecure
    assert "'a'" not in repr(mirror)


def test_settings_outside_a_host_are_the_servers(machine: Machine) -> None:
    machine.toml("reg.example", 'server = "https://x.example"\ncapabilities = ["pull"]\n[host."https://m.example"]\n')
    assert [endpoint.capabilities for endpoint in machine.endpoints("reg.example")] == [ALL_CAPABILITIES, {"pull"}]


@pytest.mark.parametrize(
    ("client", "pair"),
    [
        ('"both.pem"', ("both.pem", None)),
        ('["both.pem"]', ("both.pem", None)),
        ('[["a", ""]]', ("a", None)),
        ("[]", None),
    ],
)
def test_a_client_certificate_may_hold_its_key(
    machine: Machine, client: str, pair: tuple[str, str | None] | None
) -> None:
    path = machine.toml("reg.example", f'[host."https://m.example"]\nclient = {client}\n')
    expected = None if pair is None else (f"{path.parent}/{pair[0]}", pair[1])
    assert machine.endpoints("reg.example")[0].tls.client_pair == expected


@pytest.mark.parametrize(
    ("url", "override", "base"),
    [
        ("https://m.example", False, "https://m.example/v2"),
        ("https://m.example/", False, "https://m.example/v2"),
        ("https://m.example/v2", False, "https://m.example/v2"),
        ("https://m.example/v2/", False, "https://m.example/v2"),
        ("https://m.example/proxy/hub", False, "https://m.example/proxy/hub/v2"),
        ("https://m.example/v2/proxy/hub", True, "https://m.example/v2/proxy/hub"),
        ("m.example:5000", False, "https://m.example:5000/v2"),
        ("http://[::1]:5000", False, "http://[::1]:5000/v2"),
        ("HTTPS://M.example", False, "https://m.example/v2"),
        ("https://m.example/a/../b//c/", False, "https://m.example/b/c/v2"),
    ],
)
def test_v2_is_added_unless_the_path_is_overridden(machine: Machine, url: str, override: bool, base: str) -> None:
    machine.toml("reg.example", f'[host."{url}"]\noverride_path = {str(override).lower()}\n')
    assert machine.bases("reg.example")[0] == base


def test_a_host_that_is_named_with_its_scheme_keeps_it(machine: Machine) -> None:
    machine.toml("reg.example", '[host."http://localhost:5000"]\n[host."https://localhost:5001"]\n')
    assert [endpoint.plain_http for endpoint in machine.endpoints("reg.example")] == ["always", "never", "never"]


@pytest.mark.parametrize("name", ["reg.example_5000_", "reg.example:5000", "_default"])
def test_the_directory_of_a_registry_has_several_names(machine: Machine, name: str) -> None:
    machine.toml(name, '[host."https://m.example"]\n')
    assert machine.bases("reg.example:5000") == ["https://m.example/v2", "https://reg.example:5000/v2"]


def test_the_more_special_directory_wins(machine: Machine) -> None:
    for number, name in enumerate(["_default", "reg.example:5000", "reg.example_5000_"]):
        machine.toml(name, f'[host."https://m{number}.example"]\n')
        assert machine.bases("reg.example:5000")[0] == f"https://m{number}.example/v2"
    assert machine.bases("reg.example")[0] == "https://m0.example/v2"


@pytest.mark.parametrize(
    "text",
    [
        "server = ",
        "server = 7",
        "host = 7",
        '[host."https://m.example"]\ncapabilities = 7',
        '[host."https://m.example"]\ncapabilities = [7]',
        '[host."https://m.example"]\nskip_verify = "yes"',
        '[host."https://m.example"]\nca = {}',
        '[host."https://m.example"]\nclient = [["a", "b", "c"]]',
        '[host."https://m.example"]\nclient = 7',
        '[host."https://m.example".header]\n"a b" = "x"',
        '[host."https://m.example".header]\na = "x\\r\\nEvil: 1"',
        '[host."ftp://m.example"]',
        '[host."https://user:pw@m.example"]',
        '[host."https://m.example?x"]',
        '[host."https://m.example/%2e%2e"]',
        '[host."https://"]',
        '[host."https://m.example:99999"]',
        '[host]\n"https://m.example" = 7',
        "a = " + "[" * 100_000,
    ],
)
def test_a_file_that_cannot_be_understood_does_not_lead_past_the_mirror(machine: Machine, text: str) -> None:
    path = machine.toml("reg.example", text)
    with pytest.raises(BadConfiguration, match=str(path)):
        machine.endpoints("reg.example")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('server = "https://x"\n[host.', 2),
        ("# server\n\nserver = 7\n", 3),
        ('[host."https://a.example"]\nskip_verify = true\n\n[host."https://m.example"]\nskip_verify = "yes"', 5),
        ('[host."https://m.example"]\n[host."ftp://n.example"]', 2),
        ('[host."https://m.example".header]\nX-Key = "k"\n"a b" = "x"', 3),
        ("\n\n\xff", 3),
    ],
)
def test_what_is_wrong_in_a_file_is_told_by_its_line(machine: Machine, text: str, line: int) -> None:
    path = machine.toml("reg.example", "")
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadConfiguration, match=rf"^{path}, line {line}: "):
        machine.endpoints("reg.example")
    assert len(machine.endpoints("other.example")) == 1


def test_a_password_in_a_url_is_not_repeated(machine: Machine) -> None:
    machine.toml("reg.example", '[host."https://user:s3cret@m.example"]')
    with pytest.raises(BadConfiguration) as caught:
        machine.endpoints("reg.example")
    assert "s3cret" not in str(caught.value)


def test_an_unknown_key_is_warned_about(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.toml("reg.example", '[host."https://m.example"]\ncapabilites = ["pull"]\n')
    assert len(machine.endpoints("reg.example")) == 2
    assert "capabilites" in caplog.text


def test_a_changed_file_is_noticed_after_seconds(machine: Machine) -> None:
    hosts = machine.hosts()
    assert len(hosts.endpoints("reg.example")) == 1
    machine.toml("reg.example", '[host."https://m.example"]\n')
    assert len(hosts.endpoints("reg.example")) == 1
    machine.now = 6.0
    assert len(hosts.endpoints("reg.example")) == 2


def test_a_file_that_becomes_wrong_keeps_its_last_good_content(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    path = machine.toml("reg.example", '[host."https://m.example"]\n')
    hosts = machine.hosts()
    assert len(hosts.endpoints("reg.example")) == 2
    path.write_text("[host.")
    machine.now = 6.0
    assert len(hosts.endpoints("reg.example")) == 2
    assert str(path) in caplog.text
    path.unlink()
    machine.now = 12.0
    assert len(hosts.endpoints("reg.example")) == 1


def test_a_file_that_may_not_be_read_is_an_error_of_ours(machine: Machine) -> None:
    path = machine.containerd / "reg.example" / "hosts.toml"
    path.mkdir(parents=True)  # root may read every file, but no directory as one
    with pytest.raises(BadConfiguration, match="cannot be read"):
        machine.endpoints("reg.example")


def test_a_pipe_in_place_of_a_hosts_toml_does_not_block(machine: Machine) -> None:
    path = machine.containerd / "reg.example" / "hosts.toml"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(BadConfiguration, match="not a regular file"):
        machine.endpoints("reg.example")


# Certificates.


def test_certificates_of_a_registry_are_found_by_its_name_as_written(machine: Machine) -> None:
    directory = machine.docker / "reg.example:5000"
    directory.mkdir(parents=True)
    for name in ("b.crt", "a.crt", "client.cert", "client.key", "README"):
        (directory / name).touch()
    tls = only(machine.endpoints("reg.example:5000")).tls
    assert tls.ca_files == (f"{directory}/a.crt", f"{directory}/b.crt")
    assert tls.client_pair == (f"{directory}/client.cert", f"{directory}/client.key")
    assert only(machine.endpoints("reg.example")).tls == Tls()


def test_docker_hub_has_its_certificates_under_its_own_name(machine: Machine) -> None:
    (machine.docker / "docker.io").mkdir(parents=True)
    (machine.docker / "docker.io/ca.crt").touch()
    assert only(machine.endpoints("docker.io")).tls.ca_files == (f"{machine.docker}/docker.io/ca.crt",)


def test_a_containerd_directory_without_hosts_toml_holds_certificates(machine: Machine) -> None:
    (machine.containerd / "reg.example").mkdir(parents=True)
    (machine.containerd / "reg.example/ca.crt").touch()
    assert only(machine.endpoints("reg.example")).tls.ca_files == (f"{machine.containerd}/reg.example/ca.crt",)


def test_a_mirror_has_the_certificates_of_its_own_host(machine: Machine) -> None:
    machine.toml("docker.io", '[host."https://m.example:5000"]\n')
    (machine.docker / "m.example:5000").mkdir(parents=True)
    (machine.docker / "m.example:5000/ca.crt").touch()
    mirror, upstream = machine.endpoints("docker.io")
    assert mirror.tls.ca_files == (f"{machine.docker}/m.example:5000/ca.crt",)
    assert upstream.tls == Tls()


def test_f22_a_client_certificate_without_its_key_is_explained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "ca.cert").write_text("-----BEGIN CERTIFICATE-----")
    assert certificates_in(tmp_path).client_pair is None
    assert "named .crt" in caplog.text


def test_a_client_certificate_may_have_its_key_in_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "client.cert").write_text("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n")
    assert certificates_in(tmp_path).client_pair == (f"{tmp_path}/client.cert", None)


def test_a_key_without_its_certificate_is_explained(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "client.key").touch()
    assert certificates_in(tmp_path).client_pair is None
    assert "client.cert" in caplog.text


def test_a_directory_that_cannot_be_looked_at_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "loop").symlink_to("loop")  # root may read every directory, but not this one
    assert certificates_in(tmp_path / "loop").ca_files == ()
    assert "loop" in caplog.text


# Where to look.


def test_the_users_directories_come_before_the_systems() -> None:
    assert [str(path) for path in hosts_directories({"HOME": "/h"})] == [
        "/h/.config/containerd/certs.d",
        "/etc/containerd/certs.d",
    ]
    assert [str(path) for path in certificate_directories({"HOME": "/h", "XDG_CONFIG_HOME": "/x"})] == [
        "/x/containers/certs.d",
        "/etc/containers/certs.d",
        "/etc/docker/certs.d",
    ]
    assert hosts_directories({"HOME": ""}) == hosts_directories({"HOME": pwd.getpwuid(os.geteuid()).pw_dir})


def test_the_environment_decides_what_is_trusted(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.touch()
    assert system_authorities({"SSL_CERT_FILE": "/f", "SSL_CERT_DIR": "/d"}) == Authorities("/f", "/d")
    assert system_authorities({"REQUESTS_CA_BUNDLE": str(bundle)}) == Authorities(str(bundle), None)
    assert system_authorities({"REQUESTS_CA_BUNDLE": str(tmp_path)}) == Authorities(None, str(tmp_path))
    assert system_authorities({"SSL_CERT_FILE": "/f", "REQUESTS_CA_BUNDLE": str(bundle)}) == Authorities("/f", None)


def test_without_a_word_the_system_is_trusted() -> None:
    found = system_authorities({})
    assert Path(found.file or found.directory or "").exists()


# Any content of the files.

_VALUES = st.sampled_from(
    [
        '"x"',
        "7",
        "true",
        "[]",
        '["a", "b"]',
        '[["a", "b"]]',
        "{}",
        '{a = "b"}',
        '"https://m.example"',
        "1979-05-27",
        "nan",
    ]
)
_KEYS = st.sampled_from(
    ["server", "capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout", "other"]
)
_URLS = st.sampled_from(
    ["https://m.example", "http://[::1]:5000/x", "", "x y", "://", "https://[", "//m", "m.example/%"]
)


@given(st.dictionaries(_KEYS, _VALUES), st.dictionaries(_URLS, st.dictionaries(_KEYS, _VALUES), max_size=3))
def test_any_table_is_understood_or_a_bad_configuration(top: dict[str, str], hosts: dict[str, dict[str, str]]) -> None:
    lines = [f"{key} = {value}" for key, value in top.items()]
    for url, settings in hosts.items():
        lines += [f'[host."{url}"]', *(f"{key} = {value}" for key, value in settings.items())]
    try:
        found = parse_hosts("\n".join(lines).encode(), path=Path("/x/hosts.toml"))
    except BadConfiguration:
        return
    assert len(found.hosts) == len(hosts)


@given(st.binary(max_size=100) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_understood_or_a_bad_configuration(content: bytes) -> None:
    try:
        parse_hosts(content, path=Path("/x/hosts.toml"))
    except BadConfiguration:
        pass
