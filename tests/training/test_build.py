import pytest
import toy

import mtl_keras as mtl


@pytest.mark.parametrize(
    "change, named",
    [
        ({"image_size": (60, 64)}, "image_size"),
        ({"image_size": (0, 64)}, "image_size"),
        ({"image_size": (-32, 64)}, "image_size"),
        ({"image_size": (64, 64, 3)}, "image_size"),
        ({"image_size": 64}, "image_size"),
        ({"image_size": None}, "image_size"),
        ({"image_size": "64"}, "image_size"),
        ({"image_size": (64.0, 64)}, "image_size"),
        ({"tasks": []}, "tasks"),
        ({"tasks": None}, "tasks"),
        ({"tasks": ["detection"]}, "tasks"),
        ({"tasks": [toy.detection(), toy.detection()]}, "tasks"),
        ({"sharing": "herd"}, "sharing"),
        ({"sharing": None}, "sharing"),
        ({"trunk": "no_such_trunk"}, "trunk"),
        ({"trunk": None}, "name"),
    ],
)
def test_a_bad_argument_is_named(change, named):
    given = {"trunk": toy.trunk(), "tasks": [toy.detection()], "image_size": (64, 64)}
    with pytest.raises(ValueError, match=f"(?i){named}"):
        mtl.build(**{**given, **change})


def test_duplicated_names_are_told():
    with pytest.raises(ValueError, match="detection.*detection"):
        mtl.build(toy.trunk(), [toy.detection(), toy.detection()], image_size=(64, 64))


def test_the_nearest_way_to_share_is_offered():
    with pytest.raises(ValueError, match="Did you mean 'hard'"):
        mtl.build(toy.trunk(), [toy.detection()], sharing="herd", image_size=(64, 64))


def test_a_level_that_the_trunk_lacks_is_named():
    stages = [s for s in toy.trunk().stages if s.level != "P5"]
    mtl.trunks.register("toy_without_p5")(lambda: stages)
    try:
        with pytest.raises(ValueError, match="'detection'.*P5.*toy_without_p5.*`levels`"):
            mtl.build(mtl.trunks.create("toy_without_p5"), [toy.detection()], image_size=(64, 64))
        narrow = toy.detection(levels=("P3", "P4"))
        mtl.build(mtl.trunks.create("toy_without_p5"), [narrow], image_size=(64, 64))
    finally:
        mtl.trunks.unregister("toy_without_p5")


def test_one_task_and_a_name_of_a_trunk_are_enough():
    model = mtl.build(toy.TRUNK, toy.detection(), image_size=[64, 96], name="one")
    assert model.name == "one" and model.image_size == (64, 96)
    assert list(model.output) == ["detection"]


def test_outputs_follow_the_size_of_the_images(lite):
    import numpy as np

    for height, width in ((64, 64), (128, 96)):
        outputs = lite(np.zeros((1, height, width, 3), "float32"))
        assert outputs["segmentation"].shape == (1, height, width, 4)
        assert outputs["detection"]["P3"].shape == (1, height // 8, width // 8, 7)
