"""Steps from one version of the ledger's schema to the next, as SQL: they stay as they were released, whatever schema.py becomes."""

from __future__ import annotations

from sqlalchemy import Connection

_COMMITMENT = """
CREATE TABLE commitment (
    commitment_id {id} PRIMARY KEY,
    transaction_uid TEXT NOT NULL,
    calling_ae_title TEXT NOT NULL,
    called_ae_title TEXT NOT NULL,
    peer_host TEXT NOT NULL,
    requested_at BIGINT NOT NULL,
    instances JSON NOT NULL,
    duplicate BOOLEAN NOT NULL,
    reported_at BIGINT,
    failed JSON
)"""
_ASKED = """
CREATE TABLE asked (
    transaction_uid TEXT NOT NULL PRIMARY KEY,
    target TEXT NOT NULL,
    asked_at BIGINT NOT NULL,
    task_ids JSON NOT NULL
)"""
# SQLite cannot take a NOT NULL from a column: the table is copied.
_TASK = """
CREATE TABLE task_2 (
    task_id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    instance_id INTEGER REFERENCES instance (instance_id),
    root_id INTEGER,
    commitment_id INTEGER REFERENCES commitment (commitment_id),
    options JSON NOT NULL,
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    attempts INTEGER NOT NULL,
    not_before BIGINT,
    lease TEXT,
    lease_until BIGINT,
    settled_at BIGINT,
    error TEXT NOT NULL
)"""
_COPY_TASKS = """
INSERT INTO task_2 (task_id, kind, target, instance_id, root_id, options, state, created_at,
    attempts, not_before, lease, lease_until, settled_at, error)
SELECT task_id, kind, target, instance_id, root_id, options, state, created_at,
    attempts, not_before, lease, lease_until, settled_at, error
FROM task ORDER BY task_id"""
_TASK_RETRY = "CREATE INDEX task_retry ON task (kind, target, not_before, task_id) WHERE state = 'retry'"
_TASK_INDEXES = (
    "CREATE INDEX task_ready ON task (kind, target, task_id) WHERE state = 'ready'",
    _TASK_RETRY,
    "CREATE INDEX task_leased ON task (kind, target, lease_until) WHERE state = 'leased'",
    "CREATE INDEX task_failed ON task (task_id) WHERE state = 'failed'",
    "CREATE INDEX task_owed ON task (task_id) WHERE state IN ('leased', 'ready', 'retry')",
    "CREATE INDEX task_instance ON task (instance_id)",
    "CREATE INDEX task_root ON task (root_id)",
    "CREATE INDEX task_counts ON task (kind, target, state)",
)


def to_version_2(connection: Connection) -> None:
    """Storage commitment: a task may be about a request of a peer instead of an instance."""
    sqlite = connection.dialect.name == "sqlite"
    statements = [
        _COMMITMENT.format(id="INTEGER NOT NULL" if sqlite else "BIGSERIAL NOT NULL"),
        "CREATE INDEX commitment_uid ON commitment (transaction_uid)",
        _ASKED,
    ]
    if sqlite:
        statements[0] = statements[0].replace("PRIMARY KEY", "PRIMARY KEY AUTOINCREMENT")
        statements += [
            _TASK,
            _COPY_TASKS,
            "DROP TABLE task",
            "ALTER TABLE task_2 RENAME TO task",
            *_TASK_INDEXES,
        ]
    else:
        statements += [
            "ALTER TABLE task ALTER COLUMN instance_id DROP NOT NULL",
            "ALTER TABLE task ALTER COLUMN root_id DROP NOT NULL",
            "ALTER TABLE task ADD COLUMN commitment_id BIGINT REFERENCES commitment (commitment_id)",
            "DROP INDEX task_retry",
            _TASK_RETRY,
        ]
    statements.append("CREATE INDEX task_commitment ON task (commitment_id) WHERE commitment_id IS NOT NULL")
    for statement in statements:
        connection.exec_driver_sql(statement)


_CATALOGUE = """
CREATE TABLE catalogue (
    catalogue_id {key},
    study_instance_uid TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    accession_number TEXT NOT NULL,
    calling_ae_title TEXT NOT NULL,
    first_at BIGINT NOT NULL,
    UNIQUE (study_instance_uid, patient_id, accession_number, calling_ae_title)
)"""
_FILL_CATALOGUE = """
INSERT INTO catalogue (study_instance_uid, patient_id, accession_number, calling_ae_title, first_at)
SELECT study_instance_uid, coalesce({patient_id}, ''), coalesce({accession_number}, ''), calling_ae_title, min(received_at)
FROM instance WHERE root_id IS NULL GROUP BY 1, 2, 3, 4 ORDER BY min(instance_id)"""


_TALLY = """
CREATE TABLE tally (
    tally_id {key},
    classifier TEXT NOT NULL,
    day INTEGER NOT NULL,
    computation TEXT NOT NULL,
    calling_ae_title TEXT NOT NULL,
    codes JSON NOT NULL,
    pace JSON NOT NULL,
    scores JSON NOT NULL,
    UNIQUE (classifier, day, computation, calling_ae_title)
)"""
_COMPUTATION = """
CREATE TABLE computation (
    computation TEXT NOT NULL PRIMARY KEY,
    classifier TEXT NOT NULL,
    identity JSON NOT NULL,
    first_at BIGINT NOT NULL
)"""


_NOTICES = (
    """
CREATE TABLE notice (
    notice_id {key},
    uid TEXT NOT NULL UNIQUE,
    target TEXT NOT NULL,
    event TEXT NOT NULL,
    subject TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    sealed_at BIGINT,
    note TEXT NOT NULL
)""",
    "CREATE INDEX notice_group ON notice (target, event, subject, notice_id)",
    """
CREATE TABLE notice_fact (
    fact_id {key},
    notice_id {id} NOT NULL REFERENCES notice (notice_id),
    target TEXT NOT NULL,
    key TEXT NOT NULL,
    instance_id {id},
    root_id {id},
    at BIGINT NOT NULL,
    detail JSON NOT NULL,
    UNIQUE (target, key)
)""",
    "CREATE INDEX notice_fact_notice ON notice_fact (notice_id, fact_id)",
    "CREATE INDEX notice_fact_root ON notice_fact (root_id) WHERE root_id IS NOT NULL",
    """
CREATE TABLE episode (
    episode_id {key},
    event TEXT NOT NULL,
    subject TEXT NOT NULL,
    began_at BIGINT NOT NULL,
    ended_at BIGINT
)""",
    "CREATE UNIQUE INDEX episode_open ON episode (event, subject) WHERE ended_at IS NULL",
    "ALTER TABLE task ADD COLUMN notice_id {id} REFERENCES notice (notice_id)",
    "CREATE INDEX task_notice ON task (notice_id) WHERE notice_id IS NOT NULL",
)


# As PostgreSQL names it by itself in a new ledger.
_UNIQUE_INSTANCE = (
    "ALTER INDEX IF EXISTS instance_sop_instance_uid_sha256_key RENAME TO instance_sop_instance_uid_digest_key"
)


def to_version_3(connection: Connection) -> None:
    """Summaries of studies: a task may be about all images of one. A catalogue of what people search for. What is forgotten.
    Tallies of outcomes, which begin with this version. A digest's text says by which algorithm it is; those that are there
    are SHA-256 (core.digest).
    """
    sqlite = connection.dialect.name == "sqlite"
    key = "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT" if sqlite else "BIGSERIAL NOT NULL PRIMARY KEY"
    number = "INTEGER" if sqlite else "BIGINT"
    for statement in (
        "ALTER TABLE instance RENAME COLUMN sha256 TO digest",
        *(() if sqlite else (_UNIQUE_INSTANCE,)),
        "ALTER TABLE task ADD COLUMN study_instance_uid TEXT",
        "ALTER TABLE task ADD COLUMN claimed_at BIGINT",
        "CREATE INDEX task_study ON task (study_instance_uid) WHERE study_instance_uid IS NOT NULL",
        "CREATE INDEX instance_freed ON instance (bytes_freed_at) WHERE bytes_freed_at IS NOT NULL",
        "CREATE TABLE forgotten (fingerprint TEXT NOT NULL PRIMARY KEY, received_at BIGINT NOT NULL)",
        f"CREATE INDEX instance_conflict ON instance (instance_id) WHERE conflict{' = 1' if sqlite else ''}",
        _CATALOGUE.format(key=key),
        "CREATE INDEX catalogue_patient ON catalogue (patient_id, catalogue_id)",
        "CREATE INDEX catalogue_accession ON catalogue (accession_number, catalogue_id)",
        "CREATE INDEX catalogue_ae_title ON catalogue (calling_ae_title, catalogue_id)",
        *(statement.format(key=key, id=number) for statement in _NOTICES),
        _TALLY.format(key=key),
        _COMPUTATION,
        f"ALTER TABLE outcome ADD COLUMN tally_id {'INTEGER' if sqlite else 'BIGINT'}",
        _FILL_CATALOGUE.format(
            patient_id="json_extract(header, '$.PatientID')" if sqlite else "header->>'PatientID'",
            accession_number="json_extract(header, '$.AccessionNumber')" if sqlite else "header->>'AccessionNumber'",
        ),
    ):
        connection.exec_driver_sql(statement)
