"""What somebody does by a command goes into the same audit trail as what is done by the pages, whether the node runs or not."""

from __future__ import annotations

import os
from collections.abc import Callable

from router.audit import events
from router.audit.message import AuditMessage
from router.audit.trail import open_trail, process_owner
from router.settings import Settings

BY_COMMAND = "command line"


def record(settings: Settings, *messages: Callable[[events.Node, events.Person], AuditMessage]) -> None:
    """Returns once they are durable; what they speak of is to happen, or be shown, only then.

    The person is the user of the operating system. Raises ConfigError, OSError.
    """
    node = events.Node(ae_title=settings.node.ae_title, pid=os.getpid())
    person = events.Person(name=process_owner(), by=BY_COMMAND)
    trail = open_trail(settings.audit, ae_title=settings.node.ae_title)
    try:
        for message in messages:
            trail.record(message(node, person))
    finally:
        trail.close()
