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
from pathlib import Path

import numpy as np
import pandas as pd

from nlalib.data.decoding import ImageReader, UndecodableImage
from nlalib.data.sets import SETS
from nlalib.data.sets.base import Published, class_table
from nlalib.files import CLOSED, in_one_line, write_json
from nlalib.names import named
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
AUDITED = {name: data_set for name, data_set in SETS.items() if data_set.published}
_LISTED = 20  # sizes in the report, the most frequent first
_DRAWN_SIDE = 48  # of faces that are drawn, pixels


def audit_dataset(
    dataset: str,
    root: str | Path,
    *,
    expected: Published | None = None,
    report: Callable[[str], None] | None = None,
) -> dict:
    """Compare a set with what is published of it.

    Parameters
    ----------
    dataset : str
        One of `AUDITED`.
    root : path
        The set's folder.
    expected : Published, optional
        Instead of what is published of the set.
    report : callable, optional
        Gets a line of text now and then while images are decoded.

    Returns
    -------
    dict
        `verdict` ("fits", "differs", "cannot be read"), `deviations` (texts, empty where it fits),
        and, where the set could be read: `counts`, `dropped`, `sizes`, `undecodable`,
        `duplicates` (records of `count_twins`), `leaked_test_images` (ids, by "exact" and
        "exact_or_near"), `label_conflicts` (groups of identical images with several labels),
        `turned` (images that their EXIF orientation puts upright), and `digest` of the decoded
        pixels and of the labels. All of it can be written as JSON.

    Raises
    ------
    ValueError
        For an unknown set.
    """
    data_set, root = named(AUDITED, dataset, "data set"), Path(root)
    expected = expected or data_set.published
    head = {"dataset": dataset, "title": data_set.title, "root": display_path(root)}
    try:
        index, dropped = data_set.read_all(root)
        others = data_set.other_counts(root)
        prints, files = examine_images(index, root, report)  # may be damaged tables of pixels
    except (OSError, ValueError) as error:
        return {**head, "verdict": UNREADABLE, "deviations": [in_one_line(error)]}
    counts = _counts(index, expected, others)
    index = index[files["decoded"]].reset_index(drop=True)
    found = find_duplicates(prints)
    twins = count_twins(index["split"], found)
    deviations = [
        *count_deviations(counts, data_set.order),
        *_dropped_deviations(dropped, data_set.odd_reasons, expected.dropped),
        *_file_deviations(files["undecodable"], files["sizes"], expected.size),
        *_leak_deviations(twins, expected.twins_in_train),
    ]
    labels = pd.Series(index["label"].to_numpy()).groupby(found.groups).nunique()
    return {
        **head,
        "verdict": DIFFERS if deviations else FITS,
        "deviations": deviations,
        "counts": counts.to_dict("records"),
        "counts_source": expected.source,
        "dropped": dropped.to_dict("records"),
        "sizes": [
            {"width": width, "height": height, "images": count}
            for (width, height), count in files["sizes"].most_common(_LISTED)
        ],
        "undecodable": files["undecodable"],
        "turned": files["turned"],
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


def _counts(index: pd.DataFrame, expected: Published, others: dict) -> pd.DataFrame:
    """Return `split`, `expression` (or "all images" and the like), `expected`, `found`."""
    classes = class_table(index, expected.counts)
    totals = expected.images or {s: sum(of.values()) for s, of in expected.counts.items()}
    in_split = index["split"].value_counts()
    every = [(split, "all images", n, int(in_split.get(split, 0))) for split, n in totals.items()]
    more = [
        (split, name, count, others[name].get(split, 0))
        for name, counts in expected.others.items()
        for split, count in counts.items()
    ]
    return pd.concat([classes, pd.DataFrame(every + more, columns=classes.columns)])


def examine_images(
    index: pd.DataFrame, root: Path, report: Callable[[str], None] | None
) -> tuple[Fingerprints, dict]:
    """Decode all images, one at a time; return their fingerprints and what is odd with files."""
    sizes, undecodable, turned = Counter(), [], 0
    decoded = np.zeros(len(index), dtype=bool)
    reader = ImageReader(root, index["path"], _DRAWN_SIDE)

    def images():
        nonlocal turned
        for position, path in enumerate(index["path"]):
            if report and position and position % 20_000 == 0:
                report(f"decoded {position:,} of {len(index):,} images")
            try:
                image = reader.read(path)
                turned += reader.is_turned(path)
            except (UndecodableImage, OSError) as error:
                undecodable.append({"path": path, "reason": getattr(error, "reason", str(error))})
                continue
            decoded[position] = True
            sizes[image.size] += 1
            yield image

    prints = take_fingerprints(images())
    files = {"sizes": sizes, "undecodable": undecodable, "decoded": decoded, "turned": turned}
    return prints, files


def _digest(index: pd.DataFrame, values) -> str:
    """Return a digest of one value an image, whatever the images' order and the set's layout."""
    lines = zip(index["split"], index["image_id"], map(str, values), strict=True)
    return hashlib.sha256("\n".join(sorted(map(" ".join, lines))).encode()).hexdigest()[:32]


def _dropped_deviations(
    dropped: pd.DataFrame, odd: tuple[str, ...], known: dict[str, int]
) -> list[str]:
    texts = []
    found = dropped.groupby("reason")["images"].sum().to_dict()
    # What a set's own codes drop is counted by the classes; these are about files and lists.
    for reason in (*odd, *known):
        if found.get(reason, 0) != known.get(reason, 0):
            texts.append(
                f"{found.get(reason, 0):,} x {reason!r}, expected {known.get(reason, 0):,}: files "
                "were lost or added since the set was published; unpack it again"
            )
    return texts


def _file_deviations(broken: list[dict], sizes: Counter, size: tuple[int, int] | None) -> list[str]:
    texts = []
    if closed := [one["path"] for one in broken if one["reason"] == CLOSED]:
        texts.append(f"{len(closed):,} images, first {closed[0]}, are {CLOSED}")
    if broken := [one for one in broken if one["reason"] != CLOSED]:
        texts.append(
            f"{len(broken):,} images do not decode, first {broken[0]['path']} "
            f"({broken[0]['reason']}): cut short while downloading or unpacking; unpack again"
        )
    other = {found: count for found, count in sizes.items() if found != size}
    if size and other:
        width, height = max(other, key=other.get)
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
            "images with a duplicate in another split, or another one in the same",
            pd.DataFrame(audit["duplicates"])
            .rename(columns={"twin_in": "duplicate_in"})
            .to_string(index=False),
            "",
            "sizes          "
            + ", ".join(
                f"{one['images']:,} of {one['width']} x {one['height']}"
                for one in audit["sizes"][:5]
            ),
            f"undecodable    {len(audit['undecodable'])}",
            f"turned         {audit['turned']} (stored on their side, put upright by their EXIF)",
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
    parser.add_argument("dataset", choices=AUDITED)
    parser.add_argument("--root", help="the set's folder; data/<dataset> without it")
    options = parser.parse_args(arguments)
    root = resolve(options.root or f"data/{options.dataset}")
    audit = audit_dataset(
        options.dataset, root, report=lambda line: print(line, file=sys.stderr, flush=True)
    )
    print(format_audit(audit), flush=True)
    path = runs_folder() / f"audit-{options.dataset}.json"
    try:
        write_json(path, audit)
    except OSError as error:  # the verdict is told, and that is what was asked for
        print(f"the report is not kept: {in_one_line(error)}", file=sys.stderr)
    else:
        print(f"report:  {display_path(path)}")
    return 0 if audit["verdict"] == FITS else 1
