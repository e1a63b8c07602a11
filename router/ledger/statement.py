"""Statements of the hot path: compiled once by SQLAlchemy, then run by the driver's own cursor.

What SQLAlchemy does for each execution costs several times what SQLite needs for it, and every instance that is received
pays for it. So only for the few statements that every instance needs; the driver's errors come as the driver raises them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Executable
from sqlalchemy.engine import Dialect


@dataclass(frozen=True, slots=True)
class _Compiled:
    """For one dialect."""

    sql: str
    names: tuple[str, ...]
    processes: tuple[tuple[int, Callable[[Any], Any]], ...]
    """Of those values that the driver wants in another form: where they stand, and how they get it."""
    positional: bool

    def parameters(self, values: Mapping[str, Any]) -> Sequence[Any] | Mapping[str, Any]:
        """As the driver wants them. Raises KeyError when one is missing."""
        bound = [values[name] for name in self.names]
        for index, process in self.processes:
            bound[index] = process(bound[index])
        return bound if self.positional else dict(zip(self.names, bound, strict=True))


class Statement:
    """One statement; any number of threads and databases may share it."""

    def __init__(self, *forms: Executable) -> None:
        """`forms`: the same in each dialect that needs a form of its own, or one for all."""
        self._forms = forms
        self._compiled: dict[tuple[str, ...], _Compiled] = {}

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> list[Any]:
        """What it selects or returns, as tuples; runs inside the connection's transaction."""
        compiled = self._of(connection.dialect, values)
        cursor = connection.connection.cursor()
        try:
            cursor.execute(compiled.sql, compiled.parameters(values))
            return list(cursor.fetchall())
        finally:
            cursor.close()

    def run(self, connection: Connection, *lines: Mapping[str, Any]) -> None:
        """Once for each line of values, which all have the same names; nothing comes back."""
        if not lines:
            return
        compiled = self._of(connection.dialect, lines[0])
        bound: Any = [compiled.parameters(line) for line in lines]
        cursor = connection.connection.cursor()
        try:
            cursor.executemany(compiled.sql, bound)
        finally:
            cursor.close()

    def _of(self, dialect: Dialect, values: Mapping[str, Any]) -> _Compiled:
        form = (dialect.name, *values)
        known = self._compiled.get(form)
        if known is None:
            known = self._compiled[form] = self._compile(dialect, list(values))
        return known

    def _compile(self, dialect: Dialect, columns: list[str]) -> _Compiled:
        """`columns`: what an INSERT is given."""
        own = [form for form in self._forms if _dialect_of(form) == dialect.name]
        form: Any = (own or list(self._forms))[0]
        compiled = form.compile(dialect=dialect, column_keys=columns)
        names = tuple(compiled.positiontup or compiled.binds)
        processes = (compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect) for name in names)
        needed = tuple((index, process) for index, process in enumerate(processes) if process is not None)
        return _Compiled(str(compiled), names, needed, positional=bool(compiled.positional))


def _dialect_of(form: Executable) -> str:
    """The name of the dialect that a statement was made for; empty for one that is for all."""
    module = type(form).__module__.split(".")
    return module[2] if module[:2] == ["sqlalchemy", "dialects"] else ""
