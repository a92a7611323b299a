"""What benchmarks/balancing_cost.py does around the measuring, with processes that are made up."""

import importlib.util
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SETTINGS = {"size": 64, "batch": 2, "turns": 1, "steps": 1}


@pytest.fixture(scope="module")
def script():
    path = ROOT / "benchmarks/balancing_cost.py"
    spec = importlib.util.spec_from_file_location("balancing_cost", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        spec.loader.exec_module(module)
    return module


def arguments(script, folder, *more):
    given = [item for name, value in SETTINGS.items() for item in (f"--{name}", str(value))]
    return script.parse([*given, "--results", str(folder / "rows.csv"), *more])


def measured(script, slow=1.0):
    """Stands in for `measure`: plain takes 100 ms, exact methods 180 ms, LibMTL three times it."""

    def answer(session, arguments, folder):
        rows = []
        for process in session:
            for job in process:
                factor = {"parameters": 1.8, "features": 1.1}.get(job["mode"], 1.0)
                if job["method"] == "mgda" and job["mode"] == "parameters":
                    factor = 2.5
                base = slow * (3.0 if job["library"] == "LibMTL" else 1.0)
                name = script.named(job["method"], job["mode"])
                ready = {"plain": {"memory": 1e8}, name: {"memory": 1.2e8, "solver": 1e-3}}
                told = {"ready": ready, "process": 5e8, "versions": job["library"]}
                times = {"plain": [0.1 * base], name: [0.1 * base * factor]}
                rows.append(script.row_of(job, told, times))
        return rows, {}

    return answer


def rows_of(script, folder, monkeypatch, *more, slow=1.0):
    monkeypatch.setattr(script, "measure", measured(script, slow))
    given = arguments(script, folder, *more)
    assert script.run(given) == {}
    return script.ROWS.read(given.results)


def test_every_method_in_every_mode_it_has(script, tmp_path):
    import mtl_keras as mtl

    found = script.jobs(arguments(script, tmp_path, "--parts", "methods", "--tasks", "3,5"))
    ways = [(job["method"], job["mode"]) for job in found if job["tasks"] == 3]
    assert {method for method, _ in ways} == set(mtl.balancing.names())
    assert len(ways) == len(set(ways))
    assert ("uncertainty", "losses") in ways and ("fixed", "losses") in ways
    assert ("mgda", "parameters") in ways and ("mgda", "features") in ways
    assert ("moco", "parameters") in ways and ("moco", "features") not in ways
    assert {job["method"] for job in found if job["tasks"] == 5} == set(script.BY_TASKS)


def test_what_is_compared_exists(script):
    import mtl_keras as mtl

    assert set(script.BY_TASKS) | set(script.COMPARED) <= set(mtl.balancing.names())
    for methods in script.PEERS.values():
        assert set(methods) <= set(script.COMPARED)


def test_processes_are_even_and_complete(script, tmp_path):
    more = ("--peer-python", "p", "--tasks", "3,2")
    found = script.jobs(arguments(script, tmp_path, *more))
    sessions = script.sessions(found)
    flat = [script.ROWS.key(job) for session in sessions for process in session for job in process]
    assert sorted(flat) == sorted(map(script.ROWS.key, found))
    for session in sessions:
        for process in session:
            assert len({(job["part"], job["library"], job["tasks"]) for job in process}) == 1
        if session[0][0]["part"] == "methods":
            assert len(session) <= 2 and all(len(own) <= script.GROUP for own in session)
        if session[0][0]["part"] == "process":
            assert all(len(own) == 1 for own in session)
        if session[0][0]["part"] == "libraries":
            libraries = [own[0]["library"] for own in session]
            assert libraries[0] == script.OURS and len(set(libraries)) == len(libraries)


def test_without_peers_no_comparison(script, tmp_path):
    assert {job["part"] for job in script.jobs(arguments(script, tmp_path))} == {
        "methods",
        "process",
    }


def test_goes_on_where_it_was(script, tmp_path, monkeypatch):
    more = ("--methods", "mgda,famo", "--parts", "methods", "--tasks", "3")
    assert len(rows_of(script, tmp_path, monkeypatch, *more)) == 3
    path = tmp_path / "rows.csv"
    path.write_text(path.read_text("utf-8")[:-9], "utf-8")  # Cut off in the last row.
    seen = []
    monkeypatch.setattr(script, "measure", lambda session, *_: (seen.extend(session), ([], {}))[1])
    script.run(arguments(script, tmp_path, *more))
    assert [job["method"] for process in seen for job in process] == ["famo"]


def test_ratios_are_of_the_same_process(script, tmp_path, monkeypatch):
    more = ("--methods", "mgda", "--parts", "methods", "--tasks", "3")
    rows_of(script, tmp_path, monkeypatch, *more)
    rows = rows_of(script, tmp_path, monkeypatch, *more, "--rounds", "2", slow=3.0)
    found = script.Found(rows, SETTINGS)("methods", tasks=3)
    ratio, milliseconds = script.times_of(found["mgda", "parameters"])
    assert ratio == pytest.approx(2.5) and milliseconds == pytest.approx((250 + 750) / 2)
    assert script.memory_of(found["mgda", "features"]) == pytest.approx((1.2, 120.0))


def test_tables_and_verdicts(script, tmp_path, monkeypatch):
    more = ("--methods", "mgda,famo,upgrad", "--peer-python", "p", "--tasks", "3,2")
    rows = rows_of(script, tmp_path, monkeypatch, *more)
    text = script.tables(rows, SETTINGS)
    assert "| `mgda` | gradients | 2.50 × | 1.10 × | 1.20 × | 1.20 × | 1.00 ms |" in text
    assert "| `famo` | losses | 1.00 × | – | 1.20 × | – | 1.00 ms |" in text
    assert "2 tasks" in text and "| `plain` | 500 MB | 1.00 × | – |" in text
    assert "(LibMTL or TorchJD)" in text and "LibMTL, features" in text
    said = script.verdicts(rows, SETTINGS)
    assert "step over plain, features <= 1.15: met; most: 1.10, mgda" in said
    assert "step over plain, parameters <= 2.0: MISSED by 1 of 2; most: 2.50, mgda" in said
    assert "memory over plain <= 1.3: met; most: 1.20, mgda (parameters)" in said
    ahead = [line for line in said if line.startswith("step in ms, parameters, ours over LibMTL")]
    assert ahead and "<= 1.0: met; most: 0.33, mgda" in ahead[0]


def test_nothing_measured_is_said(script):
    with pytest.raises(SystemExit, match="nothing has been measured"):
        script.tables([], SETTINGS)


def test_a_process_that_fails_is_named(script, tmp_path):
    """An interpreter that ends at once; the others' rows would stay."""
    more = ("--methods", "mgda", "--parts", "libraries", "--peer-python", "false")
    given = arguments(script, tmp_path, *more)
    theirs = [job for job in script.jobs(given) if job["library"] == "LibMTL"]
    rows, failed = script.measure([theirs], given, tmp_path)
    assert rows == [] and set(failed) == {script.label(job) for job in theirs}
    assert all("ended with" in error for error in failed.values())
