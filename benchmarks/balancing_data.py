"""Every balancing method on real pictures, with a short and equal budget: Δm, noise and cost.

Command: python benchmarks/balancing_data.py --data nuclei --workers 2
         python benchmarks/balancing_data.py --data facades --workers 2
         python benchmarks/balancing_data.py --jobs 0 --write      (tables and picture only)
Time:    an hour or so a set on two idle cores, of which tracing is a third; an interrupted run
         goes on where it was
Expected: every method ends with finite numbers. Methods whose Δm is inside of the noise have not
         been told apart from equal weights.

Networks share EfficientNet-Lite0 with the weights of ImageNet, by hard sharing. Tasks of `nuclei`:
boxes, masks and distances to the boundary; of `facades`: boxes and masks of ten classes, and which
quarter of the training pictures (by number of windows) the picture belongs to. The sets are in the
folder that the environment variable MTL_KERAS_DATA names.

Training batches are made once for a set and seed, and every method sees the same, in the same
order, from the same initial weights. A run trains on the first 85 % of `train` for a few steps with
AdamW and is measured on `val`. It is much too short to make a good network: this is about what
balancing does early, at one learning rate, with the methods' default arguments.

- Δm is the mean over tasks of the relative change of one metric a task, in percent, positive where
  better, against the runs with equal weights (or one network a task) of the same seeds: these begin
  with the same weights and see the same batches.
- Noise: twice the standard deviation of Δm over the runs with equal weights and different seeds
  (other initial heads, other batches).
- `fixed (tuned)`: each task, and each pair of tasks, with three times the weight; the best on the
  rest of `train`, which is otherwise not used, is reported on `val`.
- Cost: CPU time of a training step, which other programs disturb less than the time on the wall.
  Gradient methods take gradients at the features that tasks share, where they can, and some at the
  parameters too.

Each run is a row of results/balancing_data.csv as soon as it ends. Rows are kept: delete the file
(or rows) to measure again.
"""

import argparse
import concurrent.futures
import itertools
import json
import math
import multiprocessing
import os
import pathlib
import statistics
import sys
import tempfile
import time

import balancing_data_worker as worker
from rows import Rows

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "balancing.md"
TASKS = {
    "nuclei": ("detection", "segmentation", "distance"),
    "facades": ("detection", "segmentation", "windows"),
}
METRICS = {
    "detection": "detection_AP",
    "segmentation": "segmentation_mean_iou",
    "distance": "distance_mae",
    "windows": "windows_accuracy",
}
KEY = ("data", "role", "method", "on", "seed", "steps", "size")
SHOWN = (
    *METRICS.values(),
    "detection_AP50",
    "detection_AP75",
    "loss",
    *(f"{task}_loss" for task in METRICS),
)
COST = (
    "step_s",
    "step_cpu_s",
    "first_steps_s",
    "build_s",
    "evaluate_s",
    "total_s",
    "memory_mb",
)
FIELDS = (
    *KEY,
    *SHOWN,
    *(f"tune_{name}" for name in SHOWN),
    *(f"train_{task}_{kind}" for task in METRICS for kind in ("loss", "weight")),
    "finite",
    *COST,
    "other_metrics",
    "batches",
    "cores",
    "workers",
    "versions",
)
ROWS = Rows(KEY, FIELDS)
read, append, key = ROWS.read, ROWS.append, ROWS.key
START, END = "<!-- balancing_data -->\n", "<!-- /balancing_data -->"
TIMES, RUNS_OF_WORKER, MOST_MB = 3, 8, 5000


# === Rows ===
def row_of(job: dict, result: dict, checksum: str, workers: int) -> dict:
    def said(value: float | None) -> str:
        return "" if value is None or not math.isfinite(value) else f"{value:.6g}"

    val, tune, train = (result[part] for part in ("val", "tune", "train"))
    others = {k: float(f"{v:.4g}") for k, v in val.items() if k not in SHOWN and math.isfinite(v)}
    return {
        **{name: job[name] for name in KEY},
        **{name: said(val.get(name)) for name in SHOWN},
        **{f"tune_{name}": said(tune.get(name)) for name in SHOWN},
        **{f: said(train.get(f.removeprefix("train_"))) for f in FIELDS if f.startswith("train_")},
        "finite": "yes" if result["finite"] else "no",
        **{name: said(result[name]) for name in COST},
        "other_metrics": json.dumps(others),
        "batches": checksum,
        "cores": os.cpu_count(),
        "workers": workers,
        "versions": result["versions"],
    }


# === Runs ===
def jobs(arguments: argparse.Namespace, data: str, plan: list[tuple[str, str]]) -> list[dict]:
    """Everything to be measured, the most useful first."""
    common = {"data": data, "steps": arguments.steps, "size": arguments.size}

    def job(role: str, method: str, on: str = "", seed: int = 0, **more) -> dict:
        return {**common, "role": role, "method": method, "on": on, "seed": seed, **more}

    tasks = TASKS[data]
    methods = sorted(plan, key=lambda at: at[0] != "equal")
    result = [job("method", method, on) for method, on in methods]
    for count in range(1, len(tasks)):
        for chosen in itertools.combinations(tasks, count):
            weights = {task: TIMES if task in chosen else 1.0 for task in tasks}
            name = "fixed: " + " ".join(f"{task}={weight:g}" for task, weight in weights.items())
            result.append(job("grid", name, weights=weights))
    for seed in range(arguments.seeds):
        result += [job("single", task, seed=seed) for task in tasks]
        if seed == 0:
            result += [job("method", "equal", seed=other) for other in range(1, arguments.seeds)]
    for seed in range(1, arguments.method_seeds):
        result += [job("method", method, on, seed) for method, on in methods]
    unique = {key(job): job for job in result}
    return [j for j in unique.values() if not arguments.only or arguments.only in j["method"]]


def start(threads: int) -> None:
    """The beginning of a worker, with its share of the cores."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


class Workers:
    """Processes that are made anew before their memory fills up."""

    def __init__(self, count: int):
        self.count = count
        self.renew()

    def renew(self) -> None:
        self.pool = concurrent.futures.ProcessPoolExecutor(
            self.count,
            multiprocessing.get_context("spawn"),
            start,
            (max(1, (os.cpu_count() or 1) // self.count),),
            max_tasks_per_child=RUNS_OF_WORKER,
        )

    def __call__(self, function, spec: dict):
        """Runs one function in a worker, and waits for it."""
        return self.pool.submit(function, spec).result()

    def each(self, specs: list[dict], until: float):
        """Yields spec and finished future as runs end; starts none after the time `until`."""
        waiting, running, full = list(specs), {}, False
        while waiting or running:
            if full and not running:
                self.pool.shutdown()
                self.renew()
                full = False
            while waiting and not full and len(running) < self.count and time.monotonic() < until:
                spec = waiting.pop(0)
                running[self.pool.submit(worker.train, spec)] = spec
            if not running:
                if full:
                    continue
                return
            for future in concurrent.futures.wait(
                running, return_when=concurrent.futures.FIRST_COMPLETED
            ).done:
                spec = running.pop(future)
                error = future.exception()
                # A worker that died takes the pool with it.
                full |= isinstance(error, concurrent.futures.BrokenExecutor)
                full |= error is None and future.result()["memory_mb"] > MOST_MB
                yield spec, future


def run(arguments: argparse.Namespace, data: str, until: float) -> dict[str, str]:
    """Measures what has no row yet. Returns the errors by what failed."""
    path = arguments.out / "balancing_data.csv"
    done = {key(row) for row in read(path)}
    failed: dict[str, str] = {}
    workers = Workers(arguments.workers)
    with tempfile.TemporaryDirectory(prefix="balancing_data_") as folder:
        try:
            planned = jobs(arguments, data, workers(worker.plan, {}))
            missing = [job for job in planned if key(job) not in done][: arguments.jobs]
            checksums: dict[int, str] = {}
            for seed, group in itertools.groupby(missing, lambda job: job["seed"]):
                if time.monotonic() > until:
                    break
                spec = {"data": data, "seed": seed, "steps": arguments.steps}
                spec |= {"size": arguments.size, "folder": folder}
                if seed not in checksums:
                    began = time.perf_counter()
                    checksums[seed] = workers(worker.prepare, spec)["checksum"]
                    print(f"{data}: batches of seed {seed} [{time.perf_counter() - began:.0f} s]")
                specs = [
                    {
                        **job,
                        "folder": folder,
                        "tune": job["role"] == "grid" or job["method"] == "equal",
                    }
                    for job in group
                ]
                for job, future in workers.each(specs, until):
                    name = f"{data} {job['role']} {job['method']} {job['on']} seed {job['seed']}"
                    if error := future.exception():
                        failed[name] = f"{type(error).__name__}: {error}"
                        print(f"{name}: FAILED {failed[name]:.300}", flush=True)
                        continue
                    row = row_of(job, future.result(), checksums[seed], arguments.workers)
                    append(path, row)
                    shown = [f"{m} {row[m]:.6}" for m in METRICS.values() if row[m]]
                    print(
                        f"{name}: {', '.join(shown) or 'NOT FINITE'}, CPU {row['step_cpu_s']:.5} s "
                        f"a step [{float(row['total_s']):.0f} s, {row['memory_mb']} MB]",
                        flush=True,
                    )
        finally:
            workers.pool.shutdown(cancel_futures=True)
    return failed


# === Tables and picture ===
def results(rows: list[dict], data: str, prefix: str = "") -> dict[str, dict] | None:
    """Metrics by task as `mtl_keras.metrics.delta_m` reads them; `None` where one is missing."""
    found = {}
    for task in TASKS[data]:
        values = [row[prefix + METRICS[task]] for row in rows]
        if not values or not all(values):
            return None
        found[task] = {METRICS[task].removeprefix(f"{task}_"): [float(v) for v in values]}
    return found


def change(one: dict | None, reference: dict | None) -> float | None:
    from mtl_keras.metrics import delta_m

    known = one is not None and reference is not None
    return delta_m(one, reference, resamples=1).value if known else None


class Found:
    """What the rows of one set, with one budget, say."""

    def __init__(self, rows: list[dict], data: str, steps: int, size: int):
        self.data, self.steps, self.size = data, steps, size
        settings = {"data": data, "steps": str(steps), "size": str(size)}
        self.rows = [r for r in rows if all(r[k] == v for k, v in settings.items())]
        self.equal = self.of("method", "equal")
        self.reference = results(self.equal, data)
        singles = {task: self.of("single", task) for task in TASKS[data]}
        self.singles = singles
        self.single = self._single({row["seed"] for rows in singles.values() for row in rows})
        self.seeds = [change(results([row], data), self.reference) for row in self.equal]
        self.noise = 2 * statistics.stdev(self.seeds) if len(self.seeds) > 1 else None
        self.lines = self._lines() if self.reference else []

    def _single(self, seeds: set[str]) -> dict | None:
        """Means over the runs of one network a task with these seeds, if there are any."""
        chosen = {
            task: [float(row[METRICS[task]]) for row in rows if row["seed"] in seeds]
            for task, rows in self.singles.items()
        }
        if not all(chosen.values()):
            return None
        return {
            task: {METRICS[task].removeprefix(f"{task}_"): statistics.mean(values)}
            for task, values in chosen.items()
        }

    def of(self, role: str, method: str, on: str = "") -> list[dict]:
        wanted = {"role": role, "method": method, "on": on}
        return [r for r in self.rows if all(r[k] == v for k, v in wanted.items())]

    def tuned(self) -> list[dict]:
        """The rows of the weights that are best on the rest of `train`."""
        reference = results([r for r in self.equal if r["seed"] == "0"], self.data, "tune_")
        scores = {"equal": 0.0}
        for row in self.rows:
            if row["role"] == "grid":
                score = change(results([row], self.data, "tune_"), reference)
                if score is not None:
                    scores[row["method"]] = score
        best = max(scores, key=scores.get)
        return self.of("grid", best) if len(scores) > 1 and best != "equal" else []

    def _lines(self) -> list[dict]:
        ways = dict.fromkeys((r["method"], r["on"]) for r in self.rows if r["role"] == "method")
        groups = [(f"`{m}`", on, self.of("method", m, on)) for m, on in ways]
        if tuned := self.tuned():
            weights = tuned[0]["method"].removeprefix("fixed: ")
            groups.append((f"`fixed` (tuned: {weights})", "", tuned))
        # Relative to the runs with equal weights and the same batches.
        equal = {row["seed"]: float(row["step_cpu_s"]) for row in self.equal if row["step_cpu_s"]}
        lines = []
        for name, on, rows in groups:
            finite = [row for row in rows if row["finite"] == "yes"]
            one = results(finite, self.data)
            costs = [
                float(row["step_cpu_s"]) / equal.get(row["seed"], next(iter(equal.values())))
                for row in rows
                if row["step_cpu_s"] and equal
            ]
            seeds = {row["seed"] for row in finite}
            same = results([row for row in self.equal if row["seed"] in seeds], self.data)
            lines.append(
                {
                    "name": name,
                    "on": on,
                    "seeds": len(rows),
                    "diverged": len(rows) - len(finite),
                    "metrics": one,
                    "delta": change(one, same),
                    "single": change(one, self._single(seeds)),
                    "cost": statistics.mean(costs) if costs else None,
                }
            )
        return sorted(lines, key=lambda at: -math.inf if at["delta"] is None else at["delta"])[::-1]


def signed(value: float | None, form: str = "+.1f") -> str:
    return "–" if value is None else f"{value:{form}}".replace("-", "−")


def table(found: Found) -> str:
    names = [METRICS[task] for task in TASKS[found.data]]
    noise = "not known"
    if found.noise is not None:
        seeds = ", ".join(signed(value) for value in found.seeds)
        noise = (
            f"Δm of the runs with equal weights: {seeds}, so that less than "
            f"±{found.noise:.1f} (twice the standard deviation) is noise"
        )
    cores = " or ".join(sorted({row["cores"] for row in found.rows}))
    versions = " or ".join(sorted({row["versions"] for row in found.rows}))
    heads = [f"`{name}`" + (" ↓" if name == "distance_mae" else "") for name in names]
    text = [
        f"`{found.data}`: {found.steps} steps of {worker.BATCH} windows of {found.size} × "
        f"{found.size} pixels, {cores} CPU cores ({versions}). {noise}.",
        "",
        f"| balancing | gradients at | seeds | {' | '.join(heads)} | Δm against equal (%) "
        "| Δm against single-task (%) | CPU time of a step |",
        f"| --- | --- | ---: |{' ---: |' * (len(names) + 3)}",
    ]

    def line(name: str, on: str, seeds: int, values: list, *last: str) -> str:
        cells = [name, on or "–", str(seeds), *values, *last]
        return f"| {' | '.join(cells)} |"

    for at in found.lines:
        values = ["–"] * len(names)
        if at["metrics"]:
            values = [
                f"{statistics.mean(v):.3f}" for m in at["metrics"].values() for v in m.values()
            ]
        diverged = f" ({at['diverged']} diverged)" if at["diverged"] else ""
        cost = "–" if at["cost"] is None else f"{at['cost']:.2f} ×"
        inside = (
            at["delta"] is not None and found.noise is not None and abs(at["delta"]) > found.noise
        )
        delta = f"**{signed(at['delta'])}**" if inside else signed(at["delta"])
        text.append(
            line(
                at["name"] + diverged,
                at["on"],
                at["seeds"],
                values,
                delta,
                signed(at["single"]),
                cost,
            )
        )
    if found.single:
        values = [f"{value:.3f}" for metrics in found.single.values() for value in metrics.values()]
        seeds = len({row["seed"] for row in found.rows if row["role"] == "single"})
        against = signed(change(found.single, found.reference))
        text.append(line("one network a task", "", seeds, values, against, signed(0.0, ".1f"), "–"))
    return "\n".join(text) + "\n"


def plot(all_found: list[Found], path: pathlib.Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7 * len(all_found), 7), layout="constrained")
    colors = {"": "#2b6cb0", "features": "#dd6b20", "parameters": "#9b2c2c"}
    labels = {
        "": "weights of losses",
        "features": "gradients at features",
        "parameters": "gradients at parameters",
    }
    panels = figure.subplots(1, len(all_found), squeeze=False)[0]
    for axes, found in zip(panels, all_found, strict=True):
        if found.noise is not None:
            axes.axhspan(-found.noise, found.noise, color="#cbd5e0", alpha=0.6, lw=0, label="noise")
        axes.axhline(0, color="#4a5568", lw=0.8)
        points = [at for at in found.lines if at["delta"] is not None and at["cost"] is not None]
        for on, color in colors.items():
            some = [at for at in points if at["on"] == on]
            axes.scatter(
                [at["cost"] for at in some],
                [at["delta"] for at in some],
                color=color,
                label=labels[on],
                zorder=3,
            )
        # What is far below would leave no room for the others: it is named at the edge.
        deltas = sorted(at["delta"] for at in points)
        low = max(deltas[0], -2.0 * (found.noise or 20.0)) if deltas else 0.0
        span = max(deltas[-1] if deltas else 0.0, found.noise or 0.0) - low
        axes.set_ylim(low - 0.08 * span, low + 1.08 * span)
        placed: list[tuple[float, float]] = []
        width = max(at["cost"] for at in points) - min(at["cost"] for at in points)
        for at in sorted(points, key=lambda at: -abs(at["delta"])):
            where = at["cost"], max(at["delta"], low)
            if any(
                abs(where[0] - x) < 0.2 * width and abs(where[1] - y) < 0.025 * span
                for x, y in placed
            ):
                continue  # It would cover another name; the table has them all.
            placed.append(where)
            name = at["name"].split("` (")[0].strip("`")
            below = at["delta"] < low
            axes.annotate(
                f"{name} ({signed(at['delta'], '+.0f')})" if below else name,
                (at["cost"], low if below else at["delta"]),
                xytext=(4, 3),
                textcoords="offset points",
                fontsize=7,
            )
        axes.margins(x=0.12)
        axes.set_title(f"{found.data}: {found.steps} steps", loc="left", fontsize=11)
        axes.set_xlabel("CPU time of a training step, relative to equal weights")
        axes.set_ylabel("Δm against equal weights (%), higher is better")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False, loc="lower left")
    figure.savefig(path, dpi=110)


def page(text: str, tables: str) -> str:
    if text.count(START) != 1 or text.count(END) != 1:
        sys.exit(f"{PAGE} must have the lines {START.strip()} and {END} once each")
    before, rest = text.split(START)
    return before + START + tables + END + rest.split(END)[1]


# === Program ===
def parse(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=sorted(TASKS), help="one set; both by default")
    parser.add_argument("--only", help="only runs whose method has this in its name")
    parser.add_argument("--steps", type=int, default=96, help="training steps of a run")
    parser.add_argument("--size", type=int, default=160, help="pixels of training windows")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of equal and of single tasks")
    parser.add_argument("--method-seeds", type=int, default=1, help="seeds of every method")
    parser.add_argument("--jobs", type=int, help="run at most so many")
    parser.add_argument("--budget-minutes", type=float, default=math.inf, help="then start no more")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the cores")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--write", action="store_true", help=f"write tables into {PAGE.name}")
    arguments = parser.parse_args(given)
    if arguments.steps <= worker.WARM or arguments.size < 32 or arguments.size % 32:
        parser.error(f"--steps must be more than {worker.WARM}, --size a multiple of 32")
    if arguments.write and arguments.out.resolve() != RESULTS:
        parser.error(f"--write takes the rows of {RESULTS} only: a trial does not belong on a page")
    return arguments


def main(given: list[str] | None = None) -> int:
    arguments = parse(given)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    until = time.monotonic() + 60 * arguments.budget_minutes
    failed: dict[str, str] = {}
    for data in [arguments.data] if arguments.data else list(TASKS):
        if arguments.jobs == 0:
            break
        if not (worker.data_folder() / data / "train.json").exists():
            sys.exit(
                f"there is no set {data!r} in {worker.data_folder()}; name the folder that has it "
                "with the environment variable MTL_KERAS_DATA"
            )
        failed |= run(arguments, data, until)
    rows = read(arguments.out / "balancing_data.csv")
    all_found = [Found(rows, data, arguments.steps, arguments.size) for data in TASKS]
    all_found = [found for found in all_found if found.lines]
    if all_found:
        plot(all_found, arguments.out / "balancing_data.png")
        tables = "\n".join(table(found) for found in all_found)
        print(f"\n{tables}")
        if arguments.write:
            if not PAGE.exists():
                sys.exit(f"there is no {PAGE} to write the tables into")
            PAGE.write_text(page(PAGE.read_text("utf-8"), tables), encoding="utf-8")
    for name, error in failed.items():
        print(f"FAILED: {name}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
