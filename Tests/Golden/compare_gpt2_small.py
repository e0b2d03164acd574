"""Holds the built `normlens` against transformers on a whole model, such as GPT-2 small.

    normlens convert gpt2/ -o gpt2.h5          (or `normlens init --config gpt2-small -o gpt2.h5`)
    python Tests/Golden/compare_gpt2_small.py gpt2.h5 .build/release/normlens

The weights are read from the NormLens model file itself (design.md §4.1), so only the arithmetic is
compared.  For prompts of several lengths, or those given with `--tokens`:

1. logits of `normlens run MODEL --tokens … --logits -o F.h5` against GPT2LMHeadModel (eager attention) in
   float32 and in float64.  Fails above 5e-5 (`--logit-tolerance`).  The distance between transformers'
   own float32 and float64 is printed beside them: it is what float32 is worth on this prompt.
2. every hook of `normlens cache MODEL --tokens … --hooks all -o F.h5` against reference_gpt2.py in float64.
   Fails where a hook of some layer is off by more than 1e-4 (`--hook-tolerance`) of its largest value.
   `--optional` asks for the optional hooks too.

An LN-free model file has no LayerNorms; transformers' are replaced by identities, and the unembedding
gets its bias.  Exit status 0: within tolerance; 1: not; the environment is requirements.txt's.
"""

import argparse
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import h5py
import numpy as np
import torch
import transformers
from reference_gpt2 import OPTIONAL_SITES, Config, ReferenceGPT2, hook_names

LENGTHS = [1, 2, 15, 64, 200]


# -------------------------------------------------------------------- the model file


def text(value):
    """An HDF5 string attribute, of fixed or variable length."""
    return value.decode() if isinstance(value, bytes) else str(value)


def read_model(path):
    """(Config, tensors by GPT-2's names: "h.0.attn.c_attn.weight", "unembed.weight"), float32."""
    with h5py.File(path) as file:
        root = file.attrs
        if text(root.get("format", "")) != "normlens-model":
            sys.exit(f"{path}: not a NormLens model file (attribute format = {root.get('format')!r})")
        config = Config(
            n_layers=int(root["n_layers"]),
            d_model=int(root["d_model"]),
            n_heads=int(root["n_heads"]),
            d_mlp=int(root["d_mlp"]),
            n_ctx=int(root["n_ctx"]),
            d_vocab=int(root["d_vocab"]),
            activation=text(root["activation"]),
            epsilon=float(root["layer_norm_epsilon"]),
            normalization=text(root["normalization"]),
            scale_attn_weights=bool(root["scale_attn_weights"]),
            scale_attn_by_inverse_layer_idx=bool(root["scale_attn_by_inverse_layer_idx"]),
        )
        tensors = {}

        def collect(name, item):
            if isinstance(item, h5py.Dataset):
                tensors[name.replace("/", ".")] = torch.from_numpy(item[()].astype(np.float32))

        file["weights"].visititems(collect)
    if config.normalization not in ("layernorm", "none"):
        sys.exit(f"{path}: normalization {config.normalization!r} is not GPT-2's")
    return config, tensors


def build_transformers(config, tensors):
    """The same model as a GPT2LMHeadModel in float32."""
    tied = "unembed.weight" not in tensors
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_layer=config.n_layers,
            n_head=config.n_heads,
            n_embd=config.d_model,
            n_inner=config.d_mlp,
            n_positions=config.n_ctx,
            vocab_size=config.d_vocab,
            activation_function=config.activation,
            layer_norm_epsilon=config.epsilon,
            scale_attn_weights=config.scale_attn_weights,
            scale_attn_by_inverse_layer_idx=config.scale_attn_by_inverse_layer_idx,
            tie_word_embeddings=tied,
            bos_token_id=0,
            eos_token_id=0,
            attn_implementation="eager",
        )
    )
    if config.normalization == "none":
        for block in model.transformer.h:
            block.ln_1, block.ln_2 = torch.nn.Identity(), torch.nn.Identity()
        model.transformer.ln_f = torch.nn.Identity()
    if "unembed.bias" in tensors:
        model.lm_head = torch.nn.Linear(config.d_model, config.d_vocab, bias=True)
    state = {
        f"lm_head.{name.removeprefix('unembed.')}"
        if name.startswith("unembed.")
        else f"transformer.{name}": tensor
        for name, tensor in tensors.items()
    }
    missing, unexpected = model.load_state_dict(state, strict=False)
    if tied:
        model.tie_weights()
        missing = [name for name in missing if name != "lm_head.weight"]
    if missing or unexpected:
        sys.exit(f"model file: tensors missing {missing}, not GPT-2's {unexpected}")
    return model.eval()


def transformers_logits(model, prompts):
    with torch.no_grad():
        return [model(torch.tensor([tokens])).logits[0].double() for tokens in prompts]


# -------------------------------------------------------------------- normlens


def normlens(binary, command, model, tokens, *options, output):
    """Runs a command on one prompt; exits with its own words when it fails."""
    words = [
        binary,
        command,
        model,
        "--tokens",
        ",".join(map(str, tokens)),
        *options,
        "-o",
        output,
        "--quiet",
    ]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))}\nexit status {done.returncode}\n{done.stderr}")


def variable_name(hook):
    """A hook's variable in the group `activations` (design.md §6)."""
    site = re.sub(r"^blocks\.\d+\.", "", hook)
    *path, last = site.split(".")
    name = last.removeprefix("hook_")
    if path and path[-1] in ("ln1", "ln2", "ln_final", "mlp", "unembed"):
        return f"{path[-1]}_{name}"  # ln1_scale, mlp_pre, …
    return name


def any_layer(hook):
    """ "blocks.3.hook_z" and whatever stands for the layer in the attribute `tl_hook`, made equal."""
    return re.sub(r"^blocks\.[^.]+\.", "blocks.*.", hook)


def find_variable(group, hook):
    """The dataset that holds a hook of all layers: by the attribute `tl_hook`, else by name; or None."""
    for variable in group.values():
        if isinstance(variable, h5py.Dataset) and "tl_hook" in variable.attrs:
            if any_layer(text(variable.attrs["tl_hook"])) == any_layer(hook):
                return variable
    return group.get(variable_name(hook))


def relative_error(found, expected):
    """max |difference| / max |expected|; -inf (the causal mask) must stand in the same places."""
    if found.shape != expected.shape:
        return math.inf, f"shape {found.shape}, expected {expected.shape}"
    masked = np.isneginf(expected)
    if not np.array_equal(masked, np.isneginf(found)):
        return math.inf, "-inf in other places"
    found, expected = found[~masked], expected[~masked]
    if not np.isfinite(found).all():
        return math.inf, "not finite"
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30)), ""


# -------------------------------------------------------------------- the two comparisons


def compare_logits(binary, path, config, tensors, prompts, tolerance, folder):
    model = build_transformers(config, tensors)
    single = transformers_logits(model, prompts)
    double = transformers_logits(model.double(), prompts)
    del model
    print("logits: max |difference|")
    print(f"{'tokens':>8} {'normlens-float32':>17} {'normlens-float64':>17} {'float32-float64':>17}")
    passed = True
    for tokens, in_single, in_double in zip(prompts, single, double, strict=True):
        output = folder / "logits.h5"
        normlens(binary, "run", path, tokens, "--logits", output=output)
        with h5py.File(output) as file:
            ours = torch.from_numpy(file["logits/logits"][0].astype(np.float64))
        if ours.shape != in_double.shape:
            sys.exit(f"logits/logits has shape {tuple(ours.shape)}, expected {tuple(in_double.shape)}")
        gaps = [
            (x - y).abs().max().item()
            for x, y in [(ours, in_single), (ours, in_double), (in_single, in_double)]
        ]
        ok = gaps[0] <= tolerance and gaps[1] <= tolerance  # false for NaN
        passed &= ok
        print(f"{len(tokens):8} {gaps[0]:17.2e} {gaps[1]:17.2e} {gaps[2]:17.2e}{'' if ok else '   FAILED'}")
    return passed, double


def compare_hooks(binary, path, reference, prompts, double, tolerance, optional, folder):
    config = reference.config
    names = {}  # the hooks of all layers by the first of them
    for name in hook_names(config.n_layers):
        names.setdefault(any_layer(name), []).append(name)
    optional_names = {name for name in names if name.removeprefix("blocks.*.") in OPTIONAL_SITES}
    always = {name for name in names if name not in optional_names and not name.startswith("unembed.")}

    requests = {"all": [name for name in names if name not in optional_names]}
    if optional:
        requests[",".join(sorted(optional_names))] = sorted(optional_names)

    worst = {}  # hook -> (relative error, where)
    for tokens, logits in zip(prompts, double, strict=True):
        for request, hooks in requests.items():
            keep = {name for hook in hooks for name in names[hook]} | {"unembed.hook_out"}
            run = reference.run(tokens, keep=keep)
            gap = (run["unembed.hook_out"] - logits).abs().max().item()
            if not gap < 1e-8:
                sys.exit(f"reference_gpt2.py differs from transformers in float64 by {gap:.2e}")
            output = folder / "cache.h5"
            normlens(binary, "cache", path, tokens, "--hooks", request, output=output)
            with h5py.File(output) as file:
                for hook in hooks:
                    variable = find_variable(file["activations"], hook)
                    if variable is None:
                        if hook in always or request != "all":
                            worst[hook] = (math.inf, "not in the file")
                        continue
                    values = variable[0].astype(np.float64)  # without the prompt axis
                    layers = len(names[hook]) if hook.startswith("blocks.") else None
                    if layers is not None and len(values) != layers:
                        worst[hook] = (math.inf, f"{len(values)} layers, expected {layers}")
                        continue
                    for layer, name in enumerate(names[hook]):
                        expected = run[name].numpy()
                        if name.endswith("hook_scale"):
                            expected = expected[:, 0]
                        error, reason = relative_error(values if layers is None else values[layer], expected)
                        if error >= worst.get(hook, (-1.0, ""))[0]:
                            worst[hook] = (error, f"{name}, {len(tokens)} tokens {reason}".rstrip())

    print("\nhooks: max |difference| / max |value|, the worst layer and prompt")
    passed = True
    for hook in names:
        if hook in worst:
            error, where = worst[hook]
            ok = error <= tolerance
            passed &= ok
            print(f"{hook:34} {error:9.2e}  {where}{'' if ok else '   FAILED'}")
    return passed


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="NormLens model file (.h5)")
    parser.add_argument("normlens", type=Path, help="the built binary")
    parser.add_argument(
        "--tokens", action="append", help="token ids 1,2,3; repeatable (default: random, several lengths)"
    )
    parser.add_argument("--optional", action="store_true", help="compare the optional hooks too")
    parser.add_argument("--logit-tolerance", type=float, default=5e-5)
    parser.add_argument("--hook-tolerance", type=float, default=1e-4)
    arguments = parser.parse_args()

    config, tensors = read_model(arguments.model)
    if arguments.tokens:
        prompts = [[int(token) for token in tokens.split(",")] for tokens in arguments.tokens]
    else:
        rng = np.random.default_rng(0)
        lengths = sorted({min(length, config.n_ctx) for length in LENGTHS})
        prompts = [rng.integers(config.d_vocab, size=length).tolist() for length in lengths]

    binary = arguments.normlens.resolve()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        folder = Path(folder)
        logits_pass, double = compare_logits(
            binary, arguments.model, config, tensors, prompts, arguments.logit_tolerance, folder
        )
        tensors.setdefault("unembed.weight", tensors["wte.weight"])
        reference = ReferenceGPT2.from_tensors(config, tensors, fold=False)
        hooks_pass = compare_hooks(
            binary,
            arguments.model,
            reference,
            prompts,
            double,
            arguments.hook_tolerance,
            arguments.optional,
            folder,
        )
    sys.exit(0 if logits_pass and hooks_pass else 1)


if __name__ == "__main__":
    main()
