"""Stock pynetdicom as most people use it: the data set decoded, then written by save_as. Nothing is synced.

python -m bench.stock_scp PORT FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification


def main(port: int, folder: Path) -> None:
    """Until it is ended."""

    def on_store(event: Event) -> int:
        ds = event.dataset
        ds.file_meta = event.file_meta
        ds.save_as(folder / f"{ds.SOPInstanceUID}.dcm", enforce_file_format=True)
        return 0x0000

    ae = AE(ae_title="STOCK")
    ae.supported_contexts = [*AllStoragePresentationContexts]
    ae.add_supported_context(Verification)
    ae.maximum_associations = 1000
    ae.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, on_store)])


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
