"""Who sends: dcmtk's dcmsend, our own SCU in processes of its own, pynetdicom's.

python -m bench.sender HOW PORT AE_TITLE FILE...    (started by this module, one process for each association)
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pydicom

from router.deliver.association import Address
from router.deliver.send import send
from router.deliver.sources import Source, find
from tests.peers import HOST, program

NAGLE_ON = "dcmsend"
NAGLE_OFF = "dcmsend, Nagle off"
ROUTER_SEND = "router send"
ROUTER_LANE = "router, delivery lane"
ROUTER_LANE_VERIFYING = "router, delivery lane that verifies every file"
PYNETDICOM = "pynetdicom, send_c_store of data sets"
PYNETDICOM_CHUNKS = "pynetdicom, send_c_store of paths"
_SUCCESS = "Received C-STORE Response (Success)"


class NotAllStored(Exception):
    """The peer did not answer Success to everything, so that the time means nothing."""


def seconds_to_send(how: str, paths: Sequence[Path], port: int, ae_title: str, associations: int = 1) -> float:
    """Until the last of so many parallel processes, an association each, has its last answer and has ended.

    Raises NotAllStored, and ProgramMissing.
    """
    shares = [paths[n::associations] for n in range(associations)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if how == NAGLE_OFF:
        environment["TCP_NODELAY"] = "1"  # dcmtk's own switch
    elif how == NAGLE_ON:
        environment.pop("TCP_NODELAY", None)
    begun = time.perf_counter()
    processes = [
        subprocess.Popen(
            _command(how, share, port, ae_title),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for share in shares
    ]
    try:
        outputs = [process.communicate(timeout=600)[0].decode(errors="replace") for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    seconds = time.perf_counter() - begun
    stored = sum(output.count(_SUCCESS) for output in outputs)
    if stored != len(paths):
        raise NotAllStored(f"{stored} of {len(paths)} were answered with Success")
    return seconds


def _command(how: str, paths: Sequence[Path], port: int, ae_title: str) -> list[str]:
    if how in (NAGLE_ON, NAGLE_OFF):
        own = [str(program("dcmsend")), "-v", "-dn", "-aet", "BENCH", "-aec", ae_title, HOST, str(port)]
    else:
        own = [sys.executable, "-m", "bench.sender", how, str(port), ae_title]
    return [*own, *map(str, paths)]


def _router_send(paths: Sequence[Path], port: int, ae_title: str) -> int:
    address = Address(ae_title=ae_title, host=HOST, port=port, calling_ae_title="BENCH")
    sources = [one for one in find(paths) if isinstance(one, Source)]
    return sum(one.status == "sent" for one in send(address, sources))


def _router_lane(paths: Sequence[Path], port: int, ae_title: str, *, verify: bool = False) -> int:
    from bench import lane  # much to load, which others need not

    return lane.stored(paths, port, ae_title, verify=verify)


def _pynetdicom(paths: Sequence[Path], port: int, ae_title: str) -> int:
    return _by_pynetdicom(paths, port, ae_title, pydicom.dcmread)


def _pynetdicom_chunks(paths: Sequence[Path], port: int, ae_title: str) -> int:
    from pynetdicom import _config

    _config.STORE_SEND_CHUNKED_DATASET = True
    return _by_pynetdicom(paths, port, ae_title, lambda path: path)


def _by_pynetdicom(paths: Sequence[Path], port: int, ae_title: str, what: Callable[[Path], object]) -> int:
    from pynetdicom import AE

    meta = pydicom.filereader.read_file_meta_info(paths[0])
    ae = AE(ae_title="BENCH")
    ae.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    association = ae.associate(HOST, port, ae_title=ae_title)
    statuses = [association.send_c_store(what(path)).get("Status") for path in paths]
    association.release()
    return statuses.count(0x0000)


_HOW: dict[str, Callable[..., int]] = {
    ROUTER_SEND: _router_send,
    ROUTER_LANE: _router_lane,
    ROUTER_LANE_VERIFYING: partial(_router_lane, verify=True),
    PYNETDICOM: _pynetdicom,
    PYNETDICOM_CHUNKS: _pynetdicom_chunks,
}


def stored(how: str, paths: Sequence[Path], port: int, ae_title: str) -> int:
    """Sends them all from this process; how many were answered with Success."""
    return _HOW[how](paths, port, ae_title)


def main(how: str, port: int, ae_title: str, paths: Sequence[Path]) -> None:
    """Sends, and says so in dcmsend's words."""
    for _ in range(stored(how, paths, port, ae_title)):
        print(_SUCCESS)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], [Path(name) for name in sys.argv[4:]])
