"""Every classifier says what it was trained on and where its limits are, a site's own too, or it does not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from router.classify import catalogue
from router.classify.card import card_from_json, card_of, markdown, read_card
from router.classify.phantom import phantom_dicom
from router.classify.published import PUBLISHED
from router.classify.trust import FIRST_USE, GIVEN
from router.classify.weights import from_file
from router.classify.weights_folder import WeightsFolder
from router.classify.xrv import XrvClassifier
from router.cli import cli
from router.errors import WeightsUnavailable
from tests.classify import own
from tests.peers import ROOT

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own.write(tmp_path_factory.mktemp("own"))


def _classifier(**options: object) -> XrvClassifier:
    return XrvClassifier(name="ours", settings=XrvClassifier.Settings.model_validate(options))


# ---- cards of the project


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_page_of_a_classifier_is_its_card(name: str) -> None:
    expected = markdown(card_of(PUBLISHED[name]))
    page = ROOT / f"docs/models/{name}.md"
    assert page.read_text(encoding="utf-8") == expected, f"write there what `router models show {name}` prints"


@pytest.mark.parametrize("name", [*PUBLISHED, "demo"])
def test_a_card_says_all_that_it_should(name: str, tmp_path: Path) -> None:
    card = catalogue.find_card(name, tmp_path)
    for said in (card.trained_on, card.trained, card.limits, card.licence, card.operating_points, card.source):
        assert said
    assert card_from_json(json.loads(json.dumps(card.to_json()))) == card


def test_the_table_names_what_each_classifier_was_trained_on(tmp_path: Path) -> None:
    run = CliRunner().invoke(cli, ["models", "list", "--folder", str(tmp_path)])
    assert run.exit_code == 0
    for told in (*PUBLISHED, "demo", "PadChest", "MIMIC-CXR", "Drawings"):
        assert told in run.output
    listed = json.loads(CliRunner().invoke(cli, ["models", "list", "--folder", str(tmp_path), "--json"]).output)
    by_name = {item["name"]: item for item in listed}
    assert by_name["resnet50-res512-all"]["card"]["side"] == 512
    shown = CliRunner().invoke(cli, ["models", "show", "resnet50-res512-all"]).output
    assert "| Lung Lesion | not trained, never reported |" in shown
    assert "went through a sigmoid twice" in shown


# ---- a site's own


def test_a_sites_own_weights_answer_with_their_own_labels_and_thresholds(weights: Path) -> None:
    classifier = _classifier(weights=str(weights))
    classifier.check()
    classifier.load()
    prediction = classifier.predict_dataset(phantom_dicom(3, rows=128, columns=128))
    assert [finding.label for finding in prediction.findings] == ["Effusion", "Rib notching"]
    assert prediction.not_trained == ("Mass",)
    who = prediction.classifier
    assert (who.algorithm, who.version, who.manufacturer) == ("chest-2026-03", "7", "A hospital")
    for finding, threshold in zip(prediction.findings, (0.3, 0.5), strict=True):
        assert finding.present == (finding.raw >= threshold)


@pytest.mark.parametrize("whole", [True, False], ids=["network", "state"])
def test_a_pickle_and_safetensors_of_the_same_weights_answer_alike(weights: Path, tmp_path: Path, whole: bool) -> None:
    network = own.network()
    torch.save(network if whole else network.state_dict(), tmp_path / "ours.pt")
    card = tmp_path / "elsewhere.toml"
    card.write_text(own.card())
    scores = []
    for options in ({"weights": str(weights)}, {"weights": str(tmp_path / "ours.pt"), "card": card}):
        classifier = _classifier(**options)
        classifier.check()
        classifier.load()
        scores.append([f.score for f in classifier.predict_dataset(phantom_dicom(3, rows=128, columns=128)).findings])
    assert scores[0] == scores[1]


def test_other_operating_points_are_another_classifier(weights: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text(own.card(labels=[{"name": label, "threshold": 0.4} for label in own.LABELS]))
    identities = []
    for options in ({"weights": str(weights)}, {"weights": str(weights), "card": card}):
        classifier = _classifier(**options)
        classifier.load()
        identities.append(classifier.identity)
    assert identities[0].weights_sha256 == identities[1].weights_sha256
    assert identities[0].parameters != identities[1].parameters


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"licence": None}, "licence: Field required"),
        ({"architecture": "densenet169"}, "architecture: Input should be 'densenet121' or 'resnet50'"),
        ({"name": "a b"}, "name: "),
        ({"speed": 1}, "speed: Extra inputs"),
        ({"trained_on": []}, "trained_on: "),
        ({"labels": [{"name": "Mass", "threshold": 2.0}]}, "labels.0.threshold: "),
        ({"labels": [{"name": "Mass", "threshold": 0.2}, {"name": "Mass"}]}, "used twice"),
        ({"labels": [{"name": "Mass"}]}, "nothing to report"),
        ({"labels": []}, "labels: "),
    ],
)
def test_a_card_that_leaves_something_open_is_refused(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    (tmp_path / "card.toml").write_text(own.card(**changes))
    with pytest.raises(WeightsUnavailable, match=r"card\.toml") as caught:
        read_card(tmp_path / "card.toml")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"labels": [{"name": "Mass", "threshold": 0.2}]}, "as many outputs as labels"),
        ({"architecture": "resnet50"}, "not the weights of chest-2026-03"),
    ],
)
def test_weights_that_are_not_what_their_card_says_stop_the_node_at_start(
    weights: Path, tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    card = tmp_path / "card.toml"
    card.write_text(own.card(**changes))
    with pytest.raises(WeightsUnavailable, match=told):
        _classifier(weights=str(weights), card=card).check()


def test_weights_that_nobody_describes_are_refused_with_what_would_help(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "chest.safetensors").write_bytes(weights.read_bytes())
    with pytest.raises(WeightsUnavailable, match=r"write a card chest\.toml beside it"):
        from_file(tmp_path / "chest.safetensors")


def test_a_digest_holds_a_sites_weights_to_one_file(weights: Path) -> None:
    found = from_file(weights)
    assert found.trust == FIRST_USE
    assert from_file(weights, sha256=found.sha256).trust == GIVEN
    with pytest.raises(WeightsUnavailable, match="not the file it should be"):
        from_file(weights, sha256="0" * 64)


def test_imported_weights_carry_their_card_and_their_name_is_taken(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    arguments = ["models", "import", str(weights), "--folder", str(folder)]
    run = CliRunner().invoke(cli, arguments)
    assert run.exit_code == 0, run.output
    assert CliRunner().invoke(cli, arguments).exit_code == 0, "the same once more is no other file"
    kept = folder / "chest-2026-03.safetensors"
    assert from_file(kept).card == read_card(weights.with_suffix(".toml"))
    assert [found.name for found in WeightsFolder(folder).own()] == ["chest-2026-03"]
    assert "chest-2026-03" in CliRunner().invoke(cli, ["models", "list", "--folder", str(folder)]).output
    other = own.network()
    other.classifier.bias.data += 1
    torch.save(other.state_dict(), tmp_path / "other.pt")
    (tmp_path / "other.toml").write_text(own.card())
    with pytest.raises(WeightsUnavailable, match="holds other weights called chest-2026-03"):
        catalogue.import_file(tmp_path / "other.pt", folder)
    kept.write_bytes(kept.read_bytes()[:-1] + b"\1")
    with pytest.raises(WeightsUnavailable, match="not the file that was taken in"):
        WeightsFolder(folder).own()


def test_a_site_may_not_take_the_name_of_published_weights(weights: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text(own.card(name="densenet121-res224-all"))
    with pytest.raises(WeightsUnavailable, match="the name of weights that torchxrayvision publishes"):
        catalogue.import_file(weights, tmp_path / "weights", card=card)


# ---- a file that means harm


class _Evil:
    def __init__(self, witness: Path) -> None:
        self._witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, (f"touch '{self._witness}'",)


@pytest.mark.parametrize("way", ["put into the folder", "imported", "a site's own"])
def test_a_pickle_that_would_run_a_command_is_refused_on_every_way_in(tmp_path: Path, way: str) -> None:
    witness = tmp_path / "executed"
    name = "densenet121-res224-nih"  # nobody knows its digest, so nothing but the reader stands between it and us
    path = tmp_path / f"{name}.pt"
    torch.save({**own.network().state_dict(), "evil": _Evil(witness)}, path)
    with pytest.raises(WeightsUnavailable, match=r"names posix\.system, which weights do not need; nothing of it was"):
        if way == "put into the folder":
            WeightsFolder(tmp_path).obtain(PUBLISHED[name], may_fetch=False)
        elif way == "imported":
            catalogue.import_file(path, tmp_path / "weights")
        else:
            path.with_suffix(".toml").write_text(own.card())
            _classifier(weights=str(path)).check()
    assert not witness.exists()
    torch.load(path, weights_only=False)  # what upstream does
    assert witness.exists(), "the file was harmless: this test proves nothing"
