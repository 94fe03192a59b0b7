"""The optimizer SOAP: Adam on vectors, blind to rotations of the features, and quick through narrow valleys."""

import pytest
import torch

from schnet_ase.training.step.soap import SOAP


def minimized(optimizer, parameter, loss, steps):
    """The path of a parameter."""
    path = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss(parameter).backward()
        optimizer.step()
        path.append(parameter.detach().clone())
    return torch.stack(path)


def orthogonal(n):
    return torch.linalg.qr(torch.randn(n, n, dtype=torch.float64)).Q


def start(values):
    return torch.nn.Parameter(values.clone())


@pytest.mark.parametrize("shape", [(7,), (1, 7)])
def test_adam_on_vectors(shape):
    torch.manual_seed(0)
    target, initial = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    ours, theirs = start(initial), start(initial)
    loss = lambda x: ((x - target) ** 4).sum()  # noqa: E731
    path = minimized(SOAP([ours], lr=0.01), ours, loss, 50)
    reference = minimized(torch.optim.Adam([theirs], lr=0.01, betas=(0.95, 0.95)), theirs, loss, 50)
    torch.testing.assert_close(path, reference, rtol=1e-6, atol=1e-6)


def test_rotated_features_rotate_the_path():
    """W → A W B, the loss as it was: the weights go the rotated way, which those of Adam do not."""
    torch.manual_seed(1)
    n = 5
    a, b, initial, target, inputs = orthogonal(n), orthogonal(n), *torch.randn(3, n, n, dtype=torch.float64)

    def loss(w):
        return ((w @ inputs - target) ** 2).sum() + torch.cos(w @ inputs).sum()

    def path(make):
        plain, turned = start(initial), start(a @ initial @ b)
        return (
            minimized(make(plain), plain, loss, 35),
            minimized(make(turned), turned, lambda w: loss(a.T @ w @ b.T), 35),
        )

    plain, turned = path(lambda p: SOAP([p], lr=0.02))
    assert (plain[-1] - initial).abs().max() > 0.2, "it has gone somewhere, over three refreshed bases"
    torch.testing.assert_close(a @ plain @ b, turned, rtol=0, atol=1e-6)
    plain, turned = path(lambda p: torch.optim.Adam([p], lr=0.02))
    assert (a @ plain @ b - turned).abs().max() > 0.05


def test_narrow_valleys():
    """A matrix product's inputs with a condition of 10⁴, along no axis: Adam at its best rate stays behind."""
    torch.manual_seed(2)
    n = 16
    inputs = orthogonal(n) @ torch.diag(torch.logspace(0, -2, n, dtype=torch.float64)) @ orthogonal(n)
    target = torch.randn(n, n, dtype=torch.float64)

    def left_over(make, lr):
        w = start(torch.zeros_like(target))
        optimizer = make([w], lr)
        for step in range(400):
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 - step / 400)
            minimized(optimizer, w, lambda x: ((x @ inputs - target @ inputs) ** 2).sum(), 1)
        return ((w @ inputs - target @ inputs) ** 2).sum().item()

    rates = (0.003, 0.01, 0.03, 0.1)
    soap = min(left_over(SOAP, lr) for lr in rates)
    adam = min(left_over(lambda p, lr: torch.optim.Adam(p, lr=lr), lr) for lr in rates)
    print(f"left over: {soap:.2e} SOAP, {adam:.2e} Adam")
    assert soap < 0.1 * adam


def test_inputs_that_all_but_vanish():
    """As those of Gaussians far beyond a molecule do: their moments are subnormal, and others are learnt as ever."""
    torch.manual_seed(4)
    inputs = torch.exp(-torch.linspace(0.0, 60.0, 100))[:, None] * torch.randn(100, 32)
    target = torch.randn(32, 100) @ inputs
    w = start(torch.zeros(32, 100))
    minimized(SOAP([w], lr=0.1), w, lambda x: ((x @ inputs - target) ** 2).mean(), 200)
    assert ((w @ inputs - target) ** 2).mean() < 0.01 * (target**2).mean()


def test_weight_decay_is_decoupled():
    """Without a gradient the weights shrink by what AdamW takes off."""
    values = torch.randn(4, 3)
    ours, theirs = start(values), start(values)
    for p, optimizer in (
        (ours, SOAP([ours], lr=0.1, weight_decay=0.5)),
        (theirs, torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.5)),
    ):
        p.grad = torch.zeros_like(p)
        optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_goes_on_from_its_state():
    torch.manual_seed(3)
    initial, target = torch.randn(2, 6, 4)
    loss = lambda w: ((w - target) ** 4).sum()  # noqa: E731
    whole = start(initial)
    path = minimized(SOAP([whole], lr=0.05), whole, loss, 40)
    first = start(initial)
    optimizer = SOAP([first], lr=0.05)
    minimized(optimizer, first, loss, 17)
    second = start(first.detach())
    again = SOAP([second], lr=0.05)
    again.load_state_dict(optimizer.state_dict())
    assert torch.equal(minimized(again, second, loss, 23), path[17:])


def test_no_step_is_longer_than_adams():
    """Not after a gradient out of all proportion either, which turns the bases away from the second moment kept."""
    torch.manual_seed(3)
    n, m, rate = 6, 4, 0.1
    weight = start(torch.zeros(n, m, dtype=torch.float64))
    optimizer = SOAP([weight], lr=rate)
    for step in range(60):
        before = weight.detach().clone()
        weight.grad = torch.randn(n, 1, dtype=torch.float64) @ torch.randn(1, m, dtype=torch.float64)
        weight.grad *= 1e8 if step == 27 else 1.0
        optimizer.step()
        assert torch.linalg.matrix_norm(weight.detach() - before) <= rate * (n * m) ** 0.5 * (1.0 + 1e-9), step
