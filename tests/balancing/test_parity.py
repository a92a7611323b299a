"""Directions are those of TorchJD and LibMTL, where the extra `peers` is installed."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(peer) is None for peer in ("torchjd", "LibMTL")),
    reason="needs the extra 'peers'",
)
def test_directions_are_those_of_the_peers(tmp_path):
    command = [sys.executable, "benchmarks/balancing_parity.py", "--out", str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "TorchJD" in done.stdout and "LibMTL" in done.stdout
