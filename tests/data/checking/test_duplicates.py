"""Pictures that are there twice are found; pictures of one kind, and blank ones, are not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mtl_keras.data.checking import duplicates


def cells(seed, size=(192, 256), count=25):
    """Dots on a dark, even ground, as under a microscope: pictures of one kind, all different."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    pixels = np.full(size, 20.0)
    for _ in range(count):
        cy, cx, r = (
            rng.uniform(0, size[0]),
            rng.uniform(0, size[1]),
            rng.uniform(0.03, 0.07) * size[0],
        )
        pixels[(y - cy) ** 2 + (x - cx) ** 2 < r**2] = rng.uniform(90, 180)
    pixels += rng.normal(0, 3, size)
    return np.repeat(np.clip(pixels, 0, 255).astype("uint8")[..., None], 3, axis=2)


def again(pixels, how):
    picture = Image.fromarray(pixels)
    if how == "jpeg":
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=60)
        picture = Image.open(buffer)
    elif how == "smaller":
        picture = picture.resize(
            (picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS
        )
    elif how == "larger":
        picture = picture.resize((picture.width * 3, picture.height * 3), Image.Resampling.BILINEAR)
    elif how == "lighter":
        picture = Image.fromarray(np.clip(pixels.astype(int) + 20, 0, 255).astype("uint8"))
    elif how == "softer":
        picture = picture.filter(ImageFilter.GaussianBlur(1))
    return np.asarray(picture.convert("RGB"))


def found(images, digests=None):
    thumbnails = np.stack([duplicates.thumbnail(image) for image in images])
    digests = digests or [str(i) for i in range(len(images))]
    return duplicates.find(thumbnails, [image.shape[:2] for image in images], digests)


@pytest.mark.parametrize("how", ["jpeg", "smaller", "larger", "lighter", "softer"])
def test_a_picture_saved_in_another_way_is_found(how):
    images = [cells(i) for i in range(20)]
    images += [again(images[i], how) for i in (3, 11)]
    assert [group.members for group in found(images)] == [(3, 20), (11, 21)]
    assert not any(group.exact for group in found(images))


def test_pictures_of_one_kind_are_not_duplicates():
    assert found([cells(i) for i in range(200)]) == []


def test_pictures_on_one_ground_are_not_duplicates():
    """A bright field with dark corners, as of an endoscope, with something else in each."""
    y, x = np.mgrid[:96, :96] / 48.0 - 1
    field = np.where(x**2 + y**2 < 0.9, 150.0, 10.0)
    images = []
    for seed in range(60):
        spots = cells(seed, (96, 96), 12)[..., 0] - 20.0
        images.append(np.repeat(np.clip(field + spots, 0, 255).astype("uint8")[..., None], 3, 2))
    assert found(images) == []


def test_blank_pictures_are_duplicates_only_as_files():
    rng = np.random.default_rng(0)
    flat = [np.full((40, 60, 3), value, "uint8") for value in (0, 0, 255, 128)]
    noisy = [(128 + rng.normal(0, 1, (40, 60, 3))).astype("uint8") for _ in range(10)]
    images = [*flat, *noisy]
    assert duplicates.is_blank(np.stack([duplicates.thumbnail(i) for i in images])).all()
    assert found(images) == []
    (group,) = found(images, ["same", "same", *map(str, range(len(images) - 2))])
    assert group.members == (0, 1) and group.exact and group.difference == 0


def test_files_and_likenesses_make_one_group():
    images = [cells(0), cells(1), cells(0), again(cells(0), "jpeg")]
    (group,) = found(images, ["a", "b", "a", "c"])
    assert group.members == (0, 2, 3) and not group.exact and group.difference > 0
    (group,) = found(images[:3], ["a", "b", "a"])
    assert group.members == (0, 2) and group.exact


def test_another_aspect_is_another_picture():
    wide = np.asarray(Image.fromarray(cells(0)).resize((512, 192)))
    assert found([cells(0), wide]) == []


def test_candidates_are_all_pairs_of_few_bits(monkeypatch):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**63, 60, dtype=np.uint64)
    flips = np.uint64(1) << rng.integers(0, 63, (60, 14), dtype=np.uint64)
    near = codes ^ np.bitwise_xor.reduce(flips * (rng.random((60, 14)) < 0.6), axis=1)
    codes = np.concatenate([codes, near.astype(np.uint64)])
    wanted = {
        (i, j)
        for i in range(len(codes))
        for j in range(i + 1, len(codes))
        if bin(int(codes[i]) ^ int(codes[j])).count("1") <= duplicates.MOST_BITS
    }
    assert 15 < len(wanted) < 60
    monkeypatch.setattr(duplicates, "_BLOCK", 7 * len(codes))  # many blocks
    got = [pair for i, j in duplicates.candidates(codes) for pair in zip(i, j, strict=True)]
    assert len(got) == len(wanted) and set(got) == wanted


def test_bits_are_counted_with_an_older_numpy(monkeypatch):
    values = np.random.default_rng(0).integers(0, 2**63, (5, 7), dtype=np.uint64)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    wanted = [[bin(int(v)).count("1") for v in row] for row in values]
    np.testing.assert_array_equal(duplicates._count_bits(values), wanted)


def test_nothing_to_compare():
    assert duplicates.find(np.zeros((0, 32, 32, 3), "uint8"), [], []) == []
    assert found([cells(0)]) == []
