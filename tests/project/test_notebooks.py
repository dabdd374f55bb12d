"""What holds for every notebook, seen without running it.

nbval runs the notebooks, but passes in silence over a cell that was never executed, over a
sanitising rule that it could not read, and over everything that is not an output. Each check
below is a function from a notebook to a list of problems; it is applied to every notebook, and
also to a sound small notebook that was spoilt on purpose, to see that it objects.
"""

import ast
import copy
import re
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import get_sanitize_patterns
from papermill import inspect_notebook

from link_notebooks import links
from places import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SANITIZE = ROOT / "tests" / "nbval_sanitize.cfg"

MAX_LINES = 25
MAX_BYTES = 3 * 1024**2
# Of each heading, a word that it must hold.
SECTIONS = ("parameter", "check", "limit", "reference")
UNCHECKED_TAGS = {"nbval-ignore-output", "nbval-skip", "raises-exception"}
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/<])(?:/(?:home|Users|root|work|workspace|content|mnt|media|srv|opt|usr|var|tmp|"
    r"private)/[\w.]|[A-Za-z]:\\\w|~/\w)|file://"
)


def cells_of(notebook, kind: str) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


def text_outputs(cell) -> list[str]:
    """Return everything that a cell shows as text, streams and error messages included."""
    texts = []
    for output in cell.outputs:
        texts.append(output.get("text", ""))
        texts += output.get("traceback", [])
        for kind, data in output.get("data", {}).items():
            if not kind.startswith("image/"):
                texts.append(data if isinstance(data, str) else str(data))
    return texts


def is_valid(notebook) -> list[str]:
    if (notebook.nbformat, notebook.nbformat_minor) < (4, 5):
        return [f"format {notebook.nbformat}.{notebook.nbformat_minor}, need 4.5 for stable ids"]
    ids = [cell.id for cell in notebook.cells]
    if len(ids) != len(set(ids)):
        return ["cell ids are not unique"]
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        return [f"invalid: {str(error).splitlines()[0]}"]
    return []


def has_only_lasting_metadata(notebook) -> list[str]:
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    problems = [] if kernel == "python3" else [f"kernel is {kernel!r}, expected 'python3'"]
    unknown = set(notebook.metadata) - {"kernelspec", "language_info"}
    timed = [cell.id for cell in notebook.cells if "execution" in cell.metadata]
    return (
        problems
        + ([f"notebook metadata {sorted(unknown)} belongs to a tool"] if unknown else [])
        + ([f"cells {timed} carry times: use `make notebooks`"] if timed else [])
    )


def was_run_from_a_fresh_kernel(notebook) -> list[str]:
    counts = [cell.execution_count for cell in cells_of(notebook, "code")]
    expected = list(range(1, len(counts) + 1))
    return [] if counts == expected else [f"execution counts {counts}, expected 1..{len(counts)}"]


def keeps_its_outputs(notebook) -> list[str]:
    """A cell that surely shows something has an output: print, display or a value at its end.

    A call at the end may return None, so calls are left to nbval.
    """
    problems = []
    for cell in cells_of(notebook, "code"):
        if tags(cell) & UNCHECKED_TAGS or cell.outputs:
            continue
        statements = ast.parse(cell.source).body
        shown = [
            statement.value
            for statement in statements
            if isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Call)
            and isinstance(statement.value.func, ast.Name)
            and statement.value.func.id in ("print", "display")
        ]
        last = statements[-1] if statements else None
        if isinstance(last, ast.Expr) and not cell.source.rstrip().endswith(";"):
            shown += [] if isinstance(last.value, ast.Call | ast.Constant) else [last.value]
        problems += [f"cell {cell.execution_count} has lost its output"] if shown else []
    return problems


def has_typed_commented_parameters(notebook, path) -> list[str]:
    """One cell, only lines `name: type = literal  # what it is`, all of which papermill reads."""
    tagged = [cell for cell in cells_of(notebook, "code") if "parameters" in tags(cell)]
    if len(tagged) != 1:
        return [f"{len(tagged)} cells tagged `parameters`, expected 1"]
    problems = []
    statements = ast.parse(tagged[0].source).body
    for statement in statements:
        line = ast.unparse(statement)
        if not isinstance(statement, ast.AnnAssign) or statement.value is None:
            problems.append(f"parameter without a type: {line}")
            continue
        try:
            value = ast.literal_eval(statement.value)
        except ValueError:
            problems.append(f"parameter is not a literal: {line}")
            continue
        kind = ast.unparse(statement.annotation).split("[")[0]
        if type(value).__name__ != kind:
            problems.append(f"value of another type than it says: {line}")
    read = inspect_notebook(str(path))
    if len(read) != len(statements):
        problems.append(f"papermill reads only {sorted(read)}: write each on one line")
    return problems + [f"{name} has no comment" for name, fact in read.items() if not fact["help"]]


def has_short_code_between_text(notebook) -> list[str]:
    code, text = cells_of(notebook, "code"), cells_of(notebook, "markdown")
    problems = []
    for number, cell in enumerate(code, start=1):
        lines = sum(bool(line.strip()) for line in cell.source.splitlines())
        # A list of parameters, a line each, is as long as the parameters are many.
        if lines > MAX_LINES and "parameters" not in cell.metadata.get("tags", []):
            problems.append(f"code cell {number} has {lines} lines, at most {MAX_LINES}")
    if len(text) < len(code):
        problems.append(f"{len(text)} markdown cells for {len(code)} code cells")
    return problems


def has_the_sections(notebook) -> list[str]:
    first = notebook.cells[0]
    title = first.source.splitlines()[0] if first.source else ""
    problems = []
    if first.cell_type != "markdown" or not re.fullmatch(r"# .*\?", title):
        problems.append(f"the first line {title!r} is not a title that asks a question")
    text = "\n".join(cell.source for cell in cells_of(notebook, "markdown"))
    headings = [line.lower() for line in re.findall(r"^##+ (.*)$", text, flags=re.MULTILINE)]
    return problems + [
        f"no heading with the word {word!r}"
        for word in SECTIONS
        if not any(word in heading for heading in headings)
    ]


def assigned(statements) -> set[str]:
    """Return the names that a cell's statements bind in the notebook's namespace."""
    names = set()
    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.comprehension):
                continue
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return names


def leaves_parameters_alone(notebook) -> list[str]:
    """No later cell binds a parameter's name, so that cells can be run again in any order."""
    code = cells_of(notebook, "code")
    parameters = set()
    problems = []
    for number, cell in enumerate(code, start=1):
        tree = ast.parse(cell.source)
        if "parameters" in tags(cell):
            parameters = assigned(tree.body)
            continue
        # What a function or a comprehension binds is its own.
        own = [s for s in tree.body if not isinstance(s, ast.FunctionDef | ast.ClassDef)]
        inner = {
            node.id
            for statement in own
            for part in ast.walk(statement)
            if isinstance(part, ast.comprehension)
            for node in ast.walk(part.target)
            if isinstance(node, ast.Name)
        }
        if again := (assigned(own) - inner) & parameters:
            problems.append(f"code cell {number} binds the parameters {sorted(again)} anew")
    return problems


def in_one_line(text: str) -> str:
    return " ".join(text.split())


def has_checked_findings(notebook) -> list[str]:
    """The sentences in bold under the title are those that a cell checks, and all of them hold."""
    box = re.findall(r"^> ?(.*)$", notebook.cells[0].source, flags=re.MULTILINE)
    items = in_one_line("\n".join(box)).split("- **")[1:]
    said = [item.partition("**")[0] for item in items]
    if not 2 <= len(said) <= 5:
        return [f"{len(said)} findings in bold under the title, expected 2 to 5"]
    checks = [c for c in cells_of(notebook, "code") if "check_findings(" in c.source]
    if len(checks) != 1:
        return [f"{len(checks)} cells check the findings, expected 1"]
    keys = [
        in_one_line(key.value)
        for node in ast.walk(ast.parse(checks[0].source))
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant) and " " in str(key.value)
    ]
    problems = [f"not checked: {text!r}" for text in said if text not in keys]
    problems += [f"checked, but not said: {key!r}" for key in keys if key not in said]
    answers = re.findall(r">(yes|no)<", "".join(text_outputs(checks[0])))
    return problems + ([] if answers == ["yes"] * len(keys) else [f"findings hold: {answers}"])


def headings_of(notebook) -> set[str]:
    """Return the anchors of a notebook's headings, as JupyterLab makes them."""
    text = "\n".join(cell.source for cell in cells_of(notebook, "markdown"))
    return {line.replace(" ", "-") for line in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)}


def has_links_that_lead_somewhere(notebook, path) -> list[str]:
    names = [other.name for other in NOTEBOOKS]
    problems = []
    if path.name in names:
        expected = links(path.name, names)
        if notebook.cells[0].source.splitlines()[1:3] != ["", expected]:
            problems.append("no line of links under the title: run scripts/link_notebooks.py")
    text = "\n".join(cell.source for cell in cells_of(notebook, "markdown"))
    for target in re.findall(r"(?<!!)\[[^\]]*\]\(((?:[^()\s]|\([^()]*\))+)\)", text):
        file, _, anchor = target.partition("#")
        if file.startswith(("http", "mailto:")):
            continue
        if file and not (path.parent / file).exists():
            problems.append(f"link to {file}, which does not exist")
        elif anchor and (not file or file.endswith(".ipynb")):
            there = nbformat.read(path.parent / file, as_version=4) if file else notebook
            if anchor not in headings_of(there):
                problems.append(f"link to {target}: no such heading")
    return problems


def has_words_for_its_pictures(notebook) -> list[str]:
    problems = []
    for cell in cells_of(notebook, "code"):
        for output in cell.outputs:
            has_words = output.get("metadata", {}).get("image/png", {}).get("alt")
            if "image/png" in output.get("data", {}) and not has_words:
                problems.append(f"cell {cell.execution_count} shows a picture without alt text")
    return problems


def has_clean_outputs(notebook) -> list[str]:
    problems = []
    for cell in cells_of(notebook, "code"):
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                problems.append(f"cell {cell.execution_count} ends in {output.ename}")
            if output.get("name") == "stderr":
                problems.append(f"cell {cell.execution_count} has stderr: {output.text[:80]!r}")
        for text in text_outputs(cell):
            if found := re.search(r"\w+Warning: .*", text):
                problems.append(f"cell {cell.execution_count} shows {found.group()!r}")
            if found := ABSOLUTE_PATH.search(text):
                start = found.start()
                problems.append(f"cell {cell.execution_count} shows {text[start : start + 40]!r}")
    return problems


def drawn_figures(notebook) -> list[tuple[str, bool]]:
    """Return (name, with a table or not) of the figures that the notebook saves by a fixed name."""
    figures = []
    for cell in cells_of(notebook, "code"):
        for node in ast.walk(ast.parse(cell.source)):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name != "save_figure" or len(node.args) < 2:
                continue
            if isinstance(node.args[1], ast.Constant):
                table = len(node.args) > 2 or any(key.arg == "data" for key in node.keywords)
                figures.append((node.args[1].value, table))
    return figures


def has_its_figures(notebook, path) -> list[str]:
    problems = []
    for name, with_table in drawn_figures(notebook):
        if name.split("_")[0] != path.name.split("_")[0]:
            problems.append(f"figure {name} does not carry the notebook's number")
        for ending in (".png", ".csv") if with_table else (".png",):
            if not (ROOT / "figures" / (name + ending)).is_file():
                problems.append(f"figures/{name}{ending} is missing: run `make notebooks`")
    text = "\n".join(cell.source for cell in cells_of(notebook, "markdown"))
    links = re.findall(r"!\[[^\]]*\]\(([^)\s]+)", text) + re.findall(
        r'<img[^>]*src="([^"]+)"', text
    )
    return problems + [
        f"the text shows {link}, which does not exist"
        for link in links
        if not link.startswith(("http", "attachment:")) and not (path.parent / link).is_file()
    ]


CHECKS = {
    check.__name__: check
    for check in (
        is_valid,
        has_only_lasting_metadata,
        was_run_from_a_fresh_kernel,
        keeps_its_outputs,
        has_typed_commented_parameters,
        leaves_parameters_alone,
        has_short_code_between_text,
        has_the_sections,
        has_checked_findings,
        has_links_that_lead_somewhere,
        has_words_for_its_pictures,
        has_clean_outputs,
        has_its_figures,
    )
}
WITH_PATH = (has_typed_commented_parameters, has_links_that_lead_somewhere, has_its_figures)


def problems_of(check, notebook, path) -> list[str]:
    return check(notebook, path) if check in WITH_PATH else check(notebook)


def test_there_are_notebooks_with_numbers_of_their_own():
    assert NOTEBOOKS, "notebooks/ holds no notebook"
    names = [path.name for path in NOTEBOOKS]
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", name) for name in names), names
    assert len({name[:2] for name in names}) == len(names), f"a number occurs twice: {names}"


def test_every_figure_belongs_to_a_notebook():
    numbers = {path.name[:2] for path in NOTEBOOKS}
    strays = [path.name for path in (ROOT / "figures").iterdir() if path.name[:2] not in numbers]
    assert not strays, f"no notebook has the number of {strays}"


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, check):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    assert not problems_of(CHECKS[check], notebook, path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_small(path):
    assert path.stat().st_size < MAX_BYTES, "save figures at a lower resolution, or fewer of them"


def sound_notebook():
    """Return a notebook that all checks accept."""
    markdown, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    cells = [
        markdown(
            "# Do two and two make four?\n\n> **Findings**\n>\n> - **They make\n>   four.** And:\n"
            "> - **They do not\n>   make five.** ([checks](#Checks))"
        ),
        markdown("## Parameters"),
        code("addend: int = 2  # added to itself", metadata={"tags": ["parameters"]}),
        markdown("## Checks"),
        code(
            "total = addend + addend\ndisplay(check_findings({'They make four.': total == 4,\n"
            "'They do not make five.': total != 5}))",
            outputs=[],
        ),
        markdown("## Limits\n\n## References"),
    ]
    cells[4].outputs = [
        nbformat.v4.new_output(
            "execute_result",
            {"text/plain": "table", "text/html": "<td>yes</td><td>yes</td>"},
            execution_count=2,
        )
    ]
    cells[2].execution_count, cells[4].execution_count = 1, 2
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def stream(text: str, name: str = "stdout"):
    return [nbformat.v4.new_output("stream", name=name, text=text)]


def spoil(where: str, value):
    """Return a function that sets one thing in the cell or notebook named by `where`."""

    def change(notebook):
        number, _, field = where.partition(".")
        target = notebook.cells[int(number)] if number.isdigit() else notebook
        setattr(target, field, value) if field else setattr(target, number, value)

    return change


PARAMETERS, RESULT = 2, 4
SPOILT = [
    ("is_valid", spoil("nbformat_minor", 4)),
    ("is_valid", spoil("0.id", "not an id, as it holds blanks")),
    ("is_valid", lambda notebook: setattr(notebook.cells[0], "id", notebook.cells[1].id)),
    ("has_only_lasting_metadata", lambda notebook: notebook.metadata.kernelspec.update(name="x")),
    ("has_only_lasting_metadata", lambda notebook: notebook.metadata.update(papermill={})),
    ("has_only_lasting_metadata", spoil("4.metadata", nbformat.from_dict({"execution": {}}))),
    ("was_run_from_a_fresh_kernel", spoil("4.execution_count", None)),
    ("was_run_from_a_fresh_kernel", spoil("4.execution_count", 3)),
    ("keeps_its_outputs", spoil("4.outputs", [])),
    ("has_typed_commented_parameters", spoil("2.metadata", nbformat.from_dict({"tags": []}))),
    ("has_typed_commented_parameters", spoil("2.source", "addend = 2  # added to itself")),
    ("has_typed_commented_parameters", spoil("2.source", "addend: int = 2")),
    ("has_typed_commented_parameters", spoil("2.source", "addend: float = 2  # added")),
    ("has_typed_commented_parameters", spoil("2.source", "addend: int = 1 + 1  # added")),
    ("has_typed_commented_parameters", spoil("2.source", "addend: int | None = None  # added")),
    ("leaves_parameters_alone", spoil("4.source", "addend = 3")),
    ("leaves_parameters_alone", spoil("4.source", "for addend in (1, 2):\n    pass")),
    ("has_checked_findings", spoil("0.source", "# Do two and two make four?")),
    ("has_checked_findings", spoil("4.source", "check_findings({'They make four.': True})")),
    (
        "has_checked_findings",
        lambda notebook: (
            notebook.cells[4].outputs[0].data.update({"text/html": "<td>yes</td><td>no</td>"})
        ),
    ),
    ("has_links_that_lead_somewhere", spoil("3.source", "[there](nowhere.ipynb)")),
    ("has_links_that_lead_somewhere", spoil("3.source", "[there](#Check)")),
    (
        "has_words_for_its_pictures",
        lambda notebook: notebook.cells[4].outputs[0].data.update({"image/png": "iVBOR"}),
    ),
    ("has_short_code_between_text", spoil("4.source", "addend\n\n" * (MAX_LINES + 1))),
    (
        "has_short_code_between_text",
        lambda notebook: notebook.cells.extend([notebook.cells[4]] * 3),
    ),
    ("has_the_sections", spoil("0.source", "# Two and two make four")),
    ("has_the_sections", spoil("5.source", "## References")),
    ("has_clean_outputs", spoil("4.outputs", stream("slow", name="stderr"))),
    ("has_clean_outputs", spoil("4.outputs", stream("a.py:1: UserWarning: slow"))),
    ("has_clean_outputs", spoil("4.outputs", stream("read /" + "home/ada/faces.csv"))),
    ("has_clean_outputs", spoil("4.outputs", stream(r"read C:\faces.csv"))),
    ("has_clean_outputs", spoil("4.outputs", [nbformat.v4.new_output("error", ename="KeyError")])),
    ("has_its_figures", spoil("4.source", 'save_figure(figure, "99_nothing")')),
    ("has_its_figures", spoil("4.source", 'plots.save_figure(figure, "00_nothing", data)')),
    ("has_its_figures", spoil("5.source", "![nothing](../figures/00_nothing.png)")),
]


def stored(notebook, folder) -> Path:
    path = folder / "00_sum.ipynb"
    path.write_text(nbformat.v4.writes_json(notebook))
    return path


@pytest.mark.parametrize("check", CHECKS)
def test_check_accepts_a_sound_notebook(check, tmp_path):
    notebook = sound_notebook()
    assert problems_of(CHECKS[check], notebook, stored(notebook, tmp_path)) == []


@pytest.mark.parametrize(("check", "change"), SPOILT)
def test_check_objects_to_a_spoilt_notebook(check, change, tmp_path):
    notebook = copy.deepcopy(sound_notebook())
    change(notebook)
    assert problems_of(CHECKS[check], notebook, stored(notebook, tmp_path))


@pytest.mark.parametrize("text", ["figures/01_face.png", "a/b", "24/home/", "<b>x</b>", "1e-3/2"])
def test_relative_paths_and_fractions_are_no_absolute_paths(text):
    assert not ABSOLUTE_PATH.search(text)


SANITIZED = {
    "<nlalib.X object at 0x7f3a5c0b1d90>": "<nlalib.X object at ADDRESS>",
    '<table id="T_1a2b3">': '<table id="T_TABLE">',
    "#T_1a2b3_row0_col0": "#T_TABLE_row0_col0",
    "gap -0.00": "gap0.00",
    "gap  0.00": "gap0.00",
}
UNTOUCHED = ["gap -0.01", "10.00", "-0.001", "0.0e-5", "T_12", "0x1f", "version 1.0.0"]


def sanitize(text: str) -> str:
    """Do to `text` what nbval does to outputs, with the rules that nbval itself reads."""
    for pattern, replacement in dict(get_sanitize_patterns(SANITIZE.read_text())).items():
        text = re.sub(pattern, replacement, text)
    return text


def test_nbval_reads_every_sanitising_rule():
    lines = SANITIZE.read_text().splitlines()
    written = [line.removeprefix("regex: ") for line in lines if line.startswith("regex")]
    read = [pattern for pattern, _ in get_sanitize_patterns(SANITIZE.read_text())]
    assert read == written
    # Each rule is needed by one of the examples: without it, some example stays as it was.
    for pattern in read:
        assert any(re.search(pattern, example) for example in SANITIZED), pattern


@pytest.mark.parametrize("text", SANITIZED)
def test_sanitising_removes_what_differs_between_runs(text):
    assert sanitize(text) == SANITIZED[text]


@pytest.mark.parametrize("text", UNTOUCHED)
def test_sanitising_leaves_results_alone(text):
    assert sanitize(text) == text
