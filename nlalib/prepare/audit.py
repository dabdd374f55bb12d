"""Is what was unpacked the set that the papers used? `python -m nlalib audit DATASET`.

The audit reads a set as a training run would, decodes every image, and compares with what is
published: images of each split and class, sizes, images that lie in two splits. Each deviation
comes in words, with its likely cause. What the set itself is known to have (FERPlus's own
duplicates) is no deviation.
"""

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from nlalib.data.labels import RAFDB_CODES
from nlalib.data.sets import affectnet, ferplus, rafdb
from nlalib.data.sets.base import class_table
from nlalib.data.votes import label_from_votes
from nlalib.files import write_json
from nlalib.paths import display_path, resolve, runs_folder
from nlalib.prepare.deviations import count_deviations
from nlalib.prepare.duplicates import (
    Fingerprints,
    count_twins,
    find_duplicates,
    leaked_test_images,
    take_fingerprints,
)

FITS, DIFFERS, UNREADABLE = "fits", "differs", "cannot be read"
_LISTED = 20  # names of broken files in the report


@dataclass(frozen=True)
class Expectation:
    """What is published of a set."""

    title: str
    counts: dict[str, dict[str, int]]  # split to expression to images
    order: tuple[str, ...]  # the expressions in the order of the set's codes
    source: str  # of the counts
    images: dict[str, int] | None = None  # by split, where not all images have a label
    size: tuple[int, int] | None = None  # width and height of every image, pixels
    twins_in_train: dict[str, int] | None = None  # by split, bit-identical, in the published set
    dropped: dict[str, int] | None = None  # by reason, in the published set


def _basic(counts: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    return {
        split: {name: count for name, count in of_split.items() if name != "contempt"}
        for split, of_split in counts.items()
    }


EXPECTED = {
    "ferplus": Expectation(
        "FERPlus",
        ferplus.COUNTS,
        tuple(ferplus.COUNTS["train"]),
        "votes of microsoft/FERPlus, largest count",
        images=ferplus.IMAGES,
        size=(ferplus.IMAGE_SIDE, ferplus.IMAGE_SIDE),
        twins_in_train={"validation": 279, "test": 288},
        dropped={"row without an image name": 173, "earlier row of a repeated name": 4},
    ),
    "rafdb": Expectation(
        "RAF-DB, basic",
        rafdb.COUNTS,
        tuple(RAFDB_CODES.values()),
        "Li, Deng and Du 2017",
        size=(100, 100),
    ),
    "affectnet": Expectation(
        "AffectNet, seven classes",
        _basic(affectnet.COUNTS),
        tuple(affectnet.COUNTS["train"])[:7],
        "users' counts of the csv files",
    ),
}


def read_all(dataset: str, root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a set's images, also those that have no label (-1), and what was dropped."""
    if dataset == "rafdb":
        return rafdb.read_rafdb(root)
    if dataset == "affectnet":
        return affectnet.read_affectnet(root)
    images, dropped = ferplus.read_ferplus_votes(root)
    # Kaggle's file has pixels for rows without a name too; as published they are no images.
    is_nameless = images["image_id"].str.fullmatch(r"row\d+")
    nameless = images.loc[is_nameless, "split"].value_counts().rename("images").reset_index()
    dropped = pd.concat([dropped, nameless.assign(reason="row without an image name")])
    images = images[~is_nameless].reset_index(drop=True)
    return images.assign(label=label_from_votes(images, "argmax", 8)["label"]), dropped


def audit_dataset(
    dataset: str,
    root: str | Path,
    *,
    expected: Expectation | None = None,
    report: Callable[[str], None] | None = None,
) -> dict:
    """Compare a set with what is published of it.

    Parameters
    ----------
    dataset : {"ferplus", "rafdb", "affectnet"}
    root : path
        The set's folder.
    expected : Expectation, optional
        Instead of `EXPECTED[dataset]`.
    report : callable, optional
        Gets a line of text now and then while images are decoded.

    Returns
    -------
    dict
        `verdict` ("fits", "differs", "cannot be read"), `deviations` (texts, empty where it fits),
        and, where the set could be read: `counts`, `dropped`, `sizes`, `undecodable`,
        `duplicates` (records of `count_twins`), `leaked_test_images` (ids, by "exact" and
        "exact_or_near"), `label_conflicts` (groups of identical images with several labels), and
        `digest` of the decoded pixels and of the labels. All of it can be written as JSON.

    Raises
    ------
    ValueError
        For an unknown set.
    """
    if dataset not in EXPECTED:
        raise ValueError(f"unknown data set {dataset!r}; choose one of {', '.join(EXPECTED)}")
    expected, root = expected or EXPECTED[dataset], Path(root)
    head = {"dataset": dataset, "title": expected.title, "root": display_path(root)}
    try:
        index, dropped = read_all(dataset, root)
        rows = ferplus.count_votes_rows(root) if dataset == "ferplus" else {}
    except (FileNotFoundError, ValueError) as error:
        return {**head, "verdict": UNREADABLE, "deviations": [str(error)]}
    counts = _counts(index, expected, rows)
    prints, files = examine_images(index, root, report)
    index = index[files["decoded"]].reset_index(drop=True)
    found = find_duplicates(prints)
    twins = count_twins(index["split"], found)
    deviations = [
        *count_deviations(counts, expected.order),
        *_dropped_deviations(dropped, expected.dropped or {}),
        *_file_deviations(files, expected.size),
        *_leak_deviations(twins, expected.twins_in_train or {}),
    ]
    labels = pd.Series(index["label"].to_numpy()).groupby(found.groups).nunique()
    return {
        **head,
        "verdict": DIFFERS if deviations else FITS,
        "deviations": deviations,
        "counts": counts.to_dict("records"),
        "counts_source": expected.source,
        "dropped": dropped.to_dict("records"),
        "sizes": files["sizes"],
        "undecodable": files["undecodable"],
        "duplicates": twins.to_dict("records"),
        "leaked_test_images": {
            "exact": leaked_test_images(index, found, near=False),
            "exact_or_near": leaked_test_images(index, found, near=True),
        },
        "label_conflicts": int((labels > 1).sum()),
        "digest": {
            "pixels": _digest(index, [digest.hex() for digest in prints.digests.tolist()]),
            "labels": _digest(index, index["label"]),
        },
    }


def _counts(index: pd.DataFrame, expected: Expectation, rows: dict[str, int]) -> pd.DataFrame:
    """Return `split`, `expression` ("all images", "rows of votes"), `expected`, `found`."""
    classes = class_table(index, expected.counts)
    totals = expected.images or {s: sum(of.values()) for s, of in expected.counts.items()}
    in_split = index["split"].value_counts()
    every = [(split, "all images", n, int(in_split.get(split, 0))) for split, n in totals.items()]
    of_votes = [(s, "rows of votes", n, rows.get(s, 0)) for s, n in ferplus.ROWS.items() if rows]
    return pd.concat([classes, pd.DataFrame(every + of_votes, columns=classes.columns)])


def examine_images(
    index: pd.DataFrame, root: Path, report: Callable[[str], None] | None
) -> tuple[Fingerprints, dict]:
    """Decode all images, one at a time; return their fingerprints and what is odd with files."""
    sizes, undecodable = Counter(), []
    decoded = np.zeros(len(index), dtype=bool)
    tables = _tables(index, root)

    def images():
        for position, path in enumerate(index["path"]):
            if report and position and position % 20_000 == 0:
                report(f"decoded {position:,} of {len(index):,} images")
            try:
                image = Image.fromarray(tables[path]) if path in tables else _decode(root / path)
            except (UnidentifiedImageError, OSError) as error:
                reason = type(error).__name__
                undecodable.append({"path": path, "reason": reason})
                continue
            decoded[position] = True
            sizes[image.size] += 1
            yield image

    prints = take_fingerprints(images())
    by_size = [
        {"width": width, "height": height, "images": count}
        for (width, height), count in sizes.most_common(_LISTED)
    ]
    files = {"sizes": by_size, "undecodable": undecodable, "decoded": decoded}
    return prints, files | {"other_sizes": sizes}


def _tables(index: pd.DataFrame, root: Path) -> dict[str, np.ndarray]:
    paths = index.loc[index["path"].str.startswith(f"{ferplus.KAGGLE_FILE}#"), "path"]
    if paths.empty:
        return {}
    rows = paths.str.partition("#")[2].astype(int)
    return dict(
        zip(paths, ferplus.load_kaggle_images(root / ferplus.KAGGLE_FILE, rows), strict=True)
    )


def _decode(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def _digest(index: pd.DataFrame, values) -> str:
    """Return a digest of one value an image, whatever the images' order and the set's layout."""
    lines = zip(index["split"], index["image_id"], map(str, values), strict=True)
    return hashlib.sha256("\n".join(sorted(map(" ".join, lines))).encode()).hexdigest()[:32]


def _dropped_deviations(dropped: pd.DataFrame, known: dict[str, int]) -> list[str]:
    texts = []
    found = dropped.groupby("reason")["images"].sum().to_dict()
    # What a set's own codes drop is counted by the classes; these are about files and lists.
    odd = (rafdb.NO_FILE, rafdb.NO_LABEL, affectnet.NO_LABEL, affectnet.REPEATED)
    for reason in (*odd, "votes without an image", "image without votes", *known):
        if found.get(reason, 0) != known.get(reason, 0) and reason in {**found, **known}:
            texts.append(
                f"{found.get(reason, 0):,} x {reason!r}, expected {known.get(reason, 0):,}: files "
                "were lost or added since the set was published; unpack it again"
            )
    return texts


def _file_deviations(files: dict, size: tuple[int, int] | None) -> list[str]:
    texts = []
    if broken := files["undecodable"]:
        texts.append(
            f"{len(broken):,} images do not decode, first {broken[0]['path']} "
            f"({broken[0]['reason']}): cut short while downloading or unpacking; unpack again"
        )
        del broken[_LISTED:]
    other = {found: count for found, count in files["other_sizes"].items() if found != size}
    if size and other:
        (width, height), _ = max(other.items(), key=lambda item: item[1])
        texts.append(
            f"{sum(other.values()):,} images are not {size[0]} x {size[1]} pixels, most of them "
            f"{width} x {height}: a copy that was resized or aligned again"
        )
    return texts


def _leak_deviations(twins: pd.DataFrame, known: dict[str, int]) -> list[str]:
    texts = []
    for row in twins[twins["twin_in"] == "train"].itertuples():
        usual = known.get(row.split, 0)
        if row.split != "train" and row.exact != usual:
            texts.append(
                f"{row.exact:,} {row.split} images are identical, pixel by pixel, to training "
                f"images, expected {usual:,}: "
                + (
                    f"images of the {row.split} split were copied into the training folder"
                    if row.exact > usual
                    else "a copy from which duplicates were taken out, or with images missing"
                )
            )
    return texts


def format_audit(audit: dict) -> str:
    """Return the audit as text for a terminal."""
    lines = [f"{audit['title']} in {audit['root']}", ""]
    if "counts" in audit:
        counts = pd.DataFrame(audit["counts"])
        wrong = [
            "" if row.found == row.expected else f" (not {row.expected:,})"
            for row in counts.itertuples()
        ]
        counts["images"] = counts["found"].map("{:,}".format) + wrong
        table = counts.pivot(index="expression", columns="split", values="images").fillna("")
        order = counts["expression"].drop_duplicates()
        lines += [
            table.loc[order, list(counts["split"].drop_duplicates())]
            .rename_axis(None)
            .rename_axis(None, axis=1)
            .to_string(),
            f"(expected: {audit['counts_source']})",
            "",
            "images with a twin in another split, or another one in the same",
            pd.DataFrame(audit["duplicates"]).to_string(index=False),
            "",
            "sizes          "
            + ", ".join(
                f"{one['images']:,} of {one['width']} x {one['height']}"
                for one in audit["sizes"][:5]
            ),
            f"undecodable    {len(audit['undecodable'])}",
            f"label conflicts among identical images: {audit['label_conflicts']}",
            f"leaked test images: {len(audit['leaked_test_images']['exact'])} exact, "
            f"{len(audit['leaked_test_images']['exact_or_near'])} with near duplicates",
            f"digest         pixels {audit['digest']['pixels']}",
            f"               labels {audit['digest']['labels']}",
            "",
        ]
    lines += [f"- {text}" for text in audit["deviations"]]
    return "\n".join([*lines, f"verdict: {audit['verdict']}"])


def main(arguments: Sequence[str]) -> int:
    """Audit a set: print the table, write `runs/audit-<set>.json`; return 0 only if it fits."""
    parser = argparse.ArgumentParser(prog="python -m nlalib audit", description=__doc__)
    parser.add_argument("dataset", choices=tuple(EXPECTED))
    parser.add_argument("--root", help="the set's folder; data/<dataset> without it")
    options = parser.parse_args(arguments)
    root = resolve(options.root or f"data/{options.dataset}")
    audit = audit_dataset(
        options.dataset, root, report=lambda line: print(line, file=sys.stderr, flush=True)
    )
    path = runs_folder() / f"audit-{options.dataset}.json"
    write_json(path, audit)
    print(format_audit(audit))
    print(f"report:  {display_path(path)}")
    return 0 if audit["verdict"] == FITS else 1
