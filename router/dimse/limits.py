"""What one association may cost us at most."""

from __future__ import annotations

from dataclasses import dataclass

#: Complete requests without an answer, the one being served included; then nothing more is read until one is answered.
PIPELINED_MAX = 3
#: A PDU or a data set must arrive at this rate at least, once its first seconds are over.
BYTES_PER_SECOND_MIN = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class WireLimits:
    """From the configuration; see settings.NodeSettings."""

    pdu_byte_count_max: int
    dataset_byte_count_max: int
    pdu_timeout_s: float
    idle_timeout_s: float
