"""A real node with a real collector: one trace of all steps, also when the node was killed and the collector away meanwhile."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from router.classify.phantom import phantom_dicom
from tests.observe.collector import Collector, attributes, tree
from tests.peers import HOST, dcmsend, free_port, success_count, wait_until
from tests.whole.committers import Archive
from tests.whole.router_process import RouterProcess, destination

RULE = """
[[rules]]
name = "chest radiographs"
when = { Modality = ["CR", "DX"] }
classify = ["cxr"]
deliver = ["archive"]
results = ["sr"]
results_to = ["archive"]
"""


@pytest.mark.peer("dcmtk")
def test_a_trace_holds_all_steps_though_the_node_was_killed_and_the_collector_away(tmp_path: Path) -> None:
    archive, port = Archive(), free_port()
    archive.same_association = lambda assoc, report: assoc.send_n_event_report(
        report, 1, "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
    )
    image = tmp_path / "image.dcm"
    ds = phantom_dicom(7)
    ds.PatientName, ds.PatientID = "Doe^Jane", "PID-4711"
    ds.save_as(image, enforce_file_format=True)
    node = RouterProcess(
        tmp_path / "node",
        f'[traces]\nendpoint = "http://{HOST}:{port}/v1/traces"\n',
        destination("archive", archive.ae_title, archive.port, commitment=True, commitment_gather_s=0.1),
        rules=(RULE,),
    )
    with node:
        assert success_count(dcmsend(node.port, image)) == 1, "nobody waits for a collector"
        wait_until(lambda: node.events("classify.done"), 120)
        wait_until(lambda: node.events("traces.down"), 60)
        assert node.health() == (True, [])
        node.kill()
        with archive.listening(), Collector(port) as collector:
            node.start()
            node.settle()
            wait_until(lambda: sum(span.name == "commit" for span in collector.spans()) == 2, 120)
            spans, bodies = collector.spans(), b"".join(collector.bodies)
            assert node.stop() == 0
    done = [span for span in spans if span.status.code != 2]  # what failed while the archive was down is there, too
    assert tree(done) == [
        "receive",
        "receive > durable",
        "receive > durable > classify cxr",
        "receive > durable > classify cxr > report cxr",
        "receive > durable > classify cxr > report cxr > deliver archive",
        "receive > durable > classify cxr > report cxr > deliver archive > commit archive",
        "receive > durable > deliver archive",
        "receive > durable > deliver archive > commit archive",
    ]
    assert len({span.trace_id for span in spans}) == 1
    assert {attributes(span)["dicom.sop_instance_uid"] for span in spans} >= {pydicom.dcmread(image).SOPInstanceUID}
    assert b"4711" not in bodies
    assert b"Doe" not in bodies
