"""Estimates the memory that a training step needs, and warns before a training if there isn't enough."""

from __future__ import annotations

import contextlib
import os
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.client import device_lib  # not public, but it alone knows how much memory a GPU has

from tas_tf.training.calls import ModelCalls, record_calls, size_of
from tas_tf.training.segments import Flow

#: Bytes of a megabyte.
MEGABYTE = 1e6
#: Bytes that TensorFlow takes for the program of a step, for each call in it.
_PROGRAM = 1.5 * MEGABYTE
#: Operations of a step with recomputed activations, in times those of one without.
_RECOMPUTED = 4 / 3
#: Memory of a step in times all outputs and weights, above which an estimate is worth its time.
_ROUGH = 10
#: Where a container's limit stands.
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Memory at the peak of a training step, in bytes on each replica.

    Attributes:
        weights: All variables of the network.
        slots: What the optimizer keeps for each weight.
        gradients: Gradients of weights that are there at the peak, and their sums over the parts of a batch.
        activations: What is kept for the backward pass, and tensors in work.
        teacher: The teacher's weights and activations.
        program: TensorFlow's program of the step.

    Example:
        >>> str(StepMemory(weights=2e6, slots=2e6, gradients=1e6, activations=45e6))
        '50 MB (activations 45, weights 2, slots 2, gradients 1)'
    """

    weights: float
    slots: float = 0.0
    gradients: float = 0.0
    activations: float = 0.0
    teacher: float = 0.0
    program: float = 0.0

    @property
    def total(self) -> float:
        """All of it, in bytes."""
        return sum(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        """The total and its parts in MB, the largest first."""
        parts = sorted(((getattr(self, field.name), field.name) for field in fields(self)), key=lambda one: -one[0])
        named = ", ".join(f"{name} {value / MEGABYTE:,.0f}" for value, name in parts if value >= MEGABYTE / 2)
        return f"{self.total / MEGABYTE:,.0f} MB" + (f" ({named})" if named else "")


def estimate_step(
    network: keras.Model,
    batch_size: int,
    *,
    accumulate: int = 1,
    recompute: bool = False,
    momentum: bool = True,
    teacher: keras.Model | None = None,
    replicas: int = 1,
    passes: int = 1,
) -> StepMemory:
    """Estimates the memory of a training step, on each replica.

    The step needs most either while the gradient of some call of the network is computed, or while weights are updated.
    At a call, memory holds what this call and those before it keep, tensors in work, and the gradients of the weights
    behind it: `docs/METHOD.md` has the formula.

    Args:
        network: Functional network; of a supernet, its body.
        batch_size: Images in a batch, over all replicas.
        accumulate: Parts in which a batch is computed.
        recompute: Whether activations are computed again.
        momentum: Whether the optimizer has momentum.
        teacher: Network whose outputs are computed in each step.
        replicas: Number of replicas.
        passes: Batches that a step computes gradients for, one after another: two in a search.

    Example:
        >>> images = keras.Input((100, 100, 1))
        >>> network = keras.Model(images, keras.layers.Conv2D(10, 3)(images))
        >>> round(estimate_step(network, 8).activations)  # 8 images of 100x100x1 and 98x98x10 numbers, twice
        6786560
    """
    model = record_calls(network)
    flow, images = Flow(model), batch_size / (replicas * accumulate)
    ends = flow.best_ends() if recompute else (flow.length,)
    trained = sum(map(bytes_of, network.trainable_variables))
    at_calls = zip(flow.backward_pass(ends), _gradients_behind(model), strict=True)
    moments = [(images * kept, gradients) for kept, gradients in at_calls]
    moments.append((0.0, 2 * trained))  # the update, when L2 is added to all gradients
    activations, gradients = max(moments, key=sum)
    return StepMemory(
        weights=sum(map(bytes_of, network.variables)),
        slots=trained * momentum,
        gradients=gradients + trained * (accumulate > 1),
        activations=activations + flow.fixed(ends),
        teacher=0.0 if teacher is None else _teaching(teacher, images),
        # Of the parts of a batch, each further one takes half as much as the first.
        program=_PROGRAM * flow.length * passes * (1 + accumulate) / 2 * (_RECOMPUTED if recompute else 1),
    )


def machine_memory() -> tuple[float, str]:
    """Bytes of memory that training steps share, and whose they are: those of a GPU, or else of the machine.

    Containers may have less than the machine.
    """
    if tf.config.list_physical_devices("GPU"):
        limits = [one.memory_limit for one in device_lib.list_local_devices() if one.device_type == "GPU"]
        return float(min(limits)), "each GPU"
    found = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):  # there is no limit, or the word `max`
        found = min(found, float(_CONTAINER_LIMIT.read_text(encoding="utf-8")))
    return found, "this machine"


def shortage(memory: StepMemory, *, replicas: int = 1) -> str | None:
    """Says that a step needs more memory than there is, and what helps; `None` if there is enough.

    Args:
        memory: What the step needs on each replica.
        replicas: Number of replicas, which share the machine's memory if they have no GPUs.
    """
    there, whose = machine_memory()
    needed = memory.total * (replicas if whose == "this machine" else 1)
    if needed <= there:
        return None
    return (
        f"A training step needs about {needed / MEGABYTE:,.0f} MB of memory, but {whose} has {there / MEGABYTE:,.0f}. "
        "A smaller `batch_size` needs less; `accumulate` and `recompute` need less for the same batch."
    )


def warn_of_shortage(network: keras.Model, batch_size: int, **options: Any) -> None:
    """Warns if a training step needs more memory than there is.

    Args:
        network: See `estimate_step`.
        batch_size: See `estimate_step`.
        **options: Further arguments of `estimate_step`.
    """
    replicas = options.get("replicas", 1)
    images = batch_size / (replicas * options.get("accumulate", 1))
    outputs = sum(size_of(one) for call in record_calls(network).calls for one in call.makes)
    rough = images * outputs + sum(map(bytes_of, network.variables))
    if rough * replicas * _ROUGH < machine_memory()[0]:
        return  # enough by far; an estimate takes seconds
    text = shortage(estimate_step(network, batch_size, **options), replicas=replicas)
    if text is not None:
        warnings.warn(text, stacklevel=2)


def bytes_of(variable: Any) -> int:
    """Bytes of a variable."""
    return tf.TensorShape(variable.shape).num_elements() * tf.as_dtype(variable.dtype).size


def _gradients_behind(model: ModelCalls) -> list[float]:
    """Bytes of the gradients of the weights of each call and of those behind it."""
    found, seen, total = [], set(), 0.0
    for call in reversed(model.calls):
        weights = {id(one): one for one in getattr(call.operation, "trainable_variables", ())}
        total += sum(bytes_of(one) for key, one in weights.items() if key not in seen)
        seen |= set(weights)
        found.append(total)
    return found[::-1]


def _teaching(teacher: keras.Model, images: float) -> float:
    """Bytes of a teacher: its weights, and the tensors of its largest call, since none are kept."""
    calls = record_calls(teacher).calls
    largest = max((sum(map(size_of, (*call.reads, *call.makes))) for call in calls), default=0)
    return sum(map(bytes_of, teacher.variables)) + images * largest
