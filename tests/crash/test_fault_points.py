"""The table of fault points is the truth about the code: each is there, each is passed, none is missing."""

from __future__ import annotations

import ast
import os
import random
import re
import subprocess
import sys
from pathlib import Path

from router.faults import FAULT_POINTS
from tests.crash.life import Life
from tests.crash.recorder import Recorder
from tests.peers import ROOT, wait_until
from tests.project import tree


def named_in_the_code() -> set[str]:
    """Every text that is handed to `fault_point` anywhere in the product."""
    names: set[str] = set()
    for path in tree.files(".py", under="router"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fault_point":
                names |= {
                    item.value
                    for argument in node.args
                    for item in ast.walk(argument)
                    if isinstance(item, ast.Constant) and isinstance(item.value, str)
                }
    return names


def test_the_table_names_every_fault_point_of_the_code_and_no_other() -> None:
    assert named_in_the_code() == set(FAULT_POINTS)


def test_every_fault_point_is_documented_in_the_words_of_the_table() -> None:
    page = tree.read("docs/operating/durability.md")
    assert dict(re.findall(r"^\| `([a-z_.]+)` \| (.+) \|$", page, re.MULTILINE)) == FAULT_POINTS


def test_a_normal_day_passes_every_fault_point(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with Recorder() as recorder:
        life = Life(
            tmp_path,
            recorder,
            chance=random.Random(0),
            classify=True,
            free=True,
            summarise=True,
            images_each=1,
            change="trace",
        )
        life.node.environment["FAULT_TRACE"] = str(trace)
        with life.node as node:
            life.send_one_batch()
            wait_until(lambda: life.owed_count() == 0, 120, "all is done")
            node.kill()
            node.start()  # tidying begins with the start
            wait_until(lambda: node.events("spool.freed"), 30, "the bytes are freed")
    # Those of `router forget` are passed by tests/whole/test_forget.py, those of notifications by tests/whole/test_notify.py.
    elsewhere = ("forget.", "notify.")
    assert set(trace.read_text().split()) == {name for name in FAULT_POINTS if not name.startswith(elsewhere)}


def test_a_fault_point_that_does_not_exist_is_refused_so_that_no_test_tests_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import router.faults"],
        env={**os.environ, "ROUTER_FAULT": "accept.comitted"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "names no fault point: 'accept.comitted'" in done.stderr
