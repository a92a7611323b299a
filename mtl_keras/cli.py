"""The command line: `mtl-keras list | info | predict | check-data | train | finetune | export`.

What is heavy is imported inside the commands, so that `mtl-keras --help` and `list` are fast.
"""

import contextlib
import enum
import json
import os
import pathlib
import traceback
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from typer.core import TyperGroup

# What pictures that `predict` writes are marked with.
RESULT_OF = "mtl-keras predict"
# Errors that tell users what to do differently, where mtl_keras itself raised them.
_OF_USERS = (ValueError, TypeError, OSError, ImportError, RuntimeError, FloatingPointError)


class _Group(TyperGroup):
    """Commands whose errors of use are one line, and whose other errors keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except _OF_USERS as error:
            if not _is_ours(error):
                raise
            _complain(str(error))
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Multi-task learning for Keras: find, use, fine-tune and export models.",
)


class OnBad(enum.StrEnum):
    """What to do with images and labels that can't be used."""

    strict = "strict"
    quarantine = "quarantine"


Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Name of a published model, folder or address of one, or path of a .keras file.",
    ),
]


def main() -> None:
    """Runs the command line."""
    app()


@app.command("list")
def list_models(
    pattern: Annotated[str, typer.Argument(help='With wildcards, such as "*nuclei*".')] = "*",
    names_only: Annotated[
        bool, typer.Option("--names", help="Names alone, one a line, for scripts.")
    ] = False,
) -> None:
    """List the published models, with what they do, reach and cost."""
    from mtl_keras import zoo

    names = zoo.list_models(pattern)
    if not names:
        raise ValueError(
            f"no published model matches {pattern!r}; the models are {zoo.list_models()}"
        )
    if names_only:
        typer.echo("\n".join(names))
    else:
        console = Console()
        console.print(_models({name: zoo.info(name) for name in names}, console.width))


@app.command()
def info(
    name: Annotated[
        str, typer.Argument(help="Name of a published model, a folder, or an address of a hub.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="The whole card, as it is in card.json.")
    ] = False,
) -> None:
    """Show what a model is, was trained on and reaches, and under which licences it is."""
    from mtl_keras import zoo

    card = zoo.info(name)
    if as_json:
        typer.echo(json.dumps(card, indent=2))
    else:
        typer.echo(card.text(min(Console().width, 100)))


@app.command()
def predict(
    images: Annotated[list[pathlib.Path], typer.Argument(help="Image files.")],
    model: Model,
    out: Annotated[pathlib.Path, typer.Option(help="Folder to write to.")],
    score_threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Boxes that score less are left out; by default what the model says.",
        ),
    ] = None,
) -> None:
    """Find objects in images.

    For each image, OUT gets NAME_prediction.png (all tasks side by side), for each task with a
    mask NAME_mask.png (class ids; 0 is background), and for each with distances NAME_distance.png
    (16 bits; 65535 is a distance of 1). A model of boxes and a mask of the same classes also gives
    NAME_instances.png (16 bits; 0 is none, i the i-th box). OUT/predictions.json holds the rest:
    boxes (x1, y1, x2, y2 in pixels), scores, class ids and names. An image that can't be read is
    named and left out.
    """
    from mtl_keras import draw

    draw.require_opencv()
    missing = [str(path) for path in images if not path.exists()]
    if missing:
        raise FileNotFoundError(f"there is no image file {', '.join(map(repr, missing))}")
    stems = _stems(images)
    network = _load(model)
    _keep_others(images, stems, out, network)
    out.mkdir(parents=True, exist_ok=True)
    found, failed = [], 0
    for path, stem in track(
        list(zip(images, stems, strict=True)), "Predicting", console=_console()
    ):
        try:
            found.append(_predict_one(network, path, out, stem, score_threshold))
        except ValueError as error:
            if not _is_ours(error):
                raise
            failed += 1
            _complain(str(error))
    limits = {
        task.name: task.confidence if score_threshold is None else score_threshold
        for task in network.tasks
        if any("scores" in one[task.name] for one in found)
    }
    results = {"model": model, "score_threshold": limits, "images": found}
    (out / "predictions.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"{len(found)} of {len(images)} images predicted, written to {out}")
    if failed:
        raise typer.Exit(1)


@app.command("check-data")
def check_data(
    path: Annotated[pathlib.Path, typer.Argument(help="Folder of labelled images, in any layout.")],
    layout: Annotated[
        str | None,
        typer.Option(
            help="Layout of the folder, if it could be taken for several: coco_panoptic, coco, "
            "voc, yolo, mask_folders or columns."
        ),
    ] = None,
    html: Annotated[
        pathlib.Path | None, typer.Option(help="Page to write, with pictures; it needs no network.")
    ] = None,
    json_file: Annotated[
        pathlib.Path | None, typer.Option("--json", help="File to write all of it to, as JSON.")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Images that the page shows with their labels.")
    ] = 24,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Side in pixels at which it is to be trained, by which sizes of objects are "
            "judged; default: that of the largest image, at most 640.",
        ),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(min=0, help="Problems and warnings of a kind that are listed; 0: all."),
    ] = 20,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as problems.")] = False,
    fail: Annotated[
        bool, typer.Option("--fail/--no-fail", help="Whether problems make the exit code 1.")
    ] = True,
) -> None:
    """Check labelled images before training on them. Nothing is changed.

    Opens every image and label, and lists by file and line what can't be used, what is odd, and
    pictures that are there twice; counts what there is of each class and kind of label.

    Exit code: **0** nothing wrong, or only warnings; **1** problems found (with `--strict`,
    warnings too); **2** the check could not run. A picture that is in two splits is a problem, one
    that is twice in a split a warning. With `--no-fail`, 0 takes the place of 1.
    """
    with _exit_code(2):
        from rich.progress import Progress

        from mtl_keras import data, draw
        from mtl_keras.data.checking import terminal

        for file in (html, json_file):
            if file is not None and not file.resolve().parent.is_dir():
                raise FileNotFoundError(f"there is no folder {str(file.resolve().parent)!r}")
        if html is not None and samples:
            draw.require_opencv()
        with Progress(console=_console(), transient=True) as bar:
            task = bar.add_task("Checking", total=None)
            report = data.check(
                path,
                layout,
                image_size,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
            if html is not None:
                bar.update(task, description="Drawing", total=None)
                report.save_html(html, samples)
        if json_file is not None:
            json_file.write_text(json.dumps(report.to_dict(), indent=1) + "\n", "utf-8")
        terminal.show(report, Console(), limit)
        for file in (html, json_file):
            if file is not None:
                typer.echo(f"Written to {file}")
    if fail and (report.problems or (strict and report.warnings)):
        raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(help="Recipe file, or the name of one in ./zoo/recipes.")
    ],
    out: Annotated[pathlib.Path, typer.Option(help="Folder to write to.")],
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Fewer than the recipe says, for a trial.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another than the recipe's.")] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="A smoke run: few and small images.")
    ] = False,
    arrays: Annotated[
        pathlib.Path | None,
        typer.Option(help="Folder of prepared batches to read, see docs/recipes.md."),
    ] = None,
) -> None:
    """Train a model by its recipe. The same command continues an interrupted run."""
    from mtl_keras.training import recipe as recipes

    recipes.train(recipes.load_recipe(recipe, seed, fast), out, epochs, arrays)
    typer.echo(f"The model is {out / 'model.keras'}")


@app.command()
def finetune(
    model: Model,
    data: Annotated[
        str,
        typer.Option(
            help="Folder of labelled images: COCO, COCO panoptic, Pascal VOC, YOLO, images beside "
            'masks; or "digits", the embedded set.'
        ),
    ],
    out: Annotated[pathlib.Path, typer.Option(help="Folder to write to.")],
    on_bad: Annotated[
        OnBad,
        typer.Option(
            help="What to do with images and labels that can't be used: stop at the first, or "
            "leave them out, say how many, and train on the rest."
        ),
    ] = OnBad.strict,
    epochs: Annotated[int, typer.Option(min=1)] = 20,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step.")] = 8,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="The highest.")] = 5e-4,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=32,
            help="Longest side in pixels, a multiple of 32, to which images are fitted; default: "
            "that of the largest image, but not more than the model has.",
        ),
    ] = None,
) -> None:
    """Fine-tune a model on your own images. The same command continues an interrupted run.

    OUT gets model.keras, which the other commands take as --model, and history.csv. Without a
    split val, a fifth of the images is held out to measure on.
    """
    builder, found = _builder(data, on_bad.value)

    from mtl_keras.training.finetune import finetune as run
    from mtl_keras.training.finetune import image_size_for, splits, with_classes

    train_split, val_split = splits(builder)
    counts = [builder.info.splits[split].num_examples for split in (train_split, val_split)]
    typer.echo(
        f"{found}\n{counts[0]} images to train on, {counts[1]} held out to measure on "
        f"(split {val_split})"
    )
    network = _load(model)
    size = (image_size, image_size) if image_size else image_size_for(builder, network.image_size)
    names = builder.info.features["objects"]["label"].names
    mask_names = (builder.info.metadata or {}).get("mask_names")
    network = with_classes(network, names, size, mask_names)
    typer.echo(f"Images are fitted into {size[0]} x {size[1]} pixels")
    metrics = run(network, builder, out, epochs, batch_size, learning_rate)
    table = Table("metric", "value", title=f"On the {counts[1]} images held out")
    for name, value in sorted(metrics.items(), key=lambda item: item[0].endswith("loss")):
        table.add_row(name, f"{value:.4f}")
    Console().print(table)
    for task in network.tasks:
        if f"{task.name}_F1" in metrics:
            typer.echo(f"Boxes that score {task.confidence} or more are shown: best F1")
    typer.echo(f"The model is {out / 'model.keras'}")


@app.command()
def export(
    model: Model,
    out: Annotated[pathlib.Path, typer.Option(help="New folder to write to.")],
) -> None:
    """Export a model as a TensorFlow SavedModel for serving."""
    from mtl_keras import export as exports

    path = exports.saved_model(_load(model), out)
    typer.echo(f'Written to {path}; load it with tf.saved_model.load("{path}")')


# === What the commands share ===
@contextlib.contextmanager
def _exit_code(code: int) -> Iterator[None]:
    """Gives errors another exit code than 1, where that means something else."""
    try:
        yield
    except Exception as error:
        if isinstance(error, _OF_USERS) and _is_ours(error):
            _complain(str(error))
        else:
            traceback.print_exc()
        raise typer.Exit(code) from None


def _models(cards: dict[str, Any], width: int) -> Table:
    """A row a model. Names say how tasks share and on which data, so narrow ones leave that out."""
    wide = width >= 110
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2 if wide else 1, 0, 0),
        caption="AP50 of boxes and mean IoU of masks are of the split that the card names: "
        "mtl-keras info NAME",
        caption_justify="left",
    )
    table.add_column("name", overflow="fold", no_wrap=True)
    table.add_column("tasks", min_width=12, overflow="fold")
    if wide:
        table.add_column("data", max_width=16)
        table.add_column("sharing")
    for title in (
        ("parameters", "AP50", "mean IoU", "MB") if wide else ("params", "AP50", "IoU", "MB")
    ):
        table.add_column(title, justify="right", no_wrap=True)
    for name, card in cards.items():
        metrics, tasks = card.get("metrics") or {}, card["tasks"]
        found = [
            next((metrics[key] for task in tasks if (key := f"{task}_{of}") in metrics), None)
            for of in ("AP50", "mean_iou")
        ]
        said = [card.get("data", {}).get("name", "–")]
        said.append(card.get("sharing", "–") if len(tasks) > 1 else "–")
        table.add_row(
            name,
            ", ".join(tasks),
            *(said if wide else ()),
            f"{card['parameters'] / 1e6:.2f} M",
            *("–" if value is None else f"{value:.3f}" for value in found),
            f"{sum(about['bytes'] for about in card['files'].values()) / 1e6:.1f}",
        )
    return table


def _load(name: str) -> Any:
    """Loads a published model by its name, or a model that `finetune` or `train` saved."""
    path = pathlib.Path(name)
    with _console().status(f"Loading {name} …"):
        if path.suffix != ".keras" or path.is_dir() or "://" in name:
            from mtl_keras import zoo

            return zoo.load(name)
        if not path.is_file():
            raise FileNotFoundError(f"there is no model file {name!r}")
        import zipfile

        if not zipfile.is_zipfile(path):
            raise ValueError(f"{name!r} is damaged, or no model that Keras saved")
        from mtl_keras.training import MultiTaskModel, load_model

        model = load_model(path, compile=False)
        if not isinstance(model, MultiTaskModel):
            raise ValueError(
                f"{name!r} holds a {type(model).__name__}; it must hold a MultiTaskModel, as "
                "`mtl-keras finetune` and `mtl-keras train` save"
            )
        return model


def _builder(data: str, on_bad: str) -> tuple[Any, str]:
    """The set, and what was found: its layout, images by split, classes."""
    import warnings

    from mtl_keras import data as sources

    if data == "digits":
        builder, layout = sources.digits(), "digits"
    else:
        from mtl_keras.data.from_folder import read_folder
        from mtl_keras.data.importing import prepare

        source = read_folder(data, on_bad=on_bad)
        layout = source.layout
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            builder = prepare(source, on_bad=on_bad)
        for warning in caught:
            _console().print(f"Warning: {warning.message}", style="yellow", markup=False)
    splits = ", ".join(f"{s} {i.num_examples}" for s, i in builder.info.splits.items())
    names = builder.info.features["objects"]["label"].names
    found = f"Layout: {layout}\nImages: {splits}\nClasses: {', '.join(names) or 'none of objects'}"
    mask_names = (builder.info.metadata or {}).get("mask_names")
    if mask_names is not None and list(mask_names) != list(names):
        found += f"\nClasses of pixels: {', '.join(mask_names)}"
    return builder, found


def _stems(images: list[pathlib.Path]) -> list[str]:
    """Returns a name for the results of each image."""
    stems: list[str] = []
    for path in images:
        stem, number = path.stem, 2
        while stem in stems:
            stem, number = f"{path.stem}_{number}", number + 1
        stems.append(stem)
    return stems


def _keep_others(
    images: list[pathlib.Path], stems: list[str], out: pathlib.Path, model: Any
) -> None:
    """Makes sure that results overwrite no image or label, but only results."""
    given = {path.resolve() for path in images}
    parts = dict.fromkeys(["prediction", "instances", "mask", *(task.name for task in model.tasks)])
    for stem in stems:
        for part in parts:
            path = out.resolve() / f"{stem}_{part}.png"
            if path in given or (path.exists() and not _is_result(path)):
                raise ValueError(
                    f"`--out` holds {str(path)!r}, which is no result of `mtl-keras predict` and "
                    "which a result would overwrite; give another folder"
                )


def _save_result(image: Any, path: pathlib.Path) -> None:
    """Saves a picture with a mark by which `_is_result` knows it."""
    from PIL.PngImagePlugin import PngInfo

    mark = PngInfo()
    mark.add_text("Software", RESULT_OF)
    image.save(path, pnginfo=mark)


def _is_result(path: pathlib.Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.info.get("Software") == RESULT_OF
    except OSError:  # No picture, so that it is none of ours.
        return False


def _predict_one(
    model: Any, path: pathlib.Path, out: pathlib.Path, stem: str, score_threshold: float | None
) -> dict:
    import numpy as np
    from PIL import Image

    from mtl_keras.data import read_image
    from mtl_keras.draw import draw_predictions

    image = read_image(path)
    (found,) = model.predict_images([image], score_threshold=score_threshold)
    result: dict = {"image": str(path), "height": image.shape[0], "width": image.shape[1]}
    object_names = None
    for task in model.tasks:
        predictions = dict(found[task.name])
        if "mask" in predictions:
            file = f"{stem}_mask.png" if task.name == "segmentation" else f"{stem}_{task.name}.png"
            _save_result(Image.fromarray(predictions.pop("mask").astype("uint8")), out / file)
            names = [task.class_name(c) for c in range(task.num_classes)]
            result[task.name] = {"mask": file, "class_names": names}
        elif "distance" in predictions:
            file = f"{stem}_{task.name}.png"
            grey = np.rint(65535.0 * np.clip(predictions["distance"], 0.0, 1.0))
            _save_result(Image.fromarray(grey.astype("uint16")), out / file)
            result[task.name] = {"distance": file}
        else:
            names = [task.class_name(int(c)) for c in predictions["classes"]]
            values = {key: value.tolist() for key, value in predictions.items()}
            result[task.name] = {**values, "class_names": names}
            if "boxes" in predictions:
                object_names = [task.class_name(c) for c in range(task.num_classes)]
    if "instances" in found and "instances" not in result:
        file = f"{stem}_instances.png"
        _save_result(Image.fromarray(found["instances"]["mask"].astype("uint16")), out / file)
        result["instances"] = {"mask": file}
    if not any({"boxes", "mask", "distance"} & set(predictions) for predictions in found.values()):
        return result  # There is nothing to draw.
    picture = f"{stem}_prediction.png"
    _save_result(draw_predictions(image, found, object_names), out / picture)
    return {**result, "picture": picture}


def _is_ours(error: BaseException) -> bool:
    """Says whether mtl_keras raised the error itself, so that its message is meant for the user."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return where.split(".")[0] == "mtl_keras"


def _complain(message: str) -> None:
    _console().print(
        f"Error: {message}", style="red", markup=False, highlight=False, soft_wrap=True
    )


def _console() -> Console:
    return Console(stderr=True)
