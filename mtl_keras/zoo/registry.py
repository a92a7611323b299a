"""Which models there are, and where a name leads. Heavy rooms are imported only by `load`."""

import dataclasses
import fnmatch
import importlib.util
import json
import os
import pathlib
from typing import Any

from mtl_keras.nearest import did_you_mean
from mtl_keras.zoo import sources
from mtl_keras.zoo.card import Card
from mtl_keras.zoo.card_schema import CARD as FIELDS
from mtl_keras.zoo.card_schema import SCHEMA, check_fields
from mtl_keras.zoo.save import CARD, KEYS, WEIGHTS, describe_file

PUBLISHED = pathlib.Path(__file__).parent / "published"
# In a checkout, the data package of larger models lies beside the code and is not installed.
PACKAGE = "mtl_keras_zoo"
CHECKOUT = pathlib.Path(__file__).parents[2] / "zoo" / "package" / PACKAGE


def list_models(pattern: str = "*") -> list[str]:
    """Lists the published models.

    These are the models of mtl_keras itself, those of the data package `mtl-keras-zoo` where it is
    installed, and those in the folders that the environment variable `MTL_KERAS_ZOO` names
    (several are separated as in `PATH`): each folder in them is a model, as `save_to_zoo` writes
    it.

    Args:
        pattern: String with shell wildcards, such as `"*nuclei*"`.

    Returns:
        Sorted list of names.

    Raises:
        FileNotFoundError: If a file of a model that matches is missing, or `MTL_KERAS_ZOO` names
            a folder that does not exist.
        ValueError: If two models have the same name.

    Example:

    ```python
    from mtl_keras.zoo import list_models
    assert "efficientnet_lite0_hard_nuclei" in list_models("*nuclei*")
    ```
    """
    folders = _folders()
    names = sorted(fnmatch.filter(folders, pattern))
    lacking = {
        str(folders[name]): missing for name in names if (missing := _missing(folders[name]))
    }
    if lacking:
        raise FileNotFoundError(
            "there are models of which files are missing: "
            + "; ".join(f"{folder!r} lacks {', '.join(files)}" for folder, files in lacking.items())
        )
    return names


def info(name: str | os.PathLike) -> Card:
    """Returns the card of a model.

    Args:
        name: What `load` takes: a name of `list_models()`, a pattern that matches one name, a
            folder, or an address of a hub. Of a hub, the card alone is downloaded.

    Returns:
        `mtl_keras.zoo.card.Card`, a dict that `print` shows readably, and a notebook as a page:
        `tasks`, `classes`, `input`, `parameters`, `versions`, `files` with their SHA-256, and
        `config`, which builds the network. The card of a published model also has its `metrics`
        and the command that measures them, `data`, the licences of code, weights and data, and
        `recipe`.

    Raises:
        ValueError: If there is no model of that name; the nearest names are offered. If the card
            is not one of a model.
        FileNotFoundError: If a folder, an address or a card does not exist.

    Example:

    ```python
    from mtl_keras.zoo import info
    card = info("efficientnet_lite0_hard_nuclei")
    assert card["metrics"]["detection_AP50"] > 0.8
    ```
    """
    return Card(find(name, (CARD,)).card)


@dataclasses.dataclass(frozen=True)
class Found:
    """Where a name leads.

    Attributes:
        name: The name as it was given.
        folder: Path of the folder that holds the files of the model.
        card: Dict, the card.
        again: String, a sentence that says how a damaged file is mended.
    """

    name: Any
    folder: pathlib.Path
    card: dict
    again: str

    def checked(self, file: str) -> pathlib.Path:
        """Returns the path of a file of the model after comparing its hash with the card.

        Raises:
            FileNotFoundError: If the file is missing.
            ValueError: If the file is not the one that the card describes.
        """
        path = self.folder / file
        if not path.is_file():
            raise FileNotFoundError(
                f"the file {file!r} of the model {str(self.name)!r} is missing: {path}. "
                f"{self.again}"
            )
        expected = self.card["files"].get(file, {}).get("sha256")
        found = describe_file(path)["sha256"]
        if found != expected:
            raise ValueError(
                f"the file {file!r} of the model {str(self.name)!r} is damaged: its SHA-256 is "
                f"{found}, the card says {expected} ({path}). {self.again}"
            )
        return path


def find(name: str | os.PathLike, files: tuple[str, ...] = (CARD, WEIGHTS)) -> Found:
    """Follows a name to the folder of a model, by way of a hub where it is an address of one.

    Args:
        name: See `load`.
        files: Names of the files that are needed; a hub is asked for no others.

    Returns:
        `Found`.

    Raises:
        ValueError: See `info`.
        FileNotFoundError: See `info`.
    """
    if not isinstance(name, (str, os.PathLike)) or name == "":
        raise ValueError(
            "`name` must be a name of a model, a folder or an address of a hub. "
            f"Received: name={name!r}"
        )
    if (handle := sources.parse(name)) is not None:
        folder, again = sources.fetch(handle, files)
    elif (path := _as_folder(name)) is not None:
        folder, again = path, "Save the model again."
    else:
        folder, again = _by_name(name), "Install it again."
    return Found(name, folder, _read_card(folder / CARD, name), again)


def _as_folder(name: str | os.PathLike) -> pathlib.Path | None:
    """The folder that a path names; a name without a separator may be that of a folder here."""
    path = pathlib.Path(name).expanduser()
    is_path = isinstance(name, os.PathLike) or any(s in name for s in (os.sep, os.altsep) if s)
    if not is_path and (not path.is_dir() or name in _folders()):
        return None
    if path.is_file():
        raise ValueError(
            f"{str(path)!r} is a file. Give the folder of a model; a .keras file is loaded by "
            "`mtl_keras.load_model`"
        )
    if not (path / CARD).is_file():
        what = f"is a folder without a {CARD}" if path.is_dir() else "is no folder"
        raise FileNotFoundError(f"there is no model in {str(path)!r}, which {what}")
    return path


def _by_name(name: str) -> pathlib.Path:
    folders = _folders()
    names = [name] if name in folders else fnmatch.filter(folders, name)
    if len(names) > 1:
        raise ValueError(
            f"the pattern {name!r} must match one published model, but matches {sorted(names)}"
        )
    if not names:
        more = "" if _has_package() else " More models are in the package mtl-keras-zoo."
        raise ValueError(
            f"there is no published model {name!r}. {did_you_mean(name, sorted(folders))}{more}"
        )
    return folders[names[0]]


def _folders() -> dict[str, pathlib.Path]:
    """Name to folder of all published models."""
    found: dict[str, pathlib.Path] = {}
    for root in _roots():
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            if not folder.is_dir() or folder.name.startswith((".", "_")):
                continue
            if folder.name in found:
                raise ValueError(
                    f"there are two published models {folder.name!r}: {str(found[folder.name])!r} "
                    f"and {str(folder)!r}; rename one of the folders"
                )
            found[folder.name] = folder
    return found


def _roots() -> list[pathlib.Path]:
    roots = [PUBLISHED]
    package = importlib.util.find_spec(PACKAGE)
    places = [CHECKOUT] if package is None else package.submodule_search_locations or ()
    roots += [pathlib.Path(place) / "published" for place in places]
    for place in filter(None, os.environ.get("MTL_KERAS_ZOO", "").split(os.pathsep)):
        if not os.path.isdir(place):
            raise FileNotFoundError(
                f"the environment variable MTL_KERAS_ZOO names {place!r}, which is no folder"
            )
        roots.append(pathlib.Path(place))
    return roots


def _has_package() -> bool:
    return CHECKOUT.is_dir() or importlib.util.find_spec(PACKAGE) is not None


def _missing(folder: pathlib.Path) -> list[str]:
    if not (folder / CARD).is_file():
        return [CARD]
    files = _read_card(folder / CARD, folder.name)["files"]
    return [file for file in files if not (folder / file).is_file()]


def _read_card(path: pathlib.Path, name: Any) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"the file {CARD!r} of the model {str(name)!r} is missing: {path}")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"the card {str(path)!r} is damaged: {error}") from None
    lacking = [key for key in KEYS if key not in card] if isinstance(card, dict) else list(KEYS)
    if lacking:
        raise ValueError(f"{str(path)!r} is no card of a model of mtl_keras: it lacks {lacking}")
    if card.get("schema") != SCHEMA:
        raise ValueError(
            f"the card {str(path)!r} has schema {card.get('schema')!r}; this version of mtl_keras "
            f"reads schema {SCHEMA}"
        )
    fields = {key: FIELDS[key] for key in KEYS}
    try:
        check_fields({key: card[key] for key in KEYS}, fields, complete=False)
    except ValueError as error:
        raise ValueError(f"the card {str(path)!r} is damaged: {error}") from None
    return card
