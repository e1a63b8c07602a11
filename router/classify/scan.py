"""Scan headers of sequential JPEG put right: some encoders leave the limits of the spectrum at zero.

Sequential JPEG codes every coefficient in one scan, so T.81 lets these three bytes say only 0, 63 and 0. Encoders of the
first DICOM decade wrote others; libjpeg and dcmtk warn and decode, others refuse an image that has nothing else wrong.
"""

from __future__ import annotations

from router.errors import UnreadablePixels

_START, _SCAN = 0xD8, 0xDA
#: Baseline and extended sequential, Huffman coded: the two lossy processes that DICOM has left.
_SEQUENTIAL = (0xC0, 0xC1)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LIMITS = bytes((0, 63, 0))


def mended(frame: bytes) -> bytes:
    """The same codestream with the only limits that its process allows; unchanged when nothing is wrong.

    Only bytes of the first scan's header differ, so every pixel is what the encoder meant.
    Raises UnreadablePixels when there is no scan, or no longer. Source: ITU-T T.81 B.2.3, table B.3.
    """
    at, sequential = 2, False
    if frame[:2] != bytes((0xFF, _START)):
        raise UnreadablePixels("a JPEG frame does not begin like one")
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == 0xFF:  # fill
            at += 1
            continue
        end = at + 2 + length
        if marker == _SCAN and length >= 6 and end <= len(frame):
            if not sequential or frame[end - 3 : end] == _LIMITS:
                return frame
            return frame[: end - 3] + _LIMITS + frame[end:]
        sequential = marker in _SEQUENTIAL if marker in _FRAMES else sequential
        at = end
    if at + 4 > len(frame):
        raise UnreadablePixels("its compressed pixel data is cut off before the scan")
    raise UnreadablePixels("a JPEG frame has no scan")
