"""`router demo`: what a stranger sees first. It may say 0 only when the destination itself has everything."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from router.classify.phantom import phantom_dicom
from router.demo import destination, run
from router.errors import RouterError
from tests.peers import ROOT


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


@pytest.mark.peer("orthanc")
def test_the_demo_shows_every_sample_with_its_times_in_80_columns_and_ends_with_0(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "router", "demo", "--output", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=170,
        check=False,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stdout
    assert "Orthanc, http://127.0.0.1:" in done.stdout
    assert "DEMONSTRATION" in done.stdout
    assert "no clinical meaning" in done.stdout
    assert done.stdout.count("identical") + done.stdout.count("equal¹") >= 8
    assert done.stdout.count("+ 1 SR") >= 6
    assert done.stdout.count(" ms") >= 14
    reports = tmp_path / "out" / "reports"
    counts = {kind: len(list(reports.glob(f"*.{kind}"))) for kind in ("sr.dcm", "heatmap.dcm", "heatmap.jpg")}
    assert counts["sr.dcm"] >= 6
    assert counts["heatmap.jpg"] == counts["heatmap.dcm"] == done.stdout.count("+ heatmap") >= 5
    said = f"{counts['sr.dcm']} Structured Reports and {counts['heatmap.dcm']} heatmaps arrived."
    assert said in " ".join(done.stdout.split())


@pytest.mark.usefixtures("without_orthanc")
def test_without_orthanc_the_demo_delivers_to_files(tmp_path: Path) -> None:
    code, shown = show(tmp_path, one_phantom(tmp_path))
    assert code == 0, shown
    assert "folder-writing Storage SCP" in shown
    assert len(list((tmp_path / "out" / "destination").glob("*.dcm"))) == 3, "an image, its report, its heatmap"


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
