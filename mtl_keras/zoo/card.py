"""The card of a model: what it is, was trained on, reaches and costs, and how it may be used."""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

from mtl_keras.zoo.card_schema import CARD, check_fields

# Metrics by which models are compared first, without the task's name.
HEADLINES = ("AP", "AP50", "mean_iou", "PQ", "mae", "accuracy")
# Metrics of one class that do so too where there is only one beside background.
ONE_CLASS = ("iou", "dice", "image_dice")


class Card(dict):
    """What is known of a published model: a dict that is plain JSON, with a check and three looks.

    `print(card)` is for a terminal, `card.markdown()` for a page; notebooks show the page. The keys
    are those of `card.json`:

    - `schema` (1), `name`, `description`, `recipe`, `intended_use`, `limits`;
    - `tasks`, `classes` by task (empty where it has none), `sharing`, `input` (`letterbox` as
      `[height, width]`, `channels`, `range`; or `sequence` and `dtype`), `parameters`,
      `shared_fraction`, and `config`, which builds the network;
    - `data` (`name`, `title`, `licence`, `citation`, `home`, `images` by split) and `licences`
      (`code`, `weights`, `data`, `trunk`);
    - `metrics`, the split they are of (`metrics_split`), the command that measures them
      (`metrics_command`), `metrics_before_rounding` of weights, and `expected`: `metrics` on the
      first `images` of the split, for a quick check. A metric without a value is `None`;
    - `training` (`epochs`, `steps`, `batch_size`, `train_size`, `augment`, `optimizer`, `ema`,
      `balancing` where losses are not just added up, `seed`), `training_minutes`, `epochs` and
      `cost` (`cpu_hours`, `cores`, `device`);
    - `versions` of packages, `files` by name (`sha256`, `bytes`, `dtype`) and `pictures`, a list of
      `file` and `caption`.

    A card of a model that you saved yourself may lack what nobody told: it must have what loading
    needs, and what it has must be right.

    Args:
        *args: What `dict` takes.
        **kwargs: Keys and values.

    Example:

    ```python
    from mtl_keras.zoo import info
    from mtl_keras.zoo.card import Card
    card = Card(info("efficientnet_lite0_hard_nuclei"))
    card.check(complete=True)
    assert card["licences"]["data"] == "CC0"
    assert card.markdown().startswith("# efficientnet_lite0_hard_nuclei")
    ```
    """

    def check(self, complete: bool = False) -> None:
        """Checks every key and value against the schema.

        Args:
            complete: Whether the card must hold everything, as those of published models do, but
                for what some models do not have: a page of the data set, a citation, pictures, a
                trunk with a licence of its own.

        Raises:
            ValueError: If a key is missing or unknown, or a value has the wrong type or is not
                allowed. The message names the key.

        Example:

        ```python
        from mtl_keras.zoo.card import Card
        try:
            Card(schema=1, name="mine", task=["detection"]).check()
        except ValueError as error:
            assert "'task'" in str(error) and "'tasks'" in str(error)
        ```
        """
        check_fields(self, CARD, complete)
        tasks = set(self["tasks"])
        if stray := sorted(set(self["classes"]) - tasks):
            raise ValueError(
                f"the card's 'classes' names {stray}, which 'tasks' does not: {sorted(tasks)}"
            )
        trained = self.get("training", {}).get("epochs")
        if trained is not None and self.get("epochs", trained) != trained:
            raise ValueError(
                f"the card's 'epochs', {self['epochs']}, is not that of its 'training', {trained}"
            )

    # === Looks ===
    def __str__(self) -> str:
        return self.text()

    def text(self, width: int = 88) -> str:
        """Writes the card for a terminal, as `print(card)` does.

        Args:
            width: Columns of the terminal, at which lines are wrapped; longer addresses are not.

        Returns:
            String. What the card does not hold is not in it.

        Example:

        ```python
        from mtl_keras.zoo import info
        lines = info("efficientnet_lite0_hard_nuclei").text(width=60).splitlines()
        assert max(len(line) for line in lines if "://" not in line) <= 60
        ```
        """
        lines = [self.get("name", "model"), *_wrapped(self.get("description", ""), width=width)]
        for title, text in self._facts():
            lines += _wrapped(text, title, width)
        for title, key in (("use", "intended_use"), ("limits", "limits")):
            lines += _wrapped(self.get(key, ""), title, width)
        metrics = self.headlines()
        if metrics:
            split = self.get("metrics_split", "")
            lines.append(f"  {'metrics':<12}{f'on {split}' if split else ''}".rstrip())
            width = max(map(len, metrics))
            lines += [f"    {name:<{width}}  {_number(value)}" for name, value in metrics.items()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Card({dict.__repr__(self)})"

    def _repr_markdown_(self) -> str:
        """What a notebook shows: the page, without pictures, which lie beside the card."""
        return self.markdown(pictures=False)

    def headlines(self) -> dict[str, float]:
        """The metrics by which a model is compared first, without those of single classes.

        Where there is one class beside background, IoU and Dice of it are among them.

        Returns:
            Dict, full name to value; of what the model does not measure there is nothing.

        Example:

        ```python
        from mtl_keras.zoo.card import Card
        card = Card(
            tasks=["detection"],
            metrics={"detection_AP": 0.5, "detection_AP_cat": 0.5, "detection_AP75": 0.4},
        )
        assert card.headlines() == {"detection_AP": 0.5}
        ```
        """
        metrics = self.get("metrics", {})
        names = []
        for task in (*self.get("tasks", ()), "instances"):
            classes = self.get("classes", {}).get(task, ())
            alone = [f"{of}_{classes[1]}" for of in ONE_CLASS] if len(classes) == 2 else []
            names += [f"{task}_{metric}" for metric in (*HEADLINES, *alone)]
        return {name: metrics[name] for name in names if metrics.get(name) is not None}

    def markdown(self, pictures: bool = True) -> str:
        """Writes the card as a page.

        Args:
            pictures: Whether to show the pictures that lie beside the card.

        Returns:
            String, Markdown. What the card does not hold is not on the page.
        """
        parts = [f"# {self.get('name', 'model')}", self.get("description", "")]
        if pictures:
            parts += [
                f"![{p['caption']}]({p['file']})\n\n*{p['caption']}*"
                for p in self.get("pictures", [])
            ]
        parts.append("\n".join(f"- **{title}**: {text}" for title, text in self._facts()))
        if self.get("tasks") and self.get("name"):
            parts += ["## Use", _EXAMPLE.format(name=self["name"])]
        parts += self._section("Intended use", self.get("intended_use"))
        parts += self._section("Limits", self.get("limits"))
        if self.get("metrics"):
            parts += ["## Metrics", self._measured()]
        if "training" in self:
            parts += ["## Training", self._trained()]
        if "licences" in self:
            parts += ["## Licences", _bullets(self["licences"])]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _section(self, title: str, text: str | None) -> list[str]:
        return [f"## {title}", text] if text else []

    def _facts(self) -> list[tuple[str, str]]:
        """What is said in a line each, in both looks."""
        facts = []
        if "tasks" in self:
            names = self.get("classes", {})
            said = [
                f"{task} ({_listed(names[task])})" if names.get(task) else task
                for task in self["tasks"]
            ]
            facts.append(("tasks", ", ".join(said)))
        if "sharing" in self and len(self.get("tasks", [])) > 1:
            shared = self.get("shared_fraction")
            of = "" if shared is None else f", {shared:.1%} of the parameters are shared"
            facts.append(("sharing", f"{self['sharing']}{of}"))
        if "letterbox" in self.get("input", {}):
            height, width = self["input"]["letterbox"]
            facts.append(("input", f"RGB in [0, 255], fitted into {height} × {width} pixels"))
        elif "sequence" in self.get("input", {}):
            shape = [side or "any" for side in self["input"]["sequence"]]
            facts.append(("input", f"sequences of shape ({', '.join(map(str, shape))})"))
        if "parameters" in self:
            facts.append(("parameters", f"{self['parameters']:,}"))
        for file, about in self.get("files", {}).items():
            kind = f", {about['dtype']}" if "dtype" in about else ""
            facts.append(("file", f"{file}, {about['bytes'] / 1e6:.1f} MB{kind}"))
        if "data" in self:
            facts.append(("data", _data(self["data"])))
        if "licences" in self:
            of = self["licences"]
            kinds = [f"{kind}: {of[kind]}" for kind in ("code", "weights", "data") if kind in of]
            facts.append(("licences", "; ".join(kinds)))
        if cost := self._cost():
            facts.append(("cost", cost))
        if "recipe" in self:
            facts.append(("recipe", self["recipe"]))
        return facts

    def _cost(self) -> str:
        minutes, cost = self.get("training_minutes"), self.get("cost")
        if minutes is None or cost is None:
            return ""
        hours = f", {cost['cpu_hours']:.1f} core hours" if cost["cpu_hours"] else ""
        plural = "s" * (cost["cores"] != 1)
        return f"{minutes:.0f} minutes on {cost['cores']} core{plural} ({cost['device']}){hours}"

    def _measured(self) -> str:
        split = self.get("metrics_split")
        shown = self.headlines()
        by_class, rest = self._by_class()
        lines = [f"On `{split}`, in the pictures' own pixels:", ""] if split else []
        columns = ["metric", "value"]
        lines += _table(columns, ([name, value] for name, value in (shown | rest).items()))
        if by_class:
            columns = list(dict.fromkeys(itertools.chain.from_iterable(by_class.values())))
            rows = ([name, *map(values.get, columns)] for name, values in by_class.items())
            example = f"`{columns[0]}_{next(iter(by_class))}`"
            lines += ["", f"By class; `card.json` has them by names like {example}:", ""]
            lines += _table(["class", *columns], rows)
        if command := self.get("metrics_command"):
            lines += ["", "They are measured again by", "", f"```bash\n{command}\n```"]
        return "\n".join(lines)

    def _by_class(self) -> tuple[dict[str, dict[str, float | None]], dict[str, float | None]]:
        """Metrics of single classes, class to metric to value, and the others."""
        own = self.get("classes", {})
        names = dict.fromkeys(itertools.chain.from_iterable(own.values()))
        by_class, rest = {name: {} for name in names}, {}
        for metric, value in self["metrics"].items():
            ends = [name for name in names if metric.endswith(f"_{name}")]
            if ends:
                name = max(ends, key=len)
                by_class[name][metric.removesuffix(f"_{name}")] = value
            else:
                rest[metric] = value
        return {name: values for name, values in by_class.items() if values}, rest

    def _trained(self) -> str:
        how = self["training"]
        facts = {}
        if {"epochs", "steps", "batch_size", "train_size"} <= set(how):
            height, width = how["train_size"]
            facts["schedule"] = (
                f"{how['epochs']} epochs, {how['steps']:,} steps of {how['batch_size']} windows of "
                f"{height} × {width} pixels"
            )
        if "optimizer" in how:
            average = " and an average of the last weights" if how.get("ema") else ""
            facts["optimizer"] = f"{how['optimizer']}{average}"
        if "balancing" in how:
            facts["balancing"] = how["balancing"]
        if how.get("augment"):
            facts["augmentation"] = ", ".join(f"{k} {v}" for k, v in how["augment"].items() if v)
        if "seed" in how:
            facts["seed"] = how["seed"]
        if cost := self._cost():
            facts["environmental cost"] = cost
        return _bullets(facts)


_EXAMPLE = """```python
from mtl_keras.zoo import load

model = load("{name}")
found = model.predict_images(["picture.png"])
```"""


def plain(value: Any) -> Any:
    """Makes plain JSON of metrics and configs: NumPy numbers become Python's, NaN becomes `None`.

    Args:
        value: Number, string, `None`, or dicts, lists and tuples of such.

    Returns:
        The same of Python's own numbers, with lists in place of tuples.

    Example:

    ```python
    import numpy as np
    from mtl_keras.zoo.card import plain
    assert plain({"a": np.float32(0.5), "b": (np.nan, 1)}) == {"a": 0.5, "b": [None, 1]}
    ```
    """
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# === Writing ===
def _wrapped(text: str, title: str = "", width: int = 88) -> list[str]:
    import textwrap

    if not text:
        return []
    first = f"  {title:<12}" if title else "  "
    rest = " " * (14 if title else 2)
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,  # Addresses can be copied.
        break_on_hyphens=False,
    )


def _bullets(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"- **{title}**: {text}" for title, text in facts.items())


def _table(columns: list[str], rows: Iterable[list]) -> list[str]:
    """Lines of a table whose rows begin with a name; numbers follow."""
    cells = [[name, *map(_number, values)] for name, *values in rows]
    rule = ["---"] + ["---:"] * (len(columns) - 1)
    return [f"| {' | '.join(line)} |" for line in (columns, rule, *cells)]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _listed(names: list[str], most: int = 12) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _data(data: Mapping) -> str:
    images = ", ".join(f"{count} {split}" for split, count in data.get("images", {}).items())
    parts = [
        data.get("title", data["name"]),
        f"{images} images" if images else "",
        data.get("citation") or "",
    ]
    return "; ".join(part for part in [*parts, data.get("home") or ""] if part)
