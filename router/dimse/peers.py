"""May this peer open an association? Source: PS3.8 9.3.4 (A-ASSOCIATE-RJ)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from router.settings import NodeSettings, PeerSettings

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

_PERMANENT, _TRANSIENT = 1, 2
_USER, _PROVIDER_ACSE, _PROVIDER_PRESENTATION = 1, 2, 3
#: Of source 1.
CALLING_AE_TITLE_NOT_RECOGNISED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """An A-ASSOCIATE-RJ and its reason in plain English."""

    result: int
    source: int
    diagnostic: int
    reason: str


PROTOCOL_VERSION = Rejection(
    result=_PERMANENT, source=_PROVIDER_ACSE, diagnostic=2, reason="protocol version not supported"
)
APPLICATION_CONTEXT_NAME = Rejection(
    result=_PERMANENT, source=_USER, diagnostic=2, reason="application context name not supported"
)
DRAINING = Rejection(
    result=_TRANSIENT, source=_PROVIDER_PRESENTATION, diagnostic=1, reason="this node is shutting down"
)
LIMIT_REACHED = Rejection(
    result=_TRANSIENT,
    source=_PROVIDER_PRESENTATION,
    diagnostic=2,
    reason="node.associations_max or node.associations_per_peer_max is reached",
)


def plain_host(address: str) -> str:
    """An address as text, IPv4 also where it came mapped into IPv6 (::ffff:192.0.2.1) or with a zone (fe80::1%eth0)."""
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(parsed)


def rejection(
    *, called_ae_title: str, calling_ae_title: str, host: str, node: NodeSettings, peers: Sequence[PeerSettings]
) -> Rejection | None:
    """None when the peer may come in. `host` is an address as `plain_host` writes it; AE titles are without padding."""
    if not node.any_called_ae and called_ae_title != node.ae_title:
        return Rejection(
            result=_PERMANENT,
            source=_USER,
            diagnostic=7,
            reason=f"called AE title is not {node.ae_title} (node.ae_title)",
        )
    if not peers:
        return None
    named = [peer for peer in peers if peer.ae_title == calling_ae_title]
    if any(not peer.hosts or any(ip_address(host) in network for network in peer.hosts) for peer in named):
        return None
    missing = "calls from an address that is not in its hosts" if named else "is not listed"
    return Rejection(
        result=_PERMANENT,
        source=_USER,
        diagnostic=CALLING_AE_TITLE_NOT_RECOGNISED,
        reason=f"calling AE title {missing} under [[peers]]",
    )
