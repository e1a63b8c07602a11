"""The weights that torchxrayvision publishes: where they are, what their outputs mean, which bytes they are.

Labels, operating points and addresses are those of torchxrayvision 1.5.7 (Apache-2.0), repeated here so that a node can say
whether weights can be had without importing torch; a test compares them with upstream's.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.classify.network import DENSENET, RESNET
from router.classify.scoring import OperatingPoints, logit_of

#: Outputs of every published network, in order; a network that was not trained for one has no threshold for it.
_LABELS = (
    "Atelectasis",
    "Consolidation",
    "Infiltration",
    "Pneumothorax",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Effusion",
    "Pneumonia",
    "Pleural_Thickening",
    "Cardiomegaly",
    "Nodule",
    "Mass",
    "Hernia",
    "Lung Lesion",
    "Fracture",
    "Lung Opacity",
    "Enlarged Cardiomediastinum",
)
#: Whose preprocessing, networks, labels and operating points these are; the package need not be installed.
UPSTREAM_VERSION = "1.5.7"
_BASE = "https://github.com/mlmed/torchxrayvision/releases/download/v1/"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedWeights:
    """One weights file of a torchxrayvision release."""

    name: str
    architecture: str
    side: int
    """Pixels on a side of the network's input."""
    file_name: str
    op_threshs: tuple[float | None, ...]
    """As upstream has them; None where upstream has NaN."""
    sha256: str = ""
    """Of the file, hexadecimal; empty where no digest is known to us."""
    byte_count: int = 0
    all_labelled: bool = False
    """Upstream labels every output, also those without a threshold."""
    double_sigmoid: bool = False
    """Upstream's thresholds went through a sigmoid twice; ours undo one."""

    @property
    def url(self) -> str:
        """Where upstream publishes it."""
        return _BASE + self.file_name

    @property
    def labels(self) -> tuple[str, ...]:
        """One for each output; empty where upstream gives none."""
        named = zip(_LABELS, self.op_threshs, strict=True)
        return _LABELS if self.all_labelled else tuple("" if t is None else label for label, t in named)

    @property
    def points(self) -> OperatingPoints:
        """Labels and thresholds on the scale of one sigmoid."""
        if not self.double_sigmoid:
            return OperatingPoints(labels=self.labels, thresholds=self.op_threshs, source="torchxrayvision's")
        # All of this network's are between 0.502 and 0.538, and its ppv80_thres never exceed sigmoid(1): the calibration
        # script applied a second sigmoid. Undone, they lie where the DenseNets' do; used as they are, «present» would
        # mean a sigmoid above 0.5, five to fifty times what it means for the DenseNets.
        undone = tuple(None if t is None else logit_of(t) for t in self.op_threshs)
        return OperatingPoints(
            labels=self.labels, thresholds=undone, source="torchxrayvision's, with one of two sigmoids undone"
        )


# fmt: off
_TABLE = (
    PublishedWeights(
        name="densenet121-res224-all",
        architecture=DENSENET,
        side=224,
        file_name="nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt",
        op_threshs=(
            0.07422872, 0.038290843, 0.09814756, 0.0098118475, 0.023601074, 0.0022490358,
            0.010060724, 0.103246614, 0.056810737, 0.026791653, 0.050318155, 0.023985857,
            0.01939503, 0.042889766, 0.053369623, 0.035975814, 0.20204692, 0.05015312,
        ),
        sha256="56524913dd16a906422e8d8b66a7a5c46be1d82eb7ac012d8103776f1aa68899",
        byte_count=28382008,
    ),
    PublishedWeights(
        name="densenet121-res224-nih",
        architecture=DENSENET,
        side=224,
        file_name="nih-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt",
        op_threshs=(
            0.039117552, 0.0034529066, 0.11396341, 0.0057298196, 0.00045666535, 0.0018880932,
            0.012037827, 0.038744126, 0.0037213727, 0.014730946, 0.016149804, 0.054241467,
            0.037198864, 0.0004403434, None, None, None, None,
        ),
    ),
    PublishedWeights(
        name="densenet121-res224-pc",
        architecture=DENSENET,
        side=224,
        file_name="pc-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt",
        op_threshs=(
            0.031012505, 0.013347598, 0.081435576, 0.001262615, 0.002587246, 0.0035944257,
            0.0023071, 0.055412333, 0.044385884, 0.042766232, 0.043258056, 0.037629247,
            0.005658899, 0.0091741895, None, 0.026507627, None, None,
        ),
        sha256="a9148ef62ae4e7a31a9bed8cef22811f39681cd61e4390398936efc6280af521",
        byte_count=28381804,
    ),
    PublishedWeights(
        name="densenet121-res224-chex",
        architecture=DENSENET,
        side=224,
        file_name="chex-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt",
        op_threshs=(
            0.1988969, 0.05710573, None, 0.0531293, 0.1435217, None,
            None, 0.27212676, 0.07749717, None, 0.19712369, None,
            None, None, 0.09932402, 0.09273402, 0.3270967, 0.10888247,
        ),
    ),
    PublishedWeights(
        name="densenet121-res224-rsna",
        architecture=DENSENET,
        side=224,
        file_name="kaggle-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt",
        op_threshs=(
            None, None, None, None, None, None,
            None, None, 0.13486601, None, None, None,
            None, None, None, None, 0.13511065, None,
        ),
        sha256="906a59f48cf09638b745d66848a6c6f9d741368c66244717a81207329d140268",
        byte_count=28381974,
    ),
    PublishedWeights(
        name="densenet121-res224-mimic_nb",
        architecture=DENSENET,
        side=224,
        file_name="mimic_nb-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt",
        op_threshs=(
            0.08558747, 0.011884617, None, 0.0040595434, 0.010733786, None,
            None, 0.118761964, 0.022924708, None, 0.06358637, None,
            None, None, 0.022143636, 0.017476924, 0.1258702, 0.014020768,
        ),
    ),
    PublishedWeights(
        name="densenet121-res224-mimic_ch",
        architecture=DENSENET,
        side=224,
        file_name="mimic_ch-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt",
        op_threshs=(
            0.09121389, 0.010573786, None, 0.005023008, 0.003698257, None,
            None, 0.08001232, 0.037242252, None, 0.05006329, None,
            None, None, 0.019866971, 0.03823637, 0.11303808, 0.0069147074,
        ),
        sha256="23b13a04459684ffa41247d068207a7657b4e1b4dec2b02431f5026bd75b1189",
        byte_count=28382012,
    ),
    PublishedWeights(
        name="resnet50-res512-all",
        architecture=RESNET,
        side=512,
        file_name="pc-nih-rsna-siim-vin-resnet50-test512-e400-state.pt",
        op_threshs=(
            0.51570356, 0.50444704, 0.53787947, 0.50723547, 0.5025118, 0.5035252,
            0.5038076, 0.51862943, 0.5078151, 0.50724894, 0.5056339, 0.510706,
            0.5053923, 0.5020846, None, 0.5080557, 0.5138526, None,
        ),
        all_labelled=True,
        double_sigmoid=True,
    ),
)
# fmt: on

#: By name, as in the configuration.
PUBLISHED: dict[str, PublishedWeights] = {weights.name: weights for weights in _TABLE}
