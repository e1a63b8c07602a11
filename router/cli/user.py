"""Commands for those who may see the pages: user add, list, passwd, role, remove."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import click

from router.audit import events
from router.audit.by_command import record
from router.audit.message import Action
from router.cli.console import OUT, config_option, json_option, table_of
from router.errors import ConfigError
from router.settings import Settings, load
from router.web.users import Role, UserFile, normal_name

_role = click.option(
    "--role", type=click.Choice([str(role) for role in Role]), default=str(Role.VIEWER), show_default=True
)
_stdin = click.option(
    "--password-stdin", "from_stdin", is_flag=True, help="Read the password from standard input, one line."
)


@click.group()
def user() -> None:
    """Who may see the dashboard: viewers look, operators also put failed tasks back."""


@user.command("add")
@click.argument("name")
@_role
@_stdin
@config_option
def user_add(name: str, role: str, from_stdin: bool, config: Path) -> None:
    """A new user. The password is asked for, or read from standard input; never given as an argument."""
    settings, name = load(config), normal_name(name)
    UserFile(settings.web.users_file).add(name, Role(role), _password(name, from_stdin=from_stdin))
    _record(settings, name=name, action=Action.CREATE, what=f"added as {role}")
    OUT.print(f"{name} may sign in as {role}", markup=False, highlight=False)


@user.command("list")
@config_option
@json_option
def user_list(config: Path, as_json: bool) -> None:
    """Users and their roles."""
    users = UserFile(load(config).web.users_file).users().values()
    if as_json:
        click.echo(json.dumps([{"name": u.name, "role": u.role, "changed_at": u.changed_at} for u in users], indent=2))
        return
    table = table_of("name", "role", "changed (UTC)")
    for one in users:
        table.add_row(one.name, one.role, one.changed_at)
    OUT.print(table)


@user.command("passwd")
@click.argument("name")
@_stdin
@config_option
def user_passwd(name: str, from_stdin: bool, config: Path) -> None:
    """A new password; whoever is signed in as this user is signed out."""
    settings, name = load(config), normal_name(name)
    file = UserFile(settings.web.users_file)
    if name not in file.users():
        raise ConfigError([f"there is no user {name}"])
    file.set_password(name, _password(name, from_stdin=from_stdin))
    _record(settings, name=name, action=Action.UPDATE, what="new password")
    OUT.print(f"{name} has a new password", markup=False, highlight=False)


@user.command("role")
@click.argument("name")
@click.argument("role", type=click.Choice([str(role) for role in Role]))
@config_option
def user_role(name: str, role: str, config: Path) -> None:
    """Another role, at once also for whoever is signed in."""
    settings, name = load(config), normal_name(name)
    UserFile(settings.web.users_file).set_role(name, Role(role))
    _record(settings, name=name, action=Action.UPDATE, what=f"now {role}")
    OUT.print(f"{name} is {role} now", markup=False, highlight=False)


@user.command("remove")
@click.argument("name")
@config_option
def user_remove(name: str, config: Path) -> None:
    """A user that may not sign in any more; whoever is signed in as this user is signed out."""
    settings, name = load(config), normal_name(name)
    UserFile(settings.web.users_file).remove(name)
    _record(settings, name=name, action=Action.DELETE, what="removed")
    OUT.print(f"{name} is removed", markup=False, highlight=False)


def _password(name: str, *, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True))


def _record(settings: Settings, *, name: str, action: Action, what: str) -> None:
    """Into the audit trail. Raises ConfigError: whoever keeps one must hear that it has a gap."""
    try:
        record(settings, partial(events.user_changed, name=name, action=action, what=what))
    except OSError as error:
        raise ConfigError(
            [f"audit.folder: done, but the audit trail could not be written: {error.strerror or error}"]
        ) from error
