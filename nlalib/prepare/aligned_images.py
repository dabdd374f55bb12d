"""A whole set of faces, aligned once into a folder that a run then reads in the set's place.

The folder mirrors the set's tree (`nlalib.prepare.align_faces` adds the label files), so the set's
own reader reads it. Endings stay, as readers list by them: a `.png` is written as PNG, which loses
nothing; a `.jpg` as JPEG of quality 95 without halved colours (the set's own files are JPEGs
already); anything else as JPEG under `.jpg`.

A face without usable landmarks is kept by a **fallback**: the whole image, its proportions kept, on
the middle of a black square. It needs no other image, so it is the same in whatever order the
set is done, and for the crops that most sets ship it is what training without alignment sees.
(The set's mean landmarks would need a pass before, and mean nothing for photographs of scenes.)

Each image carries its own record (how it was aligned, from which file, by which points) inside
the file, and is renamed into place when whole: a killed batch, started again, leaves
finished images alone, redoes those whose source has changed, and still reports all of them.
"""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, PngImagePlugin
from skimage.transform import AffineTransform

from nlalib.data.choice import SETTINGS_FILE, alignment_settings
from nlalib.data.decoding import ImageReader, UndecodableImage
from nlalib.data.image_files import open_image, upright
from nlalib.data.index import LANDMARK_COLUMNS, POINT_COLUMNS
from nlalib.data.sets.base import IMAGE_ENDINGS
from nlalib.data.sets.fer2013_table import TABLE_MARK
from nlalib.data.sets.rendered import RENDERED_MARK
from nlalib.files import CLOSED, locked, write_atomically, write_csv, write_json, writing
from nlalib.prepare.alignment import TEMPLATE, align_face, warp_image
from nlalib.prepare.face_detector import find_face

LANDMARK_SOURCES = ("given", "detected")
REPORT_FILE = "alignment_report.csv"
FALLBACK, FAILED = "fallback", "failed"
NO_FACE, NO_LANDMARKS = "no face found", "no landmarks given"
NO_TRIANGLE = "landmarks form no upright triangle"
NO_FILE, UNDECODABLE = "no such file", "file does not decode"
REPORT_COLUMNS = ["image_id", "path", "output", "outcome", "reason", "score", *LANDMARK_COLUMNS]
# Raise it when a change of the code changes pixels, so that old images are not taken for new ones.
_VERSION = 2
_RECORD = "alignment"
_BLOCK, _REPORTED = 16, 1000


def align_images(
    index: pd.DataFrame,
    root: str | os.PathLike,
    output_folder: str | os.PathLike,
    size: int = 224,
    landmarks: str = "given",
    report: Callable[[str], None] | None = None,
    *,
    threads: int | None = None,
) -> pd.DataFrame:
    """Align every image of an index into a folder, and write a report of all of them.

    Started again after a kill, or with more images, it does what is left. Threads, not
    processes: nearly all the time goes into decoding, warping and the network, in libraries that
    let other threads run; and no worker outlives a killed batch.

    Parameters
    ----------
    index : pandas.DataFrame
        `image_id` and `path` as `nlalib.data.index` describes, and `split` for images in a table.
        Landmarks, if any, in `LANDMARK_COLUMNS` (fractions) or AffectNet's `POINT_COLUMNS`
        (pixels). `output`, if there, is each image's path in the folder.
    root : path
        The data set's folder.
    output_folder : path
        Made if missing. It may hold nothing but an earlier batch of the same settings.
    size : int
        Side of the crops, pixels.
    landmarks : {"given", "detected"}
        Those of the index, or of the largest face that `find_face` finds.
    report : callable, optional
        Gets a line of text now and then.
    threads : int, optional
        As many as there are cores without it.

    Returns
    -------
    pandas.DataFrame
        A row an image, `REPORT_COLUMNS`: `outcome` is "given", "detected", "fallback" or "failed"
        (no file was written: the source is missing, closed or does not decode), `reason` why it is
        one of the last two; the detector's `score`; the landmarks used, in fractions of the source.
        Also written to `alignment_report.csv` in the folder.

    Raises
    ------
    ValueError
        If the folder is the set's own or holds something else, the index has no landmarks where
        they are to be given, or two images would be one file.
    RuntimeError
        If another batch is writing to the folder.
    """
    root, output = Path(root), Path(output_folder)
    if landmarks not in LANDMARK_SOURCES:
        raise ValueError(f"landmarks are {landmarks!r}; choose {' or '.join(LANDMARK_SOURCES)}")
    if size < 16:
        raise ValueError(f"size is {size}; a face needs at least 16 pixels")
    rows = _with_output(index)
    in_pixels = landmarks == "given" and set(POINT_COLUMNS) <= set(index.columns)
    columns = POINT_COLUMNS if in_pixels else LANDMARK_COLUMNS
    if landmarks == "given" and not set(columns) <= set(index.columns):
        raise ValueError(
            "the index has no landmarks that could be given; take landmarks='detected'"
        )
    points = np.full((len(rows), 5, 2), np.nan)
    if landmarks == "given":
        points = index[columns].to_numpy(dtype=np.float64).reshape(-1, 5, 2)
    with _sole_writer(root, output):
        _check_settings(output, size, landmarks)
        for folder in {(output / name).parent for name in rows["output"]}:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
        reader = ImageReader(root, rows["path"], size)
        batch = _Batch(root, output, size, landmarks, in_pixels, reader)
        jobs = list(zip(rows["path"], rows["output"], points, strict=True))
        blocks = [jobs[start : start + _BLOCK] for start in range(0, len(jobs), _BLOCK)]
        records = []
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            for block in pool.map(batch.align_block, blocks):
                records += block
                if report and len(records) // _REPORTED > (len(records) - len(block)) // _REPORTED:
                    report(f"aligned {len(records):,} of {len(rows):,} images")
        found = pd.DataFrame(records, index=rows.index)
        found[LANDMARK_COLUMNS] = np.array(found["points"].tolist(), float).reshape(-1, 10)
        table = rows.join(found).astype({"score": "float64"})[REPORT_COLUMNS]
        write_csv(output / REPORT_FILE, table)
    return table


@dataclass(frozen=True)
class _Batch:
    root: Path
    output: Path
    size: int
    landmarks: str
    in_pixels: bool
    reader: ImageReader

    def align_block(self, jobs: list[tuple[str, str, np.ndarray]]) -> list[dict]:
        return [self.align(*job) for job in jobs]

    def align(self, path: str, name: str, points: np.ndarray) -> dict:
        """Align one image, unless that is done already; return its record."""
        source, target = self.state(path, points), self.output / name
        record = _read_record(target)
        if record is not None and record["source"] == source:
            return record
        try:
            # Landmarks that are given are of the pixels as they are stored, and turn the face.
            image = self.reader.read(path, upright=self.landmarks == "detected")
        except FileNotFoundError:
            reason = NO_FILE
        except UndecodableImage as error:
            reason = CLOSED if error.reason == CLOSED else UNDECODABLE
        else:
            crop, outcome = self.crop(image, points)
            record = {"source": source} | outcome
            write_atomically(target, lambda file: _save(file, crop, target.suffix, record))
            return record
        if reason != CLOSED:
            target.unlink(missing_ok=True)  # An earlier batch may have had a sound source.
        return _outcome(FAILED, reason)

    def state(self, path: str, points: np.ndarray) -> str:
        """Say what an image is made from; another text means that it must be made again."""
        text = path
        if not path.startswith(RENDERED_MARK):
            try:
                file = path.rpartition("#")[0] if TABLE_MARK in path else path
                status = os.stat(self.root / file)
            except FileNotFoundError:
                return ""
            text += f" {status.st_size} {status.st_mtime_ns}"
        return text + (f" {points.ravel().tolist()}" if self.landmarks == "given" else "")

    def crop(self, image: Image.Image, points: np.ndarray) -> tuple[np.ndarray, dict]:
        """Return the aligned image, and how it was made."""
        score, reason = None, NO_LANDMARKS
        pixels, extent = np.asarray(image.convert("RGB")), np.array(image.size)
        if self.landmarks == "detected":
            faces, reason = find_face(pixels), NO_FACE
            if len(faces.scores):
                score, points = round(float(faces.scores[0]), 4), faces.points[0]
        elif not self.in_pixels:
            points = points * extent
        if np.isfinite(points).all():
            try:
                crop, _ = align_face(pixels, points, size=self.size)
                return crop, _outcome(self.landmarks, "", score, points / extent)
            except ValueError:
                reason = NO_TRIANGLE
        # As training without alignment sees it.
        whole = whole_image(np.asarray(upright(image).convert("RGB")), self.size)
        return whole, _outcome(FALLBACK, reason, score)


def whole_image(image: np.ndarray, size: int) -> np.ndarray:
    """Return an image (height, width, 3), proportions kept, on the middle of a black square."""
    extent = np.array(image.shape[1::-1])
    scale = size / extent.max()
    return warp_image(
        image, AffineTransform(scale=scale, translation=(size - scale * extent) / 2), size
    )


def _with_output(index: pd.DataFrame) -> pd.DataFrame:
    rows = index[["image_id", "path"]].reset_index(drop=True)
    if "output" in index:
        rows["output"] = index["output"].to_numpy()
    else:
        split = index["split"] if "split" in index else [""] * len(rows)
        named = zip(rows["image_id"], rows["path"], split, strict=True)
        rows["output"] = [_output_path(*one) for one in named]
    repeated = rows.loc[rows["output"].str.lower().duplicated(), "output"]
    if len(repeated):
        raise ValueError(f"{len(repeated)} images would be one file, first {repeated.iloc[0]}")
    return rows


def _output_path(image_id: str, path: str, split: str) -> str:
    if path.startswith(RENDERED_MARK):
        return path.replace(":", "_") + ".png"
    if TABLE_MARK in path:
        return f"{split}/{image_id}.png"
    kept = Path(path).suffix.lower() in IMAGE_ENDINGS
    return path if kept else str(Path(path).with_suffix(".jpg"))


@contextmanager
def _sole_writer(root: Path, output: Path) -> Iterator[None]:
    """Keep other batches, and the set's own folder, out of it."""
    if output.resolve() == root.resolve():
        raise ValueError(f"{output} is the set's own folder; align into another one")
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    holds = [path.name for path in output.iterdir()]
    if holds and SETTINGS_FILE not in holds and ".lock" not in holds:
        raise ValueError(f"{output} holds {holds[0]} and no aligned images; give an empty folder")
    with locked(output / ".lock", f"another process is aligning into {output}; wait for it"):
        # What a killed batch left half written.
        for unfinished in output.rglob(".*.unfinished"):
            unfinished.unlink()
        yield


def _check_settings(output: Path, size: int, landmarks: str) -> None:
    settings = {"size": size, "landmarks": landmarks, "transform": "similarity"}
    settings |= {"template": TEMPLATE.tolist(), "fallback": "whole image", "version": _VERSION}
    found = alignment_settings(output)
    if found is None:
        write_json(output / SETTINGS_FILE, settings)
    elif found != settings:
        different = [
            f"{name} {found.get(name)!r}" for name in settings if found.get(name) != settings[name]
        ]
        raise ValueError(
            f"{output} was made with {', '.join(different)}: give the same settings, or another "
            "folder"
        )


def _outcome(outcome: str, reason: str, score: float | None = None, points=None) -> dict:
    points = [None] * 10 if points is None else np.round(points, 6).ravel().tolist()
    return {"outcome": outcome, "reason": reason, "score": score, "points": points}


def _save(file: Path, crop: np.ndarray, suffix: str, record: dict) -> None:
    # A grey image stays grey: a third of the bytes, and the same pixels.
    is_grey = (crop == crop[..., :1]).all()
    image, text = Image.fromarray(crop[..., 0] if is_grey else crop), json.dumps(record)
    if suffix.lower() == ".png":
        information = PngImagePlugin.PngInfo()
        information.add_text(_RECORD, text)
        image.save(file, "PNG", compress_level=1, pnginfo=information)
    else:
        image.save(file, "JPEG", quality=95, subsampling=0, comment=text.encode())


def _read_record(path: Path) -> dict | None:
    """Return what `_save` wrote beside the pixels; None where there is no such image."""
    try:
        with open_image(path) as image:  # Reads the header, not the pixels.
            return json.loads(image.info.get(_RECORD) or image.info.get("comment") or "null")
    except (OSError, ValueError):
        return None
