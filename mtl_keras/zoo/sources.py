"""Models on hubs: `hf://…` and `kaggle://…` to a folder in the cache of the hub's own library."""

import dataclasses
import pathlib
import re
import urllib.parse
from typing import Any

_HUBS = {
    "hf": ("huggingface_hub", "hf://org/repo[@revision][/folder]"),
    "kaggle": ("kagglehub", "kaggle://owner/model/framework/variation[/version]"),
}
_PART = r"[\w.-]+"
_HF = re.compile(rf"({_PART}/{_PART})(?:@([^/\s]+))?((?:/{_PART})*)/?")
_KAGGLE = re.compile(rf"({_PART}/{_PART}/{_PART}/{_PART})(?:/(\d+))?/?")


@dataclasses.dataclass(frozen=True)
class Handle:
    """What an address of a hub names.

    Attributes:
        text: String, the address as it was given.
        hub: `"hf"` or `"kaggle"`.
        model: String, the repository of Hugging Face, or owner, model, framework and variation.
        revision: Branch, tag or commit, or a version of Kaggle, or `None` for the newest.
        folder: String, folder in a repository of Hugging Face; empty for its root.
    """

    text: str
    hub: str
    model: str
    revision: str | None
    folder: str = ""


def parse(name: Any) -> Handle | None:
    """Reads an address of a hub.

    Args:
        name: String; anything else is no address.

    Returns:
        `Handle`, or `None` if `name` has not the form of an address (`scheme://…`).

    Raises:
        ValueError: If it is an address, but of no hub that is known, or not a complete one.

    Example:

    ```python
    from mtl_keras.zoo.sources import parse
    assert parse("hf://me/cells@v2/small").folder == "small"
    assert parse("kaggle://me/cells/keras/small/3").revision == "3"
    assert parse("efficientnet_lite0_hard_nuclei") is None
    ```
    """
    if not isinstance(name, str) or "://" not in name:
        return None
    scheme, rest = name.split("://", 1)
    forms = [form for _, form in _HUBS.values()]
    if scheme == "hf" and (found := _HF.fullmatch(rest)):
        revision = urllib.parse.unquote(found[2]) if found[2] else None
        return Handle(name, scheme, found[1], revision, found[3].strip("/"))
    if scheme == "kaggle" and (found := _KAGGLE.fullmatch(rest)):
        return Handle(name, scheme, found[1], found[2])
    raise ValueError(f"an address of a model must be {' or '.join(forms)}. Received: {name!r}")


def fetch(handle: Handle, files: tuple[str, ...]) -> tuple[pathlib.Path, str]:
    """Gets files of a model, from the cache where they are there already.

    The hub's own library downloads them and keeps them in its own cache: `HF_HUB_OFFLINE=1` uses
    nothing else, `HF_HOME` and `KAGGLEHUB_CACHE` move it. A download that breaks off goes on from
    the last whole piece (10 MB at Hugging Face, 1 MB at Kaggle): there within the call, which
    tries five times more and then begins anew when it is called again; here by the next call.

    Args:
        handle: What to get.
        files: Names of files.

    Returns:
        The folder that holds them, and a sentence that says how to get them again.

    Raises:
        ImportError: If the library is not installed; the error names the extra that brings it.
        FileNotFoundError: If there is no such model, or it has no such files.
        ConnectionError: If the hub can't be reached and the cache lacks them.
    """
    if handle.hub == "hf":
        folder = _from_hugging_face(handle, files)
        # The bytes are in `blobs`, beside `snapshots/<commit>`.
        cache = next(path.parent for path in folder.parents if path.name == "snapshots")
    else:
        folder = cache = _from_kaggle(handle, files)
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise FileNotFoundError(f"{handle.text!r} has no file {' and no '.join(missing)}")
    return folder, f"Delete the folder {str(cache)!r} and load it again, which downloads it anew."


def require(hub: str) -> Any:
    """Imports the library of a hub, or raises an `ImportError` that names the extra."""
    import importlib

    library = _HUBS[hub][0]
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ImportError(
            f"models at {hub}:// need the package {library}, which the extra `share` brings: "
            "pip install 'mtl-keras[share]'"
        ) from error


def _from_hugging_face(handle: Handle, files: tuple[str, ...]) -> pathlib.Path:
    hub = require("hf")
    from huggingface_hub import errors

    paths = [f"{handle.folder}/{file}" if handle.folder else file for file in files]
    try:
        # All of one commit, also while somebody pushes.
        root = hub.snapshot_download(handle.model, revision=handle.revision, allow_patterns=paths)
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"the repository of {handle.text!r} has no revision {handle.revision!r}"
        ) from error
    except (errors.RepositoryNotFoundError, errors.GatedRepoError) as error:
        raise FileNotFoundError(
            f"there is no repository {handle.model!r} of models that you may read at Hugging "
            f"Face (from {handle.text!r}). If it is private, log in: `hf auth login`"
        ) from error
    except (errors.LocalEntryNotFoundError, OSError, errors.HTTPError) as error:
        raise ConnectionError(
            f"{handle.text!r} could not be downloaded, and the cache does not hold all of it: "
            f"{_first_line(error)}"
        ) from error
    return pathlib.Path(root, handle.folder)


def _from_kaggle(handle: Handle, files: tuple[str, ...]) -> pathlib.Path:
    hub = require("kaggle")
    import requests

    model, version = handle.model, handle.revision
    try:
        for file in files:
            path = pathlib.Path(hub.model_download(_with_version(model, version), file))
            if path.parent.name.isdigit():
                version = path.parent.name  # The other files are of the same version.
    except requests.exceptions.RequestException as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403, 404):
            raise FileNotFoundError(
                f"{handle.text!r} is no model at Kaggle that you may read, or lacks the file "
                f"{file!r}. If it is private, log in: `kagglehub.login()`"
            ) from error
        offline = (
            " A version that is in the cache can be loaded without the network if it is named: "
            f"{handle.text.rstrip('/')}/1"
        )
        raise ConnectionError(
            f"{handle.text!r} could not be downloaded: {_first_line(error)}."
            f"{'' if handle.revision else offline}"
        ) from error
    return path.parent


def _with_version(model: str, version: str | None) -> str:
    return model if version is None else f"{model}/{version}"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
