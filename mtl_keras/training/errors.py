"""Errors of training."""


class NonFiniteLossError(FloatingPointError):
    """Training was stopped: a loss or a gradient was not finite. The weights were not touched.

    Attributes:
        culprits: Tuple of what was not finite: names of tasks, or `"gradient"`.
    """

    def __init__(self, culprits: tuple[str, ...]):
        self.culprits = culprits
        tasks = [f"the loss of task {name!r}" for name in culprits if name != "gradient"]
        what = " and ".join(tasks) or "the gradient (every loss is finite)"
        super().__init__(
            f"{what} became NaN or infinite. This batch moved neither weights nor statistics. "
            "Look at its images and labels, lower the learning rate, or compile with "
            "on_nonfinite='skip' to leave such batches out."
        )
