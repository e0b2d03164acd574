"""Writes Tests/Fixtures/golden/processing.h5: processed weights in float64.

    python Tests/Golden/make_processing_golden.py [--check] [--against-transformer-lens]

The checkpoints are those that make_golden.py has written.  The file holds

    /processed/CHECKPOINT/CASE         attribute `steps`, comma-separated; every tensor of the processed
                                       model under its Hugging Face name ("unembed.weight" [vocab, d]),
                                       and `logits` [pos, vocab] of prompt `a`
    /rmsnorm/CHECKPOINT                the same weights with RMSNorm in LayerNorm's place: another model,
                                       whose stream has a mean.  hooks/HOOK: every hook of prompt `b`;
                                       frozen: logits of prompt `a` with every scale frozen to prompt
                                       `d`'s; edited: logits of prompt `b` with blocks.0.ln1.hook_normalized
                                       replaced by `value` at position 2; dla/, logit_lens/: as in
                                       make_golden.py, prompt `b`, answer and wrong its ANSWER and WRONG

The steps are written as TransformerLens' weight_processing.py has them, one matrix per head.  Every
hook of a compressed model (crmsnorm, isometric) is checked here, in float64, against the unprocessed
model's: streams are (P x)[:d-1] or x B with the norms of P x, everything else is the same.
`--against-transformer-lens` compares TransformerLens' four with that library itself (4.3.0: no
difference).
"""

import dataclasses
import types

import h5py
import torch
from golden_files import FIXTURES, parser, write_or_check
from make_golden import (
    ANSWER,
    CHECKPOINTS,
    WRONG,
    attributes,
    dataset,
    direct_logit_attribution,
    logit_lens,
    random_prompts,
)
from reference_gpt2 import Intervention, Norm, ReferenceGPT2, hook_names

FILE = "processing.h5"
TRANSFORMER_LENS = ["fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"]
EVERYTHING = [
    "fold_ln", "center_reading_weights", "center_writing_weights", "rmsnorm", "center_unembed",
    "fold_value_biases",
]  # fmt: skip
CASES = [
    ("tiny-ln", "transformerlens", TRANSFORMER_LENS),
    ("tiny-lnfree", "transformerlens", TRANSFORMER_LENS[1:]),
    ("tiny-relu-untied", "everything", EVERYTHING),
    *[("tiny-gelu-erf", step, [step]) for step in TRANSFORMER_LENS],
]
CENTERED = ["fold_ln", "center_writing_weights"]
COMPRESSED = [
    ("tiny-ln", "crmsnorm", [*CENTERED, "crmsnorm"]),
    ("tiny-ln", "isometric", [*CENTERED, "isometric"]),
    ("tiny-relu-untied", "crmsnorm", [*CENTERED, "rmsnorm", "crmsnorm"]),
    ("tiny-gelu-erf", "isometric", [*CENTERED, "rmsnorm", "isometric"]),
    ("tiny-lnfree", "isometric", ["center_writing_weights", "isometric"]),
]
CASES += [case for case in COMPRESSED if case[0] in ("tiny-ln", "tiny-lnfree")]
RMS_CHECKPOINT = "tiny-gelu-erf"


# -------------------------------------------------------------------- the steps


def fold_ln(model):
    """Gains and biases into W_Q, W_K, W_V, W_in, W_U; then these are centred over d_model."""

    def center(W):
        return W - W.mean(dim=-2, keepdim=True)

    assert model.config.normalization == "layernorm"
    ones, zeros = torch.ones_like(model.ln_final.gain), torch.zeros_like(model.ln_final.gain)
    for block in model.blocks:
        gain, bias = block.ln1.gain, block.ln1.bias
        for x in "QKV":
            W = getattr(block, f"W_{x}")
            setattr(block, f"b_{x}", getattr(block, f"b_{x}") + (W * bias[None, :, None]).sum(dim=-2))
            setattr(block, f"W_{x}", center(W * gain[None, :, None]))
        gain, bias = block.ln2.gain, block.ln2.bias
        block.b_in = block.b_in + (block.W_in * bias[:, None]).sum(dim=-2)
        block.W_in = center(block.W_in * gain[:, None])
        block.ln1, block.ln2 = Norm(ones, zeros), Norm(ones, zeros)
    gain, bias = model.ln_final.gain, model.ln_final.bias
    model.b_U = model.b_U + (model.W_U * bias[:, None]).sum(dim=-2)
    model.W_U = center(model.W_U * gain[:, None])
    model.ln_final = Norm(ones, zeros)


def center_reading_weights(model):
    for block in model.blocks:
        for name in ["W_Q", "W_K", "W_V", "W_in"]:
            W = getattr(block, name)
            setattr(block, name, W - W.mean(dim=-2, keepdim=True))
    model.W_U = model.W_U - model.W_U.mean(dim=0, keepdim=True)


def center_writing_weights(model):
    def center(W):
        return W - W.mean(dim=-1, keepdim=True)

    model.W_E, model.W_pos = center(model.W_E), center(model.W_pos)
    for block in model.blocks:
        block.W_O, block.b_O = center(block.W_O), center(block.b_O)
        block.W_out, block.b_out = center(block.W_out), center(block.b_out)


def rmsnorm(model):
    model.config = dataclasses.replace(model.config, normalization="rmsnorm")


def crmsnorm(model):
    """Without the last coordinate: writers lose it, readers read it off the sum of the others."""
    d = model.config.d_model
    keep = torch.eye(d, d - 1, dtype=torch.float64)
    rest = keep.T - torch.eye(d, dtype=torch.float64)[-1]
    compress(model, keep, rest, "crmsnorm")


def isometric(model):
    """In an orthonormal basis of the vectors that sum to zero."""
    B = helmert(model.config.d_model)
    assert (B.T @ B - torch.eye(B.shape[1])).abs().max() < 1e-14 and B.sum(dim=0).abs().max() < 1e-13
    compress(model, B, B.T, "none" if model.is_ln_free else "rmsnorm")


def helmert(d):
    """Columns k = 1 ... d - 1: (1, ..., 1, -k, 0, ...) / sqrt(k (k + 1))."""
    B = torch.zeros(d, d - 1, dtype=torch.float64)
    for k in range(1, d):
        B[:k, k - 1] = 1
        B[k, k - 1] = -k
        B[:, k - 1] /= (k * (k + 1)) ** 0.5
    return B


def compress(model, write, read, normalization):
    """What is written is multiplied by `write` [d, d - 1], what reads by `read` [d - 1, d]."""
    model.W_E, model.W_pos = model.W_E @ write, model.W_pos @ write
    for block in model.blocks:
        for name in ["W_O", "b_O", "W_out", "b_out"]:
            setattr(block, name, getattr(block, name) @ write)
        for name in ["W_Q", "W_K", "W_V", "W_in"]:
            setattr(block, name, read @ getattr(block, name))
        block.ln1, block.ln2 = shortened(block.ln1), shortened(block.ln2)
    model.W_U = read @ model.W_U
    model.ln_final = shortened(model.ln_final)
    model.config = dataclasses.replace(
        model.config, normalization=normalization, d_model=model.config.d_model - 1, compressed=True
    )


def shortened(norm):
    return norm if norm.gain is None else Norm(norm.gain[:-1], norm.bias[:-1])


def center_unembed(model):
    model.W_U = model.W_U - model.W_U.mean(dim=-1, keepdim=True)
    model.b_U = model.b_U - model.b_U.mean()


def fold_value_biases(model):
    for block in model.blocks:
        block.b_O = block.b_O + (block.b_V[:, :, None] * block.W_O).sum(dim=[0, 1])
        block.b_V = torch.zeros_like(block.b_V)


def tensors(model):
    """The model's tensors by their Hugging Face names."""
    d = model.config.d_model
    found = {"wte.weight": model.W_E, "wpe.weight": model.W_pos}
    norms = {"ln_f": model.ln_final}
    for layer, block in enumerate(model.blocks):
        h = f"h.{layer}"
        norms |= {f"{h}.ln_1": block.ln1, f"{h}.ln_2": block.ln2}
        W = [getattr(block, f"W_{x}").permute(1, 0, 2).reshape(d, -1) for x in "QKV"]
        b = [getattr(block, f"b_{x}").reshape(-1) for x in "QKV"]
        found |= {
            f"{h}.attn.c_attn.weight": torch.cat(W, dim=1),
            f"{h}.attn.c_attn.bias": torch.cat(b),
            f"{h}.attn.c_proj.weight": block.W_O.reshape(-1, d),
            f"{h}.attn.c_proj.bias": block.b_O,
            f"{h}.mlp.c_fc.weight": block.W_in,
            f"{h}.mlp.c_fc.bias": block.b_in,
            f"{h}.mlp.c_proj.weight": block.W_out,
            f"{h}.mlp.c_proj.bias": block.b_out,
        }
    for name, norm in norms.items():
        if norm.gain is not None:
            found |= {f"{name}.weight": norm.gain, f"{name}.bias": norm.bias}
    return found | {"unembed.weight": model.W_U.T, "unembed.bias": model.b_U}


# -------------------------------------------------------------------- writing


def prompts(name):
    return random_prompts(next(c for c in CHECKPOINTS if c.name == name))


def log_probabilities(logits):
    return torch.log_softmax(logits, dim=-1)


def write(path):
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for checkpoint, case, steps in CASES:
            model = ReferenceGPT2.from_huggingface(FIXTURES / checkpoint)
            tokens = prompts(checkpoint)["a"]
            before = model.logits(tokens)
            for step in steps:
                globals()[step](model)
                change = (log_probabilities(model.logits(tokens)) - log_probabilities(before)).abs().max()
                assert change < 1e-11, (checkpoint, case, step, change)
            group = file.create_group(f"processed/{checkpoint}/{case}")
            attributes(group, steps=",".join(steps))
            for name, values in tensors(model).items():
                dataset(group, name, values.contiguous())
            dataset(group, "logits", model.logits(tokens))

        for checkpoint, form, steps in COMPRESSED:
            check_compressed(checkpoint, form, steps)

        model = ReferenceGPT2.from_huggingface(FIXTURES / RMS_CHECKPOINT)
        rmsnorm(model)
        tokens = prompts(RMS_CHECKPOINT)
        group = file.create_group(f"rmsnorm/{RMS_CHECKPOINT}")
        run = model.run(tokens["b"])
        for name in hook_names(model.config.n_layers):
            dataset(group, f"hooks/{name}", run[name])
        donor = model.run(tokens["d"])
        freeze = [
            Intervention(site=name, op="replace", value=value)
            for name, value in donor.items()
            if name.endswith("hook_scale")
        ]
        dataset(group, "frozen", model.logits(tokens["a"], freeze))
        site = "blocks.0.ln1.hook_normalized"
        value = run[site].roll(3, dims=-1)
        edit = Intervention(site=site, op="replace", value=value, positions=(2,))
        dataset(group, "value", value)
        dataset(group, "edited", model.logits(tokens["b"], [edit]))
        for variable, values in direct_logit_attribution(model, run, ANSWER, WRONG).values.items():
            dataset(group, f"dla/{variable}", values)
        _, recomputed, frozen = logit_lens(model, run)
        dataset(group, "logit_lens/recomputed", recomputed)
        dataset(group, "logit_lens/frozen", frozen)


def check_compressed(checkpoint, form, steps):
    """Holds the hooks of a compressed model against the unprocessed model's."""
    plain = ReferenceGPT2.from_huggingface(FIXTURES / checkpoint)
    model = ReferenceGPT2.from_huggingface(FIXTURES / checkpoint)
    for step in steps:
        globals()[step](model)
    tokens = prompts(checkpoint)["b"]
    before, after = plain.run(tokens), model.run(tokens)
    d = plain.config.d_model
    basis = helmert(d) if form == "isometric" else torch.eye(d, d - 1, dtype=torch.float64)
    worst = 0.0
    for name in hook_names(plain.config.n_layers):
        expected = before[name]
        if name == "unembed.hook_in":  # what the gain has made of it is in W_U now
            continue
        if expected.shape[-1] == d and after[name].shape[-1] == d - 1:
            centered = expected - expected.mean(dim=-1, keepdim=True)
            expected = centered @ basis
            norms = torch.linalg.norm(after[name], dim=-1) / torch.linalg.norm(centered, dim=-1)
            if form == "isometric":
                assert (norms - 1).abs().max() < 1e-12, (checkpoint, name)
            else:
                assert (norms - 1).abs().max() > 1e-3, (checkpoint, name)
        finite = expected.isfinite()
        error = (after[name] - expected)[finite].abs().max() / max(1, expected[finite].abs().max())
        worst = max(worst, error.item())
    assert worst < 1e-12, (checkpoint, form, worst)
    # A norm that divided by the number of coordinates that are left would be another model.
    if not model.is_ln_free:
        wrong = dataclasses.replace(model, config=dataclasses.replace(model.config, epsilon=1e-5))
        scale = model.scale
        wrong.scale = lambda x: ((scale(x) ** 2 - model.config.epsilon) * d / (d - 1) + 1e-5).sqrt()
        change = (wrong.logits(tokens) - plain.logits(tokens)).abs().max().item()
        assert change > 1e-3, (checkpoint, form, change)
        print(f"{checkpoint} {form}: hooks within {worst:.1e}; divided by d - 1 logits change by {change:.2g}")
    else:
        print(f"{checkpoint} {form}: hooks within {worst:.1e}")


def compare_with_transformer_lens():
    """transformer_lens' own steps on the same weights, in float64."""
    from transformer_lens.weight_processing import ProcessWeights

    for checkpoint in ["tiny-ln", "tiny-relu-untied", "tiny-gelu-erf", "tiny-1x1"]:
        model = ReferenceGPT2.from_huggingface(FIXTURES / checkpoint)
        c = model.config
        config = types.SimpleNamespace(
            n_layers=c.n_layers, d_model=c.d_model, n_heads=c.n_heads, d_head=c.d_head, d_mlp=c.d_mlp,
            n_ctx=c.n_ctx, d_vocab=c.d_vocab, normalization_type="LN", n_key_value_heads=None,
            positional_embedding_type="standard", act_fn="gelu_new", final_rms=False, attn_only=False,
            gated_mlp=False, num_experts=None, parallel_attn_mlp=False,
        )  # fmt: skip
        # One by one: process_weights as a whole rounds to float32 first.
        theirs = transformer_lens_tensors(model)
        theirs = ProcessWeights.fold_layer_norm(theirs, config, fold_biases=True, center_weights=True)
        theirs = ProcessWeights.center_writing_weights(theirs, config)
        theirs = ProcessWeights.center_unembed(theirs, config)
        theirs = ProcessWeights.fold_value_biases(theirs, config)
        for step in TRANSFORMER_LENS:
            globals()[step](model)
        ours, worst = transformer_lens_tensors(model), 0.0
        for name, values in theirs.items():
            if ".ln" in name or name.startswith("ln"):
                continue  # gone after folding there, 1 and 0 here
            scale = max(ours[name].abs().max().item(), 1e-300)
            error = (ours[name] - values).abs().max().item() / scale if values.any() else 0
            worst = max(worst, error)
            assert values.shape == ours[name].shape, name
        print(f"{checkpoint}: differs from transformer_lens by {worst:.1e} of a tensor's largest value")


def transformer_lens_tensors(model):
    found = {"embed.W_E": model.W_E, "pos_embed.W_pos": model.W_pos}
    found |= {"unembed.W_U": model.W_U, "unembed.b_U": model.b_U}
    found |= {"ln_final.w": model.ln_final.gain, "ln_final.b": model.ln_final.bias}
    for layer, block in enumerate(model.blocks):
        b = f"blocks.{layer}"
        for x in "QKVO":
            found |= {f"{b}.attn.W_{x}": getattr(block, f"W_{x}"), f"{b}.attn.b_{x}": getattr(block, f"b_{x}")}
        for name in ["W_in", "b_in", "W_out", "b_out"]:
            found[f"{b}.mlp.{name}"] = getattr(block, name)
        for name in ["ln1", "ln2"]:
            norm = getattr(block, name)
            found |= {f"{b}.{name}.w": norm.gain, f"{b}.{name}.b": norm.bias}
    return {name: values.clone() for name, values in found.items()}


def main():
    options = parser("Write the golden values of weight processing.")
    options.add_argument("--against-transformer-lens", action="store_true", help="needs transformer_lens")
    arguments = options.parse_args()
    if arguments.against_transformer_lens:
        torch.set_num_threads(1)
        compare_with_transformer_lens()
    else:
        write_or_check(arguments, lambda root: write(root / FILE), [FILE], 1e-10)

if __name__ == "__main__":
    main()
