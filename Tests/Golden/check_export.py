"""Opens what `normlens convert --to huggingface` writes with transformers and compares logits.

    python Tests/Golden/check_export.py .build/release/normlens [MODEL …] [--text TEXT | --tokens 1,2,3]

For each MODEL (by default the bundled ones), as it is and with `--process transformerlens`, in float32 and
bfloat16: the directory is loaded by AutoModelForCausalLM and, where it has one, AutoTokenizer.  Its ids must
be those of `normlens tokenize`, and its logits in float64 those of `normlens run MODEL`: within 2e-5 of the
largest logit in float32, within the type's own rounding in bfloat16 (3e-2).  With center_unembed logits are
compared to the processed model's.  Exit status 0: within tolerance; the environment is requirements.txt's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import h5py
import torch
import transformers

TEXT = "When Mary and John went to the store, John gave a drink to"
TOLERANCE = {"float32": 2e-5, "bfloat16": 3e-2}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("normlens")
    parser.add_argument("models", nargs="*", default=["mini", "mini-vanilla", "mini-lnfree"])
    parser.add_argument("--text", default=TEXT)
    parser.add_argument("--tokens")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    failures = 0
    with tempfile.TemporaryDirectory() as scratch:
        for model in options.models:
            for process in ([], ["--process", "transformerlens"]):
                for dtype in TOLERANCE:
                    failures += not check(options, model, process, dtype, Path(scratch))
    sys.exit(failures > 0)


def check(options, model, process, dtype, scratch):
    number = len(list(scratch.iterdir()))
    directory, result = scratch / f"{number}", scratch / f"{number}.h5"

    def normlens(*words):
        return subprocess.run([options.normlens, *map(str, words)], check=True, capture_output=True, text=True).stdout

    normlens("convert", model, "--to", "huggingface", "--dtype", dtype, "-o", directory, *process)
    prompt = ["--tokens", options.tokens] if options.tokens else ["--prompt", options.text]
    normlens("run", model, *prompt, "--logits", "-o", result, *process)
    with h5py.File(result) as file:
        expected = torch.tensor(file["logits/logits"][0], dtype=torch.float64)
    ids = json.loads(normlens("tokenize", model, *prompt, "--json"))["ids"] if not options.tokens else list(
        map(int, options.tokens.split(",")))
    if not options.tokens:
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        theirs = [tokenizer.bos_token_id] + tokenizer(options.text)["input_ids"]
        if theirs != ids:
            print(f"{model}: ids {ids} here, {theirs} in transformers")
            return False
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        directory, attn_implementation="eager", dtype=torch.float32
    )
    with torch.no_grad():
        found = loaded.double().eval()(torch.tensor([ids])).logits[0]
    difference = ((found - expected).abs().max() / expected.abs().max()).item()
    name = " ".join([model, *process[1:]])
    print(f"{name:40} {dtype:9} logits within {difference:.1e} of the largest, {len(ids)} tokens")
    return difference <= TOLERANCE[dtype]


if __name__ == "__main__":
    main()
