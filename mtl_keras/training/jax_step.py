"""The training step with JAX (only): nothing that is not finite reaches the model."""

from typing import Any

import jax
import jax.numpy as jnp

from mtl_keras.training.errors import NonFiniteLossError


class JaxStep:
    """Mix-in for `MultiTaskModel`."""

    def train_step(self, state: Any, data: Any) -> tuple:
        """Runs Keras' step and takes its new state only where everything in it is finite."""
        logs, new = super().train_step(state, data)
        trainable, statistics = new[0], new[1]
        leaves = [leaf for leaf in (*trainable, *statistics) if jnp.issubdtype(leaf, jnp.floating)]
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
        kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new[:3], state[:3])
        if self.on_nonfinite == "skip":
            return logs, (*kept, new[3])
        jax.debug.callback(_raise_unless, finite, ordered=True)
        return logs, (*kept, new[3])


def _raise_unless(finite: Any) -> None:
    if not finite:
        raise NonFiniteLossError(("gradient",))
