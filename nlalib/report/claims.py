"""The claims of the two papers, in words, and the contrast that stands for each in each regime.

The numbers come from the tables in results/, see `nlalib.report.ledger`.
"""

from dataclasses import dataclass, replace

NLA, VOTES = "NLA, AAAI 2025", "weak supervision, arXiv 2209.15402"
SHORT, CONVERGED = "short, from random weights", "labels fitted, from face weights"


@dataclass(frozen=True)
class Contrast:
    """A difference between two methods, or between a fact and what it would be by chance.

    Attributes
    ----------
    words : str
        What is measured.
    study : str
        Whose published tables hold it.
    method, settings : str
    metric : str
        Of the results; or, of a fact of training (with `chance` or `since`), of the table over
        epochs, at the last epoch.
    against : str
        The other method, in its plain setting.
    noise_rate, imbalance_factor : float
    sign : int
        -1 where less is better.
    chance : float, optional
        What the fact is compared with.
    since : int, optional
        The epoch, from 0, with which the fact is compared: its change until the last.
    backbone, init : str
        Where the study has several.
    shown_in : str
        The notebook.
    """

    words: str
    study: str
    method: str
    metric: str
    settings: str = ""
    against: str = "ce"
    noise_rate: float = 0.0
    imbalance_factor: float = 1.0
    sign: int = 1
    chance: float | None = None
    since: int | None = None
    backbone: str = ""
    init: str = ""
    shown_in: str = "07_noise_and_imbalance"

    @property
    def is_of_training(self) -> bool:
        """Whether it is about single images in training, whatever epoch a rule selects."""
        return self.chance is not None or self.since is not None


@dataclass(frozen=True)
class Claim:
    """A paper's claim, with a contrast for each regime in which it is asked."""

    number: int
    paper: str
    words: str
    short: Contrast
    converged: Contrast


def _both(number: int, paper: str, words: str, short: Contrast, study: str, **changes) -> Claim:
    # The face network and its weights are the only ones of their studies.
    shown = _SHOWN_IN.get(study, "10_claims")
    shown = short.shown_in if short.is_of_training else shown  # on the weight: 12
    converged = {"study": study, "backbone": "", "init": "", "shown_in": shown, **changes}
    return Claim(number, paper, words, short, replace(short, **converged))


# The study that can tell; and its runs of NLA once more, with what single images do in training.
MAIN, RECORDED = "face_long", "face_records"
_SHOWN_IN = {
    MAIN: "14_memorisation",
    "face_parts": "08_ablation",
    "face_votes": "09_weak_supervision",
    "face_shift_robustness": "09_weak_supervision",
    "face_imbalance": "07_noise_and_imbalance",
}
_NOISY = {"noise_rate": 0.2}
_SMALL = {"backbone": "resnet10_narrow16_stride2", "shown_in": "09_weak_supervision"}
_SETS = "candidate_threshold=2.0"
CLAIMS = (
    _both(1, NLA, "NLA is more accurate than cross-entropy.",
          Contrast("NLA - CE, overall accuracy", "noise", "nla", "overall_accuracy"), MAIN),
    _both(2, NLA, "It is so in mean accuracy too, over the classes.",
          Contrast("NLA - CE, mean accuracy", "noise", "nla", "mean_accuracy"), MAIN),
    _both(3, NLA, "The adaptive weight helps by itself.",
          Contrast("weighted CE - CE, overall accuracy", "ablation", "nla", "overall_accuracy",
                   settings="consistency=none", shown_in="08_ablation"), "face_parts"),
    _both(4, NLA, "The consistency of both views helps by itself.",
          Contrast("CE with consistency - CE, overall accuracy", "ablation", "nla",
                   "overall_accuracy", settings="weighting=False", shown_in="08_ablation"),
          "face_parts"),
    _both(5, NLA, "Ambiguous samples get more weight (asked without wrong labels).",
          Contrast("rank correlation of weight and vote entropy, at the last epoch", "noise", "nla",
                   "entropy_correlation_weight", chance=0.0,
                   shown_in="12_weights_in_training"), RECORDED),
    # The paper has "about none", without a threshold; how little they get is in 12.
    _both(6, NLA, "Noisy samples get less weight than right ones (noise drawn by lot).",
          Contrast("AUROC of a low weight for flipped labels, within a label, less chance", "noise",
                   "nla", "auroc_within_label_low_weight", chance=0.5, **_NOISY,
                   shown_in="12_weights_in_training"), RECORDED),
    # A turn is a change. In the first epoch the network knows nothing: its second is the start.
    _both(7, NLA, "Late in training the most-weighted samples turn to minority classes.",
          Contrast("minorities among the most-weighted tenth, at the last epoch less at the second",
                   "noise", "nla", "minority_share_of_top_weight", since=1,
                   shown_in="12_weights_in_training"), RECORDED),
    _both(8, NLA, "It gains under label noise (drawn by lot).",
          Contrast("NLA - CE at 20 % noise, overall accuracy", "noise", "nla", "overall_accuracy",
                   **_NOISY), MAIN),
    _both(9, NLA, "It helps under class imbalance.",
          Contrast("NLA - CE at imbalance 100, mean accuracy", "imbalance", "nla", "mean_accuracy",
                   imbalance_factor=100.0), "face_imbalance"),
    _both(10, NLA, "It leads its peers (asked of EAC, under label noise).",
          Contrast("NLA - EAC at 20 % noise, overall accuracy", "noise", "nla", "overall_accuracy",
                   against="eac", **_NOISY), MAIN),
    _both(11, VOTES, "Learning from candidate label sets beats one-hot labels (asked of PRODEN).",
          Contrast("PRODEN on sets - CE, overall accuracy", "weak", "proden", "overall_accuracy",
                   settings=_SETS, **_SMALL), "face_votes"),
    _both(12, VOTES, "Masked pre-training on faces helps.",
          Contrast("CE of a transformer, pre-trained - from random weights, overall accuracy",
                   "weak", "ce", "overall_accuracy", backbone="vit_tiny_patch6", init="masked",
                   shown_in="09_weak_supervision"), ""),
    _both(13, VOTES, "Learning from candidate sets is better calibrated (asked of PRODEN).",
          Contrast("CE - PRODEN on sets, expected calibration error", "weak",
                   "proden", "ece", settings=_SETS, sign=-1, **_SMALL), "face_votes"),
    _both(14, VOTES, "Learning from candidate sets is more robust to a shift (asked of PRODEN).",
          Contrast("CE - PRODEN on sets, accuracy lost by corruption",
                   "weak_robustness", "proden", "overall_accuracy", settings=_SETS, sign=-1,
                   **_SMALL),
          "face_shift_robustness"),
)  # fmt: skip
