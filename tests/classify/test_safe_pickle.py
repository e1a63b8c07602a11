"""Weights are read from torch.save files of both formats, and nothing in such a file is ever executed."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from router.classify.network import DEMO
from router.classify.safe_pickle import read_tensors
from router.classify.torch_network import build
from router.errors import WeightsUnavailable

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return build(DEMO, 4)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("whole", [True, False], ids=["network", "state"])
@pytest.mark.filterwarnings("ignore")
def test_tensors_are_those_that_were_saved(network, tmp_path: Path, zipped: bool, whole: bool) -> None:
    path = tmp_path / "weights.pt"
    torch.save(network if whole else network.state_dict(), path, _use_new_zipfile_serialization=zipped)
    found = read_tensors(path)
    expected = network.state_dict()
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_views_into_a_shared_storage_are_cut_out(tmp_path: Path, zipped: bool) -> None:
    base = torch.arange(24, dtype=torch.float32)
    state = {"a": base[4:10], "b": base.view(4, 6).t(), "c": torch.zeros(0, 3)}
    torch.save(state, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    found = read_tensors(tmp_path / "w.pt")
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


class _Evil:
    """Runs a command wherever it is unpickled without care."""

    def __init__(self, witness: Path) -> None:
        self._witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, (f"touch '{self._witness}'",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_an_evil_pickle_is_refused_and_not_executed(tmp_path: Path, zipped: bool) -> None:
    witness = tmp_path / "executed"
    torch.save({"x": torch.zeros(3), "evil": _Evil(witness)}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsUnavailable, match="system"):
        read_tensors(tmp_path / "w.pt")
    assert not witness.exists()
    torch.load(tmp_path / "w.pt", weights_only=False)  # what upstream does
    assert witness.exists(), "the file was harmless: this test proves nothing"


@pytest.mark.parametrize(
    ("module", "name"),
    [("builtins", "eval"), ("builtins", "getattr"), ("torch", "load"), ("torch._utils", "_import_dotted_name"),
     ("torch.hub", "load"), ("collections", "Counter"), ("os", "system"), ("torchxrayvision.utils", "download")],
)  # fmt: skip
def test_every_other_name_is_refused(tmp_path: Path, module: str, name: str) -> None:
    data = b"\x80\x02" + f"c{module}\n{name}\n".encode() + b"."
    _zip(tmp_path / "w.pt", data)
    with pytest.raises(WeightsUnavailable, match=f"{module}.{name}"):
        read_tensors(tmp_path / "w.pt")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        b"not weights",
        pickle.dumps({"x": 1}),
        pickle.dumps(0x1950A86A20F9469CFC6C),
        b"\x80\x02" * 50,
    ],
)
def test_what_is_no_weights_file_is_told_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(WeightsUnavailable):
        read_tensors(tmp_path / "w.pt")


def test_a_zip_without_weights_is_told_so(tmp_path: Path) -> None:
    _zip(tmp_path / "w.pt", pickle.dumps({}))
    with pytest.raises(WeightsUnavailable, match="no tensors"):
        read_tensors(tmp_path / "w.pt")


def test_a_tensor_that_reaches_outside_its_storage_is_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1000)}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as good, zipfile.ZipFile(tmp_path / "bad.pt", "w") as bad:
        for entry in good.namelist():
            data = good.read(entry)
            bad.writestr(entry, data[:100] if "/data/" in entry else data)
    with pytest.raises(WeightsUnavailable, match="outside"):
        read_tensors(tmp_path / "bad.pt")


def test_a_truncated_legacy_file_is_refused(network, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsUnavailable):
        read_tensors(tmp_path / "w.pt")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(10)}, tmp_path / "w.pt")
    data = bytearray((tmp_path / "w.pt").read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 2**32 - 2)  # uncompressed size in the central directory
    (tmp_path / "w.pt").write_bytes(data)
    with pytest.raises(WeightsUnavailable, match="unpacks to more"):
        read_tensors(tmp_path / "w.pt")


def _zip(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
