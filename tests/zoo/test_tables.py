"""Tables and recipes say what cards say, whatever tasks a model has."""

import pytest
from programs import program

CARD = {
    "data": {"name": "nuclei"},
    "input": {"letterbox": [64, 96]},
    "sharing": "hard",
    "parameters": 3_386_087,
    "shared_fraction": 0.9388,
    "files": {"weights.npz": {"bytes": 6_485_620}},
    "epochs": 14,
    "training_minutes": 64.48,
    "cost": {"cpu_hours": 2.15, "cores": 2, "device": "CPU"},
    "metrics_split": "val",
    "recipe": "zoo/recipes/x.py",
    "config": {"trunk": {"class_name": "Trunk", "config": {"name": "lite", "weights": None}}},
}
BOXES = {"detection_AP": 0.6268, "detection_AP50": 0.8928, "detection_AP_nucleus": 0.6268}
MASKS = {
    "segmentation_mean_iou": 0.9306,
    "segmentation_iou_background": 0.9797,
    "segmentation_iou_nucleus": 0.8814,
    "segmentation_dice_nucleus": 0.9370,
    "segmentation_image_dice_nucleus": 0.92,
}
CLASSES = {"detection": ["nucleus"], "segmentation": ["background", "nucleus"]}


def card(name, tasks, metrics, **changes):
    classes = {task: CLASSES.get(task, []) for task in tasks}
    return {**CARD, "name": name, "tasks": tasks, "metrics": metrics, "classes": classes, **changes}


def of_trunk(name):
    return {"trunk": {"class_name": "Trunk", "config": {"name": name, "weights": None}}}


CARDS = [
    card("a_detection", ["detection"], BOXES, shared_fraction=0.0),
    card("b_masks", ["segmentation"], MASKS, shared_fraction=0.0),
    card(
        "c_three",
        ["detection", "segmentation", "distance"],
        {**BOXES, **MASKS, "distance_mae": 1.234, "instances_PQ": None},
    ),
    card("a_wide", ["detection", "segmentation"], BOXES, config=of_trunk("wide")),
    card("b_towers", ["detection", "segmentation"], BOXES, sharing="soft"),
    card("d_facades", ["detection"], {"detection_AP": 0.3}, data={"name": "facades"}),
]


@pytest.fixture(scope="module")
def tables():
    return program("tables")


def test_models_of_any_tasks_stand_by_data(tables, monkeypatch):
    by_name = {card["name"]: card for card in CARDS}
    monkeypatch.setattr(tables, "list_models", lambda: list(by_name))
    monkeypatch.setattr(tables, "info", by_name.get)
    text = tables.models().replace("\N{NO-BREAK SPACE}", " ")
    header, line, *rows = text.splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (header, line, *rows)]
    assert {len(row) for row in cells} == {10}
    # By data, those of several tasks first, by their trunk and how they share.
    assert [row[1] for row in cells[2:]] == [
        "`c_three`",
        "`b_towers`",
        "`a_wide`",
        "`a_detection`",
        "`b_masks`",
        "`d_facades`",
    ]
    three, _, _, boxes, masks, facades = (
        dict(zip(cells[0], row, strict=True)) for row in cells[2:]
    )
    assert (three["input"], three["parameters"], three["file"]) == ("64 × 96", "3.39 M", "6.5 MB")
    assert [three[c] for c in ("shared", "box AP", "mean IoU", "PQ")] == [
        "93.9%",
        "0.627",
        "0.931",
        "–",
    ]
    assert [boxes[c] for c in ("shared", "AP50", "mean IoU")] == ["–", "0.893", "–"]
    assert [masks[c] for c in ("box AP", "AP50", "mean IoU")] == ["–", "–", "0.931"]
    assert (facades["data"], facades["AP50"]) == ("facades", "–")


TEXT = '''"""A network: boxes.

Command: python zoo/train.py x
Time: not measured yet.
Result: not measured yet.
"""

Time: int
'''


@pytest.mark.parametrize(
    ("index", "result"),
    [
        (0, "Result: box AP 0.627, AP50 0.893 on `val`."),
        (
            1,
            "Result: mean IoU 0.931, IoU of nucleus 0.881, Dice of nucleus 0.937, Dice by picture "
            "of nucleus 0.920 on `val`.",
        ),
        (
            2,
            "Result: box AP 0.627, AP50 0.893, mean IoU 0.931, IoU of nucleus 0.881, Dice of "
            "nucleus 0.937, Dice by picture of nucleus 0.920, MAE of distance 1.234 on `val`.",
        ),
    ],
)
def test_recipes_say_what_is_measured(tables, index, result):
    found = tables.recipe(TEXT, CARDS[index])
    docstring, rest = found.split('"""\n\n')
    assert rest == "Time: int\n"
    assert docstring.startswith('"""A network: boxes.\n\nCommand: python zoo/train.py x\n')
    time, said = docstring.split("train.py x\n")[1].split("Result:")
    assert time == "Time: 64 minutes on 2 CPU cores, 14 epochs.\n"
    assert " ".join(f"Result:{said}".split()) == result
    assert max(map(len, found.splitlines())) <= 100
    # Once more, over several lines: nothing changes, and a shorter text leaves nothing behind.
    assert tables.recipe(found, CARDS[index]) == found
    assert tables.recipe(found, CARDS[0]) == tables.recipe(TEXT, CARDS[0])


def test_recipes_say_on_what_they_ran(tables):
    on = {"cpu_hours": 0.0, "cores": 16, "device": "NVIDIA H100"}
    gpu = card("x", ["detection"], BOXES, cost=on, epochs=1)
    assert "Time: 64 minutes on one NVIDIA H100, 1 epoch.\n" in tables.recipe(TEXT, gpu)
    one = card("x", ["detection"], BOXES, cost={**on, "cores": 1, "device": "CPU"})
    assert "on 1 CPU core, 14 epochs" in tables.recipe(TEXT, one)


def test_a_recipe_without_the_lines_is_an_error(tables):
    with pytest.raises(ValueError, match="zoo/recipes/x.py has no line 'Time'"):
        tables.recipe('"""A network."""\n', CARDS[0])
