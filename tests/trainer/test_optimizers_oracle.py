"""Our optimizers follow torch.optim's to the last bits, on every path and type."""
import os
import subprocess

import numpy as np
import pytest
import torch

TOOL = os.path.join(os.environ.get("TESSERA_BUILD", "build/release"), "tool_optimizer")
SHAPES = [(3, 5), (1,), (129, 257), (7,), (2, 3, 11), (16385,), (4096,), (1, 2049)]
STEPS = 50


def run(name, initial, gradients, aten=0, clip=0.0, working="float32", gradient="float32", **options):
    """`options` are keys of the recipe's section."""
    shapes = ",".join("x".join(map(str, shape)) for shape in SHAPES)
    data = b"".join(t.float().numpy().tobytes() for t in initial)
    data += b"".join(t.float().numpy().tobytes() for step in gradients for t in step)
    section = "\n".join(f"{key}: {value}" for key, value in {"name": name, **options}.items())
    arguments = [f"aten={aten}", f"clip={clip}", f"working={working}", f"gradient={gradient}"]
    out = subprocess.run([TOOL, section, f"shapes={shapes}", f"steps={len(gradients)}", *arguments], input=data,
                         stdout=subprocess.PIPE, check=True).stdout
    flat = torch.from_numpy(np.frombuffer(out, dtype=np.float32).copy())
    tensors = []
    while flat.numel():
        for shape in SHAPES:
            count = int(np.prod(shape))
            tensors.append(flat[:count].view(shape))
            flat = flat[count:]
    groups = [tensors[i:i + len(SHAPES)] for i in range(0, len(tensors), len(SHAPES))]
    return {"masters": groups[0], "working": groups[1], "state": groups[2:]}


def problem(seed, gradient=torch.float32):
    torch.manual_seed(seed)
    initial = [torch.randn(shape) for shape in SHAPES]
    gradients = [[(torch.randn(shape) * 10 ** float(torch.empty(()).uniform_(-4, 1))).to(gradient) for shape in SHAPES]
                 for _ in range(STEPS)]
    return initial, gradients


def reference(make, initial, gradients, clip=0.0):
    parameters = [torch.nn.Parameter(t.clone()) for t in initial]
    optimizer = make(parameters)
    for step in gradients:
        for parameter, gradient in zip(parameters, step):
            parameter.grad = gradient.float().clone()
        if clip:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
    return parameters, optimizer


def check(ours, theirs, ulps=8):
    for a, b in zip(ours, theirs):
        b = b.detach()
        # Cancellation makes small values of large steps: the last bits of the largest element are the unit.
        assert (a - b).abs().max() <= ulps * 2 ** -23 * max(b.abs().max(), 1e-30), (a - b).abs().max()


@pytest.mark.parametrize("aten", [0, 1])
@pytest.mark.parametrize("options", [
    dict(learning_rate=1e-3, weight_decay=0.01), dict(learning_rate=0.05, beta1=0.8, beta2=0.98, epsilon=1e-6,
                                                      weight_decay=0.1), dict(learning_rate=0.01, weight_decay=0)])
def test_adamw_equals_torch(options, aten):
    initial, gradients = problem(1)
    ours = run("adamw", initial, gradients, aten=aten, **options)
    theirs, optimizer = reference(lambda p: torch.optim.AdamW(
        p, lr=options["learning_rate"], betas=(options.get("beta1", 0.9), options.get("beta2", 0.999)),
        eps=options.get("epsilon", 1e-8), weight_decay=options["weight_decay"], foreach=False), initial, gradients)
    check(ours["masters"], theirs, ulps=32)
    check(ours["state"][0], [optimizer.state[p]["exp_avg"] for p in theirs])
    check(ours["state"][1], [optimizer.state[p]["exp_avg_sq"] for p in theirs])


@pytest.mark.parametrize("aten", [0, 1])
@pytest.mark.parametrize("options", [
    dict(momentum=0.9), dict(momentum=0.9, nesterov="true", weight_decay=0.01), dict(momentum=0, weight_decay=0.1)])
def test_sgd_equals_torch(options, aten):
    initial, gradients = problem(2)
    ours = run("sgd", initial, gradients, learning_rate=0.01, aten=aten, **options)
    theirs, optimizer = reference(lambda p: torch.optim.SGD(
        p, lr=0.01, momentum=options["momentum"], nesterov="nesterov" in options,
        weight_decay=options.get("weight_decay", 0), foreach=False), initial, gradients)
    check(ours["masters"], theirs, ulps=32)
    if options["momentum"]:
        check(ours["state"][0], [optimizer.state[p]["momentum_buffer"] for p in theirs])


def test_clipping_equals_torch():
    initial, gradients = problem(3)
    ours = run("sgd", initial, gradients, learning_rate=0.1, momentum=0, clip=1.0)
    theirs, _ = reference(lambda p: torch.optim.SGD(p, lr=0.1), initial, gradients, clip=1.0)
    check(ours["masters"], theirs, ulps=32)


@pytest.mark.parametrize("aten", [0, 1])
@pytest.mark.parametrize("working", ["bfloat16", "float16"])
def test_low_precision_copies_are_rounded_masters(working, aten):
    kind = getattr(torch, working)
    initial, gradients = problem(4, kind)
    ours = run("adamw", initial, gradients, working=working, gradient=working, aten=aten, learning_rate=0.01)
    theirs, _ = reference(lambda p: torch.optim.AdamW(p, lr=0.01, foreach=False), initial, gradients)
    check(ours["masters"], theirs, ulps=32)
    for copy, master in zip(ours["working"], ours["masters"]):
        assert torch.equal(copy, master.to(kind).float())


def test_google_bert_convention():
    """AdamWeightDecayOptimizer of google-research/bert: no bias correction, update = m / (sqrt(v) + eps) + decay x w."""
    initial, gradients = problem(5)
    ours = run("adamw", initial, gradients, bias_correction="false", epsilon=1e-6, weight_decay=0.01, learning_rate=1e-3)
    aten = run("adamw", initial, gradients, bias_correction="false", epsilon=1e-6, weight_decay=0.01, learning_rate=1e-3,
               aten=1)
    for i, start in enumerate(initial):
        w, m, v = start.double(), torch.zeros(start.shape).double(), torch.zeros(start.shape).double()
        for step in gradients:
            g = step[i].double()
            m = 0.9 * m + 0.1 * g
            v = 0.999 * v + 0.001 * g * g
            w = w - 1e-3 * (m / (v.sqrt() + 1e-6) + 0.01 * w)
        assert torch.allclose(ours["masters"][i].double(), w, rtol=1e-5, atol=1e-5)
        assert torch.allclose(aten["masters"][i].double(), w, rtol=1e-5, atol=1e-5)


def test_result_does_not_depend_on_threads():
    initial, gradients = problem(6)
    results = []
    for threads in "1", "2", "3":
        os.environ["OMP_NUM_THREADS"] = threads
        results.append(run("adamw", initial, gradients, learning_rate=0.01, clip=0.5))
    os.environ["OMP_NUM_THREADS"] = "1"
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0]["masters"], other["masters"]))
