"""Names that users give: one that is not known is refused, with those that are."""

import difflib
from collections.abc import Mapping
from typing import Any

# What others' code calls our parameters, where no letters in common lead to the right name.
_CALLED_ELSEWHERE = {
    "lr": "learning_rate lr_init base_lr",
    "batch_size": "bs batchsize train_batch_size",
    "epochs": "num_epochs n_epochs max_epochs",
    "weight_decay": "wd",
    "optimizer": "optim",
    "lr_schedule": "scheduler",
    "backbone": "arch model network",
    "method": "loss",
    "initial_weights": "pretrained checkpoint weights",
    "image_size": "img_size input_size resolution",
    "data_root": "root data_dir data_path raf_path",
    "label_file": "label_path",
    "noise_rate": "noise noise_ratio",
    "num_classes": "n_classes num_class",
    "seed": "random_seed",
    "device": "gpu",
    "processes": "num_gpus",
    "precision": "amp fp16",
    "held_out": "val_split",
}
OTHER_NAMES = {name: ours for ours, names in _CALLED_ELSEWHERE.items() for name in names.split()}


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
