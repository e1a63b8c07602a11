"""The code table: unique, well-formed, and as well confirmed as it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom.sr.codedict import codes as standard

from router.report import codes
from router.report.codes import FINDINGS, Code, Confirmation, FindingCode, ascii_text, finding_code, writer_digest

#: torchxrayvision.datasets.default_pathologies, written down here so that this test needs no torch.
LABELS = [
    "Atelectasis",
    "Consolidation",
    "Infiltration",
    "Pneumothorax",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Effusion",
    "Pneumonia",
    "Pleural_Thickening",
    "Cardiomegaly",
    "Nodule",
    "Mass",
    "Hernia",
    "Lung_Lesion",
    "Fracture",
    "Lung_Opacity",
    "Enlarged_Cardiomediastinum",
]
#: Codes found in public code for these labels that mean something else, or nothing.
WRONG = {
    "46866001", "300999006", "274096000", "RID5352", "RID35057", "95436001", "95436003", "60567007", "9494007",
    "196121004", "73122008", "249674008", "248515005", "129614006", "78381009", "3529005",
}  # fmt: skip


def every_code() -> list[Code]:
    of_report = [value for value in vars(codes).values() if isinstance(value, Code)]
    return [*of_report, *(row.code for row in FINDINGS), *(row.site for row in FINDINGS if row.site)]


def verhoeff(number: str) -> int:
    """0 for a SNOMED CT identifier whose check digit is right."""
    d = [[(j + i) % 5 if j < 5 and i < 5 else 0 for j in range(10)] for i in range(10)]
    for i in range(10):
        for j in range(10):
            a, b = i % 5, j % 5
            d[i][j] = {(0, 0): (a + b) % 5, (0, 1): 5 + (a + b) % 5, (1, 0): 5 + (a - b) % 5, (1, 1): (a - b) % 5}[
                (i // 5, j // 5)
            ]
    permutation = [[(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)[i] for i in range(10)], [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
    for _ in range(6):
        permutation.append([permutation[-1][permutation[1][i]] for i in range(10)])
    check = 0
    for place, digit in enumerate(reversed(number)):
        check = d[check][permutation[place % 8][int(digit)]]
    return check


def test_every_label_of_torchxrayvision_has_a_row_in_its_order() -> None:
    assert [row.label.replace(" ", "_") for row in FINDINGS] == LABELS


def test_finding_and_site_together_name_one_label() -> None:
    pairs = {(row.code[:2], row.site and row.site[:2]) for row in FINDINGS}
    assert len(pairs) == len(FINDINGS)


@pytest.mark.parametrize("code", every_code(), ids=lambda code: f"{code.scheme} {code.value}")
def test_a_code_fits_its_elements_and_its_check_digit_is_right(code: Code) -> None:
    assert 1 <= len(code.value) <= 16
    assert 1 <= len(code.scheme) <= 16
    assert 1 <= len(code.meaning) <= 64
    if code.scheme == "SCT":
        assert re.fullmatch(r"\d{6,18}", code.value)
        assert verhoeff(code.value) == 0
    assert code.value not in WRONG


@pytest.mark.parametrize("wrong", ["95436001", "73122008", "3529005"])
def test_the_check_digit_test_finds_a_wrong_code(wrong: str) -> None:
    assert verhoeff(wrong) != 0


@pytest.mark.parametrize(
    "row", [row for row in FINDINGS if row.confirmation is Confirmation.STANDARD], ids=lambda row: row.label
)
def test_a_code_said_to_be_of_the_standard_stands_in_a_context_group(row: FindingCode) -> None:
    meant = {
        (item.value, item.meaning)
        for keyword in standard.__getattr__(row.code.scheme).dir()
        if (item := getattr(standard.__getattr__(row.code.scheme), keyword)).value == row.code.value
    }
    assert (row.code.value, row.code.meaning) in meant


def test_a_label_that_is_not_in_the_table_has_the_same_code_on_every_node() -> None:
    assert finding_code("Scoliosis") == finding_code("Scoliosis")
    assert finding_code("Scoliosis").code == Code("7DC26368047E9F90", codes.PRIVATE_SCHEME, "Scoliosis")
    assert finding_code("Scoliosis").code != finding_code("scoliosis").code


def test_our_text_is_ascii_of_bounded_length() -> None:
    assert ascii_text("Größe é\\x\n", 64) == "Gro?e e/x?"
    assert ascii_text("x" * 70, 64) == "x" * 64
    assert ascii_text("  ", 64) == "?"


def test_the_writer_digest_changes_with_table_writer_and_software(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [writer_digest()]
    for name, value in (
        ("FINDINGS", FINDINGS[1:]),
        ("WRITER_VERSION", "x"),
        ("software_versions", lambda: ("another 1",)),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(codes, name, value)
            digests.append(writer_digest())
    assert len(set(digests)) == 4
    assert writer_digest() == digests[0]


def test_the_document_shows_the_table_as_it_is() -> None:
    document = (Path(__file__).resolve().parents[2] / "docs" / "sr.md").read_text(encoding="utf-8")
    for row in FINDINGS:
        assert row.site is not None
        line = f"| {row.label} | {row.code.value} {row.code.scheme} {row.code.meaning} | {row.site.meaning} {row.site.value} |"
        assert f"{line} {row.confirmation} |" in document
