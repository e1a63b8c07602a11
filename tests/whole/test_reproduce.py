"""`router reproduce`: the same report again, or in plain English what has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from router import child, reproduce
from router.classify.phantom import phantom_dicom
from router.cli import cli
from router.core.childproto import Request
from router.core.lifecycle import TaskKind
from router.core.ports import Analysis
from router.core.rules import ClassifyOrder, Plan
from router.errors import RouterError
from router.ledger.store import SqlLedger
from router.node import open_ledger
from router.offline import instance_in
from router.report.variant import variant
from router.settings import ClassifierSettings, Settings, load
from router.spool.files import FileSpool
from router.spool.results import spooled
from tests.report.made import HEADER, RECEIVED_AT, encoded, meta
from tests.whole.test_supersession import Weights

CONFIG = """
[spool]
path = "{folder}/spool"
[audit]
folder = "{folder}/audit"
[ledger]
url = "sqlite:///{folder}/ledger.db"
[classifiers.cxr]
type = "demo"
[destinations.pacs]
type = "folder"
path = "{folder}/out"
"""


class Site:
    """A data folder in which one image was classified, its report kept."""

    def __init__(
        self, folder: Path, image: Path, ask: Callable[..., Analysis], results: tuple[str, ...] = ("sr",)
    ) -> None:
        self.config = folder / "router.toml"
        self.config.write_text(CONFIG.format(folder=folder))
        self.settings = load(self.config)
        self.image = image
        spool, ledger = FileSpool(self.settings.spool.path), SqlLedger(self.settings.ledger.url)
        instance = replace(instance_in(self.settings, image), received_at=RECEIVED_AT)
        self.key = spool.put(image.read_bytes())
        instance = replace(instance, spool_key=self.key)
        order = ClassifyOrder(classifier="cxr", results=results, results_to=("pacs",))
        ledger.accept(instance, Plan(rules=("all",), classify=(order,)))
        (task,) = ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1)
        original = reproduce._Image(instance=instance, path=spool.path(self.key))
        analysis = ask(self.settings.classifiers["cxr"], original, results[0], ())
        self.report = analysis.results[0]
        produced = spooled(spool, self.report, at=RECEIVED_AT, destinations=("pacs",))
        ledger.complete(task, outcome=analysis.outcome, produced=[produced])
        self.spool_file = spool.path(self.key)
        ledger.close()
        spool.close()

    def run(self, which: str | None = None, original: Path | None = None) -> reproduce.Reproduction:
        return reproduce.reproduce(self.settings, which or self.report.sop_instance_uid, original)


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> Weights:
    """The classifier that is asked, by the child's own code in this process."""
    classifier, builders = Weights("a0" * 32), child._builders()

    def ask(_: ClassifierSettings, image: Any, wanted: str, before: Any) -> Analysis:
        request = Request(
            classifier="cxr", instance=image.instance, path=image.path, results=(wanted,), made_before=before
        )
        return child._analyse(classifier, builders, request)

    monkeypatch.setattr(reproduce, "_asked", ask)
    return classifier


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.dcm"
    path.write_bytes(meta(sop_instance=HEADER["SOPInstanceUID"].decode()) + encoded(HEADER))
    return path


def test_a_report_of_the_real_classifier_is_computed_again_to_the_last_byte(tmp_path: Path) -> None:
    image = tmp_path / "phantom.dcm"
    phantom_dicom(7, rows=128, columns=128).save_as(image, enforce_file_format=True)
    site = Site(tmp_path, image, reproduce._asked)
    done = CliRunner().invoke(cli, ["reproduce", site.report.sop_instance_uid, "--config", str(site.config), "--json"])
    said = json.loads(done.stdout)
    assert (done.exit_code, said["reproduces"], said["differences"]) == (0, True, [])
    assert len(said["findings"]) == 4
    assert said["classifier"] == "cxr"
    (audited,) = (path.read_text() for path in (tmp_path / "audit").glob("*.log"))
    assert (audited.count("DICOM Instances Accessed"), audited.count('UserName="command line"')) == (1, 1)


@pytest.mark.parametrize("digest", ["blake3", "sha256"])
def test_it_reproduces_from_files_alone_without_ledger_and_spool(
    tmp_path: Path, image: Path, weights: Weights, digest: str
) -> None:
    """Also where other images are hashed otherwise: the report does not say by what its UID was made."""
    site = Site(tmp_path, image, reproduce._asked)
    report = tmp_path / "sr.dcm"
    report.write_bytes(site.report.data)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    config = elsewhere / "router.toml"
    config.write_text(with_digest(CONFIG.format(folder=elsewhere), digest))
    result = reproduce.reproduce(load(config), str(report), image)
    assert result.differences == []
    assert reproduce.reproduce(load(config), str(report), None).differences == [
        f"the ledger does not know the original {result.original_uid}: give its file"
    ]


def test_an_original_is_compared_by_the_digest_that_the_ledger_has(
    tmp_path: Path, image: Path, weights: Weights
) -> None:
    site = Site(tmp_path, image, reproduce._asked)
    site.config.write_text(with_digest(site.config.read_text(), "sha256"))
    site.settings = load(site.config)
    assert site.run(original=image).differences == []


def with_digest(config: str, digest: str) -> str:
    assert config.count("[spool]\n") == 1
    return config.replace("[spool]\n", f'[spool]\ndigest = "{digest}"\n')


def test_a_report_in_another_sop_class_reproduces_too(tmp_path: Path, image: Path, weights: Weights) -> None:
    site = Site(tmp_path, image, reproduce._asked)
    other = variant(site.report.data)
    assert other is not None
    report = tmp_path / "enhanced.dcm"
    report.write_bytes(other.data)
    assert site.run(str(report)).differences == []


def test_a_document_that_says_not_analysed_reproduces_too(tmp_path: Path, image: Path, weights: Weights) -> None:
    weights.sha256 = None
    site = Site(tmp_path, image, reproduce._asked, ("not-analysed",))
    assert site.run().differences == []
    weights.sha256 = "a0" * 32
    assert site.run().differences != []


def test_other_weights_are_named(tmp_path: Path, image: Path, weights: Weights) -> None:
    site = Site(tmp_path, image, reproduce._asked)
    weights.sha256 = "b0" * 32
    (difference,) = site.run().differences
    assert difference == f"weights differ: the report names SHA-256 {'a0' * 32}, cxr has {'b0' * 32}"


def test_other_bytes_of_the_original_are_named(tmp_path: Path, image: Path, weights: Weights) -> None:
    site = Site(tmp_path, image, reproduce._asked)
    image.write_bytes(image.read_bytes().replace(b"Chest PA", b"Chest AP"))
    (difference,) = site.run(original=image).differences
    assert difference.startswith("original bytes differ: the report was made of BLAKE3 ")


def test_a_changed_score_and_a_changed_identity_are_named(tmp_path: Path, image: Path, weights: Weights) -> None:
    site = Site(tmp_path, image, reproduce._asked)
    bent = tmp_path / "bent.dcm"
    data = site.report.data.replace(b"38.89 ", b"48.89 ").replace(b"Phantom^Drawn", b"Phantom^Blawn")
    assert data != site.report.data
    bent.write_bytes(data)
    differences = site.run(str(bent)).differences
    assert "Consolidation: score_percent was 48.89, is 38.89" in differences
    assert differences[-1] == "the document's bytes differ, in: PatientName, ContentSequence"
    assert "Blawn" not in str(differences)


def test_bytes_that_were_freed_are_asked_for(tmp_path: Path, image: Path, weights: Weights) -> None:
    site = Site(tmp_path, image, reproduce._asked)
    site.spool_file.unlink()
    (difference,) = site.run().differences
    assert difference.endswith("are not in the spool any more: give its file")
    assert site.run(original=image).differences == []
    with pytest.raises(RouterError, match="neither a file nor an instance"):
        site.run("1.2.3.4")
    with pytest.raises(RouterError, match="not a report of this router"):
        site.run(str(image))


def test_a_node_may_run_meanwhile(tmp_path: Path, image: Path, weights: Weights) -> None:
    site = Site(tmp_path, image, reproduce._asked)
    settings: Settings = site.settings
    spool = FileSpool(settings.spool.path)
    ledger = open_ledger(settings)
    assert site.run().reproduces
    ledger.close()
    spool.close()
