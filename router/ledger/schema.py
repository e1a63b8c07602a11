"""The ledger's tables, the same on SQLite and PostgreSQL. Times are integer microseconds since 1970, UTC.

Task ids are never reused: (task id, attempts, lease) is the fencing token. Every index that claiming uses is partial, so
that a claim costs the same whatever the history.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
    text,
)
from sqlalchemy.sql.elements import ColumnElement

from router.core.lifecycle import OWED, TaskState

METADATA = MetaData()
# SQLite numbers rows by itself only in a column of exactly the type INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")


def word(text: str) -> ColumnElement[str]:
    """A word of ours, written out in the statement."""
    return literal_column(f"'{text}'", Text)


def is_state(column: ColumnElement[str], *states: TaskState) -> ColumnElement[bool]:
    """`column` is one of `states`, written out in the statement: a planner matches a partial index only by literals."""
    # Sorted, because an index on several states is matched by their list as it is written.
    literals = [word(value) for value in sorted(state.value for state in states)]
    return column == literals[0] if len(literals) == 1 else column.in_(literals)


meta = Table("meta", METADATA, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

instance = Table(
    "instance",
    METADATA,
    Column("instance_id", _Id, primary_key=True),
    Column("root_id", _Id, ForeignKey("instance.instance_id")),  # the original it derives from; null: it is one
    Column("kind", Text, nullable=False),
    Column("sop_instance_uid", Text, nullable=False),
    Column("sop_class_uid", Text, nullable=False),
    Column("study_instance_uid", Text, nullable=False),
    Column("series_instance_uid", Text, nullable=False),
    Column("transfer_syntax_uid", Text, nullable=False),
    Column("digest", Text, nullable=False),  # of its data set; the text says by which algorithm, see core.digest
    Column("byte_count", BigInteger, nullable=False),
    Column("spool_key", Text, nullable=False, unique=True),
    Column("received_at", BigInteger, nullable=False),
    Column("calling_ae_title", Text, nullable=False),
    Column("called_ae_title", Text, nullable=False),
    Column("peer_host", Text, nullable=False),
    Column("made_by_router", Boolean, nullable=False),
    Column("header", JSON, nullable=False),
    Column("rules", JSON, nullable=False),
    Column("notes", JSON, nullable=False),
    Column("conflict", Boolean, nullable=False),  # another row has the same SOP Instance UID and other bytes
    Column("bytes_freed_at", BigInteger),
    Column("bytes_missed_at", BigInteger),  # the janitor looked for the file and it was gone
    UniqueConstraint("sop_instance_uid", "digest"),
    sqlite_autoincrement=True,
)
Index("instance_study", instance.c.study_instance_uid)
Index(
    "instance_root",
    instance.c.root_id,
    sqlite_where=instance.c.root_id.is_not(None),
    postgresql_where=instance.c.root_id.is_not(None),
)
Index("instance_kind", instance.c.kind)
Index(
    "instance_held",
    instance.c.received_at,
    sqlite_where=instance.c.bytes_freed_at.is_(None),
    postgresql_where=instance.c.bytes_freed_at.is_(None),
)
Index(
    "instance_missed",
    instance.c.bytes_missed_at,
    sqlite_where=instance.c.bytes_missed_at.is_not(None),
    postgresql_where=instance.c.bytes_missed_at.is_not(None),
)

Index(
    "instance_freed",
    instance.c.bytes_freed_at,
    sqlite_where=instance.c.bytes_freed_at.is_not(None),
    postgresql_where=instance.c.bytes_freed_at.is_not(None),
)
Index(
    "instance_conflict",
    instance.c.instance_id,
    sqlite_where=text("conflict = 1"),  # as statements have it, so that a planner sees that the index fits
    postgresql_where=instance.c.conflict,
)

#: What people search for; see ledger.catalogue.
catalogue = Table(
    "catalogue",
    METADATA,
    Column("catalogue_id", _Id, primary_key=True),
    Column("study_instance_uid", Text, nullable=False),
    Column("patient_id", Text, nullable=False),
    Column("accession_number", Text, nullable=False),
    Column("calling_ae_title", Text, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    UniqueConstraint("study_instance_uid", "patient_id", "accession_number", "calling_ae_title"),
    sqlite_autoincrement=True,
)
Index("catalogue_patient", catalogue.c.patient_id, catalogue.c.catalogue_id)
Index("catalogue_accession", catalogue.c.accession_number, catalogue.c.catalogue_id)
Index("catalogue_ae_title", catalogue.c.calling_ae_title, catalogue.c.catalogue_id)

#: Originals that are no longer in the ledger and of which objects were made: should the same bytes come again, so must the
#: same objects, and when they came first is part of these. Nothing here says whose they were. See ledger.forgetting.
forgotten = Table(
    "forgotten",
    METADATA,
    Column("fingerprint", Text, primary_key=True),
    Column("received_at", BigInteger, nullable=False),
)

#: What peers asked us to commit to (N-ACTION).
commitment = Table(
    "commitment",
    METADATA,
    Column("commitment_id", _Id, primary_key=True),
    Column("transaction_uid", Text, nullable=False),
    Column("calling_ae_title", Text, nullable=False),
    Column("called_ae_title", Text, nullable=False),
    Column("peer_host", Text, nullable=False),
    Column("requested_at", BigInteger, nullable=False),
    Column("instances", JSON, nullable=False),  # [[SOP Class UID, SOP Instance UID], ...]
    Column("duplicate", Boolean, nullable=False),  # this peer used the Transaction UID before, for other instances
    Column("reported_at", BigInteger),  # when the peer took the report last
    Column("failed", JSON),  # what that report said: SOP Instance UID -> failure reason
    sqlite_autoincrement=True,
)
Index("commitment_uid", commitment.c.transaction_uid)

#: What we asked destinations to commit to, so that an answer finds its tasks, also a late one.
asked = Table(
    "asked",
    METADATA,
    Column("transaction_uid", Text, primary_key=True),
    Column("target", Text, nullable=False),
    Column("asked_at", BigInteger, nullable=False),
    Column("task_ids", JSON, nullable=False),
)

#: A message that is owed to one [notify.NAME]; facts join it until it is sealed, by the first try to send it.
notice = Table(
    "notice",
    METADATA,
    Column("notice_id", _Id, primary_key=True),
    Column("uid", Text, nullable=False, unique=True),  # what a receiver knows a second copy by
    Column("target", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("sealed_at", BigInteger),
    Column("note", Text, nullable=False, default=""),  # what the channel remarked when it took it
    sqlite_autoincrement=True,
)
Index("notice_group", notice.c.target, notice.c.event, notice.c.subject, notice.c.notice_id)

#: What a notice tells. The key makes that nobody is told of the same fact twice.
notice_fact = Table(
    "notice_fact",
    METADATA,
    Column("fact_id", _Id, primary_key=True),
    Column("notice_id", _Id, ForeignKey("notice.notice_id"), nullable=False),
    Column("target", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("instance_id", _Id),
    Column("root_id", _Id),
    Column("at", BigInteger, nullable=False),
    Column("detail", JSON, nullable=False),
    UniqueConstraint("target", "key"),
    sqlite_autoincrement=True,
)
Index("notice_fact_notice", notice_fact.c.notice_id, notice_fact.c.fact_id)
Index(
    "notice_fact_root",
    notice_fact.c.root_id,
    sqlite_where=notice_fact.c.root_id.is_not(None),
    postgresql_where=notice_fact.c.root_id.is_not(None),
)

#: A trouble from its beginning to its end: see core.notices.Episode. One at a time of each subject.
episode = Table(
    "episode",
    METADATA,
    Column("episode_id", _Id, primary_key=True),
    Column("event", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("began_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    sqlite_autoincrement=True,
)
Index(
    "episode_open",
    episode.c.event,
    episode.c.subject,
    unique=True,
    sqlite_where=episode.c.ended_at.is_(None),
    postgresql_where=episode.c.ended_at.is_(None),
)

task = Table(
    "task",
    METADATA,
    Column("task_id", _Id, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("instance_id", _Id, ForeignKey("instance.instance_id")),  # null only where commitment_id or notice_id is not
    Column("root_id", _Id),
    Column("commitment_id", _Id, ForeignKey("commitment.commitment_id")),
    Column("study_instance_uid", Text),  # of a summary alone
    Column("notice_id", _Id, ForeignKey("notice.notice_id")),
    Column("options", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("not_before", BigInteger),
    Column("lease", Text),  # whose claim; changes with every claim
    Column("lease_until", BigInteger),
    Column("claimed_at", BigInteger),  # when the last attempt began
    Column("settled_at", BigInteger),  # done, or failed for good
    Column("error", Text, nullable=False, default=""),
    sqlite_autoincrement=True,
)
for _name, _columns, _states in (
    ("task_ready", (task.c.kind, task.c.target, task.c.task_id), (TaskState.READY,)),
    ("task_retry", (task.c.kind, task.c.target, task.c.not_before, task.c.task_id), (TaskState.RETRY,)),
    ("task_leased", (task.c.kind, task.c.target, task.c.lease_until), (TaskState.LEASED,)),
    ("task_failed", (task.c.task_id,), (TaskState.FAILED,)),
    ("task_owed", (task.c.task_id,), tuple(OWED)),
):
    _where = is_state(task.c.state, *_states)
    Index(_name, *_columns, sqlite_where=_where, postgresql_where=_where)
Index("task_instance", task.c.instance_id)
Index("task_root", task.c.root_id)
Index(
    "task_commitment",
    task.c.commitment_id,
    sqlite_where=task.c.commitment_id.is_not(None),
    postgresql_where=task.c.commitment_id.is_not(None),
)
Index(
    "task_study",
    task.c.study_instance_uid,
    sqlite_where=task.c.study_instance_uid.is_not(None),
    postgresql_where=task.c.study_instance_uid.is_not(None),
)
Index(
    "task_notice",
    task.c.notice_id,
    sqlite_where=task.c.notice_id.is_not(None),
    postgresql_where=task.c.notice_id.is_not(None),
)
Index("task_counts", task.c.kind, task.c.target, task.c.state)

outcome = Table(
    "outcome",
    METADATA,
    Column("instance_id", _Id, ForeignKey("instance.instance_id"), primary_key=True),
    Column("classifier", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("code", Text, nullable=False),  # «analysed», or the code of the reason why not
    Column("outcome", JSON, nullable=False),
    Column("tally_id", _Id),  # where it is counted; null: it is older than tallies
)
Index("outcome_code", outcome.c.code)

#: How many outcomes of one day, UTC, by classifier, computation and calling AE title, and how their scores are distributed:
#: see ledger.outcomes. Stays when the rows of the images are expired; what is forgotten is taken out.
tally = Table(
    "tally",
    METADATA,
    Column("tally_id", _Id, primary_key=True),
    Column("classifier", Text, nullable=False),
    Column("day", Integer, nullable=False),  # since 1970-01-01
    Column("computation", Text, nullable=False),  # digest of the classifier's identity; empty: of what was not analysed
    Column("calling_ae_title", Text, nullable=False),
    Column("codes", JSON, nullable=False),  # outcome.code -> images
    Column("pace", JSON, nullable=False),  # when looks were made, and how long images had waited for them
    Column("scores", JSON, nullable=False),  # finding -> {"bins": [...], "present": n, "threshold": x}
    UniqueConstraint("classifier", "day", "computation", "calling_ae_title"),
    sqlite_autoincrement=True,
)

#: Every identity that a classifier had when it said something: what `tally.computation` is the digest of.
computation = Table(
    "computation",
    METADATA,
    Column("computation", Text, primary_key=True),
    Column("classifier", Text, nullable=False),
    Column("identity", JSON, nullable=False),
    Column("first_at", BigInteger, nullable=False),
)

event = Table(
    "event",
    METADATA,
    Column("event_id", _Id, primary_key=True),
    Column("root_id", _Id, nullable=False),
    Column("instance_id", _Id, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("what", Text, nullable=False),
    Column("kind", Text, nullable=False, default=""),
    Column("target", Text, nullable=False, default=""),
    Column("attempt", Integer, nullable=False, default=0),
    Column("detail", Text, nullable=False, default=""),
    sqlite_autoincrement=True,
)
Index("event_root", event.c.root_id, event.c.event_id)
