"""From C-STORE response to the destination: how long an original and its SR take, one image at a time, to a real Orthanc.

    python -m bench.latency [COUNT]

Nothing is asserted: machines differ. The figures go to docs/performance.md with the command and the machine.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from router.classify.phantom import phantom_dicom
from router.core.lifecycle import TaskState
from router.deliver.association import Address
from router.deliver.send import send
from router.deliver.sources import Source, find
from router.ledger.queries import InstanceStatus
from tests.peers import HOST, Orthanc, wait_until
from tests.whole.router_process import RouterProcess, destination


def delivered_at(status: InstanceStatus) -> datetime:
    """When the destination answered."""
    return max(t.settled_at for t in status.deliveries if t.state is TaskState.DONE and t.settled_at is not None)


def main(count: int) -> None:
    """Sends `count` images a second apart and prints medians."""
    originals, reports, visible = [], [], []
    with tempfile.TemporaryDirectory() as name, Orthanc(folder=Path(name) / "orthanc") as orthanc:
        folder = Path(name)
        node = RouterProcess(folder / "node", destination("pacs", orthanc.ae_title, orthanc.port))
        with node:
            wait_until(lambda: node.events("classify.child_started"), 120)
            address = Address(ae_title=node.ae_title, host=HOST, port=node.port, calling_ae_title="BENCH")
            for seed in range(count):
                path = folder / f"{seed}.dcm"
                phantom_dicom(seed, rows=2000, columns=1800).save_as(path, enforce_file_format=True)  # 7.2 MB
                sources = [item for item in find([path]) if isinstance(item, Source)]
                time.sleep(1)
                [sent] = list(send(address, sources))
                responded_at = sent.responded_at
                assert sent.status == "sent", sent.note
                assert responded_at is not None
                started = time.monotonic()
                uid = sent.source.sop_instance_uid
                while orthanc.lookup(uid) is None:
                    time.sleep(0.002)
                visible.append(time.monotonic() - started)
                node.settle()
                [status] = node.statuses([uid])
                assert status is not None
                originals.append((delivered_at(status) - responded_at).total_seconds())
                reports.append((delivered_at(status.results[0]) - responded_at).total_seconds())
    print(f"{count} chest images of 7.2 MB, one at a time; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for what, values in (
        ("original: Orthanc's response", originals),
        ("original: found by Orthanc's REST API", visible),
        ("SR (demo classifier): Orthanc's response", reports),
    ):
        print(f"{what:42} median {statistics.median(values) * 1000:6.0f} ms   max {max(values) * 1000:6.0f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
