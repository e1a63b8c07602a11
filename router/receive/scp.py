"""The Storage SCP: listens, and leads each instance through `receive.intake`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from router.core.admission import Limits
from router.core.digest import Algorithm
from router.core.instance import ROUTING_KEYWORDS, SopInstance
from router.core.ports import Clock, Ledger, Spool
from router.core.rules import Plan
from router.dimse.server import AssociationServer
from router.dimse.store import Services
from router.errors import ConfigError
from router.observe.log import emit
from router.receive.commitment import CommitmentDesk
from router.receive.intake import Intake
from router.settings import NodeSettings, PeerSettings


class StorageScp:
    """C-STORE and C-ECHO, and Storage Commitment with a desk for it. `start`, then `drain` and `stop`; not to be started again."""

    def __init__(
        self,
        *,
        settings: NodeSettings,
        peers: Sequence[PeerSettings],
        spool: Spool,
        ledger: Ledger,
        plan: Callable[[SopInstance], Plan],
        clock: Clock,
        limits: Limits,
        digest: Algorithm = "blake3",
        keywords: Collection[str] = ROUTING_KEYWORDS,
        desk: CommitmentDesk | None = None,
        notifiers: Collection[str] = (),
    ) -> None:
        """`desk`: Storage Commitment is offered, and `notifiers` may come for it though they are not among `peers`."""
        self._settings = settings
        self._peers = tuple(peers)
        self._intake = Intake(
            spool=spool,
            ledger=ledger,
            plan=plan,
            clock=clock,
            limits=limits,
            keywords=frozenset(keywords),
            digest=digest,
        )
        self._services = Services(
            open_sink=self._intake.open,
            open_service=desk.open if desk is not None else None,
            notifiers=frozenset(notifiers),
        )
        self._server: AssociationServer | None = None

    @property
    def port(self) -> int:
        """The real one, also where 0 was asked for; known once started."""
        return self._settings.port if self._server is None else self._server.port

    def start(self) -> None:
        """Returns when the port is open. Raises ConfigError when it cannot be opened."""
        try:
            self._server = AssociationServer(
                node=self._settings, peer_settings=self._peers, services=self._services, tell=emit
            )
        except OSError as error:
            where = f"{self._settings.host}:{self._settings.port}"
            raise ConfigError([f"node.port: cannot listen on {where}: {error.strerror or error}"]) from error
        self._server.serve()

    def drain(self) -> bool:
        """No new associations; messages in work are answered. True when all ended within node.drain_timeout_s."""
        return self._server is None or self._server.drain(timeout_s=self._settings.drain_timeout_s)

    def stop(self) -> None:
        """Ends what is left; what was not answered was never acknowledged."""
        if self._server is not None:
            self._server.close()
