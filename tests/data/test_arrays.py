"""Batches that went through files are the batches that were written."""

import keras
import numpy as np
import pytest

import mtl_keras as mtl

SIZE = (64, 64)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrays")
    builder = mtl.data.digits(5, 1, SIZE, data_dir=folder)
    tasks = [mtl.tasks.Detection(10, max_objects=8), mtl.tasks.Segmentation(11)]
    epochs = mtl.data.Epochs()
    ds = mtl.data.batches(
        builder, "train", tasks, SIZE, 2, mtl.data.Augment(colour=0.3), epochs=epochs
    )
    expected = []
    for epoch in range(2):
        epochs.on_epoch_begin(epoch)
        about = mtl.data.write_arrays(ds, folder / str(epoch))
        expected.append(list(ds.as_numpy_iterator()))
    return [folder / "0", folder / "1"], expected, about


def check(found, expected):
    assert len(found) == len(expected) == 3
    for one, other in zip(found, expected, strict=True):
        images = np.clip(np.rint(other[0]), 0, 255)
        assert one[0].dtype == "float32" and np.array_equal(one[0], images)
        assert np.abs(other[0] - images).max() <= 0.5 + 1e-4
        keras.tree.assert_same_structure(one[1:], other[1:])
        for a, b in zip(keras.tree.flatten(one[1:]), keras.tree.flatten(other[1:]), strict=True):
            assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def test_batches_are_those_that_were_written_epoch_by_epoch(written):
    folders, expected, about = written
    assert about["images"] == 5 and about["arrays"]["images"]["dtype"] == "uint8"
    arrays = mtl.data.ArrayBatches(folders, batch_size=2)
    ds = arrays.as_dataset()
    assert int(ds.cardinality()) == len(arrays) == 3
    begin = arrays.counter().on_epoch_begin
    for epoch in (0, 1, 2, 5):  # There are two: they are shown again and again.
        begin(epoch)
        check([arrays[i] for i in range(len(arrays))], expected[epoch % 2])
        check(list(ds.as_numpy_iterator()), expected[epoch % 2])
    assert ds.element_spec[0].shape == (None, *SIZE, 3)
    assert ds.options().autotune.enabled is False


def test_bad_folders_are_refused(tmp_path, written):
    with pytest.raises(ValueError, match="folders"):
        mtl.data.ArrayBatches([], 2)
    with pytest.raises(FileNotFoundError, match="no arrays"):
        mtl.data.ArrayBatches([tmp_path], 2)
