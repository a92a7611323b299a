"""Directions of our gradient methods beside those of TorchJD and LibMTL, on the same gradients.

Command: pip install -e ".[peers]" && python benchmarks/balancing_parity.py
         (or --peer-python PYTHON: an interpreter with torch, LibMTL and torchjd[full])
Time:    about a minute and a half
Expected: where a row has no explanation, the largest relative difference is at most 1e-4; it fails
         where that is not so.

Gradients are random, of 2 to 8 tasks, of even lengths and of lengths over three powers of ten,
with more parameters than tasks ("independent") and with fewer ("dependent"). Where zero is in the
convex hull of the gradients (no direction lowers every loss), methods may end anywhere, and those
cases do not count. Methods with a state see a sequence of gradients. Ours compute in float32, the
peers in float64.

The table goes to results/balancing_parity.csv. A difference is the largest of the direction's
values over its largest value; of the cases of a row, the largest counts.
"""

import argparse
import csv
import itertools
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

import mtl_keras as mtl
from mtl_keras.balancing.quadratic import min_norm_weights

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SHIPPED, EXACT = "as shipped", "exact"
LIMIT = 1e-4
# Methods whose direction with more tasks depends on a random order.
OF_TWO = {"pcgrad", "gradvac"}
ARGUMENTS = {
    ("cagrad", SHIPPED): {"c": 0.4},
    ("cagrad", EXACT): {"c": 0.4},
    ("nash_mtl", SHIPPED): {"max_norm": 1.0},
    ("nash_mtl", EXACT): {"max_norm": None},
    ("fairgrad", SHIPPED): {"alpha": 2.0},
    ("gradvac", SHIPPED): {"beta": 0.5},
    ("excess_mtl", SHIPPED): {"step_size": 0.5},
    ("modo", SHIPPED): {"gamma": 0.1, "rho": 0.1},
}
RIDGE = "The peer adds 1e-4 to the diagonal of the scaled scalar products; the paper does not."
EXPLANATIONS = {
    ("imtl_g", "LibMTL", SHIPPED, "dependent"): (
        "The peer inverts a singular matrix, as the paper's equation is written; ours takes the "
        "pseudo-inverse, as TorchJD does."
    ),
    ("cagrad", "LibMTL", SHIPPED): (
        "The peer divides by 1 + c^2, the authors' default; the paper's algorithm 1 does not."
    ),
    ("cagrad", "TorchJD", SHIPPED): (
        "The tolerance of the peer's solver. The paper's objective, the least gain of a task in "
        "the ball, is at least as large for ours in the cases that differ most."
    ),
    ("dual_proj", "TorchJD", SHIPPED): RIDGE,
    ("upgrad", "TorchJD", SHIPPED): RIDGE,
    ("excess_mtl", "TorchJD", SHIPPED): (
        "The peer adds 1e-7 under the root, as the authors' code, which counts where gradients are "
        "small; the paper does not."
    ),
    ("gradvac", "LibMTL", SHIPPED): (
        "The peer moves the usual cosine only where the cosine is below it; in the paper's "
        "equation 3 it moves in every step, as in ours and TorchJD's."
    ),
    ("mgda", "LibMTL", SHIPPED): (
        "The peer keeps the weights of two tasks within 0.001 and 0.999, and stops where weights "
        "move by less than 1e-5. Ours has the smaller norm, which the paper asks for."
    ),
    ("mgda", "TorchJD", SHIPPED): (
        "The peer stops after 100 steps of Frank-Wolfe, or a step below 0.001. Ours has the "
        "smaller norm, which the paper asks for."
    ),
    ("mgda", "TorchJD", EXACT): "Frank-Wolfe is slow near the end; ours has the smaller norm.",
    ("nash_mtl", "TorchJD", SHIPPED): (
        "The peer's programs stop away from the solution where lengths are uneven: its direction d "
        "misses d = J^T (1 / J d), the paper's equation, by about as much as it differs from ours, "
        "which misses it by less than 1e-6."
    ),
    ("sdmgrad", "TorchJD", SHIPPED): (
        "The peer's weights jump between corners: its rate of 10, the authors', is too large for "
        "gradients at wide angles. With the rate of ours (exact) both are the same."
    ),
}
EXPLANATIONS["cagrad", "TorchJD", EXACT] = EXPLANATIONS["cagrad", "TorchJD", SHIPPED]
EXPLANATIONS["nash_mtl", "TorchJD", EXACT] = EXPLANATIONS["nash_mtl", "TorchJD", SHIPPED]
FIELDS = (
    "method",
    "peer",
    "setting",
    "gradients",
    "cases",
    "largest_difference",
    "explanation",
)


def make_cases() -> dict[str, np.ndarray]:
    """Sequences of gradients by name, without those that hold zero in their convex hull."""
    rng = np.random.default_rng(0)
    found = {}
    kinds = itertools.product((2, 3, 5, 8), ("dependent", "independent"), (0.0, 1.5), range(4))
    for tasks, kind, spread, i in kinds:
        parameters = tasks - 1 if kind == "dependent" else 40
        steps = rng.standard_normal((5, tasks, parameters))
        steps += rng.standard_normal((tasks, parameters))  # steps resemble each other
        if parameters < tasks:
            steps = np.abs(steps)  # zero is outside of the hull
        steps *= 10 ** rng.uniform(-spread, spread, (tasks, 1))
        steps = steps.astype("float32")
        if all(_apart(matrix.astype("float64")) for matrix in steps):
            found[f"{kind},{tasks},{spread},{i}"] = steps
    return found


def _apart(matrix: np.ndarray) -> bool:
    weights = np.asarray(min_norm_weights(matrix @ matrix.T))
    return np.linalg.norm(weights @ matrix) > 1e-3 * np.linalg.norm(matrix, axis=1).min()


def ours(method: str, setting: str, steps: np.ndarray) -> np.ndarray:
    made = mtl.balancing.get(method, **ARGUMENTS.get((method, setting), {}))
    return np.stack([np.asarray(made.aggregate(matrix)) for matrix in steps]).astype("float64")


def compare(cases: dict, directions: dict) -> list[dict]:
    """Makes the rows of the table."""
    found: dict[tuple, list[float]] = {}
    failed: dict[tuple, int] = {}
    computed: dict[tuple, np.ndarray] = {}
    for name, theirs in directions.items():
        method, peer, setting, case = name.split("|")[:4]
        steps = cases[case][: len(theirs)] if theirs.ndim else cases[case]
        if method in OF_TWO and steps.shape[1] > 2:
            continue
        key = (method, peer, setting, case.split(",")[0])
        found.setdefault(key, [])
        if not theirs.ndim:
            failed[key] = failed.get(key, 0) + 1
            continue
        if (method, setting, case) not in computed:
            computed[method, setting, case] = ours(method, setting, steps)
        away = np.abs(computed[method, setting, case] - theirs).max(1) / np.abs(theirs).max(1)
        found[key].append(float(np.nan_to_num(away, nan=np.inf).max()))
    rows = []
    for key, away in sorted(found.items()):
        largest = max(away)
        reason = EXPLANATIONS.get(key, EXPLANATIONS.get(key[:3], "")) if largest > LIMIT else ""
        if key in failed:
            reason = f"The peer fails in {failed[key]} more cases. {reason}"
        values = (*key, len(away), f"{largest:.1e}", reason)
        rows.append(dict(zip(FIELDS, values, strict=True)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter with the peers")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="folder of the table")
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the cases and directions")
    arguments = parser.parse_args()
    cases = make_cases()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or pathlib.Path(temporary)
        source, target = folder / "cases.npz", folder / "directions.npz"
        np.savez(source, **cases)
        worker = ROOT / "benchmarks" / "balancing_peers.py"
        subprocess.run([arguments.peer_python, str(worker), str(source), str(target)], check=True)
        with np.load(target) as directions:
            rows = compare(cases, dict(directions))
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "balancing_parity.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print("  ".join(f"{row[field]!s:11}" for field in FIELDS))
    unexplained = [
        row for row in rows if float(row["largest_difference"]) > LIMIT and not row["explanation"]
    ]
    if unexplained:
        sys.exit(f"{len(unexplained)} rows differ by more than {LIMIT}, unexplained")


if __name__ == "__main__":
    main()
