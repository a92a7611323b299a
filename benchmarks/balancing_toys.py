"""Every balancing method on problems with known Pareto sets: does it reach the set?

Command: python benchmarks/balancing_toys.py --write
         python benchmarks/balancing_toys.py --methods mgda,nash_mtl     (these alone)
Time:    23 minutes of one busy core, six of them CAGrad's; an interrupted run goes on where it
         was
Expected: on bowls, every method reaches the Pareto set from every start, but for those that
         tests/balancing/test_toy_problems.py names, with the reason. In the valley, MGDA, PCGrad,
         CAGrad, Nash-MTL and FAMO do, and equal weights stay in the gorges from two starts.

Problems (toy_problems.py):

- valley: the two losses of CAGrad's paper, with two narrow gorges in which descent gets stuck,
  from Nash-MTL's five starts; Adam with the papers' rate of 1e-3, 100,000 steps as in CAGrad's.
- valley_scaled: the same with the first loss times 0.1, Nash-MTL's version.
- pair, uneven, three: bowls of five parameters; in `uneven` the second loss is times 1000. Adam
  with a rate that falls from 0.05 to 0 along a cosine, 4,000 steps.

Every method has its default arguments, but FAMO in the valley a decay of 0: its authors' script
for it says "we need to use a very small gamma as the objective is not changing". Training ends
early when the point was near the Pareto set at four epochs in a row. `distance` is that to the
set; `reached`, whether it is at most 0.05 in the valley and 0.01 on bowls. `stationarity` is the
length of the shortest vector in the convex hull of the (unscaled) gradients over that of the
longest gradient. `losses` are as methods see them: in the valley with 21 added, so that all are
positive.

A row of results/balancing_toys.csv is one training, appended as soon as it is over; delete rows
to train again. `--write` draws results/balancing_toys.png from the rows.
"""

import argparse
import dataclasses
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import rows as kept
import toy_problems as toys

import mtl_keras as mtl
from mtl_keras.balancing import LossWeighting

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ROWS = kept.Rows(
    ("method", "problem", "start"),
    ("losses", "distance", "stationarity", "steps", "reached", "path"),
)
PATIENCE = 4


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a problem is trained, and when its Pareto set counts as reached."""

    optimizer: Callable[[], keras.optimizers.Optimizer]
    steps: int
    epoch: int
    near: float
    arguments: dict[str, dict] = dataclasses.field(default_factory=dict)


def _falling_adam() -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.05, BOWLS.steps))


VALLEY = Setting(lambda: keras.optimizers.Adam(1e-3), 100_000, 250, 0.05, {"famo": {"decay": 0.0}})
BOWLS = Setting(_falling_adam, 4_000, 50, 0.01)
# Problems that differ in their scales alone stand together: their graph is made once.
FAMILIES = (
    (VALLEY, (toys.Valley("valley"), toys.Valley("valley_scaled", (0.1, 1.0)))),
    (BOWLS, (toys.Quadratics("pair", (1, 1)), toys.Quadratics("uneven", (1, 1e3)))),
    (BOWLS, (toys.Quadratics("three", (1, 1, 1), seed=1),)),
)
PROBLEMS = {problem.name: problem for _, problems in FAMILIES for problem in problems}


# === Rows ===
def written(point: Any) -> str:
    return " ".join(f"{value:.3g}" for value in point)


def thinned(path: np.ndarray, off: float = 0.02) -> np.ndarray:
    """Leaves points out from which the line through the others is at most `off` away."""
    if len(path) < 3:
        return path
    first, way = path[0], path[-1] - path[0]
    along = np.clip((path - first) @ way / max(way @ way, 1e-12), 0.0, 1.0)
    away = np.linalg.norm(path - first - along[:, None] * way, axis=1)
    worst = int(np.argmax(away))
    if away[worst] <= off:
        return path[[0, -1]]
    return np.concatenate([thinned(path[: worst + 1], off)[:-1], thinned(path[worst:], off)])


# === Training ===
def train(trainer: toys.Trainer, problem: toys.Problem, start: tuple, setting: Setting) -> dict:
    def near(theta: np.ndarray) -> bool:
        return problem.stationarity(theta) <= 0.1 and problem.distance(theta) <= setting.near

    path = trainer.run(start, setting.steps, setting.epoch, problem.scales, near, PATIENCE)
    losses, _ = problem.losses_and_gradients(path[-1].astype("float64"))
    distance = problem.distance(path[-1])
    return {
        "problem": problem.name,
        "start": written(start),
        "losses": " ".join(f"{value:.6g}" for value in keras.ops.convert_to_numpy(losses)),
        "distance": f"{distance:.2e}",
        "stationarity": f"{problem.stationarity(path[-1]):.2e}",
        "steps": min(setting.epoch * (len(path) - 1), setting.steps),
        "reached": distance <= setting.near,
        "path": ";".join(f"{x:.2f} {y:.2f}" for x, y in thinned(path)) if problem.size == 2 else "",
    }


def run(methods: list[str], path: pathlib.Path, families: Any = FAMILIES) -> None:
    """Trains what has no row yet."""
    for method in methods:
        for setting, problems in families:
            done = {ROWS.key(row) for row in ROWS.read(path)}
            jobs = [
                (problem, start)
                for problem in problems
                for start in problem.starts
                if (method, problem.name, written(start)) not in done
            ]
            if not jobs:
                continue
            began = time.process_time()
            given = setting.arguments.get(method, {})
            made = toys.make(method, len(problems[0].tasks), **given)
            trainer = toys.Trainer(made, problems[0], setting.optimizer())
            for problem, start in jobs:
                ROWS.append(path, {"method": method, **train(trainer, problem, start, setting)})
            took = time.process_time() - began
            names = ", ".join(dict.fromkeys(problem.name for problem, _ in jobs))
            print(f"{method}: {names}   [{took:.0f} s of CPU]", flush=True)


# === Table and picture ===
COLUMNS = 5
# Okabe and Ito's colours, which people with any colour vision tell apart.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7")
PARETO = {"color": "black", "linewidth": 3.0, "alpha": 0.75, "solid_capstyle": "round"}
BEGIN = {"marker": "o", "markersize": 5.5, "markerfacecolor": "white", "markeredgewidth": 1.4}
END = {"marker": "o", "markersize": 5.5, "markeredgecolor": "black", "markeredgewidth": 0.8}
STUCK = {"marker": "X", "markersize": 7.5, "markeredgecolor": "black", "markeredgewidth": 0.9}


def ordered(methods: Any) -> list[str]:
    """Loss weightings first, then gradient methods."""
    return sorted(methods, key=lambda name: (not is_weighting(name), name))


def is_weighting(method: str) -> bool:
    return isinstance(toys.make(method, 2), LossWeighting)


def select(rows: list[dict]) -> dict[str, dict[str, list[dict]]]:
    """Rows by method and problem, of what is registered and asked for today."""
    starts = {name: {written(start) for start in p.starts} for name, p in PROBLEMS.items()}
    found: dict[str, dict[str, list[dict]]] = {}
    for row in {ROWS.key(row): row for row in rows}.values():
        if row["start"] in starts.get(row["problem"], ()):
            found.setdefault(row["method"], {}).setdefault(row["problem"], []).append(row)
    return {name: found[name] for name in ordered(set(found) & set(mtl.balancing.names()))}


def count(rows: list[dict]) -> tuple[int, int]:
    return sum(map(_reached, rows)), len(rows)


def _reached(row: dict) -> bool:
    return row["reached"] == "True"


def table(rows: list[dict]) -> str:
    """Starts from which the Pareto set was reached, steps (median), the largest distance."""
    lines = [f"{'':12}" + "".join(f"{name:>26}" for name in PROBLEMS)]
    lines.append(f"{'':12}" + f"{'reached  steps  distance':>26}" * len(PROBLEMS))
    for method, by_problem in select(rows).items():
        line = f"{method:12}"
        for name in PROBLEMS:
            of = by_problem.get(name, [])
            if of:
                steps = statistics.median(int(row["steps"]) for row in of)
                worst = max(float(row["distance"]) for row in of)
                line += f"{'{} of {}'.format(*count(of)):>9}{steps:>7.0f}{worst:>10.0e}"
            else:
                line += f"{'–':>26}"
        lines.append(line)
    return "\n".join(lines)


def plot(rows: list[dict], path: pathlib.Path) -> None:
    """Draws the ways through the valley: a panel a method, a colour a start."""
    from matplotlib.figure import Figure

    found = {name: of for name, of in select(rows).items() if "valley" in of}
    groups = {
        "Loss weightings": [name for name in found if is_weighting(name)],
        "Gradient methods": [name for name in found if not is_weighting(name)],
    }
    groups = {title: names for title, names in groups.items() if names}
    lines = [-(-len(names) // COLUMNS) for names in groups.values()]
    figure = Figure(
        figsize=(9.2, 0.75 + 0.3 * len(groups) + 1.95 * sum(lines)), layout="constrained", dpi=120
    )
    panels = figure.subplots(sum(lines), COLUMNS, squeeze=False)
    back, first = _contours(), 0
    for (title, names), of_group in zip(groups.items(), lines, strict=True):
        here = panels[first : first + of_group].ravel()
        for axes, name in zip(here, names, strict=False):
            _panel(axes, name, found[name], back)
        for axes in here[len(names) :]:
            axes.set_visible(False)
        here[0].annotate(
            title,
            (0.0, 1.0),
            (0, 19),
            xycoords="axes fraction",
            textcoords="offset points",
            annotation_clip=False,
            fontsize=11,
            fontweight="bold",
        )
        first += of_group
    _legend(figure)
    figure.savefig(path)


def _contours() -> tuple:
    x, y = np.meshgrid(np.linspace(-11.0, 11.0, 221), np.linspace(-11.0, 11.0, 221))
    points = keras.ops.convert_to_tensor(np.stack([x.ravel(), y.ravel()], axis=1))
    losses = keras.ops.vectorized_map(lambda theta: PROBLEMS["valley"].unscaled(theta)[0], points)
    mean = keras.ops.convert_to_numpy(losses).mean(axis=1).reshape(x.shape)
    weights = np.linspace(0.0, 1.0, 101)
    return x, y, mean, PROBLEMS["valley"].pareto(np.stack([weights, 1.0 - weights], axis=1)).T


def _panel(axes: Any, name: str, of: dict[str, list[dict]], back: tuple) -> None:
    x, y, mean, pareto = back
    axes.contourf(x, y, mean, levels=16, cmap="Greys", vmax=2.2 * mean.max())
    axes.contour(x, y, mean, levels=16, colors="white", linewidths=0.5)
    axes.plot(*pareto, **PARETO, zorder=2)
    colors = dict(zip(map(written, PROBLEMS["valley"].starts), COLORS, strict=True))
    for row in of["valley"]:
        color = colors[row["start"]]
        way = np.array([[float(v) for v in p.split(" ")] for p in row["path"].split(";")]).T
        axes.plot(*way, color=color, linewidth=1.5, zorder=3)
        axes.plot(*way[:, 0], color=color, zorder=4, **BEGIN)
        axes.plot(*way[:, -1], color=color, zorder=5, **(END if _reached(row) else STUCK))
    said = "{} of {}".format(*count(of["valley"]))
    if "valley_scaled" in of:
        said += " | {} of {}".format(*count(of["valley_scaled"]))
    axes.set_title(name, loc="left", fontsize=9, pad=3)
    axes.set_title(said, loc="right", fontsize=8, pad=3, color="#444444")
    axes.set(xlim=(-11, 11), ylim=(-11, 11), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_color("#999999")


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color="none", markeredgecolor="#444444", label="start", **BEGIN),
        Line2D([], [], color="none", markerfacecolor="#444444", label="on the Pareto set", **END),
        Line2D([], [], color="none", markerfacecolor="#444444", label="not on it", **STUCK),
        Line2D([], [], label="Pareto set", **PARETO),
    ]
    title = (
        f"CAGrad's two losses of two parameters; Adam, at most {VALLEY.steps:,} steps. Grey: the "
        "mean loss, the darker the higher.\nNumbers: starts from which the Pareto set was reached "
        "| the same with the first loss times 0.1."
    )
    figure.legend(
        handles=handles,
        title=title,
        title_fontsize=8.5,
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=9,
    )


# === Program ===
def parse(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", help="names, with commas between; all registered by default")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--write", action="store_true", help="draw the picture")
    arguments = parser.parse_args(given)
    asked = [name for name in (arguments.methods or "").split(",") if name]
    arguments.methods = asked or mtl.balancing.names()
    return arguments


def main(given: list[str] | None = None) -> int:
    import tensorflow as tf

    arguments = parse(given)
    # Steps are of tiny operations; handing them from thread to thread would double their time.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    path = arguments.out / "balancing_toys.csv"
    run(arguments.methods, path)
    rows = ROWS.read(path)
    print(table(rows))
    if arguments.write:
        plot(rows, arguments.out / "balancing_toys.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
