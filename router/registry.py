"""Plug points: entry points of installed packages -> {name: class}. Built-in plugins use the same way as a stranger's."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

GROUPS: tuple[str, ...] = ("router.classifiers", "router.destinations", "router.results")


def available(group: str) -> Mapping[str, EntryPoint]:
    """The entry points of one plug point by name, not loaded yet. Raises KeyError for a group that is none of ours."""
    if group not in GROUPS:
        raise KeyError(group)
    return {point.name: point for point in entry_points(group=group)}


def load(group: str, name: str) -> type:
    """The class behind a name. Raises KeyError for an unknown name, ImportError when its package is not installed."""
    plugin = available(group)[name].load()
    if not isinstance(plugin, type):
        raise TypeError(f"{group} {name!r} is not a class")
    return plugin
