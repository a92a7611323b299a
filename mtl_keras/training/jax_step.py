"""The training step with JAX (only): nothing that is not finite reaches the model."""

from typing import Any

import jax
import jax.numpy as jnp
import keras
from keras import tree

from mtl_keras.training.absent import owned_state
from mtl_keras.training.errors import NonFiniteLossError
from mtl_keras.training.host import learning_rate_factor


class JaxStep:
    """Mix-in for `MultiTaskModel`."""

    def train_step(self, state: Any, data: Any) -> tuple:
        """Runs one step: forward, losses, gradients, update; leaves a non-finite batch out."""
        trainable, statistics, optimizer, metrics = state
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        (_, (loss, y_pred, new_statistics, new_metrics)), gradients = jax.value_and_grad(
            self.compute_loss_and_updates, has_aux=True
        )(
            trainable,
            statistics,
            metrics,
            x,
            y,
            sample_weight,
            training=True,
            optimizer_variables=optimizer,
        )
        # The flags of compute_loss belong to the trace of the gradient. A loss that was left out
        # of its mean is one that was not finite, and the means are handed on by that trace.
        place = {id(variable): i for i, variable in enumerate(self.metrics_variables)}
        counts = {name: place[id(self._loss_trackers[name].count)] for name in self._finite}
        of_task = {name: new_metrics[i] > metrics[i] for name, i in counts.items()}
        finite = jnp.isfinite(loss)
        if not isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            # A loss scale finds its range by overflowing: its optimizer leaves those steps out.
            finite &= jnp.all(jnp.stack([jnp.all(jnp.isfinite(g)) for g in gradients]))
        new_trainable, new_optimizer = self.optimizer.stateless_apply(
            optimizer, gradients, trainable
        )
        # Every optimizer's step is linear in its learning rate.
        factors = [learning_rate_factor(variable) for variable in self.trainable_variables]
        new_trainable = [
            new if factor == 1.0 else old + factor * (new - old)
            for new, old, factor in zip(new_trainable, trainable, factors, strict=True)
        ]
        present = self.present(y, sample_weight)
        usable = finite & _any(present.values())
        absent = [name for name, here in present.items() if here is not True]
        flags = {
            id(variable): usable & _any(present[name] for name in names)
            for names, variable in owned_state(self, absent)
        }
        held = (
            self.trainable_variables,
            self.non_trainable_variables,
            self.optimizer.variables,
        )
        kept = [
            [
                jnp.where(flags.get(id(variable), usable), one, other)
                for variable, one, other in zip(variables, new, old, strict=True)
            ]
            for variables, new, old in zip(
                held,
                (new_trainable, new_statistics, new_optimizer),
                (trainable, statistics, optimizer),
                strict=True,
            )
        ]
        if self.on_nonfinite == "raise":
            jax.debug.callback(self._note, finite, of_task, ordered=True)
        mapping = list(zip(self.metrics_variables, new_metrics, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self._skipped.update_state(jnp.where(finite, 0.0, 1.0))
            images = tree.flatten(x)[0].shape[0]
            self._loss_tracker.update_state(
                jnp.where(finite, loss, 0.0), sample_weight=jnp.where(finite, images, 0.0)
            )
            logs = self.compute_metrics(x, y, y_pred, sample_weight)
        new_metrics = [
            old if (new := scope.get_current_value(variable)) is None else new
            for variable, old in mapping
        ]
        return logs, (*kept, new_metrics)

    def _note(self, finite: Any, of_task: dict) -> None:
        """Remembers what was not finite; an error raised here would cost the model its state."""
        if not finite and self._culprits is None:
            self._culprits = tuple(name for name, ok in of_task.items() if not ok)

    def fit(self, *args: Any, callbacks: Any = None, **kwargs: Any) -> Any:
        """Trains, as `keras.Model.fit` does.

        Raises:
            NonFiniteLossError: If a loss or gradient is not finite and the model was compiled
                with `on_nonfinite="raise"`.
        """
        self._culprits = None
        self._assert_compile_called("fit")
        if self.on_nonfinite == "raise" and not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = [_Watch(), *tree.flatten(callbacks or [])]
        return super().fit(*args, callbacks=callbacks, **kwargs)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Trains on one batch, as `keras.Model.train_on_batch` does; raises what `fit` raises."""
        self._culprits = None
        logs = super().train_on_batch(*args, **kwargs)
        self._stop_if_noted()
        return logs

    def _stop_if_noted(self) -> None:
        jax.effects_barrier()
        if self._culprits is not None:
            raise NonFiniteLossError(self._culprits or ("gradient",))


def _any(values: Any) -> Any:
    found = jnp.asarray(False)
    for value in values:
        found |= value
    return found


class _Watch(keras.callbacks.Callback):
    """Stops training in the step in which something was not finite."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model._stop_if_noted()
