"""How many faces the renderer draws a second on one core, at several sizes.

python benchmarks/rendered_faces.py
"""

import time
from functools import partial

from measuring import compared, in_turns, show

from nlalib.data.sets.rendered import render_face, rendered_index

FACES, ROUNDS = 200, 5


def main() -> None:
    paths = rendered_index(train=FACES, test=10, seed=0)["path"].head(FACES)

    def draw(size: int) -> None:
        for path in paths:
            render_face(path, size)

    variants = {f"{size} pixels": partial(draw, size) for size in (48, 96, 224)}
    show(compared(in_turns(variants, ROUNDS, time.process_time), "48 pixels", FACES))


if __name__ == "__main__":
    main()
