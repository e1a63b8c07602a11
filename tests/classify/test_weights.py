"""Weights are found, fetched and taken in only as the bytes they should be; what is missing is said in one line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.classify import catalogue, verify, weights_folder
from router.classify.network import DEMO, DENSENET
from router.classify.published import PUBLISHED
from router.classify.torch_network import build
from router.classify.trust import FIRST_USE, GIVEN, PINNED
from router.classify.weights import from_file
from router.classify.weights_folder import WeightsFolder
from router.errors import WeightsUnavailable
from tests.classify.weights_server import Server

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def network():
    """Upstream's class with as many outputs as the published networks have, but small, so that the tests are quick."""
    torch.manual_seed(7)
    return build(DEMO, 18)


@pytest.fixture(scope="module")
def upstream_file(network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as upstream publishes them: a whole network, pickled."""
    path = tmp_path_factory.mktemp("upstream") / "weights.pt"
    torch.save(network, path)
    return path


@pytest.fixture(scope="module")
def full_network():
    torch.manual_seed(8)
    return build(DENSENET, 18).eval()


@pytest.fixture(scope="module")
def full_file(full_network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upstream") / "weights.pt"
    torch.save(full_network, path)
    return path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def known(upstream_file: Path):
    """The published weights as if the digest the router knows were that of our file."""
    return replace(PUBLISHED["densenet121-res224-all"], sha256=_digest(upstream_file))


@pytest.fixture
def unpinned():
    return replace(PUBLISHED["densenet121-res224-nih"], op_threshs=PUBLISHED["densenet121-res224-all"].op_threshs)


# ---- folder


def test_fetched_weights_are_converted_once_and_locked(
    server: Server, tmp_path: Path, network, known, upstream_file: Path
) -> None:
    server.files[known.file_name] = upstream_file.read_bytes()
    folder = WeightsFolder(tmp_path / "weights", mirror=server.url)
    first = folder.obtain(known, may_fetch=True)
    server.files.clear()
    again = folder.obtain(known, may_fetch=False)
    assert again == first
    assert first.trust == PINNED
    assert first.sha256 == known.sha256
    for name, tensor in first.tensors().items():
        np.testing.assert_array_equal(tensor, network.state_dict()[name].numpy())
    lock = json.loads((tmp_path / "weights" / f"{known.name}.lock.json").read_text())
    assert lock["source_sha256"] == known.sha256
    assert lock["converted_sha256"] == _digest(first.path)


def test_a_fetch_without_anyone_watching_is_seen_in_the_log(
    server: Server, tmp_path: Path, known, upstream_file: Path, told: list[tuple[str, Mapping[str, object]]]
) -> None:
    server.files[known.file_name] = upstream_file.read_bytes()
    WeightsFolder(tmp_path, mirror=server.url).obtain(known, may_fetch=True)
    percents = [fields["percent"] for _, fields in told]
    assert (percents[0], percents[-1]) == (0, 100)


@pytest.mark.parametrize("called", ["file_name", "name"])
def test_a_file_put_there_by_hand_is_taken_in(tmp_path: Path, known, upstream_file: Path, called: str) -> None:
    name = known.file_name if called == "file_name" else f"{known.name}.pt"
    (tmp_path / name).write_bytes(upstream_file.read_bytes())
    found = WeightsFolder(tmp_path).obtain(known, may_fetch=False)
    assert found.path == tmp_path / f"{known.name}.safetensors"


def test_missing_weights_are_told_in_one_line_with_what_helps(tmp_path: Path, known) -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        WeightsFolder(tmp_path).obtain(known, may_fetch=False)
    line = str(caught.value)
    assert "\n" not in line
    for told in (known.name, known.file_name, str(tmp_path), "router models fetch", "router models import", known.url):
        assert told in line


def test_a_server_that_fails_is_part_of_the_line(server: Server, tmp_path: Path, known) -> None:
    with pytest.raises(WeightsUnavailable, match="404"):
        WeightsFolder(tmp_path, mirror=server.url).obtain(known, may_fetch=True)


def test_a_file_with_another_digest_is_not_opened(
    tmp_path: Path, known, upstream_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_folder, "read_tensors", lambda _: pytest.fail("opened"))
    (tmp_path / known.file_name).write_bytes(upstream_file.read_bytes() + b"\0")
    with pytest.raises(WeightsUnavailable, match="not opened"):
        WeightsFolder(tmp_path).obtain(known, may_fetch=False)


def test_an_operators_digest_overrules_the_known_one(tmp_path: Path, upstream_file: Path) -> None:
    published = PUBLISHED["densenet121-res224-all"]
    (tmp_path / published.file_name).write_bytes(upstream_file.read_bytes())
    with pytest.raises(WeightsUnavailable, match="SHA-256"):
        WeightsFolder(tmp_path).obtain(published, may_fetch=False)
    found = WeightsFolder(tmp_path).obtain(published, may_fetch=False, sha256=_digest(upstream_file))
    assert found.trust == GIVEN


def test_weights_without_a_known_digest_are_trusted_on_first_use_and_then_held_to_it(
    server: Server, tmp_path: Path, unpinned, upstream_file: Path, network
) -> None:
    folder = WeightsFolder(tmp_path, mirror=server.url)
    server.files[unpinned.file_name] = upstream_file.read_bytes()
    assert folder.obtain(unpinned, may_fetch=True).trust == FIRST_USE
    # Another file under the same name, later: the lock still knows what the first one was.
    torch.save(network.state_dict(), tmp_path / unpinned.file_name)
    (tmp_path / f"{unpinned.name}.safetensors").unlink()
    with pytest.raises(WeightsUnavailable, match="SHA-256"):
        folder.obtain(unpinned, may_fetch=True)


def test_a_changed_conversion_is_refused(tmp_path: Path, known, upstream_file: Path) -> None:
    folder = WeightsFolder(tmp_path)
    found = folder.take_in(upstream_file, known)
    data = bytearray(found.path.read_bytes())
    data[-1] ^= 1
    found.path.write_bytes(data)
    with pytest.raises(WeightsUnavailable, match="not the file that was taken in"):
        folder.obtain(known, may_fetch=False)


def test_other_networks_weights_are_refused(tmp_path: Path, known) -> None:
    torch.save({"classifier.weight": torch.zeros(4, 10)}, tmp_path / "w.pt")
    other = replace(known, sha256="")
    with pytest.raises(WeightsUnavailable, match="not the weights of"):
        WeightsFolder(tmp_path).take_in(tmp_path / "w.pt", other)


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path, known) -> None:
    torch.save({"classifier.weight": torch.full((18, 10), float("nan"))}, tmp_path / "w.pt")
    with pytest.raises(WeightsUnavailable, match="not a number"):
        WeightsFolder(tmp_path).take_in(tmp_path / "w.pt", replace(known, sha256=""))


def test_a_folder_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, known, upstream_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(weights_folder, "write_safetensors", read_only)
    (tmp_path / known.file_name).write_bytes(upstream_file.read_bytes())
    found = WeightsFolder(tmp_path).obtain(known, may_fetch=False)
    assert found.path == tmp_path / known.file_name
    assert found.tensors()["classifier.weight"].shape[0] == 18


# ---- files that the configuration names


def test_a_named_file_is_recognised_by_its_name(tmp_path: Path, upstream_file: Path) -> None:
    path = tmp_path / "densenet121-res224-nih.pt"
    path.write_bytes(upstream_file.read_bytes())
    found = from_file(path)
    assert (found.name, found.trust) == ("densenet121-res224-nih", FIRST_USE)


def test_a_named_file_that_nobody_knows_is_told_so(tmp_path: Path, upstream_file: Path) -> None:
    with pytest.raises(WeightsUnavailable, match="cannot tell which weights"):
        from_file(upstream_file)
    with pytest.raises(WeightsUnavailable, match="no weights file"):
        from_file(tmp_path / "missing.pt")


def test_a_converted_file_can_be_named_elsewhere(tmp_path: Path, known, upstream_file: Path) -> None:
    converted = WeightsFolder(tmp_path).take_in(upstream_file, known)
    elsewhere = tmp_path / "mine.safetensors"
    converted.path.rename(elsewhere)
    found = from_file(elsewhere, sha256=_digest(elsewhere))
    assert (found.name, found.points.thresholds) == (known.name, known.op_threshs)
    with pytest.raises(WeightsUnavailable, match="SHA-256"):
        from_file(elsewhere, sha256="0" * 64)


# ---- router models


def test_listing_says_what_is_here(tmp_path: Path, upstream_file: Path) -> None:
    catalogue.import_file(upstream_file, tmp_path, name="densenet121-res224-nih")
    listed = {line.name: line for line in catalogue.list_weights(tmp_path)}
    assert set(listed) == {*PUBLISHED, "demo"}
    assert [name for name, line in listed.items() if line.here] == ["densenet121-res224-nih", "demo"]
    assert len(listed["densenet121-res224-nih"].labels) == 14
    assert listed["densenet121-res224-all"].sha256.startswith("56524913")


def test_import_names_what_is_wrong(tmp_path: Path, upstream_file: Path) -> None:
    with pytest.raises(WeightsUnavailable, match="no weights are called"):
        catalogue.import_file(upstream_file, tmp_path, name="densenet")
    with pytest.raises(WeightsUnavailable, match="SHA-256"):
        catalogue.import_file(upstream_file, tmp_path, name="densenet121-res224-all")


def test_verify_compares_with_what_is_published_and_sees_other_weights(
    shared_data: Path, tmp_path: Path, full_file: Path
) -> None:
    ours = catalogue.import_file(full_file, tmp_path, name="densenet121-res224-all", sha256=_digest(full_file))
    found = verify.verify(ours, shared_data / "png")
    assert {c.image for c in found.comparisons} == {"00000001_000.png", "00027426_000.png"}
    assert found.missing_images == ("16747_3_1.jpg",)
    assert found.agrees is False  # random weights: that they disagree is what shows that something is compared


def test_verify_agrees_with_outputs_made_by_upstreams_own_chain(
    shared_data: Path, tmp_path: Path, full_network, full_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xrv = pytest.importorskip("torchxrayvision")
    image = shared_data / "png/nih_xrv512/00000001_000.png"
    published = PUBLISHED["densenet121-res224-all"]
    x = xrv.utils.load_image(str(image))
    x = xrv.datasets.XRayResizer(224)(xrv.datasets.XRayCenterCrop()(x))
    with torch.inference_mode():
        raw = torch.sigmoid(full_network(torch.from_numpy(x)[None]))
        theirs = xrv.models.op_norm(raw, torch.tensor(published.op_threshs))[0]
    pair = {
        "image": image.name,
        "sha256": _digest(image),
        "weights": published.name,
        "tolerance": 1e-4,
        "source": "here",
        "outputs": dict(zip(published.labels, theirs.tolist(), strict=True)),
    }
    monkeypatch.setattr(verify, "_OUTPUTS", tmp_path / "pairs.json")
    (tmp_path / "pairs.json").write_text(json.dumps({"pairs": [pair]}))
    ours = catalogue.import_file(full_file, tmp_path, name=published.name, sha256=_digest(full_file))
    found = verify.verify(ours, image.parent)
    assert found.agrees
    assert found.comparisons[0].compared == 18


@pytest.mark.parametrize("name", ["16747_3_1.jpg", "00000001_000.png", "00027426_000.png"])
def test_image_files_become_the_published_input(shared_data: Path, name: str) -> None:
    paths = [p for p in (shared_data / "png").rglob(name) if p.parent.name == "nih_xrv512" or name.endswith("jpg")]
    if not paths:
        pytest.skip(f"{name} is not here")
    expected = np.load(shared_data / "published_preproc_reference.npz")[name]
    np.testing.assert_allclose(verify.image_input(paths[0], 224), expected, atol=5e-3)
