"""Ways to tell instances apart by boxes and a mask, compared on real pictures.

Command: python benchmarks/instances.py [--images N]
         python benchmarks/instances.py --model efficientnet_lite0_hard_nuclei [--images N]
Time:    about two minutes for the labels of both sets; about three seconds a picture with a model

Needs MTL_KERAS_DATA. Without a model, boxes, mask and distances are those of the labels: what the
way alone can reach. With one, boxes and mask are its predictions, boxes from its confidence on.
Each way is a row of results/instances.csv:

- score: the box with the highest score (with labels: the first)
- smallest: the smallest box
- rectangle: the box of which the pixel is most central, by the larger of both relative distances
- ellipse: `fuse_instances`, which takes relative distances by Pythagoras
- ellipse and score: `fuse_instances` with scores, so that a box which lies in a surer one of its
  class gets no pixels: what `predict_images` does
- ellipse + distance: `fuse_instances` with distances to the boundary, from the labels
"""

import argparse
import csv
import os
import pathlib
import time

import numpy as np

import mtl_keras as mtl
from mtl_keras.metrics import InstanceEvaluator
from mtl_keras.tasks import fuse_instances

RESULTS = pathlib.Path(__file__).parent / "results"
FIELDS = ("set", "source", "way", "images", "PQ", "SQ", "RQ", "AP", "AP50", "ms_an_image")


def by_cost(boxes, classes, mask, cost):
    """Gives a pixel to the box of its class with the least cost."""
    height, width = mask.shape
    best, owner = np.full(mask.shape, np.inf), np.zeros(mask.shape, "int32")
    x, y = np.arange(width)[None] + 0.5, np.arange(height)[:, None] + 0.5
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        rows, columns = (
            slice(max(round(float(a)), 0), max(round(float(b)), 0)) for a, b in ((y0, y1), (x0, x1))
        )
        across = np.abs(x[:, columns] - (x0 + x1) / 2) / max(x1 - x0, 1e-6)
        down = np.abs(y[rows] - (y0 + y1) / 2) / max(y1 - y0, 1e-6)
        value = cost(i, boxes[i], across, down)
        window = (rows, columns)
        better = (value < best[window]) & (mask[window] == classes[i] + 1)
        best[window] = np.where(better, value, best[window])
        owner[window] = np.where(better, i + 1, owner[window])
    return owner


WAYS = {
    "score": lambda b, c, m, d, s: by_cost(b, c, m, lambda i, box, x, y: i + 0 * (x + y)),
    "smallest": lambda b, c, m, d, s: by_cost(
        b, c, m, lambda i, box, x, y: (box[2] - box[0]) * (box[3] - box[1]) + 0 * (x + y)
    ),
    "rectangle": lambda b, c, m, d, s: by_cost(b, c, m, lambda i, box, x, y: np.maximum(x, y)),
    "ellipse and score": lambda b, c, m, d, s: fuse_instances(b, c, m, scores=s),
    "ellipse": lambda b, c, m, d, s: fuse_instances(b, c, m),
    "ellipse + distance": lambda b, c, m, d, s: fuse_instances(b, c, m, d),
    "ellipse and score + distance": lambda b, c, m, d, s: fuse_instances(b, c, m, d, s),
}


def run(name: str, count: int | None, model_name: str | None) -> list[dict]:
    root = pathlib.Path(os.environ["MTL_KERAS_DATA"]) / name
    builder = mtl.data.from_coco({"val": str(root / "val.json")}, str(root / "images"), name=name)
    names = builder.info.features["objects"]["label"].names
    detection = mtl.tasks.Detection(len(names), class_names=names)
    distances = mtl.tasks.BoundaryDistance()
    model = mtl.zoo.load(model_name) if model_name else None
    measured = {way: InstanceEvaluator(detection) for way in WAYS}
    spent = dict.fromkeys(WAYS, 0.0)
    images = 0
    for labels in mtl.data.examples(builder, "val").take(count or -1).as_numpy_iterator():
        images += 1
        distance = np.maximum(distances.encode(labels, labels["mask"].shape)["distance"], 0)
        if model:
            (found,) = model.predict_images([labels["image"]])
            boxes, scores, classes = (found["detection"][k] for k in ("boxes", "scores", "classes"))
            mask = found["segmentation"]["mask"]
        else:
            single = ~labels["is_crowd"]
            boxes, classes = labels["boxes"][single], labels["classes"][single]
            scores, mask = np.ones(len(boxes)), labels["mask"]
        for way, fuse in WAYS.items():
            started = time.thread_time()
            instances = fuse(boxes, classes, mask, distance, scores)
            spent[way] += time.thread_time() - started
            found = {"mask": instances, "classes": classes, "scores": scores}
            measured[way].add_image(found, labels)
    rows = []
    for way, evaluator in measured.items():
        result = evaluator.result()
        row = {"set": name, "source": model_name or "labels", "way": way, "images": images}
        row |= {key: round(result[f"instances_{key}"], 4) for key in FIELDS[4:9]}
        rows.append({**row, "ms_an_image": round(1000 * spent[way] / images, 2)})
        print(*rows[-1].values(), flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a published model of nuclei; default: the labels")
    parser.add_argument("--images", type=int, help="so many of each set; all by default")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    rows = []
    for name in ("nuclei",) if arguments.model else ("nuclei", "facades"):
        rows += run(name, arguments.images, arguments.model)
    path = arguments.out / "instances.csv"
    kept = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            kept = list(csv.DictReader(file))
    new = {(row["set"], row["source"]) for row in rows}
    kept = [row for row in kept if (row["set"], row["source"]) not in new]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *rows])
