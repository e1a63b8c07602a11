"""Whatever bytes a header holds: a context or NotReportable, nothing else."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.datadict import dictionary_VR

from router.errors import NotReportable
from router.report.check import check
from router.report.context import COPIED, IDENTITY, context_of, raw_value
from router.report.sr import SrBuilder
from tests.report.made import HEADER, instance_of, prediction, read

KEYWORDS = sorted({*HEADER, *COPIED})
CHARACTER_SETS = st.sampled_from(
    [b"", b"ISO_IR 100", b"ISO_IR 192", b"\\ISO 2022 IR 87", b"ISO 2022 IR 13\\ISO 2022 IR 87", b"\\ISO 2022 IR 149", b"GB18030", b"UTF8"]
)  # fmt: skip
HEADERS = st.dictionaries(st.sampled_from(KEYWORDS), st.binary(max_size=80), max_size=6)
BUILDER = SrBuilder()


def read_or_pass(header: dict[str, bytes]) -> Dataset:
    """pydicom itself cannot read some headers (a NUL inside the character set): they never come this far."""
    try:
        return read(header)
    except ValueError:
        assume(False)
        raise


@given(changed=HEADERS, character_set=CHARACTER_SETS)
@settings(max_examples=400, deadline=None)
def test_any_header_gives_a_context_of_the_same_patient_or_is_not_reportable(
    changed: dict[str, bytes], character_set: bytes
) -> None:
    source = read_or_pass({**HEADER, "SpecificCharacterSet": character_set, **changed})
    try:
        context = context_of(source)
    except NotReportable:
        return
    assert set(context.header) <= set(COPIED)
    assert all(len(value) % 2 == 0 for value in context.header.values())
    for keyword in IDENTITY:
        stored = raw_value(source, keyword).rstrip(b"\0 ")
        assert context.header.get(keyword, b"").rstrip(b"\0 ") == stored
    for keyword, value in context.header.items():
        if dictionary_VR(keyword) in ("DA", "TM", "CS", "AS"):
            assert value.isascii()


@given(changed=HEADERS, character_set=CHARACTER_SETS)
@settings(max_examples=25, deadline=None)
def test_any_context_gives_an_sr_that_passes_its_check(changed: dict[str, bytes], character_set: bytes) -> None:
    header = {**HEADER, "SpecificCharacterSet": character_set, **changed}
    header["SOPInstanceUID"] = HEADER["SOPInstanceUID"]
    source = read_or_pass(header)
    try:
        result = BUILDER.build(source, instance_of(read(HEADER)), prediction(labels=1))
    except NotReportable:
        return
    assert check(result, read(header)) == []
