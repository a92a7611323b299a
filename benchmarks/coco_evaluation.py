"""COCO average precision of many images: ours against pycocotools, on the same arrays.

Command: python benchmarks/coco_evaluation.py --write
         python benchmarks/coco_evaluation.py --rounds 0 --write      (the table only)
Time:    about ten minutes on two idle cores; an interrupted run goes on where it was
Expected: the same average precision to 1e-9; at most 0.5 of pycocotools' time, wall and CPU

Two made-up sets, from a seed: one with the statistics of COCO's 5,000 validation images (80
classes of very different frequency, about 7 objects an image, some of them crowds, 100 boxes
predicted), and one like pictures of nuclei (one class, 30 to 375 objects an image, up to 400
boxes). The second has 500 images, of which pycocotools takes as long as of 5,000 of the first.

Both get padded NumPy arrays, batches of eight images, as an evaluation hands them over, and are
timed from there to the result. Ours is `CocoEvaluator`, with `update` for each batch. For
pycocotools, boxes are joined to the array `(n, 7)` that its `loadRes` takes, and objects are made
the dicts that it needs. faster-coco-eval, a C++ port of it, is given the same where it is
installed. All are asked for the average precision over objects of all sizes, which is a quarter of
what pycocotools does as it comes. A limit is how many boxes of a class in an image count: COCO's
100, or 400 as for pictures with hundreds of objects; ours computes 100 always, and the other too.

Each measurement is made in a new process and is a row of results/coco_evaluation.csv as soon as it
is made. Memory is the most that the process held, less what it held before. Rows are kept: delete
the file (or rows) to measure again.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from importlib import metadata

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "data.md"
START, END = "<!-- coco_evaluation -->\n", "<!-- /coco_evaluation -->"
OURS, REFERENCE, PORT = "mtl_keras", "pycocotools", "faster-coco-eval"
BATCH = 8
KEY = ("set", "images", "limit", "library", "round")
MEASURED = ("objects", "boxes", "wall_s", "cpu_s", "memory_mb", "AP", "AP_at_100")
FIELDS = (*KEY, *MEASURED, "cores", "versions")


# === Data ===
def coco_like(images: int, seed: int = 0):
    """Padded batches: 80 classes, some seven objects and a hundred boxes an image."""
    rng = np.random.default_rng(seed)
    frequency = 1.0 / np.arange(1, 81) ** 0.9
    frequency /= frequency.sum()

    def image():
        objects = int(np.clip(rng.geometric(1 / 7.36), 1, 63))
        kinds = rng.choice(80, size=rng.integers(1, 6), p=frequency)
        classes = rng.choice(kinds, objects)
        side = np.exp(rng.normal(4.1, 1.0, (objects, 1))) * np.exp(rng.normal(0, 0.3, (objects, 2)))
        low = rng.uniform(0, 1, (objects, 2)) * (600, 440)
        true = np.concatenate([low, np.minimum(low + np.clip(side, 4, 600), (640, 480))], -1)
        crowd = rng.random(objects) < 0.012
        return _predicted(rng, true, classes, crowd, 100, 0.5, rng.choice(80, 12, p=frequency))

    return _batches([image() for _ in range(images)], 100, 64)


def nuclei_like(images: int, seed: int = 0):
    """Padded batches: one class, 30 to 375 objects and up to 400 boxes an image."""
    rng = np.random.default_rng(seed)

    def image():
        objects = int(np.clip(np.exp(rng.normal(4.8, 0.6)), 30, 375))
        cells = rng.permutation(20 * 20)[:objects]
        centre = np.stack([cells % 20, cells // 20], -1) * 51.2 + rng.uniform(10, 41, (objects, 2))
        side = rng.uniform(20, 60, (objects, 2)) / 2
        true = np.concatenate([centre - side, centre + side], -1)
        most = min(400, int(objects * 1.4))
        return _predicted(
            rng, true, np.zeros(objects, int), np.zeros(objects, bool), most, 0.7, np.zeros(1, int)
        )

    return _batches([image() for _ in range(images)], 400, 400)


def _predicted(rng, true, classes, crowd, most, share, others):
    """Boxes for an image: `share` of them around objects, the better the higher the score."""
    near = rng.integers(0, len(true), int(most * share))
    size = true[near, 2:] - true[near, :2]
    error = rng.exponential(0.08, (len(near), 1))
    boxes = true[near] + rng.normal(0, 1, (len(near), 4)) * error * np.tile(size, 2)
    labels = np.where(rng.random(len(near)) < 0.85, classes[near], rng.choice(others, len(near)))
    low = rng.uniform(0, 500, (most - len(near), 2))
    far = np.concatenate([low, low + rng.uniform(8, 200, (len(low), 2))], -1)
    boxes = np.concatenate([boxes, far])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    labels = np.concatenate([labels, rng.choice(others, len(far))])
    scores = np.concatenate([1 / (1 + 8 * error[:, 0]), rng.beta(1, 6, len(far))])
    order = np.argsort(-scores.astype("float32"), kind="stable")
    return boxes[order], scores[order], labels[order], true, classes, crowd


def _batches(images, most, most_true):
    batches = []
    for start in range(0, len(images), BATCH):
        some = images[start : start + BATCH]
        b = {
            "boxes": np.zeros((len(some), most, 4), "float32"),
            "scores": np.zeros((len(some), most), "float32"),
            "classes": np.zeros((len(some), most), "int32"),
            "count": np.array([len(one[0]) for one in some], "int32"),
            "true_boxes": np.zeros((len(some), most_true, 4), "float32"),
            "true_classes": np.full((len(some), most_true), -1, "int32"),
            "true_crowd": np.zeros((len(some), most_true), "int32"),
        }
        for i, (boxes, scores, classes, true, true_classes, crowd) in enumerate(some):
            n, m = len(boxes), len(true)
            b["boxes"][i, :n], b["scores"][i, :n], b["classes"][i, :n] = boxes, scores, classes
            b["true_boxes"][i, :m], b["true_classes"][i, :m] = true, true_classes
            b["true_crowd"][i, :m] = crowd
        batches.append(b)
    return batches


SETS = {"COCO-like": (coco_like, 80, 5000), "nuclei-like": (nuclei_like, 1, 500)}


# === Libraries: from batches to average precision ===
def ours(batches, classes: int, limit: int) -> dict:
    import mtl_keras as mtl

    evaluator = mtl.tasks.Detection(classes, max_detections=limit).evaluator()
    for batch in batches:
        evaluator.update(**batch)
    found = evaluator.result()
    at_100 = found["detection_AP_at_100"]
    # Without more than 100, `AP` is of 101 boxes: the value under COCO's limit is AP_at_100.
    return {
        "AP": at_100 if limit == 100 else found["detection_AP"],
        "AP_at_100": at_100,
    }


def _as_coco(batches, classes: int):
    """Boxes `(n, 7)` and the dicts of objects, of images counted from 1."""
    rows, truth, image = [], [], 0
    for b in batches:
        for i in range(len(b["boxes"])):
            image += 1
            n = int(b["count"][i])
            boxes = b["boxes"][i, :n].astype("float64")
            columns = [np.full((n, 1), image), boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]
            columns += [b["scores"][i, :n, None], b["classes"][i, :n, None]]
            rows.append(np.concatenate(columns, axis=1))
            real = b["true_classes"][i] >= 0
            for box, label, crowd in zip(
                b["true_boxes"][i][real].astype("float64").tolist(),
                b["true_classes"][i][real].tolist(),
                b["true_crowd"][i][real].tolist(),
                strict=True,
            ):
                x0, y0, x1, y1 = box
                truth.append(
                    {
                        "id": len(truth) + 1,
                        "image_id": image,
                        "category_id": label,
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "area": (x1 - x0) * (y1 - y0),
                        "iscrowd": crowd,
                    }
                )
    dataset = {
        "info": {},
        "images": [{"id": i + 1} for i in range(image)],
        "annotations": truth,
        "categories": [{"id": c, "name": str(c)} for c in range(classes)],
    }
    return np.concatenate(rows), dataset


def _evaluated(evaluation, limit: int) -> dict:
    evaluation.params.maxDets = [1, 10, 100] if limit == 100 else [100, limit]
    evaluation.params.areaRng = [[0.0, 1e10]]
    evaluation.params.areaRngLbl = ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, :]

    def mean(p):
        return float(p[p > -1].mean())

    hundred = precision[..., 2 if limit == 100 else 0]
    last = precision[..., -1]
    return {"AP": mean(last), "AP_at_100": mean(hundred)}


def pycocotools(batches, classes: int, limit: int) -> dict:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        rows, dataset = _as_coco(batches, classes)
        truth = COCO()
        truth.dataset = dataset
        truth.createIndex()
        return _evaluated(COCOeval(truth, truth.loadRes(rows), "bbox"), limit)


def faster_coco_eval(batches, classes: int, limit: int) -> dict:
    from faster_coco_eval import COCO, COCOeval_faster

    rows, dataset = _as_coco(batches, classes)
    truth = COCO(dataset)
    return _evaluated(COCOeval_faster(truth, truth.loadRes(rows), "bbox"), limit)


LIBRARIES = {OURS: ours, REFERENCE: pycocotools, PORT: faster_coco_eval}


# === Measuring ===
def work(job: dict) -> dict:
    """One measurement, in this process."""
    from mtl_keras.sharing.memory import peak_memory

    make, classes, _ = SETS[job["set"]]
    library = LIBRARIES[job["library"]]
    batches = make(job["images"])
    library(make(2 * BATCH), classes, job["limit"])  # imports
    before = _resident_and_reset()
    cpu, wall = time.process_time(), time.perf_counter()
    found = library(batches, classes, job["limit"])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "objects": int(sum((b["true_classes"] >= 0).sum() for b in batches)),
        "boxes": int(sum(b["count"].sum() for b in batches)),
        "wall_s": wall,
        "cpu_s": cpu,
        "memory_mb": (peak_memory() - before) / 2**20,
        **found,
    }


def _resident_and_reset() -> int:
    """Bytes that the process holds now; its peak starts anew from here where the system can."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def in_process(job: dict) -> dict:
    command = [sys.executable, __file__, "--job", json.dumps(job)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    answer = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def installed(library: str) -> bool:
    try:
        metadata.version(library)
    except metadata.PackageNotFoundError:
        return library == OURS
    return True


def read(path: pathlib.Path) -> list[dict]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run(rounds: int, out: pathlib.Path, measure=in_process) -> None:
    path = out / "coco_evaluation.csv"
    done = {tuple(row[key] for key in KEY) for row in read(path)}
    for turn in range(rounds):
        for name, (_, _, images) in SETS.items():
            for limit in (100, 400):
                for library in filter(installed, LIBRARIES):
                    job = {"set": name, "images": images, "limit": limit, "library": library}
                    job["round"] = turn
                    if tuple(str(job[key]) for key in KEY) in done:
                        continue
                    print(*job.values(), flush=True)
                    versions = "numpy " + metadata.version("numpy")
                    if library != OURS:
                        versions = f"{library} {metadata.version(library)}, {versions}"
                    append(
                        path, {**job, **rounded(measure(job)), "cores": os.cpu_count()}, versions
                    )


def rounded(measured: dict) -> dict:
    short = {"wall_s": 2, "cpu_s": 2, "memory_mb": 1}
    return {k: round(v, short[k]) if k in short else v for k, v in measured.items()}


def append(path: pathlib.Path, row: dict, versions: str) -> None:
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({**row, "versions": versions})


# === Table ===
def table(rows: list[dict]) -> str:
    """One line a set, limit and library: medians over rounds, and times pycocotools'.

    Raises:
        ValueError: If two libraries differ in an average precision by more than 1e-9.
    """
    lines = [
        "| set | images | boxes | limit | library | wall | CPU | × pycocotools (wall, CPU) "
        "| memory | AP |",
        "| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    groups: dict[tuple, dict[str, list[dict]]] = {}
    for row in rows:
        key = (row["set"], row["images"], row["limit"])
        groups.setdefault(key, {}).setdefault(row["library"], []).append(row)
    for (name, images, limit), found in groups.items():
        reference = found.get(REFERENCE)
        for library, several in found.items():
            wall, cpu, memory = (
                statistics.median(float(row[key]) for row in several)
                for key in ("wall_s", "cpu_s", "memory_mb")
            )
            ratio = "–"
            if reference:
                for key in ("AP", "AP_at_100"):
                    values = [float(row[key]) for row in (*several, *reference)]
                    if max(values) - min(values) > 1e-9:
                        raise ValueError(f"{library} differs in {key} of {name}: {values}")
                ratio = ", ".join(
                    f"{value / statistics.median(float(row[key]) for row in reference):.3f}"
                    for key, value in (("wall_s", wall), ("cpu_s", cpu))
                )
            shown = f"`{library}`" if library == OURS else library
            lines.append(
                f"| {name} | {int(images):,} | {int(several[0]['boxes']):,} | {limit} | {shown} "
                f"| {wall:.2f} s | {cpu:.2f} s | {ratio} | {memory:.0f} MB "
                f"| {float(several[0]['AP']):.4f} |"
            )
    return "\n".join(lines) + "\n"


def section(rows: list[dict]) -> str:
    cores = " or ".join(sorted({row["cores"] for row in rows}))
    versions = "; ".join(sorted({row["versions"] for row in rows if row["library"] != OURS}))
    return f"{table(rows)}\nMeasured on {cores} CPU cores with {versions}.\n"


def written(page: str, text: str) -> str:
    """The page with the section between its markers; put at the end where there are none."""
    if START not in page:
        page = page.rstrip("\n") + f"\n\n{START}{END}\n" if page else f"{START}{END}\n"
    before, rest = page.split(START)
    return before + START + text + END + rest.split(END, 1)[1]


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1, help="times that each is measured")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--write", action="store_true", help="write the table into docs/data.md")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.job:
        print(json.dumps(work(json.loads(arguments.job))))
        return 0
    run(arguments.rounds, arguments.out)
    rows = read(arguments.out / "coco_evaluation.csv")
    text = section(rows)
    print(f"\n{text}")
    if arguments.write:
        page = PAGE.read_text("utf-8") if PAGE.exists() else ""
        PAGE.write_text(written(page, text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
