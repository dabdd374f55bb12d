"""Pixels are what the file says, and nothing but what face sets ship is ever opened."""

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from made_sets import file_of, picture, write_rafdb
from nlalib.data import image_files
from nlalib.data.decoding import ImageReader, UndecodableImage
from nlalib.data.pixels import image_array, load_image
from nlalib.prepare.aligned_images import align_images
from nlalib.prepare.audit import audit_dataset, format_audit
from places import ROOT


def read(path: Path) -> Image.Image:
    return ImageReader(path.parent, [path.name], 48).read(path.name)


def index_of(*names: str) -> pd.DataFrame:
    return pd.DataFrame({"image_id": names, "path": names, "split": "train", "label": 0})


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, kind):
    values = np.linspace(0, 65_535, 48 * 48).astype(np.uint16).reshape(48, 48)
    path = tmp_path / f"gradient.{kind}"
    Image.fromarray(values).save(path)
    assert Image.open(path).mode == "I;16"
    found = load_image(path.name, root=tmp_path, size=48)
    wanted = values / 65_535 * 255
    assert np.abs(found - wanted[:, :, None]).max() <= 0.5 + 1e-6
    assert found.mean() == pytest.approx(127.5, abs=0.1)


def test_sixteen_bits_in_three_channels_are_scaled_too(tmp_path):
    """Pillow writes no such file, so it is put together by hand."""
    values = np.random.default_rng(0).integers(0, 65_536, (8, 8, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "colour.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    found = np.asarray(read(tmp_path / "colour.png"))
    assert np.abs(found - values / 65_535 * 255).max() < 1.001


def test_pixels_of_an_unknown_range_are_refused(tmp_path):
    Image.fromarray(np.full((16, 16), 0.5, np.float32)).save(tmp_path / "floats.tiff")
    with pytest.raises(UndecodableImage, match=r"floats\.tiff in .*pixels of mode 'F'"):
        read(tmp_path / "floats.tiff")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_camera_is_applied(tmp_path, orientation):
    """Each of EXIF's eight: the stored pixels are made by the inverse, and come back upright."""
    upright = picture(0).resize((24, 16), Image.Resampling.BOX).convert("RGB")
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(turns[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "camera.png", exif=exif)
    reader = ImageReader(tmp_path, ["camera.png"], 48)
    assert np.array_equal(np.asarray(reader.read("camera.png")), np.asarray(upright))
    as_stored = reader.read("camera.png", upright=False)
    assert np.array_equal(np.asarray(as_stored), np.asarray(stored))
    assert reader.is_turned("camera.png") is (orientation > 1)


def test_exif_data_that_cannot_be_read_are_none(tmp_path):
    """Of a sound photograph; Pillow raises a SyntaxError for them, without the file's name."""
    broken = {"exif": b"Exif\0\0no header at all", "dpi": (72, 72)}
    picture(0).convert("RGB").save(tmp_path / "photo.jpg", **broken)
    with pytest.raises(SyntaxError), Image.open(tmp_path / "photo.jpg") as image:
        image.getexif().get(0x0112)
    reader = ImageReader(tmp_path, ["photo.jpg"], 48)
    stored = np.asarray(reader.read("photo.jpg", upright=False))
    assert np.array_equal(np.asarray(reader.read("photo.jpg")), stored)
    assert reader.is_turned("photo.jpg") is False


def test_audit_counts_what_was_turned_and_names_what_cannot_be_decoded(tmp_path):
    root = write_rafdb(tmp_path / "set")
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in (3, 5):
        picture(number).save(file_of(root, number), "PNG", exif=exif)
    file_of(root, 7).write_bytes(b"GIF89a" + bytes(40))
    found = audit_dataset("rafdb", root)
    assert found["turned"] == 2
    assert "turned         2 " in format_audit(found)
    (broken,) = found["undecodable"]
    assert broken["reason"] == "none of JPEG, PNG, BMP, TIFF"


POSTSCRIPT = """%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 20 20
%%EndComments
0 0 20 20 rectfill
showpage
%%EOF
"""


def test_postscript_under_another_name_starts_no_program(tmp_path):
    """Pillow would start Ghostscript: a stand-in for it would leave a file."""
    programs, ran = tmp_path / "bin", tmp_path / "ran"
    programs.mkdir()
    for name in ("gs", "gswin64c"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "face.jpg").write_text(POSTSCRIPT)
    code = (
        "import sys; from pathlib import Path; from nlalib.data.pixels import load_image; "
        "load_image('face.jpg', root=Path(sys.argv[1]), size=16)"
    )
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "image face.jpg in" in found.stderr
    assert "none of JPEG, PNG, BMP, TIFF" in found.stderr
    assert not ran.exists()


def bomb(path: Path) -> None:
    """Write the header of a PNG of 30,000 x 30,000 pixels."""
    Image.new("L", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (bomb, r"(30,000 x 30,000 pixels, more than 80,000,000|decompression bomb)"),
        (os.mkfifo, "no regular file"),
        (os.mkdir, "no regular file"),
    ],
    ids=["bomb", "pipe", "folder"],
)
def test_bombs_and_pipes_are_named_and_not_read(tmp_path, make, reason):
    make(tmp_path / "odd.png")
    picture(1).save(tmp_path / "fine.png")
    with pytest.raises(UndecodableImage, match=rf"image odd\.png in .* does not decode .*{reason}"):
        image_array(index_of("fine.png", "odd.png"), root=tmp_path, size=16)
    table = align_images(
        index_of("fine.png", "odd.png"), tmp_path, tmp_path / "out", 16, "detected"
    )
    assert table["outcome"].tolist() == ["fallback", "failed"]


def test_an_image_larger_than_a_photograph_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    picture(1, 20).save(tmp_path / "large.png")
    monkeypatch.setattr(image_files, "MOST_PIXELS", 399)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(UndecodableImage, match="20 x 20 pixels, more than 399"):
        read(tmp_path / "large.png")


def test_every_opening_of_an_image_names_the_formats():
    """Pillow's own `Image.open` stands once in the library."""
    lines = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / "nlalib").rglob("*.py"))
        for line in path.read_text().splitlines()
        if "Image.open(" in line
    ]
    assert lines == ["nlalib/data/image_files.py: image = Image.open(path, formats=FORMATS)"]
