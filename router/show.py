"""The show child: one frame of one instance for the pages. A process for each, which may die: it decodes a stranger's pixels.

Composition root of its process, as `transcode` is of its own. It opens one file and nothing else, and loads no network.

    python -m router.show IN FRAME SIDE HOW TIME_LIMIT_S MEMORY_BYTE_COUNT

FRAME counts from 1; SIDE bounds the longest side, in pixels. HOW is "numbers" for `classify.film.Film.encoded`, compressed by gzip, or
a JSON object with any of "centre", "width", "inverted" for a PNG. The answer is a line of JSON, and behind it the bytes that it
announces: {"byte_count"} or {"problem": why there is no picture}.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import warnings
from io import BytesIO
from pathlib import Path

from router.confinement import bound_memory, for_one_answer
from router.errors import NotForThisClassifier, UnreadablePixels

#: Half a second for 15 million pixels; the best one would take ten times as long and save a tenth.
_GZIP_LEVEL = 1


def main(arguments: list[str]) -> int:
    """Exit 0 when it has answered, whatever the answer."""
    source, frame, side, how, time_limit_s, memory_byte_count = arguments
    answer = for_one_answer(float(time_limit_s))
    import router.classify.film
    import router.report.source  # noqa: F401 - before memory is bounded: libraries are no part of the image

    bound_memory(int(memory_byte_count))
    problem, body = _attempt(Path(source), int(frame), int(side), how)
    answer.write(json.dumps({"problem": problem} if problem else {"byte_count": len(body)}).encode() + b"\n" + body)
    answer.flush()
    return 0


def _attempt(source: Path, frame: int, side: int, how: str) -> tuple[str, bytes]:
    """Why there is no picture, or the picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote element values
            return "", shown(source, frame, side, how)
    except (UnreadablePixels, NotForThisClassifier) as error:
        return str(error), b""
    except MemoryError:
        return "decoding it needs more memory than is allowed", b""
    except Exception as error:  # noqa: BLE001 - whatever a parser says of hostile bytes
        return f"its data set cannot be read ({type(error).__name__})", b""


def shown(source: Path, frame: int, side: int, how: str) -> bytes:
    """See the module. Raises what `classify.film.film` raises, and what pydicom raises for a data set that it cannot read."""
    from router.classify.film import film
    from router.report.source import read_source

    made = film(read_source(source), frame - 1, side)
    if how == "numbers":
        return gzip.compress(made.encoded(), _GZIP_LEVEL, mtime=0)
    stream = BytesIO()
    made.drawn(**json.loads(how)).save(stream, "PNG", compress_level=_GZIP_LEVEL)
    return stream.getvalue()


if __name__ == "__main__":
    # Without running other libraries' exit handlers: nothing here needs them, and they can hang.
    os._exit(main(sys.argv[1:]))
