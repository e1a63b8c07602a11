"""Trains the picture check, measures it with every source left out once, and prints the tables of docs/gate.md.

    python -m bench.frontal [--write] [--ct FOLDER] [--more FOLDER]

Needs the shared folder beside the checkout. Same files and seeds, same numbers (up to the rounding of the processor). `--write`
writes router/classify/frontal.json. Some minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.stats import beta

from bench.frontal.pictures import Picture, chests, drawings, others, phantoms, projected, spoilt, varied, whitened
from router.classify.frontal import NUMBERS, Likeness, Standard, standard
from router.classify.gate import GateSettings

SEED = 20261122
WHITE = "chest, one lung drawn white"
#: How much each kind of picture counts in training; sources of one kind count alike.
SHARES = {
    True: {WHITE: 0.4, "chest": 1.0, "phantom": 0.03, "CT from the front": 0.06},
    False: {"no chest": 0.35, "drawn": 0.25, "turned": 0.21, "black and white exchanged": 0.06, "a small part": 0.05,
            "CT from the side": 0.06, "CT slice": 0.04},
}  # fmt: skip
#: Ridge penalty, on features of unit variance.
PENALTY = 0.03
#: The real sources that are no chest are left out in so many portions, the chests' one by one.
PORTION_COUNT = 10

Seen = tuple[Picture, Standard]


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--ct", type=Path)
    parser.add_argument("--more", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    plain, trained = collect(arguments.ct, arguments.more)
    check = fit(average(plain), trained)
    if arguments.write:
        NUMBERS.write_text(written(check), encoding="utf-8")
    report(plain, leave_out(plain, trained), {id(picture): check.value(picture.pixels) for picture, _ in plain})


def collect(ct: Path | None, more: Sequence[Path]) -> tuple[list[Seen], list[Seen]]:
    """Pictures as they are, to be measured, and variants of them, to learn from."""
    real = [*chests(), *others(more), *(projected(ct) if ct else ())]
    rng = np.random.default_rng(SEED)
    learnt = [*phantoms(30, 0), *_variants(drawings(24, 1000), rng, lambda _: 1)]
    distinct = _distinct([one for one in real if one.kind == "chest"])
    learnt += _variants(distinct, rng, lambda _: 30)
    learnt += [
        Picture(one.source, WHITE, one.name, True, varied(pixels, rng))
        for one in distinct
        for _ in range(7)
        for pixels in whitened(one.pixels, rng)
    ]
    sizes = Counter(one.source for one in real)
    learnt += _variants([o for o in real if o.kind == "no chest"], rng, lambda o: max(1, round(12 / sizes[o.source])))
    from_ct = [one for one in real if one.source == "CT" and one.chest is not None]
    learnt += _variants(from_ct, rng, lambda one: 16 if one.kind == "CT from the side" else 4)
    wrong = [
        _renamed(one, kind, pixels) for one in distinct for _ in range(8) for kind, pixels in spoilt(one.pixels, rng)
    ]
    plain = [*real, *phantoms(30, 5000), *drawings(20, 9000)]
    for one in distinct:
        plain += [Picture(one.source, "chest, varied", one.name, True, varied(one.pixels, rng)) for _ in range(12)]
        plain += [Picture(one.source, WHITE, one.name, True, p) for p in whitened(one.pixels)]
    return [(one, standard(one.pixels)) for one in [*plain, *wrong]], [
        (one, standard(one.pixels)) for one in [*learnt, *wrong]
    ]


def _variants(pictures, rng, count) -> list[Picture]:
    return [_renamed(one, one.kind, varied(one.pixels, rng)) for one in pictures for _ in range(count(one))]


def _renamed(one: Picture, kind: str, pixels: np.ndarray) -> Picture:
    chest = one.chest if kind == one.kind else False
    return Picture(one.source, kind, f"{one.name}, {kind}" if kind != one.kind else one.name, chest, pixels)


def _distinct(pictures: Sequence[Picture]) -> list[Picture]:
    """One for each radiograph: the same one in another encoding teaches nothing."""
    kept: list[tuple[Picture, np.ndarray]] = []
    for one in pictures:
        ranks = standard(one.pixels).ranks.ravel()
        if all(o.source != one.source or np.corrcoef(ranks, r)[0, 1] < 0.985 for o, r in kept):
            kept.append((one, ranks))
    return [one for one, _ in kept]


def average(seen: Sequence[Seen], without: frozenset[str] = frozenset()) -> np.ndarray:
    """The mean over patients of their radiographs' ranks."""
    patients = defaultdict(list)
    for one, standardised in seen:
        if one.kind == "chest" and one.source not in without:
            patients[one.source].append(standardised.ranks)
    return np.round(np.mean([np.mean(ranks, axis=0) for ranks in patients.values()], axis=0), 3)


def fit(mean: np.ndarray, trained: Sequence[Seen], features: np.ndarray | None = None) -> Likeness:
    """Logistic regression with a ridge penalty."""
    x = features if features is not None else np.stack([Likeness(mean).features(s) for _, s in trained])
    y = np.array([one.chest for one, _ in trained], np.float64)
    share = _weights([one for one, _ in trained])
    centre, spread = x.mean(0), x.std(0) + 1e-6
    x = (x - centre) / spread

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ theta[:-1] + theta[-1]
        error = share * (1 / (1 + np.exp(-np.clip(z, -40, 40))) - y)
        value = (share * (np.logaddexp(0, z) - y * z)).sum() + PENALTY / 2 * (theta[:-1] ** 2).sum()
        return value, np.append(x.T @ error + PENALTY * theta[:-1], error.sum())

    theta = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    weights = np.round(theta[:-1] / spread, 4)
    return Likeness(mean, weights, round(float(theta[-1] - (theta[:-1] / spread) @ centre), 4))


def _weights(pictures: Sequence[Picture]) -> np.ndarray:
    keys = [(one.chest, next(k for k in SHARES[bool(one.chest)] if one.kind.startswith(k))) for one in pictures]
    sources = defaultdict(set)
    for key, one in zip(keys, pictures, strict=True):
        sources[key].add(one.source)
    counts = Counter((key, one.source) for key, one in zip(keys, pictures, strict=True))
    found = [
        SHARES[bool(key[0])][key[1]] / len(sources[key]) / counts[key, one.source]
        for key, one in zip(keys, pictures, strict=True)
    ]
    return np.array(found) / sum(found)


def leave_out(plain: Sequence[Seen], trained: Sequence[Seen]) -> dict[int, float]:
    """Each picture's value from a check that has seen nothing of its source: neither in its average nor in training."""
    portion = _portions([one for one, _ in plain])
    whole = average(plain)
    features = {None: np.stack([Likeness(whole).features(s) for _, s in trained])}
    values: dict[int, float] = {}
    for name in sorted(set(portion.values())):
        sources = frozenset(source for source, of in portion.items() if of == name)
        without = average(plain, sources)
        same = np.array_equal(without, whole)
        x = features[None] if same else np.stack([Likeness(without).features(s) for _, s in trained])
        keep = np.array([one.source not in sources for one, _ in trained])
        check = fit(without, [t for t, k in zip(trained, keep, strict=True) if k], x[keep])
        values |= {id(one): check.value(one.pixels) for one, _ in plain if one.source in sources}
    return values


def _portions(pictures: Sequence[Picture]) -> dict[str, str]:
    several = sorted({one.source for one in pictures if one.kind == "no chest"})
    order = np.random.default_rng(SEED).permutation(len(several))
    found = {one.source: one.source for one in pictures}
    return found | {source: f"portion {at % PORTION_COUNT}" for source, at in zip(several, order, strict=True)}


def written(check: Likeness) -> str:
    """frontal.json."""
    numbers = {
        "made_by": "python -m bench.frontal --write",
        "seed": SEED,
        "bias": check.bias,
        "weights": check.weights.tolist(),
        "average": check.average.ravel().tolist(),
    }
    return "{\n" + ",\n".join(f'"{key}": {json.dumps(value)}' for key, value in numbers.items()) + "\n}\n"


def report(plain: Sequence[Seen], left_out: dict[int, float], final: dict[int, float]) -> None:
    """The tables of docs/gate.md."""
    least = GateSettings().picture_min
    kinds: dict[str, list[Picture]] = defaultdict(list)
    for one, _ in plain:
        kinds[one.kind].append(one)
    print(
        "| kind | sources | pictures | refused, source left out | at 0.4 | at 0.6 | values, source left out | refused as shipped |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for kind, found in sorted(kinds.items(), key=lambda item: item[0]):
        values = np.array([left_out[id(one)] for one in found])
        refused = " | ".join(str((values < limit).sum()) for limit in (least, 0.4, 0.6))
        spread = f"{min(values):.2f} to {max(values):.2f}, median {np.median(values):.2f}"
        shipped = sum(final[id(one)] < least for one in found)
        print(f"| {kind} | {len({one.source for one in found})} | {len(found)} | {refused} | {spread} | {shipped} |")
    for label, wanted in (("chest patients", kinds["chest"]), ("sources that are no chest", kinds["no chest"])):
        by_source = defaultdict(list)
        for one in wanted:
            wrong = left_out[id(one)] < least if one.chest else left_out[id(one)] >= least
            by_source[one.source].append(wrong)
        errors, count = sum(any(v) for v in by_source.values()), len(by_source)
        high = beta.ppf(0.975, errors + 1, count - errors)
        low = beta.ppf(0.025, errors, count - errors + 1) if errors else 0.0
        print(f"{label}: wrong {errors} of {count}, 95 % interval {low:.3f} to {high:.3f}")
    print("\n| file | source | value, source left out | value |\n|---|---|---|---|")
    for kind in ("chest", "no chest"):
        for one in sorted(kinds[kind], key=lambda one: one.name):
            print(f"| {one.name} | {one.source} | {left_out[id(one)]:.2f} | {final[id(one)]:.2f} |")
    for kind in ("CT from the front", "CT at an angle", "CT from the side", "CT slice", "CT coronal slice"):
        for one in kinds[kind]:
            print(f"| {one.name} | {kind} | {left_out[id(one)]:.2f} | {final[id(one)]:.2f} |")


if __name__ == "__main__":
    main()
