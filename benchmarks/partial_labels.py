"""Training on images that lack labels against training on images that have all of them.

Command: python benchmarks/partial_labels.py --write
         python benchmarks/partial_labels.py --runs 0 --write      (tables only)
Time:    about 20 minutes on two idle cores for the two runs of a set and seed; an interrupted run
         goes on where it was
Expected: half of the images with boxes alone and the others with masks alone reach at least 95 %
         of each metric that as many images with boxes and masks reach.

Networks, EfficientNet-Lite0 with the weights of ImageNet and hard sharing, the same initial
weights, schedule and number of steps:

- `all`: the first half of the training images, each with boxes and masks.
- `parts`: the first half with their boxes alone, the second with their masks alone, mixed by
  `mtl.data.mix` so that each batch holds as many of the ones as of the others.
- `leak`: as `parts`, but what an image lacks is taken for background, which is what happens without
  a weight of 0: boxes are learned from images in which nothing is boxed, and masks likewise.

What is equal is the number of labelled images of each task: in the set, and in each step. A step
of `parts` and `leak` thus has twice as many images as one of `all`. They are measured on `val` in
the pictures' own pixels, as `zoo/evaluate.py` does. The sets are in the folder that the environment
variable MTL_KERAS_DATA names.

Each run is a row of results/partial_labels.csv as soon as it ends. Rows are kept: delete the file
(or rows) to measure again.
"""

import argparse
import itertools
import os
import pathlib
import statistics
import sys
import time
from importlib import metadata

import rows as kept

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "partial_labels.csv"
PAGE = ROOT / "docs" / "data.md"
MARKER = "partial_labels"
WAYS = ("all", "parts", "leak")
DATA = ("nuclei", "kvasir")
KEY = ("data", "way", "seed", "steps", "size")
METRICS = ("detection_AP", "detection_AP50", "segmentation_mean_iou")
ROWS = kept.Rows(KEY, (*METRICS, "minutes", "cores", "versions"))
GOAL = 0.95
BATCH = 8
LETTERBOX = {"nuclei": 512, "kvasir": 320}


# === Runs ===
def augment(name: str):
    import mtl_keras as mtl

    reference = (LETTERBOX[name], LETTERBOX[name])
    common = {"flip": "both", "rotate90": True, "reference_size": reference}
    if name == "nuclei":
        return mtl.data.Augment(
            scale=(0.7, 1.4), colour=0.4, grayscale=0.15, invert=0.15, cover=0.7, **common
        )
    # A polyp is to be in the window whole: pictures are made to fit it.
    return mtl.data.Augment(scale=(0.5, 0.8), colour=0.3, **common)


def batches(source, name: str, way: str, tasks: list, size: int, seed: int):
    """Batches without end; of `parts` and `leak`, of twice as many images."""
    import tensorflow as tf

    import mtl_keras as mtl

    boxes, masks = tasks

    def of(split: str, of_tasks: list):
        return mtl.data.batches(
            source, split, of_tasks, (size, size), BATCH, augment(name), seed=seed
        )

    if way == "all":
        return of("train[:50%]", tasks).repeat()
    parts = {"boxes": of("train[:50%]", [boxes]), "masks": of("train[50%:]", [masks])}
    mixed = mtl.data.mix(parts, 2 * BATCH, "uniform", seed=seed).repeat()
    if way == "parts":
        return mixed

    def background(images, targets, weights):
        """Without weights, masks of zeros are background; without objects, classes are -1."""
        boxed = weights[boxes.name][:, None] > 0
        classes = tf.where(boxed, targets[boxes.name]["classes"], -1)
        return images, {**targets, boxes.name: {**targets[boxes.name], "classes": classes}}

    return mixed.map(background)


def train(job: dict) -> dict:
    """Trains a network and measures it."""
    import keras

    import mtl_keras as mtl
    from mtl_keras.zoo.measure import measure

    began = time.time()
    source, name = mtl.data.load(job["data"]), job["data"]
    classes = source.info.features["objects"]["label"].names
    levels = ("P2", "P3", "P4") if name == "nuclei" else ("P3", "P4", "P5")
    tasks = [
        mtl.tasks.Detection(len(classes), levels=levels, class_names=classes),
        mtl.tasks.Segmentation(len(classes) + 1, class_names=["background", *classes]),
    ]
    keras.utils.set_random_seed(job["seed"])
    side = LETTERBOX[name]
    trunk = mtl.trunks.create("efficientnet_lite0", weights="imagenet")
    model = mtl.build(trunk, tasks, sharing="hard", image_size=(side, side))
    steps, warmup = job["steps"], job["steps"] // 10
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-5, steps - warmup, alpha=0.01, warmup_target=1e-3, warmup_steps=warmup
    )
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=0.02, global_clipnorm=5.0))
    ds = batches(source, name, job["way"], tasks, job["size"], job["seed"])
    model.fit(ds.take(steps), epochs=1, verbose=0)
    found = measure(model, source, "val", verbose=False)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("keras", "tensorflow"))
    return {
        **{name: job[name] for name in KEY},
        **{name: f"{found[name]:.4f}" for name in METRICS},
        "minutes": f"{(time.time() - began) / 60:.1f}",
        "cores": os.cpu_count(),
        "versions": versions,
    }


def jobs(arguments: argparse.Namespace) -> list[dict]:
    return [
        {"data": d, "way": w, "seed": s, "steps": arguments.steps, "size": arguments.size}
        for s, d, w in itertools.product(range(arguments.seeds), arguments.data, WAYS)
        if w != "leak" or s == 0
    ]


# === Tables ===
def ratios(found: list[dict], data: str, way: str) -> dict[str, list[float]]:
    """Each metric over that of `all` with the same seed."""
    own = [row for row in found if row["data"] == data]
    whole = {row["seed"]: row for row in own if row["way"] == "all"}
    return {
        metric: [
            float(row[metric]) / float(whole[row["seed"]][metric])
            for row in own
            if row["way"] == way and row["seed"] in whole
        ]
        for metric in METRICS
    }


def tables(found: list[dict]) -> str:
    lines = []
    for data in dict.fromkeys(row["data"] for row in found):
        for way in WAYS:
            own = [row for row in found if row["data"] == data and row["way"] == way]
            if not own:
                continue
            over = ratios(found, data, way)
            cells = [
                f"{statistics.mean(float(row[metric]) for row in own):.3f}"
                + ("" if way == "all" else f" ({100 * statistics.mean(over[metric]):.0f} %)")
                for metric in METRICS
            ]
            lines.append([f"`{data}`, {way}", str(len(own)), *cells])
    first = found[0]
    text = (
        f"{first['steps']} steps, windows of {first['size']} × {first['size']} pixels, measured on "
        "`val`; in brackets, over `all` with the same seed:"
    )
    header = ["images", "seeds", *(f"`{metric}`" for metric in METRICS)]
    return "\n".join([text, "", *kept.table(header, lines)]) + "\n"


def verdicts(found: list[dict]) -> list[str]:
    lines = []
    for data in dict.fromkeys(row["data"] for row in found):
        for metric, values in ratios(found, data, "parts").items():
            if values:
                mean = statistics.mean(values)
                verdict = "met" if mean >= GOAL else "MISSED"
                lines.append(f"{data} {metric}: {mean:.3f} of `all`, goal {GOAL}: {verdict}")
    return lines


def parse(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=DATA, help="sets")
    parser.add_argument("--steps", type=int, default=400, help="training steps")
    parser.add_argument("--size", type=int, default=192, help="height and width of windows")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of `all` and `parts`")
    parser.add_argument("--runs", type=int, help="the most runs to do now")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="CSV of the rows")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    arguments = parse(given)
    done = {ROWS.key(row) for row in ROWS.read(arguments.results)}
    missing = [job for job in jobs(arguments) if ROWS.key(job) not in done]
    for job in missing[: arguments.runs]:
        row = train(job)
        ROWS.append(arguments.results, row)
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    found = [
        row
        for row in ROWS.read(arguments.results)
        if row["steps"] == str(arguments.steps) and row["size"] == str(arguments.size)
    ]
    if found:
        print(f"\n{tables(found)}", *verdicts(found), sep="\n")
        if arguments.write:
            page = kept.between(PAGE.read_text("utf-8"), MARKER, tables(found))
            PAGE.write_text(page, "utf-8")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
