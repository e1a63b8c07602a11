"""The tree of errors: drawn in the docstring, told apart by the worker."""

from __future__ import annotations

import re

from router import errors
from router.errors import ConfigError, PermanentError, RouterError, TransientError


def _drawn() -> list[tuple[str, str]]:
    """(error, its base) as the docstring of router/errors.py draws them; four columns a level."""
    pairs, above = [], {}
    for match in re.finditer(r"^    ([│ ]*)(?:[├└]── )?([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE):
        name, level = match[2], (match.start(2) - match.start() - 4) // 4
        if level:
            pairs.append((name, above[level - 1]))
        above[level] = name
    return pairs


def _written(base: type = RouterError) -> list[tuple[str, str]]:
    ours = [child for child in base.__subclasses__() if child.__module__ == errors.__name__]
    return [pair for child in ours for pair in [(child.__name__, base.__name__), *_written(child)]]


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    assert sorted(_drawn()) == sorted(_written())


def test_every_error_says_in_a_sentence_what_it_is() -> None:
    for name, _ in _written():
        assert getattr(errors, name).__doc__, name


def test_no_error_is_both_transient_and_permanent() -> None:
    for name, _ in _written():
        kinds = [base for base in (TransientError, PermanentError) if issubclass(getattr(errors, name), base)]
        assert len(kinds) <= 1, name


def test_a_config_error_has_one_line_for_each_problem() -> None:
    error = ConfigError(["node.port: is missing", "rules: must be tables"])
    assert str(error).splitlines() == list(error.problems) == ["node.port: is missing", "rules: must be tables"]
