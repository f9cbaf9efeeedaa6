"""Our schedules are those of transformers, and the closed forms where it has no such option."""
import math
import os
import subprocess

import pytest
import torch
import transformers.optimization as theirs

TOOL = os.path.join(os.environ.get("TESSERA_BUILD", "build/release"), "tool_schedule")


def ours(total, **options):
    arguments = [f"{key}: {value}" for key, value in options.items()]
    return [float(x) for x in subprocess.run([TOOL, str(total), *arguments], stdout=subprocess.PIPE,
                                             check=True).stdout.split()]


def factors(make, count):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer)
    return [schedule.lr_lambdas[0](step) for step in range(count)]


@pytest.mark.parametrize("total,warm_up,steps", [(100, 0, 0), (100, 10, 10), (200, "5%", 10), (37, "100%", 37), (50, 49, 49)])
def test_equal_to_transformers(total, warm_up, steps):
    count = total + 4
    pairs = [("linear", lambda o: theirs.get_linear_schedule_with_warmup(o, steps, total)),
             ("cosine", lambda o: theirs.get_cosine_schedule_with_warmup(o, steps, total)),
             ("constant", lambda o: theirs.get_constant_schedule_with_warmup(o, steps))]
    if steps:
        pairs.append(("inverse_sqrt", lambda o: theirs.get_inverse_sqrt_schedule(o, steps)))
    for name, make in pairs:
        got, wanted = ours(total, name=name, warm_up=warm_up), factors(make, count)
        if name == "cosine":  # theirs rises again after the end, or is 1 there without a decay
            got, wanted = got[:total], wanted[:total]
        assert got == pytest.approx(wanted, abs=1e-12), name


def test_final_share():
    for total, warm_up in (100, 10), (100, 0):
        linear, cosine = ours(total, name="linear", warm_up=warm_up, final=0.1), ours(total, name="cosine", warm_up=warm_up,
                                                                                     final=0.1)
        for step in range(warm_up, total + 1):
            x = (step - warm_up) / (total - warm_up)
            assert linear[step] == pytest.approx(1 - 0.9 * x)
            assert cosine[step] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * x)))
        assert [linear[-1], cosine[-1]] == pytest.approx([0.1, 0.1])
    assert min(ours(1000, name="inverse_sqrt", warm_up=10, final=0.2)[10:]) == 0.2


def test_unknown_name_is_a_mistake():
    done = subprocess.run([TOOL, "10", "name: linera"], capture_output=True, text=True)
    assert done.returncode == 2 and "did you mean 'linear'" in done.stderr
