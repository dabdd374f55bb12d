"""Settings that hold for all tests."""

import os

import pytest
from hypothesis import settings

# No window for figures, and no deadline for generated cases: test machines are shared.
os.environ.setdefault("MPLBACKEND", "Agg")
settings.register_profile("nla", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("nla")


@pytest.fixture(scope="session", autouse=True)
def _keep_outputs_out_of_the_project(tmp_path_factory):
    """Figures and decoded images that a test makes go to a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NLA_FIGURES", "NLA_CACHE"):
            if name not in os.environ:
                patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        yield


def pytest_collection_modifyitems(items):
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if marked:
        import torch  # takes seconds, so only where a test asks for it

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))
