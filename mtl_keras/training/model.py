"""The model: a functional `keras.Model` with several tasks."""

import math
import warnings
from typing import Any

import keras
from keras import ops

from mtl_keras import balancing as balancings
from mtl_keras.training import freezing, host
from mtl_keras.training.inference import predict_images
from mtl_keras.training.losses import TaskLosses
from mtl_keras.training.measuring import TaskMetrics
from mtl_keras.training.step import BackendStep


@keras.saving.register_keras_serializable(package="mtl_keras")
class MultiTaskModel(BackendStep, TaskLosses, TaskMetrics, keras.Model):
    """A functional Keras model whose outputs, targets, losses and metrics are dicts by task.

    `mtl_keras.build` makes it. `fit`, `evaluate`, `save` and the rest are Keras' own; datasets
    yield `(images, targets)` or `(images, targets, sample_weight)`, as `mtl_keras.data.batches`
    makes them.

    Args:
        inputs: Input of the network.
        outputs: Dict, task name to raw outputs.
        trunk: The `Trunk` that was used.
        tasks: Tuple of `Task`.
        sharing: The `Sharing` that was used.
        image_size: `(height, width)` to which images are letterboxed for prediction.
        name: Optional string.

    Attributes:
        trunk: The `Trunk`.
        tasks: Tuple of `Task`.
        sharing: The `Sharing`.
        image_size: `(height, width)`.
    """

    def __init__(
        self,
        inputs: Any,
        outputs: dict,
        trunk: Any = None,
        tasks: tuple = (),
        sharing: Any = None,
        image_size: tuple[int, int] = (320, 320),
        name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)
        self.trunk = trunk
        self.tasks = tuple(tasks)
        self.sharing = sharing
        self.image_size = tuple(image_size)
        self._penalties: dict[str, list] = {}

    # === Compile ===
    def compile(
        self,
        optimizer: Any = "adamw",
        loss_weights: dict[str, float] | None = None,
        balancing: Any = None,
        on_nonfinite: str = "raise",
        jit_compile: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        """Prepares for training. Losses and metrics come from the tasks.

        Args:
            optimizer: Keras optimizer or its name.
            loss_weights: Optional dict, task name to the weight of its loss (default 1).
            balancing: Optional `mtl_keras.balancing.Balancing`, or a registered name: how the
                tasks' losses, each times its weight, become one. By default they are added. It
                acts in training, whose logs have its weights where it has some (`NAME_weight`);
                the loss of an evaluation is always their sum.
            on_nonfinite: What to do with a batch whose loss or gradient is not finite: `"raise"`
                stops training with a `NonFiniteLossError` that names the task; `"skip"` leaves
                the batch out and counts it as `skipped` in the logs. Neither lets it reach
                weights, statistics or the state of the optimizer.
            jit_compile: Whether to use XLA. `"auto"`: on an accelerator, and always with JAX;
                on the CPU with TensorFlow it would be several times slower, so it is off.
            **kwargs: `run_eagerly`, `steps_per_execution`, `auto_scale_loss` of Keras.

        Raises:
            ValueError: If weights are given for unknown tasks, `on_nonfinite` is unknown, or a
                loss or metrics are given, which belong to the tasks.
        """
        names = [task.name for task in self.tasks]
        unknown = sorted(set(loss_weights or {}) - set(names))
        if unknown:
            raise ValueError(f"`loss_weights` has unknown tasks {unknown}; the tasks are {names}")
        if on_nonfinite not in ("raise", "skip"):
            raise ValueError(
                f"`on_nonfinite` must be 'raise' or 'skip'. Received: {on_nonfinite!r}"
            )
        for argument in ("loss", "metrics", "weighted_metrics"):
            if kwargs.pop(argument, None) is not None:
                raise ValueError(
                    f"`{argument}` belongs to the tasks and can't be given to compile(); "
                    "subclass a task to change it"
                )
        if jit_compile == "auto" and host.cpu_only_tensorflow():
            jit_compile = False
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)
        self.loss_weights = {name: float((loss_weights or {}).get(name, 1.0)) for name in names}
        self.on_nonfinite = on_nonfinite
        self.balancing = None if balancing is None else balancings.get(balancing)
        if self.balancing is not None:
            host.check_balancing(self.balancing)
            if isinstance(self.balancing, balancings.SizedGradientMethod):
                from mtl_keras.training.tensorflow_balancing import shared_variables

                size = sum(math.prod(variable.shape) for variable in shared_variables(self))
                self.balancing.build(tuple(names), size)
            else:
                self.balancing.build(tuple(names))
        self._compile_arguments = {
            "loss_weights": loss_weights,
            "on_nonfinite": on_nonfinite,
            "jit_compile": jit_compile,
            **kwargs,
        }
        self.make_trackers()

    def get_compile_config(self) -> dict:
        """Returns what `compile_from_config` needs to compile an equal model."""
        if not self.compiled:
            return {}
        optimizer = self.optimizer
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer = optimizer.inner_optimizer
        return {
            "optimizer": keras.saving.serialize_keras_object(optimizer),
            "balancing": keras.saving.serialize_keras_object(self.balancing),
            **self._compile_arguments,
        }

    def compile_from_config(self, config: dict) -> None:
        """Compiles as `get_compile_config` described, with room for the optimizer's state."""
        config = dict(config)
        parts = {
            name: keras.saving.deserialize_keras_object(config.pop(name, None))
            for name in ("optimizer", "balancing")
        }
        self.compile(**parts, **config)
        self.optimizer.build(self.trainable_variables)

    # === Losses ===
    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Runs the network, as `keras.Model.call` does."""
        outputs = super().call(inputs, training=training, mask=mask)
        # With JAX, a layer knows its penalty only here. Of this trace, not state.
        trackers = self._penalty_trackers if self.compiled else {}
        self._penalties = {name: list(layer.losses) for name, (layer, _) in trackers.items()}
        return outputs

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True) -> Any:
        """Computes each task's loss, tracks it, and returns the weighted sum.

        Args:
            x: Images; not used.
            y: Dict, task name to targets. A task that is not in it has no labels in this batch.
            y_pred: Dict, task name to raw outputs.
            sample_weight: Optional weights of shape `(batch,)`, for all tasks, or a dict, task
                name to such weights. An image of weight 0 has no label of the task: the loss of
                a task is the mean over the images that have one.
            training: Whether the batch is trained on; metrics are measured where it is not.

        Returns:
            Float32 scalar: the tasks' losses, each times its weight, plus `model.losses`.
        """
        counts = self.labelled_images(x, y, sample_weight)
        losses = self.task_losses(y, y_pred, sample_weight)
        # What the step of the backend asks to name the culprit; of this trace, not state.
        self._finite = {name: ops.isfinite(loss) for name, loss in losses.items()}
        for name, loss in losses.items():
            finite = self._finite[name]
            self._loss_trackers[name].update_state(
                ops.where(finite, loss, 0.0),
                ops.cast(finite, "float32") * counts[name] / host.replicas(),
            )
        if not training:
            self.measure(y, y_pred, sample_weight)
        self._measured = not training
        losses = {name: self.loss_weights[name] * loss for name, loss in losses.items()}
        self.weighted_losses = losses  # Of this trace, not state: gradient methods take it apart.
        if training and isinstance(self.balancing, balancings.LossWeighting):
            total = self._balanced(losses, self.present(y, sample_weight))
        else:
            total = sum(losses.values())
        for penalty in self.losses:
            total = total + ops.cast(penalty, "float32")
        for name, (layer, tracker) in self._penalty_trackers.items():
            if penalties := layer.losses or self._penalties.get(name):
                tracker.update_state(sum(ops.cast(penalty, "float32") for penalty in penalties))
        # Keras' step of an evaluation multiplies the loss by the number of devices.
        return total if training else total / host.replicas()

    def _balanced(self, losses: dict, present: dict) -> Any:
        """Makes one loss of those of the tasks, and tracks their weights."""
        vector = ops.stack([losses.get(task.name, 1.0) for task in self.tasks])
        if (devices := host.replicas()) > 1:
            # The value is that of all devices' images, the gradient that of this one's.
            here = ops.stop_gradient(vector)
            vector = vector - here + host.sum_over_replicas(here) / devices
        present = ops.stack([ops.cast(present[task.name], "bool") for task in self.tasks])
        total, weights = self.balancing.loss_and_weights(vector, present)
        self.track_weights(weights, present)
        return total

    def fit(self, *args: Any, callbacks: Any = None, **kwargs: Any) -> Any:
        """Trains, as `keras.Model.fit` does.

        Raises:
            NonFiniteLossError: If a loss or gradient is not finite and the model was compiled
                with `on_nonfinite="raise"`.
        """
        self._assert_compile_called("fit")
        if self.balancing and not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = [_EndOfEpoch(), *keras.tree.flatten(callbacks or [])]
        return super().fit(*args, callbacks=callbacks, **kwargs)

    @property
    def variables(self) -> list:
        """All variables: of the network, of its random numbers and of the balancing."""
        found = super().variables
        return [*found, *self.balancing.variables] if getattr(self, "balancing", None) else found

    # === Use ===
    def predict_images(
        self, images: list, score_threshold: float | None = None, verbose: bool = False
    ) -> list[dict]:
        """Predicts on pictures of any sizes, in each picture's own pixels.

        Args:
            images: List of paths, or of arrays `(height, width)`, `(height, width, 1)`, `(…, 3)`
                or `(…, 4)`, uint8 or uint16.
            score_threshold: Float in [0, 1], boxes that score less are left out; by default the
                `confidence` of the task.
            verbose: Whether to show a progress bar.

        Returns:
            List of dicts, one an image: task name to predictions. Detection has `boxes` (n, 4)
            float32 xyxy in pixels, `scores` (n,) float32 and `classes` (n,) int32, best first;
            segmentation has `mask` (height, width) int32. A model with a detection and a
            segmentation task of the same classes (see `mtl_keras.tasks.instance_tasks`) also gives
            `instances`: `mask` (height, width) int32, 0 where there is none and i + 1 in the
            instance of box i, with the `boxes`, `scores` and `classes` of the detection.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If something is not an image, or `score_threshold` is not in [0, 1].
        """
        return predict_images(self, images, score_threshold, verbose)

    # === Serialisation ===
    def save_own_variables(self, store: Any) -> None:
        """Stores the state of the balancing, beside what Keras stores."""
        super().save_own_variables(store)
        if getattr(self, "balancing", None):
            for i, variable in enumerate(self.balancing.variables):
                store[f"balancing_{i}"] = variable

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` stored; a model that is not compiled needs no state."""
        own = {key: store[key] for key in store.keys()}  # noqa: SIM118, not a dict
        state = {key: own.pop(key) for key in list(own) if key.startswith("balancing_")}
        super().load_own_variables(own)
        if getattr(self, "balancing", None):
            stored = [state.get(f"balancing_{i}") for i in range(len(self.balancing.variables))]
            pairs = list(zip(self.balancing.variables, stored, strict=True))
            if any(new is None or tuple(new.shape) != tuple(old.shape) for old, new in pairs):
                # As Keras does with the state of an optimizer.
                warnings.warn(
                    f"the state of balancing {type(self.balancing).__name__} in the file is of "
                    "another set of trainable parameters; it starts anew",
                    stacklevel=2,
                )
                return
            for variable, value in pairs:
                variable.assign(value)

    def get_config(self) -> dict:
        """Returns the `architecture`, and which layers do not learn."""
        return {**self.architecture(), "frozen": freezing.frozen(self)}

    def architecture(self) -> dict:
        """Returns what `mtl_keras.build` needs to build a model of the same layers.

        Returns:
            Dict of `name`, `trunk`, `tasks`, `sharing`, `image_size` and `policy`, ready for JSON.
        """
        serialize = keras.saving.serialize_keras_object
        trunk = serialize(self.trunk)
        # A model that is loaded brings its own weights: those it began with are not read again.
        trunk["config"]["weights"] = None
        return {
            "name": self.name,
            "trunk": trunk,
            "tasks": [serialize(task) for task in self.tasks],
            "sharing": serialize(self.sharing),
            "image_size": list(self.image_size),
            "policy": self.dtype_policy.name,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "MultiTaskModel":
        """Builds the model that `get_config` or `architecture` described."""
        from mtl_keras.training.build import build

        def deserialize(part):
            return keras.saving.deserialize_keras_object(part, custom_objects=custom_objects)

        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy(config["policy"])
        try:
            model = build(
                deserialize(config["trunk"]),
                [deserialize(task) for task in config["tasks"]],
                deserialize(config["sharing"]),
                tuple(config["image_size"]),
                name=config["name"],
            )
        finally:
            keras.config.set_dtype_policy(policy)
        if "frozen" in config:
            freezing.freeze(model, config["frozen"])
        return model


class _EndOfEpoch(keras.callbacks.Callback):
    """Tells the balancing that an epoch is over."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.balancing.on_epoch_end()


def heads_of(name: str) -> tuple[str, str]:
    """The names of the layers that are heads of a task: its head and, in some, an initial one."""
    return f"{name}_head", f"{name}_initial_head"
