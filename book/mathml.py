"""Formulas as MathML, which browsers draw by themselves; converted by docutils."""

import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

# Brackets of MathML grow by themselves.
UNKNOWN_TO_DOCUTILS = {"dots": r"\\ldots", "big": "", "Big": "", "bigl": "", "bigr": ""}


def _write(translator, node: nodes.Element, as_block: bool) -> None:
    formula = node.astext()
    for command, known in UNKNOWN_TO_DOCUTILS.items():
        formula = re.sub(rf"\\{command}(?![a-zA-Z])", known, formula)
    translator.body.append(tex2mathml(formula, as_block=as_block))
    raise nodes.SkipNode


def setup(app) -> None:
    """Register the renderer as "mathml"."""
    app.add_html_math_renderer(
        "mathml",
        (lambda translator, node: _write(translator, node, False), None),
        (lambda translator, node: _write(translator, node, True), None),
    )
