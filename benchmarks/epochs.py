"""(b) A whole epoch, against a plain loop with the habits of released FER code.

Those are: each JPEG decoded in each epoch by worker processes, transforms of one PIL image at a
time, two forward passes, and predictions copied to NumPy after each step.
"""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measuring import compared, in_turns, record
from PIL import Image
from steps import CONFIG, config_of, our_epoch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from nlalib.data.pixels import image_array
from nlalib.data.sets.rendered import render_face, rendered_index
from nlalib.methods.nla.loss import nla_loss
from nlalib.networks.normalisation import MEAN, STANDARD_DEVIATION
from nlalib.networks.registry import build_model
from nlalib.training.devices import make_accelerator


class Photographs(Dataset):
    """JPEG files, decoded and changed one at a time."""

    def __init__(self, files: list[Path], size: int):
        self.files = files
        self.change = transforms.Compose(
            [
                transforms.Resize((size, size)),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STANDARD_DEVIATION),
                transforms.RandomErasing(),
            ]
        )

    def __len__(self):
        return len(self.files)

    def __getitem__(self, number: int):
        image = self.change(Image.open(self.files[number]).convert("RGB"))
        return image, image.flip(2), number % 7


def plain_epoch(files: list[Path], size: int, backbone: str, batch: int):
    accelerator = make_accelerator(CONFIG.device, "fp32")
    model = build_model(backbone, 7, 0).to(accelerator.device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=CONFIG.lr)
    loader = DataLoader(Photographs(files, size), batch, shuffle=True, num_workers=2)

    def epoch():
        right = []
        for images, flipped, labels in loader:
            images, flipped = images.to(accelerator.device), flipped.to(accelerator.device)
            labels = labels.to(accelerator.device)
            logits, mirrored = model(images).logits, model(flipped).logits
            loss = nla_loss(logits, mirrored, labels, epoch=1, epochs=9)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            right.append(logits.detach().cpu().numpy().argmax(1) == labels.cpu().numpy())
            loss.item()
        np.concatenate(right).mean()

    return epoch


def whole_epoch(quick: bool) -> None:
    cases = [(224, "resnet18", 24 if quick else 64), (112, "resnet18", 64 if quick else 128)]
    cases += [(48, "resnet10_narrow16_stride2", 512)]
    tables = []
    for size, backbone, number in cases:
        batch = 8 if quick and size == 224 else 32
        with tempfile.TemporaryDirectory() as folder:
            paths = rendered_index(train=number, test=10, seed=0)["path"].head(number)
            files = [Path(folder) / f"{n}.jpg" for n in range(number)]
            for file, path in zip(files, paths, strict=True):
                Image.fromarray(render_face(path, 100)).save(file, quality=90)
            index = pd.DataFrame({"path": [file.name for file in files]})
            os.environ["NLA_CACHE"] = folder
            images = image_array(index, root=Path(folder), size=size)
            variants = {"plain loop fp32": plain_epoch(files, size, backbone, batch)}
            for precision in ("fp32", "bf16"):
                config = config_of(backbone, size, batch, precision, augmentation="released")
                variants[f"nla {precision}"] = our_epoch(config, images)
            seconds = in_turns(variants, 3 if quick else 6, clock=time.perf_counter)
        table = compared(seconds, "plain loop fp32", number)
        table["speed_ratio"] = 1 / table["time_ratio"]
        tables.append(table.assign(network=backbone, pixels=size, batch=batch, images=number))
    record("whole_epoch", pd.concat(tables))
