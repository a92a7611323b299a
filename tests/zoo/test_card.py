"""The looks of a card."""

import itertools

from mtl_keras.zoo.card import Card


def rows(page, first):
    """The lines of the table that begins with a column, without its rule."""
    lines = page.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    table = list(itertools.takewhile(lambda line: line.startswith("|"), lines[start:]))
    return [line.strip("| ").split(" | ") for line in [table[0], *table[2:]]]


def card(**more):
    return Card(
        name="toy",
        tasks=["detection", "segmentation"],
        classes={"detection": ["fence", "high_fence"], "segmentation": ["background", "fence"]},
        metrics={
            "detection_AP": 0.5,
            "detection_AP75": 0.25,
            "detection_AP_fence": 0.75,
            "detection_AP_high_fence": None,
            "segmentation_iou_background": 0.875,
            "segmentation_iou_fence": 0.125,
        },
        **more,
    )


def test_metrics_of_classes_are_a_table_of_their_own():
    assert rows(card().markdown(), "class") == [
        ["class", "detection_AP", "segmentation_iou"],
        ["fence", "0.750", "0.125"],
        ["high_fence", "–", "–"],
        ["background", "–", "0.875"],
    ]


def test_other_metrics_are_listed_the_headlines_first():
    names = [name for name, _ in rows(card().markdown(), "metric")]
    # IoU is a headline where there is one class beside background.
    assert names == ["metric", "detection_AP", "segmentation_iou_fence", "detection_AP75"]


def test_without_classes_there_is_one_table():
    page = Card(tasks=["distance"], classes={}, metrics={"distance_mae": 0.5}).markdown()
    assert rows(page, "metric") == [["metric", "value"], ["distance_mae", "0.500"]]
    assert "class" not in page
