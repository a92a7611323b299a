"""Tasks leave a model, and new ones come."""

import warnings

import numpy as np
import pytest
import toy
from test_convert import outputs, trained

import mtl_keras as mtl
from mtl_keras.training.retask import with_tasks


def trio():
    return [toy.detection(), toy.segmentation(), toy.distance()]


def assert_kept(before, after, names):
    a, b = outputs(before), outputs(after)
    for name in names:
        for x, y in zip(a[name], b[name], strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5 * np.abs(x).max())


@pytest.mark.parametrize("name", mtl.sharing.names())
@pytest.mark.parametrize(
    "names", [["detection"], ["detection", "distance"], ["distance", "detection", "segmentation"]]
)
def test_what_is_kept_predicts_what_it_did(name, names):
    model = trained(type(mtl.sharing.get(name))(neck_channels=8), trio())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            found = with_tasks(model, names)
    except ValueError as e:
        print("XX", name, names, "ERR", str(e)[:600])
        return
    assert [t.name for t in found.tasks] == names
    assert_kept(model, found, names)
    print("XX", name, names, "OK", type(found.sharing).__name__)


@pytest.mark.parametrize("name", mtl.sharing.names())
def test_new(name):
    model = trained(type(mtl.sharing.get(name))(neck_channels=8), trio()[:2])
    try:
        found = with_tasks(model, ["detection", "segmentation", toy.distance()])
        print("XX", name, "new OK", type(found.sharing).__name__)
    except ValueError as e:
        print("XX", name, "new ERR", str(e)[:600])
