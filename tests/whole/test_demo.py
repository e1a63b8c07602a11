"""`router demo` may say 0 only when the destination itself has everything. With all samples and an Orthanc: tests/docs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from pynetdicom import _config
from rich.console import Console

from router.classify.phantom import phantom_dicom
from router.demo import destination, run
from router.errors import RouterError


@pytest.fixture
def without_orthanc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination.shutil, "which", lambda *_args, **_more: None)


def one_phantom(folder: Path) -> Path:
    path = folder / "effusion.dcm"
    phantom_dicom(7, rows=256, columns=256, findings=[True, False, False, False]).save_as(
        path, enforce_file_format=True
    )
    return path


def show(tmp_path: Path, *paths: Path) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=80)
    code = run.run(paths=paths, output=tmp_path / "out", keep=False, console=console)
    return code, console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("without_orthanc")
def test_without_orthanc_the_demo_delivers_to_files(tmp_path: Path) -> None:
    code, shown = show(tmp_path, one_phantom(tmp_path))
    assert code == 0, shown
    assert "folder-writing Storage SCP" in shown
    assert len(list((tmp_path / "out" / "destination").glob("*.dcm"))) == 3, "an image, its report, its heatmap"
    assert not _config.UNRESTRICTED_STORAGE_SERVICE, "every other SCP of this process would take everything, too"


@pytest.mark.usefixtures("without_orthanc")
def test_the_demo_ends_with_1_when_a_report_was_not_seen_at_the_destination(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = destination.FolderScp.received
    # Our results have UIDs under 2.25 as phantoms do; the original is asked for first.
    asked: list[str] = []

    def only_the_original(self: destination.FolderScp, uid: str) -> bytes | None:
        asked.append(uid)
        return received(self, uid) if len(asked) == 1 else None

    monkeypatch.setattr(destination.FolderScp, "received", only_the_original)
    code, shown = show(tmp_path, one_phantom(tmp_path))
    assert code == 1
    assert "SR not seen" in shown
    assert "1 of 1 images did not arrive completely" in " ".join(shown.split())


def test_the_demo_does_not_empty_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "precious").touch()
    with pytest.raises(RouterError, match="not empty and not from an earlier demo"):
        show(tmp_path)
    assert (folder / "precious").exists()
