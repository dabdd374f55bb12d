"""Settings that hold for all tests."""

import os

import matplotlib
import pytest
from hypothesis import settings

# No deadline for generated cases, as test machines are shared; in CI the same cases each time.
settings.register_profile("nla", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("nla")


# A fixture and no line above: kernels that nbval starts inherit this process's variables, and
# with the Agg backend a notebook would show no figures.
@pytest.fixture(scope="session", autouse=True)
def _keep_figures_off_the_screen_and_out_of_the_project(tmp_path_factory):
    """Tests open no window; figures, decoded images and runs go to a temporary folder."""
    matplotlib.use("Agg")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NLA_FIGURES", "NLA_CACHE", "NLA_RUNS"):
            if name not in os.environ:
                patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        yield


@pytest.fixture(scope="session")
def loaded(tmp_path_factory):
    """A function from a configuration to its index and its decoded images."""

    def load(config):
        # Not above: most tests need none of it.
        import numpy as np

        from nlalib.data.pixels import image_array
        from nlalib.data.splits import load_dataset

        index, _ = load_dataset(config.data)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NLA_CACHE", str(tmp_path_factory.mktemp("cache")))
            images = image_array(index, root=config.data.root, size=config.image_size)
            return index, np.array(images)

    return load


def pytest_collection_modifyitems(items):
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if marked:
        import torch  # takes seconds, so only where a test asks for it

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))
