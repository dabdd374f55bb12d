"""`python -m nlalib`: what the Makefile and the workflow do with tables.

check CONFIG     read the data sets of the runs that are still to do, and compare those of finished
                 runs with what they trained on; an error says what is amiss
collect CONFIG   write the study's long tables from its finished runs: results, numbers over epochs,
                 differences between methods, predictions; where it has them, what its pre-training
                 found, and statistics of its candidate label sets (--so-far: of an unfinished
                 study, the runs that are done; one waits for its reference)
front CONFIG     write the front page of a finished study's report, for `make report`, and print
                 where that goes
show CONFIG      print the study's table and differences, and say where its files are
publish CONFIG   copy the study's tables, predictions and figures to the committed folders
keep CONFIG      keep what the finished runs of an unfinished study tell, before their folders go
recompute [CONFIG...]
                 make the published tables again from the kept predictions, without data set or GPU,
                 and say whether every number is the published one; of named studies show them
robustness CONFIG
                 write how finished runs stand up to corrupted test images, their calibration, and
                 the similarity of their classes; publish copies these tables too
agreement CONFIG write how near a study's finished runs come to the votes, beside a person and
                 beside what ten votes allow, to results/<study>_agreement.csv
labels DATASET   write the training labels that people give, and their digest (`labels --help`)
scores RUN_ID    write what a finished run makes of its training images, for candidate sets
leakage CONFIG   write how much runs, done or kept, owe to test images that they trained on, to
                 results/<study>_leakage.csv
audit DATASET    compare an unpacked set with what is published (audit --help says more)
predict RUN_ID IMAGE...
                 what a finished run makes of photographs (`predict --help`)
export RUN_ID FOLDER
                 its weights, a model card and an ONNX file, for other programs
readme           write the tables of README.md, from those of results/
align DATASET    align all faces of a set into a folder (`align --help`)
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from nlalib.data.splits import load_dataset
from nlalib.files import in_one_line, write_atomically
from nlalib.paths import display_path
from nlalib.prepare import audit, human_labels
from nlalib.report.collect import require_same_data
from nlalib.report.front_page import write_front_page
from nlalib.report.leakage import leakage
from nlalib.report.people import write_agreement
from nlalib.report.publish import collect, keep, publish, robustness, show
from nlalib.report.readme import readme
from nlalib.report.recompute import recompute as published_again
from nlalib.report.studies import read_study


def check(config: str) -> None:
    """Read each data set, and the face weights, that unfinished runs need, before any work."""
    study = read_study(config)
    unfinished = [run for run in study.runs.values() if not run.is_done]
    if unfinished:
        # What trains takes seconds to import.
        from nlalib.networks.face_resnet import read_weights, weights_file
        from nlalib.networks.initial_weights import FACE_WEIGHTS

        if any(run.initial_weights == FACE_WEIGHTS for run in unfinished):
            read_weights(weights_file())
    # Runs of a grid mostly share one data set.
    for run in {run.data: run for run in unfinished}.values():
        index, dropped = load_dataset(run.data)
        if not run.data.set.is_made:
            counts = ", ".join(f"{n:,} {part}" for part, n in index["part"].value_counts().items())
            print(f"{run.dataset}: {counts}; {dropped['images'].sum():,} images dropped")
    require_same_data(study)


def scores(run_id: str) -> None:
    """Write the scores from which the candidate rule "model" makes its sets."""
    from nlalib.training.scores import write_scores  # what trains takes seconds to import

    print(f"wrote {display_path(write_scores(run_id))}")


def predict(arguments: list[str]) -> None:
    """Print what a finished run makes of photographs, and draw it where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m nlalib predict")
    parser.add_argument("run_id", help="a finished run: a folder of runs/")
    parser.add_argument("images", nargs="+", type=Path, help="JPEG, PNG, BMP or TIFF files")
    parser.add_argument("--as-is", action="store_true", help="the files are crops of faces already")
    parser.add_argument("--picture", type=Path, help="PNG file to draw faces and probabilities in")
    given = parser.parse_args(arguments)
    from nlalib.training import use  # what trains takes seconds to import

    table, faces = use.predict_files(given.run_id, given.images, given.as_is)
    print(table.to_string(index=False, na_rep="no face", float_format="{:.3f}".format))
    if given.picture and not faces:
        print("no face was found, so no picture is drawn")
    elif given.picture:
        figure = use.draw_predictions(table, faces)
        write_atomically(given.picture, lambda path: figure.savefig(path, format="png", dpi=160))
        print(f"drew {display_path(given.picture)}")
    print(use.WARNING, file=sys.stderr)


def export(arguments: list[str]) -> None:
    """Write a finished run's weights, model card and ONNX file."""
    parser = argparse.ArgumentParser(prog="python -m nlalib export")
    parser.add_argument("run_id", help="a finished run: a folder of runs/")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--no-onnx", action="store_true", help="weights and card alone")
    given = parser.parse_args(arguments)
    from nlalib.training import use  # what trains takes seconds to import

    written = use.export(given.run_id, given.folder, onnx=not given.no_onnx)
    print(f"wrote {', '.join(map(display_path, written))}")


def recompute(arguments: list[str]) -> None:
    """Print whether the kept predictions give the published numbers."""
    parser = argparse.ArgumentParser(prog="python -m nlalib recompute")
    parser.add_argument("configs", metavar="CONFIG", nargs="*", help="of all studies without it")
    published_again(parser.parse_args(arguments).configs)


def align(arguments: list[str]) -> int:
    """Align all faces of a set into a folder."""
    from nlalib.prepare import align_faces  # OpenCV, scikit-image: no other command needs them

    return align_faces.main(arguments)


# With arguments of their own.
OWN_ARGUMENTS = {"predict": predict, "export": export, "recompute": recompute, "align": align}
OWN_ARGUMENTS |= {"audit": audit.main, "labels": human_labels.main}
COMMANDS = {
    "check": check,
    "collect": collect,
    "front": write_front_page,
    "show": show,
    "keep": keep,
    "publish": publish,
    "robustness": robustness,
    "leakage": leakage,
    "agreement": write_agreement,
    "scores": scores,
    "readme": lambda config: readme(),
}


def main() -> int:
    """Run the command line; return its exit status."""
    command, *words = sys.argv[1:] or [""]
    if command in OWN_ARGUMENTS:
        return _told(OWN_ARGUMENTS[command], words)
    parser = argparse.ArgumentParser(
        prog="python -m nlalib",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("config", metavar="CONFIG", nargs="?", default="configs/embedded.yaml")
    parser.add_argument("--so-far", action="store_true", help="collect: the runs that are done")
    arguments = parser.parse_args()
    if arguments.so_far and arguments.command != "collect":
        parser.error("--so-far is an option of collect alone")
    if arguments.command == "collect":
        return _told(collect, arguments.config, arguments.so_far)
    return _told(COMMANDS[arguments.command], arguments.config)


def _told(command: Callable, *given) -> int:
    """Run a command and return its exit status, 0 where it gives none; an error is one line."""
    try:
        return command(*given) or 0
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as error:
        print(f"error: {in_one_line(error)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
