"""The last step of launch/tutorial: what Tessera exported, in the hands of transformers, peft and h5py."""
import json
import pathlib
import sys

import h5py
import peft
import torch
import transformers

runs, out = map(pathlib.Path, sys.argv[1:])
transformers.logging.set_verbosity_error()

# A checkpoint is an HDF5 file; that of a LoRA run holds only what was trained.
newest = sorted((runs / "instruct/checkpoints").iterdir())[-1]
with h5py.File(newest / "checkpoint.h5") as file:
    names = []
    file["model"].visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    print(f"h5py: {newest.name} holds {len(names)} tensors, such as {names[0]} {file['model'][names[0]].shape}")
assert names and all(".lora." in name for name in names)

# The classifier in a pipeline, beside what Tessera predicted for the same text.
classify = transformers.pipeline("text-classification", model=str(out / "classifier"))
line = json.loads((runs / "last-blocks/test.jsonl").read_text().splitlines()[0])
text = json.loads((pathlib.Path("data/tutorial/tasks/sections/test.jsonl")).read_text().splitlines()[0])["text"]
theirs = classify(text, truncation=True, max_length=128)[0]
print(f"transformers: {text[:50]!r}… is {theirs['label']} ({theirs['score']:.3f}); Tessera said {line['prediction']}")
assert theirs["label"] == line["prediction"]

# A mask filled by the pre-trained BERT.
fill = transformers.pipeline("fill-mask", model=str(out / "bert"))
print("transformers:", [guess["token_str"] for guess in fill("This package contains the [MASK] files.")])

# The adapter beside the base, and merged into it: the same logits.
base = transformers.AutoModelForCausalLM.from_pretrained(out / "gpt")
merged = transformers.AutoModelForCausalLM.from_pretrained(out / "merged").eval()
adapted = peft.PeftModel.from_pretrained(base, out / "adapter").eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(out / "gpt")
ids = tokenizer("Describe the Debian package libpng-tools (section utils).\n", return_tensors="pt").input_ids
with torch.no_grad():
    difference = (adapted(input_ids=ids).logits - merged(input_ids=ids).logits).abs().max().item()
print(f"peft: adapter beside its base against the merged model: logits differ by at most {difference:.1e}")
assert difference < 1e-4
