"""The training step with TensorFlow (only): nothing that is not finite reaches the model."""

import contextlib
from typing import Any

import tensorflow as tf
from keras import tree
from keras.callbacks import Callback, CallbackList

from mtl_keras.balancing import GradientMethod
from mtl_keras.training.errors import NonFiniteLossError
from mtl_keras.training.host import replicas, sum_over_replicas
from mtl_keras.training.tensorflow_balancing import TaskGradients
from mtl_keras.training.tensorflow_update import update

_MARK = "mtl_keras: not finite:"


class TensorFlowStep:
    """Mix-in for `MultiTaskModel`."""

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles, as `keras.Model.compile` does."""
        super().compile(*args, **kwargs)
        self._well = None

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the compiled step, as `keras.Model.make_train_function` does."""
        if not self.optimizer.built:
            # A step that makes variables while it is traced is traced twice.
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def train_step(self, data: Any) -> dict:
        """Runs one step: forward, losses, gradients, update; leaves a non-finite batch out."""
        x, y, sample_weight = _unpack(data)
        before = [tf.identity(v.value) for v in self.non_trainable_variables]
        variables = self.trainable_variables
        if isinstance(self.balancing, GradientMethod):
            y_pred, loss, found, gradients_finite = TaskGradients(self)(
                x, y, sample_weight, self.optimizer.scale_loss
            )
            gradients = [found.get(id(variable)) for variable in variables]
            if not _scales_loss(self.optimizer):
                self._finite = {n: self._finite[n] & ok for n, ok in gradients_finite.items()}
        else:
            with tf.GradientTape() as tape:
                y_pred = self(x, training=True)
                loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
                scaled = self.optimizer.scale_loss(loss)
            gradients = tape.gradient(scaled, variables)
        # Those of embeddings are sparse, and can't be made dense inside of a branch.
        gradients = [_dense(g) for g in gradients]
        finite = tf.math.is_finite(loss)
        if not _scales_loss(self.optimizer):
            # A loss scale finds its range by overflowing: its optimizer leaves those steps out.
            norm = tf.linalg.global_norm([g for g in gradients if g is not None])
            finite &= tf.math.is_finite(norm)
        present = self.present(y, sample_weight)
        update(self, gradients, present, finite, before)
        if getattr(self.balancing, "looks_again", False):
            self._look_again(x, y, sample_weight, present)
        if self.on_nonfinite == "raise":
            if self.jit_compile:  # XLA has neither strings nor assertions.
                self._note(finite)
            else:
                _stop_unless(finite, self._finite)
        self._skipped.update_state(tf.cast(~finite, "float32"))
        images = tf.cast(tf.shape(tree.flatten(x)[0])[0], "float32")
        self._loss_tracker.update_state(
            tf.where(finite, loss, 0.0), sample_weight=tf.where(finite, images, 0.0)
        )
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def _look_again(self, x: Any, y: Any, sample_weight: Any, present: dict) -> None:
        """Hands the balancing the losses after the update; nothing else is changed by it."""
        before = [(v, tf.identity(v.value)) for v in self.non_trainable_variables]
        with tf.control_dependencies([old for _, old in before]):
            losses = self.task_losses(y, self(x, training=True), sample_weight)
        losses = {name: self.loss_weights[name] * loss for name, loss in losses.items()}
        vector = tf.stack([losses.get(task.name, 1.0) for task in self.tasks])
        vector = sum_over_replicas(vector) / replicas()
        here = tf.stack([tf.cast(present[task.name], "bool") for task in self.tasks])
        for variable, old in before:  # The state of the balancing is among them.
            variable.value.assign(old)
        self.balancing.look_again(vector, here & tf.math.is_finite(vector))

    def fit(self, *args: Any, callbacks: Any = None, **kwargs: Any) -> Any:
        """Trains, as `keras.Model.fit` does.

        Raises:
            NonFiniteLossError: If a loss or gradient is not finite and the model was compiled
                with `on_nonfinite="raise"`.
        """
        x = args[0] if args else kwargs.get("x")
        if isinstance(x, tf.data.Dataset):
            # Keras warns of its own default where a dataset has an order already.
            kwargs.setdefault("shuffle", False)
        if getattr(self, "_well", None) is not None:
            self._well.assign(tf.ones_like(self._well))
        if self.jit_compile and not isinstance(callbacks, CallbackList):
            callbacks = [_Watch(), *tree.flatten(callbacks or [])]
        with _named():
            return super().fit(*args, callbacks=callbacks, **kwargs)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Trains on one batch, as `keras.Model.train_on_batch` does; raises what `fit` raises."""
        with _named():
            logs = super().train_on_batch(*args, **kwargs)
        self._stop_if_noted()
        return logs

    def _note(self, finite: Any) -> None:
        """Remembers what has been finite so far: each task's loss, and all."""
        now = tf.stack([*self._finite.values(), finite])
        if self._well is None:
            with tf.init_scope():
                self._well = tf.Variable(tf.ones(now.shape, "bool"), trainable=False)
            self._noted = tuple(self._finite)
        self._well.assign(self._well & now)

    def _stop_if_noted(self) -> None:
        well = getattr(self, "_well", None)
        if well is not None and not well.numpy()[-1]:
            culprits = tuple(n for n, ok in zip(self._noted, well.numpy(), strict=False) if not ok)
            well.assign(tf.ones_like(well))
            raise NonFiniteLossError(culprits or ("gradient",))


class _Watch(Callback):
    """Stops training after the step in which something was not finite."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model._stop_if_noted()


@contextlib.contextmanager
def _named() -> Any:
    """Turns the error of the graph into the one that names the task."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        message = str(error)
        if _MARK not in message:
            raise
        named = message.split(_MARK, 1)[1].split(".", 1)[0]
        culprits = tuple(name for name in named.split(";") if name) or ("gradient",)
        raise NonFiniteLossError(culprits) from None


def _stop_unless(finite: Any, of_task: dict) -> None:
    names = [tf.where(value, "", f"{name};") for name, value in of_task.items()]
    message = tf.strings.join([_MARK, *names, "."], separator="")
    tf.debugging.Assert(finite, [message], summarize=1)


def _scales_loss(optimizer: Any) -> bool:
    from keras.optimizers import LossScaleOptimizer

    return isinstance(optimizer, LossScaleOptimizer)


def _dense(gradient: Any) -> Any:
    return tf.convert_to_tensor(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient


def _unpack(data: Any) -> tuple:
    from keras.utils import unpack_x_y_sample_weight

    return unpack_x_y_sample_weight(data)
