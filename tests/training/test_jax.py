"""The JAX backend, in a process of its own."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.mark.slow  # XLA on the CPU compiles for minutes.
def test_trains_evaluates_and_predicts_with_jax(tmp_path):
    """Set MTL_KERAS_JAX_PYTHON to the Python of another environment to use its JAX."""
    python = os.environ.get("MTL_KERAS_JAX_PYTHON")
    if python is None and importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed, and MTL_KERAS_JAX_PYTHON names no Python that has it")
    paths = [HERE.parents[1], HERE.parent, HERE.parent / "tasks"]
    done = subprocess.run(
        [python or sys.executable, str(HERE / "jax_run.py"), str(tmp_path)],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
        },
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0 and "jax: all well" in done.stdout, done.stderr[-4000:]
