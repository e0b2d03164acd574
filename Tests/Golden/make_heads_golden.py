"""Writes the golden values of the attention heads: numpy in float64, from the definitions.

Regenerate (from the repository's root; seconds, and the numbers come out the same):

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install -r Tests/Golden/requirements.txt
    /tmp/golden/bin/python Tests/Golden/make_heads_golden.py
    /tmp/golden/bin/python Tests/Golden/make_heads_golden.py --check    # compare with the committed files

The checkpoints are those that make_golden.py has written; "-rmsnorm" is one of them with RMSNorm in
LayerNorm's place; "mini" is the bundled model.  For every NAME it writes, under Tests/Fixtures/golden/,
heads-NAME.h5.  The groups and the variables are those of NormLens' results:

    /prompts/P                     int64 token ids; one prompt is a single token, one has no token twice
    /heads/V                       [prompt, layer, head]
    /heads_bos/V, /heads_current/V, /heads_both/V
                                   the detectors without key 0, without each query's own key, without both
    /heads_repeated/V              induction_offset of the last prompt, whose second half repeats the first
    /heads/summary/V               means over prompts [layer, head], quarters of the entropy
    /heads/weights/V               [layer, head]
    /heads/composition/V           [layer, head, layer_to, head_to]

Tokens and counts are int64, the rest float32, gzipped: computed in float64 and rounded once.

A detector compares the pattern a with one of zeros and ones d: "mul" is sum(a d)/sum(a), "abs" is
1 - sum|a - d|/T, over the entries that are not left out.
"""

import math
from pathlib import Path

import h5py
import numpy as np
from golden_files import parser, write_or_check
from make_geometry_golden import array, open_model
from make_golden import attributes

NAMES = ["tiny-ln", "tiny-lnfree", "tiny-ln-rmsnorm", "tiny-gelu-erf-rmsnorm", "mini"]
SINK = 0.3
EXCLUSIONS = {"": (False, False), "_bos": (True, False), "_current": (False, True), "_both": (True, True)}


def make_prompts(model, seed):
    """Few different tokens, so that many stand twice, some of them side by side."""
    rng = np.random.default_rng(seed)
    longest = min(model.config.n_ctx, 70)
    some = rng.permutation(model.config.d_vocab)[:6]
    half = rng.permutation(model.config.d_vocab)[: longest // 2]
    return [
        some[:1],
        rng.choice(some, longest),
        np.array([3, 5, 5, 3, 3]),
        some[:4],
        rng.choice(some[:2], longest - 3),
        some[:2],
        np.concatenate([half, half]),
    ]


# -------------------------------------------------------------------- patterns


def largest_entropy(T):
    return math.lgamma(T + 1) / T


def detectors(tokens):
    T = len(tokens)
    previous, duplicate, induction = np.zeros((3, T, T))
    for i in range(T):
        for j in range(i):
            previous[i, j] = j == i - 1
            duplicate[i, j] = tokens[j] == tokens[i]
            # attention to the token behind, which may be the query itself
            induction[i, j + 1] = tokens[j] == tokens[i]
    return {"previous_token": previous, "duplicate_token": duplicate, "induction": induction}


def scores(a, d, exclude_bos, exclude_current):
    """mul and abs of the pattern a against d; NaN where d has no ones."""
    T = len(a)
    counted = np.tril(np.ones((T, T)))
    if exclude_bos:
        counted[:, 0] = 0
    if exclude_current:
        np.fill_diagonal(counted, 0)
    if (d * counted).sum() == 0:
        return math.nan, math.nan
    return (a * d * counted).sum() / (a * counted).sum(), 1 - (np.abs(a - d) * counted).sum() / T


def head_measures(a, tokens):
    """Of one head's pattern [query_pos, key_pos]."""
    T = len(tokens)
    logs = np.log(a, out=np.zeros_like(a), where=a > 0)
    H = -(a * logs).sum(-1)
    rest = a[1:, 0]

    def mean(x):
        return x.mean() if len(x) else math.nan

    found = {
        "entropy": H.mean(),
        "row_entropy": mean(H[1:] / np.log(np.arange(1, T) + 1)),
        "entropy_ratio": H.mean() / largest_entropy(T) if T > 1 else math.nan,
        "sink_rate": (a[:, 0] > SINK).mean(),
        "sink_rate_rest": mean(rest > SINK),
        "first_attention": mean(rest),
    }
    for name, d in detectors(tokens).items():
        found[f"{name}_mul"], found[f"{name}_abs"] = scores(a, d, False, False)
    return found


def excluded_measures(a, tokens, exclude_bos, exclude_current):
    found = {}
    for name, d in detectors(tokens).items():
        found[f"{name}_mul"], found[f"{name}_abs"] = scores(a, d, exclude_bos, exclude_current)
    return found


def per_prompt(runs, prompts, config, measure):
    """[prompt, layer, head] of every measure."""
    found = {}
    for run, tokens in zip(runs, prompts):
        for layer in range(config.n_layers):
            for pattern in run[f"blocks.{layer}.attn.hook_pattern"]:
                for name, value in measure(pattern, tokens).items():
                    found.setdefault(name, []).append(value)
    shape = len(prompts), config.n_layers, config.n_heads
    return {name: np.reshape(values, shape) for name, values in found.items()}


def mean_over_prompts(values):
    """The mean of what is there."""
    known = ~np.isnan(values)
    count = known.sum(0)
    total = np.where(known, values, 0).sum(0)
    return np.divide(total, count, out=np.full(total.shape, math.nan), where=count > 0)


def quarters(ratio):
    """Quarter 1 to 4 of each head, and how many heads lie in each."""
    quarter = np.minimum(np.floor(4 * ratio), 3) + 1
    counts = np.array([(quarter == q).sum() for q in range(1, 5)])
    by_layer = np.array([[(row == q).mean() for q in range(1, 5)] for row in quarter])
    return {
        "entropy_quarter": quarter,
        "quarter_count": counts,
        "quarter_share": counts / counts.sum(),
        "quarter_share_by_layer": by_layer,
    }


# -------------------------------------------------------------------- weights


def circuits(model):
    """W_OV and W_QK of every head, dense, as a stream without scale meets them."""
    d = model.config.d_model
    reads_mean = model.config.normalization == "rmsnorm"
    P = np.eye(d) - (0 if reads_mean else np.ones((d, d)) / d)
    found = []
    for block in model.blocks:
        gain = np.ones(d) if block.ln1.gain is None else block.ln1.gain.numpy()
        read = P @ np.diag(gain)
        for head in range(model.config.n_heads):
            Q, K, V = (read @ W[head].numpy() for W in [block.W_Q, block.W_K, block.W_V])
            found.append((V @ block.W_O[head].numpy() @ P, Q @ K.T))
    return found


def weight_measures(model):
    d, L, H = model.config.d_model, model.config.n_layers, model.config.n_heads
    reads_mean = model.config.normalization == "rmsnorm"
    P = np.eye(d) - (0 if reads_mean else np.ones((d, d)) / d)
    gain = np.ones(d) if model.ln_final.gain is None else model.ln_final.gain.numpy()
    W_U = P @ np.diag(gain) @ model.W_U.numpy()
    W_U = W_U - W_U.mean(1, keepdims=True)
    W_E = model.W_E.numpy()
    all_heads = circuits(model)
    copying, trace = [], []
    for OV, _ in all_heads:
        # The nonzero eigenvalues of W_E OV W_U, which is [vocab, vocab], are those of OV W_U W_E.
        whole = W_E @ OV @ W_U if len(W_E) < 100 else OV @ (W_U @ W_E)
        values = np.linalg.eigvals(whole)
        # All but the d_head largest are rounding.
        values = values[np.argsort(-np.abs(values))][: model.config.d_head]
        copying.append(values.sum().real / np.abs(values).sum())
        trace.append(values.sum().real)

    composition = {f"{kind}_composition": np.full((L, H, L, H), math.nan) for kind in "qkv"}
    norm = np.linalg.norm
    for a, (OV, _) in enumerate(all_heads):
        for b, (later_OV, later_QK) in enumerate(all_heads):
            if b // H > a // H:
                place = a // H, a % H, b // H, b % H
                for kind, W in [("q", later_QK), ("k", later_QK.T), ("v", later_OV)]:
                    composition[f"{kind}_composition"][place] = norm(OV @ W) / (norm(OV) * norm(W))
    weights = {"copying": np.reshape(copying, (L, H)), "ov_trace": np.reshape(trace, (L, H))}
    return weights, composition


# -------------------------------------------------------------------- checks


def check_sheet():
    """The causal maximum, and patterns whose scores are plain."""
    for T, M in [(128, 3.878), (32, 2.549), (256, 4.560), (1024, 5.936)]:
        assert abs(largest_entropy(T) - M) < 6e-4, (T, largest_entropy(T))
        even = np.tril(np.ones((T, T))) / np.arange(1, T + 1)[:, None]
        found = head_measures(even, np.arange(T))
        assert abs(found["entropy_ratio"] - 1) < 1e-12 and abs(found["row_entropy"] - 1) < 1e-12
    tokens = np.array([7, 1, 2, 1, 2])
    shifted = np.diag(np.ones(4), -1)
    shifted[0, 0] = 1
    found = head_measures(shifted, tokens)
    assert abs(found["previous_token_mul"] - 0.8) < 1e-15 and abs(found["previous_token_abs"] - 0.8) < 1e-15
    assert detectors(tokens)["induction"].sum() == 2 and detectors(tokens)["induction"][3, 2] == 1
    assert math.isnan(head_measures(np.eye(3), np.arange(3))["induction_mul"])
    # A rotation against another one: the mean square is 1/d.
    rng = np.random.default_rng(3)
    A, B = rng.standard_normal((2, 12, 12)) * np.arange(12)
    total = 0
    for _ in range(2000):
        turn = np.linalg.qr(rng.standard_normal((12, 12)))[0]
        total += (np.linalg.norm(A @ turn @ B) / np.linalg.norm(A) / np.linalg.norm(B)) ** 2 / 2000
    assert abs(total * 12 - 1) < 0.05, total


# -------------------------------------------------------------------- files


def heads_file(root, name):
    return root / f"heads-{name}.h5"


def write_golden(name, path):
    model = open_model(name)
    seed = 800 + NAMES.index(name)
    prompts = make_prompts(model, seed)
    runs = [{hook: value.numpy() for hook, value in model.run(tokens).items()} for tokens in prompts]
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        attributes(
            file,
            model=name,
            normalization=model.config.normalization,
            generator="Tests/Golden/make_heads_golden.py",
            numpy=np.__version__,
            seed=seed,
        )
        for p, tokens in enumerate(prompts):
            array(file, f"prompts/{p}", tokens, np.int64)
        values = per_prompt(runs, prompts, model.config, head_measures)
        for variable, all_prompts in values.items():
            array(file, f"heads/{variable}", all_prompts)
            array(file, f"heads/summary/{variable}", mean_over_prompts(all_prompts))
        for variable, counted in quarters(mean_over_prompts(values["entropy_ratio"])).items():
            array(file, f"heads/summary/{variable}", counted)
        for variable in ["sink_rate", "sink_rate_rest", "first_attention"]:
            array(file, f"heads/summary/{variable}_all", mean_over_prompts(values[variable]).mean())
        array(file, "heads/tokens", [len(tokens) for tokens in prompts])
        array(file, "heads/entropy_maximum", [largest_entropy(len(tokens)) for tokens in prompts])
        for ending, (bos, current) in EXCLUSIONS.items():
            found = per_prompt(
                runs, prompts, model.config, lambda a, t: excluded_measures(a, t, bos, current)
            )
            for variable, all_prompts in found.items() if ending else []:
                array(file, f"heads{ending}/{variable}", all_prompts)
        # induction by offset: query i of the second copy to i - (length - 1)
        half = len(prompts[-1]) // 2
        offset = [
            [
                np.mean([a[i, i - (half - 1)] for i in range(half, 2 * half)])
                for a in runs[-1][f"blocks.{layer}.attn.hook_pattern"]
            ]
            for layer in range(model.config.n_layers)
        ]
        array(file, "heads_repeated/induction_offset", [offset])
        weights, composition = weight_measures(model)
        for variable, by_head in weights.items():
            array(file, f"heads/weights/{variable}", by_head)
        for variable, by_pair in composition.items():
            array(file, f"heads/composition/{variable}", by_pair)
    print(f"{name}: {path.stat().st_size / 1000:.0f} kB")


def make(root):
    for name in NAMES:
        write_golden(name, heads_file(root, name))


def main():
    arguments = parser("Write the golden values of the attention heads.").parse_args()
    check_sheet()
    # kept as float32
    write_or_check(arguments, make, [heads_file(Path(), name) for name in NAMES], 1e-6)


if __name__ == "__main__":
    main()
