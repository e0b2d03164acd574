"""Writes the golden values of evaluations: torch in float64, from the definitions.

Regenerate (from the repository's root; seconds, and the numbers come out the same):

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install -r Tests/Golden/requirements.txt
    /tmp/golden/bin/python Tests/Golden/make_evaluate_golden.py
    /tmp/golden/bin/python Tests/Golden/make_evaluate_golden.py --check    # compare with the committed files

The checkpoints are those that make_golden.py has written; "-rmsnorm" is one of them with RMSNorm in
LayerNorm's place; "mini" is the bundled model.  For every NAME it writes, under Tests/Fixtures/golden/,
evaluate-NAME.h5.  The groups and the variables are those of NormLens' results:

    /prompts/P                     int64 token ids; the first prompt is a single token
    /skipped                       int64 the tokens that are left out where they are to be predicted, if any
    /evaluate/V                    [prompt, pos], NaN past a prompt's last but one position; [quantile]; []
    /evaluate/calibration/V        [bin]
    /evaluate/position/V           [pos]
    /evaluate/worst/V              loss, loss_prompt, loss_pos, token_id [rank]; share [worst]
    /evaluate/freeze/V             [ln], [removal], []; not in an LN-free model
    /evaluate/rest/V               the same with position 0 left alone

The second model of comparisons is in the attribute "against": another checkpoint of the same
vocabulary.  In tiny-lnfree a token is left out.  (mini has no values of single tokens.)  Token ids of
prompts are int64, the rest float64.

Conventions: the loss at pos is that of the token at pos + 1.  Standard errors take prompts as
independent.  Quantiles are interpolated linearly between neighbours.
"""

import math
from pathlib import Path

import h5py
import numpy as np
import torch
from golden_files import parser, write_or_check
from make_geometry_golden import array, open_model, random_prompts
from make_golden import attributes
from make_processing_golden import RMS_CHECKPOINT
from reference_gpt2 import Intervention

NAMES = ["tiny-ln", "tiny-lnfree", f"{RMS_CHECKPOINT}-rmsnorm", "mini"]
AGAINST = dict(zip(NAMES, ["tiny-lnfree", "tiny-ln", RMS_CHECKPOINT, "mini-lnfree"]))
BINS = 10
SHARES = [0.0005, 0.025, 0.05, 0.25, 0.5, 0.75, 0.95, 0.975, 0.99, 0.999, 0.9995]


def measures(logits, tokens, other=None):
    """Of every token but the first: what the rows of logits before it say."""
    target = torch.as_tensor(tokens[1:])
    p = torch.log_softmax(logits[:-1], dim=-1)
    found = {
        "loss": -p.gather(1, target[:, None])[:, 0],
        "entropy": -(p.exp() * p).sum(-1),
        "confidence": p.exp().max(-1).values,
        "correct": (p.argmax(-1) == target).double(),
    }
    if other is not None:
        q = torch.log_softmax(other[:-1], dim=-1)
        m = torch.logaddexp(p, q) - math.log(2)
        found |= {
            "jsd": ((p.exp() * (p - m)).sum(-1) + (q.exp() * (q - m)).sum(-1)) / 2,
            "kl": (p.exp() * (p - q)).sum(-1),
            "kl_reverse": (q.exp() * (q - p)).sum(-1),
            "delta_loss": found["loss"] + q.gather(1, target[:, None])[:, 0],
            "agreement": (p.argmax(-1) == q.argmax(-1)).double(),
        }
    return {name: value.numpy() for name, value in found.items()}


def calibration(confidence, correct):
    """Bins (lower, upper], as the published code has them."""
    bounds = np.linspace(0, 1, BINS + 1)
    count, conf, acc = np.zeros(BINS, int), np.full(BINS, np.nan), np.full(BINS, np.nan)
    for b in range(BINS):
        chosen = (confidence > bounds[b]) & (confidence <= bounds[b + 1])
        count[b] = chosen.sum()
        if count[b]:
            conf[b], acc[b] = confidence[chosen].mean(), correct[chosen].mean()
    gap = np.where(count > 0, np.abs(conf - acc) * count, 0)
    return {"confidence": conf, "accuracy": acc, "count": count}, gap.sum() / count.sum()


def check_sheet():
    """Four tokens by hand, and uniform predictions."""
    _, ece = calibration(np.array([0.95, 0.95, 0.65, 0.25]), np.array([1.0, 0, 1, 0]))
    assert abs(ece - (2 * 0.45 + 0.35 + 0.25) / 4) < 1e-12, ece
    uniform = measures(torch.zeros(2, 7).double(), [0, 3])
    assert abs(uniform["loss"][0] - math.log(7)) < 1e-12 and abs(uniform["entropy"][0] - math.log(7)) < 1e-12
    same = torch.randn(3, 9).double()
    apart = measures(same, [0, 1, 2], same)
    assert np.abs(apart["jsd"]).max() < 1e-15 and np.abs(apart["delta_loss"]).max() == 0


def standard_error(sums, counts):
    """Of a mean over tokens, prompts being the independent draws."""
    mean, n = sums.sum() / counts.sum(), len(sums)
    return math.sqrt(n / (n - 1) * ((sums - mean * counts) ** 2).sum()) / counts.sum()


# -------------------------------------------------------------------- frozen norms


def norm_names(model):
    blocks = [f"blocks.{layer}.{norm}" for layer in range(model.config.n_layers) for norm in ["ln1", "ln2"]]
    return [f"{name}.hook_scale" for name in blocks] + ["ln_final.hook_scale"]


def freeze(model, prompts, counted, first):
    """One norm after another with its scale at the mean over the positions from `first` on."""
    names = norm_names(model)
    scales, gradients = {name: [] for name in names}, {name: [] for name in names}
    total = sum(map(len, counted))

    def loss(p, interventions):
        tokens = torch.as_tensor(prompts[p])
        rows = torch.log_softmax(model.logits(tokens, interventions), dim=-1)
        return -rows[counted[p], tokens[counted[p] + 1]].sum() / total

    # What is added to a scale is 0, and its derivative that by the scale.
    for p, tokens in enumerate(prompts):
        run = model.run(tokens, keep=set(names))
        leaves = {name: torch.zeros_like(run[name], requires_grad=True) for name in names}
        loss(p, [Intervention(name, "add", leaves[name]) for name in names]).backward()
        for name in names:
            scales[name].append(run[name][first:, 0].numpy())
            gradients[name].append(leaves[name].grad[first:, 0].numpy())
    mean = {name: np.concatenate(scales[name]).mean() for name in names}

    def frozen(chosen):
        with torch.no_grad():
            return sum(
                loss(
                    p,
                    [
                        Intervention(
                            name,
                            "replace",
                            torch.full((len(tokens), 1), mean[name], dtype=torch.float64),
                            tuple(range(first, len(tokens))),
                        )
                        for name in chosen
                    ],
                ).item()
                for p, tokens in enumerate(prompts)
            )

    base = frozen([])
    order = [n for n in names if "ln2" in n] + [n for n in names if "ln1" in n] + names[-1:]
    single = {name: frozen([name]) for name in names}
    cumulative = np.array([frozen(order[: k + 1]) for k in range(len(order))])
    error = []
    for name in names:
        s = np.concatenate(scales[name])
        length = 1 - model.config.epsilon / s**2  # |z|^2/d
        error.append((length * (s / mean[name] - 1) ** 2).sum() / length.sum())
    return {
        "loss": base,
        "count": total,
        "scale_mean": [mean[name] for name in names],
        "relative_error": error,
        "single_loss": [single[name] for name in names],
        "single_delta": [single[name] - base for name in names],
        "single_predicted": [
            np.sum([(g * (mean[name] - s)).sum() for g, s in zip(gradients[name], scales[name])])
            for name in names
        ],
        "cumulative_loss": cumulative,
        "cumulative_delta": cumulative - base,
        "cumulative_predicted": np.cumsum([single[name] - base for name in order]),
    }


# -------------------------------------------------------------------- files


def golden_file(root, name):
    return root / f"evaluate-{name}.h5"


def write(file, path, values):
    array(file, path, values, np.float64)


def write_golden(name, path):
    model, other = open_model(name), open_model(AGAINST[name])
    seed = 700 + NAMES.index(name)
    prompts = random_prompts(model, seed)
    longest = max(map(len, prompts))
    # Of one model a token that occurs is left out.
    skipped = [int(prompts[1][5])] if name == "tiny-lnfree" else []
    found = [measures(model.logits(t), t, other.logits(t)) for t in prompts]
    counted = [np.array([i for i in range(len(t) - 1) if t[i + 1] not in skipped], int) for t in prompts]

    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        attributes(
            file,
            model=name,
            against=AGAINST[name],
            generator="Tests/Golden/make_evaluate_golden.py",
            torch=torch.__version__,
            seed=seed,
        )
        for p, tokens in enumerate(prompts):
            array(file, f"prompts/{p}", tokens, np.int64)
        if skipped:
            array(file, "skipped", skipped, np.int64)

        pooled = {v: np.concatenate([f[v][c] for f, c in zip(found, counted)]) for v in found[0]}
        if name != "mini":
            for variable in found[0]:
                padded = np.full((len(prompts), longest), np.nan)
                for p, c in enumerate(counted):
                    padded[p, c] = found[p][variable][c]
                write(file, f"evaluate/{variable}", padded)
        loss = pooled["loss"]
        counts = np.array([len(c) for c in counted if len(c)])

        def per_prompt(variable):
            return np.array([f[variable][c].sum() for f, c in zip(found, counted) if len(c)])

        bins, ece = calibration(pooled["confidence"], pooled["correct"])
        scalars = {
            "count": len(loss),
            "loss_mean": loss.mean(),
            "loss_stderr": standard_error(per_prompt("loss"), counts),
            "loss_median": np.median(loss),
            "loss_p95": np.percentile(loss, 95),
            "loss_p99": np.percentile(loss, 99),
            "loss_p999": np.percentile(loss, 99.9),
            "loss_max": loss.max(),
            "loss_quantile": np.quantile(loss, SHARES),
            "perplexity": np.exp(loss.mean()),
            "bits": np.log2(np.exp(1)) * loss.mean(),
            "entropy_mean": pooled["entropy"].mean(),
            "accuracy": pooled["correct"].mean(),
            "ece": ece,
            "loss_mean_against": (loss - pooled["delta_loss"]).mean(),
            "delta_loss_mean": pooled["delta_loss"].mean(),
            "delta_loss_stderr": standard_error(per_prompt("delta_loss"), counts),
            "jsd_mean": pooled["jsd"].mean(),
            "kl_mean": pooled["kl"].mean(),
            "kl_reverse_mean": pooled["kl_reverse"].mean(),
            "top_agreement": pooled["agreement"].mean(),
        }
        for variable, value in scalars.items():
            write(file, f"evaluate/{variable}", value)
        for variable, value in bins.items():
            write(file, f"evaluate/calibration/{variable}", value)

        at = [[f["loss"][i] for f, c in zip(found, counted) if i in c] for i in range(longest)]
        entropy = [[f["entropy"][i] for f, c in zip(found, counted) if i in c] for i in range(longest)]
        write(file, "evaluate/position/count", np.array([len(x) for x in at]))
        for variable, values, reduce in [
            ("loss_mean", at, np.mean), ("loss_median", at, np.median), ("entropy_mean", entropy, np.mean),
        ]:  # fmt: skip
            write(file, f"evaluate/position/{variable}", [reduce(x) if x else np.nan for x in values])

        places = [(f["loss"][i], p, i, t[i + 1]) for p, (f, t) in enumerate(zip(found, prompts)) for i in counted[p]]
        places.sort(key=lambda x: -x[0])
        for column, variable in enumerate(["loss", "loss_prompt", "loss_pos", "token_id"]):
            write(file, f"evaluate/worst/{variable}", np.array([place[column] for place in places[:10]]))
        shares = [sum(x[0] for x in places[:k]) / loss.sum() for k in [1, 10, 100, 1000] if k <= len(loss)]
        write(file, "evaluate/worst/share", shares)

        if model.config.normalization != "none":
            used = [(t, c) for t, c in zip(prompts, counted) if len(c)]
            for group, first in [("freeze", 0), ("rest", 1)]:
                for variable, value in freeze(model, *zip(*used), first).items():
                    write(file, f"evaluate/{group}/{variable}", value)
    print(f"{name}: {len(loss)} tokens, {path.stat().st_size / 1000:.0f} kB")


def make(root):
    for name in NAMES:
        write_golden(name, golden_file(root, name))


def main():
    arguments = parser("Write the golden values of evaluations.").parse_args()
    check_sheet()
    write_or_check(arguments, make, [golden_file(Path(), name) for name in NAMES], 1e-9)


if __name__ == "__main__":
    main()
