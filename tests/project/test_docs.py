"""What is not documented, or documented otherwise than it is, fails here."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from router import registry, settings
from router.cli import cli
from router.core.lifecycle import OWED, RESTING, TRANSITIONS, TaskState
from router.observe.events import EVENTS
from tests.peers import ROOT
from tests.project import tree

CONFIGURATION = tree.read("docs/configuration.md")
EVENTS_PAGE = tree.read("docs/operating/events.md")


def rows(page: str) -> dict[str, list[str]]:
    """First cell of each table row that is code -> the other cells."""
    found: dict[str, list[str]] = {}
    for line in page.splitlines():
        if match := re.fullmatch(r"\| `([^`]+)` \|(.*)\|", line.strip()):
            found[match[1]] = [cell.strip() for cell in match[2].split(" | ")]
    return found


def shown(value: Any) -> str:
    """A default as docs/configuration.md writes it."""
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "see right"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int) and value >= 2**30 and value % 2**30 == 0:
        return f'`"{value // 2**30} GiB"`'
    if isinstance(value, int) and value >= 2**20 and value % 2**20 == 0:
        return f'`"{value // 2**20} MiB"`'
    if isinstance(value, int | float):
        return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
    if isinstance(value, list | tuple):
        return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
    if isinstance(value, dict):
        return "`{}`"
    return f'`"{value}"`'


def documented() -> dict[str, str]:
    """Key path -> default, of every setting there is, those of the built-in plugins included."""
    out: dict[str, str] = {}

    def add(prefix: str, model: type[BaseModel], *skip: str) -> None:
        for key, field in model.model_fields.items():
            if key not in skip:
                out[f"{prefix}{key}"] = shown(field.default)

    for key, field in settings.Settings.model_fields.items():
        if isinstance(field.default, BaseModel):
            add(f"{key}.", type(field.default))
    add("web.trusted_proxy.", settings.TrustedProxySettings)
    add("audit.syslog.", settings.SyslogSettings)
    out["default_deliver"] = shown(())
    add("peers[].", settings.PeerSettings)
    add("rules[].", settings.RuleSettings)
    add("notify.NAME.", settings.NotifySettings)
    add("notify.NAME.destination_down.", settings.DestinationDownSettings)
    add("notify.NAME.disk_short.", settings.DiskShortSettings)
    add("notify.NAME.task_failed.", settings.TaskFailedSettings)
    add("notify.NAME.findings[].", settings.FindingNoticeSettings)
    add("notify.NAME.webhook.", settings.WebhookSettings)
    add("notify.NAME.email.", settings.EmailSettings)
    add("classifiers.NAME.", settings.ClassifierSettings, "name", "options")
    add("destinations.NAME.", settings.DestinationSettings, "name", "options")
    for group in ("classifiers", "destinations"):
        for kind in registry.available(f"router.{group}"):
            plugin: Any = registry.load(f"router.{group}", kind)
            if plugin.__module__.startswith("router."):
                add(f"{group}.NAME ({kind}).", plugin.Settings)
    return out


@pytest.mark.parametrize(("key", "default"), documented().items())
def test_a_setting_is_documented_with_its_default(key: str, default: str) -> None:
    assert rows(CONFIGURATION).get(key, ["is not in docs/configuration.md"])[0] == default


def test_no_setting_is_documented_that_does_not_exist() -> None:
    assert set(rows(CONFIGURATION)) - set(documented()) == set()


def test_every_event_is_documented_in_the_words_of_the_table() -> None:
    assert {name: cells[0] for name, cells in rows(EVENTS_PAGE).items()} == EVENTS


def commands(group: click.Group, prefix: str = "router") -> dict[str, click.Command]:
    """`router NAME` -> command, sub-commands included."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        found[f"{prefix} {name}"] = command
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix} {name}")
    return found


def test_every_command_is_documented() -> None:
    pages = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "README.md", *tree.files(".md", under="docs")))
    assert [name for name in commands(cli) if not re.search(rf"\b{name}\b", pages)] == []


def test_every_command_that_the_documents_show_exists_with_its_options() -> None:
    known = commands(cli)
    wrong = []
    for path in (ROOT / "README.md", *tree.files(".md", under="docs")):
        for line in _shell_lines(path):
            for call in re.findall(r"(?:^|[;&|] *|bin/)(router (?!=)[a-z].*?)(?=$| *[;&|<>]| \d>)", line):
                name = max((n for n in known if f"{call} ".startswith(f"{n} ")), key=len, default=None)
                options = {option for p in known[name].params for option in p.opts} if name else set()
                if name is None or set(re.findall(r"(?<= )--?[a-z][a-z-]*", call)) - options - {"--help"}:
                    wrong.append(f"{tree.name(path)}: {call}")
    assert wrong == []


def _shell_lines(path: Path) -> list[str]:
    """Lines of shell blocks, and code within text that begins with `router `."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`(router [a-z][^`\n]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [line.removeprefix("$ ").strip() for block in blocks for line in block.splitlines()] + inline


@pytest.mark.parametrize("path", [ROOT / "README.md", *tree.files(".md", under="docs")], ids=tree.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    assert [t for t in targets if "://" not in t and not (path.parent / t).exists()] == []


@pytest.mark.parametrize("path", [ROOT / "README.md", *tree.files(".md", under="docs")], ids=tree.name)
def test_files_that_documents_name_are_there(path: Path) -> None:
    named = re.findall(
        r"`((?:router|tests|scripts|config|docs|requirements)/[\w./-]+)`", path.read_text(encoding="utf-8")
    )
    assert [name for name in named if not (ROOT / name).is_file() and not any((ROOT / name).glob("*"))] == []


def test_every_page_can_be_found_from_the_readme() -> None:
    """By links, from page to page."""
    found, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        found.add(page)
        linked = [(page.parent / target).resolve() for target in re.findall(r"\]\(([^)#:]+\.md)", page.read_text())]
        waiting += [target for target in linked if target not in found and target.is_file()]
    assert [tree.name(path) for path in tree.files(".md", under="docs") if path not in found] == []


def lifecycle_diagram() -> str:
    """docs/lifecycle.md's diagram, from the table."""
    out = ["stateDiagram-v2", f"    [*] --> {TaskState.READY}"]
    out += [f"    {source} --> {target}: {event}" for (source, event), target in TRANSITIONS.items()]
    out += [f"    {TaskState.DONE} --> [*]"]
    return "\n".join(out)


def test_the_diagram_of_states_is_the_table_of_transitions() -> None:
    drawn = re.search(r"```mermaid\n(.*?)\n```", tree.read("docs/lifecycle.md"), re.DOTALL)
    assert drawn is not None
    assert drawn[1] == lifecycle_diagram(), f"replace the diagram in docs/lifecycle.md by:\n{lifecycle_diagram()}"


def test_every_state_is_explained() -> None:
    explained = rows(tree.read("docs/lifecycle.md"))
    assert set(explained) == {str(state) for state in OWED | RESTING}


def test_every_classifier_of_ours_has_a_page() -> None:
    headings = [path.read_text(encoding="utf-8").splitlines()[0] for path in tree.files(".md", under="docs/models")]
    for name in registry.available("router.classifiers"):
        assert [h for h in headings if f'(`type = "{name}"`)' in h], name


def test_the_configuration_files_that_documents_show_are_right() -> None:
    """Every TOML block that is a whole file (it has [node]) loads."""
    import tomllib

    for path in (ROOT / "README.md", *tree.files(".md", under="docs")):
        for block in re.findall(r"```toml\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            data = tomllib.loads(inspect.cleandoc(block))
            if "node" in data and "rules" in data:
                settings.parse(data)


def test_every_metric_is_documented_in_its_own_words() -> None:
    from router.web.metrics import METRICS

    assert {name: cells[0] for name, cells in rows(tree.read("docs/operating/metrics.md")).items()} == METRICS
