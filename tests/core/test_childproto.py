"""Parent and classify child: what one says the other understands, and what neither says is refused."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core import childproto
from router.core.childproto import ProtocolError, Request
from router.core.findings import ClassifierIdentity, Finding, Loaded, NotAnalysed
from router.core.instance import InstanceKind, Reference, SopInstance
from router.core.ports import Analysis, ResultObject
from router.core.sight import Layer

INSTANCE = SopInstance(
    sop_instance_uid="1.2.3",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
    study_instance_uid="1.2",
    series_instance_uid="1.2.1",
    transfer_syntax_uid="1.2.840.10008.1.2",
    digest="0" * 64,
    byte_count=7,
    spool_key="k",
    received_at=datetime(2026, 1, 1, 12, 30, 15, 250, tzinfo=UTC),
    header={"Modality": "CR", "PatientID": "山田\\\u2028"},
)
BEFORE = Reference(
    sop_class_uid="1.2.9", sop_instance_uid="2.25.1", series_instance_uid="2.25.2", study_instance_uid="1.2"
)
REQUEST = Request(classifier="cxr", instance=INSTANCE, path=Path("/spool/a"), results=("sr",), made_before=(BEFORE,))
RESULT = ResultObject(
    kind=InstanceKind.SR,
    data=b"\x00\xffDICM",
    sop_instance_uid="1.2.4",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
    study_instance_uid="1.2",
    series_instance_uid="1.2.2",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    notes=("left out: age",),
)
ANALYSIS = Analysis(
    outcome=NotAnalysed(code="view", reason="lateral"), results=(RESULT, replace(RESULT, data=b"")), not_reported="why"
)


def test_a_request_comes_through() -> None:
    assert childproto.decode_request(childproto.encode_request(REQUEST)) == REQUEST


def test_the_header_of_an_instance_may_be_any_mapping() -> None:
    frozen = replace(REQUEST, instance=replace(INSTANCE, header=MappingProxyType(dict(INSTANCE.header))))
    assert childproto.decode_request(childproto.encode_request(frozen)) == REQUEST


def test_a_reply_comes_through_with_its_result_objects() -> None:
    header, *frames = childproto.encode_reply(ANALYSIS)
    assert childproto.result_byte_counts(header) == [len(frame) for frame in frames]
    assert childproto.decode_reply(header, frames) == ANALYSIS


def test_maps_that_are_asked_for_come_through() -> None:
    assert childproto.decode_request(childproto.encode_request(replace(REQUEST, layers=True))).layers
    finding = Finding(label="Effusion", score=0.75, raw=0.5, threshold=0.25)
    layer = Layer(finding=finding, cells=(7, 5), silent=False, cropped=True, png=b"\x89PNG\x00\xff")
    analysis = replace(ANALYSIS, layers=(layer, replace(layer, silent=True)))
    header, *frames = childproto.encode_reply(analysis)
    assert childproto.decode_reply(header, frames) == analysis
    for wrong in ({"png": "no base64"}, {"cells": [7]}, {"cells": "many"}, {"finding": {"label": 1, "x": 2}}):
        said = json.loads(header)
        said["layers"][0] |= wrong
        with pytest.raises(ProtocolError):
            childproto.decode_reply(json.dumps(said).encode(), frames)


def test_a_child_says_that_it_is_ready_or_why_not() -> None:
    assert childproto.start_problem(childproto.READY) is None
    assert childproto.start_problem(childproto.failed("no weights")) == "no weights"
    with pytest.raises(ProtocolError):
        childproto.start_problem(b"{}")


def test_result_frames_of_another_length_than_announced_are_refused() -> None:
    header, *frames = childproto.encode_reply(ANALYSIS)
    for wrong in (frames[:1], [*frames, b""], [b"short", b""]):
        with pytest.raises(ProtocolError):
            childproto.decode_reply(header, wrong)


@pytest.mark.parametrize(
    "byte_counts",
    [
        [-1],
        [childproto.RESULT_BYTE_COUNT_MAX + 1],
        [1] * (childproto.RESULT_COUNT_MAX + 1),
        ["much"],
        [None],
        [float("inf")],
    ],
)
def test_a_child_that_announces_too_much_is_refused_before_a_byte_is_read(byte_counts: list[object]) -> None:
    header = json.dumps({"results": [{"byte_count": count} for count in byte_counts]}).encode()
    with pytest.raises(ProtocolError):
        childproto.result_byte_counts(header)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["outcome", "results", "not_reported", "instance", "classifier", "path", "ready", "kind"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.one_of(st.binary(max_size=40), _json.map(lambda value: json.dumps(value).encode())))
def test_whatever_a_mad_child_says_is_refused_with_one_kind_of_error(frame: bytes) -> None:
    for read in (
        childproto.decode_request,
        childproto.start_problem,
        lambda header: childproto.decode_reply(header, []),
    ):
        with contextlib.suppress(ProtocolError):
            read(frame)


def test_a_frame_that_nests_without_end_is_refused() -> None:
    with pytest.raises(ProtocolError):
        childproto.start_problem(b"[" * 100_000)


def test_what_a_child_has_loaded_comes_through_and_may_be_left_unsaid() -> None:
    identity = ClassifierIdentity(
        name="cxr",
        algorithm="net",
        version="1",
        manufacturer="m",
        weights_sha256="ab" * 32,
        parameters=MappingProxyType({"input": "224"}),
    )
    frame = childproto.ready(4, Loaded(identity=identity, trust="first use"))
    assert childproto.batch_max_of(frame) == 4
    assert childproto.start_problem(frame) is None
    assert childproto.loaded_of(frame) == Loaded(
        identity=replace(identity, parameters={"input": "224"}), trust="first use"
    )
    assert childproto.loaded_of(childproto.READY) is None
    for said in ([], {"trust": "x"}, {"identity": {"name": "cxr"}, "trust": "x"}):
        with pytest.raises(ProtocolError):
            childproto.loaded_of(json.dumps({"ready": True, "loaded": said}).encode())
