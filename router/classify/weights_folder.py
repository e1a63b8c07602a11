"""A folder of verified weights: found, taken in once as safetensors, or fetched.

It holds, for each name, NAME.safetensors and NAME.lock.json. The lock says which file of its authors the tensors came from, by
what its digest was known, and what the converted file's digest is. `*.pt` files that a person puts there, under upstream's file
name or as NAME.pt, are taken in at the next start; so a machine without internet needs nothing else.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from router.classify.card import card_of, dumped
from router.classify.fetch import Progress, fetch, sha256_of
from router.classify.published import PUBLISHED, PublishedWeights
from router.classify.safe_pickle import Tensors, read_tensors
from router.classify.tensor_file import write_safetensors, write_whole
from router.classify.weights import Weights, described, examined, fits, from_file, verified
from router.errors import WeightsUnavailable
from router.observe.log import emit


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """NAME.lock.json: what was taken in."""

    name: str
    url: str
    source_sha256: str
    source_byte_count: int
    trust: str
    converted_sha256: str


class WeightsFolder:
    """A folder of weights. Several processes may use it at once."""

    def __init__(self, folder: Path, *, mirror: str = "") -> None:
        """`mirror` is an address under which upstream's files lie, instead of upstream's own."""
        self.folder = folder
        self._mirror = mirror.rstrip("/")

    def url(self, published: PublishedWeights) -> str:
        """Where weights would be fetched."""
        return f"{self._mirror}/{published.file_name}" if self._mirror else published.url

    def lock(self, published: PublishedWeights) -> Lock | None:
        """What was taken in under a name; None when nothing was. Raises WeightsUnavailable for an unreadable lock."""
        return self._own(published.name)

    def _own(self, name: str) -> Lock | None:
        path = self.folder / f"{name}.lock.json"
        try:
            return Lock(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise WeightsUnavailable(
                f"{path}: unreadable ({type(error).__name__}); remove it and fetch again"
            ) from None

    def find(self, published: PublishedWeights, *, sha256: str = "") -> Weights | None:
        """Weights that were taken in before; None when they were not. Raises WeightsUnavailable when they were changed."""
        lock = self.lock(published)
        path = self.folder / f"{published.name}.safetensors"
        if lock is None or not path.exists():
            return None
        expected = sha256 or published.sha256
        if expected and lock.source_sha256 != expected:
            raise WeightsUnavailable(f"{path}: made from a file with SHA-256 {lock.source_sha256}, not {expected}")
        _unchanged(path, lock)
        return Weights(card=card_of(published), sha256=lock.source_sha256, trust=lock.trust, path=path)

    def obtain(
        self, published: PublishedWeights, *, may_fetch: bool, sha256: str = "", progress: Progress | None = None
    ) -> Weights:
        """The weights, wherever they can be had: taken in before, put here by hand, or fetched.

        Raises WeightsUnavailable with one line that says what was looked for, where, and what would help.
        """
        with self._alone(published.name):
            found = self.find(published, sha256=sha256)
            if found is not None:
                return found
            for candidate in (self.folder / published.file_name, self.folder / f"{published.name}.pt"):
                if candidate.exists():
                    return self.take_in(candidate, published, sha256=sha256)
            if not may_fetch:
                raise WeightsUnavailable(self._not_here(published, "fetching is switched off"))
            return self._fetched(published, sha256, progress)

    def take_in(self, source: Path, published: PublishedWeights, *, sha256: str = "") -> Weights:
        """Checks a file of torch.save, writes it here as safetensors with its lock. Raises WeightsUnavailable."""
        trust, digest = verified(source, published, sha256 or self._first_used(published))
        card = card_of(published)
        examined_tensors = examined(read_tensors(source), card, source)
        found = Weights(card=card, sha256=digest, trust=trust, path=source)
        try:
            return self._kept(found, examined_tensors, url=self.url(published))
        except OSError:
            # A read-only folder: the verified file itself does as well, it is only read more slowly.
            return found

    def take_in_own(self, source: Path, card: Path | None, *, sha256: str = "") -> Weights:
        """The same for a site's own weights, with their card (see `weights.from_file`). Raises WeightsUnavailable."""
        found = from_file(source, card=card, sha256=sha256)
        if found.name in PUBLISHED:
            raise WeightsUnavailable(f"{source}: {found.name} is the name of weights that torchxrayvision publishes")
        with self._alone(found.name):
            kept = self._own(found.name)
            if kept is not None and kept.source_sha256 != found.sha256:
                raise WeightsUnavailable(
                    f"{self.folder}: holds other weights called {found.name}; give these another name or version them"
                )
            fits(found)
            tensors = examined(found.tensors(), found.card, source)
            try:
                return self._kept(found, tensors, url="")
            except OSError as error:
                raise WeightsUnavailable(f"{self.folder}: cannot be written ({error.strerror})") from None

    def own(self) -> list[Weights]:
        """A site's own weights that were taken in here. Raises WeightsUnavailable when one was changed."""
        if not self.folder.is_dir():
            return []
        found = []
        for path in sorted(self.folder.glob("*.safetensors")):
            lock = self._own(path.stem)
            if path.stem in PUBLISHED or lock is None:
                continue
            _unchanged(path, lock)
            found.append(Weights(card=described(path), sha256=lock.source_sha256, trust=lock.trust, path=path))
        return found

    def _kept(self, found: Weights, tensors: Tensors, *, url: str) -> Weights:
        """Writes tensors and lock. Raises OSError."""
        target = self.folder / f"{found.name}.safetensors"
        metadata = {
            "name": found.name,
            "architecture": found.architecture,
            "input_side": str(found.side),
            "labels": json.dumps(found.points.labels),
            "op_threshs": json.dumps(found.points.thresholds),
            "source_sha256": found.sha256,
            "card": dumped(found.card),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_safetensors(target, tensors, metadata)
        lock = Lock(
            name=found.name,
            url=url,
            source_sha256=found.sha256,
            source_byte_count=found.path.stat().st_size,
            trust=found.trust,
            converted_sha256=sha256_of(target),
        )
        write_whole(self.folder / f"{found.name}.lock.json", json.dumps(asdict(lock), indent=2).encode())
        return replace(found, path=target)

    def _first_used(self, published: PublishedWeights) -> str:
        lock = self.lock(published)
        return lock.source_sha256 if lock is not None else ""

    def _fetched(self, published: PublishedWeights, sha256: str, progress: Progress | None) -> Weights:
        url = self.url(published)
        emit("weights.fetching", weights=published.name, percent=0, url=url)
        target = self.folder / published.file_name
        expected = sha256 or published.sha256 or self._first_used(published)
        try:
            fetch(url, target, sha256=expected, progress=progress or _logged(published))
        except WeightsUnavailable as error:
            raise WeightsUnavailable(self._not_here(published, str(error))) from None
        except OSError as error:
            raise WeightsUnavailable(self._not_here(published, f"{self.folder}: {error.strerror}")) from None
        return self.take_in(target, published, sha256=sha256)

    def _not_here(self, published: PublishedWeights, why: str) -> str:
        return (
            f"no weights {published.name}: neither {published.name}.safetensors nor {published.file_name} is in "
            f"{self.folder}, and they could not be fetched ({why}). Fetch them with: router models fetch {published.name} "
            f"- or bring the file from {published.url} and run: router models import FILE"
        )

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """One process at a time takes in or fetches a name; a folder that cannot be written needs no lock."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / f".{name}.busy").open("wb")
        except OSError:
            yield
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _logged(published: PublishedWeights) -> Progress:
    """Progress for people who have only the log: a line for every quarter."""
    told = 0

    def progress(done: int, total: int | None) -> None:
        nonlocal told
        quarter = 4 * done // total if total else 0
        if quarter > told:
            told = quarter
            emit("weights.fetching", weights=published.name, percent=25 * quarter, byte_count=total)

    return progress


def _unchanged(path: Path, lock: Lock) -> None:
    if sha256_of(path) != lock.converted_sha256:
        raise WeightsUnavailable(f"{path}: not the file that was taken in; remove it and its lock and take it in again")
