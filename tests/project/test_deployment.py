"""Dockerfile, compose file, orthanc.json and lean requirements, as far as they can be checked without a Docker engine."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from typing import Any

import jsonschema
import pytest
import yaml

from router import settings
from tests.peers import ROOT
from tests.project import tree

PYPROJECT = tomllib.loads(tree.read("pyproject.toml"))
COMPOSE = yaml.safe_load(tree.read("docker-compose.yml"))
ORTHANC = json.loads(tree.read("orthanc.json"))

#: The part of the Compose specification that docker-compose.yml uses; nothing else is let through.
COMPOSE_SCHEMA: dict[str, Any] = {
    "$defs": {
        "strings": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "mapping": {"type": "object", "additionalProperties": {"type": "string"}},
        "duration": {"type": "string", "pattern": r"^\d+(s|m|h)$"},
        "service": {
            "type": "object",
            "additionalProperties": False,
            "required": ["image", "restart"],
            "properties": {
                "image": {"type": "string", "pattern": r"^[a-z0-9./_-]+:[\w.-]+$"},
                "build": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["context"],
                    "properties": {"context": {"type": "string"}, "args": {"$ref": "#/$defs/mapping"}},
                },
                "command": {"$ref": "#/$defs/strings"},
                "init": {"type": "boolean"},
                "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
                "stop_grace_period": {"$ref": "#/$defs/duration"},
                "ports": {"type": "array", "items": {"type": "string", "pattern": r"^([\d.]+:)?\d+:\d+$"}},
                "volumes": {"type": "array", "items": {"type": "string", "pattern": r"^[\w./-]+:/[\w./-]+(:ro)?$"}},
                "environment": {"$ref": "#/$defs/mapping"},
                "cap_drop": {"$ref": "#/$defs/strings"},
                "security_opt": {"$ref": "#/$defs/strings"},
                "profiles": {"$ref": "#/$defs/strings"},
                "healthcheck": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["test"],
                    "properties": {
                        "test": {"$ref": "#/$defs/strings"},
                        "interval": {"$ref": "#/$defs/duration"},
                        "timeout": {"$ref": "#/$defs/duration"},
                        "start_period": {"$ref": "#/$defs/duration"},
                        "retries": {"type": "integer"},
                    },
                },
            },
        },
    },
    "type": "object",
    "additionalProperties": False,
    "required": ["services"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "services": {"type": "object", "additionalProperties": {"$ref": "#/$defs/service"}},
        "volumes": {"type": "object", "additionalProperties": {"type": "null"}},
    },
}


def bounds(requirements: list[str]) -> dict[str, str]:
    """Package -> version bounds."""
    return {re.split(r"[<>=~]", line)[0]: line for line in requirements}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's (instruction, rest), continuation lines joined, comments gone."""
    text = re.sub(r"^#.*\n", "", tree.read("Dockerfile"), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]  # type: ignore[misc]


# ---- docker-compose.yml


def test_the_compose_file_has_the_structure_of_the_specification() -> None:
    jsonschema.validate(COMPOSE, COMPOSE_SCHEMA)


def test_named_volumes_are_declared_and_mounted_files_exist() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], source


def test_images_of_others_are_pinned() -> None:
    for name, service in COMPOSE["services"].items():
        tag = service["image"].rpartition(":")[2]
        assert tag == "local" if "build" in service else re.match(r"\d+\.\d+", tag), name


def test_every_service_has_a_health_check() -> None:
    for name, service in COMPOSE["services"].items():
        assert "healthcheck" in service or "build" in service, name


def test_web_pages_are_not_published_beyond_this_machine() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert sorted(port for port in ports if not port.startswith("127.0.0.1:")) == ["11112:11112", "4242:4242"]


def test_compose_and_its_configuration_and_orthanc_agree_on_names_and_ports() -> None:
    read = settings.load(ROOT / "config" / "compose.toml")
    orthanc = read.destinations["orthanc"].options
    assert orthanc.host in COMPOSE["services"]
    assert (orthanc.ae_title, orthanc.port) == (ORTHANC["DicomAet"], ORTHANC["DicomPort"])
    assert ORTHANC["DicomModalities"]["router"][0] == read.node.ae_title
    assert COMPOSE["services"]["orthanc"]["environment"]["ROUTER_HOST"] in COMPOSE["services"]
    assert f"{read.node.port}:{read.node.port}" in COMPOSE["services"]["router"]["ports"]
    assert str(read.spool.path).startswith("/var/lib/router/")
    assert read.ledger.url.startswith("sqlite:////var/lib/router/")


def test_compose_will_not_start_orthanc_without_a_password() -> None:
    assert COMPOSE["services"]["orthanc"]["environment"]["ORTHANC_PASSWORD"].startswith("${ORTHANC_PASSWORD:?")


# ---- orthanc.json


def test_orthanc_has_a_user_whose_password_is_not_in_the_file() -> None:
    assert ORTHANC["AuthenticationEnabled"] is True
    assert ORTHANC["RegisteredUsers"] == {"router": "${ORTHANC_PASSWORD}"}


def test_orthanc_and_config_router_toml_agree() -> None:
    read = settings.load(ROOT / "config" / "router.toml")
    orthanc = read.destinations["orthanc"].options
    assert (orthanc.ae_title, orthanc.port) == (ORTHANC["DicomAet"], ORTHANC["DicomPort"])
    ae_title, host, port = ORTHANC["DicomModalities"]["router"]
    assert ae_title == read.node.ae_title
    assert host == "${ROUTER_HOST:-127.0.0.1}"
    assert port == f"${{ROUTER_PORT:-{read.node.port}}}"


# ---- Dockerfile


def test_the_image_does_not_run_as_root() -> None:
    last_stage = [i for i, (word, _) in enumerate(instructions()) if word == "FROM"][-1]
    users = [rest for word, rest in instructions()[last_stage:] if word == "USER"]
    assert users == ["router"]
    order = [word for word, _ in instructions()]
    assert order.index("USER") < order.index("ENTRYPOINT")


def test_the_image_asks_the_node_whether_it_is_alive() -> None:
    (check,) = [rest for word, rest in instructions() if word == "HEALTHCHECK"]
    command = json.loads(check[check.index("CMD") + 3 :])
    assert command[0] == "python"
    compile(command[2], "HEALTHCHECK", "exec")
    assert "http://127.0.0.1:8080/health/live" in command[2]


def test_no_base_image_floats() -> None:
    images = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert set(images) == {"${PYTHON_IMAGE}"}
    (pinned,) = [rest for word, rest in instructions() if word == "ARG" and rest.startswith("PYTHON_IMAGE=")]
    assert pinned == "PYTHON_IMAGE=python:3.12-slim-bookworm"


def test_the_torch_variant_is_an_argument_and_no_index_is_the_default() -> None:
    arguments = [rest for word, rest in instructions() if word == "ARG"]
    assert "TORCH=none" in arguments
    assert 'TORCH_INDEX_URL=""' in arguments
    assert COMPOSE["services"]["router"]["build"]["args"] == {
        "TORCH": "${TORCH:-none}",
        "TORCH_INDEX_URL": "${TORCH_INDEX_URL:-}",
    }


def test_the_image_starts_the_node_with_a_configuration_that_is_in_it() -> None:
    commands = {word: json.loads(rest) for word, rest in instructions() if word in ("ENTRYPOINT", "CMD")}
    assert commands["ENTRYPOINT"] == ["router"]
    assert commands["CMD"][:2] == ["serve", "--config"]
    name = commands["CMD"][2].removeprefix("/etc/router/")
    assert (ROOT / "config" / name).is_file()
    assert ("COPY", "config/ /etc/router/") in instructions()


def test_what_the_image_copies_is_let_through_to_the_builder_and_nothing_else() -> None:
    copied = {
        source.rstrip("/")
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for source in shlex.split(rest)[:-1]
    }
    ignore = [line for line in tree.read(".dockerignore").splitlines() if line and not line.startswith("#")]
    assert ignore[0] == "*"
    assert {line[1:].rstrip("/") for line in ignore if line.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)


def test_packages_named_in_the_dockerfile_have_the_bounds_of_pyproject() -> None:
    project = PYPROJECT["project"]
    known = {*project["dependencies"], *project["optional-dependencies"]["postgresql"]}
    named = set(re.findall(r'"([a-z\[\]-]+[<>=][^"]*)"', tree.read("Dockerfile")))
    assert named
    assert named <= known


# ---- lean installation


def test_lean_requirements_are_those_of_the_project_without_pytorch() -> None:
    lean = [line for line in tree.read("requirements/lean.txt").splitlines() if line and not line.startswith("#")]
    everything = bounds(PYPROJECT["project"]["dependencies"])
    left_out = ("torch", "torchxrayvision", "highdicom")
    assert bounds(lean) == {name: line for name, line in everything.items() if name not in left_out}


def test_every_dependency_is_bounded_from_below() -> None:
    assert [line for line in PYPROJECT["project"]["dependencies"] if ">=" not in line] == []


def test_the_forwarding_configuration_needs_no_classifier() -> None:
    read = settings.load(ROOT / "config" / "forward.toml")
    assert read.classifiers == {}
    assert all(not rule.classify for rule in read.rules)


# ---- one command for people and for CI


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_two_commands_of_the_readme_are_targets_and_ci_runs_the_second(target: str) -> None:
    assert f"make {target}" in tree.read("README.md")
    assert re.search(rf"^{target}:.* ## ", tree.read("Makefile"), re.MULTILINE)
    assert tree.read(".ci/run").rstrip().endswith("exec make test")
