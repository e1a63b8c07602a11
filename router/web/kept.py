"""Pictures that were made lately, kept in memory for the next look: bounded, and gone as soon as the image's file is."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from pathlib import Path
from typing import Generic, TypeVar

V = TypeVar("V")


class Kept(Generic[V]):
    """What was made of files; what nobody asked for the longest leaves first. Any number of threads may use it."""

    def __init__(self, *, byte_count_max: int, count_max: int) -> None:
        self._byte_count_max = byte_count_max
        self._count_max = count_max
        self._lock = threading.Lock()
        self._values: OrderedDict[tuple[Path, Hashable], tuple[V, int]] = OrderedDict()
        self._byte_count = 0

    def get(self, path: Path, what: Hashable) -> V | None:
        """None when it is not here. What was made of files that are gone is forgotten: retention and `router forget` mean it."""
        with self._lock:
            for key in [key for key in self._values if not key[0].exists()]:
                self._drop(key)
            found = self._values.get((path, what))
            if found is None:
                return None
            self._values.move_to_end((path, what))
            return found[0]

    def put(self, path: Path, what: Hashable, value: V, byte_count: int) -> None:
        """`byte_count`: how much of the bound it takes."""
        with self._lock:
            if (path, what) in self._values:
                self._drop((path, what))
            if byte_count > self._byte_count_max:
                return
            self._values[path, what] = (value, byte_count)
            self._byte_count += byte_count
            while self._byte_count > self._byte_count_max or len(self._values) > self._count_max:
                self._drop(next(iter(self._values)))

    def _drop(self, key: tuple[Path, Hashable]) -> None:
        self._byte_count -= self._values.pop(key)[1]
