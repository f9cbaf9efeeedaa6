#!/usr/bin/env python3
"""PyTorch's data parallelism over gloo on CPUs: DDP, or FSDP2 that keeps parameters whole (like ZeRO 2) or not (ZeRO 3).

usage: peer_strategies.py FAMILY STRATEGY RANKS [--batch B] [--sequence S] [--seconds T] [--vocabulary V] [--hidden H] [--layers L]
       [--dropout P]
FAMILY: bert | gpt2; STRATEGY: ddp | fsdp2-whole | fsdp2. Prints the median tokens/s of all ranks together.
"""
import argparse
import os
import socket
import time

import torch
import transformers
from torch import distributed
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=["bert", "gpt2"])
    parser.add_argument("strategy", choices=["ddp", "fsdp2-whole", "fsdp2"])
    parser.add_argument("ranks", type=int)
    parser.add_argument("--batch", type=int, default=8, help="samples per rank")
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--dropout", type=float, default=0.1)
    return parser.parse_args()


def make_model(a):
    if a.family == "bert":
        config = transformers.BertConfig(
            vocab_size=a.vocabulary, hidden_size=a.hidden, num_hidden_layers=a.layers, num_attention_heads=4,
            intermediate_size=4 * a.hidden, max_position_embeddings=a.sequence, hidden_dropout_prob=a.dropout,
            attention_probs_dropout_prob=a.dropout)
        model = transformers.BertForPreTraining(config)
        return model, model.bert.encoder.layer
    config = transformers.GPT2Config(vocab_size=a.vocabulary, n_embd=a.hidden, n_layer=a.layers, n_head=4,
                                     n_positions=a.sequence, resid_pdrop=a.dropout, embd_pdrop=a.dropout,
                                     attn_pdrop=a.dropout)
    model = transformers.GPT2LMHeadModel(config)
    return model, model.transformer.h


def make_batch(a):
    ids = torch.randint(5, a.vocabulary, (a.batch, a.sequence))
    if a.family == "gpt2":
        return {"input_ids": ids, "labels": ids}
    labels = torch.where(torch.rand(ids.shape) < 0.15, ids, -100)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids),
            "labels": labels, "next_sentence_label": torch.randint(0, 2, (a.batch,))}


def work(rank, a, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    distributed.init_process_group("gloo", rank=rank, world_size=a.ranks)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, blocks = make_model(a)
    model.train()
    if a.strategy == "ddp":
        trained = DistributedDataParallel(model)
    else:
        mesh = distributed.device_mesh.init_device_mesh("cpu", (a.ranks,))
        for block in blocks:
            fully_shard(block, mesh=mesh, reshard_after_forward=a.strategy == "fsdp2")
        trained = fully_shard(model, mesh=mesh, reshard_after_forward=a.strategy == "fsdp2")
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    batch = make_batch(a)

    def step():
        trained(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(3):
        step()
    times = []
    going = torch.ones(1)
    end = time.perf_counter() + a.seconds
    while going.item():  # rank 0 says when it is over
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
        going.fill_(time.perf_counter() < end)
        distributed.broadcast(going, 0)
    if rank == 0:
        middle = sorted(times)[len(times) // 2]
        print(f"{a.family} {a.strategy} {a.ranks} ranks: {a.ranks * a.batch * a.sequence / middle:.0f} tok/s median", flush=True)
    distributed.barrier()
    os._exit(0)  # gloo's threads abort a process that ends in order, now and then


def main():
    arguments = parse()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(work, (arguments, port), nprocs=arguments.ranks)


if __name__ == "__main__":
    main()
