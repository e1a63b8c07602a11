"""The goals that are ratios as bars on a logarithmic scale, an SVG without any library: a line at 1 is the other program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.goal import Goal, goals
from bench.page import shown
from bench.row import Row

_ROW, _LEFT, _WIDTH, _RIGHT, _TOP = 22, 470, 420, 70, 46
_COLOURS = {"aim": "#2b8a3e", "reached": "#1971c2", "missed": "#c92a2a"}


@dataclass(frozen=True, slots=True)
class _Bar:
    goal: Goal
    figure: float


def svg(rows: Sequence[Row]) -> str:
    """The picture; empty text when no ratio was measured."""
    bars = [_Bar(goal, figure) for goal in goals() if goal.unit == "x" and (figure := goal.figure(rows)) is not None]
    if not bars:
        return ""
    low = min(0.1, *(bar.figure for bar in bars))
    high = max(10.0, *(max(bar.figure, bar.goal.aim) for bar in bars))

    def x(value: float) -> float:
        return _LEFT + _WIDTH * (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))

    height = _TOP + _ROW * len(bars) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + _RIGHT}" height="{height}"'
        ' font-family="sans-serif" font-size="12" fill="#222">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        '<text x="8" y="18" font-weight="bold">The router beside other programs, same run, same machine</text>',
        f'<text x="8" y="34" fill="#666">bar: ratio · tick: at least · {_legend()}</text>',
    ]
    for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1):
        at = x(10.0**power)
        parts.append(f'<line x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{height - 8}" stroke="#ddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{_TOP - 3}" text-anchor="middle" fill="#666">{10.0**power:g}</text>')
    for number, bar in enumerate(bars):
        parts += _drawn(bar, _TOP + _ROW * number, x(1.0), x(bar.figure), x(bar.goal.least))
    return "\n".join([*parts, "</svg>", ""])


def _drawn(bar: _Bar, top: int, one: float, end: float, least: float) -> list[str]:
    colour = _COLOURS[bar.goal.verdict(bar.figure)]
    middle = top + _ROW // 2 + 4
    left, width = min(one, end), max(1.0, abs(end - one))
    return [
        f'<text x="{_LEFT - 8}" y="{middle}" text-anchor="end">{escape(bar.goal.text)}</text>',
        f'<rect x="{left:.1f}" y="{top + 4}" width="{width:.1f}" height="{_ROW - 8}" fill="{colour}"/>',
        f'<line x1="{least:.1f}" y1="{top + 2}" x2="{least:.1f}" y2="{top + _ROW - 2}" stroke="#222"/>',
        f'<text x="{max(one, end) + 5:.1f}" y="{middle}">{shown(bar.figure)}</text>',
    ]


def _legend() -> str:
    return " · ".join(f'<tspan fill="{colour}">{word}</tspan>' for word, colour in _COLOURS.items())
