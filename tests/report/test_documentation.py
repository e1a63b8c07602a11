"""What `docs/sr.md` tells a reader to do, done."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from router.report.codes import finding_code
from router.report.sr import SrBuilder
from tests.report.made import HEADER, dsrdump, instance_of, prediction, read

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "sr.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = read(HEADER)
    path = tmp_path_factory.mktemp("sr") / "sr.dcm"
    path.write_bytes(SrBuilder().build(source, instance_of(source), prediction()).data)
    return path


def run(block: int) -> dict[str, Any]:
    language, code = [found for found in BLOCKS if found[0] == "python"][block]
    assert language
    names: dict[str, Any] = {}
    exec(compile(code, "docs/sr.md", "exec"), names)
    return names


def test_the_pydicom_code_gives_every_finding_score_and_threshold_back(path: Path) -> None:
    read_back = run(0)["findings"](path)
    told = prediction().findings
    assert len(read_back) == len(told)
    for found, finding in zip(read_back, told, strict=True):
        row = finding_code(finding.label)
        assert row.site is not None
        assert found == {
            "label": finding.label,
            "code": tuple(row.code),
            "site": row.site.meaning,
            "score_percent": round(100 * finding.score, 2),
            "threshold_percent": 50.0,
            "image": HEADER["SOPInstanceUID"].decode(),
            "present": finding.present,
        }


def test_the_highdicom_code_gives_the_same(path: Path) -> None:
    by_label = {found["label"]: (found["score_percent"], found["present"]) for found in run(0)["findings"](path)}
    assert run(1)["scores"](path) == by_label


def test_the_dump_in_the_document_is_a_real_one(tmp_path: Path) -> None:
    source = read(HEADER)
    path = tmp_path / "sr.dcm"
    path.write_bytes(SrBuilder().build(source, instance_of(source), prediction(demonstration=True, labels=2)).data)
    dump = dsrdump(path)
    tree = dump[dump.index("<CONTAINER") :].rstrip()
    (shown,) = [text for language, text in BLOCKS if not language]
    assert shown.rstrip() == tree
