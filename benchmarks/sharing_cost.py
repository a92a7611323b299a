"""What each way to share costs: parameters, training step, peak memory, latency; LibMTL beside.

Command: python benchmarks/sharing_cost.py --write
         python benchmarks/sharing_cost.py --write --peer-python PYTHON    (with LibMTL's ways too)
         python benchmarks/sharing_cost.py --rounds 0 --write      (tables and picture only)
Time:    one to two minutes a way and round on two idle cores; an interrupted run goes on where
         it was
Expected: every way is measured. Ours over LibMTL's training step: at most 1.00 of LibMTL at its
         best, at most 0.75 of LibMTL as shipped.

Every network is built, called and trained in a new process (`mtl_keras.sharing.cost`), one at a
time; the ways take turns in each round. A number is the median over rounds, and its ratio the
median of the rounds' own ratios, so that a machine that slows down slows both. Times in a process
are medians after a warm-up. Memory is the most that the process held, less what it held when all
was imported. Training is with AdamW, inference is of one picture, as raw outputs.

Each measurement is a row of results/sharing_cost.csv as soon as it is made. Rows are kept: delete
the file (or rows) to measure again, e.g. on another machine.

The comparison with LibMTL (PYTHON: an interpreter with torch and LibMTL) is of ResNet-18 with two
classifiers on both sides, on the CPU, with Adam; see libmtl_worker.py for what stands around
LibMTL's own code. Where the two do not do the same:

- hard: the same work. cross_stitch: both mix after the first three stages; LibMTL's units have
  one number a task, ours a matrix. mmoe: two experts, each the whole trunk; LibMTL's gates read
  all pixels, ours their mean. mtan: LibMTL's shared function between attention modules is a
  residual block and ours one convolution, as in the paper; LibMTL's last stage has it no more,
  as ours.
- Our trunk normalises images itself, and our step leaves a batch that is not finite out.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import time
from importlib import metadata

import rows as kept

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
OURS, SHIPPED, BEST = "mtl_keras", "LibMTL as shipped", "LibMTL at its best"
LITE, RESNET = "efficientnet_lite0", "resnet18"
PEERS = ("hard", "cross_stitch", "mmoe", "mtan")
NECK, CLASSES, EXPERTS = 64, 10, 2
KEY = ("library", "trunk", "way", "size", "batch", "steps", "round")
MEASURED = (
    "parameters",
    "step_ms",
    "latency_ms",
    "training_memory_mb",
    "inference_memory_mb",
    "imported_memory_mb",
)
ROWS = kept.Rows(KEY, (*MEASURED, "cores", "versions"))
MARKER = "sharing_cost"


# === Rows ===
def row_of(job: dict, result: dict) -> dict:
    return {
        **{name: job[name] for name in KEY},
        "parameters": result["parameters"],
        "step_ms": f"{result['step'] * 1e3:.2f}",
        "latency_ms": f"{result['latency'] * 1e3:.3f}",
        **{
            f"{name}_mb": f"{result[name] / 1e6:.1f}"
            for name in ("training_memory", "inference_memory", "imported_memory")
        },
        "cores": os.cpu_count(),
        "versions": result["versions"],
    }


def select(rows: list[dict], library: str, trunk: str, settings: dict) -> dict[str, dict]:
    """Medians by way, of the rows with these settings; `rounds` has the values by round."""
    found: dict[str, dict] = {}
    for row in rows:
        wanted = {"library": library, "trunk": trunk, **settings}
        if all(str(row[name]) == str(value) for name, value in wanted.items()):
            numbers = {name: float(row[name]) for name in MEASURED}
            found.setdefault(row["way"], {"rounds": {}})["rounds"][row["round"]] = numbers
    for medians in found.values():
        for name in MEASURED:
            medians[name] = statistics.median(r[name] for r in medians["rounds"].values())
    return found


def ratio(one: dict | None, other: dict | None, name: str) -> float | None:
    """Median over the rounds that both have, of one's number over the other's."""
    if one is None or other is None:
        return None
    both = [
        numbers[name] / other["rounds"][r][name]
        for r, numbers in one["rounds"].items()
        if r in other["rounds"]
    ]
    return statistics.median(both) if both else None


# === Measuring ===
class Measurer:
    """Describes networks to the processes that measure them."""

    def __init__(self, folder: pathlib.Path, arguments: argparse.Namespace):
        self.folder, self.arguments, self.trunks = folder, arguments, {}

    def __call__(self, job: dict) -> dict:
        return self.peer(job) if job["library"] != OURS else self.ours(job)

    def ours(self, job: dict) -> dict:
        import keras

        from mtl_keras.sharing import cost

        if job["trunk"] not in self.trunks:
            self.trunks[job["trunk"]] = self.describe(job["trunk"])
        config, modules, batch = self.trunks[job["trunk"]]
        sharing = keras.saving.serialize_keras_object(self.sharing(job))
        result = cost.run(
            {**config, "sharing": sharing},
            batch,
            [*modules, sharing["module"]],
            steps=job["steps"],
            calls=self.arguments.calls,
            optimizer="adamw" if job["trunk"] == LITE else "adam",
        )
        versions = [f"{p} {metadata.version(p)}" for p in ("keras", "tensorflow")]
        return {**result, "versions": ", ".join(versions)}

    def sharing(self, job: dict):
        import mtl_keras as mtl

        plain = mtl.sharing.get(job["way"])
        if job["trunk"] == LITE:
            return plain
        equal = {
            "cross_stitch": {"stages": ["P2", "P3", "P4"]},
            "mmoe": {"num_experts": EXPERTS, "experts_from": "stem"},
            "mtan": {"reduction": 1},
        }
        return type(plain)(neck_channels=NECK, **equal.get(job["way"], {}))

    def describe(self, trunk: str) -> tuple[dict, list[str], pathlib.Path]:
        """Config, modules and batch of a network; ways to share replace its sharing."""
        import numpy as np

        import mtl_keras as mtl
        from mtl_keras.sharing import cost

        size, count = self.arguments.size, self.arguments.batch
        if trunk == LITE:
            tasks = [mtl.tasks.Detection(CLASSES), mtl.tasks.Segmentation(CLASSES + 1)]
            model = mtl.build(mtl.trunks.create(LITE), tasks, "hard", (size, size))
            x, y = cost.random_batch(model, (size, size, 3), count)
        else:
            import keras_hub
            from resnet_task import ImageClass

            backbone = keras_hub.models.ResNetBackbone(
                input_conv_filters=[64],
                input_conv_kernel_sizes=[7],
                stackwise_num_filters=[64, 128, 256, 512],
                stackwise_num_blocks=[2, 2, 2, 2],
                stackwise_num_strides=[1, 2, 2, 2],
                block_type="basic_block",
            )
            tasks = [ImageClass(CLASSES, name) for name in ("a", "b")]
            model = mtl.build(mtl.trunks.create(backbone), tasks, "hard", (size, size))
            rng = np.random.default_rng(0)
            x = rng.uniform(0, 255, (count, size, size, 3)).astype("float32")
            y = {n: {"label": rng.integers(0, CLASSES, count).astype("int32")} for n in ("a", "b")}
        path = self.folder / f"{trunk}.npz"
        cost.save_batch(path, x, y)
        return model.architecture(), cost.needed_modules(model), path

    def peer(self, job: dict) -> dict:
        from mtl_keras.sharing import cost, memory

        spec = {
            **{name: job[name] for name in ("way", "size", "batch", "steps")},
            "best": job["library"] == BEST,
            "cores": os.cpu_count(),
            "calls": self.arguments.calls,
            "neck_channels": NECK,
            "classes": CLASSES,
            "num_experts": EXPERTS,
            "memory": memory.__file__,
        }
        worker = ROOT / "benchmarks" / "libmtl_worker.py"
        # Not this interpreter's packages.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        return cost.answer([self.arguments.peer_python, str(worker)], spec, environment)


def jobs(arguments: argparse.Namespace) -> list[dict]:
    """Everything to be measured, in the order in which it is."""
    settings = {"size": arguments.size, "batch": arguments.batch, "steps": arguments.steps}
    result = []
    for number in range(1, arguments.rounds + 1):
        ways = [(OURS, LITE, way) for way in arguments.ways]
        if arguments.peer_python:
            ways += [
                (library, RESNET, way)
                for way in PEERS
                if way in arguments.ways
                for library in (OURS, SHIPPED, BEST)
            ]
        result += [
            {"library": library, "trunk": trunk, "way": way, **settings, "round": number}
            for library, trunk, way in ways
        ]
    return result


def run(arguments: argparse.Namespace, measure) -> dict[str, str]:
    """Measures what has no row yet. Returns the errors by what failed; it is not tried again."""
    path = arguments.out / "sharing_cost.csv"
    done = {ROWS.key(row) for row in ROWS.read(path)}
    failed: dict[str, str] = {}
    for job in jobs(arguments):
        name = f"{job['way']} ({job['library']}, {job['trunk']})"
        if ROWS.key(job) in done or name in failed:
            continue
        started = time.perf_counter()
        try:
            row = row_of(job, measure(job))
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
            print(f"round {job['round']}  {name}: FAILED", flush=True)
            continue
        ROWS.append(path, row)
        print(
            f"round {job['round']}  {name}: {int(row['parameters']):,} parameters, step "
            f"{row['step_ms']} ms, latency {row['latency_ms']} ms, memory "
            f"{row['training_memory_mb']} MB   [{time.perf_counter() - started:.0f} s]",
            flush=True,
        )
    return failed


# === Tables and picture ===
def said(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} ×"


def ways_table(found: dict[str, dict]) -> list[str]:
    lines = [
        "| sharing | parameters | | training step | | memory of training | | inference of one | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    units = {
        "parameters": lambda v: f"{v / 1e6:.2f} M",
        "step_ms": lambda v: f"{v:.0f} ms",
        "training_memory_mb": lambda v: f"{v:.0f} MB",
        "latency_ms": lambda v: f"{v:.1f} ms",
    }
    for way in sorted(found, key=lambda way: (found[way]["step_ms"], way)):
        cells = [f"`{way}`"]
        for name, unit in units.items():
            cells += [unit(found[way][name]), said(ratio(found[way], found.get("hard"), name))]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def peer_table(ours: dict, shipped: dict, best: dict) -> list[str]:
    lines = [
        "| sharing | parameters, ours / theirs | training step: ours | LibMTL as shipped "
        "| at its best | ours / as shipped | ours / at its best "
        "| inference: ours / as shipped | ours / at its best "
        "| memory of training: ours / as shipped | ours / at its best |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for way in PEERS:
        if not (way in ours and (way in shipped or way in best)):
            continue
        one, two, three = ours[way], shipped.get(way), best.get(way)

        def milliseconds(of: dict | None) -> str:
            return "–" if of is None else f"{of['step_ms']:.0f} ms"

        cells = [
            f"`{way}`",
            f"{one['parameters'] / 1e6:.2f} M / {(two or three)['parameters'] / 1e6:.2f} M",
            *(milliseconds(of) for of in (one, two, three)),
            *(
                said(ratio(one, of, name))
                for name in ("step_ms", "latency_ms", "training_memory_mb")
                for of in (two, three)
            ),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines if len(lines) > 2 else []


def tables(rows: list[dict], settings: dict) -> str:
    """What stands in README.md between the markers."""
    found = select(rows, OURS, LITE, settings)
    if not found:
        sys.exit(f"nothing has been measured with {settings}")
    size, batch = settings["size"], settings["batch"]
    peers = [select(rows, library, RESNET, settings) for library in (OURS, SHIPPED, BEST)]
    cores, versions = described([r for r in rows if r["library"] == OURS], settings)
    text = [
        f"EfficientNet-Lite0, detection and segmentation, {size} × {size} pixels, batches of "
        f"{batch}, {cores} CPU cores ({versions}); × is relative to `hard`:",
        "",
        *ways_table(found),
    ]
    if second := peer_table(*peers):
        _, versions = described([r for r in rows if r["library"] != OURS], settings)
        text += [
            "",
            f"ResNet-18 with two classifiers beside LibMTL's ({versions}), the same sizes, times "
            "and memory relative to LibMTL's (`mtan` is not of the same size, see the parameters):",
            "",
            *second,
        ]
    return "\n".join(text) + "\n"


def described(rows: list[dict], settings: dict) -> tuple[str, str]:
    """The cores and versions with which the rows were measured: one machine, or all that were."""
    used = [r for r in rows if all(str(r[name]) == str(v) for name, v in settings.items())]
    return (
        " or ".join(sorted({r["cores"] for r in used})),
        " or ".join(sorted({r["versions"] for r in used})),
    )


def plot(found: dict[str, dict], settings: dict, path: pathlib.Path) -> None:
    from matplotlib.figure import Figure

    panels = {
        "parameters": ("parameters (M)", 1e-6, "{:.1f}"),
        "step_ms": (f"training step of {settings['batch']} (ms)", 1.0, "{:.0f}"),
        "training_memory_mb": ("memory of training (MB)", 1.0, "{:.0f}"),
        "latency_ms": ("inference of one (ms)", 1.0, "{:.0f}"),
    }
    ways = sorted(found, key=lambda way: (-found[way]["step_ms"], way))
    figure = Figure(figsize=(12, 1.6 + 0.32 * len(ways)), layout="constrained")
    for axes, (name, (title, scale, form)) in zip(
        figure.subplots(1, 4, sharey=True), panels.items(), strict=True
    ):
        values = [found[way][name] * scale for way in ways]
        colors = ["#dd6b20" if way == "hard" else "#2b6cb0" for way in ways]
        bars = axes.barh(range(len(ways)), values, color=colors)
        labels = []
        for way, value in zip(ways, values, strict=True):
            times = ratio(found[way], found.get("hard"), name)
            labels.append(form.format(value) + (f"  ({said(times)})" if times else ""))
        axes.bar_label(bars, labels, padding=3, fontsize=8)
        axes.set_yticks(range(len(ways)), ways)
        axes.set_title(title, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(0, max(values) * 1.55)
        axes.locator_params(axis="x", nbins=4)
    size = settings["size"]
    figure.suptitle(
        f"Ways to share EfficientNet-Lite0 by detection and segmentation, {size} x {size} pixels; "
        "× relative to hard",
        fontsize=11,
    )
    figure.savefig(path, dpi=110)


# === Program ===
def parse(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", help="names, with commas between; all registered by default")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels")
    parser.add_argument("--batch", type=int, default=8, help="images in a training step")
    parser.add_argument("--steps", type=int, default=10, help="training steps that are timed")
    parser.add_argument("--calls", type=int, default=30, help="inferences that are timed")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each way")
    parser.add_argument("--peer-python", help="interpreter with torch and LibMTL")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--write", action="store_true", help="write the tables into README.md")
    arguments = parser.parse_args(given)
    if arguments.ways is None:
        import mtl_keras as mtl

        arguments.ways = mtl.sharing.names()
    else:
        arguments.ways = [way for way in arguments.ways.split(",") if way]
    # Ratios are to hard sharing, which each round begins with.
    arguments.ways = sorted(arguments.ways, key=lambda way: (way != "hard", way))
    return arguments


def main(given: list[str] | None = None) -> int:
    arguments = parse(given)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if arguments.peer_python:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # LibMTL is measured on the CPU: so are we.
    with tempfile.TemporaryDirectory() as folder:
        failed = run(arguments, Measurer(pathlib.Path(folder), arguments))
    settings = {name: getattr(arguments, name) for name in ("size", "batch", "steps")}
    rows = ROWS.read(arguments.out / "sharing_cost.csv")
    if found := select(rows, OURS, LITE, settings):
        plot(found, settings, arguments.out / "sharing_cost.png")
        table = tables(rows, settings)
        print(f"\n{table}")
        if arguments.write:
            page = ROOT / "README.md"
            page.write_text(kept.between(page.read_text("utf-8"), MARKER, table), encoding="utf-8")
    for name, error in failed.items():
        print(f"FAILED: {name}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
