"""Draws what published models find: the pictures of cards, and those of docs/gallery.md.

Command: python zoo/gallery.py                   (docs/gallery.md and its pictures)
         python zoo/gallery.py --out FOLDER      (the same with the photographs, into FOLDER)

Pictures are those at fixed positions of the validation split, the same for all models. Without
`--out` they show labels and predictions on a plain ground and nothing of the photographs, which
not all sets allow to be passed on. Whoever has the sets can look at them with photographs.
"""

import io
import pathlib

import numpy as np

import mtl_keras as mtl
from mtl_keras.draw import class_colour, draw_labels, draw_predictions

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
SETS = ("nuclei", "kvasir", "facades", "vhr10")
MODEL = "efficientnet_lite0_hard_{}"
# Where in the validation split the pictures are, as shares of its length.
PLACES = (0, 1 / 3, 2 / 3)
CARD_BYTES, README_BYTES = 150_000, 400_000
# Longer sides of a panel in pixels: the first with which the file is small enough is taken.
SIDES = (448, 384, 320, 256, 192)
GROUND, GAP, TEXT = 244, 12, 20
WORDS = {"boxes": "boxes", "mask": "masks", "distance": "distances"}


# === Pictures of a model ===
def prediction(model, builder, recipe, path: pathlib.Path) -> list[dict]:
    """Draws the picture of a model's card. Returns what the card says of it."""
    examples = predict(model, builder, recipe.val_split)
    save(lambda side: draw(model, examples, side), path, CARD_BYTES)
    count = builder.info.splits[recipe.val_split].num_examples
    return [{"file": path.name, "caption": caption(model, recipe, count)}]


def positions(count: int) -> list[int]:
    """Where in a split of so many images the pictures are."""
    return sorted({int(count * place) for place in PLACES})


def predict(model, builder, split: str) -> list[tuple[dict, dict]]:
    """Labels and predictions of the pictures at the fixed positions of a split."""
    examples = []
    for place in positions(builder.info.splits[split].num_examples):
        one = mtl.data.examples(builder, f"{split}[{place}:{place + 1}]")
        labels = next(iter(one.as_numpy_iterator()))
        examples.append((labels, model.predict_images([labels["image"]])[0]))
    return examples


def caption(model, recipe, count: int, photographs: bool = False) -> str:
    """What is in which column, which pictures these are and where the photographs are."""
    places = ", ".join(map(str, positions(count)))
    columns = ["labels", *titles(model)]
    text = (
        f"From left to right: {', '.join(columns)}. The pictures at positions {places} of the "
        f"{count} of `{recipe.val_split}`: fixed ones, the same for all models, not chosen for "
        "their looks."
    )
    if photographs:
        return text
    licence = recipe.about.get("licences", {}).get("data", "not known")
    return (
        f"{text} Photographs are left out, since the licences of some sets do not let them be "
        f"passed on (of this set: {licence}); `python zoo/gallery.py --out FOLDER` draws the "
        "gallery with them for those who have the sets."
    )


# === Drawing ===
def titles(model) -> list[str]:
    """The columns of predictions of a model."""
    from mtl_keras.tasks import instance_tasks

    kinds = [kind(task) for task in model.tasks]
    columns = [WORDS[one] for one in kinds if one]
    if {"boxes", "mask"} <= set(kinds):
        columns.append("both, and instances" if instance_tasks(model.tasks) else "both")
    return columns


def kind(task) -> str | None:
    """What a task gives that can be drawn."""
    tasks = mtl.tasks
    kinds = {
        tasks.Detection: "boxes",
        tasks.Segmentation: "mask",
        tasks.BoundaryDistance: "distance",
    }
    return next((key for of, key in kinds.items() if isinstance(task, of)), None)


def draw(model, examples: list[tuple[dict, dict]], side: int, photographs: bool = False):
    """Draws a row an example: labels, the predictions of each task, and all of them together."""
    from PIL import Image, ImageDraw

    names = class_names(model)
    rows = [panels(model, labels, found, side, photographs) for labels, found in examples]
    heads = ["photograph"] * photographs + ["labels", *titles(model)]
    width = max(panel.width for row in rows for panel in row)
    heights = [max(panel.height for panel in row) for row in rows]
    key = legend(names, examples, len(heads) * (width + GAP) - GAP)
    head = TEXT + GAP
    size = (
        len(heads) * (width + GAP) - GAP,
        head + sum(heights) + GAP * (len(rows) - 1) + (key.height + GAP if key else 0),
    )
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    for i, text in enumerate(heads):
        pen.text((i * (width + GAP), 0), text, fill=(40, 40, 40), font=font())
    top = head
    for row, height in zip(rows, heights, strict=True):
        for i, panel in enumerate(row):
            picture.paste(panel, (i * (width + GAP), top))
        top += height + GAP
    if key:
        picture.paste(key, (0, top))
    return picture


def panels(model, labels: dict, found: dict, side: int, photographs: bool) -> list:
    """The columns of one example; without photographs no pixel of the image is looked at."""
    image = labels["image"] if photographs else np.full_like(labels["image"], GROUND)
    names = class_names(model)
    kinds = {task.name: kind(task) for task in model.tasks if kind(task)}
    wanted = set(kinds.values())

    def over(**drawn):
        return draw_labels(image, **drawn, class_names=names, longer_side=side)

    known = {
        "boxes": {"boxes": labels["boxes"], "classes": labels["classes"]},
        "mask": {"mask": labels["mask"]},
        "instances": {"instances": labels["instances"]},
    }
    shown = [one for one in ("boxes", "mask") if one in wanted and labels["labelled"][one]]
    if wanted - {"boxes"} and wanted - {"mask"} and labels["labelled"]["instances"]:
        shown.append("instances")
    row = [over()] if photographs else []
    row.append(over(**{k: v for one in shown for k, v in known[one].items()}))
    together = {}
    for name, one in kinds.items():
        if one == "distance":
            panel = draw_predictions(image, {name: found[name]})
            row.append(panel.resize(row[0].size))
            continue
        keys = ("boxes", "classes") if one == "boxes" else ("mask",)
        drawn = {key: found[name][key] for key in keys}
        row.append(over(**drawn))
        together |= drawn
    if {"boxes", "mask"} <= wanted:
        if "instances" in found:
            together["instances"] = found["instances"]["mask"]
        row.append(over(**together))
    return row


def class_names(model) -> list[str]:
    """Names of the classes of objects, background not counted."""
    for task in model.tasks:
        first = {"boxes": 0, "mask": 1}.get(kind(task))
        if first is not None:
            return [task.class_name(c) for c in range(first, task.num_classes)]
    return []


def legend(names: list[str], examples: list[tuple[dict, dict]], width: int):
    """Colours and names of the classes in these pictures, or `None` where there is one alone."""
    from PIL import Image, ImageDraw

    if len(names) < 2:
        return None
    there = set()
    for labels, found in examples:
        for one in (labels, *found.values()):
            there |= set(np.unique(one.get("classes", ())).astype(int).tolist())
        masks = [labels["mask"]] + [
            v["mask"] for k, v in found.items() if k != "instances" and "mask" in v
        ]
        there |= {int(c) - 1 for mask in masks for c in np.unique(mask) if 0 < c < 255}
    places, x, line = [], 0, 0
    for index in sorted(there):
        length = TEXT + 6 + int(font().getlength(names[index])) + 24
        if x and x + length > width:
            x, line = 0, line + 1
        places.append((index, x, line * (TEXT + 8)))
        x += length
    picture = Image.new("RGB", (width, (line + 1) * (TEXT + 8)), "white")
    pen = ImageDraw.Draw(picture)
    for index, left, top in places:
        pen.rectangle((left, top + 4, left + TEXT - 2, top + TEXT + 2), fill=class_colour(index))
        pen.text((left + TEXT + 6, top), names[index], fill=(40, 40, 40), font=font())
    return picture


def font():
    from PIL import ImageFont

    return ImageFont.load_default(TEXT)


def save(make, path: pathlib.Path, limit: int | None) -> None:
    """Writes a PNG of at most so many bytes, in as large panels as that allows."""
    from PIL import Image

    for side in SIDES:
        picture = make(side)
        if limit is not None:
            picture = picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        data = io.BytesIO()
        picture.save(data, "PNG", optimize=True)
        if limit is None or len(data.getvalue()) <= limit:
            path.write_bytes(data.getvalue())
            return
    raise ValueError(f"{path.name} is larger than {limit} bytes even in panels of {SIDES[-1]} px")
