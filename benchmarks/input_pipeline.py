"""How fast the input is: alone, while training, beside keras-cv; its memory; encoding of targets.

Command: python benchmarks/input_pipeline.py --write
         python benchmarks/input_pipeline.py --write --peer-python PYTHON
         (PYTHON: an interpreter with what this one has, and keras-cv; measures it too)
         python benchmarks/input_pipeline.py --data "" --write    (tables only)
Time:    about ten minutes on two idle cores; an interrupted run goes on where it was
Expected: ours makes at least 3 times as many images as a training step takes on the same cores (or
         has at most 15 % of the CPU time of training), at least 2 times as many as keras-cv;
         memory is flat over 10 epochs; a task encodes 400 objects in at most 5 ms. The script says
         what is met.

The sets are in the folder that the environment variable MTL_KERAS_DATA names. Input is: decode the
picture and its instances, scale (half to double the letterbox), crop or place, flip, change the
colours, move boxes and masks, encode the targets of detection and segmentation, batch. "All tasks"
is `nuclei` with distances to the boundary too, which keras-cv's pipeline has not.

Each pipeline is in a process of its own. Those of a set get ready at once, then take turns; a turn
is one whole epoch of some pictures, so that everything which a pipeline has begun is counted. A
number is the median over turns, per image. CPU time (of all threads) is what ratios are of, since
other programs disturb it less than the time on the wall. keras-cv's pipelines and where they differ
from ours: input_pipeline_peers.py.

Training is EfficientNet-Lite0, shared hard, with detection and segmentation and AdamW: with one
batch again and again, which is the training step alone, and with each pipeline. The input's share
is that of its time alone beside the step's; "as measured" is what training with the input takes
more than the step alone, which holds the start of an epoch too.

Memory is that of a process which does nothing but read all tasks' batches of the whole training
split: what it holds at the end of each epoch, and what it held at most. It is flat if after the
last epoch it holds at most 5 % more than after the second. The process runs with
`MALLOC_ARENA_MAX=2`: by default glibc keeps arenas for each of the many threads, which fragment, so
that what a process holds goes up and down by some percent and hides what is asked here.

Each measurement is a row of results/input_pipeline.csv. Rows are kept: delete the file (or rows)
to measure again.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import time

import rows as kept
from conversation import Conversation
from input_pipeline_peers import BEST, DOCUMENTED
from input_pipeline_worker import EPOCHS, OBJECTS, OURS

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "input_pipeline.csv"
PAGE = ROOT / "docs" / "data.md"
MARKER = "input_pipeline"
DATA = ("nuclei", "facades", "vhr10", "kvasir")
ALONE, ALL, TRAIN, FIXED = "alone", "all tasks", "train", "train, one batch"
MEMORY, ENCODING = "memory", "encoding"
ENCODED_SIZES = (256, 640)
LEAST_TRAINING, MOST_SHARE, LEAST_PEER, MOST_GROWTH, MOST_ENCODING = 3.0, 0.15, 2.0, 1.05, 5.0
SETTINGS = ("size", "batch", "images", "trained")
KEY = ("library", "data", "what", *SETTINGS, "epoch", "round")
ROWS = kept.Rows(KEY, ("wall_ms", "cpu_ms", "rss_mb", "peak_mb", "cores", "versions"))


# === What to measure ===
def whats(library: str, data: str) -> list[str]:
    """The turns of a pipeline."""
    if library == DOCUMENTED:
        return [ALONE]
    return (
        [ALONE, TRAIN]
        + ([FIXED] if library == OURS else [])
        + ([ALL] if library == OURS and data == "nuclei" else [])
    )


def jobs(arguments: argparse.Namespace) -> list[dict]:
    """Everything to be measured, a dict for each row."""
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    libraries = [OURS] + ([DOCUMENTED, BEST] if arguments.peer_python else [])
    found = []
    for number in range(1, arguments.rounds + 1):

        def add(library: str, data: str, what: str, epoch: int | str = "", n: int = number) -> None:
            job = {"library": library, "data": data, "what": what, **settings}
            found.append({**job, "epoch": epoch, "round": n})

        for data in arguments.data:
            for library in libraries:
                for what in whats(library, data):
                    add(library, data, what)
        for data in arguments.data:
            for epoch in range(1, EPOCHS + 1):
                add(OURS, data, MEMORY, epoch)
        for size in ENCODED_SIZES if arguments.data else ():
            for task in ("detection", "segmentation", "distance"):
                add(OURS, f"{OBJECTS} objects, {size} px", f"{ENCODING}, {task}")
    return found


# === Measuring ===
def process(
    library: str, arguments: argparse.Namespace, errors: pathlib.Path, **more: str
) -> Conversation:
    paths = [str(ROOT), *(path for path in [os.environ.get("PYTHONPATH")] if path)]
    environment = {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONPATH": os.pathsep.join(paths),
        **more,
    }
    python = arguments.peer_python if library in (DOCUMENTED, BEST) else sys.executable
    worker = str(ROOT / "benchmarks" / "input_pipeline_worker.py")
    return Conversation([python, worker], environment, errors)


def spec_of(library: str, data: str, what: list[str], arguments: argparse.Namespace) -> dict:
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    return {"library": library, "data": data, "what": what, **settings}


def times_of_set(
    data: str, missing: list[dict], arguments: argparse.Namespace, folder: pathlib.Path
) -> list[dict]:
    """Lets the pipelines of a set take turns. Returns rows."""
    libraries = list(dict.fromkeys(job["library"] for job in missing))
    wanted = {name: [j["what"] for j in missing if j["library"] == name] for name in libraries}
    processes: dict[str, Conversation] = {}
    try:
        for i, name in enumerate(libraries):
            processes[name] = process(name, arguments, folder / f"errors{i}.txt")
            processes[name].send(spec_of(name, data, wanted[name], arguments))
        ready = {name: processes[name].answer() for name in libraries}
        found: dict[tuple, list[dict]] = {}
        for _ in range(arguments.turns):
            for what in (ALONE, ALL, FIXED, TRAIN):
                for name in libraries:
                    if what in wanted[name]:
                        found.setdefault((name, what), []).append(processes[name].ask(what))
    finally:
        for one in processes.values():
            one.end()
    result = []
    for job in missing:
        turns = found[job["library"], job["what"]]
        medians = {
            column: f"{statistics.median(turn[column] for turn in turns):.3f}"
            for column in ("wall_ms", "cpu_ms")
        }
        result.append({**job, **medians, "versions": ready[job["library"]]["versions"]})
    return result


def memory_of_set(
    data: str, missing: list[dict], arguments: argparse.Namespace, folder: pathlib.Path
) -> list[dict]:
    """The memory of one process, epoch by epoch. Returns rows."""
    one = process(OURS, arguments, folder / "errors.txt", MALLOC_ARENA_MAX="2")
    try:
        ready = one.ask(spec_of(OURS, data, [MEMORY], arguments))
        epochs = one.ask(MEMORY)["epochs"]
    finally:
        one.end()
    return [
        job
        | {"versions": ready["versions"]}
        | {f"{k}_mb": f"{epochs[job['epoch'] - 1][k] / 1e6:.1f}" for k in ("rss", "peak")}
        for job in missing
    ]


def encoding(
    data: str, missing: list[dict], arguments: argparse.Namespace, folder: pathlib.Path
) -> list[dict]:
    """Times of encoding one image. Returns rows."""
    one = process(OURS, arguments, folder / "errors.txt")
    try:
        ready = one.ask({"library": ENCODING})
        found = one.ask(next(size for size in ENCODED_SIZES if f" {size} px" in data))
    finally:
        one.end()
    return [
        job
        | {"versions": ready["versions"]}
        | {k: f"{v:.3f}" for k, v in found[job["what"].removeprefix(f"{ENCODING}, ")].items()}
        for job in missing
    ]


def measurer(job: dict):
    if job["what"].startswith(ENCODING):
        return encoding
    return memory_of_set if job["what"] == MEMORY else times_of_set


def run(arguments: argparse.Namespace) -> dict[str, str]:
    """Measures what has no rows yet, together with what it is compared with. Returns errors."""
    done = {ROWS.key(row) for row in ROWS.read(arguments.results)}
    groups: dict[tuple, list[dict]] = {}
    for job in jobs(arguments):
        groups.setdefault((job["round"], measurer(job), job["data"]), []).append(job)
    failed = {}
    for (number, measure, data), together in groups.items():
        missing = [job for job in together if ROWS.key(job) not in done]
        if not missing:
            continue
        started = time.perf_counter()
        try:
            with tempfile.TemporaryDirectory() as folder:
                found = measure(data, missing, arguments, pathlib.Path(folder))
        except (RuntimeError, OSError) as error:
            failed[f"{measure.__name__} {data}"] = str(error)
            print(f"{measure.__name__} {data}: FAILED", flush=True)
            continue
        for row in found:
            ROWS.append(arguments.results, row | {"cores": os.cpu_count()})
            numbers = [f"{row[n]} {n}" for n in ("wall_ms", "cpu_ms", "rss_mb") if n in row]
            said = f"round {number}  {data} {row['library']}, {row['what']} {row['epoch']}"
            print(f"{said}: {', '.join(numbers)}", flush=True)
        print(f"[{time.perf_counter() - started:.0f} s]", flush=True)
    return failed


# === Results ===
class Found:
    """Rows with some settings; medians over rounds.

    Args:
        rows: List of rows.
        settings: Dict, what the rows must have.
    """

    def __init__(self, rows: list[dict], settings: dict):
        self.rows = [r for r in rows if all(str(r[k]) == str(v) for k, v in settings.items())]

    def __call__(self, column: str, library: str, data: str, what: str, epoch="") -> float | None:
        wanted = {"library": library, "data": data, "what": what, "epoch": str(epoch)}
        values = [
            float(row[column])
            for row in self.rows
            if all(row[name] == value for name, value in wanted.items())
        ]
        return statistics.median(values) if values else None

    def data(self) -> list[str]:
        known = {row["data"] for row in self.rows}
        return [name for name in DATA if name in known]

    def over_training(self, data: str) -> float | None:
        """How many images the input makes in the CPU time in which a step trains one."""
        return over(self("cpu_ms", OURS, data, FIXED), self("cpu_ms", OURS, data, ALONE))

    def share(self, data: str) -> float | None:
        """The input's part of the CPU time of training."""
        times = self.over_training(data)
        return None if times is None else 1.0 / (1.0 + times)

    def added(self, data: str) -> float | None:
        """What the input adds to the CPU time of training, as a part of it: start-up counted."""
        times = over(self("cpu_ms", OURS, data, FIXED), self("cpu_ms", OURS, data, TRAIN))
        return None if times is None else 1.0 - times

    def over_peer(self, data: str, peer: str, what: str = ALONE) -> float | None:
        return over(self("cpu_ms", peer, data, what), self("cpu_ms", OURS, data, what))

    def growth(self, data: str) -> float | None:
        """What the process holds after the last epoch over that after the second."""
        return over(*(self("rss_mb", OURS, data, MEMORY, epoch) for epoch in (EPOCHS, 2)))


def over(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one / other


def said(value: float | None, form: str = "{:.1f}") -> str:
    return "–" if value is None else form.format(value)


def times(value: float | None) -> str:
    return said(value, "{:.1f} ×")


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    line = ["---", *("---:" for _ in header[1:])]
    return [f"| {' | '.join(cells)} |" for cells in (header, line, *rows)]


def rate(milliseconds: float | None) -> str:
    return said(None if milliseconds is None else 1e3 / milliseconds, "{:.0f}")


def alone_table(found: Found) -> list[str]:
    rows = []
    for data in found.data():
        for what in (ALONE, ALL):
            if found("cpu_ms", OURS, data, what) is None:
                continue
            libraries = [OURS, BEST, DOCUMENTED]
            rows.append(
                [
                    f"`{data}`" + (", with distances" if what == ALL else ""),
                    *(rate(found("wall_ms", name, data, what)) for name in libraries),
                    *(said(found("cpu_ms", name, data, what)) for name in libraries),
                    *(times(found.over_peer(data, name, what)) for name in (BEST, DOCUMENTED)),
                ]
            )
    header = ["input alone", "images/s", "keras-cv, best", "as documented", "CPU ms an image"]
    header += ["keras-cv, best", "as documented", "over keras-cv's best", "as documented"]
    return table(header, rows)


def training_table(found: Found) -> list[str]:
    rows = [
        [
            f"`{data}`",
            *(rate(found("wall_ms", OURS, data, what)) for what in (FIXED, TRAIN)),
            rate(found("wall_ms", BEST, data, TRAIN)),
            *(said(found("cpu_ms", OURS, data, what)) for what in (FIXED, TRAIN)),
            said(found("cpu_ms", BEST, data, TRAIN)),
            times(found.over_training(data)),
            said(found.share(data), "{:.1%}"),
            said(found.added(data), "{:.1%}"),
        ]
        for data in found.data()
    ]
    header = ["training", "images/s, one batch", "with our input", "with keras-cv's best"]
    header += ["CPU ms an image, one batch", "with our input", "with keras-cv's best"]
    return table([*header, "input over the step", "input's share of CPU", "as measured"], rows)


def memory_table(found: Found) -> list[str]:
    shown = (1, 2, EPOCHS // 2, EPOCHS)
    rows = [
        [
            f"`{data}`",
            *(said(found("rss_mb", OURS, data, MEMORY, e), "{:.0f} MB") for e in shown),
            said(found("peak_mb", OURS, data, MEMORY, EPOCHS), "{:.0f} MB"),
            said(found.growth(data), "{:.3f}"),
        ]
        for data in found.data()
    ]
    header = ["memory of the process", *(f"epoch {e}" for e in shown), "most"]
    return table([*header, f"epoch {EPOCHS} / 2"], rows)


def encodings(found: Found) -> dict[str, list[float | None]]:
    """CPU time of encoding in ms by task, a number for each size."""
    return {
        task: [
            found("cpu_ms", OURS, f"{OBJECTS} objects, {size} px", f"{ENCODING}, {task}")
            for size in ENCODED_SIZES
        ]
        for task in ("detection", "segmentation", "distance")
    }


def tables(rows: list[dict], settings: dict) -> str:
    """What stands in docs/data.md between the markers."""
    found = Found(rows, settings)
    if not found.rows:
        sys.exit(f"nothing has been measured with {settings}")
    cores, versions = (
        " or ".join(sorted({r[n] for r in found.rows})) for n in ("cores", "versions")
    )
    encoded = [
        [task, *(said(value, "{:.2f} ms") for value in values)]
        for task, values in encodings(found).items()
    ]
    text = [
        f"{settings['size']} × {settings['size']} pixels, batches of {settings['batch']}, {cores} "
        f"CPU cores ({versions}); × is a ratio of CPU times. Decode, augment, and encode "
        "for detection and segmentation:",
        "",
        *alone_table(found),
        "",
        'While EfficientNet-Lite0 trains with AdamW; "one batch" is the step without any input:',
        "",
        *training_table(found),
        "",
        *memory_table(found),
        "",
        *table([f"encode {OBJECTS} objects", *(f"{size} px" for size in ENCODED_SIZES)], encoded),
    ]
    return "\n".join(text) + "\n"


def verdicts(rows: list[dict], settings: dict) -> list[str]:
    """Says of each target whether it is met, and of what not."""
    found = Found(rows, settings)
    lines = []

    def say(target: str, values: dict[str, float | None], limit: float, least: bool) -> None:
        known = {name: value for name, value in values.items() if value is not None}
        if not known:
            return
        bad = {n: v for n, v in known.items() if (v < limit if least else v > limit)}
        verdict = "met" if not bad else f"MISSED by {len(bad)} of {len(known)}"
        worst = (min if least else max)(known, key=known.get)
        sign = ">=" if least else "<="
        lines.append(f"{target} {sign} {limit}: {verdict}; worst: {known[worst]:.3g}, {worst}")
        lines.extend(f"    {name}: {value:.3g}" for name, value in sorted(bad.items()))

    sets = found.data()
    ahead = {d: found.over_training(d) for d in sets}
    say("input over the training step", ahead, LEAST_TRAINING, True)
    say("input's share of CPU", {d: found.share(d) for d in sets}, MOST_SHARE, False)
    added = {d: found.added(d) for d in sets}
    say("what input adds to the CPU of training", added, MOST_SHARE, False)
    for peer in (BEST, DOCUMENTED):
        say(f"input over {peer}", {d: found.over_peer(d, peer) for d in sets}, LEAST_PEER, True)
    say("memory, last epoch over second", {d: found.growth(d) for d in sets}, MOST_GROWTH, False)
    encoded = {
        f"{task}, {size} px": value
        for task, values in encodings(found).items()
        for size, value in zip(ENCODED_SIZES, values, strict=True)
    }
    say(f"ms of encoding {OBJECTS} objects", encoded, MOST_ENCODING, False)
    return lines


# === Program ===
def parse(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=",".join(DATA), help="names of sets, with commas between")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch")
    parser.add_argument("--images", type=int, default=160, help="images of a turn of input alone")
    parser.add_argument("--trained", type=int, default=32, help="images of a turn of training")
    parser.add_argument("--turns", type=int, default=2, help="turns of a process")
    parser.add_argument("--rounds", type=int, default=1, help="processes for each pipeline")
    parser.add_argument("--peer-python", help="interpreter that has keras-cv too")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="CSV of the rows")
    parser.add_argument("--write", action="store_true", help=f"write the tables into {PAGE.name}")
    arguments = parser.parse_args(given)
    arguments.data = [name for name in arguments.data.split(",") if name]
    if unknown := set(arguments.data) - set(DATA):
        parser.error(f"--data has the unknown {sorted(unknown)}; the sets are {list(DATA)}")
    if min(arguments.turns, arguments.rounds) < 1:
        parser.error("--turns and --rounds must be at least 1")
    if arguments.trained % arguments.batch:
        parser.error("--trained must be a multiple of --batch, for batches of one size")
    if arguments.write and not PAGE.exists():
        parser.error(f"--write needs {PAGE}, which does not exist")
    return arguments


def main(given: list[str] | None = None) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    arguments = parse(given)
    failed = run(arguments)
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    rows = ROWS.read(arguments.results)
    if rows or arguments.write:
        text = tables(rows, settings)
        print(f"\n{text}")
        print("\n".join(verdicts(rows, settings)))
        if arguments.write:
            PAGE.write_text(kept.between(PAGE.read_text("utf-8"), MARKER, text), encoding="utf-8")
    for name, error in failed.items():
        print(f"FAILED: {name}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
