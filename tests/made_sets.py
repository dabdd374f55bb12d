"""Small trees in the official layouts of the sets, of drawn pixels."""

import numpy as np
from PIL import Image

from nlalib.data.labels import AFFECTNET_CODES, BASIC_EXPRESSIONS, FERPLUS_COLUMNS, RAFDB_CODES
from nlalib.data.sets.rafdb import LABEL_FILE

# Few images, no two classes with as many.
TRAIN = dict(zip(BASIC_EXPRESSIONS, (12, 3, 8, 30, 18, 7, 22), strict=True))
TEST = dict(zip(BASIC_EXPRESSIONS, (4, 1, 2, 9, 5, 3, 6), strict=True))
COUNTS = {"train": TRAIN, "test": TEST}
OF_FOLDER = {"train": "FER2013Train", "validation": "FER2013Valid", "test": "FER2013Test"}


def picture(number: int, size: int = 16) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (size, size), np.uint8)
    return Image.fromarray(pixels)


def labelled(counts) -> list[tuple[str, str]]:
    """Return (split, expression) of each image."""
    return [(s, name) for s, of in counts.items() for name, n in of.items() for _ in range(n)]


def write_rafdb(root, counts=COUNTS, order=None):
    codes = {name: code for code, name in RAFDB_CODES.items()}
    if order:
        codes = {name: code for code, name in enumerate(order, start=1)}
    (root / "EmoLabel").mkdir(parents=True)
    (root / "Image/aligned").mkdir(parents=True)
    lines = []
    for number, (split, name) in enumerate(labelled(counts)):
        lines.append(f"{split}_{number:05d}.jpg {codes[name]}")
        # PNG content, so that pixels are what was drawn; Pillow does not go by the ending.
        picture(number).save(root / f"Image/aligned/{split}_{number:05d}_aligned.jpg", "PNG")
    (root / LABEL_FILE).write_text("\n".join(lines) + "\n")
    return root


def write_affectnet(root, counts=COUNTS, order=None):
    codes = {name: code for code, name in enumerate(order or AFFECTNET_CODES.values())}
    for split, folder in (("train", "train_set"), ("test", "val_set")):
        (root / folder / "images").mkdir(parents=True)
        (root / folder / "annotations").mkdir()
        for number, (of, name) in enumerate(labelled(counts)):
            if of == split:
                picture(number).save(root / folder / f"images/{number}.jpg", "PNG")
                np.save(root / folder / f"annotations/{number}_exp.npy", np.array(str(codes[name])))
    return root


def write_affectnet_2017(root, counts=COUNTS, order=None):
    codes = {name: code for code, name in enumerate(order or AFFECTNET_CODES.values())}
    lines = {"train": [], "test": []}
    for number, (split, name) in enumerate(labelled(counts)):
        path = root / f"Manually_Annotated_Images/{number % 9}/{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path, "PNG")
        lines[split].append(f"{number % 9}/{number}.jpg,0,0,9,9,NULL,{codes[name]},0,0")
    header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks"
    for split, file in (("train", "training.csv"), ("test", "validation.csv")):
        text = [f"{header},expression,valence,arousal", *lines[split]]
        (root / file).write_text("\n".join(text) + "\n")
    return root


def write_ferplus(root, counts=None, order=None):
    columns = list(FERPLUS_COLUMNS.values())
    written = [*order, *columns[7:]] if order else columns
    lines = ["Usage,Image name," + ",".join(FERPLUS_COLUMNS)]
    usages = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
    for folder in OF_FOLDER.values():
        (root / folder).mkdir(parents=True)
    for number, (split, name) in enumerate(labelled(counts or {**COUNTS, "validation": TEST})):
        votes = [10 * (column == name) for column in written]
        lines.append(f"{usages[split]},fer{number:07d}.png,{','.join(map(str, votes))}")
        picture(number, 48).save(root / OF_FOLDER[split] / f"fer{number:07d}.png")
    (root / "fer2013new.csv").write_text("\n".join(lines) + "\n")
    return root


def file_of(root, number: int):
    """Return the image of a small tree that was written as this number."""
    numbered = {int("".join(filter(str.isdigit, p.stem))): p for p in root.rglob("*.*g")}
    return numbered[number]
