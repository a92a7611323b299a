"""A recipe on two devices is the recipe on one."""

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("case", ["equal", "norm"])
def test_two_devices_are_one(case, tmp_path):
    done = subprocess.run(
        [sys.executable, str(HERE / "devices_run.py"), case, str(tmp_path)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (HERE.parents[1], HERE.parent, HERE))),
            "KERAS_BACKEND": "tensorflow",
        },
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "two devices: all well" in done.stdout
