"""Δm against formulas written out, its interval against what an interval promises, its errors."""

import dataclasses
import inspect
import re

import numpy as np
import pytest

import mtl_keras as mtl
from mtl_keras.metrics import delta_m
from mtl_keras.metrics.directions import directions

DIRECTIONS = {"up": True, "down": False, "also_up": True}
SINGLE = {"a": {"up": 0.4, "down": 2.0}, "b": {"also_up": 50.0}, "c": {"down": 0.1}}
MULTI = {"a": {"up": 0.5, "down": 1.9}, "b": {"also_up": 45.0}, "c": {"down": 0.13}}

# Rows of NYUv2 as Navon et al. 2022 print them, and their Δm%, rounded to two digits.
NYUV2 = ("mean_iou", "accuracy", "abs", "rel", "mean", "median", "11.25", "22.5", "30")
NYUV2_TASKS = {"segmentation": NYUV2[:2], "depth": NYUV2[2:4], "normals": NYUV2[4:]}
NYUV2_HIGHER = {name: name not in ("abs", "rel", "mean", "median") for name in NYUV2}
NYUV2_SINGLE = (38.30, 63.76, 0.6754, 0.2780, 25.01, 19.21, 30.14, 57.20, 69.15)
NYUV2_ROWS = {
    "LS": ((39.29, 65.33, 0.5493, 0.2263, 28.15, 23.96, 22.09, 47.50, 61.08), 5.59),
    "MGDA": ((30.47, 59.90, 0.6070, 0.2555, 24.88, 19.45, 29.18, 56.88, 69.36), 1.38),
    "CAGrad": ((39.79, 65.49, 0.5486, 0.2250, 26.31, 21.58, 25.61, 52.36, 65.58), 0.20),
    "Nash-MTL": ((40.13, 65.93, 0.5261, 0.2171, 25.26, 20.08, 28.40, 55.47, 68.15), -4.04),
}


def measure(results=MULTI, single_task=SINGLE, **arguments):
    return delta_m(results, single_task, **{"higher_is_better": DIRECTIONS, **arguments})


def mapped(side, function):
    """The same results with each number changed by `function(task, metric, value)`."""
    return {
        task: {metric: function(task, metric, value) for metric, value in metrics.items()}
        for task, metrics in side.items()
    }


def noisy(side, seeds, spread=0.05, seed=0):
    rng = np.random.default_rng(seed)
    return mapped(side, lambda t, m, v: v * (1 + spread * rng.standard_normal(seeds)))


# === Value ===
def test_conventions_are_the_formulas_of_the_papers():
    a = (0.5 / 0.4 - 1, 1.9 / 2.0 - 1)
    b, c = 45.0 / 50.0 - 1, 0.13 / 0.1 - 1
    by_task = measure()
    assert by_task.value == pytest.approx(100 * ((a[0] - a[1]) / 2 + b - c) / 3)
    assert by_task.by_task == pytest.approx({"a": 50 * (a[0] - a[1]), "b": 100 * b, "c": -100 * c})
    assert by_task.by_metric["a"] == pytest.approx({"up": 100 * a[0], "down": -100 * a[1]})
    assert by_task.higher_is_better
    by_metric = measure(convention="metric")
    assert by_metric.value == pytest.approx(100 * (-a[0] + a[1] - b + c) / 4)
    assert by_metric.by_task == pytest.approx(
        {"a": 50 * (a[1] - a[0]), "b": -100 * b, "c": 100 * c}
    )
    assert not by_metric.higher_is_better


@pytest.mark.parametrize("method", NYUV2_ROWS)
def test_published_values_come_out_of_published_tables(method):
    row, published = NYUV2_ROWS[method]

    def by_task(values):
        named = dict(zip(NYUV2, values, strict=True))
        return {task: {m: named[m] for m in metrics} for task, metrics in NYUV2_TASKS.items()}

    found = delta_m(by_task(row), by_task(NYUV2_SINGLE), NYUV2_HIGHER, "metric")
    assert found.value == pytest.approx(published, abs=0.01)


@pytest.mark.parametrize("convention", ["task", "metric"])
def test_the_baseline_does_not_differ_from_itself(convention):
    found = measure(SINGLE, convention=convention)
    assert found.value == 0.0
    assert set(found.by_task.values()) == {0.0}
    several = noisy(SINGLE, 4)
    assert measure(several, several, convention=convention).value == 0.0


@pytest.mark.parametrize("convention", ["task", "metric"])
def test_the_unit_of_a_metric_does_not_matter(convention):
    factors = {("a", "up"): 100.0, ("a", "down"): 1e-3, ("b", "also_up"): 7.0, ("c", "down"): 0.5}
    ours, theirs = noisy(MULTI, 3), noisy(SINGLE, 2, seed=1)
    plain = measure(ours, theirs, convention=convention)
    scaled = measure(
        *(mapped(side, lambda t, m, v: factors[t, m] * v) for side in (ours, theirs)),
        convention=convention,
    )
    for name in ("value", "low", "high"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name))


@pytest.mark.parametrize("convention", ["task", "metric"])
def test_the_other_direction_turns_the_sign(convention):
    turned = {name: not higher for name, higher in DIRECTIONS.items()}
    ours, theirs = noisy(MULTI, 3), noisy(SINGLE, 3, seed=1)
    plain = measure(ours, theirs, convention=convention)
    other = measure(ours, theirs, convention=convention, higher_is_better=turned)
    assert other.value == pytest.approx(-plain.value)
    assert (other.low, other.high) == pytest.approx((-plain.high, -plain.low))


def test_conventions_differ_in_sign_only_with_one_metric_a_task():
    ours, theirs = noisy(MULTI, 3), noisy(SINGLE, 3, seed=1)
    for side in (ours, theirs):
        del side["a"]["down"]
    by_task = measure(ours, theirs)
    by_metric = measure(ours, theirs, convention="metric")
    assert by_metric.value == pytest.approx(-by_task.value)
    assert (by_metric.low, by_metric.high) == pytest.approx((-by_task.high, -by_task.low))


def test_every_task_or_every_metric_counts_the_same():
    many = {f"m{i}": True for i in range(9)}
    single = {"one": {"up": 1.0}, "many": {name: 1.0 for name in many}}
    multi = {"one": {"up": 1.5}, "many": {name: 1.0 for name in many}}
    higher = {"up": True, **many}
    assert delta_m(multi, single, higher).value == pytest.approx(25.0)
    assert delta_m(multi, single, higher, "metric").value == pytest.approx(-5.0)


def test_numbers_are_those_of_the_means_over_seeds():
    ours, theirs = noisy(MULTI, 5), noisy(SINGLE, 3, seed=1)
    means = (mapped(side, lambda t, m, v: float(v.mean())) for side in (ours, theirs))
    assert measure(ours, theirs).value == pytest.approx(measure(*means).value)


def test_the_order_of_tasks_and_metrics_does_not_matter():
    turned = {task: dict(reversed(metrics.items())) for task, metrics in reversed(SINGLE.items())}
    assert measure(MULTI, turned) == measure()


# === Interval ===
def test_one_seed_on_both_sides_has_no_interval():
    found = measure()
    assert (found.low, found.high, found.seeds) == (None, None, (1, 1))
    assert found == measure(mapped(MULTI, lambda t, m, v: [v]))


@pytest.mark.parametrize("seeds", [(4, 1), (1, 4), (4, 6)])
def test_interval_contains_the_value(seeds):
    found = measure(noisy(MULTI, seeds[0]), noisy(SINGLE, seeds[1], seed=1))
    assert found.low < found.value < found.high
    assert found.seeds == seeds


def test_interval_is_that_of_means_of_resampled_runs():
    """With two seeds there are three samples a side, so that all can be written out."""
    ours = {"a": {"up": [1.0, 3.0]}}
    found = delta_m(ours, {"a": {"up": 1.0}}, DIRECTIONS, confidence=0.4)
    # Means 1, 2, 3 with probabilities 1/4, 1/2, 1/4: 30 % and 70 % of them are 2.
    assert (found.low, found.high) == pytest.approx((100.0, 100.0))
    found = delta_m(ours, {"a": {"up": 1.0}}, DIRECTIONS, confidence=0.6)
    assert (found.low, found.high) == pytest.approx((0.0, 200.0))


def test_metrics_of_a_run_are_resampled_together():
    """What one metric wins in a run the other loses, so that seeds do not differ at all."""
    first = np.array([0.8, 1.0, 1.3, 1.7])
    ours = {"a": {"up": first}, "b": {"also_up": 3.0 - first}}
    found = measure(ours, {"a": {"up": 1.0}, "b": {"also_up": 1.0}})
    assert (found.low, found.high) == pytest.approx((50.0, 50.0))


def test_interval_narrows_with_more_seeds_and_widens_with_confidence():
    def width(seeds, **arguments):
        found = measure(noisy(MULTI, seeds), noisy(SINGLE, seeds, seed=1), **arguments)
        return found.high - found.low

    assert width(160) < 0.5 * width(10)
    assert width(10, confidence=0.8) < width(10, confidence=0.95) < width(10, confidence=0.99)


def test_equal_seeds_have_an_interval_of_no_width():
    found = measure(mapped(MULTI, lambda t, m, v: [v] * 3))
    assert (found.low, found.high) == pytest.approx((found.value, found.value))


def test_the_interval_is_the_same_each_time():
    ours, theirs = noisy(MULTI, 5), noisy(SINGLE, 5, seed=1)
    assert measure(ours, theirs) == measure(ours, theirs)
    assert measure(ours, theirs).low != measure(ours, theirs, seed=1).low


def coverage(seeds, draws=200):
    truth = measure().value
    hits = 0
    for draw in range(draws):
        found = measure(
            noisy(MULTI, seeds, seed=2 * draw),
            noisy(SINGLE, seeds, seed=2 * draw + 1),
            confidence=0.9,
            resamples=500,
            seed=draw,
        )
        hits += found.low <= truth <= found.high
    return hits / draws


def test_interval_holds_the_truth_as_often_as_it_says_and_less_often_with_few_seeds():
    many, few = coverage(15), coverage(3)
    # Four standard errors of a share of 200 draws are 0.085.
    assert 0.9 - 0.085 <= many <= 0.9 + 0.085
    assert 0.5 < few < many


# === Result ===
def test_prints_a_table():
    text = str(measure(noisy(MULTI, 3)))
    assert re.match(r"Δm [+-]\d+\.\d\d % \(95 % interval [+-]\d.* to [+-]\d.*\), higher", text)
    assert "3 seeds against 1" in text
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["a", "b", "c"]
    text = str(measure(convention="metric"))
    assert "no interval" in text and "lower is better; 1 seed against 1" in text


def test_result_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        measure().value = 0.0


# === Directions ===
def test_metrics_of_all_tasks_have_a_direction():
    """A task that brings a new metric brings a line in the table."""
    for kind in mtl.tasks.names():
        make = mtl.tasks._TASKS[kind]
        takes = inspect.signature(make).parameters
        given = {"num_classes": 2, "class_names": ["x", "y"], "name": "it"}
        task = make(**{name: value for name, value in given.items() if name in takes})
        logs = {"it_loss": 0.0}
        for metric in [*task.metrics(), *filter(None, [task.evaluator()])]:
            logs.update(metric.result())
        names = {name.removeprefix("it_") for name in logs}
        assert set(directions(names)) == names


def test_what_is_given_goes_before_what_is_known():
    single, multi = {"a": {"accuracy": 0.5}}, {"a": {"accuracy": 0.6}}
    assert delta_m(multi, single).value == pytest.approx(20.0)
    assert delta_m(multi, single, {"accuracy": False}).value == pytest.approx(-20.0)


@pytest.mark.parametrize(
    ("metric", "higher"),
    [("AP_cat", True), ("iou_cat", True), ("rmse", False), ("perplexity", False)],
)
def test_known_directions(metric, higher):
    assert (delta_m({"a": {metric: 2.0}}, {"a": {metric: 1.0}}).value > 0) == higher


# === Errors ===
def without(side, task, metric=None):
    side = {name: dict(metrics) for name, metrics in side.items()}
    if metric is None:
        del side[task]
    else:
        del side[task][metric]
    return side


def replaced(side, value):
    return {**side, "a": {**side["a"], "up": value}}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"single_task": without(SINGLE, "b")}, "`single_task` lacks task 'b' (also_up), which"),
        ({"results": without(MULTI, "b")}, "`results` lacks task 'b' (also_up), which"),
        ({"single_task": without(SINGLE, "a", "up")}, "`single_task` lacks a/up, which `results`"),
        ({"results": without(MULTI, "a", "up")}, "`results` lacks a/up, which `single_task`"),
        ({"single_task": {}}, "`single_task` must be a dict"),
        ({"results": None}, "`results` must be a dict"),
        ({"results": {"a": 0.5}}, "`results` of task 'a' must be a dict"),
        ({"results": {**MULTI, "a": {}}}, "`results` of task 'a' must be a dict"),
        ({"single_task": replaced(SINGLE, 0.0)}, "`single_task` of 'a', 'up', must be positive"),
        ({"single_task": replaced(SINGLE, -1.0)}, "'a', 'up', must be positive"),
        ({"results": replaced(MULTI, float("nan"))}, "`results` of 'a', 'up', must be finite"),
        ({"single_task": replaced(SINGLE, float("inf"))}, "'a', 'up', must be finite"),
        ({"results": replaced(MULTI, [0.5, 0.6])}, "of `results` must have the same number of se"),
        ({"results": replaced(MULTI, "0.5")}, "`results` of 'a', 'up', must be a number"),
        ({"results": replaced(MULTI, True)}, "`results` of 'a', 'up', must be a number"),
        ({"results": replaced(MULTI, None)}, "`results` of 'a', 'up', must be a number"),
        ({"results": replaced(MULTI, [])}, "`results` of 'a', 'up', must be a number"),
        ({"results": replaced(MULTI, [[0.5], [0.6]])}, "'a', 'up', must be a number"),
        ({"results": replaced(MULTI, [[0.5], 0.6])}, "'a', 'up', must be a number"),
        ({"higher_is_better": {"up": True, "down": False}}, "metric 'also_up' is better when"),
        ({"higher_is_better": {**DIRECTIONS, "up": "yes"}}, "`higher_is_better` must hold True"),
        ({"convention": "tasks"}, "`convention` must be one of ('task', 'metric')"),
        ({"confidence": 1.0}, "`confidence` must be between 0 and 1"),
        ({"confidence": 95}, "`confidence` must be between 0 and 1"),
        ({"resamples": 0}, "`resamples` must be a positive integer"),
        ({"resamples": 10.5}, "`resamples` must be a positive integer"),
    ],
)
def test_errors_name_what_is_wrong(arguments, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        measure(**arguments)


def test_error_on_an_unknown_metric_names_near_misses():
    with pytest.raises(ValueError, match=r"metric 'Accuracy' .* near are \['accuracy'"):
        delta_m({"a": {"Accuracy": 0.5}}, {"a": {"Accuracy": 0.5}})
