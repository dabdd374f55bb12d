"""What `make lab` sets in JupyterLab itself; a user's own settings still come first."""

from pathlib import Path

c = get_config()  # noqa: F821, given by Jupyter
c.LabApp.app_settings_dir = str(Path(__file__).resolve().parent)  # overrides.json
