"""Which images of which set a run sees, and with which labels: all that indexing needs to know."""

from dataclasses import dataclass
from pathlib import Path

from nlalib.data.candidates import CANDIDATE_RULES, THRESHOLD_RANGES
from nlalib.data.label_noise import NOISE_KINDS
from nlalib.data.labels import expressions
from nlalib.data.votes import LABEL_RULES
from nlalib.parameters import Parameters, parameter
from nlalib.paths import resolve

DATASETS = ("rendered", "ferplus", "rafdb", "affectnet")


@dataclass(frozen=True)
class DataChoice(Parameters):
    """What `nlalib.data.splits.load_dataset` looks at: runs of equal choices share an index.

    `seed` draws wrong labels and long tails, `data_seed` everything else.
    """

    dataset: str = parameter("rendered", choices=DATASETS)
    data_root: str = ""
    label_rule: str = parameter("argmax", choices=tuple(LABEL_RULES))
    num_classes: int = 7
    train_images: int = parameter(600, at_least=0)
    test_images: int = parameter(200, at_least=0)
    data_seed: int = parameter(0, at_least=0)
    noise_rate: float = parameter(0.0, at_least=0, below=1)
    noise_kind: str = parameter("symmetric", choices=NOISE_KINDS)
    label_file: str = ""
    imbalance_factor: float = parameter(1.0, at_least=1)
    held_out: float = parameter(0.1, above=0, below=0.5)
    seed: int = parameter(0, at_least=0)

    def __post_init__(self):
        if not self.noise_rate and self.imbalance_factor == 1:
            object.__setattr__(self, "seed", 0)  # it draws nothing
        super().__post_init__()

    @property
    def root(self) -> Path:
        """The data set's folder: `data_root`, or `data/<dataset>` where that is empty."""
        return resolve(self.data_root or f"data/{self.dataset}")

    def check(self) -> None:
        """Refuse what the set cannot have: no parameter may change a run's id and nothing else."""
        expressions(self.num_classes)
        if self.dataset != "ferplus" and self.label_rule != "argmax":
            raise ValueError(
                f"label_rule is {self.label_rule!r}, which is for FERPlus: the labels of "
                f"{self.dataset} are given; leave it at 'argmax'"
            )
        if self.dataset == "rafdb" and self.num_classes != 7:
            raise ValueError(f"num_classes is {self.num_classes}; RAF-DB's basic part has 7")
        if self.noise_kind != "symmetric" and (self.dataset == "rendered" or not self.noise_rate):
            raise ValueError(
                f"noise_kind is {self.noise_kind!r}: it needs a noise_rate above 0, and rendered "
                "faces have symmetric noise only"
            )
        if self.label_file and (self.dataset != "rafdb" or self.noise_rate):
            raise ValueError(
                "label_file is a list of noisy labels for rafdb; leave it empty for other sets, "
                "and noise_rate at 0.0 with it"
            )
        if self.imbalance_factor > 1 and self.dataset == "rendered":
            raise ValueError("imbalance_factor is for the real sets; leave it at 1.0 for rendered")


@dataclass(frozen=True)
class CandidateChoice(Parameters):
    """How a run makes candidate label sets; see `nlalib.data.candidates`."""

    candidate_rule: str = parameter("count", choices=CANDIDATE_RULES)
    candidate_threshold: float = 1.0
    candidate_scores: str = ""

    def check(self) -> None:
        """Refuse a threshold that the rule cannot have, and scores that it does not read."""
        lowest, highest = THRESHOLD_RANGES[self.candidate_rule]
        if not lowest <= self.candidate_threshold <= highest:
            raise ValueError(
                f"candidate_threshold is {self.candidate_threshold}; for candidate_rule "
                f"{self.candidate_rule!r} it lies from {lowest:g} to {highest:g}"
            )
        if bool(self.candidate_scores) != (self.candidate_rule == "model"):
            raise ValueError(
                f"candidate_scores is {self.candidate_scores!r} for candidate_rule "
                f"{self.candidate_rule!r}: the rule 'model', and no other, needs the file of "
                "scores that `python -m nlalib scores RUN_ID` writes"
            )
        if self.candidate_rule == "model" and self.candidate_threshold % 1:
            raise ValueError(
                f"candidate_threshold is {self.candidate_threshold}; for candidate_rule 'model' it "
                "is a number of classes, like 2.0"
            )
