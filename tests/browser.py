"""A page in a headless Chromium, for tests of what computes in a browser."""

import json
import shutil
import subprocess
from html import unescape
from pathlib import Path

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def dump_page(page: Path, folder: Path) -> str:
    """Return the page's HTML after its scripts have run; the profile is made in `folder`."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]
    command = [CHROMIUM, *options, f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [*command, page.as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


def run_in_page(folder: Path, module: str, body: str):
    """Return what an async function of this body returns, in a page with the module, by JSON."""
    page = folder / "page.html"
    page.write_text(
        f"<!doctype html><meta charset='utf-8'><body><pre id='found'></pre>"
        f"<script type='module'>{module}\n"
        f"const found = await (async () => {{ {body} }})();\n"
        f"document.getElementById('found').textContent = JSON.stringify(found);</script></body>"
    )
    text = dump_page(page, folder).partition('<pre id="found">')[2].partition("</pre>")[0]
    assert text, "the page's script did not finish"
    return json.loads(unescape(text))
