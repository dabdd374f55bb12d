"""Which images of which set a run sees, and with which labels: all that indexing needs to know."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from nlalib.data.candidates import CANDIDATE_RULES, THRESHOLD_RANGES
from nlalib.data.label_noise import NOISE_KINDS
from nlalib.data.label_sources import FER2013, LABEL_SOURCES, MATCHED, RULE
from nlalib.data.labels import expressions
from nlalib.data.sets import SETS
from nlalib.data.sets.base import DataSet
from nlalib.data.votes import LABEL_RULES
from nlalib.files import name_and_digest
from nlalib.parameters import Parameters, parameter
from nlalib.paths import resolve

# In a folder of images that `nlalib.prepare.aligned_images` made: how they were aligned.
SETTINGS_FILE = "alignment.json"


@dataclass(frozen=True)
class DataChoice(Parameters):
    """What `nlalib.data.splits.load_dataset` looks at: runs of equal choices share an index.

    `seed` draws wrong labels and long tails, `data_seed` everything else, the annotators asked by
    a `label_source` among it: their labels are the same for all runs, as labels of people are. So
    are the wrong labels of rendered faces, which `data_seed` draws with the faces.
    """

    dataset: str = parameter("rendered", choices=SETS)
    data_root: str = ""
    label_rule: str = parameter("argmax", choices=tuple(LABEL_RULES))
    num_classes: int = 7
    train_images: int = parameter(600, at_least=0)
    test_images: int = parameter(200, at_least=0)
    data_seed: int = parameter(0, at_least=0)
    noise_rate: float = parameter(0.0, at_least=0, below=1)
    noise_kind: str = parameter("symmetric", choices=(*NOISE_KINDS, MATCHED))
    label_source: str = parameter(RULE, choices=LABEL_SOURCES)
    label_file: str = ""
    imbalance_factor: float = parameter(1.0, at_least=1)
    held_out: float = parameter(0.1, above=0, below=0.5)
    seed: int = parameter(0, at_least=0)

    def __post_init__(self):
        if not self.noise_rate and self.imbalance_factor == 1 and self.noise_kind != MATCHED:
            object.__setattr__(self, "seed", 0)  # it draws nothing
        super().__post_init__()

    @property
    def set(self) -> DataSet:
        """The data set."""
        return SETS[self.dataset]

    @property
    def root(self) -> Path:
        """The data set's folder: `data_root`, or `data/<dataset>` where that is empty."""
        return resolve(self.data_root or f"data/{self.dataset}")

    @property
    def alignment(self) -> dict | None:
        """How the set's images were aligned; None for a set as it ships, or drawn by code."""
        return None if self.set.is_made else alignment_settings(self.root)

    def check(self) -> None:
        """Refuse what the set cannot have: no parameter may change a run's id and nothing else."""
        expressions(self.num_classes)
        title = self.set.title
        if self.num_classes not in self.set.class_numbers:
            numbers = " or ".join(map(str, self.set.class_numbers))
            raise ValueError(f"num_classes is {self.num_classes}; {title} has {numbers}")
        if self.label_rule not in self.set.label_rules:
            raise ValueError(
                f"label_rule is {self.label_rule!r}, which is for "
                f"{_titles('label_rules', self.label_rule)}: the labels of {title} are given; "
                "leave it at 'argmax'"
            )
        self._check_source()
        needs_rate = self.noise_kind not in ("symmetric", MATCHED)
        if needs_rate and not self.noise_rate:
            raise ValueError(f"noise_kind is {self.noise_kind!r}: it needs a noise_rate above 0")
        if self.noise_kind not in (*self.set.noise_kinds, MATCHED):
            raise ValueError(
                f"noise_kind is {self.noise_kind!r}; {title} has "
                f"{' or '.join(self.set.noise_kinds)} noise only"
            )
        if self.label_file and (not self.set.takes_label_file or self.noise_rate):
            raise ValueError(
                f"label_file is a list of noisy labels for {_titles('takes_label_file', True)}; "
                "leave it empty for other sets, and noise_rate at 0.0 with it"
            )
        if self.imbalance_factor > 1 and self.set.is_made:
            raise ValueError(
                f"imbalance_factor is for sets of photographs; leave it at 1.0 for {title}"
            )

    def _check_source(self) -> None:
        title = self.set.title
        if self.label_source not in self.set.label_sources:
            why = "annotators' votes" if self.label_source != FER2013 else "labels of FER2013"
            raise ValueError(
                f"label_source is {self.label_source!r}, but {title} has no {why}: leave it at "
                f"{RULE!r}, or take {_titles('label_sources', self.label_source)}"
            )
        if self.label_source != RULE and (self.noise_rate or self.label_file):
            raise ValueError(
                f"label_source is {self.label_source!r}, whose labels are wrong by themselves: "
                "leave noise_rate at 0.0 and label_file empty"
            )
        if self.noise_kind == MATCHED and self.label_source == RULE:
            raise ValueError(
                f"noise_kind is {MATCHED!r}, the twin of a label_source: name the source, one of "
                f"{', '.join(LABEL_SOURCES[1:])}"
            )

    @property
    def labels(self) -> str:
        """How tables name whose labels are given for training; a list by its name and content."""
        if self.label_file:
            return name_and_digest(resolve(self.label_file))
        twin = ", matched" if self.noise_kind == MATCHED else ""
        return f"{self.label_source}{twin}"


def _titles(attribute: str, value) -> str:
    """Return the titles of the sets that have `value` as, or among, an attribute."""
    found = []
    for data_set in SETS.values():
        declared = getattr(data_set, attribute)
        if declared is value or (isinstance(declared, tuple) and value in declared):
            found.append(data_set.title)
    return " and ".join(found)


def alignment_settings(folder: str | os.PathLike) -> dict | None:
    """Return how the images of a folder were aligned; None for a set as it ships.

    It changes what a run computes, so it belongs to what a run is known by.
    """
    path = Path(folder) / SETTINGS_FILE
    return json.loads(path.read_text()) if path.is_file() else None


@dataclass(frozen=True)
class CandidateChoice(Parameters):
    """How a run makes candidate label sets; see `nlalib.data.candidates`."""

    candidate_rule: str = parameter("count", choices=CANDIDATE_RULES)
    candidate_threshold: float = 1.0
    candidate_scores: str = ""

    def check(self) -> None:
        """Refuse a threshold that the rule cannot have, and scores that it does not read."""
        if self.candidate_rule == "random" and self.candidate_threshold == 1:
            raise ValueError(
                "candidate_threshold is 1.0; for candidate_rule 'random' it is the share of other "
                "classes that enter each set, and with all of them nothing is left to learn: take "
                "0.1, say"
            )
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
