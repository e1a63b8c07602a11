"""What one association may cost us at most."""

from __future__ import annotations

from dataclasses import dataclass

#: Complete requests without an answer that the pynetdicom wire holds, the one being served included; then nothing more is
#: read until one is answered. The fast wire holds one: what else a peer sends waits in the kernel.
PIPELINED_MAX = 3
#: How many requests a peer may have open when it asks for asynchronous operations (PS3.7 D.3.3.3). They are served in order.
OPERATIONS_MAX = 16
#: N-EVENT-REPORTs that wait for their turn on one association; what is promised beyond that is told in another way.
FOLLOW_UPS_MAX = 64
#: A PDU or a data set must arrive at this rate at least, once its first seconds are over.
BYTES_PER_SECOND_MIN = 16_384
#: How long a peer may take to close the connection after our last word.
FAREWELL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WireLimits:
    """From the configuration; see settings.NodeSettings."""

    pdu_byte_count_max: int
    dataset_byte_count_max: int
    pdu_timeout_s: float
    idle_timeout_s: float
