"""Training on two devices is training on one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(["none"], marks=pytest.mark.slow),
        pytest.param(["uncertainty", "famo", "log_loss"], marks=pytest.mark.slow),
        pytest.param(["moco", "nash_mtl", "gradnorm:features"], marks=pytest.mark.slow),
        pytest.param(["mgda:features", "cagrad:normalized_features"], marks=pytest.mark.slow),
    ],
    ids=lambda cases: cases[0],
)
def test_two_devices_are_one(cases):
    done = subprocess.run(
        [sys.executable, str(HERE / "distributed_run.py"), *cases],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE.parent)]),
            "KERAS_BACKEND": "tensorflow",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "two devices: all well" in done.stdout
