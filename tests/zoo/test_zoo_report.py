"""The page says what result files say, by formulas written down here once more."""

import json
import re

import numpy as np
import pytest
from programs import program

BOTH = ("detection", "segmentation")


@pytest.fixture(scope="module")
def report():
    return program("report")


def write(folder, kind, ap=None, iou=None, data="nuclei", seed=0, split="val", **changes):
    """Writes a result file as `zoo/evaluate.py` does, with AP and mean IoU in place."""
    tasks = {"detection": ["detection"], "segmentation": ["segmentation"]}.get(kind, list(BOTH))
    metrics = {}
    if "detection" in tasks:
        metrics |= {"detection_AP": ap, "detection_AP50": 0.89}
    if "segmentation" in tasks:
        metrics |= {"segmentation_mean_iou": iou, "segmentation_iou_background": 0.98}
        metrics |= {"segmentation_iou_nucleus": 0.88, "segmentation_dice_nucleus": 0.94}
    metrics |= {"instances_PQ": 0.743} if len(tasks) > 1 else {}
    rng = np.random.default_rng([seed, len(kind)])
    run = {
        "name": f"lite_{kind}_{data}",
        "data": data,
        "split": split,
        "images": 102,
        "trunk": "lite",
        "sharing": "hard" if kind in BOTH else kind,
        "tasks": tasks,
        "parameters": 3_000_000 if kind in BOTH else 3_300_000,
        "image_size": [64, 64],
        "seed": seed,
        "epochs": 14,
        "steps": 1000,
        "training_minutes": 60.0,
        "trained_on": {"cpu_hours": 2.0, "cores": 2, "device": "CPU"},
        "metrics": metrics,
        "bootstrap": {
            name: (value + rng.normal(0, 0.02, 200)).round(4).tolist()
            for name, value in metrics.items()
            if value is not None and "background" not in name
        },
        "inference": {
            "latency_ms": 100.0 if kind in BOTH else 120.0,
            "memory_mb": 300.0,
            "cores": 2,
            "load_average": 0.5,
        },
        **changes,
    }
    ending = (f"-seed{seed}" if seed else "") + (f"-{split}" if split != "val" else "")
    path = folder / f"{run['name']}{ending}.json"
    path.write_text(json.dumps(run), encoding="utf-8")
    return run


def write_twins(folder, **changes):
    return [write(folder, task, 0.60, 0.90, **changes) for task in BOTH]


def text_of(report, folder):
    return report.page(report.read(folder))


def row(text, start, heading):
    """The cells of a row by column title, of the tables below a heading."""
    text = text.replace("\N{NO-BREAK SPACE}", " ")
    parts = text.split(f"## {heading}\n")[1].split("\n## ")[0].strip().split("\n\n")
    found = []
    for part in (part for part in parts if part.startswith("|")):
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines()]
        found += [
            dict(zip(lines[0], o, strict=True)) for o in lines if " ".join(o).startswith(start)
        ]
    (only,) = found
    return only


def signed(value):
    return f"{value:+.1f}".replace("-", "−")


def changes(run, twins, of):
    """Δm by hand: the mean of relative changes, in percent."""
    pairs = zip(("detection_AP", "segmentation_mean_iou"), twins, strict=True)
    parts = [(np.array(of(run)[k]) / np.array(of(twin)[k]) - 1) * 100 for k, twin in pairs]
    return np.mean(parts, axis=0)


def relative(run, twin, name):
    """The change of a metric in percent, of each resample."""
    return (np.array(run["bootstrap"][name]) / np.array(twin["bootstrap"][name]) - 1) * 100


def test_delta_m_with_its_paired_interval(report, tmp_path):
    run = write(tmp_path, "hard", 0.63, 0.918)
    twins = write_twins(tmp_path)
    low, high = np.quantile(changes(run, twins, lambda r: r["bootstrap"]), [0.025, 0.975])
    # AP rises by 5 %, mean IoU by 2 %.
    assert changes(run, twins, lambda r: r["metrics"]) == pytest.approx(3.5)
    found = row(text_of(report, tmp_path), "`lite_hard", "nuclei")
    assert found["Δm, %"] == f"+3.5 [{signed(low)}, {signed(high)}]"
    assert (found["box AP"], found["mean IoU"], found["PQ"]) == ("0.630", "0.918", "0.743")
    assert (found["IoU of nucleus"], found["Dice of nucleus"]) == ("0.880", "0.940")
    found = row(text_of(report, tmp_path), "hard", "nuclei")
    assert (found["latency"], found["training"]) == ("120 ms", "60 min, 2 CPU cores")


def test_summary_is_relative_to_both_twins(report, tmp_path):
    run = write(tmp_path, "hard", 0.63, 0.918)
    write(tmp_path, "cross_stitch", 0.57, 0.90)
    twins = write_twins(tmp_path)
    text = text_of(report, tmp_path)
    found = row(text, "nuclei hard", "Summary")
    low, high = np.quantile(relative(run, twins[0], "detection_AP"), [0.025, 0.975])
    assert found["box AP, %"] == f"+5.0 [{signed(low)}, {signed(high)}]"
    assert found["mean IoU, %"].startswith("+2.0 [")
    assert (found["parameters"], found["latency"]) == ("55%", "60%")
    assert row(text, "nuclei cross-stitch", "Summary")["Δm, %"].startswith("−2.5 [")
    both = row(text, "both twins", "nuclei")
    assert (both["parameters"], both["latency"]) == ("6.00 M", "200 ms")
    assert (both["memory"], both["training"]) == ("300 MB", "120 min")
    assert "Not trained on this set: soft." in text


def test_latency_of_other_machines_is_not_compared(report, tmp_path):
    other = {"latency_ms": 9.0, "memory_mb": 300.0, "cores": 64, "load_average": 0.0}
    write(tmp_path, "hard", 0.63, 0.918, inference=other)
    write(tmp_path, "soft", 0.63, 0.918)
    write_twins(tmp_path)
    text = text_of(report, tmp_path)
    assert row(text, "nuclei hard", "Summary")["latency"] == "–"
    assert row(text, "nuclei soft", "Summary")["latency"] == "60%"
    assert "2 or 64 CPU cores" in text and "busy" not in text
    write(tmp_path, "hard", 0.63, 0.918, inference={**other, "load_average": 64.5})
    assert "between 0.5 and 64.5. **It was busy" in " ".join(text_of(report, tmp_path).split())


def test_seeds_are_averaged_and_their_spread_is_said(report, tmp_path):
    runs = [write(tmp_path, "hard", ap, 0.90, seed=i) for i, ap in enumerate((0.60, 0.66, 0.63))]
    twins = write_twins(tmp_path)
    text = text_of(report, tmp_path)
    found = row(text, "`lite_hard", "nuclei")
    assert re.fullmatch(r"\+2\.5 \[.*\]; seeds \+0\.0 to \+5\.0", found["Δm, %"])
    assert (found["box AP"], found["seeds"]) == ("0.630", "3")
    assert "2 have 1 seed, 1 has 3 seeds" in " ".join(text.split())
    assert "intervals over images and, where there are several, seeds" in text
    # The interval holds what images and what seeds do to it: a spread a seed is drawn from.
    interval = delta_interval(report, tmp_path)
    drawn = np.random.default_rng(0).integers(3, size=(3, 200))
    each = np.array([changes(run, twins, lambda r: r["bootstrap"]) for run in runs])
    wide = np.quantile(np.take_along_axis(each, drawn, 0).mean(axis=0), [0.025, 0.975])
    narrow = np.quantile(each.mean(axis=0), [0.025, 0.975])
    assert interval[1] - interval[0] == pytest.approx(wide[1] - wide[0], rel=0.15)
    assert interval[1] - interval[0] > 1.1 * (narrow[1] - narrow[0])


def test_equal_seeds_say_what_one_says(report, tmp_path):
    write_twins(tmp_path)
    run = write(tmp_path, "hard", 0.63, 0.918)
    one = delta_interval(report, tmp_path)
    for seed in (1, 2):
        write(tmp_path, "hard", 0.63, 0.918, seed=seed, bootstrap=run["bootstrap"])
    assert delta_interval(report, tmp_path) == pytest.approx(one)


def test_seeds_of_a_network_are_of_one_network(report, tmp_path):
    write(tmp_path, "hard", 0.63, 0.918)
    write(tmp_path, "hard", 0.63, 0.918, seed=1, epochs=2)
    with pytest.raises(ValueError, match=r"lite_hard_nuclei .* differ in epochs: \[14, 2\]"):
        text_of(report, tmp_path)


def delta_interval(report, folder):
    networks = report.read(folder)["nuclei", "val"]
    (network,) = report.joint(networks)
    return report.change(network, report.twins(network, networks)).interval


def test_what_is_missing_is_said(report, tmp_path):
    write(tmp_path, "hard", 0.63, 0.918, inference=None)
    text = text_of(report, tmp_path)
    found = row(text, "`lite_hard", "nuclei")
    assert found["Δm, %"] == "no twins yet"
    assert "latency" not in row(text, "hard", "nuclei")
    assert "not measured yet" in text
    write(tmp_path, "detection", 0.60)
    text = text_of(report, tmp_path)
    assert row(text, "`lite_hard", "nuclei")["Δm, %"] == "no twin of segmentation yet"
    assert "both twins in turn" not in text.split("## nuclei")[1]
    assert row(text, "kvasir AP50", "Targets")["verdict"] == "not measured yet"


def test_resamples_without_a_value_are_left_out_and_counted(report, tmp_path):
    run = write(tmp_path, "hard", 0.63, 0.918)
    run["bootstrap"]["detection_AP"][:3] = [None] * 3
    (tmp_path / "lite_hard_nuclei.json").write_text(json.dumps(run))
    twins = write_twins(tmp_path)
    text = text_of(report, tmp_path)
    kept = {name: values[3:] for name, values in run["bootstrap"].items()}
    others = [{"b": {k: v[3:] for k, v in twin["bootstrap"].items()}} for twin in twins]
    low, high = np.quantile(changes({"b": kept}, others, lambda r: r["b"]), [0.025, 0.975])
    found = row(text, "`lite_hard", "nuclei")
    assert found["Δm, %"] == f"+3.5 [{signed(low)}, {signed(high)}]"
    assert "`lite_hard_nuclei`: 3 resamples" in text


def test_three_tasks_are_compared_by_those_that_have_twins(report, tmp_path):
    run = write(
        tmp_path, "hard", 0.63, 0.918, name="lite_hard_nuclei_distance", tasks=[*BOTH, "distance"]
    )
    run["metrics"]["distance_mae"] = 0.0851
    (tmp_path / "lite_hard_nuclei_distance.json").write_text(json.dumps(run))
    write_twins(tmp_path, epochs=20)
    text = text_of(report, tmp_path)
    found = row(text, "`lite_hard", "nuclei")
    assert found["Δm, %"].startswith("+3.5 [")
    assert found["distance MAE"] == "0.085"
    assert "relative to the largest one in each object" in text
    assert "nuclei | hard + distance |" in text
    assert "there is no twin of distance" in text
    assert "differ in epochs: 14 against 20" in text


def test_twins_have_the_same_trunk(report, tmp_path):
    for kind in ("hard", "soft"):
        write(tmp_path, kind, 0.63, 0.918)
    write_twins(tmp_path)
    write(tmp_path, "hard", 0.66, 0.90, trunk="wide", name="wide_hard_nuclei")
    text = text_of(report, tmp_path)
    assert row(text, "`wide_hard", "nuclei")["Δm, %"] == "no twins yet"
    for task, ap in (("detection", 0.66), ("segmentation", None)):
        name = f"wide_{task}_nuclei"
        write(tmp_path, task, ap, 0.90, trunk="wide", name=name, parameters=6_600_000)
    text = text_of(report, tmp_path)
    found = row(text, "nuclei hard, wide", "Summary")
    assert found["Δm, %"].startswith("+0.0 [")
    assert found["parameters"] == "25%"
    assert row(text, "both twins in turn, wide", "nuclei")["parameters"] == "13.20 M"
    # The trunk that most networks have goes without saying.
    assert row(text, "nuclei soft", "Summary")["parameters"] == "55%"


def test_what_balances_tasks_is_said(report, tmp_path):
    write(tmp_path, "hard", 0.60, 0.90)
    name, method = "lite_hard_nuclei_dwa", "DWA(temperature=2.0)"
    write(tmp_path, "hard", 0.63, 0.918, name=name, balancing=method)
    write_twins(tmp_path)
    text = text_of(report, tmp_path)
    assert row(text, "nuclei hard +0.0", "Summary")["sharing"] == "hard"
    assert row(text, "nuclei hard + DWA", "Summary")["Δm, %"].startswith("+3.5 [")
    assert row(text, "hard + DWA", "nuclei")["training"] == "60 min, 2 CPU cores"


def test_other_splits_stand_apart_beside_published_numbers(report, tmp_path):
    metrics = {"detection_AP": 0.7, "segmentation_iou_polyp": 0.8, "segmentation_dice_polyp": 0.89}
    for split in ("val", "test"):
        write(tmp_path, "hard", data="kvasir", split=split, metrics=metrics, bootstrap={})
    text = text_of(report, tmp_path)
    ours = row(text, "`lite_hard", "kvasir, `test`")
    published = row(text, "ColonSegNet", "kvasir, `test`")
    assert (ours["box AP"], ours["Dice of polyp"]) == ("0.700", "0.890")
    assert (published["box AP"], published["Dice of polyp"]) == ("–", "0.821")
    assert "IEEE Access" in text
    assert "Δm" not in text.split("## kvasir, `test`")[1]


def test_targets_are_judged_by_the_best_network(report, tmp_path):
    metrics = {"detection_AP50": 0.85, "segmentation_dice_polyp": 0.8799}
    better = {"detection_AP50": 0.86, "segmentation_dice_polyp": 0.8801}
    write(tmp_path, "hard", data="kvasir", metrics=metrics, bootstrap={})
    text = text_of(report, tmp_path)
    assert row(text, "kvasir AP50", "Targets")["verdict"] == "met"
    assert row(text, "kvasir Dice of polyp", "Targets")["verdict"] == "missed"
    write(tmp_path, "soft", data="kvasir", metrics=better, bootstrap={})
    found = row(text_of(report, tmp_path), "kvasir Dice of polyp", "Targets")
    assert (found["verdict"], found["model"]) == ("met", "`lite_soft_kvasir`")


def test_comparisons_that_would_be_wrong_are_errors(report, tmp_path):
    write(tmp_path, "hard", 0.63, 0.918)
    write_twins(tmp_path, images=40)
    with pytest.raises(ValueError, match="102 images and its twin lite_detection_nuclei.* on 40"):
        text_of(report, tmp_path)
    write(tmp_path, "detection", 0.6, name="another")
    with pytest.raises(ValueError, match="two twins of detection.*another"):
        text_of(report, tmp_path)


def test_program_writes_and_checks(report, tmp_path):
    results, out = tmp_path / "results", tmp_path / "out"
    results.mkdir()
    given = ["--results", str(results), "--out", str(out)]
    with pytest.raises(SystemExit) as empty:
        report.main(given)
    assert empty.value.code == 2
    for kind in ("hard", "soft", "cross_stitch"):
        write(results, kind, 0.63, 0.918)
    write_twins(results)
    write(results, "hard", 0.63, 0.918, data="vhr10")
    with pytest.raises(SystemExit, match="not up to date"):
        report.main([*given, "--check"])
    assert not out.exists()
    report.main(given)
    assert (out / "results.png").read_bytes().startswith(b"\x89PNG")
    report.main([*given, "--check"])
    write(results, "soft", 0.64, 0.918)
    with pytest.raises(SystemExit, match="not up to date"):
        report.main([*given, "--check"])


def test_the_page_is_up_to_date(report):
    if not list(report.RESULTS.glob("*.json")):
        pytest.skip("there are no result files yet")
    report.main(["--check"])
