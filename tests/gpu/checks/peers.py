"""transformers on the shapes of speed.py, by the peers' own script, eager and compiled."""
import re
import sys

from checks.speed import SHAPES
from runner import Check, Failed, Skipped

# The script knows the sizes base and mini; the table gets GPT-2 1.5B and BERT-large too. Attention drops no probabilities, as in speed.py.
CHANGES = {"dims = {": 'dims = {"1.5b": (48, 1600, 25), "large": (24, 1024, 16), ',
           "n_positions=1024)": "n_positions=1024, attn_pdrop=0.0)",
           "intermediate_size=4 * D)": "intermediate_size=4 * D, attention_probs_dropout_prob=0.0)"}


def peer(model, batch, sequence, compiled):
    def run(kit):
        script = kit.root / "peers/hf_step.py"
        if not script.exists():
            raise Skipped("hf_step.py was not at hand when the kit was packed")
        text = script.read_text()
        for old, new in CHANGES.items():
            if old not in text:
                raise Skipped(f"hf_step.py has no '{old}' that could be changed")
            text = text.replace(old, new, 1)
        script = kit.scratch / "hf_step.py"
        script.write_text(text)
        output = kit.run(sys.executable, script, model, batch, sequence, "bf16", "--device", "cuda", "--seconds", 3,
                         "--threads", kit.threads, *(["--compile"] if compiled else []), OMP_NUM_THREADS=kit.threads).output
        found = re.search(r"(\d+) tok/s median, best (\d+), (\d+) ms/step", output)
        if not found:
            raise Failed("hf_step.py printed no speed")
        kit.values = {"tokens_per_second": float(found[1]), "best": float(found[2]), "milliseconds": float(found[3])}
        return f"{found[1]} tokens/s, {found[3]} ms a step"

    return run


def checks(prefix, limit, compiled):
    return [Check(f"{prefix}/{name}", peer(*shape, compiled), limit, ("gpu", "python:transformers")) for name, shape in SHAPES.items()]


EAGER, COMPILED = checks("peer", 100, compiled=False), checks("compiled-peer", 240, compiled=True)
