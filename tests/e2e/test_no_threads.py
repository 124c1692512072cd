"""At the limit of processes (ulimit -u, pids.max) a mount says so and goes on."""

from __future__ import annotations

from tests.conftest import MountRegfs
from tests.support.images import file, image_of, layer
from tests.support.mounted import Mounted
from tests.support.served import Served


def limit_processes(mount: Mounted, most: int) -> None:
    """Let the daemon's user have at most *most* processes and threads, as far as the daemon may start any."""
    pid = mount.daemon
    mount.run("prlimit", "--pid", str(pid), f"--nproc={most}:")


def test_a_reader_for_whom_no_thread_can_be_started_gets_an_error_and_the_next_one_the_file(
    mount_regfs: MountRegfs, served: Served, driver: str, ordinary_user: int | None
) -> None:
    served.push("team/app", "v1", image_of(layer(file("version", b"one"))))
    mount = mount_regfs("--driver", driver, "--default-registry", served.server.address, uid=ordinary_user)
    version = mount.path / "team/app/v1/rootfs/version"
    limit_processes(mount, 1)
    refused = mount.run("cat", version, check=False)
    assert (refused.returncode, "Cannot allocate memory" in refused.stderr) == (1, True)
    limit_processes(mount, 1000)
    assert mount.run("cat", version).stdout == "one"
    errors = mount.run("cat", mount.path / ".regfs/errors").stdout
    assert "no thread could be started" in errors
    assert "ulimit -u" in errors
