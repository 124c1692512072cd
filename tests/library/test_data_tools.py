"""What readers of tables and models make of artifacts: pandas by regfs://, safetensors by a file that is mapped."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy
import pandas
import pytest
from safetensors import safe_open
from safetensors.numpy import save

import regfs
from tests.support.artifacts import TITLE, artifact_of, blob, push_artifact
from tests.support.fault_server import FaultServer
from tests.support.memory_registry import MemoryRegistry

TABLE = pandas.DataFrame({"name": ["a", "b"], "size": [1, 2]})
TENSORS = {"weights": numpy.arange(6, dtype=numpy.float32).reshape(2, 3), "bias": numpy.zeros(3, numpy.float32)}


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    parquet = io.BytesIO()
    TABLE.to_parquet(parquet)
    table = blob(parquet.getvalue(), "application/vnd.apache.parquet", {TITLE: "data.parquet"})
    model = blob(save(TENSORS), "application/octet-stream", {TITLE: "model.safetensors"})
    application = MemoryRegistry()
    push_artifact(application, "demo/data", "v1", artifact_of(table, model, kind="application/vnd.example"))
    with FaultServer(application) as served:
        yield served


def test_pandas_reads_parquet_by_its_path(server: FaultServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    options = {
        "default_registry": server.address, "cache_dir": str(tmp_path_factory.mktemp("cache")), "environment": {},
        "skip_instance_cache": True,
    }  # fmt: skip
    found = pandas.read_parquet("regfs://demo/data:v1/files/data.parquet", storage_options=options)
    pandas.testing.assert_frame_equal(found, TABLE)


def test_a_model_is_mapped_where_the_cache_has_it(
    server: FaultServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    with regfs.open("demo/data:v1", default_registry=server.address, cache_dir=cache, environment={}) as artifact:
        path = (artifact.files / "model.safetensors").local_path()
        with safe_open(path, framework="numpy") as model:
            assert sorted(model.keys()) == sorted(TENSORS)
            numpy.testing.assert_array_equal(model.get_tensor("weights"), TENSORS["weights"])
            numpy.testing.assert_array_equal(model.get_slice("weights")[1:], TENSORS["weights"][1:])
