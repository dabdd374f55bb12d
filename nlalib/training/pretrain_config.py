"""A masked pre-training run: its typed parameters, its identity, and the table of what it found.

A run's folder `runs/<run_id>/` holds `config.json`, `environment.json`, `content.json`,
`metrics.csv` (one row an epoch), `timing.csv`, `autoencoder.safetensors` (encoder and decoder, to
draw reconstructions), `weights.safetensors` (the encoder, for `RunConfig.initial_weights`), and
last of all `done`. `05_masked_pretraining.ipynb` adds `probe.csv`.
"""

from dataclasses import dataclass

import pandas as pd

from nlalib.data.choice import DataChoice
from nlalib.networks.vision_transformer import VIT_SIZES
from nlalib.parameters import RunParameters, parameter
from nlalib.training.config import of_aligned_images

# Raise it when a change of the code changes results, so that old runs are not taken for new ones.
_RESULTS_VERSION = 1


@dataclass(frozen=True)
class PretrainConfig(RunParameters):
    """The parameters of a pre-training run, with the defaults of `05_masked_pretraining.ipynb`.

    The test images only serve the probe.
    """

    dataset: str = parameter("rendered")
    data_root: str = parameter("", identity=False)
    label_rule: str = parameter("argmax")
    num_classes: int = parameter(7)
    train_images: int = parameter(1500)
    test_images: int = parameter(400, identity=False)
    data_seed: int = parameter(0)
    held_out: float = parameter(0.1)
    backbone: str = parameter("vit_tiny_patch6", choices=VIT_SIZES)
    mask_ratio: float = parameter(0.75)
    decoder_width: int = parameter(64)
    decoder_depth: int = parameter(2)
    epochs: int = parameter(8, at_least=1)
    batch_size: int = parameter(32, at_least=2)
    lr: float = parameter(2.0e-3, at_least=0)
    weight_decay: float = parameter(0.05, at_least=0)
    augmentation: str = parameter("flip")
    precision: str = parameter("fp32", choices=("fp32", "bf16", "fp16"))
    seed: int = parameter(0, at_least=0)
    device: str = parameter("auto", identity=False, choices=("auto", "cpu", "cuda"))

    def check(self) -> None:
        """Refuse what does not go together."""
        # Imported here: PyTorch and timm take seconds, and whoever only reads tables needs neither.
        from nlalib.networks.masked_autoencoder import visible_patches
        from nlalib.training.augmentation import named_recipe

        _ = self.data
        named_recipe(self.augmentation)
        visible_patches(self.num_patches, self.mask_ratio)
        if self.decoder_width < 4 or self.decoder_width % 4 or self.decoder_depth < 0:
            raise ValueError(
                f"decoder of width {self.decoder_width} and depth {self.decoder_depth}; the width "
                "must be a positive multiple of 4, the depth at least 0"
            )

    @property
    def data(self) -> DataChoice:
        """Which images the run sees, for `nlalib.data.splits.load_dataset`."""
        return self.share(DataChoice)

    @property
    def image_size(self) -> int:
        """Side of the images that the backbone takes, pixels."""
        return VIT_SIZES[self.backbone]["image_size"]

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return (self.image_size // VIT_SIZES[self.backbone]["patch_size"]) ** 2

    @property
    def identity(self) -> dict:
        """What changes the result: the parameters without places and devices."""
        aligned = of_aligned_images(self.data)
        return {**self.of_identity, **aligned, "results_version": _RESULTS_VERSION}

    @property
    def label(self) -> str:
        """What stands in the run's name for people."""
        return f"masked-seed{self.seed}"


def pretraining_table(config: PretrainConfig) -> pd.DataFrame:
    """Return what a finished run and its linear probe found, one row a number.

    Parameters
    ----------
    config : PretrainConfig

    Returns
    -------
    pandas.DataFrame
        Columns `run_id`, `epoch` (from 0), `metric`, `value`: `train_loss` and `held_out_loss` of
        each epoch, and of the last one the probe's `probe_accuracy`, `probe_reference` (of the
        encoder before training), `probe_difference` with the bounds `probe_low` and `probe_high`,
        and the penalties chosen for both, `probe_penalty` and `probe_reference_penalty`.

    Raises
    ------
    FileNotFoundError
        If the run is not done, or was never probed.
    """
    probe = config.folder / "probe.csv"
    if not (config.is_done and probe.is_file()):
        raise FileNotFoundError(
            f"{config.run_id} is not done, or not probed: run 05_masked_pretraining to its end"
        )
    losses = pd.read_csv(config.folder / "metrics.csv").melt("epoch", var_name="metric")
    found = pd.read_csv(probe).add_prefix("probe_").melt(var_name="metric")
    found.insert(0, "epoch", config.epochs - 1)
    table = pd.concat([losses, found], ignore_index=True)
    table.insert(0, "run_id", config.run_id)
    return table
