"""Nodes for the tests of the whole way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers import Orthanc, StoreScp
from tests.whole.router_process import RouterProcess, destination


@pytest.fixture
def node(tmp_path: Path, orthanc: Orthanc) -> Iterator[RouterProcess]:
    """`router serve` with the demo classifier, delivering to this test's Orthanc."""
    with RouterProcess(tmp_path / "node", destination("pacs", orthanc.ae_title, orthanc.port)) as node:
        yield node


@pytest.fixture
def plain_node(tmp_path: Path, storescp: StoreScp) -> Iterator[RouterProcess]:
    """The same, delivering to a bit-preserving storescp."""
    with RouterProcess(tmp_path / "node", destination("pacs", storescp.ae_title, storescp.port)) as node:
        yield node
