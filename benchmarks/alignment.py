"""How many images a second are aligned as a batch, with given landmarks and with the detector.

Faces drawn at 224 pixels and stored as PNG are decoded, aligned to 224 pixels and written. The last
column divides by processor time instead: it tells the rate of one core on a machine that has
other work.

python benchmarks/alignment.py [THREADS]
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from nlalib.data.sets.rendered import render_face, rendered_index
from nlalib.prepare.aligned_images import align_images
from nlalib.prepare.face_detector import detect_faces, find_face

SIZE, FACES, ROUNDS = 224, 100, 3


def rate_of(index, root: Path, landmarks: str, threads: int) -> tuple[float, float]:
    """Return images a second of wall-clock time, and of processor time."""
    with tempfile.TemporaryDirectory() as output:
        wall, processor = time.perf_counter(), time.process_time()
        align_images(index, root, output, SIZE, landmarks, threads=threads)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return len(index) / wall, len(index) / processor


def main() -> None:
    most = int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count()
    index = rendered_index(train=FACES, test=0, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = [f"{number}.png" for number in range(len(index))]
        images = [render_face(path, SIZE) for path in index["path"]]
        for name, image in zip(names, images, strict=True):
            Image.fromarray(image).save(root / name)
        index = index.assign(path=names)
        rate_of(index[:4], root, "detected", 1)  # loads the network
        cases = [(source, threads) for source in ("given", "detected") for threads in {1, most}]
        rates = {case: [] for case in cases}
        for _ in range(ROUNDS):  # interleaved, so that a busy moment hits all alike
            for case in cases:
                rates[case].append(rate_of(index, root, *case))
    print("landmarks  threads  images/s  images per second of processor time (medians of rounds)")
    for (source, threads), measured in rates.items():
        wall, processor = (statistics.median(part) for part in zip(*measured, strict=True))
        print(f"{source:9}  {threads:7}  {wall:8.0f}  {processor:8.0f}")
    seconds = {}
    for find in (detect_faces, find_face):
        started = time.process_time()
        for image in images:
            find(image)
        seconds[find.__name__] = (time.process_time() - started) / len(images)
        print(f"{find.__name__:12} {1e3 * seconds[find.__name__]:5.1f} ms a face")
    print(f"four views cost {seconds['find_face'] / seconds['detect_faces']:.1f} times one look")


if __name__ == "__main__":
    main()
