"""What a finished run is good for afterwards: a look at new faces, and files for other programs.

A network of this study is no product. It was trained on one set of web photographs to compare
methods; it is wrong often, more often for rare expressions, and what a face shows is not what a
person feels.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from nlalib.data.image_files import eight_bits, open_image, upright
from nlalib.data.label_sources import RULE
from nlalib.data.labels import expressions
from nlalib.files import write_atomically, writing
from nlalib.networks.normalisation import MEAN, STANDARD_DEVIATION
from nlalib.paths import runs_folder
from nlalib.prepare.alignment import align_face
from nlalib.prepare.face_detector import find_face
from nlalib.training.checkpoint import write_weights
from nlalib.training.config import RunConfig, read_config
from nlalib.training.learner import METHOD_FILE, Learner, load_learner

WARNING = (
    "A network of this study is no product: it was trained to compare methods on one set of "
    "photographs, errs often, and what a face shows is not what a person feels."
)
_ONNX_TOLERANCE = 1e-4


class Classifier(nn.Module):
    """From grey levels to probabilities: a finished run with its normalisation built in.

    Parameters
    ----------
    learner : Learner
        By whose `predict` images are judged.
    """

    def __init__(self, learner: Learner):
        super().__init__()
        self.learner = learner
        # `normalise` with constants of its own, as PyTorch's export does not see those made inside.
        for name, values in (("mean", MEAN), ("deviation", STANDARD_DEVIATION)):
            levels = 255 * torch.tensor(values).view(1, 3, 1, 1)
            self.register_buffer(name, levels, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities, (N, K), of images, (N, 3, H, W) float32 of 0 to 255, RGB."""
        return self.learner.predict((images - self.mean) / self.deviation).softmax(dim=1)


def load_classifier(run_id: str) -> tuple[RunConfig, Classifier]:
    """Return a finished run's parameters and its network, on the CPU, from its folder alone.

    Raises
    ------
    FileNotFoundError
        If there is no finished run of that name.
    """
    folder = runs_folder() / run_id
    config = read_config(folder)
    return config, Classifier(load_learner(config, folder)).eval()


def read_face(path: Path, size: int, as_is: bool = False) -> np.ndarray | None:
    """Return the largest face of an image file, aligned, (size, size, 3) uint8; None without one.

    None also where its landmarks make no triangle. `as_is` takes the whole image, resampled as for
    training, for files that are crops of faces already.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no image of a kind that is opened.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no image at {path}")
    try:
        image = upright(eight_bits(open_image(path))).convert("RGB")
    except Exception as error:  # Pillow raises struct.error, TypeError and others
        raise ValueError(f"{path} is no image that can be read ({error})") from error
    if as_is:
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    pixels = np.asarray(image)
    faces = find_face(pixels)
    if not len(faces.scores):
        return None
    try:
        return align_face(pixels, faces.points[0], size=size)[0]
    except ValueError:  # of a profile, say: no face that an aligned one could be made of
        return None


@torch.no_grad()
def classify(classifier: Classifier, faces: Sequence[np.ndarray]) -> np.ndarray:
    """Return probabilities, (N, K) float32, of faces, N of (size, size, 3) uint8."""
    images = torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).float()
    return classifier(images).numpy()


def predict_files(
    run_id: str, paths: Sequence[Path], as_is: bool = False
) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """Return what a finished run makes of image files, and the faces that it looked at.

    Returns
    -------
    table : pandas.DataFrame
        A row a file: `image`, `face` (whether one was found), and the probability of each
        expression, NaN where there was no face.
    faces : list of numpy.ndarray, (size, size, 3) uint8
        Of the rows with one, in their order.
    """
    config, classifier = load_classifier(run_id)
    found = [read_face(path, config.image_size, as_is) for path in paths]
    faces = [face for face in found if face is not None]
    names = expressions(config.num_classes)
    table = pd.DataFrame({"image": list(map(str, paths)), "face": [f is not None for f in found]})
    table[list(names)] = np.nan
    if faces:
        table.loc[table["face"], list(names)] = classify(classifier, faces).astype(float)
    return table, faces


def draw_predictions(table: pd.DataFrame, faces: Sequence[np.ndarray]):
    """Return a matplotlib figure of `predict_files`: each face beside its probabilities."""
    import matplotlib.pyplot as plt  # seconds, which tables need not wait for

    names = list(table.columns[2:])
    figure, axes = plt.subplots(
        len(faces), 2, figsize=(7, 2.2 * len(faces)), squeeze=False, layout="constrained"
    )
    for (left, right), face, values in zip(
        axes, faces, table.loc[table["face"], names].to_numpy(), strict=True
    ):
        left.imshow(face)
        left.axis("off")
        right.barh(names[::-1], values[::-1], color="#0072B2")
        right.set(xlim=(0, 1), xlabel="probability")
    return figure


def model_card(config: RunConfig, folder: Path) -> str:
    """Return a finished run's card: data, licence, limits, accuracy by class, in Markdown."""
    metrics = pd.read_csv(folder / "metrics.csv").iloc[-1]
    # As recorded: what it started from need not be there any more.
    start = json.loads((folder / "config.json").read_text())["identity"]["initialisation"]
    recalls = [
        f"| {name} | {100 * metrics[f'test_recall_{name}']:.1f} |"
        for name in expressions(config.num_classes)
    ]
    data = f"{config.dataset}, labels by `{config.label_rule}`"
    if config.label_source != RULE:
        data += f", of the training images by the source `{config.data.labels}`"
    if config.label_file:
        data += f", of the training images by the list `{Path(config.label_file).name}`"
    if config.noise_rate:
        data += (
            f", {config.noise_rate:.0%} of the training labels replaced by wrong ones on purpose"
        )
    if config.imbalance_factor > 1:
        data += f", the largest class {config.imbalance_factor:g} times as large as the smallest"
    made_of = (
        "faces drawn by code"
        if config.data.set.is_made
        else (
            "photographs from web searches, mostly posed or public; labels are what annotators saw"
        )
    )
    head = [
        f"- **Weights**: `{folder.name}.safetensors` is the network alone; what predicts is its "
        f"features with the method's own head, `{folder.name}.method.safetensors`, as the ONNX "
        "file and `python -m nlalib predict` have it."
    ]
    return "\n".join(
        [
            f"# {folder.name}",
            "",
            WARNING,
            "",
            f"- **Input**: RGB, {config.image_size} x {config.image_size} pixels, grey levels 0 to "
            "255 as float32, channels first; one aligned face.",
            f"- **Output**: probabilities of {', '.join(expressions(config.num_classes))}.",
            f"- **Trained on**: {data}; method `{config.method}`, network `{config.backbone}` from "
            f"{_named(config.initial_weights, start)}, {config.epochs} epochs, seed {config.seed}.",
            "- **Licence**: the code is MIT. The images have terms of their own, which may forbid "
            "other uses of what was trained on them: ask their owners.",
            f"- **Accuracy** on the set's test images, last epoch: "
            f"{100 * metrics['test_overall_accuracy']:.1f} % overall, "
            f"{100 * metrics['test_mean_accuracy']:.1f} % as the mean over classes.",
            f"- **Limits**: {made_of}. No test of fairness between groups of people was made.",
            *(head if (folder / METHOD_FILE).is_file() else []),
            "",
            "| expression | recall % |",
            "| --- | --- |",
            *recalls,
            "",
        ]
    )


def _named(weights: str, recorded: str) -> str:
    """Return initial weights' name and what a run recorded of them; of random ones "random"."""
    path = Path(weights)
    if not weights or recorded == path.parent.name:  # masked pre-training has its run's name
        return recorded
    return f"{path.stem}@{recorded}"


def export(run_id: str, folder: Path, onnx: bool = True) -> list[Path]:
    """Write a finished run for other programs, and return the paths written.

    `<run id>.safetensors` (weights of the network), `<run id>.method.safetensors` (of a method with
    layers of its own), `<run id>.md` (`model_card`) and, with `onnx`, `<run id>.onnx`
    (`Classifier`, any number of images), compared with PyTorch by ONNX Runtime.

    Raises
    ------
    FileNotFoundError
        If there is no finished run of that name.
    ModuleNotFoundError
        If `onnx` is wanted and its packages are not installed.
    ValueError
        If the exported network computes something else.
    """
    config, classifier = load_classifier(run_id)
    folder_of_run = runs_folder() / run_id
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    weights, card, graph = (folder / f"{run_id}.{end}" for end in ("safetensors", "md", "onnx"))
    write_weights(weights, classifier.learner.model)
    write_atomically(card, lambda path: path.write_text(model_card(config, folder_of_run)))
    written = [weights, card]
    if classifier.learner.method.has_own_layers:
        written.append(folder / f"{run_id}.{METHOD_FILE}")
        write_weights(written[-1], classifier.learner.method)
    if not onnx:
        return written
    size = (2, 3, config.image_size, config.image_size)
    images = torch.randint(0, 256, size, generator=torch.Generator().manual_seed(0)).float()
    try:
        program = torch.onnx.export(
            classifier, (images,), dynamic_shapes=({0: "n"},), verbose=False
        )
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"ONNX files need the package {error.name}: pip install -e '.[export]'"
        ) from error
    write_atomically(graph, lambda path: program.save(path))
    _compare(graph, classifier, images)
    return [*written, graph]


@torch.no_grad()
def _compare(graph: Path, classifier: Classifier, images: Tensor) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    apart = float(np.abs(found - classifier(images).numpy()).max())
    if apart > _ONNX_TOLERANCE:
        raise ValueError(f"{graph} computes something else: probabilities {apart:.1e} apart")
