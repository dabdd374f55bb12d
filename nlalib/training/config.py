"""A training run: its typed parameters, its identity, and the folder it leaves behind.

A run's folder `runs/<run_id>/` holds `config.json`, `environment.json`, `content.json` (digests of
the images and labels that it trains on), `metrics.csv` (one row an epoch), `timing.csv` (seconds of
training and evaluation, without those of writing), `samples.parquet` (part, given and true label of
each image), `predictions.parquet` (of the selected epochs; of the training images the last
epoch's), `naw.parquet` (records of each training image at each epoch; NLA's True case is where p_gt
>= p_nn), `weights.safetensors` (last epoch), `method.safetensors` (of a method with a head of its
own), `notebook.ipynb`, and last of all `done`.
A study adds `executed`, when the run's notebook has run to its end.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from nlalib.data.candidates import VOTE_RULES
from nlalib.data.choice import CandidateChoice, DataChoice
from nlalib.data.label_sources import MATCHED, RULE
from nlalib.data.sets import SETS
from nlalib.files import file_digest, name_and_digest
from nlalib.names import named
from nlalib.parameters import RunParameters, parameter
from nlalib.paths import resolve, runs_folder

# Raise it when a change of the code changes results, so that old runs are not taken for new ones.
_RESULTS_VERSION = 1
# Parameters that name a file of labels or scores: as what its content counts, and the next step
# where it is missing.
_FILES = {
    "label_file": (
        "labels",
        "give the path of a list in RAF-DB's form, lines of a name and a code",
    ),
    "candidate_scores": (
        "scores",
        "`python -m nlalib scores RUN_ID` writes them, of the training images of a finished run",
    ),
}


@dataclass(frozen=True)
class RunConfig(RunParameters):
    """The parameters of one training run, with the defaults of `04_training.ipynb`.

    What `data` and `candidates` share is checked there, method and network by their registries.
    Compilation, CUDA graphs, the choice of algorithms and the order of channels are no part of the
    identity: like a device, they order sums in other ways.
    """

    dataset: str = parameter("rendered")
    data_root: str = parameter("", identity=False)
    label_rule: str = parameter("argmax", told=True)
    num_classes: int = parameter(7)
    train_images: int = parameter(600)
    test_images: int = parameter(200)
    data_seed: int = parameter(0)
    noise_rate: float = parameter(0.0)
    noise_kind: str = parameter("symmetric", later=True, told=True)
    label_source: str = parameter(RULE, later=True)
    label_file: str = parameter("", identity=False)  # but by its content
    imbalance_factor: float = parameter(1.0, later=True)
    candidate_rule: str = parameter("count", later=True, told=True)
    candidate_threshold: float = parameter(1.0, later=True, told=True)
    candidate_scores: str = parameter("", identity=False)  # but by its content
    held_out: float = parameter(0.1)
    image_size: int = parameter(48, at_least=16)
    method: str = parameter("nla")
    method_settings: dict = parameter(factory=dict)
    backbone: str = parameter("resnet18_narrow16")
    initial_weights: str = parameter("", identity=False)  # but by its content
    epochs: int = parameter(3, at_least=1)
    batch_size: int = parameter(64, at_least=2)
    optimizer: str = parameter("adamw", choices=("adam", "adamw"))
    lr: float = parameter(3.0e-3, at_least=0)
    weight_decay: float = parameter(1.0e-4, at_least=0)
    lr_schedule: str = parameter(
        "one_cycle", choices=("exponential", "compressed_exponential", "one_cycle", "constant")
    )
    augmentation: str = parameter("affine")
    view_order: str = parameter("joint", told=True, choices=("joint", "separate"))
    precision: str = parameter("fp32", choices=("fp32", "bf16", "fp16"))
    seed: int = parameter(0, at_least=0)
    device: str = parameter("auto", identity=False, choices=("auto", "cpu", "cuda"))
    processes: int = parameter(1, later=True, told=True, at_least=1)
    compile: bool = parameter(False, identity=False)
    deterministic: bool = parameter(False, identity=False)
    channels_last: bool = parameter(True, identity=False)
    sampler: str = parameter("shuffled", later=True, told=True, choices=("shuffled", "balanced"))
    images_on_device: str = parameter("auto", identity=False, choices=("auto", "off"))
    cuda_graph: str = parameter("auto", identity=False, choices=("auto", "off"))
    logger: str = parameter("", identity=False, choices=("", "tensorboard"))

    def check(self) -> None:
        """Refuse what does not go together: no parameter may change a run's id alone."""
        _ = self.data, self.candidates
        self._check_network()
        self._check_method()

    def _check_network(self) -> None:
        # Imported here: PyTorch takes seconds, and whoever only reads tables needs none of it.
        from nlalib.networks.initial_weights import FACE_WEIGHTS
        from nlalib.networks.registry import BACKBONES
        from nlalib.training.augmentation import named_recipe

        named_recipe(self.augmentation)
        backbone = named(BACKBONES, self.backbone, "backbone")
        if refusal := backbone.refusal(self.image_size):
            raise ValueError(
                f"image_size is {self.image_size}; the backbone {self.backbone} {refusal}"
            )
        if self.initial_weights == FACE_WEIGHTS and self.backbone != "face_resnet":
            raise ValueError(
                f"initial_weights is {FACE_WEIGHTS!r}, which fit the backbone 'face_resnet' and "
                f"not {self.backbone!r}"
            )

    def _check_method(self) -> None:
        from nlalib.methods import make_method

        method = make_method(self.method, self.method_settings)
        declared = method.settings()
        # As the method has them: 1 and 1.0 are one run.
        given = {name: getattr(method, declared[name][0]) for name in self.method_settings}
        object.__setattr__(self, "method_settings", given)
        if self.processes > 1 and method.keeps_samples:
            raise ValueError(
                f"processes is {self.processes}, but method {self.method!r} remembers something of "
                "each sample, which one process would not tell the others; leave it at 1"
            )
        if self.processes > 1 and method.sums_over_batch:
            raise ValueError(
                f"processes is {self.processes}, but the released consistency of method "
                f"{self.method!r} is a sum over the batch, of which each process would see a part; "
                "leave it at 1"
            )
        if self.batch_size < 2 * self.processes:
            raise ValueError(
                f"batch_size is {self.batch_size} for {self.processes} processes; batch "
                "normalisation needs at least two images in each"
            )
        if self.processes > 1 and self.sampler == "balanced":
            raise ValueError(
                f"processes is {self.processes}, but a balanced sampler may draw an image twice, "
                "and two processes would both record it; leave it at 1"
            )
        from_votes = "votes" in method.needs or (
            "candidates" in method.needs and self.candidate_rule in VOTE_RULES
        )
        if from_votes and not self.data.set.has_votes:
            having = [name for name, data_set in SETS.items() if data_set.has_votes]
            raise ValueError(
                f"method {self.method!r} with candidate_rule {self.candidate_rule!r} learns from "
                f"annotators' votes, which {self.data.set.title} has not: take one of "
                f"{', '.join(having)}, or for methods on candidates the rule 'random' or 'model'"
            )
        unseen = (
            ("label_source", RULE, "whatever the labels"),
            ("noise_rate", 0.0, "which the noise leaves as they are"),
        )
        for name, plain, why in unseen:
            if from_votes and (value := getattr(self, name)) != plain:
                raise ValueError(
                    f"{name} is {value!r}, but method {self.method!r} learns from votes, {why}: it "
                    f"would look immune. Leave it at {plain!r}, or take candidate_rule 'random', "
                    "whose sets hold the given labels, with a candidate_threshold such as 0.1"
                )
        if "candidates" not in method.needs and self.candidates != CandidateChoice():
            raise ValueError(
                f"candidate_rule and candidate_threshold are "
                f"{(self.candidate_rule, self.candidate_threshold)}, but method {self.method!r} "
                "learns from labels; leave them at ('count', 1.0)"
            )

    @property
    def data(self) -> DataChoice:
        """Which images the run sees, with which labels."""
        return self.share(DataChoice)

    @property
    def candidates(self) -> CandidateChoice:
        """How the run makes candidate label sets."""
        return self.share(CandidateChoice)

    @property
    def initialisation(self) -> str:
        """How results name the initial weights."""
        from nlalib.networks.initial_weights import initialisation_name

        return initialisation_name(self.initial_weights)

    @property
    def identity(self) -> dict:
        """What changes the result: the parameters without places and devices.

        Files count by their content: a renamed copy is the same.
        """
        kept = self.of_identity | of_aligned_images(self.data)
        kept |= {kind: file_digest(path) for kind, path in self._files().items()}
        if self.sampler == "balanced":
            kept["augmentation_of"] = "draws"  # and not of images, as it once was
        weights = self.initialisation.rpartition("@")[2]
        return {**kept, "initialisation": weights, "results_version": _RESULTS_VERSION}

    @property
    def settings(self) -> str:
        """How tables tell this run's choices from a plain run of its method: "" for a plain one.

        The method's settings and the other choices that are neither a column of their own nor
        the same throughout a comparison, as `name=value`.
        """
        chosen = {**self.method_settings, **self.chosen}
        if scores := self._files().get("scores"):
            chosen["scores"] = name_and_digest(scores)
        if self.noise_kind == MATCHED:  # which the column of the label source tells
            del chosen["noise_kind"]
        return ", ".join(f"{name}={value}" for name, value in sorted(chosen.items()))

    def _files(self) -> dict[str, Path]:
        """Return the files of labels and scores, of those that are given."""
        found = {}
        for name, (kind, next_step) in _FILES.items():
            if given := getattr(self, name):
                path = resolve(given)
                if not path.is_file():
                    raise FileNotFoundError(f"{name} is {given!r}, but no such file: {next_step}")
                found[kind] = path
        return found

    @property
    def label(self) -> str:
        """What stands in the run's name for people."""
        return f"{self.method}-seed{self.seed}"


def of_aligned_images(choice: DataChoice) -> dict:
    """Return what the identity holds of aligned images: another folder is no other run, they are.

    Nothing for a set as it ships.
    """
    return {} if choice.alignment is None else {"alignment": choice.alignment}


def read_config(folder: Path) -> RunConfig:
    """Return the configuration of a finished run.

    Raises
    ------
    FileNotFoundError
        If there is no such run, or it is not done; the message names some that are.
    """
    if not (folder / "done").is_file() or not (folder / "config.json").is_file():
        known = sorted(path.parent.name for path in runs_folder().glob("*/done"))
        some = ", ".join(known[:3]) + f" and {len(known) - 3} more" * (len(known) > 3)
        raise FileNotFoundError(f"no finished run at {folder}; finished are {some or 'none'}")
    parameters = json.loads((folder / "config.json").read_text())
    parameters.pop("identity")
    return RunConfig.from_parameters(parameters)
