"""What `router models` lists, shows, fetches and imports. Plain functions; printing is the command line's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from router.classify.card import Card, card_of
from router.classify.demo import card as card_of_demo
from router.classify.fetch import Progress
from router.classify.published import PUBLISHED, PublishedWeights
from router.classify.trust import SHIPS
from router.classify.weights import Weights, from_file, identify
from router.classify.weights_folder import WeightsFolder
from router.errors import WeightsUnavailable

DEMO_NAME = "demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One line of `router models list`."""

    name: str
    labels: tuple[str, ...]
    """Those with an operating point."""
    here: bool
    sha256: str
    """Of the file that is here, else the digest the router knows; empty when neither."""
    trust: str
    """How the digest of the file that is here is known; empty when it is not here."""
    card: Card
    problem: str = ""
    """Why what is here cannot be used; empty when it can."""


def published(name: str) -> PublishedWeights:
    """The weights of a name. Raises WeightsUnavailable for a name that torchxrayvision does not publish."""
    if name not in PUBLISHED:
        raise WeightsUnavailable(f"no weights are called {name!r}; there are: {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def list_weights(folder: Path) -> list[Listed]:
    """All classifiers that the router knows, those of the site, and which of them are in `folder`."""
    listed = []
    weights = WeightsFolder(folder)
    for known in PUBLISHED.values():
        here, problem = None, ""
        try:
            here = weights.find(known)
        except WeightsUnavailable as error:
            problem = str(error)
        listed.append(_listed(card_of(known), here, problem))
    listed += [_listed(own.card, own, "") for own in weights.own()]
    demo = card_of_demo()
    ships = Listed(name=demo.name, labels=demo.trained, here=True, sha256=demo.sha256, trust=SHIPS, card=demo)
    return [*listed, ships]


def find_card(what: str, folder: Path) -> Card:
    """The card of a classifier by its name, or of a weights file by its path. Raises WeightsUnavailable."""
    if what == DEMO_NAME:
        return card_of_demo()
    if what in PUBLISHED:
        return card_of(PUBLISHED[what])
    own = {weights.name: weights.card for weights in WeightsFolder(folder).own()}
    if what in own:
        return own[what]
    if Path(what).is_file():
        return from_file(Path(what)).card
    names = ", ".join((*PUBLISHED, *own, DEMO_NAME))
    raise WeightsUnavailable(f"no classifier is called {what!r}, and there is no such file; there are: {names}")


def find_weights(what: str, folder: Path) -> Weights:
    """Weights that are on this machine, by name or by path. Raises WeightsUnavailable."""
    if what in PUBLISHED:
        return WeightsFolder(folder).obtain(PUBLISHED[what], may_fetch=False)
    for own in WeightsFolder(folder).own():
        if own.name == what:
            return own
    if Path(what).is_file():
        return from_file(Path(what))
    raise WeightsUnavailable(
        f"no weights are called {what!r}, and there is no such file; there are: {', '.join(PUBLISHED)}"
    )


def fetch(name: str, folder: Path, *, mirror: str = "", sha256: str = "", progress: Progress | None = None) -> Weights:
    """The weights in `folder`, fetched unless they are there. Raises WeightsUnavailable."""
    weights = WeightsFolder(folder, mirror=mirror)
    return weights.obtain(published(name), may_fetch=True, sha256=sha256, progress=progress)


def import_file(path: Path, folder: Path, *, name: str = "", card: Path | None = None, sha256: str = "") -> Weights:
    """Takes a file in that somebody brought; its name or digest says which weights it holds, unless `name` does.

    With `card`, or with one beside the file, they are a site's own.
    Raises WeightsUnavailable, also when the folder cannot be written.
    """
    if not path.is_file():
        raise WeightsUnavailable(f"no file {path}")
    if card is not None or (not name and path.with_suffix(".toml").is_file()):
        return WeightsFolder(folder).take_in_own(path, card, sha256=sha256)
    known = published(name) if name else identify(path)
    weights = WeightsFolder(folder).take_in(path, known, sha256=sha256)
    if weights.path == path:
        raise WeightsUnavailable(f"{folder}: cannot be written")
    return weights


def _listed(card: Card, here: Weights | None, problem: str) -> Listed:
    return Listed(
        name=card.name,
        labels=card.trained,
        here=here is not None,
        sha256=here.sha256 if here is not None else card.sha256,
        trust=here.trust if here is not None else "",
        card=card,
        problem=problem,
    )
