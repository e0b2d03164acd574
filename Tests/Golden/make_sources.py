"""Writes checkpoints in the forms in which they are published, and the logits they must give.

Regenerate (from the repository's root; seconds, and the numbers come out the same):

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install -r Tests/Golden/requirements.txt
    /tmp/golden/bin/python Tests/Golden/make_sources.py
    /tmp/golden/bin/python Tests/Golden/make_sources.py --check    # compare with the committed logits

Under Tests/Fixtures/sources/ it writes one directory a form:

sharded        three safetensors files and their index, as save_pretrained writes them
float16, bfloat16    rounded weights; bfloat16 is a LayerNorm-free one, whose gains float16 cannot hold
float64        n_inner, relu, both attention-scaling flags and an unembedding of its own
old            as the first releases saved GPT-2: no prefix, the masks attn.bias (uint8) and
               attn.masked_bias beside the weights, n_ctx in the configuration
nanogpt        nn.Linear's [out, in] matrices under _orig_mod.transformer., lm_head.weight, gelu
keras          tf_model.h5 in the layout of transformers' TFGPT2LMHeadModel: groups
               transformer/tfgp_t2lm_head_model/transformer/h_._0/…, biases [1, n], contiguous float32
keras-model    the same without the outer groups, below model_weights/ (with an optimizer's state
               beside it), in chunks, compressed, the matrices in float64 and the vectors in float16

and logits.h5: for each form, and for the LayerNorm-free checkpoints of Tests/Fixtures/golden as they
are published (epsilon 1e12), NAME/tokens (int64) and NAME/logits [pos, vocab] (float64): transformers'
GPT2LMHeadModel in float64 on the very weights that the form holds, rounded as they are there.
"""

import argparse
import json
import sys

import h5py
import numpy as np
import safetensors.torch
import torch
import transformers
from golden_files import FIXTURES as GOLDEN
from make_golden import Checkpoint, random_weights, shape

FIXTURES = GOLDEN.parent / "sources"
SMALL = dict(n_layer=2, n_head=2, n_embd=16, n_positions=12, vocab_size=29)


def model_of(checkpoint, dtype=torch.float32):
    """A random model whose every bias and gain does something, its weights rounded to `dtype`."""
    epsilon = 1e-5 if checkpoint.family == "layernorm" else 1e12
    config = transformers.GPT2Config(**checkpoint.config, layer_norm_epsilon=epsilon)
    model = transformers.GPT2LMHeadModel(config)
    missing, unexpected = model.load_state_dict(random_weights(checkpoint), strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model.to(dtype).eval()


def logits_of(model, seed):
    """Tokens that fill the context, and the model's logits in float64."""
    config = model.config
    tokens = np.random.default_rng(seed).integers(config.vocab_size, size=config.n_positions)
    exact = transformers.GPT2LMHeadModel._from_config(
        config, attn_implementation="eager", dtype=torch.float64
    )
    exact.load_state_dict({name: tensor.double() for name, tensor in model.state_dict().items()})
    with torch.no_grad():
        return tokens, exact.eval()(torch.from_numpy(tokens)[None]).logits[0].numpy()


def write_config(directory, config, **changes):
    fields = config.to_diff_dict() | changes
    fields.pop("transformers_version", None)
    (directory / "config.json").write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")


def save_as_published(model, directory, **options):
    model.save_pretrained(directory, **options)
    (directory / "generation_config.json").unlink(missing_ok=True)
    for file in directory.glob("*.safetensors"):
        file.chmod(0o644)


def save_old(model, directory):
    tensors = {name: tensor.clone() for name, tensor in model.transformer.state_dict().items()}
    n = model.config.n_positions
    for layer in range(model.config.n_layer):
        tensors[f"h.{layer}.attn.bias"] = torch.tril(torch.ones(n, n, dtype=torch.uint8))[None, None]
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-10000.0)
    safetensors.torch.save_file(tensors, directory / "model.safetensors")
    write_config(directory, model.config, n_ctx=n)


def save_nanogpt(model, directory):
    tensors = {}
    for name, tensor in model.state_dict().items():
        turn = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        tensors["_orig_mod." + name] = (tensor.T if turn else tensor).contiguous().clone()
    safetensors.torch.save_file(tensors, directory / "model.safetensors")
    write_config(directory, model.config)


def keras_name(name):
    """The dataset of a tensor, below its model's group."""
    parts = name.split(".")
    if parts[0] == "h":
        parts = [f"h_._{parts[1]}"] + parts[2:]
    if parts[-2].startswith("ln_"):
        parts[-1] = {"weight": "gamma", "bias": "beta"}[parts[-1]]
    return "/".join(parts) + ":0"


def save_keras(model, directory):
    group = "transformer/tfgp_t2lm_head_model/transformer/"
    with h5py.File(directory / "tf_model.h5", "w") as file:
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.4.0"
        file.attrs["layer_names"] = [b"transformer"]
        for name, tensor in model.transformer.state_dict().items():
            values = tensor.numpy()
            dataset = keras_name(name).replace("wpe/weight", "wpe/embeddings")
            file[group + dataset] = values[None] if dataset.endswith("bias:0") else values
    write_config(directory, model.config)


def save_keras_model(model, directory):
    with h5py.File(directory / "tf_model.h5", "w") as file:
        for name, tensor in model.transformer.state_dict().items():
            values = tensor.numpy()
            values = values.astype(np.float64 if values.ndim == 2 else np.float16)
            dataset = "model_weights/" + keras_name(name).replace("wte/weight", "wte/embeddings")
            values = values[None] if dataset.endswith("bias:0") else values
            chunks = tuple(max(1, extent // 2) for extent in values.shape)
            file.create_dataset(dataset, data=values, chunks=chunks, compression="gzip", shuffle=True)
        file["optimizer_weights/Adam/transformer/wte/weight/m:0"] = np.zeros((2, 2), np.float32)
        file["optimizer_weights/Adam/iter:0"] = np.int64(7)
    write_config(directory, model.config)


def round_vectors(model):
    """Vectors that float16 holds exactly."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data = parameter.data.half().float()
    return model


FORMS = {
    "sharded": (
        lambda: model_of(Checkpoint("sharded", 11, shape(**SMALL))),
        lambda model, directory: save_as_published(model, directory, max_shard_size="12KB"),
    ),
    "float16": (
        lambda: model_of(Checkpoint("float16", 12, shape(**SMALL)), torch.float16), save_as_published,
    ),
    "bfloat16": (
        lambda: model_of(Checkpoint("bfloat16", 13, shape(**SMALL), family="schaeff"), torch.bfloat16),
        save_as_published,
    ),
    "float64": (
        lambda: model_of(
            Checkpoint(
                "float64", 14,
                shape(**SMALL, n_inner=20, activation_function="relu", tie_word_embeddings=False,
                      scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True),
                query_key=0.9,
            ),
            torch.float32,
        ).double(),
        save_as_published,
    ),
    "old": (lambda: model_of(Checkpoint("old", 15, shape(**SMALL))), save_old),
    "nanogpt": (
        lambda: model_of(Checkpoint("nanogpt", 16, shape(**SMALL, activation_function="gelu"))),
        save_nanogpt,
    ),
    "keras": (lambda: model_of(Checkpoint("keras", 17, shape(**SMALL))), save_keras),
    "keras-model": (
        lambda: round_vectors(model_of(Checkpoint("keras-model", 18, shape(**SMALL)))),
        save_keras_model,
    ),
}  # fmt: skip


def all_logits(write):
    """(tokens, logits) by name; with `write`, each form's files as well."""
    results = {}
    for seed, (name, (make, save)) in enumerate(FORMS.items()):
        model = make()
        results[name] = logits_of(model, seed)
        if write:
            directory = FIXTURES / name
            directory.mkdir(parents=True, exist_ok=True)
            save(model, directory)
    for seed, name in enumerate(["tiny-lnfree", "tiny-apollo"]):
        model = transformers.GPT2LMHeadModel.from_pretrained(GOLDEN / name)
        results[name] = logits_of(model, 100 + seed)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed logits")
    check = parser.parse_args().check
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    results = all_logits(write=not check)
    path = FIXTURES / "logits.h5"
    if check:
        with h5py.File(path) as file:
            worst = max(np.abs(file[name]["logits"][()] - logits).max() for name, (_, logits) in results.items())
        print(f"{len(results)} forms, largest difference {worst:.1e}")
        sys.exit(worst > 1e-10)
    with h5py.File(path, "w") as file:
        for name, (tokens, logits) in results.items():
            file[f"{name}/tokens"] = tokens
            file[f"{name}/logits"] = logits
    bytes_ = sum(file.stat().st_size for file in FIXTURES.rglob("*") if file.is_file())
    print(f"{len(results)} forms, {bytes_ / 1000:.0f} KB in {FIXTURES}")


if __name__ == "__main__":
    main()
