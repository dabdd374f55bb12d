"""How nbval runs the notebooks and what it compares: all that they print, but no stderr."""

from nbval.kernel import RunningKernel


def execute_as_jupyter_does(self, cell_input, allow_stdin=None):
    """Send a cell with a place in the kernel's history, which nbval denies it.

    IPython looks there for the `;` that hides a cell's last value, so without it every
    `axis.plot(...);` would show one under nbval and nowhere else.
    """
    return self.kc.execute(cell_input, allow_stdin=allow_stdin, stop_on_error=False)


RunningKernel.execute_cell_input = execute_as_jupyter_does


def pytest_collectstart(collector):
    # Warnings differ between machines and versions. tests/test_notebooks.py sees to it that the
    # stored outputs hold none.
    if collector.path.suffix == ".ipynb" and hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
