import numpy as np
import pytest
import tensorflow as tf
import toy
from labelling_case import LABELLING, head_of
from task_case import run_task_test

import mtl_keras as mtl


def crowd_of_another(labels):
    """A crowd where the truth holds nothing else; what stands under it must not matter."""
    plain = {key: value.copy() for key, value in labels.items()}
    plain["boxes"] = np.concatenate([plain["boxes"], [[0, 40, 30, 64]]]).astype("float32")
    plain["is_crowd"] = np.append(plain["is_crowd"], True)
    plain["classes"] = np.append(plain["classes"], 0).astype("int32")
    harder = {**plain, "classes": np.append(labels["classes"], 2).astype("int32")}
    return plain, harder


def unlabelled_strip(labels):
    plain = {key: value.copy() for key, value in labels.items()}
    plain["mask"][:, 40:] = 255
    return plain, plain


def crowd_of_other_shape(labels):
    """The last object is a crowd, and how far each of its pixels is from others is left open."""
    plain = {key: value.copy() for key, value in labels.items()}
    plain["is_crowd"][-1] = True
    crowd = plain["instances"] == len(plain["is_crowd"])
    plain["mask"][crowd] = 255
    harder = {key: value.copy() for key, value in plain.items()}
    # Not listed, as where too little of it is visible: only the mask says that it is a crowd.
    harder["instances"][crowd] = 0
    harder["is_crowd"] = harder["is_crowd"][:-1]
    return plain, harder


CASES = {
    "boundary_distance": dict(
        task=toy.distance,
        ignore=crowd_of_other_shape,
        output_shapes=lambda size: (2, *size, 1),
        prediction_shapes=lambda size: {"distance": ((2, *size), "float32")},
    ),
    "detection": dict(
        task=lambda: toy.detection(class_names=["a", "b", "c"]),
        ignore=crowd_of_another,
        output_shapes=lambda size: {
            level: (2, size[0] // stride, size[1] // stride, 7)
            for level, stride in (("P3", 8), ("P4", 16), ("P5", 32))
        },
        prediction_shapes=lambda size: {
            "boxes": ((2, 20, 4), "float32"),
            "scores": ((2, 20), "float32"),
            "classes": ((2, 20), "int32"),
            "count": ((2,), "int32"),
        },
    ),
    "segmentation": dict(
        task=lambda: toy.segmentation(class_names=["none", "a", "b", "c"]),
        ignore=unlabelled_strip,
        output_shapes=lambda size: (2, *size, 4),
        prediction_shapes=lambda size: {"mask": ((2, *size), "int32")},
    ),
}


@pytest.mark.parametrize("name", sorted(set(mtl.tasks.names()) - LABELLING.keys()))
def test_task(name):
    assert name in CASES, f"the new task {name!r} needs a case here"
    case = dict(CASES[name])
    run_task_test(case.pop("task")(), **case)


@pytest.mark.parametrize("kind", [mtl.tasks.Detection, mtl.tasks.Segmentation])
@pytest.mark.parametrize(
    "arguments, named",
    [
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": None}, "num_classes"),
        ({"num_classes": "3"}, "num_classes"),
        ({"num_classes": True}, "num_classes"),
        ({"num_classes": 3.0}, "num_classes"),
        ({"num_classes": 3, "levels": ("P9",)}, "levels"),
        ({"num_classes": 3, "levels": ()}, "levels"),
        ({"num_classes": 3, "levels": ("P3", "P3")}, "levels"),
        ({"num_classes": 3, "name": "two words"}, "name"),
        ({"num_classes": 3, "name": None}, "name"),
        ({"num_classes": 3, "class_names": ["a"]}, "class_names"),
        ({"num_classes": 3, "channels": 0}, "channels"),
    ],
)
def test_a_bad_argument_is_named(kind, arguments, named):
    with pytest.raises(ValueError, match=f"`{named}`"):
        kind(**arguments)


@pytest.mark.parametrize(
    "arguments, named",
    [
        ({"depth": -1}, "depth"),
        ({"max_objects": 0}, "max_objects"),
        ({"max_detections": 0}, "max_detections"),
        ({"candidates": 0}, "candidates"),
        ({"score_threshold": 1.5}, "score_threshold"),
        ({"iou_threshold": -0.1}, "iou_threshold"),
        ({"box_weight": -1.0}, "box_weight"),
    ],
)
def test_a_bad_argument_of_detection_is_named(arguments, named):
    with pytest.raises(ValueError, match=f"`{named}`"):
        mtl.tasks.Detection(3, **arguments)


@pytest.mark.parametrize(
    "arguments, named",
    [
        ({"levels": ("P9",)}, "levels"),
        ({"levels": ()}, "levels"),
        ({"levels": ("P3", "P3")}, "levels"),
        ({"name": "two words"}, "name"),
        ({"channels": 0}, "channels"),
    ],
)
def test_a_bad_argument_of_distance_is_named(arguments, named):
    with pytest.raises(ValueError, match=f"`{named}`"):
        mtl.tasks.BoundaryDistance(**arguments)


@pytest.mark.parametrize("num_classes", [1, 256])
def test_masks_need_a_background_and_room_for_ignore(num_classes):
    with pytest.raises(ValueError, match="`num_classes`"):
        mtl.tasks.Segmentation(num_classes)


def test_too_many_objects_say_which_argument_to_change():
    with pytest.raises(Exception, match="max_objects=8"):
        toy.detection().encode(toy.labels(9), toy.SIZE)


def test_a_class_that_the_detection_does_not_have_is_an_error():
    labels = toy.labels(2, classes=3)
    labels["classes"][1] = 3
    with pytest.raises(Exception, match="'detection' with num_classes=3 does not have"):
        toy.detection().encode(labels, toy.SIZE)


def test_a_class_that_the_mask_task_does_not_have_is_an_error():
    labels = toy.labels(1)
    labels["mask"][0, 0] = 4
    with pytest.raises(Exception, match="num_classes=4"):
        toy.segmentation().encode(labels, toy.SIZE)


def test_levels_of_different_width_are_named():
    with pytest.raises(ValueError, match="same `channels`"):
        mtl.tasks.Detection(3).head({"P3": 8, "P4": 16, "P5": 16})


@pytest.mark.parametrize("name", mtl.tasks.names())
def test_targets_that_are_filled_in_have_finite_losses_and_gradients(name):
    """What `mtl_keras.data.mix` gives for images without labels of a task: zeros."""
    made = [(make, shapes) for make, *shapes in LABELLING.get(name, [])]
    for make, shapes in made or [(CASES[name]["task"], None)]:
        task = make()
        if shapes:
            x = np.random.default_rng(0).normal(size=shapes[0]).astype("float32")
            outputs = head_of(task)({task.levels[0]: x})
            targets = {task.target: np.zeros(shapes[1], "int32")}
        else:
            x, y = toy.batch([task], images=3)
            outputs = toy.model([task])(x)[task.name]
            targets = {key: np.zeros_like(value) for key, value in y[task.name].items()}
        outputs = tf.nest.map_structure(tf.Variable, outputs)
        with tf.GradientTape() as tape:
            loss = task.loss(targets, outputs)
        gradients = tape.gradient(loss, tf.nest.flatten(outputs))
        assert loss.shape == (3,) and np.isfinite(loss).all()
        gradients = [gradient for gradient in gradients if gradient is not None]
        assert gradients and all(np.isfinite(gradient).all() for gradient in gradients)
