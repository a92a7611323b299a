"""Writes the tables of README.md, the recipes and docs/, from cards and docstrings.

Command: python zoo/tables.py          (--check: write nothing, say whether all is up to date)
"""

import argparse
import inspect
import pathlib
import re
import sys
from collections.abc import Callable

import mtl_keras as mtl
from mtl_keras.balancing import _BALANCINGS
from mtl_keras.zoo import info, list_models, load

ROOT = pathlib.Path(__file__).parents[1]


def models() -> str:
    rows = [
        "| model | input | parameters | shared | box AP | AP50 | IoU by class | PQ | file |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for name in list_models():
        card = info(name)
        metrics = card["metrics"]
        height, width = card["input"]["letterbox"]
        rows.append(
            f"| `{name}` | {height} × {width} | {card['parameters'] / 1e6:.2f} M "
            f"| {card['shared_fraction']:.1%} | {metrics['detection_AP']:.3f} "
            f"| {metrics['detection_AP50']:.3f} | {ious(card)} | {metrics['instances_PQ']:.3f} "
            f"| {card['files']['weights.npz']['bytes'] / 1e6:.1f} MB |"
        )
    return "\n".join(rows)


def ious(card: dict) -> str:
    return ", ".join(
        f"{label} {card['metrics'][f'segmentation_iou_{label}']:.3f}"
        for label in card["classes"]["segmentation"]
    )


def ledger() -> str:
    return f"```text\n{mtl.sharing_report(load(list_models()[0]))}\n```"


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
    metrics = card["metrics"]
    lines = {
        "Time": f"{card['training_minutes']:.0f} minutes on two CPU cores, "
        f"{card['epochs']} epochs.",
        "Result": f"box AP {metrics['detection_AP']:.3f}, AP50 {metrics['detection_AP50']:.3f}, "
        f"IoU {ious(card)} on `{card['metrics_split']}`.",
    }
    for key, value in lines.items():
        text = re.sub(rf"^{key}:.*$", f"{key}: {value}", text, count=1, flags=re.MULTILINE)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
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
        path.write_text(new, encoding="utf-8")
