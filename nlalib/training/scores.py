"""What a finished run makes of its own training images: scores from which candidate sets come.

For data sets without votes (RAF-DB's labels, AffectNet's), a model's most likely classes stand for
what annotators might have said. The model has trained on these images, so it is surer of the given
label than of a face that it has not seen, and knows wrong labels by heart the better the longer it
trained: take a short run, or one that trained on other labels of the same images.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from nlalib.data.content import compare_content
from nlalib.data.labels import probability_columns
from nlalib.data.pixels import image_array
from nlalib.data.splits import TEST, load_dataset
from nlalib.files import write_table
from nlalib.paths import runs_folder
from nlalib.training.config import read_config
from nlalib.training.devices import make_accelerator
from nlalib.training.learner import load_learner
from nlalib.training.loop import predict


def write_scores(run_id: str) -> Path:
    """Write `training_scores.parquet` in a finished run's folder, and return its path.

    A row an image of the training and the held-out part: `image_id`, and `p_<expression>` for each
    class, from the unaugmented image and the weights of the last epoch.

    Raises
    ------
    FileNotFoundError
        If there is no finished run of that name.
    ValueError
        If the run trained on other images or labels than are there now.
    """
    folder = runs_folder() / run_id
    config = read_config(folder)
    index, _ = load_dataset(config.data)
    images = image_array(index, root=config.data.root, size=config.image_size)
    compare_content(folder, index, images)
    accelerator = make_accelerator(config.device, config.precision)
    learner = load_learner(config, folder)
    positions = np.flatnonzero(index["part"] != TEST)
    scores = predict(learner.to(accelerator.device), images, positions, accelerator)
    table = pd.DataFrame(scores, columns=probability_columns(config.num_classes))
    table.insert(0, "image_id", index["image_id"].to_numpy()[positions])
    path = folder / "training_scores.parquet"
    write_table(path, table)
    return path
