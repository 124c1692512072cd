"""Files that tell how registries are asked and make no sense, seen by the user of a mount: never EINVAL."""

from __future__ import annotations

import os
from pathlib import Path

from tests.e2e.faults.conftest import MOTD, by_itself
from tests.support.faulty_mount import FaultyMount
from tests.support.memory_registry import MemoryRegistry
from tests.support.registry import Certificates
from tests.support.served_tls import tls_of


def test_a_broken_hosts_toml_is_eio_told_by_its_line_and_costs_its_registry_alone(faulty: FaultyMount) -> None:
    server = faulty.new_server()
    faulty.push_app(server=server)
    faulty.hosts_toml(server.address, f'server = "{server.url}"\n[host."ftp://mirror.example"]\n')
    assert faulty.fails(faulty.path(MOTD, server=server), Path.read_bytes) == "EIO"
    assert faulty.fails(faulty.path("app", server=server), os.listdir) == "EIO"
    assert f"{server.address}/hosts.toml, line 2: " in faulty.errors()
    assert server.connections == 0
    assert faulty.neighbour_lives()
    faulty.hosts_toml(server.address, f'server = "{server.url}"\n')
    faulty.recovers(faulty.path(MOTD, server=server))


@by_itself
def test_what_is_cached_is_served_while_hosts_toml_is_broken(faulty: FaultyMount) -> None:
    server = faulty.new_server()
    faulty.push_app(server=server)
    assert faulty.reads(faulty.path(MOTD, server=server))
    faulty.hosts_toml(server.address, "[host.")
    faulty.remount()
    asked = len(server.seen)
    assert faulty.reads(faulty.path(MOTD, server=server))
    assert os.listdir(faulty.path("app", server=server)) == ["1"]
    assert len(server.seen) == asked


@by_itself
def test_a_rule_of_registries_conf_that_makes_no_sense_costs_its_registry_alone(faulty: FaultyMount) -> None:
    server = faulty.new_server()
    faulty.push_app(server=server)
    conf = faulty.home / "registries.conf"
    conf.parent.mkdir(exist_ok=True)
    conf.write_text(f'[[registry]]\nlocation = "{server.address}"\ninsecure = "yes"\n')
    faulty.mount(environment={"CONTAINERS_REGISTRIES_CONF": str(conf)})
    assert faulty.fails(faulty.path(MOTD, server=server), Path.read_bytes) == "EIO"
    assert f"{conf}, line 3: insecure is neither true nor false" in faulty.errors()
    assert faulty.neighbour_lives()
    conf.unlink()
    faulty.recovers(faulty.path(MOTD, server=server))


def test_a_broken_certificate_is_eio_told_by_its_name(faulty: FaultyMount, certificates: Certificates) -> None:
    server = faulty.new_server(MemoryRegistry(), tls=tls_of(certificates))
    faulty.push_app(server=server)
    authority = faulty.home / ".config/containers/certs.d" / server.address / "ca.crt"
    authority.parent.mkdir(parents=True)
    authority.write_text("no certificate")
    assert faulty.fails(faulty.path(MOTD, server=server), Path.read_bytes) == "EIO"
    assert f"{authority} cannot be used for TLS" in faulty.errors()
    assert server.connections == 0
    assert faulty.neighbour_lives()
    authority.write_bytes(certificates.authority.read_bytes())
    faulty.recovers(faulty.path(MOTD, server=server))


@by_itself
def test_a_config_json_that_is_no_json_is_told_where_a_login_is_missed(faulty: FaultyMount) -> None:
    registry = MemoryRegistry(users={})
    server = faulty.new_server(registry)
    faulty.push_app(server=server)
    faulty.write_config('{\n "auths": {,}\n}')
    assert faulty.fails(faulty.path(MOTD, server=server), Path.read_bytes) == "EACCES"
    assert "config.json cannot be read, it is not used: it is not JSON (line 2: " in faulty.errors()
    assert faulty.neighbour_lives()
    registry.users = dict([faulty.log_in(server=server)])
    faulty.recovers(faulty.path(MOTD, server=server))
