"""Stacked training in JAX, as one would write it: vmap over trials, scan over layers, a loop over batches.

Layers of equal width are one scan, so that hundreds of them compile in seconds. The loop over batches is the
while loop that `lax.scan` becomes, with a number of batches that is not fixed at compilation.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import serving

if __name__ == "__main__":
    if find_spec("jax") is None:
        serving.say({"error": "JAX is not installed"})
        sys.exit()
    serving.pin()  # before JAX counts the cores

import jax
import jax.numpy as jnp
import numpy as np

BATCH, EVALUATION_BATCH = 256, 1000
RATE, BETA1, BETA2, EPSILON = 1e-4, 0.9, 0.999, 1e-8
FIRST_STEPS = 2  # of the call that tells how many fill a slice

# Per stack of equal widths: the layer that enters it (or None), and its other layers or blocks, stacked.
Params = Any


def from_tensors(family: str, widths: Sequence[int], tensors: Sequence[np.ndarray]) -> Params:
    """Return parameters from weights [outputs, inputs] and biases in the order of torch's parameters()."""
    source = iter(tensors)

    def linear() -> tuple[np.ndarray, np.ndarray]:
        return next(source).T, next(source)

    made: list[Any] = []
    inputs = 784
    for width, layers in serving.stacks(widths):
        enter = linear() if family == "simplemlp" or width != inputs else None
        count = layers - 1 if family == "simplemlp" else layers
        each = 1 if family == "simplemlp" else 2
        rest = [[linear() for _ in range(each)] for _ in range(count)]
        made.append((enter, jax.tree.map(lambda *one: np.stack(one), *rest) if rest else None))
        inputs = width
    return made, linear()


def shapes(family: str, widths: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the sizes of the tensors of a network, in the order of torch's parameters()."""
    pairs: list[tuple[int, int]] = []
    inputs = 784
    for width, layers in serving.stacks(widths):
        if family == "simplemlp":
            pairs += [(width, inputs), *[(width, width)] * (layers - 1)]
        else:
            pairs += [(width, inputs)] * (width != inputs) + [(width, width)] * 2 * layers
        inputs = width
    return [size for pair in [*pairs, (10, inputs)] for size in (pair, pair[:1])]


def logits(family: str, params: Params, x: jax.Array) -> jax.Array:
    """Return the logits [B, 10] of one network."""

    def layer(h: jax.Array, weights: Any) -> tuple[jax.Array, None]:
        ((weight, bias),) = weights
        return jax.nn.relu(h @ weight + bias), None

    def block(h: jax.Array, weights: Any) -> tuple[jax.Array, None]:
        (w1, b1), (w2, b2) = weights
        return jax.nn.relu(h + jax.nn.relu(h @ w1 + b1) @ w2 + b2), None

    stacked, (weight, bias) = params
    for enter, rest in stacked:
        if enter is not None:
            x = jax.nn.relu(x @ enter[0] + enter[1])
        if rest is not None:
            x, _ = jax.lax.scan(layer if family == "simplemlp" else block, x, rest)
    return x @ weight + bias


class Program:
    """Training and evaluation of S x M networks of one architecture, compiled on the first call."""

    def __init__(self, family: str) -> None:
        def loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
            chances = jax.nn.log_softmax(logits(family, params, x))
            return -jnp.take_along_axis(chances, y[:, None], axis=1).mean()

        value_and_grad = jax.value_and_grad(loss)
        modes = jax.vmap(value_and_grad, in_axes=(0, None, None))
        gradients = jax.vmap(modes, in_axes=(0, 0, 0))

        def step(carry: Any, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
            params, first, second, count = carry
            losses, grads = gradients(params, x, y)
            count += 1
            first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, grads)
            second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, grads)
            size, root = RATE / (1 - BETA1**count), jnp.sqrt(1 - BETA2**count)
            params = jax.tree.map(
                lambda p, m, v: p - size * m / (jnp.sqrt(v) / root + EPSILON), params, first, second
            )
            return (params, first, second, count), losses

        def train(carry: Any, images: jax.Array, labels: jax.Array, order: jax.Array, steps: int) -> Any:
            """Train on `steps` batches from order [N, S, B], from its start again after the last."""

            def body(number: Any, state: Any) -> Any:
                carry, total = state
                chosen = order[number % order.shape[0]]
                carry, losses = step(carry, images[chosen], labels[chosen])
                return carry, total + losses

            total = jnp.zeros(jax.tree.leaves(carry[0])[0].shape[:2])
            return jax.lax.fori_loop(0, steps, body, (carry, total))

        def correct(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
            all_modes = jax.vmap(lambda one: (logits(family, one, images).argmax(axis=1) == labels).sum())
            return jax.vmap(all_modes)(params)

        self.train = jax.jit(train, donate_argnums=0)
        self.correct = jax.jit(correct)

    @staticmethod
    def start(params: Params) -> Any:
        """Return the state of training from parameters [S, M, ...]: moments and the count of steps."""
        params = jax.tree.map(jnp.asarray, params)
        return params, jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params), 0.0


class Training:
    """A program, its state, and the batches that it reads."""

    def __init__(self, task: serving.Task, data: tuple[jax.Array, ...]) -> None:
        from psa.specs.arch import Arch

        self.seeds, self.modes = task["size"]
        self.images, self.labels, self.val_images, self.val_labels = data
        widths, draws = Arch.coerce(task["arch"]).widths, np.random.default_rng(0)
        tensors, bound = [], 1.0
        for size in shapes(task["family"], widths):
            bound = 1 / math.sqrt(size[1]) if len(size) == 2 else bound  # a bias comes after its weight
            shape = (self.seeds, self.modes, *size)
            tensors.append(draws.uniform(-bound, bound, shape).astype(np.float32))
        params = [
            from_tensors(task["family"], widths, [tensor[seed, mode] for tensor in tensors])
            for seed in range(self.seeds)
            for mode in range(self.modes)
        ]
        stacked = jax.tree.map(
            lambda *one: np.stack(one).reshape(self.seeds, self.modes, *one[0].shape), *params
        )
        steps = len(self.labels) // BATCH
        orders = [draws.permutation(len(self.labels))[: steps * BATCH] for _ in range(self.seeds)]
        self.order = jnp.asarray(
            np.stack(orders, 1).reshape(steps, BATCH, -1).swapaxes(1, 2), dtype=jnp.int32
        )
        self.program = Program(task["family"])
        self.state = self.program.start(stacked)
        self.steps_per_epoch = -(-len(self.labels) // BATCH)
        self.compiling = self._timed(FIRST_STEPS) + self._evaluated()

    def _timed(self, steps: int) -> float:
        begun = time.perf_counter()
        self.state, _ = jax.block_until_ready(
            self.program.train(self.state, self.images, self.labels, self.order, steps)
        )
        return time.perf_counter() - begun

    def _evaluated(self) -> float:
        part = slice(0, EVALUATION_BATCH)
        begun = time.perf_counter()
        jax.block_until_ready(
            self.program.correct(self.state[0], self.val_images[part], self.val_labels[part])
        )
        return time.perf_counter() - begun

    def seconds_per_epoch(self, seconds: float) -> float:
        """Return the seconds per trial of one training epoch and its evaluation."""
        one = self._timed(FIRST_STEPS) / FIRST_STEPS
        steps = max(FIRST_STEPS, round(seconds / one))
        step = self._timed(steps) / steps
        evaluation = min(self._evaluated() for _ in range(2)) * len(self.val_labels) / EVALUATION_BATCH
        return (step * self.steps_per_epoch + evaluation) / (self.seeds * self.modes)


def main() -> None:
    """Answer tasks until standard input ends."""
    from psa.data.splits import load_splits
    from psa.specs.data import DataSpec

    splits = load_splits(DataSpec(), serving.data_dir())
    parts = (splits.train.images, splits.train.labels, splits.val.images, splits.val.labels)
    data = tuple(
        jnp.asarray(part.numpy().astype(np.float32 if part.ndim > 1 else np.int32)) for part in parts
    )
    kept: dict[str, Training] = {}

    def measure(task: serving.Task) -> dict[str, Any]:
        key = f"{task['family']} {task['arch']} {task['size']}"
        if key not in kept:
            kept.clear()
            jax.clear_caches()
            kept[key] = Training(task, data)
        return {"epoch": kept[key].seconds_per_epoch(task["seconds"]), "compile": kept[key].compiling}

    serving.serve({"try": measure, "measure": measure}, {"jax": jax.__version__})


if __name__ == "__main__":
    main()
