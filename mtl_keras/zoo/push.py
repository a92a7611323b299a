"""From a folder, or a model, to a hub."""

import os
import pathlib
import tempfile
from typing import Any

from mtl_keras.zoo import sources
from mtl_keras.zoo.registry import find
from mtl_keras.zoo.save import save_to_zoo


def push(model: Any, address: str, message: str | None = None) -> str:
    """Uploads a model to Hugging Face or Kaggle, from where `load(address)` gives it to others.

    The hub's own library does it, and must be logged in (`hf auth login`, `kagglehub.login()`).
    A repository that does not exist is made: public at Hugging Face, private at Kaggle, as the
    libraries do. All files of the folder are uploaded but hidden ones, such as a README.md that
    you put there.

    Args:
        model: A folder that `save_to_zoo` wrote, or a `mtl_keras.MultiTaskModel`, which is then
            called as the last part of the address is.
        address: `"hf://org/repo"`, with `@branch` and `/folder` at will, or
            `"kaggle://owner/model/framework/variation"`, of which a new version is made.
        message: Optional string, what is said about this version.

    Returns:
        The address.

    Raises:
        ImportError: If the library of the hub is not installed.
        FileNotFoundError: If the folder does not exist.
        ValueError: If the address is none, it names a version at Kaggle, or a file of the folder
            is damaged.

    Example:

    ```python
    import mtl_keras as mtl
    try:
        mtl.zoo.push("my_cells", "hf://me/cells")
    except FileNotFoundError as error:
        assert "my_cells" in str(error)
    ```
    """
    handle = sources.parse(address)
    if handle is None:
        raise ValueError(
            f"`address` must be an address such as 'hf://org/repo'. Received: {address!r}"
        )
    if handle.hub == "kaggle" and handle.revision:
        raise ValueError(
            "`address` must name no version, since Kaggle numbers them itself. "
            f"Received: address={address!r}"
        )
    if isinstance(model, (str, os.PathLike)):
        folder = pathlib.Path(model).expanduser()
        _check(folder)
        _upload(folder, handle, message)
    else:
        with tempfile.TemporaryDirectory() as place:
            name = (handle.folder or handle.model).split("/")[-1]
            _upload(save_to_zoo(model, pathlib.Path(place, name)), handle, message)
    return address


def _check(folder: pathlib.Path) -> None:
    found = find(folder)
    for file in found.card["files"]:
        found.checked(file)


def _upload(folder: pathlib.Path, handle: sources.Handle, message: str | None) -> None:
    library = sources.require(handle.hub)
    if handle.hub == "kaggle":
        library.model_upload(
            handle.model,
            str(folder),
            version_notes=message or "",
            ignore_patterns=[".*", "*/.*"],
        )
        return
    library.create_repo(handle.model, exist_ok=True)
    if handle.revision:
        library.create_branch(handle.model, branch=handle.revision, exist_ok=True)
    library.upload_folder(
        repo_id=handle.model,
        folder_path=folder,
        path_in_repo=handle.folder or None,
        revision=handle.revision,
        commit_message=message,
        ignore_patterns=[".*", "**/.*"],
    )
