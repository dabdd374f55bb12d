"""How many images a second are aligned as a batch, with given landmarks and with the detector.

Faces drawn at 224 pixels and stored as PNG are decoded, aligned to 224 pixels and written. The last
column divides by processor time instead: it tells the rate of one core on a machine that has
other work.

python benchmarks/alignment.py [THREADS]
"""

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from measuring import in_turns
from PIL import Image

from nlalib.data.sets.rendered import render_face, rendered_index
from nlalib.prepare.aligned_images import align_images
from nlalib.prepare.face_detector import detect_faces, find_face

SIZE, FACES, ROUNDS = 224, 100, 3


def both_clocks() -> np.ndarray:
    """Return the wall clock's and the processor's time."""
    return np.array([time.perf_counter(), time.process_time()])


def align(index, root: Path, landmarks: str, threads: int) -> None:
    with tempfile.TemporaryDirectory() as output:
        align_images(index, root, output, SIZE, landmarks, threads=threads)


def main() -> None:
    most = int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count()
    index = rendered_index(train=FACES, test=0, seed=0)
    images = [render_face(path, SIZE) for path in index["path"]]
    with tempfile.TemporaryDirectory() as folder:
        index = index.assign(path=[f"{number}.png" for number in range(len(index))])
        for name, image in zip(index["path"], images, strict=True):
            Image.fromarray(image).save(Path(folder) / name)
        cases = [(source, threads) for source in ("given", "detected") for threads in {1, most}]
        variants = {case: partial(align, index, Path(folder), *case) for case in cases}
        seconds = in_turns(variants, ROUNDS, both_clocks)
    print("landmarks  threads  images/s  images per second of processor time (medians of rounds)")
    for (source, threads), rounds in seconds.items():
        wall, processor = len(index) / np.median(rounds, axis=0)
        print(f"{source:9}  {threads:7}  {wall:8.0f}  {processor:8.0f}")

    def look(find) -> None:
        for image in images:
            find(image)

    seconds = in_turns(
        {find: partial(look, find) for find in (detect_faces, find_face)}, 1, time.process_time
    )
    once, four = (sum(rounds) / len(images) for rounds in seconds.values())
    print(f"a look takes {1e3 * once:.1f} ms a face, four views {four / once:.1f} times as long")


if __name__ == "__main__":
    main()
