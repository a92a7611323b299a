import sys

import numpy as np
import pytest

from mtl_keras.data import batches, digits, examples

pytest.importorskip("sklearn", reason="scikit-learn is not installed (mtl_keras[demo])")


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return digits(train=80, val=12, image_size=(96, 128), data_dir=tmp_path_factory.mktemp("d"))


def test_labels(builder):
    assert builder.info.features["objects"]["label"].names == [str(i) for i in range(10)]
    counts, classes = [], set()
    for one in examples(builder, "train").as_numpy_iterator():
        assert one["image"].shape == (96, 128, 3) and one["mask"].shape == (96, 128)
        counts.append(len(one["boxes"]))
        classes |= set(one["classes"].tolist())
        for i, (x1, y1, x2, y2) in enumerate(one["boxes"]):
            assert 0 <= x1 < x2 <= 128 and 0 <= y1 < y2 <= 96 and 5 <= y2 - y1 <= 60
            mask = one["instances"] == i + 1
            rows, columns = np.nonzero(mask)
            assert rows.min() >= y1 and rows.max() < y2
            assert columns.min() >= x1 and columns.max() < x2
            assert (one["mask"][mask] == one["classes"][i] + 1).all()
            # Ink stands out from what is around it.
            box = (slice(int(y1), int(y2)), slice(int(x1), int(x2)))
            grey = one["image"][box].mean(-1)
            ink, around = mask[box], one["instances"][box] == 0
            if around.sum() > 10:
                assert abs(np.median(grey[ink]) - np.median(grey[around])) > 20
    assert len(counts) == 80 and 0 in counts and max(counts) >= 6 and len(classes) == 10


def test_same_arguments_same_images(builder, tmp_path):
    again = digits(train=80, val=12, image_size=(96, 128), data_dir=tmp_path)
    other = digits(train=80, val=12, image_size=(96, 128), seed=1, data_dir=tmp_path)
    assert again.data_dir != other.data_dir

    def load(b):
        return [e["image"] for e in examples(b, "val").as_numpy_iterator()]

    np.testing.assert_array_equal(load(builder), load(again))
    assert not np.array_equal(load(builder), load(other))
    assert digits(80, 12, (96, 128), data_dir=tmp_path).data_dir == again.data_dir


def test_splits_share_no_digit(tmp_path, monkeypatch):
    from mtl_keras.data import digits as _  # noqa: F401

    module = sys.modules["mtl_keras.data.digits"]
    chosen = {}
    scene = module._scene

    def record(rng, size, photos, images, targets, indices, i):
        chosen.setdefault(len(indices), set()).update(indices.tolist())
        return scene(rng, size, photos, images, targets, indices, i)

    monkeypatch.setattr(module, "_scene", record)
    digits(train=2, val=2, image_size=32, data_dir=tmp_path)
    train, val = sorted(chosen.values(), key=len, reverse=True)
    assert not train & val and len(train) + len(val) == 1797


def test_trains(builder, labels_task):
    images, targets = next(iter(batches(builder, "train", [labels_task()], 64, batch_size=4)))
    assert images.shape == (4, 64, 64, 3) and targets["labels"]["boxes"].shape == (4, 400, 4)


def test_without_validation(tmp_path):
    assert set(digits(train=1, val=0, image_size=32, data_dir=tmp_path).info.splits) == {"train"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": 0}, "`train`.*0"),
        ({"val": -1}, "`val`.*-1"),
        ({"seed": 0.5}, "`seed`.*0.5"),
        ({"image_size": 16}, "`image_size`.*16"),
        ({"image_size": (64,)}, "`image_size`"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        digits(**arguments, data_dir=tmp_path)


def test_without_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "mtl_keras\[demo\]"'):
        digits(train=1, val=1, data_dir=tmp_path)
