"""Writes the golden values of backward passes and of attribution: torch's autograd in float64.

Regenerate (from the repository's root; a minute, and the numbers come out the same):

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install -r Tests/Golden/requirements.txt
    /tmp/golden/bin/python Tests/Golden/make_gradient_golden.py
    /tmp/golden/bin/python Tests/Golden/make_gradient_golden.py --check    # compare with the committed files

The checkpoints are those that make_golden.py and make_patching_golden.py have written; "-rmsnorm" is
one of them with RMSNorm in LayerNorm's place.  For every NAME it writes, under Tests/Fixtures/golden/,
gradients-NAME.h5:

    /prompts/P                     P = 0 (5 tokens), 1 (3), 2 (4): the number whose derivatives these are
        tokens                     [pos] int64
        positions                  int64: the positions whose logits it reads; of prompt 2 an inner one
        columns                    int64: the tokens whose logits it reads, one of prompt 2's twice;
                                   absent: the whole vocabulary
        values                     [positions, columns]: the number is Σ values · logits
        shapes                     [hook, 3] int64: the shape of every hook's value, optional hooks too,
                                   with zeros where it has fewer axes; in the order of the attribute
                                   `hooks` of the file, separated by commas
    /gradients/RULES/P             its derivative by every hook, one after the other, each row-major; RULES =
                                   none or rules joined by "+" (RULE_SETS); all prompts for none and
                                   ln+identity, prompt 1 for the others
    /sweeps/000 …                  (tiny-ln, tiny-lnfree, patching-deep) estimates of the sweeps of
                                   patching-NAME.h5, whose sets and references they use: attributes, axes
                                   and variables as there, without the normalised ones, and the attributes
                                       method   "attribution"; "relevance" (rules ln, identity);
                                                "integrated-gradients"
                                       steps    of integrated gradients, else 0

Every attribute is a string.  Datasets are float32 or int64, gzipped: computed in float64 and rounded
once (6e-8).

A hook's derivative is that of the number by what the hook hands on, everything below it held fixed.
For hook_attn_in and hook_{q,k,v}_input every head reads its own input through its own norm, out of the
reach of the ln1 hooks; all others are those of the model with one normalized stream.

The rules change what autograd sees and not the value:

    ln                  scale.detach(); nothing in a model without norms
    identity            x · (activation(x)/x).detach()
    attention-pattern   pattern.detach()
    uniform-attention   y/2 + (y/2).detach() for the products y = pattern·v and y = q·k

An estimate is Σ (new − base) · derivative at the base run over what the cell would overwrite.
Integrated gradients take the mean derivative over runs whose first stream is the base run's plus
(k − ½)/steps of the way to the other run's, k = 1 … steps.

`check_gradients` holds the derivatives without rules against central differences of the reference
model at every hook, and against autograd in transformers' own model wherever that has the value.
"""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
import transformers
from golden_files import FIXTURES, parser, write_or_check
from make_golden import Judge, agree, attributes, difference
from make_patching_golden import DEEP, LARGE_SITES, METRICS, SITES, Experiment, golden_file
from make_patching_golden import Sweep as PatchingSweep
from make_processing_golden import RMS_CHECKPOINT, rmsnorm
from reference_gpt2 import Intervention, ReferenceGPT2, hook_names

RULE_SETS = [
    (),
    ("ln", "identity"),
    ("ln",),
    ("identity",),
    ("ln", "identity", "attention-pattern"),
    ("ln", "identity", "uniform-attention"),
    ("ln", "identity", "attention-pattern", "uniform-attention"),
]
RELP = RULE_SETS[1]
HEAD_INPUTS = ("hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input")
STEPS = 5  # of integrated gradients


# -------------------------------------------------------------------- autograd through the reference


@dataclass
class RuledGPT2(ReferenceGPT2):
    """The reference model with rules between its values and autograd."""

    rules: tuple = ()

    def scale(self, x):
        scale = super().scale(x)
        return scale.detach() if self.freezes_scale else scale

    @property
    def freezes_scale(self):
        return "ln" in self.rules and not self.is_ln_free

    def _activation(self, x):
        if "identity" not in self.rules:
            return super()._activation(x)
        if self.config.activation == "gelu_new":
            share = (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
        elif self.config.activation == "gelu":
            share = (1 + torch.erf(x / math.sqrt(2))) / 2
        else:
            share = (x > 0).double()
        return x * share.detach()


@dataclass
class Tap:
    """Hands on a copy of a hook's value and remembers it."""

    site: str
    value: torch.Tensor | None = None

    def __call__(self, x):
        self.value = x.clone()
        self.value.retain_grad() if self.value.requires_grad else self.value.requires_grad_()
        return self.value

    @property
    def gradient(self):
        return torch.zeros_like(self.value) if self.value.grad is None else self.value.grad


@dataclass(frozen=True)
class Detach:
    site: str

    def __call__(self, x):
        return x.detach()


@dataclass(frozen=True)
class Half:
    site: str

    def __call__(self, x):
        return x / 2 + (x / 2).detach()


def gradients(model, tokens, number, rules=(), names=None, interventions=()):
    """The derivative of number(logits) at the hooks `names`, by default every one."""
    layers = range(model.config.n_layers)
    ruled = RuledGPT2(**vars(model), rules=tuple(rules))
    before, after = [], []
    if "uniform-attention" in rules:
        before += [Half(f"blocks.{i}.attn.hook_{s}") for i in layers for s in ["attn_scores", "z"]]
    if "attention-pattern" in rules:
        after += [Detach(f"blocks.{i}.attn.hook_pattern") for i in layers]
    if ruled.freezes_scale:
        after += [Detach(n) for n in hook_names(len(layers)) if n.endswith("hook_scale")]
    found = {}
    names = hook_names(len(layers)) if names is None else names
    for of_heads in [False, True]:
        taps = [Tap(n) for n in names if n.endswith(HEAD_INPUTS) == of_heads]
        if taps:
            number(ruled.logits(tokens, [*interventions, *before, *taps, *after])).backward()
            found |= {tap.site: tap.gradient for tap in taps}
    return {name: found[name] for name in names}


# -------------------------------------------------------------------- gradients at every hook


@dataclass(frozen=True)
class Start:
    """A prompt and a number of its logits."""

    tokens: np.ndarray
    positions: list
    columns: list | None
    values: torch.Tensor

    def __call__(self, logits):
        logits = logits[self.positions]
        return (self.values * (logits if self.columns is None else logits[:, self.columns])).sum()


def random_starts(model, rng):
    vocab = model.config.d_vocab

    def start(length, positions, columns):
        values = rng.standard_normal((len(positions), vocab if columns is None else len(columns)))
        values = torch.from_numpy(values.astype(np.float32)).double()
        return Start(rng.integers(vocab, size=length), positions, columns, values)

    return [start(5, [4], [7, 3]), start(3, [1, 2], None), start(4, [2], [5, 1, 5])]


def check_gradients(model, judge, start, found):
    """Returns the largest differences, relative to a hook's largest value, from differences and transformers."""
    rng = np.random.default_rng(6000)
    step, by_difference, by_transformers = 1e-5, 0.0, 0.0
    run = model.run(start.tokens)
    for name, gradient in found.items():
        direction = torch.from_numpy(rng.standard_normal(gradient.shape))
        ends = [
            start(model.logits(start.tokens, [Intervention(name, "add", sign * step * direction)]))
            for sign in [1, -1]
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        size = (gradient * direction).abs().sum().clamp(min=1e-3)
        by_difference = max(by_difference, ((gradient * direction).sum() - slope).abs().item() / size.item())
        assert torch.isfinite(gradient).all() and gradient.shape == run[name].shape, name
        # the last layer's q, k and scores move what is read, and so does everything else
        assert gradient.abs().max() > 1e-6, name
    if judge is not None:
        for name, gradient in judge_gradients(judge, start, model.config.n_layers).items():
            error = difference(found[name], gradient) / gradient.abs().max().item()
            by_transformers = max(by_transformers, error)
    assert by_difference < 1e-6 and by_transformers < 1e-9, (by_difference, by_transformers)
    return by_difference, by_transformers


def judge_gradients(judge, start, n_layers):
    """What autograd says in transformers' model, by hook, where a value passes between two modules."""
    kept, handles = {}, []
    for name in hook_names(n_layers):
        place = judge.place(name)
        # position embeddings there have a batch axis of their own
        if place is None or name == "hook_pos_embed":
            continue
        module, side, columns = place

        def keep(tensor, name=name, columns=columns):
            if not tensor.requires_grad:
                tensor.requires_grad_()
            tensor.retain_grad()
            kept[name] = (tensor, columns)

        if side == "input":
            handles.append(module.register_forward_pre_hook(lambda _, args, keep=keep: keep(args[0])))
        else:
            handles.append(module.register_forward_hook(lambda _, args, output, keep=keep: keep(output)))
    start(judge.model(torch.as_tensor(start.tokens)[None]).logits[0]).backward()
    for handle in handles:
        handle.remove()
    found = {}
    for name, (tensor, columns) in kept.items():
        gradient = tensor.grad[0] if columns is None else tensor.grad[0][:, columns]
        # the tensor that enters ln_2 is also the one that skips it
        name = name.replace("hook_mlp_in", "hook_resid_mid")
        per_head = name.endswith(("hook_q", "hook_k", "hook_v", "hook_z"))
        found[name] = gradient.reshape(len(gradient), judge.n_heads, -1) if per_head else gradient
    judge.model.zero_grad()
    return found


def check_rules(model, start, by_rules):
    """What the rules must do, whatever the model."""
    plain, relp = by_rules[()], by_rules[RELP]
    ah, uniform, both = (by_rules[rules] for rules in RULE_SETS[4:])
    last = f"blocks.{model.config.n_layers - 1}."
    for name, gradient in ah.items():
        if name.endswith(("hook_pattern", "attn_scores", "hook_q", "hook_k", "hook_q_input", "hook_k_input")):
            assert not gradient.any() and not both[name].any(), name
    for name in ["hook_z", "hook_pattern", "hook_attn_scores", "hook_q", "hook_k", "hook_v"]:
        share = {"hook_z": 1, "hook_pattern": 0.5, "hook_v": 0.5, "hook_attn_scores": 0.5}.get(name, 0.25)
        assert agree(uniform[f"{last}attn.{name}"], share * relp[f"{last}attn.{name}"]), name
    for name in ["hook_z", "hook_v"]:
        share = 0.5 if name == "hook_v" else 1
        assert agree(both[f"{last}attn.{name}"], share * relp[f"{last}attn.{name}"]), name
    for name in plain:
        if name.endswith("hook_scale") and not model.is_ln_free:
            assert plain[name].any() and not by_rules["ln",][name].any(), name
    if model.is_ln_free:  # the rule for norms changes nothing
        assert all(agree(gradient, by_rules["ln",][name]) for name, gradient in plain.items())
    else:
        assert not agree(plain["hook_embed"], by_rules["ln",]["hook_embed"])
    same = agree(plain["hook_embed"], by_rules["identity",]["hook_embed"])
    assert same == (model.config.activation == "relu")  # whose slope is activation(x)/x


# -------------------------------------------------------------------- estimates of sweeps


@dataclass(frozen=True)
class Sweep(PatchingSweep):
    method: str = "attribution"

    @property
    def steps(self):
        return STEPS if self.method == "integrated-gradients" else 0


def sweeps(name):
    directions, methods = ["denoising", "noising"], ["attribution", "relevance", "integrated-gradients"]
    small = tuple(site for site in SITES if site not in LARGE_SITES)
    for direction, method in itertools.product(directions, methods):
        all_sites = (direction == "noising") == (method == "relevance")
        yield Sweep("seven", direction, method=method, sites=tuple(SITES) if all_sites else small)
        yield Sweep("five", direction, method=method, sites=small)
    if name == "tiny-ln":
        for direction, method, metric in itertools.product(directions, methods, METRICS):
            if metric != "logit-difference":
                answers = "first" if metric == "probability-difference" else "all"
                sites = ("resid_pre", "head_z")
                yield Sweep("seven", direction, metric, method=method, sites=sites, answers=answers)
        for direction, method, replacement in itertools.product(
            directions, methods[:2], ["zero", "mean", "position_mean"]
        ):
            # patterns over other keys have no mean
            sites = tuple(s for s in small if replacement != "mean" or "pattern" not in s)
            yield Sweep("seven", direction, method=method, replacement=replacement, sites=sites)


class Estimates(Experiment):
    """The pairs of a patching experiment, their runs and replacements; cells are estimated."""

    def gradients(self, sweep, prompt, base, other, number):
        names = [f"blocks.{i}.{hook}" for i in range(self.model.config.n_layers) for hook in self.hooks]
        rules = RELP if sweep.method == "relevance" else ()
        if not sweep.steps:
            return gradients(self.model, prompt, number, rules, names)
        first = "blocks.0.hook_resid_pre"
        total = {name: 0 for name in names}
        for k in range(sweep.steps):
            stream = base[first] + (k + 0.5) / sweep.steps * (other[first] - base[first])
            found = gradients(self.model, prompt, number, (), names, [Intervention(first, "replace", stream)])
            total = {name: total[name] + found[name] / sweep.steps for name in names}
        return total

    def run(self, sweep):
        found = {site: [] for site in sweep.sites}
        for base, prompt, other, measured in self.measured(sweep, found):
            slopes = self.gradients(sweep, prompt, base, other, measured)
            for site in sweep.sites:
                found[site].append(self.estimate(sweep, site, base, other, slopes))
        return {name: torch.stack(values) for name, values in found.items()}

    def estimate(self, sweep, site, base, other, slopes):
        """[layer, …]: the product of change and slope, summed over what each cell overwrites."""
        hook, axes = SITES[site]
        own = {"attn.hook_pattern": ["head", "query_pos", "key_pos"], "mlp.hook_post": ["pos", "neuron"]}.get(
            hook, ["pos", "head", "d_head"] if hook.startswith("attn") else ["pos", "d_model"]
        )
        layers = []
        for layer in range(self.model.config.n_layers):
            name = f"blocks.{layer}.{hook}"
            product = (self.replacement(sweep.replacement, name, other) - base[name]) * slopes[name]
            gone = [i for i, axis in enumerate(own) if axis not in axes]
            summed = product.sum(gone) if gone else product  # a sum over no axes is one over all
            left = [axis for axis in own if axis in axes]
            layers.append(summed.permute([left.index(axis) for axis in axes]))
        return torch.stack(layers)

    def identities(self, sweep, found):
        """What must hold of every sweep of estimates."""
        assert all(torch.isfinite(values).all() for values in found.values())
        if {"attn_out", "head_z_by_pos"} <= set(sweep.sites) and sweep.replacement == "other_run":
            assert agree(found["attn_out"], found["head_z_by_pos"].sum(-1)), sweep
            for c in "zqkv":
                assert agree(found[f"head_{c}"], found[f"head_{c}_by_pos"].sum(2)), (sweep, c)
        vanishes = sweep.metric == "kl" and sweep.direction == "noising" and not sweep.steps
        for site in sweep.sites:  # the divergence from the clean run has no slope there
            largest = found[site].abs().max()
            assert largest < 1e-10 if vanishes else largest > 1e-4, (sweep, site)
        if sweep.method == "attribution" and sweep.replacement == "other_run" and self.model.is_ln_free:
            # the read-out is linear: the last MLP's estimate is its effect
            last = found["mlp_out"][:, -1] if sweep.metric == "logit-difference" else None
            if last is not None and sweep.set == "five":
                with h5py.File(golden_file(FIXTURES, "tiny-lnfree")) as file:
                    exact = [
                        torch.as_tensor(group["mlp_out"][:, -1])
                        for group in file["sweeps"].values()
                        if (group.attrs["set"], group.attrs["direction"]) == ("five", sweep.direction)
                        and "mlp_out" in group and group.attrs["metric"] == sweep.metric
                    ]
                single = [i for i, p in enumerate(self.sets["five"]) if len(p.answer) == len(p.wrong) == 1]
                assert agree(last[single], exact[0][single]), sweep


# -------------------------------------------------------------------- files


def array(file, path, values):
    values = values.numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    values = values.astype(np.int64 if values.dtype.kind == "i" else np.float32)
    file.create_dataset(
        path, data=values, chunks=values.shape, compression="gzip", compression_opts=9, shuffle=True
    )


NAMES = ["tiny-ln", "tiny-lnfree", DEEP.name, "tiny-relu-untied", "tiny-gelu-erf", f"{RMS_CHECKPOINT}-rmsnorm"]
SWEEP_NAMES = NAMES[:3]


def gradient_file(root, name):
    return root / f"gradients-{name}.h5"


def write_golden(name, path):
    checkpoint = FIXTURES / name.removesuffix("-rmsnorm")
    model, judge = ReferenceGPT2.from_huggingface(checkpoint), Judge(checkpoint)
    if name.endswith("-rmsnorm"):
        rmsnorm(model)
        judge = None
    starts = random_starts(model, np.random.default_rng([7000, len(name)]))
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        attributes(
            file,
            checkpoint=checkpoint.name,
            hooks=",".join(hook_names(model.config.n_layers)),
            normalization=model.config.normalization,
            generator="Tests/Golden/make_gradient_golden.py",
            torch=torch.__version__,
            transformers=transformers.__version__,
        )
        worst = (0.0, 0.0)
        for p, start in enumerate(starts):
            for part in ["tokens", "positions", "columns", "values"]:
                if getattr(start, part) is not None:
                    array(file, f"prompts/{p}/{part}", getattr(start, part))
            shapes = [[*value.shape, 0][:3] for value in model.run(start.tokens).values()]
            array(file, f"prompts/{p}/shapes", shapes)
            by_rules = {rules: gradients(model, start.tokens, start, rules) for rules in RULE_SETS}
            worst = np.maximum(worst, check_gradients(model, judge, start, by_rules[()]))
            check_rules(model, start, by_rules)
            for rules, found in by_rules.items():
                if p == 1 or rules in [(), RELP]:
                    flat = torch.cat([gradient.flatten() for gradient in found.values()])
                    array(file, f"gradients/{'+'.join(rules) or 'none'}/{p}", flat)
        report = f"{name}: gradients differ from central differences by {worst[0]:.1e}"
        report += f", from autograd in transformers by {worst[1]:.1e}" if judge else ""
        if name in SWEEP_NAMES:
            estimates = Estimates(name, checkpoint)
            for index, sweep in enumerate(sweeps(name)):
                found = estimates.run(sweep)
                estimates.identities(sweep, found)
                group = file.create_group(f"sweeps/{index:03d}")
                attributes(
                    group, method=sweep.method, steps=sweep.steps, set=sweep.set, direction=sweep.direction,
                    metric=sweep.metric, replacement=sweep.replacement, window=sweep.window,
                    answers=sweep.answers,
                )  # fmt: skip
                for variable, values in found.items():
                    array(group, variable, values)
            report += f"; {index + 1} sweeps estimated"
    print(f"{report}; {path.stat().st_size / 1000:.0f} kB")


def make(root):
    for name in NAMES:
        write_golden(name, gradient_file(root, name))


def main():
    arguments = parser("Write the golden values of NormLens' backward passes.").parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    # kept as float32
    write_or_check(arguments, make, [gradient_file(Path(), name) for name in NAMES], 2e-7, "sweeps/")

if __name__ == "__main__":
    main()
