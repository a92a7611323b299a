"""Draws what published models find: the pictures of cards, and those of docs/gallery.md.

Command: python zoo/gallery.py                   (docs/gallery.md and its pictures)
         python zoo/gallery.py --cards           (the pictures of all cards anew, and captions)
         python zoo/gallery.py --out FOLDER      (pictures of all models, with photographs)

Pictures are those at fixed positions of the validation split, the same for all models. Without
`--out` they show labels and predictions on a plain ground and nothing of the photographs, which
not all sets allow to be passed on. Whoever has the sets can look at them with photographs.
"""

import argparse
import io
import os
import pathlib
from functools import partial

import numpy as np
from compare import SETS

import mtl_keras as mtl
from mtl_keras.draw import class_colour, draw_labels, draw_predictions
from mtl_keras.training.recipe import load_recipe
from mtl_keras.zoo import info, list_models, load, registry

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
MODEL = "efficientnet_lite0_hard_{}"
# Where in the validation split the pictures are, as shares of its length.
PLACES = (0, 1 / 3, 2 / 3)
CARD_BYTES, README_BYTES = 150_000, 400_000
# Longer sides of a panel in pixels: the first with which the file is small enough is taken.
SIDES = (448, 384, 320, 256, 192)
GROUND, GAP, TEXT = 244, 12, 20
INK = (40, 40, 40)
KEYS = {"boxes": ("boxes", "classes"), "mask": ("mask",)}
WORDS = {"boxes": "predicted boxes", "mask": "predicted masks", "distance": "predicted distances"}


# === Pictures of a model ===
def prediction(model, builder, recipe, path: pathlib.Path) -> list[dict]:
    """Draws the picture of a model's card. Returns what the card says of it."""
    examples = predict(model, builder, recipe.val_split)
    save(lambda side: draw(model, examples, side), path, CARD_BYTES)
    count = builder.info.splits[recipe.val_split].num_examples
    return [{"file": path.name, "caption": caption(model.tasks, recipe, count)}]


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


def caption(tasks, recipe, count: int) -> str:
    """What is in which column, which pictures these are and where the photographs are."""
    places = ", ".join(map(str, positions(count)))
    licence = recipe.about.get("licences", {}).get("data", "not known")
    limits = [task.confidence for task in tasks if kind(task) == "boxes"]
    scores = "".join(f" Boxes are those that score {limit} or more." for limit in limits)
    return (
        f"From left to right: {'; '.join(['labels', *titles(tasks)])}.{scores} The pictures at "
        f"positions {places} of the {count} of `{recipe.val_split}`: fixed ones, the same for all "
        "models, not chosen for their looks. Photographs are left out: this project passes none of "
        f"a set on (the licence of this one: {licence}). `python zoo/gallery.py --out FOLDER` "
        "draws them too for those who have the sets."
    )


# === Drawing ===
def titles(tasks) -> list[str]:
    """The columns of predictions of a model with these tasks."""
    from mtl_keras.tasks import instance_tasks

    kinds = [kind(task) for task in tasks]
    columns = [WORDS[one] for one in kinds if one]
    if {"boxes", "mask"} <= set(kinds):
        columns.append("both, with instances" if instance_tasks(tasks) else "both")
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
    heads = ["photograph"] * photographs + ["labels", *titles(model.tasks)]
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
        pen.text((i * (width + GAP), 0), text, fill=INK, font=font())
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
    wanted, labelled = set(kinds.values()), labels["labelled"]

    def over(instances=None, **drawn):
        panel = draw_labels(image, **drawn, class_names=names, longer_side=side)
        return panel if instances is None else outlined(panel, instances, photographs)

    known = {}
    if "boxes" in wanted and labelled["boxes"]:
        known |= {"boxes": labels["boxes"], "classes": labels["classes"]}
    if "mask" in wanted and labelled["mask"]:
        known["mask"] = labels["mask"]
    if len(wanted) > 1 and labelled["instances"]:
        known["instances"] = labels["instances"]
    row = ([over()] if photographs else []) + [over(**known)]
    together = {}
    for name, one in kinds.items():
        if one == "distance":
            row.append(draw_predictions(image, {name: found[name]}).resize(row[0].size))
            continue
        drawn = {key: found[name][key] for key in KEYS[one]}
        row.append(over(**drawn))
        together |= drawn
    if {"boxes", "mask"} <= wanted:
        if "instances" in found:
            together["instances"] = found["instances"]["mask"]
        row.append(over(**together))
    return row


def outlined(panel, instances: np.ndarray, photographs: bool):
    """Draws the outlines of instances: white over photographs, dark over a light ground."""
    from PIL import Image

    black = np.zeros((*instances.shape, 3), "uint8")
    edges = np.asarray(draw_labels(black, instances=instances, longer_side=max(panel.size)))
    pixels = np.array(panel)
    pixels[edges[..., 0] > 0] = 255 if photographs else INK
    return Image.fromarray(pixels)


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

    def text(index: int) -> str:
        return names[index].replace("_", " ")

    places, x, line = [], 0, 0
    for index in sorted(there):
        length = TEXT + 6 + int(font().getlength(text(index))) + 24
        if x and x + length > width:
            x, line = 0, line + 1
        places.append((index, x, line * (TEXT + 8)))
        x += length
    picture = Image.new("RGB", (width, (line + 1) * (TEXT + 8)), "white")
    pen = ImageDraw.Draw(picture)
    for index, left, top in places:
        pen.rectangle((left, top + 4, left + TEXT - 2, top + TEXT + 2), fill=class_colour(index))
        pen.text((left + TEXT + 6, top), text(index), fill=INK, font=font())
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


# === Gallery ===
def published() -> dict[str, str]:
    """The hard-shared model of each set that has a published one."""
    return {data: MODEL.format(data) for data in SETS if MODEL.format(data) in list_models()}


def of_recipes() -> list[str]:
    """The published models that have a recipe here."""
    return [name for name in list_models() if path_of_recipe(name).is_file()]


def path_of_recipe(name: str) -> pathlib.Path:
    return ROOT / "zoo" / "recipes" / f"{name}.py"


def recipe_of(name: str):
    return load_recipe(path_of_recipe(name))


def together(drawn: dict, side: int, photographs: bool = False):
    """Draws the first picture of each set, one below the other."""
    from PIL import Image, ImageDraw

    parts = [
        (f"{data}: {model.name}", draw(model, examples[:1], side, photographs))
        for data, (model, examples) in drawn.items()
    ]
    line = TEXT + GAP
    width = max(part.width for _, part in parts)
    height = sum(part.height + line + 2 * GAP for _, part in parts) - 2 * GAP
    picture = Image.new("RGB", (width, height), "white")
    pen, top = ImageDraw.Draw(picture), 0
    for title, part in parts:
        pen.text((0, top), title, fill=INK, font=font(), stroke_width=0.5)
        picture.paste(part, (0, top + line))
        top += part.height + line + 2 * GAP
    return picture


def page() -> str:
    """The text of docs/gallery.md; it follows from cards and recipes alone."""
    import keras

    models = published()
    lines = [
        "<!-- written by zoo/gallery.py -->",
        "# What the models find",
        "Labels and predictions of the hard-shared model of each set of the zoo, on pictures of "
        "the validation split, on which it was not trained. Filled areas are masks and rectangles "
        "boxes, both in the colours of classes; thin dark lines are the outlines of instances. "
        "Other models have the same picture in their cards.",
    ]
    for data in SETS:
        lines.append(f"## {data}: {mtl.data.info(data)['title']}")
        if data not in models:
            lines.append(f"Left out: `{MODEL.format(data)}` is not published yet.")
            continue
        name = models[data]
        recipe = recipe_of(name)
        tasks = keras.saving.deserialize_keras_object(info(name)["config"]["tasks"])
        text = caption(tasks, recipe, mtl.data.info(data)["splits"][recipe.val_split]["images"])
        card = pathlib.Path(os.path.relpath(registry.find(name).folder / "card.md", DOCS))
        lines.append(f"[`{name}`]({card.as_posix()})")
        lines.append(f"![{data}: labels and predictions](gallery_{data}.png)")
        lines.append(f"*{text}*")
    return "\n\n".join(lines) + "\n"


def open_model(name: str):
    """A published model, and labels and predictions of its pictures."""
    recipe = recipe_of(name)
    model = load(name)
    return model, predict(model, recipe.data(), recipe.val_split)


def write_docs() -> None:
    """Writes docs/gallery.md and its pictures."""
    drawn = {}
    for data, name in published().items():
        drawn[data] = model, examples = open_model(name)
        save(partial(draw, model, examples), DOCS / f"gallery_{data}.png", CARD_BYTES)
    save(partial(together, drawn), DOCS / "gallery.png", README_BYTES)
    (DOCS / "gallery.md").write_text(page(), encoding="utf-8")


def write_cards() -> None:
    """Draws the pictures of all cards anew; what else the cards say stays."""
    import evaluate

    for name in of_recipes():
        recipe = recipe_of(name)
        path = registry.find(name).folder / "prediction.png"
        pictures = prediction(load(name), recipe.data(), recipe, path)
        card = info(name)
        others = [one for one in card.get("pictures", []) if one["file"] != path.name]
        evaluate.save_card(name, {**card, "pictures": pictures + others})


def write_photographs(out: pathlib.Path) -> None:
    """Writes the pictures of all published models, with photographs, and the gallery."""
    out.mkdir(parents=True, exist_ok=True)
    models, drawn = published(), {}
    for name in of_recipes():
        model, examples = open_model(name)
        save(partial(draw, model, examples, photographs=True), out / f"{name}.png", None)
        drawn |= {data: (model, examples) for data, one in models.items() if one == name}
    drawn = {data: drawn[data] for data in models}
    save(partial(together, drawn, photographs=True), out / "gallery.png", None)


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=pathlib.Path, help="folder to write pictures with photographs to"
    )
    parser.add_argument("--cards", action="store_true", help="draw the pictures of all cards anew")
    arguments = parser.parse_args(given)
    if arguments.cards:
        write_cards()
    elif arguments.out is None:
        write_docs()
    elif arguments.out.resolve().is_relative_to(ROOT):
        parser.error("--out must lie outside of the repository, which holds no photographs")
    else:
        write_photographs(arguments.out)


if __name__ == "__main__":
    main()
