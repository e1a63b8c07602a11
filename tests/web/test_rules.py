"""The page of rules: what is in force, what edited ones would change; and files that come with a form."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from router import settings
from router.web import rules as rules_page
from router.web.forms import BadForm, Form, form_of
from tests.ledger.made import instance, plan
from tests.report.made import HEADER, encoded, meta
from tests.web.site import RULED, Site, form_token

RULES = RULED[RULED.index("# chest") :]
UID = HEADER["SOPInstanceUID"].decode()
PATIENT = {"PatientID": "PID-4711", "AccessionNumber": "ACC-1", "Modality": "CR", "BodyPartExamined": "CHEST"}
NEW_CHEST = RULES.replace('"CR", "DX"', '"CR"').replace('results = ["sr"]', 'results = ["sr", "heatmap"]')


def file(**elements: bytes) -> bytes:
    return meta(sop_instance=UID) + encoded(HEADER | elements)


@pytest.fixture
def ruled(make_site: Callable[..., Site], tmp_path: Path) -> Site:
    """A node with two rules, to which three images have come."""
    path = tmp_path / "router.toml"
    path.write_text(RULED)
    site = make_site(node_settings=settings.load(path))
    for number, more in enumerate(({}, {"Modality": "DX"}, {"Modality": "CT"})):
        one = instance(f"1.2.3.{number}", study_instance_uid=f"1.2.{number}", header={**PATIENT, **more})
        site.ledger.accept(one, plan())
    return site


class Operator:
    """Somebody in front of the page."""

    def __init__(self, site: Site, name: str = "otto") -> None:
        self.client = site.signed_in(name)
        self.page = self.client.get("/rules").text
        self.token = form_token(self.page)

    def tries(self, text: str, *, upload: bytes | None = None, **fields: str) -> Any:
        data = {"form_token": self.token, "rules": text, "uid": "", "last": "200", "calling_ae_title": "", **fields}
        upload = b"" if upload is None else upload  # a browser sends an empty one where none was chosen
        return self.client.post("/rules/try", data=data, files={"file": ("GEHEIM^GERDA.dcm", upload)})


def text_of(page: str) -> str:
    """What a reader sees, in one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def looks(site: Site) -> list[str]:
    return [line for line in site.audited() if 'originalText="DICOM Instances Accessed"' in line]


def test_the_rules_in_force_are_shown_with_their_lines_and_a_field_that_holds_them(ruled: Site) -> None:
    page = Operator(ruled).page
    said = text_of(page)
    assert "chest line 9 Modality is CR or DX BodyPartExamined is CHEST or empty" in said
    assert "all line 17 always deliver the original to pacs" in said
    assert "no rule matches refuse with 0x0122" in said
    field = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.DOTALL)
    assert field is not None
    assert html.unescape(field[1]) == RULES
    assert looks(ruled) == [], "nothing of patients"


def test_a_viewer_sees_the_rules_and_nothing_to_try_them_with(ruled: Site) -> None:
    page = Operator(ruled, "vera").page
    assert "chest" in page
    assert "<textarea" not in page
    assert 'action="/rules/try"' not in page


def test_a_configuration_file_that_was_changed_after_the_start_is_told(ruled: Site) -> None:
    assert "has changed since" not in Operator(ruled).page
    assert ruled.node_settings.file is not None
    path = ruled.node_settings.file.path
    path.write_text(RULED + "\n")
    assert "has changed since" in Operator(ruled).page
    path.unlink()
    assert "has changed since" in Operator(ruled).page


def test_the_last_instances_show_what_would_change_and_why_and_are_audited(ruled: Site) -> None:
    answer = Operator(ruled).tries(NEW_CHEST)
    said = text_of(answer.text)
    assert answer.status_code == 200
    assert "2 of 3 instances would be handled differently." in said
    assert "+ new send result heatmap of cxr to pacs" in said, "the CR"
    assert "− no more classify by cxr" in said, "the DX"
    assert "1 treated as now" in said, "the CT"
    assert 'chest does not match: Modality is "DX", the rule wants "CR"' in said
    assert 'chest matches: Modality is "CR" and BodyPartExamined is "CHEST"' in said
    (look,) = looks(ruled)
    assert 'UserID="otto"' in look
    assert [uid in look for uid in ('"1.2.0"', '"1.2.1"', '"1.2.2"', "PID-4711", "ACC-1")] == [True] * 5
    assert "router check --config" in said
    assert "Restart the node" in said
    assert len(ruled.ledger.search.originals(limit=9)) == 3


def test_what_came_before_is_found_by_image_or_study(ruled: Site) -> None:
    operator = Operator(ruled)
    for uid in ("1.2.3.1", "1.2.1"):
        assert "1 of 1 instance would be handled differently" in text_of(operator.tries(NEW_CHEST, uid=uid).text)
    assert len(looks(ruled)) == 2
    assert "The ledger knows no image 9.9." in text_of(operator.tries(NEW_CHEST, uid="9.9").text)
    assert "That cannot be tried: not a UID" in text_of(operator.tries(NEW_CHEST, uid="4711; DROP").text)
    assert len(looks(ruled)) == 2, "nothing was shown"


def test_the_same_rules_change_nothing_and_that_is_said(ruled: Site) -> None:
    operator = Operator(ruled)
    said = text_of(operator.tries(RULES.replace("\n", "\r\n")).text)
    assert "Nothing would change for these 3 instances. The text means the same as the rules in force." in said
    assert "To put them in place" not in said
    assert "Nothing would change for this instance" in text_of(operator.tries(RULES, upload=file()).text)
    said = text_of(operator.tries(RULES.replace('"chest"', '"thorax"'), uid="1.2.3.0").text)
    assert "Nothing would change for this instance." in said
    assert "the same, by other rules" in said
    assert "chest, all → thorax, all" in said


def test_a_file_is_tried_audited_and_not_kept(ruled: Site, tmp_path: Path) -> None:
    answer = Operator(ruled).tries(NEW_CHEST, upload=file(PatientID=b"PID-NEW"), uid="1.2.3.1")
    said = text_of(answer.text)
    assert "1 of 1 instance would be handled differently" in said
    assert UID in said, "the file counts, not the UID beside it"
    (look,) = looks(ruled)
    assert "PID-NEW" in look
    assert "GEHEIM" not in answer.text + "".join(ruled.audited())
    holding = {path.suffix for path in tmp_path.rglob("*") if path.is_file() and b"PID-NEW" in path.read_bytes()}
    assert holding == {".log"}, "the audit trail, and no ledger or spool"
    assert len(ruled.ledger.search.originals(limit=9)) == 3


def test_a_file_can_be_tried_as_if_another_node_had_sent_it(ruled: Site) -> None:
    by_title = '[[rules]]\nname = "room 7"\nwhen = { CallingAETitle = "ROOM7" }\ndeliver = ["pacs"]\n'
    operator = Operator(ruled)
    assert "refuse with 0x0122: no rule matches" in text_of(operator.tries(by_title, upload=file()).text)
    said = text_of(operator.tries(by_title, upload=file(), calling_ae_title="ROOM7").text)
    assert 'room 7 matches: CallingAETitle is "ROOM7"' in said


NESTED = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
HOSTILE = {
    b"\xff\xd8 a picture": "not a DICOM file (no DICM prefix)",
    b"\0" * 128 + b"DICM": "File Meta Information lacks a UID",
    file()[:-3]: "the data set ends inside an element",
    meta(sop_instance="1.2.3") + encoded(HEADER): "name different SOP instances",
    meta(sop_instance=UID): "the data set is empty",
    meta(sop_instance=UID) + NESTED * 10_000: "sequences are nested deeper than 64",
}


def test_a_file_that_is_none_says_so_and_keeps_what_was_typed(ruled: Site) -> None:
    operator = Operator(ruled)
    for upload, says in HOSTILE.items():
        answer = operator.tries(NEW_CHEST, upload=upload, uid="1.2.3.1")
        assert answer.status_code == 200
        problem = text_of(answer.text).partition("That cannot be tried:")[2]
        assert says in problem[:100]
        assert "heatmap" in answer.text
        assert 'value="1.2.3.1"' in answer.text
    assert looks(ruled) == []


def test_mistakes_stand_beside_the_field_with_their_lines_and_the_text_is_kept(ruled: Site) -> None:
    wrong = RULES.replace("classify", "clasify").replace('"pacs"', '"pasc"')
    answer = Operator(ruled).tries(wrong, uid="1.2.3.1")
    said = text_of(answer.text)
    assert "Line 5 : rules[0].clasify: unknown key; did you mean 'classify'?" in said
    assert "Line 6 : rules[0].deliver: 'pasc' is not defined; did you mean 'pacs'?" in said
    assert 'aria-invalid="true"' in answer.text
    assert "clasify" in answer.text
    assert "What would change" not in said
    assert looks(ruled) == []
    assert "Line 1 : not valid TOML" in text_of(Operator(ruled).tries("<script>alert(1)</script>").text)
    assert "<script>alert" not in Operator(ruled).tries("<script>alert(1)</script>").text


def test_a_page_that_asks_by_itself_gets_only_what_changes(ruled: Site) -> None:
    operator = Operator(ruled)
    operator.client.headers["hx-request"] = "true"
    piece = operator.tries(NEW_CHEST).text
    assert "<html" not in piece
    assert "<textarea" not in piece
    assert "would be handled differently" in piece
    assert 'id="problems" class="problems" hx-swap-oob="true"' in piece


def test_what_cannot_be_audited_is_not_shown(ruled: Site) -> None:
    operator = Operator(ruled)
    ruled.audit.close()
    answer = operator.tries(NEW_CHEST, upload=file())
    assert answer.status_code == 503
    assert UID not in answer.text


def test_a_value_that_the_ledger_did_not_keep_comes_from_the_spool(ruled: Site, tmp_path: Path) -> None:
    text = '[[rules]]\nname = "house"\nwhen = { ReferringPhysicianName = "HOUSE*" }\ndeliver = ["pacs"]\n'
    operator = Operator(ruled)
    said = text_of(operator.tries(text, uid="1.2.3.0").text)
    assert "Not known any more, taken as absent: ReferringPhysicianName" in said
    path = tmp_path / "spooled.dcm"
    path.write_bytes(file(ReferringPhysicianName=b"HOUSE^G"))
    (original,) = ruled.ledger.search.originals(uid="1.2.3.0", limit=1)
    ruled.files[original.instance.spool_key] = path
    assert 'house matches: ReferringPhysicianName is "HOUSE^G"' in text_of(operator.tries(text, uid="1.2.3.0").text)


def test_what_takes_too_long_is_left_out_and_said(ruled: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_page, "_SECONDS_MAX", -1.0)
    assert "2 more were not looked at" in text_of(Operator(ruled).tries(NEW_CHEST).text)


# ---- files in forms


def test_a_file_that_is_too_large_is_refused_with_the_limit(ruled: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Operator(ruled).tries(RULES, upload=b"\0" * (rules_page.FILE_BYTE_COUNT_MAX + 2**17))
    assert answer.status_code == 413
    assert "at most 64 MiB are taken" in answer.text


@pytest.mark.parametrize(("name", "status", "read"), [("otto", 400, True), ("vera", 403, False), (None, 401, False)])
def test_of_who_may_not_try_not_a_byte_is_read(ruled: Site, name: str | None, status: int, read: bool) -> None:
    client = ruled.signed_in(name) if name else ruled.client()
    taken: list[int] = []

    def body() -> Iterator[bytes]:
        for number in range(3):
            taken.append(number)
            yield b"x" * 2**16

    form = {"content-type": "multipart/form-data; boundary=b"}
    assert client.post("/rules/try", content=body(), headers=form).status_code == status
    assert bool(taken) == read


def test_one_file_at_a_time_is_held_in_memory(ruled: Site) -> None:
    operator = Operator(ruled)
    answers: list[Any] = []

    def body() -> Iterator[bytes]:
        answers.append(operator.tries(RULES, upload=b"x" * 2**17))
        answers.append(operator.tries(RULES, uid="1.2.3.1"))
        yield b"x"

    form = {"content-type": "multipart/form-data; boundary=b"}
    assert operator.client.post("/rules/try", content=body(), headers=form).status_code == 400
    assert [answer.status_code for answer in answers] == [503, 200], "a small form needs no turn"
    assert operator.tries(RULES, upload=b"x" * 2**17).status_code == 200


def test_a_form_without_its_token_does_nothing_however_it_is_encoded(ruled: Site) -> None:
    operator = Operator(ruled)
    operator.token = "x"
    assert operator.tries(RULES, upload=file()).status_code == 403
    assert looks(ruled) == []


def read(content_type: str, *chunks: bytes, most: int = 2**20, left: list[Any] | None = None) -> Form:
    """The form in these chunks; what was not read of them is in `left`."""
    waiting = [] if left is None else left
    waiting += [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        return waiting.pop(0)

    headers = [(b"content-type", content_type.encode())]
    asked = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    return asyncio.run(form_of(asked, file_byte_count_max=most))


MULTIPART = "multipart/form-data; boundary=AaB03x"
BODY = (
    b'--AaB03x\r\nContent-Disposition: form-data; name="text"\r\n\r\none\r\n--AaB\r\ntwo\r\n'
    b'--AaB03x\r\nContent-Disposition: form-data; name="file"; filename="a.dcm"\r\nContent-Type: application/dicom\r\n\r\n'
    b"\r\n\x00--AaB03\r\n\r\n\r\n--AaB03x--\r\n"
)


@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_a_form_is_the_same_however_it_is_cut_on_its_way(size: int) -> None:
    form = read(MULTIPART, *(BODY[at : at + size] for at in range(0, len(BODY), size)))
    assert form.fields == {"text": ["one\r\n--AaB\r\ntwo"]}
    assert form.files == {"file": b"\r\n\x00--AaB03\r\n\r\n"}


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("multipart/form-data", BODY, 400),
        (MULTIPART, b"", 400),
        (MULTIPART, BODY[:-20], 400),
        (MULTIPART, b"--AaB03x\r\nContent-Disposition: form-data\r\n\r\nx\r\n--AaB03x--\r\n", 400),
        (MULTIPART, BODY[:55] + b"x" * 2**14 + BODY[55:], 400),
        (MULTIPART, BODY[: BODY.index(b"--AaB03x", 9)] * 60 + b"--AaB03x--\r\n", 400),
        (MULTIPART, BODY.replace(b"one", b"\xff"), 400),
        (MULTIPART, BODY.replace(b"one", b"1" * 2**17), 400),
        (MULTIPART, BODY + b"x" * 2**21, 413),
        ("text/plain", BODY, 415),
    ],
)
def test_what_is_no_form_is_refused(content_type: str, body: bytes, status: int) -> None:
    with pytest.raises(BadForm) as refused:
        read(content_type, body)
    assert refused.value.status == status


@pytest.mark.parametrize(("chunk_count", "to_its_end"), [(64, True), (1024, False)])
def test_what_is_too_large_is_read_on_for_a_while_and_not_kept(chunk_count: int, to_its_end: bool) -> None:
    """A browser that is cut off while it sends shows no answer."""
    left: list[Any] = []
    with pytest.raises(BadForm, match="too large: at most 1 MiB"):
        read(MULTIPART, *[b"x" * 2**16] * chunk_count, left=left)
    assert (not left) == to_its_end


def test_files_are_taken_only_where_they_belong() -> None:
    with pytest.raises(BadForm, match="Only forms"):
        read(MULTIPART, BODY, most=0)
