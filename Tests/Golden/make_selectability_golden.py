"""Writes the golden values of selectable keys and query alignment, in float64.

Regenerate (from the repository's root; half a minute, and the numbers come out the same):

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install -r Tests/Golden/requirements.txt
    /tmp/golden/bin/python Tests/Golden/make_selectability_golden.py
    /tmp/golden/bin/python Tests/Golden/make_selectability_golden.py --check    # compare with the committed files

For the checkpoints tiny-ln and tiny-lnfree of make_golden.py and for two written here, narrow and
narrow-lnfree (heads of two dimensions, where many keys are unselectable), it writes
Tests/Fixtures/golden/selectability-NAME.h5; the axes of every array are those that NormLens writes:

    /PROMPT/tokens
    /PROMPT/selectability/...       (layer, head) and label, margin, first_unselectable (layer, head, key_pos)
    /PROMPT/selectability/space/... (layer, space)
    /PROMPT/query_alignment/...     (position_class, layer, head)
    /query_alignment/bias_...       (layer, head)

and for NAME = cloud: /points [40, 5] (representable in float32) with a tied pair,
/margin, /first_unselectable (-1: never), /label (0 selectable, 1 tied, 2 unselectable) [40].

A margin is the distance of a key from the convex hull of the others.  It is found by non-negative least
squares, min_{w >= 0} |[p_1 ...; 1 ... 1] w - [0; 1]| = rho, margin = rho / sqrt(1 - rho^2), p_j = k_j - k_i
over the largest |p_j|.  Whether a key is selectable is found once more by a linear program.  The first
query that cannot choose a key is found by asking at every query.  None of this is how NormLens does it.
"""

import math

import h5py
import numpy as np
import torch
from golden_files import FIXTURES, parser, write_or_check
from make_golden import Checkpoint, shape, write_checkpoint
from reference_gpt2 import ReferenceGPT2
from scipy.optimize import linprog, nnls

NARROW = [
    Checkpoint("narrow", 21, shape(2, 4, 8, 32, 31)),
    Checkpoint("narrow-lnfree", 22, shape(2, 4, 8, 32, 31), family="schaeff"),
]
CHECKPOINTS = ["tiny-ln", "tiny-lnfree"] + [c.name for c in NARROW]
PROMPTS = ["full", "b", "t1"]
SPACES = ["residual", "projected", "normalized", "gained", "head_keys"]
TOLERANCE = 1e-6
SHARE = 0.9  # of attention that a selected key is to get


def margin(keys, i):
    """(distance of key i from the hull of the others, largest distance from it)"""
    others = np.delete(keys, i, axis=0) - keys[i]
    if len(others) == 0:
        return math.nan, math.nan
    scale = np.linalg.norm(others, axis=1).max()
    if scale == 0:
        return 0.0, 0.0
    points = others / scale
    system = np.vstack([points.T, np.ones(len(points))])
    target = np.zeros(len(system))
    target[-1] = 1
    _, rho = nnls(system, target, maxiter=1000 * len(points))
    return scale * rho / math.sqrt(1 - rho * rho), scale


def is_selectable(keys, i):
    """max r with (k_j - k_i) q + |k_j - k_i| r <= 0, |q_a| <= 1: r well above the solver's tolerance."""
    others = np.delete(keys, i, axis=0) - keys[i]
    lengths = np.linalg.norm(others, axis=1)
    others, lengths = others / lengths.max(), lengths / lengths.max()
    m = keys.shape[1]
    solution = linprog(
        np.r_[np.zeros(m), -1.0],
        A_ub=np.c_[others, lengths],
        b_ub=np.zeros(len(others)),
        bounds=[(-1, 1)] * m + [(0, None)],
        method="highs",
    )
    return solution.x[-1] > 1e-5


def labels(keys):
    """0 selectable, 1 tied, 2 unselectable; and the margins"""
    found, margins = [], []
    for i in range(len(keys)):
        m, scale = margin(keys, i)
        if len(keys) > 1 and np.linalg.norm(np.delete(keys, i, axis=0) - keys[i], axis=1).min() == 0:
            found.append(1)
            m = 0.0
        elif len(keys) > 1 and m <= TOLERANCE * scale:
            found.append(2)
        else:
            found.append(0)
        # No answer depends on the tolerance.
        assert len(keys) == 1 or m <= 1e-9 * scale or m > 1e-4 * scale, (i, m, scale)
        if len(keys) > 1 and found[-1] != 1:
            assert is_selectable(keys, i) == (found[-1] == 0), i
        margins.append(m)
    return np.array(found), np.array(margins)


def first_unselectable(keys, i):
    """The first t at which key i has no query of its own among the keys 0 ... t; -1 if there is none."""
    for t in range(max(i, 1), len(keys)):
        m, scale = margin(keys[: t + 1], i)
        if m <= TOLERANCE * scale:
            return t
    return -1


def statistics(keys):
    """What is said of a set of keys, position 0 left out of all but margin and first_unselectable."""
    kinds, margins = labels(keys)
    n = len(keys)
    first = np.array([first_unselectable(keys, i) for i in range(n)], dtype=float)
    gram = keys @ keys.T
    itself = [all(gram[i, i] > gram[i, j] for j in range(n) if j != i) for i in range(n)]
    spread = math.sqrt(((keys - keys.mean(0)) ** 2).sum(1).mean())
    rest = slice(1, None)
    if n == 1:
        nothing = dict.fromkeys(
            ["unselectable_share", "tied_share", "margin_median", "margin_p05", "relative_margin_median",
             "self_query_share", "causal_unselectable_share"], math.nan)  # fmt: skip
        return {**nothing, "margin": margins, "first_unselectable": first, "label": kinds.astype(float),
                "margin_first": math.nan, "selectable": margins[:0]}  # fmt: skip
    seen = n - np.arange(n)
    lost = np.where(first >= 0, n - first, 0)
    return {
        "unselectable_share": np.mean(kinds[rest] == 2),
        "tied_share": np.mean(kinds[rest] == 1),
        "margin_median": np.median(margins[rest]),
        "margin_p05": np.quantile(margins[rest], 0.05),
        "relative_margin_median": np.median(margins[rest]) / spread,
        "self_query_share": np.mean(itself[rest]),
        "causal_unselectable_share": lost[rest].sum() / seen[rest].sum(),
        "margin_first": margins[0],
        "margin": margins,
        "first_unselectable": first,
        "label": kinds.astype(float),
        "selectable": margins[rest][kinds[rest] == 0],
    }


def folded_angle(u):
    d = u.shape[-1]
    cosine = np.abs(u.sum(-1)) / math.sqrt(d) / np.linalg.norm(u, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1))), cosine**2


def alignment(u, config, scale, ln_free):
    """[rows, d_model] -> what is measured of each row."""
    usable = np.linalg.norm(u - u.mean(-1, keepdims=True), axis=-1)
    if ln_free:
        nothing = np.full(len(u), math.nan)
        return {"angle_to_ones": nothing, "ones_share": nothing, "usable_norm": usable, "spread_bound": nothing}
    angle, share = folded_angle(u)
    bound = 2 * math.sqrt(config.d_model) * usable * scale
    return {"angle_to_ones": angle, "ones_share": share, "usable_norm": usable, "spread_bound": bound}


def prompts_of(name, config):
    if name.startswith("narrow"):
        rng = np.random.default_rng(31)
        lengths = {"full": config.n_ctx, "b": 20, "t1": 1}
        return {p: rng.integers(0, config.d_vocab, lengths[p]) for p in PROMPTS}
    with h5py.File(FIXTURES / f"{name}.h5") as file:
        return {p: file[f"prompts/{p}/tokens"][()] for p in PROMPTS}


def model_values(name, directory):
    """{path: array}"""
    model = ReferenceGPT2.from_huggingface(directory)
    config, ln_free = model.config, model.is_ln_free
    result = {}
    scale = 1 / math.sqrt(config.d_head)

    def gain(block):
        return np.ones(config.d_model) if ln_free else block.ln1.gain.numpy()

    biases = {}
    for layer, block in enumerate(model.blocks):
        for head in range(config.n_heads):
            u = gain(block) * (block.W_K[head] @ block.b_Q[head]).numpy()
            for key, value in alignment(u[None], config, scale, ln_free).items():
                biases.setdefault(f"bias_{key}", []).append(value[0])
    for key, values in biases.items():
        result[f"query_alignment/{key}"] = np.reshape(values, (config.n_layers, config.n_heads))

    for prompt, tokens in prompts_of(name, config).items():
        result[f"{prompt}/tokens"] = tokens
        run = {key: value.numpy() for key, value in model.run(torch.as_tensor(tokens)).items()}
        T = len(tokens)
        heads, spaces, queries = {}, {}, {}

        for layer, block in enumerate(model.blocks):
            x = run[f"blocks.{layer}.hook_resid_pre"]
            z = run[f"blocks.{layer}.ln1.hook_normalized"]
            gained = z if ln_free else z * gain(block) + block.ln1.bias.numpy()
            per_head = []
            for head in range(config.n_heads):
                keys = (x if ln_free else gained) @ block.W_K[head].numpy()
                found = statistics(keys)
                per_head.append(found)
                scores = run[f"blocks.{layer}.attn.hook_attn_scores"][head]
                chosen = {int(np.argmax(scores[t])) for t in range(T)} - {0}
                found["ever_argmax_share"] = len(chosen) / (T - 1) if T > 1 else math.nan
                gap = math.log((T - 1) * SHARE / (1 - SHARE)) if T > 1 else math.nan
                costs = gap / (scale * found["selectable"])
                found["selection_cost"] = np.median(costs) if len(costs) else math.nan
                for key, value in found.items():
                    if key != "selectable":
                        heads.setdefault(key, []).append(value)

                q = run[f"blocks.{layer}.attn.hook_q"][:, head]
                u = gain(block) * (q @ block.W_K[head].numpy().T)
                measures = alignment(u, config, scale, ln_free)
                pattern = run[f"blocks.{layer}.attn.hook_pattern"][head]
                logs = np.log(np.where(pattern > 0, pattern, 1))
                measures["entropy"] = -(pattern * logs).sum(-1)
                for key, value in measures.items():
                    middle = np.mean if key == "entropy" else np.median
                    both = [middle(value[:1]), middle(value[1:]) if T > 1 else math.nan]
                    queries.setdefault(key, []).append(both)
            for keys in (x, x - x.mean(-1, keepdims=True), z, gained, None):
                found = statistics(keys) if keys is not None else {
                    key: np.mean([f[key] for f in per_head]) for key in per_head[0]
                    if np.ndim(per_head[0][key]) == 0
                }  # fmt: skip
                for key in ("unselectable_share", "tied_share", "margin_median", "margin_p05",
                            "relative_margin_median", "self_query_share",
                            "causal_unselectable_share"):  # fmt: skip
                    spaces.setdefault(key, []).append(found[key])

        shape = (config.n_layers, config.n_heads)
        for key, values in heads.items():
            result[f"{prompt}/selectability/{key}"] = np.reshape(values, shape + np.shape(values[0]))
        for key, values in spaces.items():
            result[f"{prompt}/selectability/space/{key}"] = np.reshape(values, (config.n_layers, len(SPACES)))
        for key, values in queries.items():
            result[f"{prompt}/query_alignment/{key}"] = np.moveaxis(np.reshape(values, shape + (2,)), -1, 0)
    return result


def cloud_values():
    rng = np.random.default_rng(5)
    points = rng.normal(size=(40, 5)) * rng.uniform(0.3, 2, size=(40, 1)) + [3, -1, 0, 2, 5]
    points = points.astype(np.float32).astype(np.float64)
    points[31] = points[4]  # a tied pair on the outside or not
    kinds, margins = labels(points)
    first = np.array([first_unselectable(points, i) for i in range(len(points))])
    assert {0, 1, 2} == set(kinds.tolist())
    return {"points": points, "margin": margins, "first_unselectable": first, "label": kinds}


def make(root):
    for checkpoint in NARROW:
        directory = root / f"selectability-{checkpoint.name}"
        directory.mkdir(exist_ok=True)
        write_checkpoint(checkpoint, directory)
    everything = {"cloud": cloud_values()}
    for name in CHECKPOINTS:
        directory = root / f"selectability-{name}" if name.startswith("narrow") else FIXTURES / name
        everything[name] = model_values(name, directory)
    for name, values in everything.items():
        with h5py.File(root / f"selectability-{name}.h5", "w") as file:
            for path, value in values.items():
                value = np.asarray(value)
                value = value.astype(np.int64 if value.dtype.kind == "i" else np.float64)
                file.create_dataset(path, data=value)
        shares = [v.mean() for k, v in values.items() if k.startswith("full") and k.endswith("unselectable_share")]
        print(f"{name}: {len(values)} arrays, unselectable shares heads, spaces: {np.round(shares, 3)}")


def main():
    arguments = parser("Write the golden values of which keys a query can choose.").parse_args()
    files = [f"selectability-{checkpoint.name}/model.safetensors" for checkpoint in NARROW]
    files += [f"selectability-{name}.h5" for name in CHECKPOINTS + ["cloud"]]
    write_or_check(arguments, make, files, 1e-8)

if __name__ == "__main__":
    main()
