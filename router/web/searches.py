"""What somebody searched for, kept here under a number: a patient's ID in an address would end in histories and in logs of proxies."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict

from router.ledger.search import Criteria

_KEPT_MAX = 1000


class Searches:
    """The last searches of everybody; each is found again only by whoever made it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], Criteria] = OrderedDict()

    def keep(self, owner: str, criteria: Criteria) -> str:
        """What stands in the address instead."""
        number = secrets.token_urlsafe(9)
        with self._lock:
            self._kept[owner, number] = criteria
            while len(self._kept) > _KEPT_MAX:
                self._kept.popitem(last=False)
        return number

    def find(self, owner: str, number: str) -> Criteria | None:
        """None when it is not theirs or too old."""
        with self._lock:
            return self._kept.get((owner, number))
