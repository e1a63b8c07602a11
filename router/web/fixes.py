"""What to do about a failed task, from its reason: for the person who is called at night."""

from __future__ import annotations

import re
from dataclasses import dataclass

from router.core.lifecycle import TaskKind


@dataclass(frozen=True, slots=True)
class Fix:
    """What helps, and a command that says more; empty when there is none."""

    text: str
    command: str = ""


#: Looked at in order; the first whose words stand in the reason is meant. `{target}` is the destination or classifier.
_FIXES: tuple[tuple[str, Fix], ...] = (
    (
        r"0x0124|not authorised",
        Fix("Let {target} accept what our AE title sends, then put the task back.", "router echo {target}"),
    ),
    (r"Storage Commitment", Fix("Switch storage commitment on at {target}, or off for it here (commitment = false).")),
    (
        r"only uncompressed, and it cannot be decompressed",
        Fix(
            "Let {target} accept this transfer syntax: the image is damaged, or no decoder here knows it. Then put the task back."
        ),
    ),
    (
        r"does not take .* in |0x0122|no accepted context|does not support the SOP class",
        Fix("Let {target} accept this SOP class and transfer syntax, then put the task back.", "router echo {target}"),
    ),
    (
        r"0xA9|0xC[0-9A-F]{3}|cannot understand the data set|does not match the SOP class",
        Fix(
            "{target} finds fault with the data set itself: its own log says which attribute. Mend it at the source and send the"
            " image again: the same bytes again only help when {target} was at fault."
        ),
    ),
    (
        r"something in this instance must be the reason",
        Fix(
            "{target} takes other instances, not this one; some archives want a Patient ID. Look at the image, and ask {target}'s log."
        ),
    ),
    (
        r"spool file|not what was received|is gone|DICM prefix|cut off",
        Fix(
            "The bytes in the spool are gone or damaged. Send the image again from its source: it takes the place of the old one."
        ),
    ),
    (
        r"rejected the association|AE title",
        Fix("Make AE titles agree on both sides, then put the task back.", "router echo {target}"),
    ),
    (
        r"is missing|cannot be referred to|cannot be copied",
        Fix("The image's header lacks what a report must name. The original is delivered; mend it at the source."),
    ),
)
_ELSE = {
    TaskKind.DELIVER.value: Fix(
        "Look whether {target} is there and takes images, then put the task back.", "router echo {target}"
    ),
    TaskKind.CLASSIFY.value: Fix(
        "The original is delivered all the same. Put the task back to have it looked at once more."
    ),
    TaskKind.COMMIT.value: Fix(
        "Ask {target} whether it has the image; then put the task back.", "router echo {target}"
    ),
    TaskKind.NOTIFY.value: Fix(
        "Look at [notify.{target}] and at the server it names; then put the task back.", "router notify --test {target}"
    ),
    TaskKind.REPORT.value: Fix(
        "The peer asked for storage commitment and cannot be told. Set peers[].port, or let it ask again."
    ),
}


def fix_for(*, kind: str, target: str, reason: str) -> Fix:
    """What helps."""
    found = next((fix for pattern, fix in _FIXES if re.search(pattern, reason)), None)
    if found is None or kind in (TaskKind.REPORT.value, TaskKind.NOTIFY.value):
        found = _ELSE.get(kind, Fix("Mend the cause, then put the task back."))
    return Fix(found.text.format(target=target), found.command.format(target=target))
