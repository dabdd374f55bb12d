"""How many faces the renderer draws a second on one core, at several sizes.

python benchmarks/rendered_faces.py
"""

import statistics
import time

from nlalib.data.sets.rendered import render_face, rendered_index

FACES, ROUNDS = 200, 5


def main() -> None:
    paths = rendered_index(train=FACES, test=10, seed=0)["path"].head(FACES)
    sizes = (48, 96, 224)
    seconds = {size: [] for size in sizes}
    for _ in range(ROUNDS):
        for size in sizes:  # interleaved, so that a busy moment hits all sizes alike
            started = time.process_time()
            for path in paths:
                render_face(path, size)
            seconds[size].append(time.process_time() - started)
    print("pixels  faces/s (median of rounds)  time relative to 48 pixels")
    for size in sizes:
        median = statistics.median(seconds[size])
        ratio = median / statistics.median(seconds[48])
        print(f"{size:6}  {FACES / median:26.0f}  {ratio:26.2f}")


if __name__ == "__main__":
    main()
