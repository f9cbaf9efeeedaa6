"""Generation equals transformers' generate, its filtered distributions and its filled masks."""
import os
import subprocess

import h5py
import numpy
import pytest
import torch
import transformers
from transformers.generation import logits_process as theirs

TOOL = os.path.join(os.environ.get("TESSERA_BUILD", "build/release"), "tool_generate")
SIZES = dict(num_layers=2, hidden_size=32, num_heads=2, vocab_size=101, max_positions=48)


def run(mode, folder, data, **options):
    with h5py.File(folder / "in.h5", "w") as file:
        for name, value in data.items():
            file[name] = value
    arguments = [f"{key}={value}" for key, value in options.items()]
    subprocess.run([TOOL, mode, folder / "in.h5", folder / "out.h5", *arguments], check=True)
    with h5py.File(folder / "out.h5") as file:
        return {name: file[name][()] for name in file}


def weights(model):
    return {f"weights/{name}": tensor.numpy() for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


@pytest.fixture(scope="module")
def gpt2():
    torch.manual_seed(3)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=101, n_embd=32, n_layer=2, n_head=2, n_positions=48, bos_token_id=0, eos_token_id=0, pad_token_id=0)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.15)  # so that what comes next is far from uniform
    return model


def continue_greedily(model, prompt, count, end=None, penalty=1.0):
    made = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                          max_new_tokens=count, do_sample=False, eos_token_id=end, repetition_penalty=penalty)
    made = made[0, len(prompt):].tolist()
    return made[:made.index(end)] if end in made else made


PROMPTS = [[5, 17, 3], [88], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [42, 42], [99, 0, 13, 77, 21]]


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_equals_generate(gpt2, tmp_path, penalty):
    """One by one, and as one left-padded batch through the key-value cache."""
    wanted = [continue_greedily(gpt2, prompt, 20, penalty=penalty) for prompt in PROMPTS]
    for prompt, want in zip(PROMPTS, wanted):
        got = run("gpt", tmp_path, {**weights(gpt2), "prompts": numpy.array([prompt])}, max_tokens=20,
                  repetition_penalty=penalty, **SIZES)
        assert got["tokens"][0].tolist() == want
    padded = numpy.full((len(PROMPTS), 10), -1)
    for row, prompt in zip(padded, PROMPTS):
        row[:len(prompt)] = prompt
    got = run("gpt", tmp_path, {**weights(gpt2), "prompts": padded}, max_tokens=20, repetition_penalty=penalty, **SIZES)
    assert got["tokens"].tolist() == wanted


def test_stops_at_the_end_token(gpt2, tmp_path):
    free = continue_greedily(gpt2, PROMPTS[0], 20)
    end = free[6]
    want = continue_greedily(gpt2, PROMPTS[0], 20, end=end)
    got = run("gpt", tmp_path, {**weights(gpt2), "prompts": numpy.array([PROMPTS[0]])}, max_tokens=20, end=end, **SIZES)
    tokens = got["tokens"][0].tolist()
    assert [t for t in tokens if t >= 0] == want and len(want) < 20


def test_stops_when_positions_are_full(gpt2, tmp_path):
    got = run("gpt", tmp_path, {**weights(gpt2), "prompts": numpy.array([list(range(40))])}, max_tokens=20, **SIZES)
    assert (got["tokens"][0] >= 0).sum() == 8


@pytest.mark.parametrize("options", [
    dict(temperature=0.7), dict(top_k=5), dict(top_k=1), dict(top_p=0.9), dict(top_p=0.05), dict(repetition_penalty=1.5),
    dict(repetition_penalty=0.8), dict(temperature=1.7, top_k=20, top_p=0.8, repetition_penalty=1.2)])
def test_filtered_distributions(options, tmp_path):
    torch.manual_seed(7)
    logits = torch.randn(20, 300) * 3
    contexts = torch.randint(0, 300, (20, 12))
    want = logits.clone()
    if "repetition_penalty" in options:
        want = theirs.RepetitionPenaltyLogitsProcessor(options["repetition_penalty"])(contexts, want)
    if "temperature" in options:
        want = theirs.TemperatureLogitsWarper(options["temperature"])(contexts, want)
    if "top_k" in options:
        want = theirs.TopKLogitsWarper(options["top_k"])(contexts, want)
    if "top_p" in options:
        want = theirs.TopPLogitsWarper(options["top_p"])(contexts, want)
    got = run("filter", tmp_path, dict(logits=logits.numpy(), contexts=contexts.numpy()), **{"temperature": 1, **options})
    got = torch.from_numpy(got["filtered"])
    assert torch.equal(torch.isinf(got), torch.isinf(want))
    assert torch.allclose(got.softmax(-1), want.softmax(-1), atol=1e-6)


def test_filled_masks(tmp_path):
    torch.manual_seed(5)
    model = transformers.BertForPreTraining(transformers.BertConfig(
        vocab_size=101, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=48)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    tokens = [2, 30, 4, 55, 4, 61, 3]
    with torch.no_grad():
        want = model(torch.tensor([tokens])).prediction_logits[0].softmax(-1)[[2, 4]].topk(5)
    got = run("bert", tmp_path, {**weights(model), "tokens": numpy.array(tokens)}, mask=4, best=5, **SIZES)
    assert got["ids"].tolist() == want.indices.tolist()
    assert got["probabilities"] == pytest.approx(want.values.numpy(), rel=1e-4)
