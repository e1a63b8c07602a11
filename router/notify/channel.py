"""Ways to people: what the step that sends needs of each."""

from __future__ import annotations

from typing import Protocol

from router.core.ports import Clock
from router.notify.mail import Mail
from router.notify.message import Message
from router.notify.webhook import Webhook
from router.settings import NotifySettings


class Channel(Protocol):
    """One place where messages go."""

    @property
    def where(self) -> str:
        """For people and logs; no secret."""
        ...

    def check(self) -> None:
        """Raises NotTold when something that it needs of this machine is not there."""
        ...

    def send(self, message: Message) -> str:
        """What the place remarked, once it has the message; bounded in time. Raises NotTold, NeverTold."""
        ...


def open_channel(settings: NotifySettings, *, clock: Clock) -> Channel:
    """The one that the configuration names."""
    if settings.email is not None:
        return Mail(settings.email, clock=clock)
    assert settings.webhook is not None
    return Webhook(settings.webhook, clock=clock)
