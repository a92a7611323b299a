"""The folder of a training: what it has reached, and from where an interrupted one goes on."""

import json
import os
import pathlib
import re
import shutil
import time
from typing import Any

import keras

from mtl_keras.training.files import flush, save_whole
from mtl_keras.training.settings import difference

_STATE = re.compile(r"epoch(\d+)\.weights\.h5")


class Run:
    """A training in a folder, which can be killed at any moment and goes on bit by bit the same.

    - `backup/epoch0007.weights.h5`: weights, statistics and the optimizer's state after an epoch.
      It appears whole or not at all, and its name says which epoch it is of.
    - `history.jsonl`: a line an epoch. It is written before the state is, and lines of epochs
      that will be done again are taken out when the training goes on.
    - `minutes.json`: a list, the minutes of each run up to its last epoch, or to its end.
    - `run.json`: the settings.
    - `model.keras`: at the end; then `backup/` is gone.

    Args:
        folder: Folder, made if need be.
        started: Optional, when this run began, `time.time()`; by default now.
    """

    def __init__(self, folder: str | pathlib.Path, started: float | None = None):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model_file = self.folder / "model.keras"
        self._backup = self.folder / "backup"
        self._history = self.folder / "history.jsonl"
        self._minutes = self.folder / "minutes.json"
        self._started = self._mark = time.time() if started is None else started
        self._before = json.loads(self._minutes.read_text()) if self._minutes.exists() else []

    @property
    def finished(self) -> bool:
        """Whether the model is there and nothing is left to do."""
        return self.model_file.is_file() and not self._states()

    def check(self, settings: dict) -> None:
        """Makes sure that the folder is of a training with these settings.

        Args:
            settings: Dict of `run_settings`.

        Raises:
            ValueError: If it is of another one.
        """
        path = self.folder / "run.json"
        if not path.exists():
            _write(path, json.dumps(settings, indent=1) + "\n")
            return
        if differs := difference(json.loads(path.read_text("utf-8")), settings):
            raise ValueError(
                f"the folder {str(self.folder)!r} holds a training with other settings: {differs}. "
                "Write to another folder, or remove this one"
            )

    def restore(self, model: Any) -> int:
        """Gives a model the state in which an interrupted run left it.

        Args:
            model: Compiled model.

        Returns:
            Integer, the number of epochs that are done.
        """
        model.optimizer.build(model.trainable_variables)
        done = 0
        if states := self._states():
            done, path = states[-1]
            model.load_weights(path)
        self._keep_lines(done)
        return done

    def callback(self) -> keras.callbacks.Callback:
        """The callback of `fit` that writes down what each epoch reached."""
        return _AfterEpoch(self)

    def after_epoch(self, model: Any, epoch: int, logs: dict) -> None:
        """Writes history, minutes and state.

        Args:
            model: The model.
            epoch: Integer, how many epochs are done.
            logs: Dict of numbers.
        """
        now = time.time()
        line = {
            "epoch": epoch,
            **{name: float(value) for name, value in logs.items()},
            "seconds": round(now - self._mark, 2),
        }
        self._mark = now
        with self._history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._write_minutes()
        self._backup.mkdir(exist_ok=True)
        partial = self._backup / "partial.weights.h5"
        model.save_weights(partial, overwrite=True)
        flush(partial)
        state = self._backup / f"epoch{epoch:04d}.weights.h5"
        os.replace(partial, state)
        for path in self._backup.iterdir():
            if path != state:
                path.unlink()

    def finish(self, model: Any) -> None:
        """Writes the model, and removes what only an interrupted run needs."""
        save_whole(model, self.model_file)
        shutil.rmtree(self._backup, ignore_errors=True)
        self._write_minutes()

    def _states(self) -> list[tuple[int, pathlib.Path]]:
        files = self._backup.iterdir() if self._backup.is_dir() else ()
        return sorted(
            (int(match[1]), path) for path in files if (match := _STATE.fullmatch(path.name))
        )

    def _keep_lines(self, done: int) -> None:
        """Takes lines of later epochs, and half of a line, out of the history."""
        if not self._history.exists():
            return
        kept = []
        for line in self._history.read_text("utf-8").splitlines():
            try:
                known = json.loads(line)["epoch"] <= done
            except ValueError:
                continue
            kept += [line + "\n"] if known else []
        _write(self._history, "".join(kept))

    def _write_minutes(self) -> None:
        spent = round((time.time() - self._started) / 60, 2)
        _write(self._minutes, json.dumps([*self._before, spent]))


class _AfterEpoch(keras.callbacks.Callback):
    def __init__(self, run: Run):
        super().__init__()
        self._run = run

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._run.after_epoch(self.model, epoch + 1, logs or {})


def _write(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
