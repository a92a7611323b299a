"""How much longer than Keras itself mtl_keras takes to import.

Command: python benchmarks/import_time.py        (about a minute on two idle cores)
Expected: both ratios at most 1.10

Each import runs in a new process; the imports take turns, so that other work on the machine
disturbs them alike, and the best time of each counts.
"""

import argparse
import os
import subprocess
import sys
import time

CODES = {
    "import keras": "import keras",
    "import mtl_keras.zoo": "import mtl_keras.zoo",
    "import mtl_keras.training": "import mtl_keras.training",
}


def measure(code: str) -> float:
    started = time.perf_counter()
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    times = {name: [] for name in CODES}
    for code in CODES.values():
        measure(code)  # fills the caches
    for _ in range(repeats):
        for name, code in CODES.items():
            times[name].append(measure(code))
    keras = min(times["import keras"])
    for name, measured in times.items():
        print(f"{name:28} {min(measured):6.2f} s   {min(measured) / keras:.3f} x import keras")
