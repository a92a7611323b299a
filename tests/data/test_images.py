import warnings

import numpy as np
import pytest
from PIL import Image

from mtl_keras.data import read_image

RED = (200, 10, 20)


def save(tmp_path, image, name="image.png", **kwargs):
    image.save(tmp_path / name, **kwargs)
    return tmp_path / name


def test_rgb_png_unchanged(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), "uint8")
    path = save(tmp_path, Image.fromarray(pixels))
    for source in (path, str(path), pixels, Image.fromarray(pixels)):
        result = read_image(source)
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result, pixels)


def test_grey(tmp_path):
    grey = np.arange(12, dtype="uint8").reshape(3, 4)
    for source in (save(tmp_path, Image.fromarray(grey)), grey, grey[..., None]):
        np.testing.assert_array_equal(read_image(source), np.repeat(grey[..., None], 3, -1))


def test_alpha_is_laid_over_white(tmp_path):
    rgba = np.zeros((1, 3, 4), "uint8")
    rgba[0, 1] = (200, 0, 0, 255)
    rgba[0, 2] = (0, 0, 0, 128)
    for source in (save(tmp_path, Image.fromarray(rgba)), rgba):
        result = read_image(source)
        assert result[0, 0].tolist() == [255, 255, 255]
        assert result[0, 1].tolist() == [200, 0, 0]
        assert result[0, 2].tolist() == [127, 127, 127]


def test_grey_with_alpha(tmp_path):
    path = save(tmp_path, Image.new("LA", (2, 2), (10, 0)))
    assert (read_image(path) == 255).all()


def test_palette_with_and_without_transparency(tmp_path):
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([*RED, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    assert read_image(save(tmp_path, palette)).tolist() == [[list(RED), [0, 0, 255]]]
    path = save(tmp_path, palette, "t.png", transparency=1)
    assert read_image(path).tolist() == [[list(RED), [255, 255, 255]]]


def test_one_bit(tmp_path):
    path = save(tmp_path, Image.fromarray(np.array([[True, False]])))
    assert read_image(path)[0, :, 0].tolist() == [255, 0]
    assert read_image(np.array([[True, False]]))[0, :, 0].tolist() == [255, 0]


def test_sixteen_bit(tmp_path):
    wide = np.array([[0, 257, 65535, 32896]], "uint16")
    for source in (save(tmp_path, Image.fromarray(wide)), wide):
        assert read_image(source)[0, :, 0].tolist() == [0, 1, 255, 128]
    narrow = np.array([[0, 7, 255]], "uint16")
    for source in (save(tmp_path, Image.fromarray(narrow)), narrow):
        assert read_image(source)[0, :, 0].tolist() == [0, 7, 255]


def test_cmyk(tmp_path):
    path = save(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "c.jpg", quality=95)
    assert np.abs(read_image(path)[4, 4].astype(int) - [255, 0, 0]).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    upright = np.zeros((16, 24, 3), "uint8")
    upright[:8, :8] = 255  # white at the top left of the upright image
    upright[8:, 16:] = 128
    inverse = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(inverse(upright)))
    path = save(tmp_path, stored, "e.jpg", exif=exif, quality=98, subsampling=0)
    assert np.abs(read_image(path).astype(int) - upright).max() < 12


def test_one_pixel(tmp_path):
    assert read_image(save(tmp_path, Image.new("RGB", (1, 1), RED))).tolist() == [[list(RED)]]


def test_large(tmp_path):
    path = save(tmp_path, Image.new("1", (10000, 9100)))  # Pillow warns from 89 megapixels on
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (9100, 10000, 3)


@pytest.mark.parametrize(
    "content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"]
)
def test_not_an_image(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="broken.png"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), "uint8")
    path = save(tmp_path, Image.fromarray(pixels), f"whole.{suffix}")
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=f"cut.{suffix}.*damaged or cut short"):
        read_image(cut)


def test_missing_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.png"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match="folder"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), "float32"), "dtype uint8.*float32"),
        (np.zeros((4, 4, 3), "int64"), "dtype uint8.*int64"),
        (np.zeros((2, 4, 4, 3), "uint8"), r"\(2, 4, 4, 3\)"),
        (np.zeros((4,), "uint8"), r"\(4,\)"),
        (np.zeros((4, 4, 5), "uint8"), r"\(4, 4, 5\)"),
        (np.zeros((0, 4, 3), "uint8"), "at least one pixel"),
    ],
)
def test_bad_arrays(array, message):
    with pytest.raises(ValueError, match=message):
        read_image(array)


@pytest.mark.parametrize("source", [None, 3, [[1, 2]], np.uint8(3)])
def test_bad_types(source):
    with pytest.raises(TypeError, match="`source`"):
        read_image(source)


def test_float_file(tmp_path):
    path = save(tmp_path, Image.fromarray(np.zeros((2, 2), "float32")), "f.tif")
    with pytest.raises(ValueError, match="f.tif.*floating-point"):
        read_image(path)
