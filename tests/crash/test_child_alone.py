"""A classify child whose node was killed ends, and writes nothing into the node's log."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

from tests.peers import ROOT


def test_a_child_whose_node_is_gone_before_it_is_ready_ends_without_a_word() -> None:
    ours, theirs = socket.socketpair()
    table = {"name": "cxr", "type": "demo", "options": {}, "memory_byte_count_max": 2**33}
    with theirs:
        child = subprocess.Popen(
            [sys.executable, "-m", "router.child", str(theirs.fileno()), json.dumps(table)],
            pass_fds=(theirs.fileno(),),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
    ours.close()
    output, _ = child.communicate(timeout=100)
    assert (child.returncode, output) == (0, b"")
