"""A Storage SCP on a loopback port that writes down every arrival and can be told to misbehave."""

from __future__ import annotations

import hashlib
import threading
import time
from enum import StrEnum
from typing import Any

from router.loopback import HOST, free_port

_CLASS = "1.2.840.10008.5.1.4.1.1.1"
_SYNTAX = "1.2.840.10008.1.2.1"


class Mood(StrEnum):
    """How it behaves from now on."""

    GOOD = "good"
    SLOW = "slow"
    """A quarter of a second for each instance."""
    BUSY = "busy"
    """0xA700 the first time an instance comes."""
    ABORTING = "aborting"
    """A-ABORT the first time an instance comes, when it has come whole."""
    REJECTING = "rejecting"
    """No association."""


class LoopbackDestination:
    """By pynetdicom, so that what judges the node is not made of the node's own parts."""

    ae_title = "SELFTEST"

    def __init__(self) -> None:
        self.port = 0
        self.mood = Mood.GOOD
        self._lock = threading.Lock()
        self._arrivals: dict[str, list[str]] = {}
        self._annoyed_by: set[str] = set()
        self._entity: Any = None
        self._server: Any = None

    def start(self) -> None:
        """On the port it had before, or on a free one."""
        from pynetdicom import AE, evt

        entity = AE(ae_title=self.ae_title)
        entity.maximum_associations = 100
        entity.add_supported_context(_CLASS, [_SYNTAX])
        self.port = self.port or free_port()
        self._server = entity.start_server(
            (HOST, self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        self._entity = entity

    def stop(self) -> None:
        """Nobody listens on its port any more."""
        server, self._server = self._server, None
        if server is not None:
            self._entity.shutdown()

    def behave(self, mood: Mood) -> None:
        """From the next instance or association on."""
        self.mood = mood
        self._entity.require_calling_aet = ["NOBODY"] if mood is Mood.REJECTING else []
        if mood is Mood.REJECTING:  # one that the node keeps open would go on
            for association in self._server.active_associations:
                association.abort()

    def arrivals(self) -> dict[str, list[str]]:
        """SOP Instance UID -> SHA-256 of each data set that was taken under it, in order."""
        with self._lock:
            return {uid: list(digests) for uid, digests in self._arrivals.items()}

    def _store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        with self._lock:
            first = uid not in self._annoyed_by
            self._annoyed_by.add(uid)
        if self.mood is Mood.SLOW:
            time.sleep(0.25)
        if self.mood is Mood.BUSY and first:
            return 0xA700
        if self.mood is Mood.ABORTING and first:
            event.assoc.abort()
            return 0xC000
        sha256 = hashlib.sha256(event.encoded_dataset(include_meta=False)).hexdigest()
        with self._lock:
            self._arrivals.setdefault(uid, []).append(sha256)
        return 0x0000
