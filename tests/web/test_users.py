"""The file of users, and what becomes of passwords."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from router.cli import cli
from router.errors import ConfigError
from router.settings import WebSettings
from router.web import passwords
from router.web.door import check_access
from router.web.sessions import SESSIONS_MAX, Sessions
from router.web.throttle import KEYS_MAX, USER, Throttle
from router.web.users import Role, User, UserFile, make_first_user
from tests.web.site import PASSWORD, Seconds

cheap = partial(passwords.hash_password, log2_n=4)


@pytest.fixture
def users(tmp_path: Path) -> UserFile:
    return UserFile(tmp_path / "var" / "users.json", hash_it=cheap)


def test_a_hash_tells_the_right_password_from_a_wrong_one_and_takes_its_time() -> None:
    begun_s = time.thread_time()
    stored = passwords.hash_password(PASSWORD)
    assert time.thread_time() - begun_s > 0.02
    assert stored.startswith("scrypt$15$8$3$")
    assert PASSWORD not in stored
    assert passwords.verify(PASSWORD, stored)
    assert not passwords.verify(PASSWORD + " ", stored)
    assert cheap(PASSWORD) != cheap(PASSWORD), "salted"


def test_the_same_letters_typed_otherwise_are_the_same_password() -> None:
    assert passwords.verify("re\u0301sume\u0301 of ångström", cheap("résumé of a\u030angstro\u0308m"))


@pytest.mark.parametrize(
    "stored", ["", "md5$x", "scrypt$30$8$3$AA==$AA==", "scrypt$15$8$3$AA==", "scrypt$x$8$3$AA==$AA=="]
)
def test_what_is_no_hash_of_ours_opens_nothing(stored: str) -> None:
    with pytest.raises(ValueError):
        passwords.verify("x", stored)


@pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaaaaaa", "otto", "ottoottootto", "x" * 2000])
def test_a_password_that_is_easy_to_guess_or_endless_is_refused(users: UserFile, password: str) -> None:
    with pytest.raises(ConfigError):
        users.add("otto", Role.VIEWER, password)
    assert users.users() == {}


@pytest.mark.parametrize("name", ["", "Otto", "a b", "../x", "a" * 65, "-x", "x\n", "é"])
def test_what_is_no_user_name_is_refused(users: UserFile, name: str) -> None:
    with pytest.raises(ConfigError, match="no user name"):
        users.add(name, Role.VIEWER, PASSWORD)


def test_the_file_is_for_its_owner_only_from_its_first_byte_on_and_never_half_written(
    users: UserFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    users.add("otto", Role.OPERATOR, PASSWORD)
    assert stat.S_IMODE(users.path.stat().st_mode) == 0o600
    before = users.path.read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("router.web.users.os.fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        users.add("vera", Role.VIEWER, PASSWORD)
    assert users.path.read_bytes() == before
    assert [p.name for p in users.path.parent.iterdir() if p.suffix != ".lock"] == ["users.json"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 2, "users": []}', '{"version": 1, "users": [{"name": "x"}]}']
)
def test_a_damaged_file_is_a_clear_error_and_no_open_door(users: UserFile, content: str) -> None:
    users.path.parent.mkdir()
    users.path.write_text(content)
    users.path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"users\.json"):
        users.users()


def test_two_commands_at_once_lose_neither_user(users: UserFile) -> None:
    names = [f"user{n}" for n in range(12)]
    threads = [
        threading.Thread(target=UserFile(users.path, hash_it=cheap).add, args=(name, Role.VIEWER, PASSWORD))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(users.users()) == set(names)


def test_sessions_and_guesses_take_bounded_memory() -> None:
    clock = Seconds()
    sessions = Sessions(idle_s=100, age_max_s=100, now_s=clock)
    people = {str(n): User(name=str(n), role=Role.VIEWER, password_hash="h", changed_at="") for n in range(200)}
    tokens = [sessions.open(people[str(n % 200)]) for n in range(SESSIONS_MAX * 2)]
    assert sum(sessions.find(token, people) is not None for token in tokens) <= SESSIONS_MAX
    assert sessions.find(tokens[-1], people) is not None
    mine = [sessions.open(people["1"]) for _ in range(50)]
    assert sum(sessions.find(token, people) is not None for token in mine) == 20
    throttle = Throttle(USER, now_s=clock)
    for number in range(KEYS_MAX + 100):
        throttle.failed(str(number))
    assert len(throttle._records) == KEYS_MAX


def test_a_wait_doubles_up_to_its_bound_and_is_forgiven_after_an_hour_or_the_right_password() -> None:
    clock = Seconds()
    throttle = Throttle(USER, now_s=clock)
    waits = []
    for _ in range(12):
        throttle.failed("otto")
        waits.append(throttle.wait_s("otto"))
    assert waits == [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    clock.now += 3601
    throttle.failed("otto")
    assert throttle.wait_s("otto") == 0
    for _ in range(5):
        throttle.failed("otto")
    throttle.succeeded("otto")
    assert throttle.wait_s("otto") == 0


# ---- the node's start


def settings_of(users: UserFile, **more: object) -> WebSettings:
    return WebSettings.model_validate({"users_file": str(users.path), **more})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "router.hospital.example"])
def test_pages_are_not_opened_to_others_while_nobody_could_sign_in(users: UserFile, host: str) -> None:
    with pytest.raises(ConfigError, match="router user add NAME --role operator"):
        check_access(settings_of(users, host=host))
    check_access(
        settings_of(users, host=host, trusted_proxy={"hosts": ["10.0.0.5"], "user_header": "U", "role_header": "R"})
    )
    with pytest.raises(ConfigError):
        check_access(settings_of(users, host=host, trusted_proxy={"hosts": ["10.0.0.5"]}))
    users.add("otto", Role.OPERATOR, PASSWORD)
    check_access(settings_of(users, host=host))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_pages_for_this_machine_need_no_user_to_start(users: UserFile, host: str) -> None:
    check_access(settings_of(users, host=host))


def test_the_first_user_may_come_from_the_environment_once(users: UserFile) -> None:
    make_first_user(users.path, "")
    assert users.users() == {}
    with pytest.raises(ConfigError, match="ROUTER_PASSWORD: a password has at least 12"):
        make_first_user(users.path, "short")
    make_first_user(users.path, PASSWORD)
    first = users.users()["router"]
    assert first.role is Role.OPERATOR
    make_first_user(users.path, "another password of mine")
    assert users.users()["router"] == first


# ---- the commands


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "router.toml"
    path.write_text(f'[web]\nusers_file = "{tmp_path}/users.json"\n[audit]\nfolder = "{tmp_path}/audit"\n')
    return path


def run(config: Path, *arguments: str, typed: str = "") -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["user", *arguments, "--config", str(config)], input=typed)
    return done.exit_code, done.output + (str(done.exception) if done.exception else "")


def test_users_are_added_listed_changed_and_removed_by_command_and_each_change_is_audited(config: Path) -> None:
    assert run(config, "add", "Vera", "--password-stdin", typed=PASSWORD + "\n") == (0, "vera may sign in as viewer\n")
    code, output = run(config, "add", "otto", "--role", "operator", typed=f"{PASSWORD}\n{PASSWORD}\n")
    assert code == 0
    assert PASSWORD not in output
    code, output = run(config, "list", "--json")
    assert [(u["name"], u["role"]) for u in json.loads(output)] == [("otto", "operator"), ("vera", "viewer")]
    assert "scrypt" not in output
    assert run(config, "passwd", "vera", "--password-stdin", typed="a new password\n")[0] == 0
    assert run(config, "role", "vera", "operator")[0] == 0
    assert run(config, "remove", "otto")[0] == 0
    assert run(config, "remove", "otto")[0] == 1
    audit = "".join(path.read_text() for path in (config.parent / "audit").glob("*.log"))
    assert [audit.count(f'EventActionCode="{code}"') for code in "CUD"] == [2, 2, 1]
    assert audit.count('originalText="User security Attributes Changed"') == 5


def test_a_password_is_never_an_argument() -> None:
    for name in ("add", "passwd"):
        parameters = cli.commands["user"].commands[name].params  # type: ignore[attr-defined]
        assert not [p for p in parameters if "password" in (p.name or "") and not p.is_flag]
    assert "PASSWORD" not in os.environ
