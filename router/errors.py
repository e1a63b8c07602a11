"""Every error this node raises on purpose. The type says what to do with it.

    RouterError
    ├── ConfigError               .problems: one line per wrong key; raised before any socket opens
    ├── RefusedError              .status: the DIMSE status to answer
    ├── LeaseLost                 another worker took this task over: drop our work, write nothing
    ├── StillOwed                 a study cannot be forgotten: something is owed of it
    ├── TransientError            worth another try later
    │   ├── PeerUnreachable       no association could be opened, or it broke
    │   │   └── AssociationBroke  it broke while this very instance was under way
    │   ├── AssociationRejected   the peer said no to the association (transient until an operator says otherwise)
    │   ├── PeerBusy              0xA7xx, 0x0110: out of resources, processing failure
    │   ├── ChildDied             the classify child crashed, hung or ran out of memory over an image
    │   ├── ChildNotReady         it cannot be started: no image is to blame
    │   └── NotTold               a webhook or a mail server did not take a notification
    └── PermanentError            another try would fail the same way
        ├── NoAcceptedContext     the peer accepts no presentation context for this instance
        ├── PeerRefused           0xA9xx, 0xCxxx, 0x0122, 0x0124
        ├── SpoolDamaged          the spooled bytes are gone or are not the bytes that were received
        │   └── UnknownDigest     nobody can tell: what the ledger has is no digest
        ├── UnreadablePixels      no decoder here can read the pixel data
        ├── NotForThisClassifier  the gate refuses this image; .code says why in one word
        ├── NotReportable         the image lacks an attribute without which no result object can exist
        ├── WeightsUnavailable    no verified weights for a classifier
        └── NeverTold             a mail server refuses a notification, and would again

An exception that is none of these counts as transient, and its attempts are counted and capped.
"""

from __future__ import annotations

from collections.abc import Sequence


class RouterError(Exception):
    """Base of all of ours."""


class ConfigError(RouterError):
    """The configuration is wrong; `problems` has one line per wrong key."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class RefusedError(RouterError):
    """We refuse what a peer sent; `status` is the DIMSE status to answer (PS3.7 Annex C, PS3.4 B.2.3)."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class LeaseLost(RouterError):
    """Another worker took this task over."""


class StillOwed(RouterError):
    """A study cannot be forgotten, because something is owed of it or has failed."""


class TransientError(RouterError):
    """Worth another try later."""


class PeerUnreachable(TransientError):
    """No association could be opened, or the one we had broke."""


class AssociationBroke(PeerUnreachable):
    """The association broke while this very instance was under way: it may be what the peer dies of."""


class AssociationRejected(TransientError):
    """The peer answered A-ASSOCIATE-RJ."""


class PeerBusy(TransientError):
    """The peer is out of resources or failed to process; `status` is what it answered."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class ChildDied(TransientError):
    """The classify child crashed, hung or ran out of memory while it had this image."""


class ChildNotReady(TransientError):
    """The classify child cannot be started; whatever image waits for it is not to blame."""


class NotTold(TransientError):
    """A webhook or a mail server did not take a notification."""


class PermanentError(RouterError):
    """Another try would fail the same way."""


class NoAcceptedContext(PermanentError):
    """The peer accepts no presentation context for this SOP class and transfer syntax."""


class PeerRefused(PermanentError):
    """The peer refused this instance; `status` is what it answered."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class SpoolDamaged(PermanentError):
    """The spooled bytes are gone, or are not the bytes that were received."""


class UnknownDigest(SpoolDamaged):
    """A text is no digest that this program knows: whether bytes are those that were received cannot be told."""


class UnreadablePixels(PermanentError):
    """No decoder here can read the pixel data."""


class NotForThisClassifier(PermanentError):
    """The gate refuses this image; `code` is the coded reason (see `router.classify.gate.REASONS`)."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class NotReportable(PermanentError):
    """The source image lacks an attribute without which no result object can exist."""


class WeightsUnavailable(PermanentError):
    """A classifier's weights are neither in the cache nor to be had."""


class NeverTold(PermanentError):
    """A mail server refuses a notification, and would refuse it again."""
