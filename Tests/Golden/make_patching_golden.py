"""Writes the golden values of activation patching: the naive loop, one whole forward pass a cell, in float64.

Regenerate (from the repository's root; a few minutes, and the numbers come out the same):

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install -r Tests/Golden/requirements.txt
    /tmp/golden/bin/python Tests/Golden/make_patching_golden.py
    /tmp/golden/bin/python Tests/Golden/make_patching_golden.py --check    # compare with the committed files

`--against-transformer-lens` holds the committed values against TransformerLens' own get_act_patch_*
functions in float64 (needs transformer_lens 4.3.0), axis order included.

The models are two checkpoints of make_golden.py (tiny-ln, tiny-lnfree) and one with four layers, for
windows of several layers, which is written beside them:

Tests/Fixtures/golden/patching-deep/config.json, model.safetensors    a random Hugging Face checkpoint

For every checkpoint NAME (the last one's file is patching-deep.h5) it writes, under
Tests/Fixtures/golden/, patching-NAME.h5:

    /sets/S/I/clean, corrupted     [pos] int64: pair I of the set S = seven (three pairs of 7 tokens) or
                                   five (two pairs of 5); they differ at one or two places
    /sets/S/I/answer, wrong        int64: the right and the wrong tokens, one or several
    /references/R/I                [pos] int64: prompts to take means over; R = seven (four of 7 tokens) or
                                   ragged (7, 5 and 3 tokens)
    /sweeps/000 …                  one sweep: attributes
                                       set, direction ("denoising", "noising"), metric,
                                       replacement   "other_run"; "zero"; "mean" over all positions of the
                                                     prompts of /references/ragged, each position with the
                                                     same weight; "position_mean" over /references/seven
                                       window        layers that a cell overwrites, from its own upward
                                       answers       "all", or "first": only the first answer and the first
                                                     wrong token of each pair (probability-difference)
        clean_metric, corrupted_metric   [prompt]
        SITE                       [prompt, layer, …]: patched − unpatched metric; axes as below; layer has
                                   n_layers − window + 1 cells
        SITE_normalized            [layer, …]: mean of SITE over prompts ÷ (mean clean_metric −
                                   mean corrupted_metric)

SITE and its axes, as in TransformerLens' patching.py:

    resid_pre, resid_mid, attn_out, mlp_out        layer, pos
    head_z, head_q, head_k, head_v, head_pattern   layer, head
    head_{z,q,k,v}_by_pos                          layer, pos, head
    head_pattern_by_pos                            layer, head, query_pos
    head_pattern_dest_src                          layer, head, query_pos, key_pos
    mlp_post                                       layer, pos, neuron

Denoising runs the corrupted prompt and overwrites with the clean run's activation, noising the other way
round. Metrics look at the last position; several answers: the largest logit, or the sum of the
probabilities (see METRICS).

Every attribute is a string; every dataset is float64 or int64, gzipped.

The model is reference_gpt2.py. Cells of sites that have a module boundary in transformers are checked
there; the others are tied to them: a pattern to the z that it makes (`check`).
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
import transformers
from golden_files import FIXTURES, parser, write_or_check
from make_golden import (
    TOLERANCE,
    Checkpoint,
    Judge,
    agree,
    attributes,
    dataset,
    difference,
    shape,
    write_checkpoint,
)
from reference_gpt2 import ReferenceGPT2

DEEP = Checkpoint("patching-deep", 11, shape(4, 2, 16, 12, 29, n_inner=12), query_key=1.6)

# site: hook, axes after the layer; an index along these axes is one along the hook's own axes
RESID, HEAD, BY_POS = ("pos",), ("head",), ("pos", "head")
SITES = {
    "resid_pre": ("hook_resid_pre", RESID),
    "resid_mid": ("hook_resid_mid", RESID),
    "attn_out": ("hook_attn_out", RESID),
    "mlp_out": ("hook_mlp_out", RESID),
    **{f"head_{c}": (f"attn.hook_{c}", HEAD) for c in "zqkv"},
    "head_pattern": ("attn.hook_pattern", HEAD),
    **{f"head_{c}_by_pos": (f"attn.hook_{c}", BY_POS) for c in "zqkv"},
    "head_pattern_by_pos": ("attn.hook_pattern", ("head", "query_pos")),
    "head_pattern_dest_src": ("attn.hook_pattern", ("head", "query_pos", "key_pos")),
    "mlp_post": ("mlp.hook_post", ("pos", "neuron")),
}
LARGE_SITES = {"head_pattern_dest_src", "mlp_post"}


def selection(hook, axes, indices):
    """The index of the part of a hook's value that a cell overwrites."""
    at = dict(zip(axes, indices))
    if hook.endswith("pattern"):
        order = ["head", "query_pos", "key_pos"]
    elif hook.endswith("post"):
        order = ["pos", "neuron"]
    else:
        order = ["pos", "head"]
    return tuple(at.get(axis, slice(None)) for axis in order)


@dataclass(frozen=True)
class Patch:
    """Overwrites a part of a hook's value, as reference_gpt2's interventions do."""

    site: str
    value: torch.Tensor
    part: tuple

    def __call__(self, x):
        x = x.clone()
        x[self.part] = self.value[self.part]
        return x


# -------------------------------------------------------------------- metrics

# Of the logits [vocab] of a run and of the clean run, right tokens A and wrong tokens W.
METRICS = {
    "logit-difference": lambda x, clean, A, W: x[A].max() - x[W].max(),
    "logit": lambda x, clean, A, W: x[A].max(),
    "log-probability": lambda x, clean, A, W: x.softmax(0)[A].sum().log(),
    "probability-difference": lambda x, clean, A, W: x.softmax(0)[A].sum() - x.softmax(0)[W].sum(),
    "kl": lambda x, clean, A, W: (clean.softmax(0) * (clean.log_softmax(0) - x.log_softmax(0))).sum(),
    "loss": lambda x, clean, A, W: -x.softmax(0)[A].sum().log(),
    "group-difference": lambda x, clean, A, W: x.softmax(0)[A].sum() - x.softmax(0)[W].sum(),
}


# -------------------------------------------------------------------- prompts


@dataclass(frozen=True)
class Pair:
    clean: np.ndarray
    corrupted: np.ndarray
    answer: np.ndarray
    wrong: np.ndarray


def random_pairs(model, rng):
    """The sets of pairs; `differing` places, so many answers and so many wrong tokens.

    The answers are what the model expects of the clean prompt and the wrong tokens what it expects of the
    corrupted one. Prompts are drawn until the answers' probability falls by a fifth at least, so that every
    metric moves.
    """
    vocab = model.config.d_vocab

    def pair(length, differing, answers, wrongs):
        while True:
            clean = rng.integers(vocab, size=length)
            corrupted = clean.copy()
            for place in differing:
                corrupted[place] = (clean[place] + rng.integers(1, vocab)) % vocab
            p, q = (model.logits(x)[-1].softmax(0).numpy() for x in (clean, corrupted))
            answer = np.argsort(-p)[:answers]
            others = np.argsort(-q)
            wrong = others[~np.isin(others, answer)][:wrongs]
            if p[answer].sum() - q[answer].sum() > 0.2:
                return Pair(clean, corrupted, answer, wrong)

    return {
        "seven": [pair(7, [3], 1, 1), pair(7, [2, 5], 2, 1), pair(7, [1, 4], 1, 3)],
        "five": [pair(5, [2], 1, 1), pair(5, [1, 4], 2, 2)],
    }


def random_references(vocab, rng):
    lengths = {"seven": [7, 7, 7, 7], "ragged": [7, 5, 3]}
    return {name: [rng.integers(vocab, size=n) for n in counts] for name, counts in lengths.items()}


# -------------------------------------------------------------------- sweeps


@dataclass(frozen=True)
class Sweep:
    set: str
    direction: str
    metric: str = "logit-difference"
    replacement: str = "other_run"
    window: int = 1
    sites: tuple = tuple(SITES)
    answers: str = "all"


def sweeps(is_deep):
    directions = ["denoising", "noising"]
    for pairs, direction in itertools.product(["seven", "five"], directions):
        yield Sweep(pairs, direction)
    if is_deep:
        # of all sites; the large ones with one width and direction
        for direction, window in itertools.product(directions, [2, 3]):
            sites = [s for s in SITES if s not in LARGE_SITES or (window, direction) == (2, "denoising")]
            yield Sweep("seven", direction, window=window, sites=tuple(sites))
        return
    for pairs, direction, metric in itertools.product(["seven", "five"], directions, METRICS):
        if metric != "logit-difference":
            answers = "first" if metric == "probability-difference" else "all"
            yield Sweep(pairs, direction, metric, sites=("resid_pre", "head_z"), answers=answers)
    for direction, replacement in itertools.product(directions, ["zero", "mean", "position_mean"]):
        sites = [s for s in SITES if s not in LARGE_SITES or (s, direction) == ("mlp_post", "noising")]
        if replacement == "mean":  # patterns over other keys have no mean
            sites = [s for s in sites if "pattern" not in s]
        yield Sweep("seven", direction, replacement=replacement, sites=tuple(sites))


class Experiment:
    """A model with its prompts and their runs."""

    def __init__(self, name, directory):
        self.model = ReferenceGPT2.from_huggingface(directory)
        self.judge = Judge(directory)
        vocab = self.model.config.d_vocab
        self.is_deep = name == "patching-deep"
        rng = np.random.default_rng([5000, self.model.config.n_layers, self.model.is_ln_free])
        self.sets = random_pairs(self.model, rng)
        self.references = random_references(vocab, rng)
        self.hooks = sorted({hook for hook, _ in SITES.values()})
        self.clean, self.corrupted = (
            {s: [self.model.run(getattr(pair, which)) for pair in pairs] for s, pairs in self.sets.items()}
            for which in ["clean", "corrupted"]
        )
        runs = {r: [self.model.run(tokens) for tokens in prompts] for r, prompts in self.references.items()}
        names = [f"blocks.{layer}.{hook}" for layer in range(self.model.config.n_layers) for hook in self.hooks]
        self.means = {n: torch.cat([run[n] for run in runs["ragged"]]).mean(0) for n in names if "pattern" not in n}
        self.position_means = {n: torch.stack([run[n] for run in runs["seven"]]).mean(0) for n in names}

    def replacement(self, kind, name, other):
        """What stands in the place of a hook's value, in its full shape."""
        if kind == "other_run":
            return other[name]
        if kind == "zero":
            return torch.zeros_like(other[name])
        if kind == "mean":
            return self.means[name].expand_as(other[name])
        return self.position_means[name]

    def patches(self, sweep, site, cell, other):
        """The interventions of one cell: (layer, index along each further axis)."""
        hook, axes = SITES[site]
        layer, *indices = cell
        part = selection(hook, axes, indices)
        names = [f"blocks.{layer + above}.{hook}" for above in range(sweep.window)]
        return [Patch(name, self.replacement(sweep.replacement, name, other), part) for name in names]

    def shape(self, sweep, site, length):
        config = self.model.config
        extent = {"pos": length, "query_pos": length, "key_pos": length, "head": config.n_heads}
        extent["neuron"] = config.d_mlp
        return [config.n_layers - sweep.window + 1] + [extent[axis] for axis in SITES[site][1]]

    def measured(self, sweep, found):
        """The pairs with the run that is patched, its tokens, the other run and the metric of logits.

        Puts clean_metric and corrupted_metric into `found`.
        """
        metric = METRICS[sweep.metric]
        found |= {"clean_metric": [], "corrupted_metric": []}
        for index, pair in enumerate(self.sets[sweep.set]):
            clean, corrupted = self.clean[sweep.set][index], self.corrupted[sweep.set][index]
            count = 1 if sweep.answers == "first" else None
            tokens = [torch.as_tensor(pair.answer[:count]), torch.as_tensor(pair.wrong[:count])]
            clean_logits = clean["unembed.hook_out"][-1]

            def measured(logits, clean_logits=clean_logits, tokens=tokens):
                return metric(logits[-1], clean_logits, *tokens)

            found["clean_metric"].append(measured(clean["unembed.hook_out"]))
            found["corrupted_metric"].append(measured(corrupted["unembed.hook_out"]))
            if sweep.direction == "denoising":
                yield corrupted, pair.corrupted, clean, measured
            else:
                yield clean, pair.clean, corrupted, measured

    def run(self, sweep):
        """clean_metric, corrupted_metric and the effects [prompt, …] of every site."""
        found = {site: [] for site in sweep.sites}
        for base, prompt, other, measured in self.measured(sweep, found):
            unpatched = measured(base["unembed.hook_out"])
            for site in sweep.sites:
                effects = torch.zeros(self.shape(sweep, site, len(prompt)), dtype=torch.float64)
                for cell in np.ndindex(*effects.shape):
                    patches = self.patches(sweep, site, cell, other)
                    effects[cell] = measured(self.model.logits(prompt, patches)) - unpatched
                found[site].append(effects)
        found = {name: torch.stack(values) for name, values in found.items()}
        gap = found["clean_metric"].mean() - found["corrupted_metric"].mean()
        for site in sweep.sites:
            found[f"{site}_normalized"] = found[site].mean(0) / gap
        return found

    def check(self):
        """Ties cells to transformers: those with a place there directly, patterns by the z that they make."""
        sweep = Sweep("seven", "denoising")
        pair, clean, corrupted = self.sets["seven"][0], self.clean["seven"][0], self.corrupted["seven"][0]
        confirmed = 0
        for site, (hook, axes) in SITES.items():
            extents = self.shape(sweep, site, len(pair.clean))
            cells = list(np.ndindex(*extents))
            for cell in cells[:: max(1, len(cells) // 60)]:
                (patch,) = self.patches(sweep, site, cell, clean)
                logits = self.model.logits(pair.corrupted, [patch])
                if self.judge.place(patch.site) is None and hook.endswith("pattern"):
                    h = f"blocks.{cell[0]}.attn.hook_"
                    z = torch.einsum("hqs,shk->qhk", patch(corrupted[f"{h}pattern"]), corrupted[f"{h}v"])
                    patch = Patch(f"{h}z", z, (slice(None),))
                if self.judge.place(patch.site) is not None:
                    assert agree(logits, self.judge.logits(pair.corrupted, patch)), (site, cell)
                    confirmed += 1
        return confirmed

    def identities(self, sweep, found):
        """What must hold of every sweep."""
        gap = (found["clean_metric"] - found["corrupted_metric"]) * (1 if sweep.direction == "denoising" else -1)
        for index, pair in enumerate(self.sets[sweep.set]):
            if sweep.replacement != "other_run":
                continue
            first = int(np.argmax(pair.clean != pair.corrupted))
            for site in sweep.sites:
                axes = SITES[site][1]
                if "pos" in axes or "query_pos" in axes:  # before the first differing token: nothing
                    at = 1 + [i for i, axis in enumerate(axes) if axis in ("pos", "query_pos")][0]
                    before = found[site][index].narrow(at, 0, first)
                    assert before.abs().max() < TOLERANCE, (sweep, site)
            if (pair.clean != pair.corrupted).sum() == 1 and "resid_pre" in sweep.sites:
                # the one differing token's stream at layer 0 is the whole difference
                assert agree(found["resid_pre"][index, 0, first], gap[index]), sweep
        assert all(torch.isfinite(values).all() for values in found.values())
        assert all(found[site].abs().max() > 1e-3 for site in sweep.sites), sweep
        assert (found["clean_metric"].mean() - found["corrupted_metric"].mean()).abs() > 0.01, sweep


def write_golden(name, directory, path):
    experiment = Experiment(name, directory)
    confirmed = experiment.check()
    cells = 0
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        attributes(
            file,
            checkpoint=name,
            generator="Tests/Golden/make_patching_golden.py",
            torch=torch.__version__,
            transformers=transformers.__version__,
        )
        for set_name, pairs in experiment.sets.items():
            for index, pair in enumerate(pairs):
                group = file.create_group(f"sets/{set_name}/{index}")
                for field in ["clean", "corrupted", "answer", "wrong"]:
                    dataset(group, field, getattr(pair, field))
        for reference, prompts in experiment.references.items():
            group = file.create_group(f"references/{reference}")
            for index, tokens in enumerate(prompts):
                dataset(group, str(index), tokens)
        for index, sweep in enumerate(sweeps(experiment.is_deep)):
            found = experiment.run(sweep)
            experiment.identities(sweep, found)
            group = file.create_group(f"sweeps/{index:03d}")
            attributes(
                group,
                set=sweep.set,
                direction=sweep.direction,
                metric=sweep.metric,
                replacement=sweep.replacement,
                window=sweep.window,
                answers=sweep.answers,
            )
            for variable, values in found.items():
                dataset(group, variable, values)
            cells += sum(found[site].numel() for site in sweep.sites)
    print(f"{name}: {index + 1} sweeps, {cells} cells; {confirmed} cells confirmed by transformers")


NAMES = ["tiny-ln", "tiny-lnfree", DEEP.name]


def golden_file(root, name):
    return root / (f"{name}.h5" if name.startswith("patching-") else f"patching-{name}.h5")


def make(root):
    directory = root / DEEP.name
    directory.mkdir(parents=True, exist_ok=True)
    write_checkpoint(DEEP, directory)
    for name in NAMES:
        source = directory if name == DEEP.name else FIXTURES / name
        write_golden(name, source, golden_file(root, name))


def against_transformer_lens(committed):
    """transformer_lens' fifteen sweeps and three bundles on the same weights and prompts."""
    from transformer_lens import patching
    from transformer_lens.model_bridge import TransformerBridge

    by_pos = ["head_z_by_pos", "head_q_by_pos", "head_k_by_pos", "head_v_by_pos", "head_pattern_by_pos"]
    functions = {
        "resid_pre": "resid_pre", "resid_mid": "resid_mid", "attn_out": "attn_out", "mlp_out": "mlp_out",
        "attn_head_out_all_pos": "head_z", "attn_head_q_all_pos": "head_q", "attn_head_k_all_pos": "head_k",
        "attn_head_v_all_pos": "head_v", "attn_head_pattern_all_pos": "head_pattern",
        **{f"attn_head_{c}_by_pos": f"head_{c}_by_pos" for c in "qkv"},
        "attn_head_out_by_pos": "head_z_by_pos", "attn_head_pattern_by_pos": "head_pattern_by_pos",
        "attn_head_pattern_dest_src_pos": "head_pattern_dest_src",
        "block_every": ["resid_pre", "attn_out", "mlp_out"],
        "attn_head_all_pos_every": ["head_z", "head_q", "head_k", "head_v", "head_pattern"],
        "attn_head_by_pos_every": by_pos,
    }  # fmt: skip
    for name in ["tiny-ln", "tiny-lnfree"]:
        huggingface = Judge(FIXTURES / name, as_published=True).model
        model = TransformerBridge.boot_transformers(
            str(FIXTURES / name), hf_model=huggingface, dtype=torch.float64, device="cpu"
        )
        with h5py.File(golden_file(committed, name)) as file:
            pair, sweep = file["sets/seven/0"], file["sweeps/000"]
            assert (sweep.attrs["set"], sweep.attrs["direction"]) == ("seven", "denoising")
            clean, corrupted = (torch.as_tensor(pair[which][()])[None] for which in ["clean", "corrupted"])
            answer, wrong = int(pair["answer"][0]), int(pair["wrong"][0])

            def metric(logits, answer=answer, wrong=wrong):
                return logits[0, -1, answer] - logits[0, -1, wrong]

            torch.set_default_dtype(torch.float64)  # of the arrays that the sweeps are written into
            _, cache = model.run_with_cache(clean)
            unpatched, worst = metric(model(corrupted)), 0.0
            for function, ours in functions.items():
                theirs = getattr(patching, f"get_act_patch_{function}")(model, corrupted, cache, metric)
                if isinstance(ours, str):
                    ours = torch.as_tensor(sweep[ours][0])
                else:  # the bundle has the pattern by position, too, as layer, position, head
                    ours = [torch.as_tensor(sweep[site][0]) for site in ours]
                    if function == "attn_head_by_pos_every":
                        ours[-1] = ours[-1].transpose(1, 2)
                    ours = torch.stack(ours)
                assert ours.shape == theirs.shape, (function, ours.shape, theirs.shape)
                worst = max(worst, difference(theirs - unpatched, ours))
            torch.set_default_dtype(torch.float32)
            # the LN-free file as it is: affine only up to its epsilon (make_golden.py, Judge)
            assert worst < (TOLERANCE if name == "tiny-ln" else 1e-8), worst
        print(f"{name}: {len(functions)} sweeps differ from transformer_lens by {worst:.1e}")


def main():
    options = parser("Write the golden values of NormLens' patching tests.")
    options.add_argument("--against-transformer-lens", action="store_true", help="needs transformer_lens")
    arguments = options.parse_args()
    torch.set_grad_enabled(False)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if arguments.against_transformer_lens:
        against_transformer_lens(arguments.out)
        return
    files = [f"{DEEP.name}/model.safetensors"] + [golden_file(Path(), name) for name in NAMES]
    write_or_check(arguments, make, files, TOLERANCE, "sweeps/")


if __name__ == "__main__":
    main()
