"""One epoch and one evaluation of T stacked trials: the hot path, and nothing else.

A step works on buffers that stay where they are, so that a GPU can record it once and play it back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from psa.core.errors import Interrupted
from psa.core.rng import hash_seed
from psa.data.splits import Split
from psa.engine.batches import Batches, RowSettings
from psa.engine.cuda_graph import CudaGraphStep
from psa.engine.optimizer import StackedOptimizer
from psa.interventions.memory.hook import MemoryHook, MemorySite
from psa.nn.dense import Bound, Dense
from psa.nn.dropout import Dropout
from psa.nn.precision import sum_dtype
from psa.nn.relu.relu_pass import ReluPass
from psa.nn.shared_products import Inputs
from psa.nn.stacked import StackedParams, empty_rows

EVALUATION_BATCH = 500  # divides 10,000 and 5,000; the counts do not depend on it


class Observer(Protocol):
    """An observer of training steps before the optimiser's update. Copies what it keeps, changes nothing."""

    def step(self, number: int, chosen: Tensor, logits: Tensor) -> None:
        """Observe batch `number` of the epoch: its samples as places in the split, int64 [T, B], and their
        logits under the present weights, [T, classes, B].
        """

    def layer(self, number: int, x: Tensor, delta: Tensor) -> None:
        """Observe a linear layer in this step: its input ([T, inputs, B]; undefined for the first layer), and
        the gradient of the batch's mean loss with respect to its product, [T, outputs, B].
        """


class DropoutPlan:
    """Dropout for those rows of an epoch that have any. layers: the width of each layer that drops."""

    def __init__(
        self, rows: Sequence[RowSettings], device: torch.device, layers: Mapping[int, int] | None = None
    ) -> None:
        self.layers = layers or {}
        on = [at for at, row in enumerate(rows) if row.dropout > 0]
        self.rows = _evenly_spaced(on) or torch.tensor(on, dtype=torch.int64, device=device)
        self.any = bool(on)
        keys = [hash_seed(rows[at].seed, "dropout", rows[at].loop) for at in on]
        self.keys = torch.tensor(keys, dtype=torch.int32, device=device)
        threshold = [min(round(rows[at].dropout * 2**32), 2**32 - 1) - 2**31 for at in on]
        self.threshold = torch.tensor(threshold, dtype=torch.int32, device=device).view(-1, 1, 1)
        scale = [1 / (1 - rows[at].dropout) for at in on]
        self.scale = torch.tensor(scale, dtype=torch.float32, device=device).view(-1, 1, 1)

    def at(self, step: Tensor) -> Dropout | None:
        """Return the dropout of batch number `step` (int32 []), None if no row has any."""
        if not self.any:
            return None
        return Dropout(self.rows, self.keys, self.threshold, self.scale, step, self.layers)


def _evenly_spaced(places: Sequence[int]) -> slice | None:
    """Return the slice that picks `places`, if there is one: views are cheaper than gathered copies."""
    if not places:
        return None
    step = places[1] - places[0] if len(places) > 1 else 1
    found = slice(places[0], places[-1] + 1, step)
    return found if list(range(found.start, found.stop, step)) == list(places) else None


class CrossEntropy:
    """The loss of logits [T, classes, B] and its gradient, in buffers allocated once.

    gradient: that of the batch's mean loss, written by `backward`.
    """

    def __init__(self, shape: Sequence[int], device: torch.device) -> None:
        trials, classes, samples = shape
        self._log_p = torch.empty(*shape, device=device)
        self._share = torch.empty_like(self._log_p)
        starts = torch.arange(trials, device=device).unsqueeze(1) * (classes * samples)
        self._of_class_0 = starts + torch.arange(samples, device=device)  # places in the flat logits
        self._of_label = torch.empty_like(self._of_class_0)
        self.gradient = empty_rows(shape[0], *shape[1:], device=device)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the summed loss of each trial [T], in sum_dtype."""
        torch.ops.aten._log_softmax.out(logits, 1, False, out=self._log_p)
        torch.add(self._of_class_0, labels, alpha=labels.shape[1], out=self._of_label)
        chosen = self._log_p.view(-1).index_select(0, self._of_label.view(-1)).view(labels.shape)
        return -chosen.to(sum_dtype(chosen.device)).sum(dim=1)

    def backward(self) -> Tensor:
        """Return `gradient`, for the logits and labels last given to `loss`."""
        log_p, gradient, places = self._log_p, self.gradient, self._of_label
        # over flat places: twice as fast as gather and scatter_ along the classes
        share = self._share.zero_()
        share.view(-1).index_fill_(0, places.view(-1), -1 / places.shape[1])
        into = gradient if gradient.is_contiguous() else torch.empty_like(log_p)
        torch.ops.aten._log_softmax_backward_data.out(share, log_p, 1, log_p.dtype, out=into)
        return gradient if into is gradient else gradient.copy_(into)


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed loss [T] (sum_dtype) of logits [T, classes, B] and the gradient of the batch mean."""
    entropy = CrossEntropy(logits.shape, logits.device)
    return entropy.loss(logits, labels), entropy.backward()


class _Step:
    """One training step on batches of one size. It reads which samples, and which step, from its tensors."""

    def __init__(
        self,
        bound: Bound,
        optimizer: StackedOptimizer,
        batches: Batches,
        size: int,
        dropout: DropoutPlan,
        total: Tensor,
        observer: Observer | None,
        memory_site: MemorySite | None,
    ) -> None:
        self.bound, self.optimizer, self.batches = bound, optimizer, batches
        self.dropout, self.total, self.observer = dropout, total, observer
        device = total.device
        self.number = torch.zeros((), dtype=torch.int32, device=device)
        self.chosen = torch.empty(len(batches.rows), size, dtype=torch.int64, device=device)
        self.inputs = batches.empty_inputs(size)
        self.entropy = CrossEntropy((len(total), bound.net.shape.linears[-1].outputs, size), device)
        self.memory_site = memory_site
        # Not recorded as a CUDA graph: an observer must be called in every step, and a memory allocates and
        # reads its fill level from the device.
        free = memory_site is None and observer is None
        self.work: Callable[[], None] = CudaGraphStep(self._work, device) if free else self._work
        direct = free and ReluPass.serves(bound.net)
        self.direct = ReluPass(bound, len(total), size, training=True) if direct else None

    def __call__(self, number: int) -> None:
        """Train on batch `number` of the epoch; its summed losses are added to `total`."""
        self.number.fill_(number)
        self.chosen.copy_(self.batches.chosen(number))
        self.work()

    def _work(self) -> None:
        labels = self.batches.gather(self.chosen, self.inputs)
        dropout = self.dropout.at(self.number)
        if self.direct is None:
            loss = self._by_autograd(labels, dropout)
        else:
            loss = self.entropy.loss(self.direct.forward(self.inputs, dropout), labels)
            self.direct.backward(self.entropy.backward())
            self.optimizer.step()
        self.total += loss

    def _by_autograd(self, labels: Tensor, dropout: Dropout | None) -> Tensor:
        """Train on a batch of any network; its memory, if it has one, learns from the step."""
        visit = None
        if self.memory_site is not None:
            visit = MemoryHook(self.memory_site, self.batches.numbers(self.chosen), training=True)
        logits = self.bound(self.inputs, dropout, change=None if visit is None else visit.change)
        loss = self.entropy.loss(logits.detach(), labels)
        if self.observer is not None:
            self.observer.step(int(self.number), self.chosen[self.batches.group], logits.detach())
        logits.backward(self.entropy.backward())
        self.optimizer.step()
        if visit is not None:
            visit.learn(logits, labels)
        return loss


def train_epoch(  # what an epoch works on is many things
    net: Dense,
    rows: Sequence[RowSettings],
    active: StackedParams,
    gradients: StackedParams,
    optimizer: StackedOptimizer,
    batches: Batches,
    stop: Callable[[], bool] = lambda: False,
    observer: Observer | None = None,
    memory_site: MemorySite | None = None,
) -> Tensor:
    """Train the T rows of `active` in place for one epoch; mean training loss per trial [T], in sum_dtype.

    memory_site: the memories of the rows, which learn.

    Raises Interrupted between two steps when `stop` returns True; `active` is then invalid.
    """
    device = active.first.device
    dropout = DropoutPlan(rows, device, net.dropping)
    bound = net.bind(active, gradients, [row.loop for row in rows])
    if observer is not None:
        bound.watch(observer.layer)
    total = torch.zeros(len(rows), dtype=sum_dtype(device), device=device)
    if memory_site is not None:
        memory_site.begin([row.loop for row in rows])
    steps = {
        size: _Step(bound, optimizer, batches, size, dropout, total, observer, memory_site)
        for size in batch_sizes(len(batches.split), batches.batch_size)
    }
    for number in range(len(batches)):
        if stop():
            raise Interrupted
        steps[batches.size(number)](number)
    return total / len(batches.split)


def _forward(bound: Bound, trials: int) -> Callable[[Inputs, int], Tensor]:
    """Return a function of inputs and the size of their batch that returns logits, which it may overwrite."""
    if not ReluPass.serves(bound.net):
        return lambda inputs, batch: bound(inputs)
    passes: dict[int, ReluPass] = {}

    def forward(inputs: Inputs, batch: int) -> Tensor:
        if batch not in passes:
            passes[batch] = ReluPass(bound, trials, batch, training=False)
        return passes[batch].forward(inputs)

    return forward


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many answers of each trial are correct, int64 [T]; the answer is the first class with the
    greatest logit. Logits [T, classes, B] are finite.

    Equal to `logits.argmax(dim=1) == labels`, which on a CPU took 69 % of an evaluation (60 trials of 4*1,
    2026-11): argmax compares numbers one by one, maximum compares rows of them.
    """
    chosen = labels.unsqueeze(1)
    before = torch.full_like(logits, -math.inf)  # the greatest logit of all classes before each class
    for label in range(1, logits.shape[1]):
        torch.maximum(before[:, label - 1], logits[:, label - 1], out=before[:, label])
    own = logits.gather(1, chosen)
    greatest = torch.maximum(before[:, -1:], logits[:, -1:])
    return ((own > before.gather(1, chosen)) & (own == greatest)).sum(dim=(1, 2))


@torch.no_grad()
def evaluate(
    net: Dense,
    weights: StackedParams,
    split: Split,
    loops: Sequence[int] | None = None,
    memory_site: MemorySite | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the correct answers [T] (int64) and mean loss [T] (sum_dtype) per trial on a split. The loss is
    NaN if any logit is not finite, even one that the loss does not depend on.

    loops: the epochs that made the weights, if the network depends on them. memory_site: memories that act,
    of the rows and at their epochs; they stay as they are.
    """
    trials, device = len(weights), weights.first.device
    bound = net.bind(weights, loops=loops)
    forward = _forward(bound, trials)
    entropies: dict[torch.Size, CrossEntropy] = {}
    correct = torch.zeros(trials, dtype=torch.int64, device=device)
    total, logit_sum = torch.zeros(2, trials, dtype=sum_dtype(device), device=device).unbind()
    for start in range(0, len(split), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        labels = split.labels[part].expand(trials, -1)
        change = None
        if memory_site is not None:
            change = MemoryHook(memory_site, split.index[part].expand(trials, -1), training=False).change
        inputs = Inputs.same_for_all(split.images[part], trials)
        logits = bound(inputs, change=change) if change is not None else forward(inputs, len(labels[0]))
        if labels.shape not in entropies:
            entropies[labels.shape] = CrossEntropy(logits.shape, device)
        loss = entropies[labels.shape].loss(logits, labels)
        total += loss
        part_sum = logits.sum(dim=(1, 2), dtype=sum_dtype(device))
        logit_sum += part_sum
        if device.type == "cpu" and bool(part_sum.isfinite().all()):
            correct += count_correct(logits, labels)
        else:
            correct += (logits.argmax(dim=1) == labels).sum(dim=1)
    return correct, (total / len(split)).where(logit_sum.isfinite(), math.nan)


def batch_sizes(samples: int, batch_size: int) -> set[int]:
    """Return the sizes of the batches that `samples` samples are cut into."""
    return {min(samples, batch_size), samples % batch_size} - {0}


def padded(net: Dense, trials: int, batches: set[int]) -> bool:
    """Return True if a lone trial must be computed beside a copy of itself to get the bits it has in a pack.

    A batched product of one matrix with a dimension of 1 goes to another kernel (measured); two do not.
    """
    return trials == 1 and 1 in batches | {net.smallest_dimension}
