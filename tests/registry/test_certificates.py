"""The system's authorities: the bundle that programs load, or the directory of hashed names where that has them all."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from regfs.errors import ProtocolViolation
from regfs.registry.hosts.certificates import system_authorities
from regfs.registry.http.trust import Authorities
from tests.support.client_rig import Rig, repository_of
from tests.support.memory_registry import MemoryRegistry
from tests.support.registry import Certificates, make_certificates
from tests.support.served_tls import tls_of


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return certificates of another authority, whose subject has the same name and so the same hash."""
    return make_certificates(tmp_path_factory.mktemp("others"))


class Trust:
    """A directory as update-ca-certificates leaves it: a bundle, and each authority once more by its hashed name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bundle = directory / "ca-certificates.crt"
        directory.mkdir(mode=0o755)  # whatever the umask is, closed to others

    def add(self, certificates: Certificates, name: str) -> None:
        text = certificates.authority.read_text()
        (self.directory / f"{name}.pem").write_text(text)
        self.append(text)

    def append(self, text: str) -> None:
        with self.bundle.open("a") as bundle:
            bundle.write(text)

    def hash_names(self) -> list[Path]:
        subprocess.run(["openssl", "rehash", self.directory], check=True, capture_output=True)
        return sorted(path for path in self.directory.iterdir() if path.suffix[1:].isdigit())

    def authorities(self) -> Authorities:
        """Return what is trusted where the environment names the bundle."""
        return system_authorities({"SSL_CERT_FILE": str(self.bundle)})

    @property
    def by_name(self) -> Authorities:
        return Authorities(None, str(self.directory))

    @property
    def by_bundle(self) -> Authorities:
        return Authorities(str(self.bundle), None)


@pytest.fixture
def trust(tmp_path: Path, certificates: Certificates, others: Certificates) -> Trust:
    trust = Trust(tmp_path / "certs")
    trust.add(certificates, "one")
    trust.add(others, "another")
    return trust


@pytest.fixture
def tags_of(rig: Rig) -> Callable[[Certificates, Authorities], list[str]]:
    """Return what lists the tags of a registry that shows *certificates*, trusting *authorities* alone."""

    def tags(certificates: Certificates, authorities: Authorities) -> list[str]:
        registry = MemoryRegistry()
        registry.add_image("demo/app", "v1")
        server = rig.server(registry, tls=tls_of(certificates))
        return rig.client(server, authorities=authorities).listing.tags(repository_of(server))

    return tags


Tags = Callable[[Certificates, Authorities], list[str]]


def test_a_directory_that_has_every_authority_by_its_name_is_trusted_instead_of_the_bundle(
    trust: Trust, certificates: Certificates, others: Certificates, tags_of: Tags
) -> None:
    assert len(trust.hash_names()) == 2
    assert trust.authorities() == trust.by_name
    assert tags_of(certificates, trust.by_name) == tags_of(others, trust.by_name) == ["v1"]


def test_a_certificate_in_neither_is_not_trusted(tmp_path: Path, trust: Trust, tags_of: Tags) -> None:
    trust.hash_names()
    (tmp_path / "anonymous").mkdir()
    anonymous = make_certificates(tmp_path / "anonymous")
    with pytest.raises(ProtocolViolation, match="not trusted"):
        tags_of(anonymous, trust.authorities())


def test_a_bundle_found_through_a_link_is_looked_for_where_it_is(tmp_path: Path, trust: Trust) -> None:
    trust.hash_names()
    link = tmp_path / "cert.pem"
    link.symlink_to(trust.bundle)
    assert system_authorities({"REQUESTS_CA_BUNDLE": str(link)}) == trust.by_name


def test_an_authority_that_only_the_bundle_has_is_trusted(
    trust: Trust, certificates: Certificates, others: Certificates, tags_of: Tags
) -> None:
    (trust.directory / "another.pem").unlink()
    assert len(trust.hash_names()) == 1
    assert trust.authorities() == trust.by_bundle
    assert tags_of(certificates, trust.by_bundle) == tags_of(others, trust.by_bundle) == ["v1"]


def test_a_name_after_a_gap_does_not_count(trust: Trust) -> None:
    first, second = trust.hash_names()
    assert (first.suffix, second.suffix) == (".0", ".1")
    first.rename(first.with_suffix(".2"))
    assert trust.authorities() == trust.by_bundle


def test_a_second_certificate_in_one_file_does_not_count(
    trust: Trust, certificates: Certificates, others: Certificates
) -> None:
    _, second = trust.hash_names()
    first = trust.directory / "one.pem"
    first.write_text(certificates.authority.read_text() + others.authority.read_text())
    second.unlink()
    assert trust.authorities() == trust.by_bundle


def test_an_authority_that_the_bundle_lacks_is_not_trusted_for_its_name(
    tmp_path: Path, trust: Trust, others: Certificates, tags_of: Tags
) -> None:
    trust.hash_names()
    few = trust.directory / "one.pem"
    found = system_authorities({"SSL_CERT_FILE": str(few)})
    assert found == Authorities(str(few), None)
    with pytest.raises(ProtocolViolation, match="not trusted"):
        tags_of(others, found)


def test_a_directory_that_is_named_beside_the_bundle_stays(tmp_path: Path, trust: Trust) -> None:
    trust.hash_names()
    bundle, own, other = str(trust.bundle), str(trust.directory), str(tmp_path)
    assert system_authorities({"SSL_CERT_FILE": bundle, "SSL_CERT_DIR": own}) == trust.by_name
    assert system_authorities({"SSL_CERT_FILE": bundle, "SSL_CERT_DIR": other}) == Authorities(bundle, other)


def test_a_bundle_with_more_than_plain_certificates_is_loaded_whole(trust: Trust) -> None:
    trust.hash_names()
    trust.append("-----BEGIN X509 CRL-----\nTEST-HEADER: 1\n\nMIIB\n-----END X509 CRL-----\n")
    assert trust.authorities() == trust.by_bundle


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_directory_that_others_may_write_to_is_not_trusted_for_its_names(trust: Trust, mode: int) -> None:
    """A user who may write there could add an authority after the two were compared."""
    trust.hash_names()
    trust.directory.chmod(mode)
    assert trust.authorities() == trust.by_bundle
    trust.directory.chmod(0o755)
    assert trust.authorities() == trust.by_name


def test_a_bundle_alone_is_loaded(tmp_path: Path, certificates: Certificates) -> None:
    alone = Trust(tmp_path / "certs")
    alone.append(certificates.authority.read_text())
    assert alone.authorities() == alone.by_bundle
