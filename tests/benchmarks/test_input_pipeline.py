"""What benchmarks/input_pipeline.py does around the measuring, with processes that are made up."""

import importlib
import pathlib
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
ONE_TURN = {"nuclei": 1.0, "facades": 1.2, "vhr10": 1.1, "kvasir": 1.0}


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("input_pipeline")
        for name in ("input_pipeline", "input_pipeline_worker", "input_pipeline_peers"):
            sys.modules.pop(name, None)


def arguments(script, folder, *more):
    return script.parse(["--results", str(folder / "rows.csv"), "--turns", "2", *more])


class Made:
    """Answers as a process would: our input takes 5 ms, keras-cv's 12 and 15, a step 100."""

    asked: list = []

    def __init__(self, script, library):
        self.script, self.library = script, library

    def send(self, spec):
        self.spec = spec

    def answer(self):
        return {"versions": "keras 3"}

    def ask(self, what):
        script = self.script
        if isinstance(what, dict):
            self.spec = what
            return self.answer()
        Made.asked.append((self.spec.get("data"), self.library, what))
        if isinstance(what, int):
            each = {"wall_ms": 1.0, "cpu_ms": what / 100.0}
            return {name: each for name in ("detection", "segmentation", "distance")}
        if what == script.MEMORY:
            held = [1000, 1100, *[1101] * (script.EPOCHS - 2)]
            return {"epochs": [{"rss": 1e6 * mb, "peak": 2e9} for mb in held]}
        each = {script.OURS: 5.0, script.BEST: 9.0, script.DOCUMENTED: 15.0}[self.library]
        each += 100.0 * what.startswith("train")
        each = 100.0 if what == script.FIXED else each
        each *= ONE_TURN[self.spec["data"]]
        return {"wall_ms": 2.0 * each, "cpu_ms": each}

    def end(self):
        pass


@pytest.fixture
def made(script, monkeypatch):
    monkeypatch.setattr(script, "process", lambda library, *_, **__: Made(script, library))
    Made.asked = []
    return Made


def test_pipelines_take_turns_and_rows_are_kept(script, made, tmp_path):
    given = arguments(script, tmp_path, "--data", "nuclei", "--peer-python", "p")
    assert script.run(given) == {}
    turn = [
        (script.OURS, script.ALONE),
        (script.DOCUMENTED, script.ALONE),
        (script.BEST, script.ALONE),
        (script.OURS, script.ALL),
        (script.OURS, script.FIXED),
        (script.OURS, script.TRAIN),
        (script.BEST, script.TRAIN),
    ]
    assert [(library, what) for _, library, what in made.asked[:14]] == turn * 2
    rows = script.ROWS.read(given.results)
    assert sorted(map(script.ROWS.key, rows)) == sorted(map(script.ROWS.key, script.jobs(given)))
    count = len(made.asked)
    script.run(given)
    assert len(made.asked) == count


def test_what_failed_is_said_and_measured_again(script, made, tmp_path, monkeypatch):
    given = arguments(script, tmp_path, "--data", "nuclei,kvasir")
    ask = Made.ask

    def fails(self, what):
        if what == script.MEMORY and self.spec["data"] == "kvasir":
            raise RuntimeError("out of memory")
        return ask(self, what)

    monkeypatch.setattr(Made, "ask", fails)
    assert script.run(given) == {"memory_of_set kvasir": "out of memory"}
    monkeypatch.setattr(Made, "ask", ask)
    Made.asked = []
    assert script.run(given) == {}
    assert made.asked == [("kvasir", script.OURS, script.MEMORY)]


def test_tables_and_verdicts(script, made, tmp_path):
    given = arguments(script, tmp_path, "--peer-python", "p")
    script.run(given)
    settings = {name: getattr(given, name) for name in script.SETTINGS}
    rows = script.ROWS.read(given.results)
    text = script.tables(rows, settings)
    for data in script.DATA:
        assert f"| `{data}` |" in text
    assert "| `facades` | 83 | 46 | 28 | 6.0 | 10.8 | 18.0 | 1.8 × | 3.0 × |" in text
    assert "| `nuclei` | 5 | 5 | 5 | 100.0 | 105.0 | 109.0 | 20.0 × | 4.8% | 4.8% |" in text
    assert "| distance | 2.56 ms | 6.40 ms |" in text
    lines = script.verdicts(rows, settings)
    assert "input over the training step >= 3.0: met; worst: 20, nuclei" in lines
    assert f"input over {script.BEST} >= 2.0: MISSED by 4 of 4; worst: 1.8, nuclei" in lines
    assert f"input over {script.DOCUMENTED} >= 2.0: met; worst: 3, nuclei" in lines
    assert "memory, last epoch over second <= 1.05: met; worst: 1, nuclei" in lines
    assert any(line.startswith("ms of encoding 400 objects <= 5.0: MISSED by 3") for line in lines)
    with pytest.raises(SystemExit, match="nothing has been measured"):
        script.tables(rows, {**settings, "size": 1})


@pytest.mark.parametrize("wrong", [["--data", "cats"], ["--turns", "0"], ["--trained", "3"]])
def test_wrong_arguments(script, wrong):
    with pytest.raises(SystemExit):
        script.parse(wrong)


def test_a_crowded_image_holds_all_its_objects(script):
    labels = sys.modules["input_pipeline_worker"].crowded(256, 400)
    assert set(np.unique(labels["instances"])) == set(range(401))
    assert labels["boxes"].shape == (400, 4)
    for i in (0, 57, 399):
        y, x = np.nonzero(labels["instances"] == i + 1)
        low, high = labels["boxes"][i, :2], labels["boxes"][i, 2:]
        assert (x >= low[0] - 1).all() and (x <= high[0]).all()
        assert (y >= low[1] - 1).all() and (y <= high[1]).all()
