"""Who may open an association."""

from __future__ import annotations

import pytest

from router.dimse.peers import plain_host, rejection
from router.settings import NodeSettings, PeerSettings

PEERS = (
    PeerSettings(ae_title="ANYWHERE"),
    PeerSettings(ae_title="ROOM1", hosts=("10.1.2.0/24", "fd00::/8")),
    PeerSettings(ae_title="ROOM1", hosts=("192.0.2.7",)),
)


@pytest.mark.parametrize(
    ("calling", "host", "allowed"),
    [
        ("ANYWHERE", "203.0.113.9", True),
        ("ROOM1", "10.1.2.250", True),
        ("ROOM1", "fd00::1", True),
        ("ROOM1", "192.0.2.7", True),
        ("ROOM1", "10.1.3.1", False),
        ("room1", "10.1.2.250", False),
        ("OTHER", "10.1.2.250", False),
        ("", "10.1.2.250", False),
    ],
)
def test_a_listed_peer_may_come_from_its_hosts(calling: str, host: str, allowed: bool) -> None:
    found = rejection(called_ae_title="ROUTER", calling_ae_title=calling, host=host, node=NodeSettings(), peers=PEERS)
    assert (found is None) == allowed
    if found is not None:
        assert (found.result, found.source, found.diagnostic) == (1, 1, 3)


def test_anybody_may_come_while_nobody_is_listed() -> None:
    assert (
        rejection(called_ae_title="ROUTER", calling_ae_title="X", host="10.0.0.1", node=NodeSettings(), peers=())
        is None
    )


def test_another_called_ae_title_is_told_first() -> None:
    found = rejection(called_ae_title="X", calling_ae_title="Y", host="10.0.0.1", node=NodeSettings(), peers=PEERS)
    assert found is not None
    assert (found.diagnostic, "ROUTER" in found.reason) == (7, True)


def test_mapped_and_zoned_addresses_are_plain() -> None:
    assert plain_host("::ffff:192.0.2.1") == "192.0.2.1"
    assert plain_host("fe80::1%eth0") == "fe80::1"
    assert plain_host("127.0.0.1") == "127.0.0.1"
