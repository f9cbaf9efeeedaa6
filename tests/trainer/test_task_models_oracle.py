"""Outputs, loss and every gradient of fine-tuning heads equal transformers' in float32."""
import os
import pathlib
import subprocess

import h5py
import numpy
import pytest
import torch
import transformers
from test_models_oracle import SIZES, assert_close, shake
from tiers import slow_but

TOOL = pathlib.Path(os.environ["TESSERA_BUILD"]) / "tool_task_oracle"
TASKS = {"ForSequenceClassification": 0, "ForTokenClassification": 1, "ForQuestionAnswering": 2, "ForMultipleChoice": 3}
PROBLEMS = {"single_label_classification": 0, "multi_label_classification": 1, "regression": 2}


def make(architecture, sizes, outputs, problem):
    labels = {"num_labels": outputs, "problem_type": problem} if outputs else {}
    if architecture.startswith("Bert"):
        config = transformers.BertConfig(
            vocab_size=sizes["vocab_size"], hidden_size=sizes["hidden_size"], num_hidden_layers=sizes["num_layers"],
            num_attention_heads=sizes["num_heads"], intermediate_size=sizes["feed_forward_size"],
            max_position_embeddings=sizes["max_positions"], hidden_dropout_prob=0, attention_probs_dropout_prob=0, **labels)
    elif architecture.startswith("GPT2"):
        config = transformers.GPT2Config(
            vocab_size=sizes["vocab_size"], n_embd=sizes["hidden_size"], n_layer=sizes["num_layers"], n_head=sizes["num_heads"],
            n_inner=sizes["feed_forward_size"], n_positions=sizes["max_positions"], embd_pdrop=0, attn_pdrop=0, resid_pdrop=0,
            classifier_dropout=0, pad_token_id=0, **labels)
    else:
        config = transformers.OpenAIGPTConfig(
            vocab_size=sizes["vocab_size"], n_embd=sizes["hidden_size"], n_layer=sizes["num_layers"], n_head=sizes["num_heads"],
            n_positions=sizes["max_positions"], embd_pdrop=0, attn_pdrop=0, resid_pdrop=0, pad_token_id=0, **labels)
    return getattr(transformers, architecture)(config)


def batch_for(architecture, sizes, outputs, problem, choices):
    """Ours, and what transformers takes. Padding has the id 0, as GPT's search for the last token wants it."""
    random = numpy.random.default_rng(3)
    rows, longest = 6, sizes["max_positions"] - 1
    span = architecture.endswith("QuestionAnswering")
    # transformers' softmax over a span includes padding, ours does not: rows of one length are the same in both.
    lengths = numpy.full(rows, longest) if span else random.integers(longest // 2, longest + 1, rows)
    lengths[0] = longest
    mask = numpy.arange(longest) < lengths[:, None]
    tokens = numpy.where(mask, random.integers(4, sizes["vocab_size"], (rows, longest)), 0)
    second = lengths // 2
    ours = dict(tokens=tokens, lengths=lengths, second=second)
    theirs = dict(input_ids=torch.tensor(tokens), attention_mask=torch.tensor(mask.astype(numpy.int64)))
    if architecture.startswith("Bert"):
        theirs["token_type_ids"] = torch.tensor(((numpy.arange(longest) >= second[:, None]) & mask).astype(numpy.int64))
    else:
        ours["second"] = numpy.full(rows, longest)
    if architecture.endswith("TokenClassification"):
        labels = numpy.where(mask & (random.random((rows, longest)) < 0.4), random.integers(0, outputs, (rows, longest)), -1)
        ours["labels"] = labels
        theirs["labels"] = torch.tensor(numpy.where(labels < 0, -100, labels))
    elif span:
        first = random.integers(0, longest - 3, rows)
        ours["labels"] = numpy.stack([first, first + 2, numpy.full(rows, 2), lengths - 1], 1)
        theirs["start_positions"], theirs["end_positions"] = torch.tensor(first), torch.tensor(first + 2)
    elif choices:
        ours["labels"] = numpy.repeat(random.integers(0, choices, (rows // choices, 1)), choices, 0)
        theirs = {key: value.view(rows // choices, choices, longest) for key, value in theirs.items()}
        theirs["labels"] = torch.tensor(ours["labels"][::choices, 0])
    elif problem == "single_label_classification":
        ours["labels"] = random.integers(0, outputs, (rows, 1))
        theirs["labels"] = torch.tensor(ours["labels"][:, 0])
    else:
        targets = random.integers(0, 2, (rows, outputs)) if problem.startswith("multi") else random.standard_normal((rows, outputs))
        ours["targets"] = targets.astype(numpy.float32)
        theirs["labels"] = torch.tensor(ours["targets"])
    return ours, theirs


CASES = [
    *(("BertForSequenceClassification", outputs, problem, 0)
      for outputs, problem in ((3, "single_label_classification"), (4, "multi_label_classification"), (1, "regression"), (2, "regression"))),
    ("GPT2ForSequenceClassification", 3, "single_label_classification", 0), ("GPT2ForSequenceClassification", 4, "multi_label_classification", 0),
    ("OpenAIGPTForSequenceClassification", 2, "single_label_classification", 0),
    ("BertForTokenClassification", 5, None, 0), ("GPT2ForTokenClassification", 5, None, 0),
    ("BertForQuestionAnswering", None, None, 0), ("GPT2ForQuestionAnswering", None, None, 0), ("BertForMultipleChoice", None, None, 3)]


@pytest.mark.parametrize("architecture,outputs,problem,choices", CASES, ids=[f"{case[0]}-{case[2]}-{case[1]}" for case in CASES])
@pytest.mark.parametrize("sizes", slow_but(SIZES[1:], SIZES), ids=["48x3", "35x5"])
def test_equals_transformers(tmp_path, architecture, outputs, problem, choices, sizes):
    model = make(architecture, sizes, outputs, problem).train()
    shake(model, 7)
    ours, theirs = batch_for(architecture, sizes, outputs, problem, choices)
    output = model(**theirs)
    output.loss.backward()
    with h5py.File(tmp_path / "in.h5", "w") as file:
        for name, parameter in model.state_dict().items():
            file["weights/" + name] = parameter.numpy()
        for name, values in ours.items():
            file["batch/" + name] = values
    task = next(number for ending, number in TASKS.items() if architecture.endswith(ending))
    family = "bert" if architecture.startswith("Bert") else "gpt"
    arguments = {**sizes, "task": task, "outputs": outputs or 2, "problem": PROBLEMS.get(problem, 0), "choices": choices,
                 "version": 1 if architecture.startswith("Open") else 2}
    subprocess.run([TOOL, family, tmp_path / "in.h5", tmp_path / "out.h5", *(f"{key}={value}" for key, value in arguments.items())], check=True)
    with h5py.File(tmp_path / "out.h5") as file:
        got = {name: file[name][()] for name in ("outputs", "loss", "predictions")}
        gradients = {}
        file["gradients"].visititems(lambda name, item: gradients.__setitem__(name, item[()]) if isinstance(item, h5py.Dataset) else None)

    assert_close(got["loss"].sum(), output.loss.detach().numpy(), "loss")
    if task == 2:
        logits = torch.stack([output.start_logits, output.end_logits], 2).detach().numpy()
        assert_close(got["outputs"], logits, "logits")
    elif task == 3:
        assert (got["predictions"][:, 2] == output.logits.argmax(1).numpy()).all()
    elif task == 1:
        labelled = ours["labels"].reshape(-1) >= 0
        assert_close(got["outputs"][:labelled.sum()], output.logits.detach().numpy().reshape(-1, outputs)[labelled], "logits")
    else:
        assert_close(got["outputs"][:6], output.logits.detach().numpy(), "logits")
    expected = {name: parameter.grad.numpy() for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert set(gradients) >= set(expected)
    scale = max(numpy.abs(value).max() for value in expected.values())
    for name, value in gradients.items():
        truth = expected.get(name, numpy.zeros_like(value))
        if numpy.abs(truth).max() > 1e-6 * scale:
            assert_close(value, truth, name)
        else:
            assert numpy.abs(value).max() <= 2e-6 * scale, name
