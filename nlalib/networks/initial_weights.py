"""What networks start from: names, digests, and weights that are put into a backbone."""

import re
from pathlib import Path

from torch import Tensor, nn

from nlalib.files import name_and_digest
from nlalib.networks.face_resnet import FILE_SHA256, load_face_weights
from nlalib.networks.weight_files import read_weights_file
from nlalib.paths import resolve

# As `initial_weights`: dlib's face-recognition weights, for the backbone "face_resnet".
FACE_WEIGHTS = "dlib_face"
_DIGITS = 12  # of a SHA-256, as `file_digest` gives
# The folder of a run of nlalib.training.pretraining.
_PRETRAINED = re.compile(r"\w+-masked-seed\d+-[0-9a-f]{10}")


def initialisation_name(weights: str) -> str:
    """Return how results name the initial weights: "random", or their name and digest.

    `weights` is empty, `FACE_WEIGHTS` or the path of a file.

    Weights that masked pre-training left have the name of its run, which says how they were made,
    is the same on every machine, and is known before they are there.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    if not weights:
        return "random"
    if weights == FACE_WEIGHTS:
        return f"{FACE_WEIGHTS}@{FILE_SHA256[:_DIGITS]}"
    path = resolve(weights)
    if _PRETRAINED.fullmatch(path.parent.name):
        return path.parent.name
    _require_weights(path)
    return name_and_digest(path)


def _require_weights(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(
            f"no weights at {path}; give the path of e.g. resnet18_msceleb.pth, or of what "
            f"05_masked_pretraining left, as initial_weights; {FACE_WEIGHTS!r} with the backbone "
            "face_resnet; or nothing for random initialisation"
        )
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a folder; give the path of a weights file in it")


def initialise(model: nn.Module, weights: str, images: Tensor) -> list[str]:
    """Give a network its initial weights, in place; the classifier keeps its own.

    Parameters
    ----------
    model : torch.nn.Module
        With its classifier in `fc`, on the CPU.
    weights : str
        `FACE_WEIGHTS`, or the path of a file; see `load_backbone`.
    images : Tensor, (N, 3, H, W) float32
        Unaugmented, normalised training images; see `load_face_weights`.

    Returns
    -------
    list of str
        Names of entries in the file that the backbone has no use for.
    """
    if weights == FACE_WEIGHTS:
        load_face_weights(model, images)
        return []
    return load_backbone(model, resolve(weights))


def load_backbone(model: nn.Module, path: Path) -> list[str]:
    """Load the backbone's weights from a file, in place; the classifier keeps its own.

    Parameters
    ----------
    model : torch.nn.Module
        With its classifier in `fc`.
    path : pathlib.Path
        As `nlalib.networks.weight_files.read_weights_file` takes it.

    Returns
    -------
    list of str
        Names of entries in the file that the backbone has no use for.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not whole or holds more than tensors, lacks weights of the backbone, has
        those of a deeper one, or numbers that are not finite.
    """
    _require_weights(path)
    state = read_weights_file(path)
    wanted = {name: v for name, v in model.state_dict().items() if not name.startswith("fc.")}
    # Files from before PyTorch 0.4.1 lack the counters of batch normalisation.
    required = [name for name in wanted if not name.endswith("num_batches_tracked")]
    unfit = [n for n in required if n not in state or state[n].shape != wanted[n].shape]
    if unfit:
        raise ValueError(
            f"{path} does not fit the backbone: {len(unfit)} of {len(required)} weights are "
            f"missing or of another shape, first {unfit[0]!r}; the file's first names are "
            f"{list(state)[:3]}"
        )
    unused = sorted(set(state) - set(wanted))
    parts = {name.split(".")[0] for name in wanted}
    deeper = [name for name in unused if name.split(".")[0] in parts]
    if deeper:
        raise ValueError(
            f"{path} does not fit the backbone: it holds {len(deeper)} more weights of the same "
            f"parts, first {deeper[0]!r}, so it is of a deeper network; give the weights of this "
            "backbone, or another backbone"
        )
    spoilt = [name for name in required if not state[name].isfinite().all()]
    if spoilt:
        raise ValueError(
            f"{path} holds numbers that are not finite in {len(spoilt)} of {len(required)} "
            f"weights, first {spoilt[0]!r}: download it again, or save it from another training"
        )
    model.load_state_dict({name: state[name] for name in wanted if name in state}, strict=False)
    return unused
