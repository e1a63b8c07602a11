"""Verified weights on this machine: found, taken in once as safetensors, or fetched. Needs no torch, executes no pickle.

A weights folder holds, for each name, NAME.safetensors and NAME.lock.json. The lock says which upstream file the tensors came
from, by what its digest was known, and what the converted file's digest is. `*.pt` files that a person puts there, under
upstream's file name or as NAME.pt, are taken in at the next start; so a machine without internet needs nothing else.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from router.classify.fetch import Progress, fetch, sha256_of
from router.classify.network import RESNET
from router.classify.published import PUBLISHED, PublishedWeights
from router.classify.safe_pickle import Tensors, read_tensors
from router.classify.scoring import OperatingPoints
from router.errors import WeightsUnavailable
from router.observe.log import emit

FIRST_USE = "first use"
PINNED = "digest known to the router"
GIVEN = "digest given by the operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Weights that are on this machine and are the bytes they should be."""

    name: str
    architecture: str
    side: int
    points: OperatingPoints
    sha256: str
    """Of the file as its authors published it, hexadecimal."""
    trust: str
    """How that digest is known: FIRST_USE, PINNED or GIVEN."""
    path: Path

    def tensors(self) -> Tensors:
        """By name. Raises WeightsUnavailable."""
        return read_safetensors(self.path) if self.path.suffix == ".safetensors" else read_tensors(self.path)


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
        path = self.folder / f"{published.name}.lock.json"
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
        if sha256_of(path) != lock.converted_sha256:
            raise WeightsUnavailable(f"{path}: not the file that was taken in; remove it and its lock and fetch again")
        return _weights(published, path, lock.source_sha256, lock.trust)

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
        tensors = _checked(read_tensors(source), published, source)
        target = self.folder / f"{published.name}.safetensors"
        metadata = {
            "name": published.name,
            "architecture": published.architecture,
            "input_side": str(published.side),
            "labels": json.dumps(published.points.labels),
            "op_threshs": json.dumps(published.points.thresholds),
            "source_sha256": digest,
            "source_url": published.url,
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_safetensors(target, tensors, metadata)
            lock = Lock(
                name=published.name,
                url=self.url(published),
                source_sha256=digest,
                source_byte_count=source.stat().st_size,
                trust=trust,
                converted_sha256=sha256_of(target),
            )
            _write(self.folder / f"{published.name}.lock.json", json.dumps(asdict(lock), indent=2).encode())
        except OSError:
            # A read-only folder: the verified file itself does as well, it is only read more slowly.
            return _weights(published, source, digest, trust)
        return _weights(published, target, digest, trust)

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


def from_file(path: Path, *, sha256: str = "") -> Weights:
    """Weights in a file that the configuration names: upstream's .pt, or safetensors with our metadata.

    Raises WeightsUnavailable when it is neither, or not the bytes it should be.
    """
    if not path.is_file():
        raise WeightsUnavailable(f"no weights file {path}")
    if path.suffix != ".safetensors":
        published = identify(path)
        trust, digest = verified(path, published, sha256)
        return _weights(published, path, digest, trust)
    digest = sha256_of(path)
    if sha256 and digest != sha256:
        raise WeightsUnavailable(f"{path}: SHA-256 is {digest}, not {sha256}")
    metadata = read_metadata(path)
    try:
        return Weights(
            name=metadata["name"],
            architecture=metadata["architecture"],
            side=int(metadata["input_side"]),
            points=OperatingPoints(
                labels=tuple(json.loads(metadata["labels"])),
                thresholds=tuple(json.loads(metadata["op_threshs"])),
                source="the weights file's",
            ),
            sha256=digest,
            trust=GIVEN if sha256 else FIRST_USE,
            path=path,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsUnavailable(
            f"{path}: its metadata must have name, architecture, input_side, labels and op_threshs ({error})"
        ) from None


def identify(path: Path) -> PublishedWeights:
    """Which published weights a file is, by its name or by its digest. Raises WeightsUnavailable."""
    for published in PUBLISHED.values():
        if path.name == published.file_name or path.stem == published.name:
            return published
    digest = sha256_of(path)
    for published in PUBLISHED.values():
        if published.sha256 == digest:
            return published
    raise WeightsUnavailable(
        f"{path}: cannot tell which weights these are; name the file NAME.pt, where NAME is one of: {', '.join(PUBLISHED)}"
    )


def verified(path: Path, published: PublishedWeights, sha256: str = "") -> tuple[str, str]:
    """How a file's digest is known, and the digest. Raises WeightsUnavailable when it is another one than it should be."""
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise WeightsUnavailable(f"{path}: {error.strerror}") from None
    expected = sha256 or published.sha256
    if not expected:
        return FIRST_USE, digest
    if digest != expected:
        raise WeightsUnavailable(
            f"{path}: SHA-256 is {digest}, not {expected}: not the file it should be, so it was not opened"
        )
    return (PINNED if expected == published.sha256 else GIVEN), digest


def read_safetensors(path: Path) -> Tensors:
    """A safetensors file's tensors by name. Raises WeightsUnavailable."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping


def read_metadata(path: Path) -> Mapping[str, str]:
    """What a safetensors file says of itself. Raises WeightsUnavailable."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise WeightsUnavailable(f"{path}: not a safetensors file ({type(error).__name__})") from None


def _weights(published: PublishedWeights, path: Path, digest: str, trust: str) -> Weights:
    return Weights(
        name=published.name,
        architecture=published.architecture,
        side=published.side,
        points=published.points,
        sha256=digest,
        trust=trust,
        path=path,
    )


def _checked(tensors: Tensors, published: PublishedWeights, source: Path) -> Tensors:
    """The tensors, when they can be this network's: as many outputs as labels, no NaN and no infinity."""
    head = tensors.get("fc.weight" if published.architecture == RESNET else "classifier.weight")
    if head is None or head.ndim != 2 or head.shape[0] != len(published.labels):
        raise WeightsUnavailable(f"{source}: not the weights of {published.name}")
    for name, tensor in tensors.items():
        if name != "op_threshs" and tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise WeightsUnavailable(f"{source}: {name} holds a value that is not a number")
    return {name: tensor for name, tensor in tensors.items() if name != "op_threshs"}


def _write_safetensors(target: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    from safetensors.numpy import save

    _write(target, save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, metadata))


def _write(target: Path, data: bytes) -> None:
    """Whole or not at all, also when the power goes."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
