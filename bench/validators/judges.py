"""The validators: each takes a report's file and says how many errors and warnings it finds."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_PIXELMED = Path("/usr/share/java/pixelmed.jar")
#: Its style sheets are larger than the limits that Java sets to XPath expressions from elsewhere.
_JAVA = ("-Xmx6g", "-Xss64m", *(f"-Djdk.xml.xpath{name}Limit=0" for name in ("ExprGrp", "ExprOp", "TotalOp")))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one validator on one file."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.errors)}/{len(self.warnings)}"


def dciodvfy(path: Path) -> Verdict:
    """dicom3tools: the IOD, its modules, VRs and private schemes."""
    return _judged(_run("dciodvfy", str(path)), errors="Error", warnings="Warning")


def dsrdump(path: Path) -> Verdict:
    """dcmtk: the tree of content, value types and relationships of the SOP class."""
    return _judged(_run("dsrdump", "+Pl", str(path)), errors=r"[EF]:", warnings=r"W:")


def pixelmed(path: Path) -> Verdict | None:
    """PixelMed's DicomSRValidator (Debian's libpixelmed-java of 2022): TID 1500 and its templates, row by row; None without it."""
    if not _PIXELMED.exists() or shutil.which("java") is None:
        return None
    words = ("java", *_JAVA, "-cp", f"{_PIXELMED}:/usr/share/java/*", "com.pixelmed.validate.DicomSRValidator")
    return _judged(_run(*words, str(path)), errors="Error", warnings="Warning")


def shape(path: Path) -> str:
    """The tree of a report without its texts, numbers, UIDs and verdicts: what PixelMed's rules look at."""
    tree = "\n".join(_run("dsrdump", "+Pl", str(path)))
    tree = re.sub(r'\((52101004|272519000),SCT,"[^"]*"\)', "(verdict)", tree)
    return re.sub(r'="[^"]*"', "=…", tree[tree.find("<CONTAINER") :])


def highdicom(path: Path) -> Verdict:
    """highdicom's srread, as a program of its own: can it be read, and are the measurements there?"""
    said = _run(sys.executable, "-W", "ignore", "-c", _READ, str(path))
    return Verdict(errors=tuple(line for line in said if line.startswith("Error")), warnings=())


_READ = """
import sys
import highdicom
from pydicom.sr.coding import Code
try:
    content = highdicom.sr.srread(sys.argv[1]).content
    for group in content.get_image_measurement_groups():
        (score,) = group.get_measurements(name=Code("111012", "DCM", "Certainty of Finding"))
        assert 0 <= score.value <= 100, "score"
        assert [q for q in group.get_qualitative_evaluations() if q.name == group.finding_type], "verdict"
except Exception as error:
    print(f"Error - {type(error).__name__}: {error}")
"""


def _run(*words: str) -> list[str]:
    done = subprocess.run(
        ["nice", "-n", "10", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1800, check=False
    )
    return done.stdout.decode("latin-1").splitlines()


def _judged(said: list[str], *, errors: str, warnings: str) -> Verdict:
    return Verdict(
        errors=tuple(line for line in said if re.match(errors, line)),
        warnings=tuple(line for line in said if re.match(warnings, line)),
    )
