"""What balancing costs: training step and peak memory over plain training; the libraries beside.

Command: python benchmarks/balancing_cost.py --write
         python benchmarks/balancing_cost.py --write --peer-python PYTHON
         (PYTHON: an interpreter with torch, LibMTL and torchjd[full]; measures them too)
         python benchmarks/balancing_cost.py --rounds 0 --write    (tables only)
Time:    about half an hour on two idle cores; an interrupted run goes on where it was
Expected: with three tasks every method takes at most 2.0 times a plain step at the parameters and
         1.15 times at the features, and 1.3 times the memory; a smaller share and fewer
         milliseconds than TorchJD and LibMTL with the same method. The script says what is met.

Plain training adds the losses up (`balancing=None`). Each method is measured at the parameters
("exact") and, where it can be, at the features; loss weightings have neither. The network is
EfficientNet-Lite0, shared hard, trained with AdamW. Two tasks are detection and segmentation, the
third segments a few classes, the fourth two, and all others are classifications.

Time. A process holds plain training and some methods, each a model of its own. Two or three
processes get ready at once, then take turns, and in a turn each model makes some steps, so that a
method and the plain training beside it run in the same minutes. A number is the median of all
steps of all turns; a ratio is of two numbers of one process, then the median over rounds.

Memory. It is the most that the allocator of TensorFlow had given out during a step, less what it
had given out before the model was made: weights, state of the optimizer and of the method,
activations and gradients, not the graph. The process itself can't be asked for each method: that
allocator keeps what it freed. For a few ways, "process" is what a process of their own held at
most (`VmHWM`), graph and code of the step counted, less what it held when all was imported. The
libraries' memory is that of the process, set back before each step (Linux's `clear_refs`), less
what it was before the network was made: its ratio can be compared, not its bytes.

Solver. The time of a call of the method alone, from losses or scalar products of gradients to
weights; methods that need the gradients themselves have none.

The comparison with libraries is of ResNet-18 with three classifiers on all sides, with Adam, on
the CPU; see balancing_cost_peers.py for how they are called, and in which ways. Our trunk
normalises images itself, and our step leaves a batch that is not finite out.

Each measurement is a row of results/balancing_cost.csv. Rows are kept: delete the file (or rows)
to measure again, e.g. on another machine.
"""

import argparse
import itertools
import os
import pathlib
import statistics
import sys
import tempfile
import time

import rows as kept
from conversation import Conversation

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "balancing_cost.csv"
PAGE = ROOT / "docs" / "balancing.md"
MARKER = "balancing_cost"
OURS, TORCHJD, LIBMTL = "mtl_keras", "TorchJD", "LibMTL"
LITE, RESNET = "efficientnet_lite0", "resnet18"
PLAIN, LOSSES, EXACT, FEATURES = "plain", "losses", "parameters", "features"
ONE_BY_ONE = "one by one"
BY_TASKS = (
    "equal",
    "uncertainty",
    "famo",
    "mgda",
    "pcgrad",
    "nash_mtl",
    "upgrad",
    "cagrad",
    "aligned_mtl",
    "moco",
)
OF_PROCESS = (
    (PLAIN, PLAIN),
    ("equal", LOSSES),
    ("mgda", EXACT),
    ("mgda", FEATURES),
    ("moco", EXACT),
)
COMPARED = (
    "mgda",
    "upgrad",
    "pcgrad",
    "cagrad",
    "nash_mtl",
    "aligned_mtl",
    "imtl_g",
    "config",
    "dual_proj",
    "fairgrad",
    "gradvac",
    "graddrop",
)
# The modes in which the libraries have a method.
PEERS = {
    TORCHJD: {
        **{name: (EXACT, ONE_BY_ONE) for name in COMPARED if name != "graddrop"},
        "mgda": (EXACT, ONE_BY_ONE, FEATURES),
        "upgrad": (EXACT, ONE_BY_ONE, "gramian", "autogram", FEATURES),
    },
    LIBMTL: {
        "mgda": (EXACT, FEATURES),
        "imtl_g": (EXACT, FEATURES),
        **{name: (EXACT,) for name in ("pcgrad", "gradvac", "cagrad")},
        "graddrop": (FEATURES,),
    },
}
METHODS, PROCESS, LIBRARIES = "methods", "process", "libraries"
COMPARED_TASKS = 3
MOST = {EXACT: 2.0, FEATURES: 1.15, "memory": 1.3}
GROUP = 8  # Ways in one process, beside plain.
LIBRARY_GROUP = 4  # Methods in the processes of the libraries, in all their modes.
SETTINGS = ("size", "batch", "turns", "steps")
KEY = ("part", "library", "tasks", "method", "mode", *SETTINGS, "round")
ROWS = kept.Rows(
    KEY,
    (
        "step_ms",
        "plain_ms",
        "memory_mb",
        "plain_memory_mb",
        "solver_us",
        "cores",
        "versions",
    ),
)


# === Rows ===
def number(row: dict, name: str) -> float | None:
    return float(row[name]) if row.get(name) else None


# === What to measure ===
def modes(method: str) -> tuple[str, ...]:
    """The modes that one of our methods has."""
    import mtl_keras as mtl

    made = mtl.balancing.get(method, **({"task_weights": [1.0]} if method == "fixed" else {}))
    if isinstance(made, mtl.balancing.LossWeighting):
        return (LOSSES,)
    if isinstance(made, mtl.balancing.SizedGradientMethod):
        return (EXACT,)
    return (EXACT, FEATURES)


def jobs(arguments: argparse.Namespace) -> list[dict]:
    """Everything to be measured, a dict for each row; plain training is measured beside it."""
    found = []
    known = {method: modes(method) for method in arguments.methods}

    def add(part: str, library: str, tasks: int, method: str, mode: str, number: int) -> None:
        settings = {name: getattr(arguments, name) for name in SETTINGS}
        found.append(
            {"part": part, "library": library, "tasks": tasks, "method": method, "mode": mode}
            | settings
            | {"round": number}
        )

    for number in range(1, arguments.rounds + 1):
        for part, tasks in arguments.order:
            if part == METHODS:
                for method in arguments.methods:
                    if tasks == COMPARED_TASKS or method in BY_TASKS:
                        for mode in known[method]:
                            add(part, OURS, tasks, method, mode, number)
            elif part == PROCESS:
                for method, mode in OF_PROCESS:
                    add(part, OURS, tasks, method, mode, number)
            elif arguments.peer_python:
                for method in COMPARED:
                    if method in known:
                        for mode in known[method]:
                            add(part, OURS, tasks, method, mode, number)
                        for library, of in PEERS.items():
                            for mode in of.get(method, ()):
                                add(part, library, tasks, method, mode, number)
    return found


def sessions(found: list[dict]) -> list[list[list[dict]]]:
    """Lists of processes, each a list of jobs, that live at once and take turns."""
    result = []
    for _, several in itertools.groupby(found, lambda job: (job["round"], job["part"])):
        several = list(several)
        if several[0]["part"] == LIBRARIES:
            methods = list(dict.fromkeys(job["method"] for job in several))
            count = -(-len(methods) // LIBRARY_GROUP)
            for at in range(count):
                own = [job for job in several if job["method"] in methods[at::count]]
                by_library: dict[str, list] = {}
                for job in own:
                    by_library.setdefault(job["library"], []).append(job)
                result.append(list(by_library.values()))
            continue
        processes = []
        most = 1 if several[0]["part"] == PROCESS else GROUP
        for _, same in itertools.groupby(several, lambda job: job["tasks"]):
            same = list(same)
            count = -(-len(same) // most)
            # As large as each other, and with as many slow ways.
            processes += [same[i::count] for i in range(count)]
        result += [processes[at : at + 2] for at in range(0, len(processes), 2)]
    return result


# === Measuring ===
class Process(Conversation):
    """A process that measures some jobs, which balancing_cost_worker.py is.

    Args:
        jobs: List of jobs of one part, library and number of tasks.
        arguments: Those of the program.
        errors: Path of the file for what it prints.
    """

    def __init__(self, jobs: list[dict], arguments: argparse.Namespace, errors: pathlib.Path):
        self.jobs = jobs
        first = jobs[0]
        self.part, ours = first["part"], first["library"] == OURS
        ways = [(job["method"], job["mode"]) for job in jobs]
        if self.part != PROCESS:
            ways.insert(0, (PLAIN, PLAIN))
        spec = {
            "library": first["library"],
            "network": RESNET if self.part == LIBRARIES else LITE,
            "optimizer": "adam" if self.part == LIBRARIES else "adamw",
            "tasks": first["tasks"],
            "size": first["size"],
            "batch": first["batch"],
            "steps": first["steps"],
            "solver": self.part == METHODS and first["tasks"] == COMPARED_TASKS,
            "ways": [{"name": named(m, mode), "method": m, "mode": mode} for m, mode in ways],
        }
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
        if ours:
            paths = [str(ROOT), *(path for path in [environment.get("PYTHONPATH")] if path)]
            environment |= {"KERAS_BACKEND": "tensorflow", "PYTHONPATH": os.pathsep.join(paths)}
        else:
            environment.pop("PYTHONPATH", None)  # Not this interpreter's packages.
        python = sys.executable if ours else arguments.peer_python
        worker = str(ROOT / "benchmarks" / "balancing_cost_worker.py")
        super().__init__([python, worker], environment, errors)
        self.times: dict[str, list[float]] = {}
        self.send(spec)

    def wait(self) -> None:
        """Waits until it has all ready."""
        self.ready = self.answer()
        self.failed = self.ready["errors"]

    def turn(self, counts: bool = True) -> None:
        """Lets it make the steps of a turn, or one step that does not count."""
        self.send("turn" if counts else "wake")
        answer = self.answer()
        self.failed = answer["errors"]
        if not counts:
            return
        for name, times in answer["times"].items():
            self.times.setdefault(name, []).extend(times)

    def rows(self) -> list[dict]:
        return [
            row_of(job, self.ready, self.times)
            for job in self.jobs
            if named(job["method"], job["mode"]) not in self.failed
            and named(PLAIN, PLAIN) not in self.failed
        ]


def named(method: str, mode: str) -> str:
    return method if method == PLAIN else f"{method} ({mode})"


def row_of(job: dict, ready: dict, times: dict[str, list[float]]) -> dict:
    row = {**job, "cores": os.cpu_count(), "versions": ready["versions"]}
    if job["part"] == PROCESS:
        return {**row, "memory_mb": f"{ready['process'] / 1e6:.1f}"}
    name = named(job["method"], job["mode"])
    known, plain = ready["ready"][name], ready["ready"][PLAIN]
    values = {
        "step_ms": (statistics.median(times[name]), 1e3, 2),
        "plain_ms": (statistics.median(times[PLAIN]), 1e3, 2),
        "memory_mb": (known.get("memory"), 1e-6, 1),
        "plain_memory_mb": (plain.get("memory"), 1e-6, 1),
        "solver_us": (known.get("solver"), 1e6, 0),
    }
    return row | {
        column: f"{value * scale:.{digits}f}"
        for column, (value, scale, digits) in values.items()
        if value is not None
    }


def measure(
    session: list[list[dict]], arguments: argparse.Namespace, folder: pathlib.Path
) -> tuple:
    """Measures the jobs of a session. Returns rows, and errors by what failed."""
    processes: list[Process] = []
    failed: dict[str, str] = {}
    try:
        for i, own in enumerate(session):
            processes.append(Process(own, arguments, folder / f"errors{i}.txt"))
        going = []
        for process in processes:
            try:
                process.wait()
                going.append(process)
            except RuntimeError as error:
                failed |= {label(job): str(error) for job in process.jobs}
        for number in range(arguments.turns + 1):
            for process in [p for p in going if p.part != PROCESS]:
                try:
                    # Of one that waited for the others, the system may have taken memory away.
                    process.turn(counts=number > 0)
                except RuntimeError as error:
                    going.remove(process)
                    failed |= {label(job): str(error) for job in process.jobs}
        rows = [row for process in going for row in process.rows()]
        for process in going:
            for job in process.jobs:
                for name in (named(job["method"], job["mode"]), PLAIN):
                    if name in process.failed:
                        failed[label(job)] = process.failed[name]
    finally:
        for process in processes:
            process.end()
    return rows, failed


def label(job: dict) -> str:
    name = named(job["method"], job["mode"])
    return f"{name}, {job['tasks']} tasks ({job['part']}, {job['library']})"


def run(arguments: argparse.Namespace) -> dict[str, str]:
    """Measures what has no row yet. Returns the errors by what failed; it is not tried again."""
    done = {ROWS.key(row) for row in ROWS.read(arguments.results)}
    failed: dict[str, str] = {}
    missing = [job for job in jobs(arguments) if ROWS.key(job) not in done]
    for session in sessions(missing):
        session = [[job for job in own if label(job) not in failed] for own in session]
        session = [own for own in session if own]
        if not session:
            continue
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            rows, errors = measure(session, arguments, pathlib.Path(folder))
        failed |= errors
        for row in rows:
            ROWS.append(arguments.results, row)
            said = [f"round {row['round']}  {label(row)}:"]
            if row.get("step_ms"):
                said.append(f"{row['step_ms']} ms, {times_of([row])[0]:.2f} x plain;")
            said.append(f"{row.get('memory_mb', '?')} MB")
            print(" ".join(said), flush=True)
        for name in errors:
            print(f"{name}: FAILED", flush=True)
        print(f"[{time.perf_counter() - started:.0f} s]", flush=True)
    return failed


# === Results ===
def times_of(rows: list[dict]) -> tuple[float, float]:
    """The step over plain and in milliseconds, medians over rows."""
    steps = [float(row["step_ms"]) for row in rows]
    ratios = [float(row["step_ms"]) / float(row["plain_ms"]) for row in rows]
    return statistics.median(ratios), statistics.median(steps)


def memory_of(rows: list[dict]) -> tuple[float, float] | None:
    """The memory over plain and in megabytes, medians over rows; `None` where it is not known."""
    known = [row for row in rows if row["memory_mb"] and row["plain_memory_mb"]]
    if not known:
        return None
    ratios = [float(row["memory_mb"]) / float(row["plain_memory_mb"]) for row in known]
    return statistics.median(ratios), statistics.median(float(r["memory_mb"]) for r in known)


class Found:
    """Rows with some settings, all rounds of one way together.

    Args:
        rows: List of rows.
        settings: Dict, what the rows must have.
    """

    def __init__(self, rows: list[dict], settings: dict):
        self.rows = [r for r in rows if all(str(r[k]) == str(v) for k, v in settings.items())]

    def __call__(self, part: str, **wanted) -> dict[tuple[str, str], list[dict]]:
        """Returns rows by method and mode."""
        result: dict[tuple[str, str], list[dict]] = {}
        wanted["part"] = part
        for row in self.rows:
            if all(str(row[name]) == str(value) for name, value in wanted.items()):
                result.setdefault((row["method"], row["mode"]), []).append(row)
        return result

    def described(self, part: str, libraries: tuple[str, ...]) -> str:
        """The cores and versions with which rows were measured: one machine, or all that were."""
        rows = [r for r in self.rows if r["part"] == part and r["library"] in libraries]
        cores, versions = (" or ".join(sorted({r[n] for r in rows})) for n in ("cores", "versions"))
        return f"{cores} CPU cores ({versions})"


def times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} ×"


def methods_table(found: dict) -> list[str]:
    rows = []
    for method in sorted({method for method, _ in found}):
        exact = found.get((method, LOSSES)) or found.get((method, EXACT))
        features = found.get((method, FEATURES))
        solver = [number(row, "solver_us") for row in exact or [] if row["solver_us"]]
        memory = [memory_of(own) if own else None for own in (exact, features)]
        rows.append(
            [
                f"`{method}`",
                "losses" if (method, LOSSES) in found else "gradients",
                *(times(times_of(own)[0] if own else None) for own in (exact, features)),
                *(times(of[0] if of else None) for of in memory),
                f"{statistics.median(solver) / 1e3:.2f} ms" if solver else "–",
            ]
        )
    return kept.table(
        [
            "method",
            "of",
            "step",
            "step, `features`",
            "memory",
            "memory, `features`",
            "solver",
        ],
        rows,
    )


def tasks_table(by_tasks: dict[int, dict]) -> list[str]:
    ways = {way for count, found in by_tasks.items() if count != COMPARED_TASKS for way in found}
    rows = []
    for method, mode in sorted(ways):
        cells = [f"`{method}`" + (f", `{mode}`" if mode != LOSSES else "")]
        for own in (found.get((method, mode)) for found in by_tasks.values()):
            cells.append(times(times_of(own)[0] if own else None))
        for own in (found.get((method, mode)) for found in by_tasks.values()):
            memory = memory_of(own) if own else None
            cells.append(times(memory[0] if memory else None))
        rows.append(cells)
    header = ["method", *(f"step, {n} tasks" for n in by_tasks)]
    return kept.table([*header, *(f"memory, {n} tasks" for n in by_tasks)], rows) if rows else []


def process_table(found: dict, beside: dict) -> list[str]:
    plain = found.get((PLAIN, PLAIN))
    if not plain:
        return []
    by_round = {row["round"]: float(row["memory_mb"]) for row in plain}
    rows = []
    for (method, mode), own in found.items():
        ratios = [
            float(r["memory_mb"]) / by_round[r["round"]] for r in own if r["round"] in by_round
        ]
        allocated = memory_of(beside.get((method, mode), []))
        rows.append(
            [
                f"`{method}`" + (f", `{mode}`" if mode in (EXACT, FEATURES) else ""),
                f"{statistics.median(float(r['memory_mb']) for r in own):.0f} MB",
                times(statistics.median(ratios) if ratios else None),
                times(allocated[0] if allocated else None),
            ]
        )
    return kept.table(["way", "process", "over plain", "tensors over plain"], rows)


def columns(found: Found) -> dict[str, dict[str, list[dict]]]:
    """Rows by column of the libraries' table and method."""
    result: dict[str, dict[str, list[dict]]] = {}
    for library in (OURS, TORCHJD, LIBMTL):
        of = found(LIBRARIES, library=library)
        for mode in dict.fromkeys(mode for _, mode in of):
            result[f"{library}, {mode}"] = {m: own for (m, its), own in of.items() if its == mode}
    return result


def libraries_tables(found: Found) -> list[str]:
    by_column = columns(found)
    methods = [m for m in COMPARED if any(m in own for own in by_column.values())]
    if not methods or len({name.split(",")[0] for name in by_column}) < 2:
        return []

    def time_cell(rows: list[dict] | None) -> str:
        if not rows:
            return "–"
        over, milliseconds = times_of(rows)
        return f"{milliseconds:.0f} ms, {times(over)}"

    def memory_cell(rows: list[dict] | None) -> str:
        memory = memory_of(rows) if rows else None
        return times(memory[0] if memory else None)

    text = []
    for what, cell in (("training step", time_cell), ("memory over plain", memory_cell)):
        rows = [[f"`{m}`", *(cell(own.get(m)) for own in by_column.values())] for m in methods]
        text += ["", *kept.table([what, *by_column], rows)]
    return text


def plain_of(rows: list[dict], name: str) -> str:
    values = [number(row, name) for row in rows if row.get(name)]
    return f"{statistics.median(values):.0f}" if values else "?"


def tables(rows: list[dict], settings: dict) -> str:
    """What stands in docs/balancing.md between the markers."""
    found = Found(rows, settings)
    size, batch = settings["size"], settings["batch"]
    sizes = f"{size} × {size} pixels, batches of {batch}"
    three = found(METHODS, tasks=COMPARED_TASKS)
    text = []
    if three:
        flat = [row for own in three.values() for row in own]
        text += [
            f"EfficientNet-Lite0, {COMPARED_TASKS} tasks, {sizes}, AdamW, "
            f"{found.described(METHODS, (OURS,))}; × is over plain training, which takes "
            f"{plain_of(flat, 'plain_ms')} ms a step and {plain_of(flat, 'plain_memory_mb')} MB of "
            "tensors. `solver` is the time of the method itself, without gradients:",
            "",
            *methods_table(three),
        ]
    counts = sorted({int(r["tasks"]) for r in found.rows if r["part"] == METHODS})
    if second := tasks_table({count: found(METHODS, tasks=count) for count in counts}):
        text += ["", "By the number of tasks:", "", *second]
    if third := process_table(found(PROCESS, tasks=COMPARED_TASKS), three):
        text += ["", "Memory of the whole process, beside that of the tensors alone:", "", *third]
    if fourth := libraries_tables(found):
        peers = found.described(LIBRARIES, (TORCHJD, LIBMTL))
        text += [
            "",
            f"ResNet-18 with {COMPARED_TASKS} classifiers, {sizes}, Adam, {peers}; × is over plain "
            "training of the same library. TorchJD's `parameters` is as its documentation writes "
            "it, `one by one` without `torch.vmap`:",
            *fourth,
        ]
    if not text:
        sys.exit(f"nothing has been measured with {settings}")
    return "\n".join(text) + "\n"


def verdicts(rows: list[dict], settings: dict) -> list[str]:
    """Says of each target whether it is met, and of what not."""
    found = Found(rows, settings)
    three = found(METHODS, tasks=COMPARED_TASKS)
    lines = []

    def say(target: str, values: dict[str, float], most: float) -> None:
        if not values:
            return
        over = {name: value for name, value in values.items() if value > most}
        worst = max(values, key=values.get)
        verdict = "met" if not over else f"MISSED by {len(over)} of {len(values)}"
        lines.append(f"{target} <= {most}: {verdict}; most: {values[worst]:.2f}, {worst}")
        lines.extend(f"    {name}: {value:.2f}" for name, value in sorted(over.items()))

    for mode in (LOSSES, EXACT, FEATURES):
        own = {m: times_of(own)[0] for (m, its), own in three.items() if its == mode}
        say(f"step over plain, {mode}", own, MOST.get(mode, MOST[FEATURES]))
    memory = {named(*way): memory_of(own) for way, own in three.items()}
    say("memory over plain", {n: of[0] for n, of in memory.items() if of}, MOST["memory"])
    ours = found(LIBRARIES, library=OURS)
    for library in (TORCHJD, LIBMTL):
        theirs = found(LIBRARIES, library=library)
        for mode in (EXACT, FEATURES):
            beside: dict[str, tuple[list, list]] = {}
            for method in {m for m, its in ours if its == mode}:
                own = [rows for (m, its), rows in theirs.items() if m == method]
                exact = [r for (m, its), r in theirs.items() if m == method and its != FEATURES]
                same = [theirs[method, FEATURES]] if (method, FEATURES) in theirs else own
                if best := (exact if mode == EXACT else same):
                    beside[method] = (ours[method, mode], best)
            for at, what in ((0, "over plain"), (1, "in ms")):
                values = {
                    method: times_of(one)[at] / min(times_of(other)[at] for other in best)
                    for method, (one, best) in beside.items()
                }
                say(f"step {what}, {mode}, ours over {library}'s best", values, 1.0)
    return lines


# === Program ===
def parse(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", help="names, with commas between; all registered by default")
    parser.add_argument("--tasks", default="3,2,5", help="numbers of tasks, with commas between")
    parser.add_argument("--parts", default=f"{METHODS},{PROCESS},{LIBRARIES}", help="what of it")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels")
    parser.add_argument("--batch", type=int, default=8, help="images in a training step")
    parser.add_argument("--turns", type=int, default=3, help="turns of a process")
    parser.add_argument("--steps", type=int, default=2, help="training steps of a way in a turn")
    parser.add_argument("--rounds", type=int, default=1, help="processes for each way")
    parser.add_argument("--peer-python", help="interpreter with torch, LibMTL and torchjd[full]")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="CSV of the rows")
    parser.add_argument("--write", action="store_true", help=f"write the tables into {PAGE.name}")
    arguments = parser.parse_args(given)
    if arguments.rounds and not (arguments.turns > 0 and arguments.steps > 0):
        parser.error("--turns and --steps must be at least 1")
    if arguments.write and not PAGE.exists():
        parser.error(f"--write needs {PAGE}, which does not exist")
    import mtl_keras as mtl

    if arguments.methods is None:
        arguments.methods = mtl.balancing.names()
    else:
        arguments.methods = [name for name in arguments.methods.split(",") if name]
    parts = [part for part in arguments.parts.split(",") if part]
    if unknown := set(parts) - {METHODS, PROCESS, LIBRARIES}:
        parser.error(f"--parts has the unknown {sorted(unknown)}")
    counts = [int(count) for count in arguments.tasks.split(",") if count]
    # What matters most comes first.
    order = [(METHODS, COMPARED_TASKS)] if COMPARED_TASKS in counts else []
    order += [(LIBRARIES, COMPARED_TASKS), (PROCESS, COMPARED_TASKS)]
    order += [(METHODS, count) for count in counts if count != COMPARED_TASKS]
    arguments.order = [(part, count) for part, count in order if part in parts]
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
