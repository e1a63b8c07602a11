"""Every event the node logs: stable name -> what happened. `docs/operating/events.md` is made from this table."""

from __future__ import annotations

EVENTS: dict[str, str] = {
    # node
    "node.starting": "the process has read its configuration",
    "node.ready": "the port is open",
    "node.draining": "SIGTERM: no new associations, work in hand is finished",
    "node.stopped": "the process ends by itself",
    "node.failed": "the process cannot go on",
    "program.failed": "an error of the program ended a thread or the process: where it happened, never with what values",
    # receive
    "association.accepted": "a peer opened an association",
    "association.rejected": "a peer asked for an association and did not get it",
    "association.ended": "an association was released or aborted",
    "association.failed": "an association ended by a programming error; the others go on",
    "instance.received": "an instance is durable and everything owed for it is written down; Success is answered now",
    "instance.duplicate": "the same bytes again: Success, nothing new is owed",
    "instance.conflict": "the same SOP Instance UID with other bytes: kept apart and delivered as the rules say",
    "instance.refused": "a C-STORE was answered with a failure status",
    # storage commitment
    "commitment.asked": "a peer asked us to commit to instances (N-ACTION); it is written down and will be reported",
    "commitment.reported": "a peer has heard which of its instances we keep (N-EVENT-REPORT)",
    "commitment.not_reported": "a report could not be told to its peer; it is tried again, or waits for the peer to ask again",
    "commitment.refused": "an N-ACTION or N-EVENT-REPORT was answered with a failure status",
    "commitment.requested": "a destination was asked to commit to what it was sent",
    "commitment.not_requested": "a destination could not be asked to commit; it is asked again, or waits for an operator",
    "commitment.answered": "a destination said which instances it keeps; what it lacks is sent again",
    "commitment.off": "a destination is no longer asked to commit; what waited for that is done",
    # classify and report
    "classify.done": "an image has its prediction",
    "classify.not_analysed": "an image was looked at and will not get a prediction",
    "classify.child_started": "a classify child is ready",
    "classify.child_died": "a classify child crashed, hung or ran out of memory and was replaced",
    "summary.made": "a study to which nothing was added for a while has one report on all its images",
    "report.held_back": "a result object failed its check or could not be made; the original is not affected",
    # deliver
    "deliver.done": "a destination has an instance",
    "deliver.deferred": "a delivery failed and will be tried again",
    "deliver.replaced": "a destination does not take a result's SOP class; the same document in another one is sent",
    "deliver.failed": "a delivery failed for good and waits for an operator",
    "destination.down": "a destination cannot be reached; its lane waits and probes",
    "destination.up": "a destination that was down answers again",
    # work
    "task.deferred": "a task failed and will be tried again",
    "task.failed": "a task failed for good and waits for an operator",
    "task.lease_lost": "a worker came too late; its work was dropped",
    "worker.crashed": "a worker met a programming error and goes on with the next task",
    # spool and ledger
    "spool.orphan_removed": "a file without a ledger row was removed",
    "spool.file_missing": "a ledger row names a file that is gone: alarm",
    "spool.damaged": "spooled bytes are not the bytes that were received: alarm",
    "spool.freed": "bytes were freed after all deliveries and the retention time",
    "spool.short": "free space is under spool.free_byte_count_min: C-STORE is answered 0xA700",
    "ledger.expired": "rows were removed after ledger.retention_s",
    "ledger.opened": "the ledger is open",
    "ledger.taken_over": "the connection to PostgreSQL broke and another node has the ledger now: this one ends",
    "task.brought_forward": "tasks waited longer than they ever do, because a clock was set back: they are due in their usual time",
    # traces
    "traces.down": "the collector of traces cannot be reached; the ledger keeps what it misses, for a while",
    "traces.up": "the collector of traces takes spans again",
    # notifications
    "notify.sent": "a webhook or a mail server has taken a notification",
    "notify.deferred": "a notification could not be sent and will be tried again",
    "notify.failed": "a notification was tried often enough and waits for an operator",
    "notify.off": "a [notify.NAME] is no longer in the configuration; what it should still have heard is done",
    # pages and audit
    "web.failed": "a page could not be shown because of an error of the program",
    "web.cut_off": "a connection to the pages was too slow, or one too many, and was ended",
    "audit.failed": "an audit message could not be written: pages with patient data are not shown until one can",
    "audit.syslog_down": "the syslog receiver of the audit trail cannot be reached; messages wait, and lie in the files",
    "audit.syslog_up": "the syslog receiver of the audit trail takes messages again",
    "audit.syslog_lost": "the node ended before the syslog receiver had every audit message; the files have them",
    # weights
    "classify.gpu_unusable": "a GPU is there and no runtime can use it; the processor computes instead",
    "weights.fetching": "weights are being downloaded",
    "weights.first_use": "weights whose digest nobody told us were taken as they are; their digest is kept from now on",
    "weights.ready": "weights are verified and loaded",
    "weights.unavailable": "weights are neither in the cache nor to be had",
}
