"""Every sample file reported, every report judged: `make validate`, or

    python -m bench.validators [FOLDER] [--pixelmed] [--another PYTHON] [--publish]

FOLDER holds DICOM files; without one ../shared/data/dicom. Each gets a report by the demo classifier, or the document that
says why there is none, and both are given to dciodvfy, dsrdump, highdicom and, with --pixelmed (up to a minute each, one document of each
shape), to PixelMed's SR validator. --another names a Python that has the package dicom-ai-router 0.3.0, whose writer gets the same findings.
With --publish the table in docs/validators.md is replaced. Exit code 1 when one of ours has an error.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.validators import judges
from bench.validators.judges import Verdict
from bench.validators.reports import Reported, another, ours
from router.settings import parse
from tests.peers import ROOT

_PAGE = ROOT / "docs" / "validators.md"
#: PixelMed takes a minute and looks at codes and structure alone: of documents that differ in nothing else it gets one.
_SHAPES: dict[str, Verdict] = {}
_BEGIN, _END = "<!-- begin of the table -->\n", "<!-- end of the table -->\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image."""

    name: str
    became: str
    verdicts: dict[str, Verdict]
    """Of each validator that was run on ours."""
    theirs: dict[str, Verdict]


def main(words: list[str]) -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.validators")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT.parent / "shared" / "data" / "dicom")
    parser.add_argument("--pixelmed", action="store_true")
    parser.add_argument("--another", metavar="PYTHON")
    parser.add_argument("--publish", action="store_true")
    asked = parser.parse_args(words)
    images = sorted(asked.folder.rglob("*.dcm"))
    if not images:
        print(f"no *.dcm under {asked.folder}")
        return 1
    settings = parse({"classifiers": {"demo": {"type": "demo"}}})
    with tempfile.TemporaryDirectory() as name:
        rows = []
        for one in ours(settings, settings.classifiers["demo"], images, Path(name)):
            rows.append(_row(one, asked.folder, Path(name), pixelmed=asked.pixelmed, python=asked.another))
            print(_line(rows[-1], asked.pixelmed, bool(asked.another)), flush=True)
    text = _table(rows, pixelmed=asked.pixelmed, compared=bool(asked.another))
    if asked.publish:
        page = _PAGE.read_text(encoding="utf-8")
        head, rest = page.split(_BEGIN)
        _PAGE.write_text(head + _BEGIN + "\n" + text + "\n" + _END + rest.split(_END)[1], encoding="utf-8")
    errors = [f"{row.name}: {judge}: {e}" for row in rows for judge, v in row.verdicts.items() for e in v.errors]
    print("\n".join(errors) or f"no error in {sum(bool(row.verdicts) for row in rows)} documents of ours")
    return 1 if errors else 0


def _row(one: Reported, root: Path, folder: Path, *, pixelmed: bool, python: str | None) -> Row:
    theirs: dict[str, Verdict] = {}
    if python and one.findings and (document := another(python, one, folder)):
        theirs = _judged(document, pixelmed=pixelmed)
    return Row(
        name=str(one.image.relative_to(root)),
        became=one.became,
        verdicts=_judged(one.document, pixelmed=pixelmed) if one.document else {},
        theirs=theirs,
    )


def _judged(document: Path, *, pixelmed: bool) -> dict[str, Verdict]:
    found = {
        "dciodvfy": judges.dciodvfy(document),
        "dsrdump": judges.dsrdump(document),
        "highdicom": judges.highdicom(document),
    }
    if pixelmed:
        shape = judges.shape(document)
        if shape not in _SHAPES and (verdict := judges.pixelmed(document)):
            _SHAPES[shape] = verdict
        if shape in _SHAPES:
            found["PixelMed"] = _SHAPES[shape]
    return found


def _line(row: Row, pixelmed: bool, compared: bool) -> str:
    names = ["dciodvfy", "dsrdump", "highdicom", *(["PixelMed"] if pixelmed else [])]
    cells = [row.name, row.became, *(str(row.verdicts.get(name, "–")) for name in names)]
    if compared:
        cells += [str(row.theirs.get(name, "–")) for name in names]
    return "| " + " | ".join(cells) + " |"


def _table(rows: list[Row], *, pixelmed: bool, compared: bool) -> str:
    names = ["dciodvfy", "dsrdump", "highdicom", *(["PixelMed"] if pixelmed else [])]
    titles = ["file", "became", *names, *([f"other router: {name}" for name in names] if compared else [])]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    lines += [_line(row, pixelmed, compared) for row in rows]
    lines += ["", "Errors and warnings, summed up:", "", "| of | documents | " + " | ".join(names) + " |"]
    lines.append("|" + "---|" * (len(names) + 2))
    for of, chosen in (("ours", [r.verdicts for r in rows]), ("the other router", [r.theirs for r in rows])):
        judged = [verdicts for verdicts in chosen if verdicts]
        if judged:
            sums = " | ".join(_sum(verdicts.get(name) for verdicts in judged) for name in names)
            lines.append(f"| {of} | {len(judged)} | {sums} |")
    warnings = Counter(_kind(w) for row in rows for verdict in row.verdicts.values() for w in verdict.warnings)
    if pixelmed:
        lines += ["", f"PixelMed judged {len(_SHAPES)} documents: one of each shape."]
    lines += ["", "The warnings on ours, by what they say:", "", "| times | warning |", "|---|---|"]
    lines += [f"| {count} | {text} |" for text, count in warnings.most_common()]
    return "\n".join(lines) + "\n"


def _sum(verdicts: Iterable[Verdict | None]) -> str:
    found = [verdict for verdict in verdicts if verdict is not None]
    return f"{sum(len(v.errors) for v in found)}/{sum(len(v.warnings) for v in found)}" if found else "–"


def _kind(warning: str) -> str:
    """Without what differs from file to file: values of elements and places in the tree."""
    import re

    text = re.sub(r"<[^>]*>", "<…>", warning)
    text = re.sub(r"Warning: [\d.]+: (/\S* ?.*/)?", "Warning: …/", text)
    return re.sub(r"\s+", " ", text).replace("|", "/").strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
