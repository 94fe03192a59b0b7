"""Compile a training step as one function, and compile it again when needed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config
from torch.fx.experimental.proxy_tensor import make_fx

from schnet_ase.data.batches import Batch
from schnet_ase.geometry.graph import Pairs
from schnet_ase.inference.forces import predict
from schnet_ase.training.step.loss import GradientStep, LossTerms, Trainable, backward, frame_losses, is_complete

LOGGER = logging.getLogger("schnet_ase")
SUMMED_AT_ONCE = 4096
"""On a CPU, separate code sums longer float32 arrays in parts (``need_use_acc_helper`` in torch's
``_inductor/codegen/cpp.py``, version 2.13). A step compiled for few pairs is compiled again for more."""
SUMMED_TERM_BY_TERM = 32
"""Numbers of atoms and of features of the readout up to which separate code computes their product on a CPU (``mm`` in
torch's ``_inductor/decomposition.py``); the presets have more features."""


def compiled_step(model: Trainable, terms: LossTerms, one_shape: bool = True) -> GradientStep:
    """Make a step that is traced through both derivatives and compiled as a whole, three to five times as fast on a
    CPU.

    `torch.compile` does not differentiate twice. Therefore the step, including the gradient, is first traced into a
    graph without autograd.

    Parameters
    ----------
    model
        Model whose parameters get the gradient.
    terms
        As in `frame_losses`.
    one_shape
        Whether every batch has the shape of the first. Otherwise sizes stay variable, which takes three times as long
        to compile, and a tenth longer to run.
    """

    def loss_and_gradient(parameters: dict[str, Tensor], batch: Batch, complete: bool) -> tuple[Tensor, list[Tensor]]:
        leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        prediction = predict(
            _WithParameters(model, leaves), batch.graph, gradients=terms.derivatives, create_graph=True
        )
        losses = frame_losses(prediction, batch, terms, complete=complete)
        loss = backward(losses, model.n_networks)
        # A parameter that the loss does not reach (the last bias, without an energy term) has no gradient.
        return loss, [torch.zeros_like(p) if p.grad is None else p.grad for p in leaves.values()]

    names, parameters = zip(*model.named_parameters(), strict=True)
    readout_features = next(p.shape[-1] for name, p in model.named_parameters() if name.endswith("readout1.bias"))
    compiled: dict[_Form, Callable[[dict[str, Tensor], Batch], tuple[Tensor, list[Tensor]]]] = {}

    def compile_for(form: _Form, weights: dict[str, Tensor], batch: Batch) -> None:
        LOGGER.info("compiling the training step%s: no step is made for up to a few minutes", form.describe())
        # Two sizes that happen to be equal in the first batch must not become one variable, neither in tracing nor when
        # the first call compiles it; otherwise the step would be compiled again for the next batch.
        with _config.patch(use_duck_shape=False):  # type: ignore[attr-defined]
            trace = make_fx(
                partial(loss_and_gradient, complete=form.complete),
                tracing_mode="real" if one_shape else "symbolic",
                _allow_non_fake_inputs=True,
            )
            compiled[form] = torch.compile(trace(weights, batch), fullgraph=True, dynamic=not one_shape)
            with torch.no_grad():
                compiled[form](weights, batch)

    def step(batch: Batch) -> Tensor:
        weights = {name: p.detach() for name, p in zip(names, parameters, strict=True)}
        form = _form(batch, model.n_networks, readout_features, is_complete(batch, terms))
        if (lacking := form._replace(complete=False)) in compiled:
            form = lacking  # it also serves frames that have all labels
        if form not in compiled:
            compile_for(form, weights, batch)
        with torch.no_grad():
            loss, gradient = compiled[form](weights, batch)
        for parameter, g in zip(parameters, gradient, strict=True):
            parameter.grad = g
        return loss

    return step


class _Form(NamedTuple):
    """Properties of its batches that a compiled step relies on, even if sizes are variable."""

    complete: bool
    """Whether every frame has every label that counts."""

    periodic: bool
    sizes: tuple[int, int, int]
    """Whether there are zero, one, or more systems, atoms and pairs."""
    large: tuple[bool, ...]
    """Whether there are more atoms, and more pairs, of all networks and of each, than torch sums at once."""
    few: bool
    """Whether the last product has few atoms; see `SUMMED_TERM_BY_TERM`."""

    def describe(self) -> str:
        """Return the reason for another compilation, for the log."""
        most = " and ".join(what for what, large in zip(("atoms", "pairs"), self.large, strict=False) if large)
        reasons = [f"batches of more than {SUMMED_AT_ONCE:,} {most}"] if most else []
        reasons += ["batches of few atoms"] if self.few else []
        reasons += [] if self.complete else ["frames without some label"]
        reasons += ["pairs across cell faces"] if self.periodic else []
        return f" ({', '.join(reasons)})" if reasons else ""


def _form(batch: Batch, n_networks: int, readout_features: int, complete: bool) -> _Form:
    n_atoms, n_pairs = len(batch.graph.numbers), len(batch.graph.pairs.first)
    systems, atoms, pairs = (min(size, 2) for size in (len(batch.n_atoms), n_atoms, n_pairs))
    sums = (n_atoms, n_pairs, n_atoms // n_networks, n_pairs // n_networks)
    on_cpu = batch.n_atoms.device.type == "cpu"
    return _Form(
        complete,
        batch.graph.shifts is not None,
        (systems, atoms, pairs),
        tuple(on_cpu and size > SUMMED_AT_ONCE for size in sums),
        on_cpu and n_atoms + readout_features <= SUMMED_TERM_BY_TERM,
    )


def without_small_batches(compiled: GradientStep, eager: GradientStep) -> GradientStep:
    """Make a step for batches of many sizes that leaves those of one atom, or of at most one pair, to an eager step.

    A compiled function serves all sizes from two on. The others would each need a function of their own, whose
    compilation takes minutes, while an eager step takes milliseconds.
    """

    def step(batch: Batch) -> Tensor:
        small = min(len(batch.graph.numbers), len(batch.graph.pairs.first)) < 2
        return eager(batch) if small else compiled(batch)

    return step


def with_fallback(compiled: GradientStep, fallback: Callable[[str], GradientStep]) -> GradientStep:
    """Make a step that is replaced by `fallback(reason)` if its first call fails because compilation is impossible."""
    current, first = compiled, True

    def step(batch: Batch) -> Tensor:
        nonlocal current, first
        try:
            return current(batch)
        except Exception as error:  # compilers raise errors of every kind
            if not first:
                raise
            current = fallback((str(error).strip() or type(error).__name__).splitlines()[0])
            return current(batch)
        finally:
            first = False

    return step


class _WithParameters:
    """A module that takes its parameters as arguments."""

    member_shape: tuple[int, ...] = ()

    def __init__(self, module: nn.Module, parameters: dict[str, Tensor]) -> None:
        self.module = module
        self.parameters = parameters

    def __call__(self, numbers: Tensor, vectors: Tensor, pairs: Pairs) -> Tensor:
        result: Tensor = torch.func.functional_call(self.module, self.parameters, (numbers, vectors, pairs))
        return result


def can_compile() -> bool:
    """Return whether a C++ compiler is available for `torch.compile` on the CPU."""
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))
