"""How fast steps and kernels are, by the tools of tests/tools; nothing here has a figure that it must reach."""
import csv
import io
import json

from runner import Check, Failed, Skipped
from target import find_program

# (model, batch, sequence), in 16 bits; the peers run the same.
SHAPES = {"gpt2": ("gpt2", 16, 1024), "gpt2-1.5b": ("gpt2-1.5b", 4, 1024), "bert-base-128": ("bert-base", 64, 128),
          "bert-base-512": ("bert-base", 16, 512), "bert-large-128": ("bert-large", 32, 128), "bert-large-512": ("bert-large", 8, 512)}
# As in GPT-2's step above: rows of one micro-batch, and the width that each kernel meets.
KERNELS = {"dropout": (16384, 768), "residual_norm": (16384, 768), "residual_norm_backward": (16384, 768), "activation": (16384, 3072),
           "activation_backward": (16384, 3072), "cross_entropy": (4096, 50257)}


TEXTS = {"mfu_of_gemm": "MFU {:.2f} of measured products", "gemm_tflops": "which are {:.4g} TFLOP/s",
         "mfu_of_sheet": "MFU {:.2f} of 989 TFLOP/s", "peak_memory_gib": "{:.1f} GiB", "launches_per_step": "{:.0f} launches",
         "busy_share": "busy {:.2f}"}


def step(shape, dtype="bf16", device="cuda", steps=20, attention_dropout=0, deterministic=1):
    def run(kit):
        if not kit.knows("tool_step_benchmark", "--json"):
            raise Skipped("this build's tool_step_benchmark has no --json")
        path = kit.scratch / (kit.name.replace("/", "-") + ".json")
        kit.run(kit.bin / "tool_step_benchmark", *shape, dtype, "--device", device, "--steps", steps, "--json", path,
                "--attention-dropout", attention_dropout, "--deterministic", deterministic, "--threads", kit.threads)
        kit.values = found = kit.json(path)
        parts = [f"{found['tokens_per_second']:.0f} tokens/s", f"{found['seconds']['median'] * 1e3:.1f} ms a step"]
        parts += [text.format(found[key]) for key, text in TEXTS.items() if found[key] is not None]
        parts += [f"{each['name'][:40]} {each['milliseconds_per_step']:.2f} ms" for each in found["kernels"][:3]]
        return ", ".join(parts)

    return run


def kernel_command(kit, name, repeat):
    if not (kit.bin / "tool_kernel_bench").exists():
        raise Failed("tool_kernel_bench is not in the kit")
    return [kit.bin / "tool_kernel_bench", name, *KERNELS[name], "bf16", "--device", "cuda", "--repeat", repeat]


def kernel(name):
    def run(kit):
        found = json.loads(kit.run(*kernel_command(kit, name, 50)).output.splitlines()[-1])
        kit.values = found
        return f"{found['gb_per_second']:.0f} GB/s, {found['share_of_copy']:.2f} of a copy's bandwidth"

    return run


METRICS = {"gpu__time_duration.sum": "ns", "dram__bytes_read.sum": "read", "dram__bytes_write.sum": "written",
           "dram__throughput.avg.pct_of_peak_sustained_elapsed": "percent",
           "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy"}


def counters(name):
    """The hardware's own counts of our kernels in a few repetitions; clocks are left as they are."""
    def run(kit):
        ncu = [find_program("ncu"), "--clock-control", "none", "--csv", "--print-units", "base", "--metrics", ",".join(METRICS),
               "--kernel-name-base", "mangled", "--kernel-name", "regex:tessera", "--launch-count", 4]
        output = kit.run(*ncu, *kernel_command(kit, name, 3)).output
        table = "\n".join(line for line in output.splitlines() if line.startswith('"'))
        launches = {}
        for row in csv.DictReader(io.StringIO(table)):
            found = launches.setdefault(row["ID"], {"kernel": row["Kernel Name"]})
            found[METRICS[row["Metric Name"]]] = float(row["Metric Value"].replace(",", ""))
        if not launches:
            raise Failed("ncu saw none of our kernels")
        kit.values = {"launches": list(launches.values())}
        last = max(kit.values["launches"], key=lambda launch: launch["ns"])  # not the sums over blocks that follow
        return (f"{(last['read'] + last['written']) / last['ns']:.0f} GB/s of device memory, {last['percent']:.0f} % of its peak, "
                f"occupancy {last['occupancy']:.0f} %, {last['ns'] / 1e3:.0f} us")

    return run


# As recipes train: no dropout of attention's probabilities, which has no fused kernel, and train.deterministic; then each the other way.
CHECKS = [Check("speed/mini-cpu", step(("bert-mini", 2, 32), "fp32", "cpu", steps=3), 60),
          *[Check(f"speed/{name}", step(shape), 90, ("gpu",)) for name, shape in SHAPES.items()],
          Check("speed/gpt2-not-deterministic", step(SHAPES["gpt2"], deterministic=0), 90, ("gpu",)),
          Check("speed/gpt2-attention-dropout", step(SHAPES["gpt2"], attention_dropout=0.1), 90, ("gpu",)),
          *[Check(f"bandwidth/{name}", kernel(name), 20, ("gpu",)) for name in KERNELS]]
COUNTERS = [Check(f"ncu/{name}", counters(name), 40, ("gpu", "program:ncu")) for name in KERNELS]
