"""The life of one data folder: a node that is started, sent to and ended, again and again; then everything is looked for.

What was sent and what arrived is known from the senders and the destination; of the ledger only what is still owed is
asked, and by SQL of our own.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from router.faults import FAULT_POINTS
from tests.crash import senders
from tests.crash.disks import LoopDisk
from tests.crash.images import Image, digest, make
from tests.crash.recorder import Recorder, references
from tests.crash.senders import Sender
from tests.crash.tally import Tally
from tests.peers import Orthanc, StoreScp, wait_until
from tests.whole.router_process import CHEST_RULE, EVERYTHING_RULE, RouterProcess, destination

ASSOCIATIONS = 4
#: Deliveries that are claimed together: few, so that one that is made too often shows.
BATCH_MAX = 4
SUCCESS = 0x0000

#: Ends of a round besides the fault points.
AT_RANDOM, AT_START, SIGTERM = "at random", "at start", "SIGTERM"
CLASSIFY_POINTS = tuple(name for name in FAULT_POINTS if name.startswith("classify."))
FREE_POINTS = tuple(name for name in FAULT_POINTS if name.startswith("free."))
#: tests/whole/test_study_summary.py kills at these.
SUMMARY_POINTS = tuple(name for name in FAULT_POINTS if name.startswith("summary."))
#: tests/whole/test_notify.py kills at these.
NOTIFY_POINTS = tuple(name for name in FAULT_POINTS if name.startswith("notify."))
#: A command's, which tests/whole/test_forget.py cuts short.
FORGET_POINTS = tuple(name for name in FAULT_POINTS if name.startswith("forget."))
OTHER_POINTS = tuple(
    name
    for name in FAULT_POINTS
    if name not in (*CLASSIFY_POINTS, *FREE_POINTS, *SUMMARY_POINTS, *NOTIFY_POINTS, *FORGET_POINTS)
)


class Life:
    """One data folder and its destination, which is running already or will be."""

    def __init__(
        self,
        folder: Path,
        receiver: Recorder | StoreScp | Orthanc,
        *,
        chance: random.Random,
        classify: bool = False,
        free: bool = False,
        summarise: bool = False,
        send_again: bool = True,
        sender: Sender = senders.dcmsend,
        change: str = "",
        images_each: int = 6,
        spool_disk: LoopDisk | None = None,
        ledger_disk: LoopDisk | None = None,
    ) -> None:
        """`free`: bytes are freed at once and not after a day. `send_again`: what got no Success is sent in the next round.
        `summarise`: studies get their summary after half a second.

        `change` names one of tests.crash.bent. With disks, every end but SIGTERM is a loss of power.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.receiver = receiver
        self.tally = Tally()
        self.sent: dict[str, Image] = {}
        self.acknowledged: set[str] = set()
        self._chance = chance
        self._classify = classify
        self._free = free
        self._send_again = send_again
        self._sender = sender
        self._images_each = images_each
        self._disks = [disk for disk in {id(d): d for d in (spool_disk, ledger_disk)}.values() if disk is not None]
        self._unanswered: list[Image] = []
        self._child_starts_before = 0
        self._associations_max = 1 if isinstance(receiver, StoreScp) else 2
        table = destination(
            "pacs",
            receiver.ae_title,
            receiver.port,
            probe_cap_s=1,
            associations_max=self._associations_max,
            batch_max=BATCH_MAX,
        )
        chest_rule = CHEST_RULE
        if summarise:
            table += "\n[summary]\nquiet_s = 0.5\n"
            chest_rule = CHEST_RULE.replace('results = ["sr"]', 'results = ["sr", "study-summary"]')
        retention = "\nretention_s = 0" if free else ""
        self.node = RouterProcess(
            folder / "node",
            table,
            rules=(chest_rule, EVERYTHING_RULE) if classify else (EVERYTHING_RULE,),
            classifier='type = "demo"' if classify else "",
            spool='free_byte_count_min = "1 MiB"' + retention,
            spool_folder=spool_disk.path / "spool" if spool_disk else None,
            ledger_folder=ledger_disk.path if ledger_disk else None,
        )
        self.node.program = ("-X", "faulthandler", "-m", "router")
        if change:
            self.node.program = ("-m", "tests.crash.bent", change)

    # ---- rounds

    def round(self, end: str, *, passing: int = 1, associations: int = ASSOCIATIONS) -> bool:
        """Start, `associations` at once, the end. False when a fault point was not reached (then: killed when idle)."""
        fault = end if end in FAULT_POINTS else ""
        self.node.environment["ROUTER_FAULT"] = f"{fault}:{passing}" if fault else ""
        self._child_starts_before = self._child_starts()
        self.node.start(wait=False)
        reached = True
        try:
            if end == AT_START:
                time.sleep(self._chance.uniform(0.2, 2.0))  # the random moment itself, nothing is waited for
            else:
                wait_until(lambda: self.node.ended() or self._lives(), 60, "the node runs or is gone")
                if not self.node.ended():
                    reached = self._send_until(end, associations)
        finally:
            self._end()
            for disk in self._disks:
                disk.restore()
        self.tally.rounds += 1
        self.tally.ends[end if reached else AT_RANDOM] += 1
        return reached

    def _send_until(self, end: str, associations: int) -> bool:
        """Returns when the round's moment has come; True when it was the one asked for."""
        batches = self._batches(associations)
        with ThreadPoolExecutor(associations) as pool:
            running = [pool.submit(self._sender, self.node.port, batch) for batch in batches]
            if end in FAULT_POINTS:
                wait_until(
                    lambda: self.node.ended() or (all(r.done() for r in running) and self.owed_count() == 0),
                    120,
                    f"{end} is reached or nothing is left to do",
                )
            elif self._classify:  # the child takes seconds to start: the moment is somewhere in its work
                wait_until(lambda: self._child_starts() > self._child_starts_before, 60, "the classify child is there")
                time.sleep(self._chance.uniform(0, 1.5))
            else:
                time.sleep(self._chance.uniform(0, 1.0))
            reached = end not in FAULT_POINTS or self.node.ended()
            if end == SIGTERM:
                self._terminate()
            else:
                self._end()
            for sending, batch in zip(running, batches, strict=True):
                self._note(sending.result(), batch)
        return reached

    def _child_starts(self) -> int:
        """From the raw text: a child that sees its node killed may leave lines there that are no JSON."""
        log = self.node.log
        return log.read_text(errors="replace").count('"classify.child_started"') if log.exists() else 0

    def _end(self) -> None:
        """Power and process in one moment: what runs must not hear from a disk that has lost its power already.

        An ext4 that is shut down in the middle of an fdatasync says 0, and forgets what that was about (Linux 6.18: 14 of 300
        times, by a loop that writes, syncs and counts); no disk without power answers. A disk that fails and says so is
        another matter: tests/receive and tests/spool make each call fail.
        """
        if self._disks:
            self.node.freeze()
        for disk in self._disks:
            disk.cut_power()
        self.node.kill()

    def _terminate(self) -> None:
        """SIGTERM; a node that does not end by it leaves its stacks in the log."""
        try:
            code = self.node.stop()
        except subprocess.TimeoutExpired:
            os.kill(self.node.pid, signal.SIGABRT)
            self.node.wait()
            self.tally.not_ended.append("still running 30 s after SIGTERM")
        else:
            if code:
                self.tally.not_ended.append(f"exit code {code} after SIGTERM")

    def send_one_batch(self) -> None:
        """To a node that runs, over one association."""
        batch = self._batches(1)[0]
        self._note(self._sender(self.node.port, batch), batch)

    def _batches(self, associations: int) -> list[list[Image]]:
        """One list for each association, of the new and the unanswered; the first ends with its first image once more."""
        images = make(self.folder / "sent", associations * self._images_each)
        self.sent.update((image.uid, image) for image in images)
        if self._send_again:
            images += self._unanswered
        self._unanswered = []
        batches = [images[number::associations] for number in range(associations)]
        batches[0].append(batches[0][0])
        return batches

    def _note(self, answers: Sequence[tuple[str, int]], batch: Sequence[Image]) -> None:
        self.tally.sent += len(answers)
        for uid, status in answers:
            if status == SUCCESS:
                self.acknowledged.add(uid)
            else:
                self.tally.refused[f"0x{status:04X}"] += 1
        self._unanswered += [image for image in batch if image.uid not in self.acknowledged]

    # ---- the end

    def finish(self, deadline_s: float = 120) -> Tally:
        """Starts the node once more, sends what is left if it is to be sent, waits until nothing is owed, looks at everything."""
        self.node.environment["ROUTER_FAULT"] = ""
        self.node.start(wait=False)
        try:
            wait_until(self._lives, 60, "the node runs")
            if self._send_again and self._unanswered:
                batch, self._unanswered = self._unanswered, []
                self._note(self._sender(self.node.port, batch), batch)
            with contextlib.suppress(AssertionError):  # what is owed then is a finding of its own
                wait_until(lambda: self.owed_count() == 0, deadline_s, "nothing is owed any more")
            self._look()
        finally:
            self.node.kill()
        return self.tally

    def _lives(self) -> bool:
        """Not «ready»: a node that misses files says so there, and that is for us to find."""
        with contextlib.suppress(OSError):
            return self.node.get("/health/live")[0] == 200
        return False

    def owed_count(self) -> int:
        """Tasks that are neither done nor failed."""
        return int(self._ask("SELECT count(*) FROM task WHERE state NOT IN ('done', 'failed')")[0][0])

    def _look(self) -> None:
        tally = self.tally
        objects, reports, changed = self._at_destination()
        tally.acknowledged = len(self.acknowledged)
        tally.owed = self.owed_count()
        tally.failed = int(self._ask("SELECT count(*) FROM task WHERE state = 'failed'")[0][0])
        tally.lost = sorted(self.acknowledged - set(objects))
        tally.altered = sorted(
            uid for uid, digests in objects.items() if uid in self.sent and digests != {self.sent[uid].sha256}
        )
        all_reports = {uid for uids in reports.values() for uid in uids}
        tally.reports = len(all_reports)
        tally.strangers = sorted(
            (set(objects) - set(self.sent) - all_reports)
            | (set(reports) - set(self.sent))
            | self._reported_reports(reports)
        )
        if self._classify:
            tally.no_report = sorted(uid for uid in self.acknowledged if not reports.get(uid))
        tally.two_reports = sorted(uid for uid, uids in reports.items() if len(uids) > 1)
        tally.changed_reports = sorted(uid for uid in changed if uid not in self.sent)
        if isinstance(self.receiver, Recorder):
            tally.delivered_again = self.receiver.again_count()
            # What was claimed together may have been delivered and not been settled.
            most = tally.rounds * self._associations_max * BATCH_MAX
            if tally.delivered_again > most and not self._free:
                tally.delivered_too_often = [f"{tally.delivered_again} in {tally.rounds} rounds"]
        held = {str(key) for (key,) in self._ask("SELECT spool_key FROM instance WHERE bytes_freed_at IS NULL")}
        there = {path.name for path in (self.node.spool_folder / "objects").rglob("*") if path.is_file()}
        tally.orphans = len(there - held)
        tally.missing_files = len(held - there)

    @staticmethod
    def _reported_reports(reports: dict[str, set[str]]) -> set[str]:
        """Reports about reports."""
        made = {uid for uids in reports.values() for uid in uids}
        return made & set(reports)

    def _at_destination(self) -> tuple[dict[str, set[str]], dict[str, set[str]], set[str]]:
        """UID -> digests; image -> its reports; UIDs that came with different bytes."""
        if isinstance(self.receiver, Recorder):
            objects = self.receiver.objects()
            return objects, self.receiver.reported(), {uid for uid, digests in objects.items() if len(digests) > 1}
        if isinstance(self.receiver, StoreScp):
            files = {uid: path.read_bytes() for uid, path in self.receiver.received().items()}
        else:
            files = {uid: self.receiver.file(uid) for uid in self.receiver.instances()}
        return {uid: {digest(data)} for uid, data in files.items()}, references(files.values()), set()

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.node.ledger_path, timeout=30)) as connection:
            return connection.execute(query).fetchall()
