"""Writes the golden values of path patching: for every edge one whole forward pass, in float64.

Regenerate (from the repository's root; four minutes, and the numbers come out the same):

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install -r Tests/Golden/requirements.txt
    /tmp/golden/bin/python Tests/Golden/make_paths_golden.py
    /tmp/golden/bin/python Tests/Golden/make_paths_golden.py --check    # compare with the committed files

For the checkpoints tiny-ln and tiny-lnfree of make_golden.py and for the four layers of one written here,
Tests/Fixtures/golden/paths/deep, it writes Tests/Fixtures/golden/paths/NAME.h5:

    /pairs/I/clean, corrupted     [pos] int64; pairs differ in length and in where they first differ
    /pairs/I/answer, wrong        [1] int64
    /VARIANT/DIRECTION/METRIC/effect          [pair, sender, receiver]; NaN where there is no path
    /VARIANT/DIRECTION/METRIC/clean, corrupted    [pair]: the metric of the unpatched runs

VARIANT    recomputed, frozen, and jointly, through (Wang et al.'s form with MLPs frozen or recomputed,
           the receivers of the attribute `set` at once: the last axis has one element)
DIRECTION  denoising (the corrupted run is patched with what the clean one writes) or noising
METRIC     logit-difference, kl, at the last position

The attributes `senders` and `receivers` of a file name the axes: embed, L0H1, 0_mlp_out and
embed+L0H1+0_mlp_out (together); L1H0.q, 1_mlp_in, final.

The naive edge: x_r = x_r(base) + sum of (out_s(source) - out_s(base)) is put in at hook_q_input,
hook_k_input, hook_v_input of one head, at hook_mlp_in, or behind the last block.  recomputed: nothing else
is done.  frozen: every head's z and every MLP's output but the receiver's is replaced by the base run's.
jointly: a first run with the sender's output replaced by the source's and all other heads' z (and MLPs'
outputs) by the base's records what the receivers read; a second run has those values put in, and no more.
"""


import h5py
import numpy as np
import torch
from golden_files import FIXTURES, parser, write_or_check
from make_golden import Checkpoint, dataset, shape, write_checkpoint
from reference_gpt2 import Intervention, ReferenceGPT2

DEEP = Checkpoint("deep", 11, shape(4, 2, 16, 12, 31))
PAIRS = {  # length, where clean and corrupted differ
    "tiny-ln": [(7, [2, 4]), (16, [9]), (5, [0]), (6, [5])],
    "tiny-lnfree": [(7, [2, 4]), (16, [9]), (5, [0]), (6, [5])],
    "deep": [(8, [3]), (6, [1, 4])],
}
JOINT_SETS = {
    "heads": lambda r: "." in r,
    "mixed": lambda r: r in ("L1H0.q", "L1H1.v", "0_mlp_in", "1_mlp_in"),
}


def senders(config):
    names = ["embed"]
    for layer in range(config.n_layers):
        names += [f"L{layer}H{head}" for head in range(config.n_heads)] + [f"{layer}_mlp_out"]
    return names + ["embed+L0H1+0_mlp_out", "L0H0+1_mlp_out"]


def receivers(config):
    names = []
    for layer in range(config.n_layers):
        names += [f"L{layer}H{head}.{c}" for head in range(config.n_heads) for c in "qkv"]
        names += [f"{layer}_mlp_in"]
    return names + ["final"]


def component(name):
    """(stage, layer, head): head None is an MLP's, stage -1 the embedding."""
    if name == "embed":
        return -1, None, None
    if name.endswith("_mlp_out"):
        layer = int(name.removesuffix("_mlp_out"))
        return 2 * layer + 1, layer, None
    layer, head = map(int, name[1:].split("H"))
    return 2 * layer, layer, head


def receiver(name, config):
    """(stage, hook, head, kind)."""
    if name == "final":
        return 2 * config.n_layers, f"blocks.{config.n_layers - 1}.hook_resid_post", -1
    if name.endswith("_mlp_in"):
        layer = int(name.removesuffix("_mlp_in"))
        return 2 * layer + 1, f"blocks.{layer}.hook_mlp_in", -1
    place, c = name.split(".")
    layer, head = map(int, place[1:].split("H"))
    return 2 * layer, f"blocks.{layer}.hook_{c}_input", head


def written(run, name):
    stage, layer, head = component(name)
    if stage == -1:
        return run["hook_embed"] + run["hook_pos_embed"]
    if head is None:
        return run[f"blocks.{layer}.hook_mlp_out"]
    return run[f"blocks.{layer}.attn.hook_result"][:, head]


def put(hook, op, x, head, config):
    """An intervention that adds or replaces [pos, d_model], in one head's input if there is one."""
    value = x if head < 0 else x[:, None, :].expand(len(x), config.n_heads, config.d_model)
    return Intervention(hook, op, value, head=head)


def freeze(base, config, free=(), mlps=True):
    """Every head's z, and MLPs, as in the base run, but those whose (layer, head) is in `free`."""
    changes = []
    for layer in range(config.n_layers):
        for head in range(config.n_heads):
            if (layer, head) not in free:
                name = f"blocks.{layer}.attn.hook_z"
                changes.append(Intervention(name, "replace", base[name], head=head))
        if mlps and (layer, None) not in free:
            name = f"blocks.{layer}.hook_mlp_out"
            changes.append(Intervention(name, "replace", base[name]))
    return changes


def edge(model, tokens, base, source, sender, reader, frozen):
    """The logits at the last position; None where there is no path."""
    config = model.config
    stage, hook, head = receiver(reader, config)
    parts = [p for p in sender.split("+") if component(p)[0] < stage]
    if not parts:
        return None
    change = sum(written(source, p) - written(base, p) for p in parts)
    changes = [put(hook, "add", change, head, config)]
    if frozen and reader != "final":
        layer = stage // 2
        changes += freeze(base, config, free={(layer, head if head >= 0 else None)})
    return model.logits(tokens, changes)[-1]


def joint(model, tokens, base, source, sender, readers, through):
    config = model.config
    places = [receiver(r, config) for r in readers]
    parts = [component(p) for p in sender.split("+")]
    if not any(part[0] < place[0] for part in parts for place in places):
        return None
    own = {(layer, head) for _, layer, head in parts}
    changes = freeze(base, config, free=own, mlps=not through)
    for stage, layer, head in parts:
        if stage == -1:
            changes.append(Intervention("hook_embed", "replace", source["hook_embed"]))
        elif head is None:
            name = f"blocks.{layer}.hook_mlp_out"
            changes.append(Intervention(name, "replace", source[name]))
        else:
            name = f"blocks.{layer}.attn.hook_z"
            changes.append(Intervention(name, "replace", source[name], head=head))
    recorded = model.run(tokens, changes, keep={hook for _, hook, _ in places})
    patched = [Intervention(hook, "replace", recorded[hook], head=head) for _, hook, head in places]
    return model.logits(tokens, patched)[-1]


def metric(name, logits, clean, answer, wrong):
    if name == "logit-difference":
        return (logits[answer] - logits[wrong]).item()
    p, q = torch.log_softmax(clean, 0), torch.log_softmax(logits, 0)
    return (p.exp() * (p - q)).sum().item()


def check_edges(model, tokens, base, source, names, readers):
    """Identities that do not rest on how an edge is put in."""
    config = model.config
    everything = "+".join(n for n in names if "+" not in n)
    for reader in readers:
        # All senders together: what the receiver reads in the source run.
        stage, hook, head = receiver(reader, config)
        whole = model.logits(tokens, [
            put(hook, "replace", source[hook] if head < 0 else source[hook][:, head], head, config)
        ])[-1]  # fmt: skip
        found = edge(model, tokens, base, source, everything, reader, frozen=False)
        assert (whole - found).abs().max() < 1e-10, reader
    for sender in names:
        # One receiver: Wang et al.'s form is the edge.
        for reader in readers:
            if "+" not in sender or component(sender.split("+")[-1])[0] < receiver(reader, config)[0]:
                one = edge(model, tokens, base, source, sender, reader, frozen=False)
                two = joint(model, tokens, base, source, sender, [reader], through=False)
                assert (one is None) == (two is None)
                assert one is None or (one - two).abs().max() < 1e-10, (sender, reader)


def write(name, checkpoint, path):
    model = ReferenceGPT2.from_huggingface(checkpoint)
    config = model.config
    rng = np.random.default_rng(77)
    names, readers = senders(config), receivers(config)
    sets = {key: [r for r in readers if chosen(r)] for key, chosen in JOINT_SETS.items()}
    pairs = []
    for length, places in PAIRS[name]:
        clean = rng.integers(0, config.d_vocab, length)
        corrupted = clean.copy()
        for place in places:
            corrupted[place] = (clean[place] + rng.integers(1, config.d_vocab)) % config.d_vocab
        answer, wrong = rng.choice(config.d_vocab, 2, replace=False)
        pairs.append((clean, corrupted, int(answer), int(wrong)))

    with h5py.File(path, "w") as file:
        file.attrs["senders"], file.attrs["receivers"] = ",".join(names), ",".join(readers)
        for i, (clean, corrupted, answer, wrong) in enumerate(pairs):
            group = file.create_group(f"pairs/{i}")
            for key, value in (("clean", clean), ("corrupted", corrupted),
                               ("answer", [answer]), ("wrong", [wrong])):  # fmt: skip
                dataset(group, key, value)
        variants = ["recomputed", "frozen"] + [f"{f}-{s}" for f in ("jointly", "through") for s in sets]
        for variant in variants:
            for direction in ("denoising", "noising"):
                effects = {m: [] for m in ("logit-difference", "kl")}
                clean_metric = {m: [] for m in effects}
                corrupted_metric = {m: [] for m in effects}
                for clean, corrupted, answer, wrong in pairs:
                    runs = [model.run(clean), model.run(corrupted)]
                    ends = [run["unembed.hook_out"][-1] for run in runs]
                    tokens = corrupted if direction == "denoising" else clean
                    source, base = runs if direction == "denoising" else runs[::-1]
                    end = ends[1] if direction == "denoising" else ends[0]
                    if variant == "recomputed":
                        check_edges(model, tokens, base, source, names, readers)
                    cells = []
                    for sender in names:
                        if variant in ("recomputed", "frozen"):
                            cells += [
                                edge(model, tokens, base, source, sender, r, variant == "frozen")
                                for r in readers
                            ]
                        else:
                            form, key = variant.split("-")
                            cells.append(
                                joint(model, tokens, base, source, sender, sets[key], form == "through")
                            )
                    for m in effects:
                        at_base = metric(m, end, ends[0], answer, wrong)
                        effects[m].append([
                            np.nan if c is None else metric(m, c, ends[0], answer, wrong) - at_base
                            for c in cells
                        ])  # fmt: skip
                        clean_metric[m].append(metric(m, ends[0], ends[0], answer, wrong))
                        corrupted_metric[m].append(metric(m, ends[1], ends[0], answer, wrong))
                for m in effects:
                    group = file.create_group(f"{variant}/{direction}/{m}")
                    dataset(group, "effect", np.array(effects[m]).reshape(len(pairs), len(names), -1))
                    dataset(group, "clean", clean_metric[m])
                    dataset(group, "corrupted", corrupted_metric[m])
            if "-" in variant:
                file[variant].attrs["set"] = ",".join(sets[variant.split("-")[1]])
    print(f"{name}: {len(pairs)} pairs, {len(names)} senders, {len(readers)} receivers")


def make(root):
    (root / "paths").mkdir(parents=True, exist_ok=True)
    deep = root / "paths" / "deep"
    deep.mkdir(exist_ok=True)
    write_checkpoint(DEEP, deep)
    for name in PAIRS:
        checkpoint = deep if name == "deep" else FIXTURES / name
        write(name, checkpoint, root / "paths" / f"{name}.h5")


def main():
    arguments = parser("Write the golden values of NormLens' path patching tests.").parse_args()
    files = ["deep/config.json", "deep/model.safetensors"] + [f"{name}.h5" for name in PAIRS]
    write_or_check(arguments, make, [f"paths/{file}" for file in files], 1e-11)


if __name__ == "__main__":
    main()
