"""Writes the tables of README.md, the recipes and docs/, from cards and docstrings.

Command: python zoo/tables.py          (--check: write nothing, say whether all is up to date)
"""

import argparse
import inspect
import os
import pathlib
import re
import sys
import textwrap
from collections.abc import Callable

from compare import place

import mtl_keras as mtl
from mtl_keras.balancing import _BALANCINGS
from mtl_keras.zoo import info, list_models, load
from mtl_keras.zoo.card import Card

ROOT = pathlib.Path(__file__).parents[1]
COLUMNS = ("detection_AP", "detection_AP50", "segmentation_mean_iou", "instances_PQ")
NO_BREAK = "\N{NO-BREAK SPACE}"
# The network whose ledger README.md shows.
LEDGER = "efficientnet_lite0_hard_nuclei"


def models() -> str:
    """The published models by data set: those of several tasks first, then those of one."""
    rows = [
        "| data | model | input | parameters | shared | box AP | AP50 | mean IoU | PQ | file |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    cards = [info(name) for name in list_models()]
    for card in sorted(cards, key=place_of_card):
        height, width = card["input"]["letterbox"]
        shared = f"{card['shared_fraction']:.1%}" if len(card["tasks"]) > 1 else "–"
        size = sum(file["bytes"] for file in card["files"].values())
        numbers = [metric(card, name) for name in COLUMNS]
        rows.append(
            f"| {card['data']['name']} | `{card['name']}` | {height}{NO_BREAK}×{NO_BREAK}{width} "
            f"| {card['parameters'] / 1e6:.2f}{NO_BREAK}M | {shared} "
            f"| {' | '.join(numbers)} | {size / 1e6:.1f}{NO_BREAK}MB |"
        )
    return "\n".join(rows)


def place_of_card(card: dict) -> tuple:
    trunk = card["config"]["trunk"]["config"]["name"]
    return place({**card, "data": card["data"]["name"], "trunk": trunk})


def metric(card: dict, name: str) -> str:
    value = card["metrics"].get(name)
    return "–" if value is None else f"{value:.3f}"


def ledger() -> str:
    return f"```text\n{mtl.sharing_report(load(LEDGER))}\n```"


def ways() -> str:
    """Each way to share by what its docstring says first and whom it cites first."""
    rows = ["| name | class | what tasks share | paper |", "| --- | --- | --- | --- |"]
    for name in mtl.sharing.names():
        kind = type(mtl.sharing.get(name))
        text = inspect.getdoc(kind)
        rows.append(f"| `{name}` | `{kind.__name__}` | {text.splitlines()[0]} | {paper(text)} |")
    return "\n".join(rows)


def paper(text: str) -> str:
    cited = re.search(r"Reference:\s+(?:- )?([^\"]+?), \"([^\"]+)\"", text)
    return " ".join(f"{cited[1]}, *{cited[2]}*".split()) if cited else ""


def methods() -> str:
    """Each balancing method by what its docstring says first and whom it cites first."""
    rows = ["| name | class | what it does | needs | paper |", "| --- | --- | --- | --- | --- |"]
    for name, kind in sorted(_BALANCINGS.items()):
        text = inspect.getdoc(kind)
        if not issubclass(kind, mtl.balancing.GradientMethod):
            needs = "losses"
        elif issubclass(kind, mtl.balancing.SizedGradientMethod):
            needs = "gradients, and those before"
        elif "weights_from_gramian" in vars(kind):
            needs = "Gramian"
        else:
            needs = "gradients"
        first = text.splitlines()[0]
        rows.append(f"| `{name}` | `{kind.__name__}` | {first} | {needs} | {paper(text)} |")
    return "\n".join(rows)


def sets() -> str:
    """Each named set by what `python zoo/sets.py` measured."""
    rows = [
        "| name | images (train / val / test) | objects (train / val / test) | classes "
        "| objects an image: min, median, max | width × height | size of boxes: 5, 50, 95 % "
        "| licence |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | --- |",
    ]
    for name in mtl.data.names():
        about = mtl.data.info(name)
        splits = [about["splits"].get(split) for split in ("train", "val", "test")]
        train = splits[0]
        images, objects = (
            " / ".join(f"{split[key]:,}" if split else "–" for split in splits)
            for key in ("images", "objects")
        )
        each = "{min}, {median:g}, {max}".format(**train["objects_per_image"])
        size = " × ".join(span(train[side]) for side in ("image_width", "image_height"))
        boxes = ", ".join(f"{train['box_size'][q]:g}" for q in ("5", "50", "95"))
        title = f"[`{name}`]({about['home']})" if about["home"] else f"`{name}`"
        rows.append(
            f"| {title} | {images} | {objects} | {len(about['classes'])} | {each} | {size} "
            f"| {boxes} | {about['licence']} |"
        )
    return "\n".join(rows)


def span(values: dict) -> str:
    ends = sorted({values["min"], values["max"]})
    return "–".join(str(end) for end in ends)


def filled(text: str, **parts: Callable[[], str]) -> str:
    """Writes what functions make between the markers of their names."""
    for name, make in parts.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, rest = text.split(start)
        text = before + start + make() + "\n" + end + rest.split(end)[1]
    return text


def recipe(text: str, card: dict) -> str:
    """Writes what a card says into the lines `Time:` and `Result:` of a recipe's docstring."""
    epochs = f"{card['epochs']} epoch{'s' * (card['epochs'] != 1)}"
    shown = [f"{in_words(name)} {value:.3f}" for name, value in Card(card).headlines().items()]
    lines = {
        "Time": f"{card['training_minutes']:.0f} minutes on {place_of(card['cost'])}, {epochs}.",
        "Result": f"{', '.join(shown)} on `{card['metrics_split']}`.",
    }
    for key, value in lines.items():
        lines_of = textwrap.fill(f"{key}: {value}", 100, break_on_hyphens=False)
        # With the lines that go on: up to an empty one, the next key or the end of the docstring.
        pattern = rf"^{key}:.*(?:\n(?!\s*$|[A-Z]\w*:|\"\"\").*)*"
        text, count = re.subn(
            pattern, lambda _, new=lines_of: new, text, count=1, flags=re.MULTILINE
        )
        if not count:
            raise ValueError(f"the docstring of {card['recipe']} has no line {key!r}")
    return text


def place_of(cost: dict) -> str:
    if cost["device"] != "CPU":
        return f"one {cost['device']}"
    return f"{cost['cores']} CPU core{'s' * (cost['cores'] != 1)}"


def in_words(name: str) -> str:
    """A metric as a reader calls it: `segmentation_iou_nucleus` is "IoU of nucleus"."""
    if name in WORDS:
        return WORDS[name]
    for start, word in PARTS.items():
        if name.startswith(start):
            return f"{word} of {name.removeprefix(start).replace('_', ' ')}"
    task, kind = name.rsplit("_", 1)
    return f"{kind} of {task}"


WORDS = {
    "detection_AP": "box AP",
    "detection_AP50": "AP50",
    "segmentation_mean_iou": "mean IoU",
    "instances_PQ": "PQ",
    "distance_mae": "MAE of distance",
}
PARTS = {
    "segmentation_iou_": "IoU",
    "segmentation_dice_": "Dice",
    "segmentation_image_dice_": "Dice by picture",
}


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args(given)
    os.environ.pop("MTL_KERAS_ZOO", None)  # One's own models are not in the tables.
    files = {
        ROOT / "README.md": lambda text: filled(text, models=models, ledger=ledger),
        ROOT / "docs" / "sharing.md": lambda text: filled(text, ways=ways),
        ROOT / "docs" / "data.md": lambda text: filled(text, sets=sets),
        ROOT / "docs" / "balancing.md": lambda text: filled(text, methods=methods),
    }
    for name in list_models():
        card = info(name)
        files[ROOT / card["recipe"]] = lambda text, card=card: recipe(text, card)
    for path, fill in files.items():
        old = path.read_text(encoding="utf-8")
        new = fill(old)
        if new != old and arguments.check:
            sys.exit(f"{path.name} is not up to date: run python zoo/tables.py")
        if new != old:
            path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
