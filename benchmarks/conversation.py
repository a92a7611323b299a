"""A process that does what it is told: one line of JSON for each thing, and one as the answer."""

import contextlib
import json
import pathlib
import subprocess
from typing import Any


class Conversation:
    """A process that measures, so that others beside it share neither memory nor threads with it.

    Args:
        command: List, the command.
        environment: Dict, its environment.
        errors: Path of the file for what it prints.
    """

    def __init__(self, command: list[str], environment: dict, errors: pathlib.Path):
        self.errors = errors
        self._file = errors.open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._file,
            env=environment,
            text=True,
        )

    def send(self, what: Any) -> None:
        """Tells it to do something; `answer` waits until it is done."""
        with contextlib.suppress(BrokenPipeError):  # `answer` says why.
            print(json.dumps(what), file=self._process.stdin, flush=True)

    def answer(self) -> dict:
        """Returns what it answers.

        Raises:
            RuntimeError: If it ended instead, with the end of what it printed.
        """
        line = self._process.stdout.readline()
        if not line:
            said = self.errors.read_text("utf-8", errors="replace").strip().splitlines()[-8:]
            raise RuntimeError(
                f"the process ended with {self._process.wait()}:\n" + "\n".join(said)
            )
        return json.loads(line)

    def ask(self, what: Any) -> dict:
        """Tells it to do something, and returns what it answers."""
        self.send(what)
        return self.answer()

    def end(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):  # What it did not read any more.
            self._process.stdin.close()
        self._process.stdout.close()
        self._file.close()
