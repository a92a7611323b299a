"""The picture of a training: losses and metrics of the validation by epoch.

Command: python zoo/history.py runs/NAME/history.jsonl --out training.png
"""

import argparse
import json
import pathlib

COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#805ad5", "#4a5568")
PICTURE = "training.png"
METRICS = ("AP", "AP50", "mean_iou", "mae", "accuracy")


def read(path: pathlib.Path) -> list[dict]:
    """The lines of a history; of an epoch that was done again the last."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    return [line for _, line in sorted({line["epoch"]: line for line in lines}.items())]


def about(recipe) -> dict:
    """What a card says of the picture."""
    caption = "Losses and, on letterboxed pictures of the validation, metrics by epoch"
    if recipe.optimizer(1000).use_ema:
        caption += ", of the weights as they were then; the model has an average of the last ones"
    return {"file": PICTURE, "caption": f"{caption}."}


def draw(path: pathlib.Path, out: pathlib.Path) -> None:
    """Draws the picture."""
    from matplotlib.figure import Figure

    lines = read(path)
    losses = sorted({k for line in lines for k in line if k.endswith("loss") and k != "loss"})
    trained = [name for name in losses if not name.startswith("val_")]
    measured = [
        name
        for name in sorted({k for line in lines for k in line})
        if name.startswith("val_") and name.split("_", 2)[-1] in METRICS
    ]
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, name in zip(COLOURS, trained, strict=False):
        task = name.removesuffix("_loss")
        _line(left, lines, name, colour, "-", f"{task}, training")
        if f"val_{name}" in losses:
            _line(left, lines, f"val_{name}", colour, "o--", f"{task}, validation")
    for colour, name in zip(COLOURS, measured, strict=False):
        _line(right, lines, name, colour, "o-", name.removeprefix("val_").replace("_", " ", 1))
    left.set_title("losses", fontsize=10, loc="left")
    right.set_title("metrics of the validation", fontsize=10, loc="left")
    right.set_ylim(0, 1)
    left.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xlabel("epoch", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.set_xlim(0.5, len(lines) + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    figure.savefig(out, dpi=100)


def _line(axes, lines: list[dict], name: str, colour: str, style: str, label: str) -> None:
    points = [(line["epoch"], line[name]) for line in lines if name in line]
    x, y = zip(*points, strict=True)
    axes.plot(x, y, style, color=colour, label=label, markersize=4, linewidth=1.4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("history", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    draw(arguments.history, arguments.out)
