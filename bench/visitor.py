"""Somebody who has signed in and opens pages, one after the other, over one connection; how long each took."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlencode

_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class WrongAnswer(Exception):
    """A page was not what it should be, so that its time means nothing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one request."""

    status: int
    location: str
    text: str


class Visitor:
    """With the cookies and the form token of a session."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=60)
        self._cookies: dict[str, str] = {}
        self._form_token = ""

    def sign_in(self, name: str, password: str) -> None:
        """Raises WrongAnswer."""
        form = self._ask("GET", "/sign-in")
        fields = {"name": name, "password": password, "next": "/", "form_token": _token(form.text)}
        if self._ask("POST", "/sign-in", fields).status != 303:
            raise WrongAnswer("cannot sign in")
        self._form_token = _token(self.get("/"))

    def get(self, path: str) -> str:
        """A page. Raises WrongAnswer."""
        answer = self._ask("GET", path)
        if answer.status not in (200, 503 if path == "/health/ready" else 200):
            raise WrongAnswer(f"{path} was answered with {answer.status}")
        return answer.text

    def search(self, fields: Mapping[str, str]) -> str:
        """What the form of studies leads to. Raises WrongAnswer."""
        answer = self._ask("POST", "/studies", {**fields, "form_token": self._form_token})
        if answer.status != 303:
            raise WrongAnswer(f"a search was answered with {answer.status}")
        return self.get(answer.location)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, method: str, path: str, fields: Mapping[str, str] | None = None) -> Answer:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        body = None
        if fields is not None:
            headers |= _FORM
            body = urlencode(fields)
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
        except ConnectionError:  # it was idle, and the node has closed it: a browser opens another one
            self._connection.close()
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
        text = response.read().decode(errors="replace")
        for line in response.headers.get_all("Set-Cookie") or ():
            name, _, value = line.partition(";")[0].partition("=")
            self._cookies[name] = value
        return Answer(response.status, response.headers.get("Location", ""), text)


def _token(page: str) -> str:
    found = re.search(r'name="form_token" value="([^"]+)"', page)
    if found is None:
        raise WrongAnswer("a page without a form")
    return found[1]
