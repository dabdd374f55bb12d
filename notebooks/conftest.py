"""What nbval compares: everything a notebook prints, but not what libraries say on stderr."""


def pytest_collectstart(collector):
    # Warnings differ between machines and versions. tests/test_notebooks.py sees to it that the
    # stored outputs hold none.
    if collector.path.suffix == ".ipynb" and hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
