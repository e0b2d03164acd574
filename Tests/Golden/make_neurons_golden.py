"""Writes the golden values of entropy neurons and of the stream's ablations: float64, by brute force.

Regenerate (from the repository's root; a minute, and the numbers come out the same):

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install -r Tests/Golden/requirements.txt
    /tmp/golden/bin/python Tests/Golden/make_neurons_golden.py
    /tmp/golden/bin/python Tests/Golden/make_neurons_golden.py --check    # compare with the committed files

Models and prompts are those of make_geometry_golden.py. For every NAME it writes, under
Tests/Fixtures/golden/, neurons-NAME.h5:

    /prompts/P             int64 token ids
    /neurons/V             [neuron] of the last MLP, [index], [neuron_top, index], [count]; effects of
                           all neurons (of mini: of the sixteen of /ablated)
    /layer0/V              the weight measures of the first MLP
    /ablated, /together    int64 neurons
    /stream/ablation/V     [layer, length], [length], [lambda], [position_class, layer], []; the massive
                           coordinates are those of /massive [n, 2] (position, coordinate), set before
                           block 1; lambdas in /lambdas

Every changed model is run as a whole: a neuron is replaced in the MLP's output, a block is left out of
the list, logits are made anew.  Position 0's own prediction counts everywhere.
"""

import numpy as np
import torch
from golden_files import parser, write_or_check
from make_geometry_golden import NAMES, open_model, random_prompts
from pathlib import Path

import h5py

SKIP_FIRST = 1
TOGETHER = 5
LAMBDAS = [0, 0.25, 0.5, 1, 1.5]
MASSIVE = [(0, 3), (2, 1)]


def golden_file(root, name):
    return root / f"neurons-{name}.h5"


# -------------------------------------------------------------------- the model in pieces


def final_norm(model, x, scale=None):
    """What the unembedding reads; an LN-free model reads x, whose mean its weights do not see."""
    return x if model.is_ln_free else model.norm(x, model.ln_final, scale)


def logits(model, x, scale=None):
    return final_norm(model, x, scale) @ model.W_U + model.b_U


def block(model, layer, x):
    return model._block(x, layer, model.blocks[layer], lambda site, y: y)


def loss_and_entropy(z, targets):
    log_p = torch.log_softmax(z, -1)
    return -log_p[torch.arange(len(targets)), targets], -(log_p.exp() * log_p).sum(-1)


# -------------------------------------------------------------------- weights of neurons


def read_unembedding(model):
    """W_U as the normalised stream reads it, without its mean over the vocabulary: [d, vocab]."""
    W = model.W_U
    if model.ln_final.gain is not None:
        W = model.ln_final.gain[:, None] * W
    if model.config.normalization in ("layernorm", "none"):
        W = W - W.mean(0)
    return W - W.mean(1, keepdim=True)


def written(model, layer):
    """W_out as the stream is read: [neuron, d]."""
    W = model.blocks[layer].W_out
    return W - W.mean(1, keepdim=True) if model.config.normalization in ("layernorm", "none") else W


def weight_measures(model, layer):
    W_U, W_out = read_unembedding(model), written(model, layer)
    d = W_U.shape[0]
    norm = W_out.norm(dim=1)
    cosines = (W_out / norm[:, None]) @ (W_U / W_U.norm(dim=0))
    U, S, _ = torch.linalg.svd(W_U, full_matrices=True)
    bottom = max(1, round(d / 64))
    variance = cosines.var(dim=1, unbiased=True)
    share = (W_out @ U[:, d - bottom :]).norm(dim=1) / norm
    order = torch.argsort(norm / variance, descending=True)
    found = {
        "norm": norm,
        "logit_variance": variance,
        "score": norm / variance,
        "null_space_share": share,
        "singular_value": torch.cat([S, torch.zeros(d - len(S), dtype=S.dtype)]),
        "null_space_cosine": (W_out[order[:16]] @ U / norm[order[:16], None]).abs(),
    }
    return {key: value.numpy() for key, value in found.items()}, order.tolist()


# -------------------------------------------------------------------- mean ablation of neurons


def neuron_effects(model, prompts, neurons, order, skip):
    """Every neuron alone, and the first of `order` together, by the whole MLP and whole logits."""
    last = len(model.blocks) - 1
    b = model.blocks[last]
    keep = {f"blocks.{last}.hook_resid_mid", f"blocks.{last}.mlp.hook_post"}
    runs = [model.run(p, keep=keep) for p in prompts]
    posts = [run[f"blocks.{last}.mlp.hook_post"] for run in runs]
    means = torch.cat(posts).mean(0)

    def predictions(chosen, frozen):
        """Loss and entropy of all tokens with `chosen` at their means."""
        losses, entropies = [], []
        for tokens, run, post in zip(prompts, runs, posts):
            mid = run[f"blocks.{last}.hook_resid_mid"]
            changed = post.clone()
            changed[:, chosen] = means[chosen]
            x, own = mid + changed @ b.W_out + b.b_out, mid + post @ b.W_out + b.b_out
            z = logits(model, x, model.scale(own) if frozen else None)[:-1]
            loss, entropy = loss_and_entropy(z, torch.as_tensor(tokens[1:]))
            losses.append(loss[skip:])
            entropies.append(entropy[skip:])
        return torch.cat(losses), torch.cat(entropies)

    base = predictions([], False)
    found = {"mean_activation": means, "base_loss": base[0].mean(), "base_entropy": base[1].mean()}
    found["tokens"] = float(len(base[0]))
    count = model.config.d_mlp
    for kind, frozen in [("total", False), ("direct", True)]:
        rows = {neuron: predictions([neuron], frozen) for neuron in neurons}
        for what, index in [("loss", 0), ("entropy", 1)]:
            for ending, size in [("", lambda t: t.mean()), ("_abs", lambda t: t.abs().mean())]:
                values = np.full(count, np.nan)
                for neuron in neurons:
                    values[neuron] = size(rows[neuron][index] - base[index])
                found[f"{what}_effect_{kind}{ending}"] = values
        if kind == "total":
            values = np.full(count, np.nan)
            for neuron in neurons:
                values[neuron] = np.median((rows[neuron][0] - base[0]).abs().numpy())
            found["loss_effect_total_abs_median"] = values
    for what, name in [("loss", "mediated_share"), ("entropy", "mediated_share_entropy")]:
        found[name] = 1 - found[f"{what}_effect_direct_abs"] / found[f"{what}_effect_total_abs"]
    together = [predictions(order[:k], False) for k in range(TOGETHER + 1)]
    for index, what in enumerate(["loss", "entropy"]):
        values = np.array([float(t[index].mean()) for t in together])
        found[f"cumulative_{what}"] = values
        found[f"cumulative_{what}_change"] = 100 * (values - values[0]) / values[0]
    return {key: np.asarray(value) for key, value in found.items()}


# -------------------------------------------------------------------- changed models


def ablations(model, prompts):
    L = len(model.blocks)
    prompts = [p for p in prompts if len(p) > 1]
    embeds = [model.run(p, keep={"blocks.0.hook_resid_pre"})["blocks.0.hook_resid_pre"] for p in prompts]

    def through(x, layers):
        for layer in layers:
            x = block(model, layer, x)
        return x

    def losses(streams):
        return torch.cat([
            loss_and_entropy(logits(model, x)[:-1], torch.as_tensor(p[1:]))[0]
            for x, p in zip(streams, prompts)
        ])  # fmt: skip

    found = {}

    def put(name, values):
        """Lists of losses (None: not there), nested as the axes."""
        for ending, size in [("", lambda t: t.mean()), ("_median", lambda t: np.median(t.numpy()))]:

            def reduced(v):
                if isinstance(v, list):
                    return [reduced(w) for w in v]
                return float("nan") if v is None else float(size(v))

            found[name + ending] = np.asarray(reduced(values))

    def without(layer, length):
        kept = [l for l in range(L) if not layer <= l < layer + length]
        return losses([through(x, kept) for x in embeds])

    skips = [[without(l, n) if l + n <= L else None for n in range(1, L + 1)] for l in range(L)]
    put("base_loss", losses([through(x, range(L)) for x in embeds]))
    put("skip_loss", skips)
    put("middle_span_loss", [
        without(L // 2 - n // 2 if L % 2 == 0 else (L - n) // 2, n) if (L - n) % 2 == 0 else None
        for n in range(1, L + 1)
    ])  # fmt: skip

    parallel = [[x + sum(block(model, l, x) - x for l in range(k + 1)) for x in embeds] for k in range(L)]
    put("parallel_loss", losses(parallel[-1]))
    divergences = []
    for x, y in zip(embeds, parallel[-1]):
        p = torch.log_softmax(logits(model, through(x, range(L)))[:-1], -1)
        q = torch.log_softmax(logits(model, y)[:-1], -1)
        divergences.append((p.exp() * (p - q)).sum(-1))
    found["parallel_kl"] = torch.cat(divergences).mean().numpy()
    errors = np.zeros((2, L))
    for k in range(L):
        first, rest = [], []
        for x, y in zip(embeds, parallel[k]):
            own = through(x, range(k + 1))
            e = (y - own).norm(dim=1) / own.norm(dim=1)
            first.append(e[:1])
            rest.append(e[1:])
        errors[:, k] = torch.cat(first).mean(), torch.cat(rest).mean()
    found["parallel_error"] = errors

    def scaled(x, factor):
        for l in range(L):
            x = x + factor * (block(model, l, x) - x)
        return x

    put("scaled_loss", [losses([scaled(x, factor) for x in embeds]) for factor in LAMBDAS])

    start = min(1, L - 1)
    befores = [through(x, range(start)) for x in embeds]
    means = {}
    for position, dim in MASSIVE:
        values = [x[position, dim] for x in befores if len(x) > position]
        means[(position > 0, dim)] = torch.stack(values).mean()
    for name, value in [("zero", lambda key: 0.0), ("mean", lambda key: means[key])]:
        changed = []
        for x in befores:
            x = x.clone()
            for position, dim in MASSIVE:
                if position < len(x):
                    x[position, dim] = value((position > 0, dim))
            changed.append(through(x, range(start, L)))
        put(f"massive_{name}_loss", losses(changed))
    return found


def check_expansion():
    """x_L = x_0 + λ Σ f_l(x_0) + λ² Σ_{l<m} f_m'(x_0) f_l(x_0) + O(λ³), on a net of five tanh layers."""
    rng = np.random.default_rng(0)
    Ws = [rng.standard_normal((6, 6)) / 2 for _ in range(5)]
    x0 = rng.standard_normal(6)
    f = [lambda x, W=W: np.tanh(W @ x) for W in Ws]
    jacobian = [(1 - np.tanh(W @ x0) ** 2)[:, None] * W for W in Ws]
    first = sum(g(x0) for g in f)
    second = sum(jacobian[m] @ f[l](x0) for m in range(5) for l in range(m))
    rates = {1: [], 2: []}
    for factor in [0.02, 0.01, 0.005]:
        x = x0
        for g in f:
            x = x + factor * g(x)
        rates[1].append(np.linalg.norm(x - x0 - factor * first) / factor**2)
        rates[2].append(np.linalg.norm(x - x0 - factor * first - factor**2 * second) / factor**3)
    for order, values in rates.items():
        assert abs(values[2] / values[1] - 1) < 0.1, (order, values)


# -------------------------------------------------------------------- files


def write_golden(name, path):
    model = open_model(name)
    prompts = random_prompts(model, seed=17)
    last = len(model.blocks) - 1

    def array(file, where, value):
        value = np.asarray(value)
        if value.dtype.kind in "iu":
            file.create_dataset(where, data=value.astype(np.int64))
        else:
            value = value.astype(np.float64 if value.ndim == 0 else np.float32)
            options = {"compression": "gzip"} if value.size > 64 else {}
            file.create_dataset(where, data=value, **options)

    with h5py.File(path, "w") as file:
        for p, tokens in enumerate(prompts):
            array(file, f"prompts/{p}", tokens)
        measures, order = weight_measures(model, last)
        neurons = sorted(order[:16]) if name == "mini" else list(range(model.config.d_mlp))
        for key, value in measures.items():
            array(file, f"neurons/{key}", value)
        for key, value in neuron_effects(model, prompts, neurons, order, SKIP_FIRST).items():
            array(file, f"neurons/{key}", value)
        array(file, "ablated", neurons)
        array(file, "together", order[:TOGETHER])
        array(file, "skip_first", SKIP_FIRST)
        for key, value in weight_measures(model, 0)[0].items():
            array(file, f"layer0/{key}", value)
        for key, value in ablations(model, prompts).items():
            array(file, f"stream/ablation/{key}", value)
        array(file, "massive", MASSIVE)
        array(file, "lambdas", np.asarray(LAMBDAS, np.float64))
    print(f"{name}: {path.stat().st_size / 1000:.0f} kB")


def make(root):
    for name in NAMES:
        write_golden(name, golden_file(root, name))


def main():
    arguments = parser("Write the golden values of neurons and ablations.").parse_args()
    check_expansion()
    write_or_check(arguments, make, [golden_file(Path(), name) for name in NAMES], 1e-6)


if __name__ == "__main__":
    main()
