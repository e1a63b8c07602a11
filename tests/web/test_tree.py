"""A report's DICOM tree: everything of it, folded, bounded, and no text of it ever markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from router.core.instance import InstanceKind
from router.core.lifecycle import TaskKind
from router.core.ports import Produced
from router.report.sr import SrBuilder
from router.web import tree as tree_module
from router.web.tree import Item, read_tree
from tests.ledger.made import instance, plan
from tests.report.made import HEADER, instance_of, prediction, read
from tests.web.site import Site


@pytest.fixture
def document(tmp_path: Path) -> Path:
    source = read(HEADER)
    path = tmp_path / "sr.dcm"
    path.write_bytes(SrBuilder().build(source, instance_of(source), prediction()).data)
    return path


def walk(item: Item) -> Iterator[Item]:
    yield item
    for child in item.below:
        yield from walk(child)


def content_items(ds: Dataset) -> Iterator[Dataset]:
    for item in ds.get("ContentSequence") or ():
        yield item
        yield from content_items(item)


def test_every_content_item_and_every_element_is_in_it(document: Path) -> None:
    ds = dcmread(document)
    tree = read_tree(document)
    [root, *items] = walk(tree.content)
    assert (root.value_type, root.name and root.name.value, root.value) == ("CONTAINER", "126000", "TID 1500")
    said = [(one.relationship, one.value_type, one.name and one.name.meaning) for one in items]
    assert said == [
        (one.RelationshipType, one.ValueType, one.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in one else None)
        for one in content_items(ds)
    ]  # fmt: skip
    number = next(one for one in items if one.name and one.name.meaning == "Certainty of Finding")
    assert (number.value, number.code and number.code.value) == ("50.0", "%")
    image = next(one for one in items if one.value_type == "IMAGE")
    assert "Computed Radiography Image Storage 1.2.826.0.1.3680043.8.498.1.3" in image.value
    tags = [one.tag for one in tree.header]
    assert tags == [f"({e.tag.group:04X},{e.tag.element:04X})" for part in (ds.file_meta, ds) for e in part if e.tag != 0x0040A730]  # fmt: skip
    evidence = next(one for one in tree.header if one.name == "Current Requested Procedure Evidence Sequence")
    assert evidence.items is not None
    assert evidence.items[0][0].items is not None
    assert not tree.cut


def test_the_page_shows_it_unfolded_by_keyboard_and_escaped(site: Site, document: Path) -> None:
    ds = dcmread(document)
    ds.StudyDescription = "<script>alert(1)</script>"
    ds.ContentSequence[0].ConceptNameCodeSequence[0].CodeMeaning = "<b>name</b>"
    ds.save_as(document)
    site.ledger.accept(instance("1.2.3"), plan(classify=("cxr",)))
    (task,) = site.ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1)
    sr = instance("9.9", kind=InstanceKind.SR)
    site.ledger.complete(task, outcome=prediction(), produced=[Produced(instance=sr, destinations=("pacs",))])
    site.files[sr.spool_key] = document
    page = site.signed_in("vera").get("/reports/2").text
    assert "<script>alert" not in page
    assert html.escape("<b>name</b>") in page
    assert page.count("<details") == page.count("</details>") > 20
    assert len(re.findall("<li[ >]", page)) == page.count("</li>")
    assert re.search(r"\(0010,0020\) LO</span> Patient ID: <span class=\"value\">P-1</span>", page)
    assert "Measurement Group" in page


def deep(levels: int) -> Dataset:
    top = Dataset()
    top.ValueType = "CONTAINER"
    below = top
    for _ in range(levels):
        item = Dataset()
        item.ValueType = "CONTAINER"
        below.ContentSequence = [item]
        below = item
    return top


def wide(count: int) -> Dataset:
    top = deep(1)
    item = Dataset()
    item.ValueType, item.TextValue = "TEXT", "x" * 600
    top.ContentSequence = [item] * count
    return top


@pytest.mark.parametrize("made", [deep(60), wide(400)])
def test_a_document_without_measure_is_cut(tmp_path: Path, made: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "_NODES_MAX", 300)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = Comprehensive3DSRStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    made.save_as(tmp_path / "sr.dcm", enforce_file_format=True)
    tree = read_tree(tmp_path / "sr.dcm")
    assert tree.cut
    assert len(list(walk(tree.content))) <= 301
    assert max(len(one.value) for one in walk(tree.content)) < 600
