"""Logits, losses and every gradient of BERT, GPT-1 and GPT-2 equal transformers' in float32."""
import os
import pathlib
import subprocess

import h5py
import numpy
import pytest
import torch
import transformers
from tiers import slow_but

TOOL = pathlib.Path(os.environ["TESSERA_BUILD"]) / "tool_model_oracle"
TOLERANCE = 1e-4  # of the tensor's largest element


def bert(sizes):
    config = transformers.BertConfig(
        vocab_size=sizes["vocab_size"], hidden_size=sizes["hidden_size"], num_hidden_layers=sizes["num_layers"],
        num_attention_heads=sizes["num_heads"], intermediate_size=sizes["feed_forward_size"],
        max_position_embeddings=sizes["max_positions"], hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    return transformers.BertForPreTraining(config)


def gpt2(sizes):
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=sizes["vocab_size"], n_embd=sizes["hidden_size"], n_layer=sizes["num_layers"], n_head=sizes["num_heads"],
        n_inner=sizes["feed_forward_size"], n_positions=sizes["max_positions"], embd_pdrop=0, attn_pdrop=0, resid_pdrop=0))


def gpt1(sizes):
    return transformers.OpenAIGPTLMHeadModel(transformers.OpenAIGPTConfig(
        vocab_size=sizes["vocab_size"], n_embd=sizes["hidden_size"], n_layer=sizes["num_layers"], n_head=sizes["num_heads"],
        n_positions=sizes["max_positions"], embd_pdrop=0, attn_pdrop=0, resid_pdrop=0))


def shake(model, seed):
    """Every parameter random, also those that start as zeros and ones: a forgotten bias must show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            centre = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
            parameter.copy_(centre + noise * (0.2 if parameter.dim() == 1 else 0.08))


def batch_for(kind, sizes, batch, sequence, seed, padded):
    random = numpy.random.default_rng(seed)
    tokens = random.integers(1, sizes["vocab_size"], (batch, sequence))  # transformers drops the gradient of BERT's 0
    lengths = random.integers(sequence // 2, sequence + 1, batch) if padded else numpy.full(batch, sequence)
    mask = (numpy.arange(sequence) < lengths[:, None]).astype(numpy.int64)
    if kind != "bert":
        # transformers shifts the labels itself; ours say what follows each position.
        labels = numpy.full_like(tokens, -100)
        labels[:, :-1] = numpy.where(mask[:, 1:] > 0, tokens[:, 1:], -100)
        theirs = numpy.where(mask > 0, tokens, -100)
        return dict(tokens=tokens, labels=labels), dict(
            input_ids=torch.tensor(tokens), attention_mask=torch.tensor(mask), labels=torch.tensor(theirs)), mask
    segments = (numpy.arange(sequence) >= lengths[:, None] // 2).astype(numpy.int64)
    labels = numpy.where((random.random((batch, sequence)) < 0.3) & (mask > 0), tokens, -100)
    labels[:, 1] = tokens[:, 1]
    follows = random.integers(0, 2, batch)
    ours = dict(tokens=tokens, labels=labels, segments=segments, next_sentence=follows)
    if padded:
        ours["mask"] = mask
    return ours, dict(input_ids=torch.tensor(tokens), attention_mask=torch.tensor(mask), labels=torch.tensor(labels),
                      token_type_ids=torch.tensor(segments), next_sentence_label=torch.tensor(follows)), mask


def run_ours(folder, family, sizes, model, batch, **more):
    tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "lm_head.weight"}
    with h5py.File(folder / "in.h5", "w") as file:
        for name, parameter in model.state_dict().items():
            if name not in tied:
                file["weights/" + name] = parameter.numpy()
        for name, values in batch.items():
            file["batch/" + name] = values
    arguments = [f"{key}={value}" for key, value in {**sizes, **more}.items()]
    subprocess.run([TOOL, family, folder / "in.h5", folder / "out.h5", *arguments], check=True)
    with h5py.File(folder / "out.h5") as file:
        gradients = {}
        file["gradients"].visititems(lambda name, item: gradients.__setitem__(name, item[()])
                                     if isinstance(item, h5py.Dataset) else None)
        return {name: file[name][()] for name in file if name != "gradients"}, gradients


def assert_close(ours, theirs, what):
    error = numpy.abs(ours - theirs).max() / max(numpy.abs(theirs).max(), 1e-6)
    assert error < TOLERANCE, f"{what}: relative error {error:.2e}"


SIZES = [
    dict(num_layers=2, hidden_size=48, num_heads=3, feed_forward_size=192, vocab_size=101, max_positions=37),
    dict(num_layers=3, hidden_size=35, num_heads=5, feed_forward_size=140, vocab_size=257, max_positions=19),
]


@pytest.mark.parametrize("kind", ["bert", "gpt1", "gpt2"])
@pytest.mark.parametrize("sizes", slow_but(SIZES[1:], SIZES), ids=["48x3", "35x5"])
@pytest.mark.parametrize("seed, padded, recompute", [(1, False, 0), (2, True, 0), (3, True, 1)])
def test_equals_transformers(tmp_path, kind, sizes, seed, padded, recompute):
    model = {"bert": bert, "gpt1": gpt1, "gpt2": gpt2}[kind](sizes)
    model.train()
    shake(model, seed)
    ours, theirs, mask = batch_for(kind, sizes, batch=3, sequence=sizes["max_positions"] - seed, seed=seed, padded=padded)
    output = model(**theirs)
    output.loss.backward()
    version = {} if kind == "bert" else {"version": int(kind[-1])}
    got, gradients = run_ours(tmp_path, "bert" if kind == "bert" else "gpt", sizes, model, ours, recompute=recompute, **version)

    assert_close(got["losses"].sum(), output.loss.detach().numpy(), "loss")
    logits = (output.prediction_logits if kind == "bert" else output.logits).detach().numpy()
    real = mask.reshape(-1) > 0  # what padding positions hold is nobody's business
    assert_close(got["logits"][real], logits.reshape(-1, sizes["vocab_size"])[real], "logits")
    if kind == "bert":
        assert_close(got["pair_logits"], output.seq_relationship_logits.detach().numpy(), "pair logits")
    expected = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    assert set(gradients) == set(expected)
    # A key's bias moves all scores of a query alike: its gradient is rounding noise.
    scale = max(numpy.abs(value).max() for value in expected.values())
    for name, value in expected.items():
        if numpy.abs(value).max() > 1e-6 * scale:
            assert_close(gradients[name], value, name)
        else:
            assert numpy.abs(gradients[name]).max() <= 2e-6 * scale, name
