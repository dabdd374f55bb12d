"""Names that users give: one that is not known is refused, with those that are."""

import difflib
from collections.abc import Mapping
from typing import Any

# What others' code calls our parameters, where no letters in common lead to the right name.
OTHER_NAMES = {
    "learning_rate": "lr",
    "lr_init": "lr",
    "base_lr": "lr",
    "bs": "batch_size",
    "batchsize": "batch_size",
    "train_batch_size": "batch_size",
    "num_epochs": "epochs",
    "n_epochs": "epochs",
    "max_epochs": "epochs",
    "wd": "weight_decay",
    "optim": "optimizer",
    "scheduler": "lr_schedule",
    "arch": "backbone",
    "model": "backbone",
    "network": "backbone",
    "loss": "method",
    "pretrained": "initial_weights",
    "checkpoint": "initial_weights",
    "weights": "initial_weights",
    "img_size": "image_size",
    "input_size": "image_size",
    "resolution": "image_size",
    "root": "data_root",
    "data_dir": "data_root",
    "data_path": "data_root",
    "raf_path": "data_root",
    "label_path": "label_file",
    "noise": "noise_rate",
    "noise_ratio": "noise_rate",
    "n_classes": "num_classes",
    "num_class": "num_classes",
    "random_seed": "seed",
    "gpu": "device",
    "num_gpus": "processes",
    "amp": "precision",
    "fp16": "precision",
    "val_split": "held_out",
}


def named(table: Mapping[str, Any], name: str, what: str) -> Any:
    """Return what `table` holds under `name`; ValueError with the known names for another."""
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; known are {', '.join(table)}")
    return table[name]


def refuse_unknown(given, known, what: str) -> None:
    """Raise ValueError if a name in `given` is not `known`, and suggest the one that is meant."""
    for name in given:
        if name not in known:
            ours = OTHER_NAMES.get(str(name).lower())
            near = difflib.get_close_matches(str(name), known, n=1)
            meant = [ours] if ours in known else near
            hint = f"did you mean {meant[0]!r}?" if meant else f"known are {', '.join(known)}"
            raise ValueError(f"unknown {what} {name!r}; {hint}")
