"""Statuses in words, and what they ask of a sender."""

from __future__ import annotations

import pytest

from router.dimse.status import StatusKind, describe, kind_of


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0x0000, StatusKind.SUCCESS),
        (0xB000, StatusKind.WARNING),
        (0xB006, StatusKind.WARNING),
        (0xB007, StatusKind.WARNING),
        (0xA700, StatusKind.BUSY),
        (0xA7FF, StatusKind.BUSY),
        (0x0110, StatusKind.BUSY),
        (0xA900, StatusKind.FAILURE),
        (0xC123, StatusKind.FAILURE),
        (0x0122, StatusKind.FAILURE),
        (0x0124, StatusKind.FAILURE),
        (0xFF00, StatusKind.PENDING),
        (0xFE00, StatusKind.CANCEL),
        (0x7777, StatusKind.FAILURE),
    ],
)
def test_the_kind_says_whether_trying_again_makes_sense(code: int, kind: StatusKind) -> None:
    assert kind_of(code) is kind


def test_every_status_has_words() -> None:
    assert describe(0xA702) == "0xA702 (out of resources)"
    assert describe(0xC211) == "0xC211 (cannot understand the data set)"
    assert describe(0x0122) == "0x0122 (SOP class not supported)"
    assert "does not define" in describe(0x7777)
