"""What benchmarks/sharing_cost.py does around the measuring, and one real measurement (slow)."""

import csv
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SETTINGS = {"size": 64, "batch": 2, "steps": 1}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(
        "sharing_cost", ROOT / "benchmarks/sharing_cost.py"
    )
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        spec.loader.exec_module(module)
    return module


def arguments(script, folder, *more):
    given = ["--size", "64", "--batch", "2", "--steps", "1", "--out", str(folder), *more]
    return script.parse(given)


def result(job, slow=1.0):
    """What a process would answer: `mtan` takes twice the time of `hard`, LibMTL twice of that."""
    times = (2 if job["way"] == "mtan" else 1) * slow
    times *= {"mtl_keras": 1, "LibMTL as shipped": 4, "LibMTL at its best": 0.5}[job["library"]]
    return {
        "parameters": 3_000_000,
        "step": 0.1 * times,
        "latency": 0.01 * times,
        "training_memory": 5e8,
        "inference_memory": 1e8,
        "imported_memory": 4e8,
        "versions": "keras 3" if job["library"] == "mtl_keras" else "torch 2",
    }


def rows_of(script, folder, *more, measure=result):
    script.run(arguments(script, folder, *more), measure)
    return script.ROWS.read(folder / "sharing_cost.csv")


def test_all_ways_by_default(script, tmp_path):
    import mtl_keras as mtl

    ways = arguments(script, tmp_path).ways
    assert ways[0] == "hard" and sorted(ways) == mtl.sharing.names()


def test_ways_take_turns(script, tmp_path):
    given = arguments(
        script, tmp_path, "--ways", "mtan,hard,soft", "--rounds", "2", "--peer-python", "p"
    )
    order = [(job["round"], job["library"], job["way"]) for job in script.jobs(given)]
    of_round = [
        *(("mtl_keras", way) for way in ("hard", "mtan", "soft")),
        *((library, "hard") for library in (script.OURS, script.SHIPPED, script.BEST)),
        *((library, "mtan") for library in (script.OURS, script.SHIPPED, script.BEST)),
    ]
    assert order == [(number, *one) for number in (1, 2) for one in of_round]


def test_goes_on_where_it_was(script, tmp_path):
    """A row a measurement, at once; rows that exist are not measured again."""
    calls = []

    def stops(job):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(script.ROWS.key(job))
        return result(job)

    given = arguments(script, tmp_path, "--ways", "hard,mtan,soft", "--rounds", "1")
    with pytest.raises(KeyboardInterrupt):
        script.run(given, stops)
    path = tmp_path / "sharing_cost.csv"
    assert [row["way"] for row in script.ROWS.read(path)] == ["hard", "mtan"]
    # Cut off in the middle of the last row.
    path.write_text(path.read_text("utf-8")[:-9], "utf-8")
    calls.clear()
    script.run(given, lambda job: calls.append(job["way"]) or result(job))
    assert calls == ["mtan", "soft"]
    with path.open() as file:
        assert [row["way"] for row in csv.DictReader(file)] == ["hard", "mtan", "soft"]


def test_other_settings_are_measured_anew(script, tmp_path):
    rows_of(script, tmp_path, "--ways", "hard", "--rounds", "1")
    rows = rows_of(script, tmp_path, "--ways", "hard", "--rounds", "1", "--batch", "4")
    assert [row["batch"] for row in rows] == ["2", "4"]
    assert len(script.select(rows, script.OURS, script.LITE, SETTINGS)["hard"]["rounds"]) == 1


def test_what_fails_is_named_and_the_run_goes_on(script, tmp_path, monkeypatch, capsys):
    def fails(self, job):
        if job["way"] == "mtan":
            raise RuntimeError("no such layer")
        return result(job)

    monkeypatch.setattr(script.Measurer, "__call__", fails)
    given = ["--size", "64", "--batch", "2", "--steps", "1", "--ways", "hard,mtan,soft"]
    assert script.main([*given, "--rounds", "2", "--out", str(tmp_path)]) == 1
    rows = script.ROWS.read(tmp_path / "sharing_cost.csv")
    assert [(row["round"], row["way"]) for row in rows] == [
        (number, way) for number in ("1", "2") for way in ("hard", "soft")
    ]
    assert "FAILED: mtan (mtl_keras, efficientnet_lite0): RuntimeError" in capsys.readouterr().err
    assert (tmp_path / "sharing_cost.png").read_bytes().startswith(b"\x89PNG")


def test_ratios_are_of_the_same_round(script, tmp_path):
    """A machine that is three times slower in one round does not change them."""

    def measure(job):
        return result(job, slow=3.0 if job["round"] == 2 else 1.0)

    rows = rows_of(script, tmp_path, "--ways", "hard,mtan", "--rounds", "2", measure=measure)
    # The last round of hard is missing, as after an interruption.
    rows = [row for row in rows if (row["way"], row["round"]) != ("hard", "1")]
    found = script.select(rows, script.OURS, script.LITE, SETTINGS)
    assert script.ratio(found["mtan"], found["hard"], "step_ms") == pytest.approx(2.0)
    assert found["mtan"]["step_ms"] == pytest.approx((200 + 600) / 2)
    assert script.ratio(found["mtan"], None, "step_ms") is None


def test_tables(script, tmp_path):
    more = ("--ways", "hard,mtan,soft", "--rounds", "2", "--peer-python", "p")
    table = script.tables(rows_of(script, tmp_path, *more), SETTINGS)
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    assert lines[0] == (
        "| `hard` | 3.00 M | 1.00 × | 100 ms | 1.00 × | 500 MB | 1.00 × | 10.0 ms | 1.00 × |"
    )
    assert [line.split("`")[1] for line in lines] == ["hard", "soft", "mtan", "hard", "mtan"]
    assert lines[4] == (
        "| `mtan` | 3.00 M / 3.00 M | 200 ms | 800 ms | 100 ms "
        "| 0.25 × | 2.00 × | 0.25 × | 2.00 × | 1.00 × | 1.00 × |"
    )
    assert "(keras 3)" in table and "(torch 2)" in table


def test_nothing_measured_is_said(script):
    with pytest.raises(SystemExit, match="nothing has been measured"):
        script.tables([], SETTINGS)


def test_our_side_of_the_comparison_is_what_libmtl_has(script):
    """The settings of ways against LibMTL exist; heads read the coarsest level only."""
    measurer = script.Measurer(pathlib.Path(), arguments(script, pathlib.Path(), "--ways", "hard"))
    for way in script.PEERS:
        sharing = measurer.sharing({"way": way, "trunk": script.RESNET})
        assert sharing.neck_channels == script.NECK
    worker = (ROOT / "benchmarks/libmtl_worker.py").read_text("utf-8")
    assert all(f'"{way}": ' in worker for way in script.PEERS)


@pytest.mark.slow
def test_measures(tmp_path):
    """Two ways as the command does it; one does not exist."""
    command = [sys.executable, "benchmarks/sharing_cost.py", "--ways", "hard,nonsense"]
    command += ["--size", "64", "--batch", "2", "--steps", "1", "--calls", "1", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "FAILED: nonsense" in done.stderr
    with (tmp_path / "sharing_cost.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["way"] == "hard" and int(row["parameters"]) > 3e6
    for name in ("step_ms", "latency_ms", "training_memory_mb", "inference_memory_mb"):
        assert float(row[name]) > 0
