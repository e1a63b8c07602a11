"""A file, or instances that came before, by the rules in force and by edited ones. Nothing is kept, nothing is sent."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, BinaryIO, cast

from router.core.admission import CANNOT_UNDERSTAND, DATA_SET_MISMATCH
from router.core.digest import Algorithm, Hasher
from router.core.explanation import Comparison, compare
from router.core.instance import ROUTING_KEYWORDS, SopInstance
from router.core.rules import PREDICATES, RuleBook
from router.deliver.sources import NotDicom, Source, look
from router.errors import RefusedError, SpoolDamaged
from router.ledger.search import Original
from router.receive.header import read_header
from router.settings import Settings
from router.spool.part10 import data_set_offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One instance by both."""

    instance: SopInstance
    comparison: Comparison
    instance_id: int | None = None
    """In the ledger; None for a file."""
    unknown: tuple[str, ...] = ()
    """What rules ask and nobody knows any more: the ledger did not keep it and the bytes are freed. Taken as absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Instances that came before, by the rules in force and by edited ones."""

    tried: tuple[Tried, ...]
    left_count: int = 0
    """Instances that were not looked at, because the others had taken too long."""

    @property
    def changed(self) -> tuple[Tried, ...]:
        """Those with which something else would be done."""
        return tuple(one for one in self.tried if one.comparison.changes)

    @property
    def unchanged(self) -> tuple[Tried, ...]:
        """Those with which the same would be done."""
        return tuple(one for one in self.tried if not one.comparison.changes)


def instance_in(
    stream: IO[bytes],
    source: Source,
    settings: Settings,
    *,
    calling_ae_title: str = "",
    digest: Algorithm | None = None,
) -> SopInstance:
    """The instance in a file as the node would see it on arrival; no pixel is read. Raises RefusedError, OSError.

    `digest`: by what it is hashed, if not by what the settings say.
    """
    hasher = Hasher(digest or settings.spool.digest)
    stream.seek(source.data_set_offset)
    byte_count = hasher.update_to_end(stream)
    header = read_header(
        cast(BinaryIO, stream),
        offset=source.data_set_offset,
        byte_count=byte_count,
        transfer_syntax_uid=source.transfer_syntax_uid,
        keywords=settings.header_keywords(),
    )
    if header.identity.sop_instance_uid not in ("", source.sop_instance_uid):
        raise RefusedError("File Meta Information and data set name different SOP instances", status=DATA_SET_MISMATCH)
    return SopInstance(
        sop_instance_uid=source.sop_instance_uid,
        sop_class_uid=header.identity.sop_class_uid,
        study_instance_uid=header.identity.study_instance_uid,
        series_instance_uid=header.identity.series_instance_uid,
        transfer_syntax_uid=source.transfer_syntax_uid,
        digest=hasher.text(),
        byte_count=byte_count,
        spool_key="",
        received_at=datetime.now(UTC),
        calling_ae_title=calling_ae_title,
        called_ae_title=settings.node.ae_title,
        made_by_router=header.made_by_router,
        header=header.values,
    )


def try_file(
    open_file: Callable[[], IO[bytes]], settings: Settings, edited: Settings, *, calling_ae_title: str
) -> Tried:
    """What would be done with a file that somebody has. Raises RefusedError, with a sentence for them."""
    source = look("the file", open_file)
    if isinstance(source, NotDicom):
        raise RefusedError(source.reason, status=CANNOT_UNDERSTAND)
    both = settings.model_copy(update={"rules": (*settings.rules, *edited.rules)})
    with open_file() as stream:
        instance = instance_in(stream, source, both, calling_ae_title=calling_ae_title)
    return Tried(instance=instance, comparison=compare(instance, now=settings.rule_book(), edited=edited.rule_book()))


def try_past(
    originals: Sequence[Original],
    *,
    now: RuleBook,
    edited: RuleBook,
    spool_path: Callable[[str], Path],
    seconds_max: float = math.inf,
) -> Trial:
    """What would be otherwise with instances that came before; after `seconds_max` the rest is left out.

    Their headers are the ledger's; what it did not keep comes from the bytes, while the spool has them. `spool_path` may
    raise SpoolDamaged.
    """
    asked = (now.names | edited.names) - set(PREDICATES)
    end_s = time.monotonic() + seconds_max
    tried: list[Tried] = []
    for original in originals:
        if tried and time.monotonic() > end_s:
            break
        instance, unknown = _with(original, asked, spool_path)
        comparison = compare(instance, now=now, edited=edited)
        tried.append(Tried(instance=instance, comparison=comparison, instance_id=original.instance_id, unknown=unknown))
    return Trial(tried=tuple(tried), left_count=len(originals) - len(tried))


def _with(
    original: Original, asked: Iterable[str], spool_path: Callable[[str], Path]
) -> tuple[SopInstance, tuple[str, ...]]:
    """The instance with everything that is asked of it, and what cannot be known."""
    instance = original.instance
    missing = tuple(sorted(set(asked) - set(ROUTING_KEYWORDS) - set(instance.header)))
    if not missing:
        return instance, ()
    try:
        values = _read(spool_path(instance.spool_key), instance, missing)
    except (SpoolDamaged, RefusedError, OSError):
        return instance, missing
    return replace(instance, header={**instance.header, **values}), ()


def _read(path: Path, instance: SopInstance, keywords: Collection[str]) -> dict[str, str]:
    offset = data_set_offset(path)
    with path.open("rb") as stream:
        header = read_header(
            stream,
            offset=offset,
            byte_count=path.stat().st_size - offset,
            transfer_syntax_uid=instance.transfer_syntax_uid,
            keywords=keywords,
        )
    return dict(header.values)
