"""One image's appetite is its own trouble: memory of the classify child is bounded, and the next image gets its turn."""

from __future__ import annotations

from pathlib import Path

from router.classify.phantom import phantom_dicom
from router.offline import classify_files
from router.settings import parse


def test_an_image_that_needs_more_memory_than_allowed_is_not_analysed_and_the_next_one_is(tmp_path: Path) -> None:
    large, small = tmp_path / "large.dcm", tmp_path / "small.dcm"
    phantom_dicom(1, rows=5000, columns=5000).save_as(large, enforce_file_format=True)
    phantom_dicom(2, rows=256, columns=256).save_as(small, enforce_file_format=True)

    def codes(memory: str) -> list[str]:
        settings = parse({"classifiers": {"cxr": {"type": "demo", "memory_byte_count_max": memory}}})
        rows = classify_files(settings, [large, small], classifier="cxr")
        return [row["not_analysed"]["code"] if "not_analysed" in row else "analysed" for row in rows]

    assert codes("8 GiB") == ["analysed", "analysed"]
    first, second = codes("64 MiB")
    assert first in ("too_large", "child_died")
    assert second == "analysed"
