"""Who gets which page: every route there is, and what becomes of those who may not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import pytest
from starlette.routing import Route

from router.web.app import ways
from router.web.paper import HEADERS, Paper
from router.web.ways import Need, Way
from tests.project import tree
from tests.web.site import PASSWORD, Site, form_token, sign_in

#: The one table of what each address needs. A route that is not here fails the tests.
TABLE = {
    "GET /static/{name}": Need.OPEN,
    "GET /welcome": Need.OPEN,
    "GET /sign-in": Need.OPEN,
    "POST /sign-in": Need.OPEN,
    "GET /health/live": Need.PROBE,
    "GET /health/ready": Need.PROBE,
    "GET /metrics": Need.PROBE,
    "POST /sign-out": Need.VIEWER,
    "GET /": Need.VIEWER,
    "GET /now": Need.VIEWER,
    "GET /studies": Need.VIEWER,
    "POST /studies": Need.VIEWER,
    "GET /studies/{uid}": Need.VIEWER,
    "GET /images/{instance_id:int}": Need.VIEWER,
    "GET /images/{instance_id:int}/pixels": Need.VIEWER,
    "GET /images/{instance_id:int}/picture": Need.VIEWER,
    "GET /images/{instance_id:int}/heat": Need.VIEWER,
    "GET /images/{instance_id:int}/map": Need.VIEWER,
    "GET /reports/{instance_id:int}": Need.VIEWER,
    "GET /failed": Need.VIEWER,
    "POST /failed/requeue": Need.OPERATOR,
    "GET /conflicts": Need.VIEWER,
    "GET /notifications": Need.VIEWER,
    "GET /rules": Need.VIEWER,
    "POST /rules/try": Need.OPERATOR,
    "GET /classifiers": Need.VIEWER,
}


def all_ways(site: Site) -> dict[str, Way]:
    paper = Paper(ae_title="ROUTER", sign_out=True)
    return {f"{way.method} {way.path}": way for way in ways(site.house, paper)}


def address(path: str) -> str:
    """A path with something in its places."""
    return (
        path.replace("{name}", "style.css")
        .replace("{uid}", "1.2.3")
        .replace("{instance_id:int}", "1")
        .replace("{search}", "x")
    )


def test_every_route_is_in_the_table_and_was_made_by_the_guard(site: Site) -> None:
    assert {name: way.needs for name, way in all_ways(site).items()} == TABLE
    routes = {route.name for route in site.app.routes if isinstance(route, Route)}
    assert routes == set(TABLE)
    assert len(site.app.routes) == len(TABLE)


def test_the_table_is_the_one_in_the_document() -> None:
    rows = [line for line in tree.read("docs/operating/access.md").splitlines() if line.startswith("| `")]
    documented = {}
    for line in rows:
        names, need = (cell.strip() for cell in line.strip("|").split(" | ", 1))
        for name in names.split(", "):
            documented[name.strip("`")] = need.split(":")[0].strip()
    words = {Need.OPEN: "everybody", Need.PROBE: "everybody", Need.VIEWER: "viewer", Need.OPERATOR: "operator"}
    assert documented == {name: words[need] for name, need in TABLE.items()}


@pytest.mark.parametrize("name", [name for name, need in TABLE.items() if need in (Need.VIEWER, Need.OPERATOR)])
def test_nobody_gets_anything_without_signing_in(site: Site, name: str) -> None:
    method, path = name.split(" ")
    answer = site.client().request(method, address(path))
    if method == "POST":
        assert answer.status_code in (401, 415)
        answer = site.client().request(method, address(path), data={"form_token": "x"})
        assert answer.status_code == 401
    elif all_ways(site)[name].background:
        assert (answer.status_code, answer.headers["hx-redirect"], answer.text) == (401, "/sign-in", "")
    else:
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/sign-in?next=/")


@pytest.mark.parametrize("name", [name for name, need in TABLE.items() if need is Need.OPERATOR])
def test_a_viewer_may_not_do_what_operators_may_and_the_try_is_written_down(site: Site, name: str) -> None:
    method, path = name.split(" ")
    client = site.signed_in("vera")
    token = form_token(client.get("/").text)
    assert client.request(method, address(path), data={"form_token": token}).status_code == 403
    assert 'originalText="Use of Restricted Function"' in site.audited()[-1]
    assert 'EventOutcomeIndicator="4"' in site.audited()[-1]


@pytest.mark.parametrize("name", [n for n, need in TABLE.items() if n.startswith("POST") and need is not Need.OPEN])
@pytest.mark.parametrize("forged", ["no token", "another's token", "another site"])
def test_a_form_of_another_site_does_nothing(site: Site, name: str, forged: str) -> None:
    client = site.signed_in("otto")
    token = form_token((site.signed_in("otto") if forged == "another's token" else client).get("/").text)
    headers = {"sec-fetch-site": "cross-site"} if forged == "another site" else {}
    data = {} if forged == "no token" else {"form_token": token}
    answer = client.post(address(name.split(" ")[1]), data={"x": "1", **data}, headers=headers)
    assert answer.status_code == 403
    assert client.get("/").status_code == 200, "still signed in: nothing was done"


@pytest.mark.parametrize(
    "name", [name for name, need in TABLE.items() if need in (Need.OPEN, Need.PROBE) and name.startswith("GET")]
)
def test_what_is_open_is_open(site: Site, name: str) -> None:
    site.status = site.status
    assert site.client().get(address(name.split(" ")[1])).status_code in (200, 303)


def test_every_answer_carries_the_headers_that_keep_other_sites_out(site: Site) -> None:
    client = site.client()
    for path in ("/", "/sign-in", "/metrics", "/health/ready", "/static/style.css", "/no-such-page"):
        headers = client.get(path).headers
        for name, value in HEADERS.items():
            assert headers[name] == value or (name == "Cache-Control" and path.startswith("/static")), (path, name)
        assert headers["Strict-Transport-Security"]
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_no_template_needs_what_the_policy_forbids() -> None:
    for path in tree.files(".html", under="router/web/templates"):
        text = path.read_text()
        assert "style=" not in text, path
        assert "<style" not in text, path
        assert " onclick" not in text, path
        assert "<script>" not in text, path
        assert "hx-on" not in text, path
        assert "http://" not in text, path
        assert "https://" not in text, path


def test_files_beside_the_static_ones_cannot_be_had(site: Site) -> None:
    client = site.client()
    for name in ("..%2Fapp.py", "%2e%2e/app.py", "nothing.css", "..%2F..%2F..%2Fpyproject.toml"):
        assert client.get(f"/static/{name}").status_code == 404


def test_whoever_signs_in_comes_to_the_page_that_was_asked_for_and_to_no_other_site(site: Site) -> None:
    assert sign_in(site.client(), "vera", to="/now").headers["location"] == "/now"
    for to in ("//evil.test", "https://evil.test", "/\\evil.test", "javascript:alert(1)", "/\t/evil.test", ""):
        assert sign_in(site.client(), "vera", to=to).headers["location"] == "/"


def test_the_session_cookie_is_for_https_this_host_and_no_script(site: Site) -> None:
    cookie = sign_in(site.client(), "VERA ").headers["set-cookie"]
    assert cookie.startswith("__Host-router-session=")
    assert {"httponly", "secure", "samesite=lax", "path=/"} <= {
        part.strip().lower() for part in cookie.split(",")[0].split(";")
    }


def test_a_session_ends_when_idle_when_old_and_by_signing_out(make_site: Callable[..., Site]) -> None:
    site = make_site(session_idle_s=100.0, session_age_max_s=250.0)
    client = site.signed_in("vera")
    for _ in range(2):
        site.seconds.now += 99
        assert client.get("/").status_code == 200
    site.seconds.now += 99
    assert client.get("/").status_code == 303, "old, though never idle"
    client = site.signed_in("vera")
    site.seconds.now += 101
    assert client.get("/").status_code == 303, "idle"
    client = site.signed_in("vera")
    stolen = dict(client.cookies)
    assert client.post("/sign-out", data={"form_token": form_token(client.get("/").text)}).status_code == 303
    thief = site.client()
    thief.cookies.update(stolen)
    assert thief.get("/").status_code == 303, "ended wherever its token is"


def test_a_page_that_updates_itself_keeps_nobody_signed_in(make_site: Callable[..., Site]) -> None:
    site = make_site(session_idle_s=100.0)
    client = site.signed_in("vera")
    for _ in range(3):
        site.seconds.now += 40
        answer = client.get("/now")
    assert (answer.status_code, answer.headers.get("hx-redirect")) == (401, "/sign-in")


def test_who_is_removed_or_has_a_new_password_is_signed_out_at_once_and_a_new_role_counts_at_once(site: Site) -> None:
    vera, otto = site.signed_in("vera"), site.signed_in("otto")
    site.users.set_password("vera", "another good password")
    assert vera.get("/").status_code == 303
    from router.web.users import Role

    site.users.set_role("otto", Role.VIEWER)
    assert "otto · viewer" in otto.get("/").text
    site.users.remove("otto")
    assert otto.get("/").status_code == 303


def test_wrong_guesses_have_to_wait_longer_and_longer_and_are_not_even_looked_at(site: Site) -> None:
    client = site.client()
    for _ in range(4):
        answer = sign_in(client, "vera", "not the password")
        assert answer.status_code == 401
        assert "Name or password is wrong" in answer.text
    answer = sign_in(client, "vera")  # the right one, too early
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) == 1
    assert sign_in(site.client(address="10.9.9.9"), "otto").status_code == 303, "others are not affected"
    messages = site.audited()
    assert sum("wrong password" in line for line in messages) == 4
    assert sum("too many wrong guesses" in line for line in messages) == 1


def test_a_name_that_nobody_has_is_answered_like_a_wrong_password_and_not_written_down(site: Site) -> None:
    answer = sign_in(site.client(), "my-secret-in-the-wrong-field", "x")
    known = sign_in(site.client(), "vera", "x")
    assert answer.status_code == known.status_code == 401
    assert (
        answer.text.replace("my-secret-in-the-wrong-field", "vera").split("form_token")[0]
        == known.text.split("form_token")[0]
    )
    assert "my-secret" not in "".join(site.audited())


def test_sign_in_needs_the_cookie_of_its_form(site: Site) -> None:
    client = site.client()
    data = {"name": "vera", "password": PASSWORD, "form_token": "x"}
    assert client.post("/sign-in", data=data).status_code == 400
    client.get("/sign-in")
    assert client.post("/sign-in", data=data).status_code == 403


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (b"{}", "application/json", 415),
        (b"x=" + b"y" * 70000, "application/x-www-form-urlencoded", 413),
        (b"x=\xff", "application/x-www-form-urlencoded", 400),
    ],
)
def test_what_is_no_small_form_is_refused(site: Site, content: bytes, kind: str, code: int) -> None:
    answer = site.client().post("/sign-in", content=content, headers={"content-type": kind})
    assert answer.status_code == code


def test_without_users_there_are_counts_and_how_to_make_one_and_nothing_else(make_site: Callable[..., Site]) -> None:
    site = make_site(users={})
    client = site.client()
    assert client.get("/").headers["location"] == "/welcome"
    page = client.get("/welcome").text
    assert "router user add NAME --role operator" in page
    assert client.get("/now").status_code == 401
    assert client.get("/sign-in").headers["location"] == "/welcome"
    from router.web.users import Role

    site.users.add("vera", Role.VIEWER, PASSWORD)
    assert client.get("/welcome").headers["location"] == "/"
    assert sign_in(client, "vera").status_code == 303


def test_users_that_others_can_read_open_no_door_and_the_page_says_so(site: Site) -> None:
    client = site.signed_in("vera")
    site.users_path.chmod(0o644)
    assert client.get("/").headers["location"] == "/welcome"
    assert "chmod 600" in client.get("/welcome").text


def test_when_the_audit_trail_cannot_be_written_nobody_signs_in(site: Site) -> None:
    site.audit_folder.path = site.users_path  # a file, where a folder should be
    answer = sign_in(site.client(), "vera")
    assert answer.status_code == 503
    assert "audit trail" in answer.text


def test_an_error_of_ours_is_a_page_and_an_event_and_says_nothing_of_itself(
    site: Site, told: list[tuple[str, Mapping[str, object]]]
) -> None:
    client = site.signed_in("vera")
    site.status = None  # type: ignore[assignment]
    answer = client.get("/")
    assert answer.status_code == 500
    assert "Traceback" not in answer.text
    assert "web.failed" in [event for event, _ in told]


# ---- a reverse proxy in front

PROXY = {"hosts": ["10.0.0.5"], "user_header": "X-User", "role_header": "X-Role"}


def test_the_proxys_word_is_believed_from_the_proxy_alone(make_site: Callable[..., Site]) -> None:
    site = make_site(users={}, trusted_proxy=PROXY)
    said = {"X-User": "dr.who", "X-Role": "viewer", "X-Forwarded-For": "6.6.6.6, 10.7.7.7"}
    page = site.client(address="10.0.0.5").get("/", headers=said)
    assert page.status_code == 200
    assert "dr.who · viewer" in page.text
    assert "Sign out" not in page.text
    assert site.client(address="10.0.0.6").get("/", headers=said).status_code == 403
    assert "10.0.0.6" in site.audited()[-1]
    assert site.client(address="10.0.0.5").get("/sign-in", headers=said).headers["location"] == "/"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-User": "dr.who"},
        {"X-User": "dr.who", "X-Role": "admin"},
        {"X-User": " ", "X-Role": "viewer"},
        [("X-User", "dr.who"), ("X-User", "otto"), ("X-Role", "viewer")],
    ],
)
def test_a_proxy_that_does_not_say_clearly_who_it_is_opens_nothing(
    make_site: Callable[..., Site], headers: object
) -> None:
    site = make_site(users={}, trusted_proxy=PROXY)
    assert site.client(address="10.0.0.5").get("/", headers=headers).status_code == 403  # type: ignore[arg-type]


def test_forms_behind_a_proxy_are_protected_too(make_site: Callable[..., Site]) -> None:
    site = make_site(users={}, trusted_proxy=PROXY)
    said = {"X-User": "dr.who", "X-Role": "operator"}
    client = site.client(address="10.0.0.5")
    assert client.post("/sign-out", data={"form_token": "x"}, headers=said).status_code == 403


def test_without_a_proxy_no_header_tells_a_user_or_an_address(site: Site) -> None:
    said = {"X-User": "otto", "X-Role": "operator", "X-Forwarded-For": "1.1.1.1", "Forwarded": "for=1.1.1.1"}
    client = site.client()
    assert client.get("/", headers=said).status_code == 303
    sign_in_page = form_token(client.get("/sign-in").text)
    client.post("/sign-in", data={"name": "vera", "password": "x", "form_token": sign_in_page}, headers=said)
    assert 'NetworkAccessPointID="10.1.2.3"' in site.audited()[-1]


def test_a_proxy_without_user_header_only_tells_addresses(make_site: Callable[..., Site]) -> None:
    site = make_site(trusted_proxy={"hosts": ["10.0.0.5"]})
    client = site.client(address="10.0.0.5")
    client.headers["X-Forwarded-For"] = "6.6.6.6, 10.7.7.7"
    assert sign_in(client, "vera").status_code == 303
    assert 'NetworkAccessPointID="10.7.7.7"' in site.audited()[-1]


def test_metrics_and_health_may_be_kept_to_some_addresses(make_site: Callable[..., Site]) -> None:
    site = make_site(metrics_hosts=["10.5.0.0/16", "127.0.0.1"])
    for path in ("/metrics", "/health/ready", "/health/live"):
        assert site.client(address="10.5.1.1").get(path).status_code == 200
        assert site.client(address="127.0.0.1").get(path).status_code == 200
        assert site.client(address="10.6.1.1").get(path).status_code == 403


def test_the_library_that_updates_pages_is_the_one_that_the_document_names() -> None:
    data = (tree.ROOT / "router" / "web" / "static" / "htmx-2.0.11.min.js").read_bytes()
    assert hashlib.sha256(data).hexdigest() in tree.read("docs/operating/dashboard.md")
