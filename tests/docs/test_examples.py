"""What pages show beside command lines is code, configuration and shell that can be read; statuses are those of the code."""

from __future__ import annotations

import ast
import configparser
import inspect
import json
import re
import subprocess
import textwrap
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from router import registry, settings
from router.classify.card import read_card
from router.classify.demo import DemoClassifier
from router.classify.reasons import REASONS
from router.cli import cli
from router.deliver.folder import FolderDestination
from router.dimse import peers, status
from router.errors import ConfigError
from router.report.sr import SrBuilder
from router.settings import NodeSettings, PeerSettings, RuleSettings
from tests.docs.reader import command_lines
from tests.peers import HOST, ROOT
from tests.project import tree

PAGES = [tree.name(path) for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *tree.files(".md", under="docs"))]
#: A configuration into which pieces of one fit: what pages refer to is there.
WHOLE = """
[classifiers.cxr]
type = "demo"
[destinations.orthanc]
type = "folder"
path = "x"
[destinations.breast-centre]
type = "folder"
path = "x"
"""


def blocks(*languages: str) -> Iterator[tuple[str, str]]:
    """(page, text) of every block in one of these languages."""
    for page in PAGES:
        pattern = rf"```(?:{'|'.join(languages)})\n(.*?)```"
        for block in re.findall(pattern, (ROOT / page).read_text(encoding="utf-8"), re.DOTALL):
            yield page, textwrap.dedent(block)


def fits(data: dict[str, Any]) -> None:
    """A piece of a configuration, read as part of a whole one. Raises ConfigError."""
    whole = tomllib.loads(WHOLE)
    for key, value in data.items():
        whole[key] = {**whole.get(key, {}), **value} if isinstance(value, dict) else value
    settings.parse(whole)


@pytest.mark.parametrize("page", [page for page in PAGES if command_lines(page)])
def test_shell_lines_can_be_read_by_a_shell(page: str) -> None:
    script = "\n".join(line.text for line in command_lines(page))
    read = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, timeout=60, check=False)
    assert read.stderr == ""


@pytest.mark.parametrize("text", [text for _page, text in blocks("toml")])
def test_configuration_is_of_keys_that_exist_and_values_that_they_take(tmp_path: Path, text: str) -> None:
    data = tomllib.loads(text)
    if "project" in data:  # of a plugin's pyproject.toml
        (group,) = data["project"]["entry-points"]
        assert registry.available(group)
    elif set(data) <= set(RuleSettings.model_fields):
        RuleSettings.model_validate({"name": "a piece of a rule", **data})
    elif "architecture" in data:
        (tmp_path / "card.toml").write_text(text)
        assert read_card(tmp_path / "card.toml")
    else:
        fits(data)


def test_a_wrong_key_in_a_page_would_be_found() -> None:
    with pytest.raises(ConfigError, match="retention_s"):
        fits(tomllib.loads("[spool]\nretentions = 3"))


def test_code_can_be_compiled_and_its_imports_exist() -> None:
    for page, text in blocks("python"):
        for node in ast.walk(ast.parse(text, page)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert [name for name in names if find_spec(name) is None] == [], page


@pytest.mark.parametrize(
    ("page", "ours"),
    [
        ("docs/adding/classifier.md", DemoClassifier),
        ("docs/adding/destination.md", FolderDestination),
        ("docs/adding/result.md", SrBuilder),
    ],
)
def test_the_class_that_a_page_asks_for_is_like_one_of_ours(page: str, ours: type) -> None:
    (text,) = (text for where, text in blocks("python") if where == page)
    (asked,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
    methods = [node for node in asked.body if isinstance(node, ast.FunctionDef)]
    assert len(methods) >= 1
    for method in methods:
        found = inspect.getattr_static(ours, method.name)
        if isinstance(found, property):
            continue
        arguments = [argument.arg for argument in (*method.args.args, *method.args.kwonlyargs)]
        parameters = inspect.signature(found).parameters.values()
        needed = [one.name for one in parameters if one.default is one.empty or one.name in arguments]
        assert arguments == needed, method.name


def test_other_files_can_be_parsed() -> None:
    for _page, text in blocks("json"):
        json.loads(text)
    for _page, text in blocks("yaml"):
        assert yaml.safe_load(text)


def test_the_service_runs_a_command_that_exists_and_ends_it_later_than_it_drains() -> None:
    ((_, text),) = blocks("ini")
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    service = unit["Service"]
    program, command, option, _ = service["ExecStart"].split()
    assert program.endswith("/router")
    assert option in [name for parameter in cli.commands[command].params for name in parameter.opts]
    assert int(service["TimeoutStopSec"]) > settings.Settings().node.drain_timeout_s
    assert service["ReadWritePaths"] == service["WorkingDirectory"], "relative paths start there"


# ---- statuses


def table(heading: str) -> dict[str, str]:
    """First cells that are code -> second cells, of the table below a heading of statuses.md."""
    text = tree.read("docs/operating/statuses.md").split(f"## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([^`]+)` \| (.*?) \|", text, re.MULTILINE))


def test_every_status_that_a_modality_can_hear_is_explained() -> None:
    explained = table("C-STORE: what a modality hears")
    assert set(explained) == {f"0x{code:04X}" for code in status.STORE_ANSWERS}


def test_every_rejection_is_explained() -> None:
    node = NodeSettings()
    listed = [PeerSettings(ae_title="SOMEBODY")]
    facts = {"calling_ae_title": "NOBODY", "host": HOST, "node": node}
    possible = [value for value in vars(peers).values() if isinstance(value, peers.Rejection)]
    for called, who in (("OTHER", []), (node.ae_title, listed)):
        found = peers.rejection(called_ae_title=called, peers=who, **facts)  # type: ignore[arg-type]
        assert found is not None
        possible.append(found)
    assert len(possible) >= 6
    numbers = {f"{one.result}, {one.source}, {one.diagnostic}" for one in possible}
    assert set(table("Associations that are rejected")) == numbers


def test_every_reason_for_no_findings_is_explained() -> None:
    """Those of the gate are in gate.md (tests/classify/test_gate.py)."""
    code = "".join(path.read_text(encoding="utf-8") for path in tree.files(".py", under="router"))
    given = set(re.findall(r'NotAnalysed\(\s*code="(\w+)"', code))
    assert len(given) >= 4
    assert set(table("An image that got no findings")) == given - set(REASONS)
