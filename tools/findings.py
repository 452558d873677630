"""What the kit says of released versions of other projects, as far as they are installed.

    python tools/findings.py                   one line per project: its version, the topics that were asked, and the mistakes
    python tools/findings.py smalldiffusion    the whole report on one
    PYTHONPATH=CHECKOUT python tools/findings.py sit        … of a project without releases, from a checkout of its repository

The small projects need no dependencies for this: pip install --no-deps smalldiffusion k-diffusion torchcfm flow-matching
denoising-diffusion-pytorch, and einops. Where a project has a dialect of its own, that counts as right.

Exit status: 0 whatever is found, 2 for a project that is not here.
"""

import importlib
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from minidit import verify

STRANGERS = {  # project -> (module of answers, package, what it computes in, dialect)
    "smalldiffusion": ("small", "smalldiffusion", None, None),
    "k-diffusion": ("karras", "k_diffusion", None, None),
    "denoising-diffusion-pytorch": ("lucidrains", "denoising_diffusion_pytorch", "float32", None),
    "torchcfm": ("flows", "torchcfm", None, "torchcfm"),
    "flow-matching": ("matching", "flow_matching", None, "flow_matching"),
    "edm": ("elucidated", "training", "float32", "edm"),
    "sit": ("interpolants", "transport", None, "sit"),
    "consistency_models": ("ends", "cm", None, "consistency_models"),
}


def report_on(project):
    """The report on a project. Raises ImportError or ValueError where it is not installed."""
    if project == "diffusers":
        report = verify.check(verify.diffusers.target())
        report.target = verify.diffusers.version()
        return report
    module, package, precision, dialect = STRANGERS[project]
    strangers = importlib.import_module("tools.strangers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = importlib.import_module(f"tools.strangers.{module}").target()
        report = verify.check(target, precision=precision, dialect=dialect)
    report.target = strangers.version(package)
    return report


def crash_of_learned_variance():
    """denoising-diffusion-pytorch: a sampler with a learned variance asked for a clipped guess, as its DDIM sampler does."""
    import torch

    lucidrains = importlib.import_module("tools.strangers.lucidrains")
    x = torch.zeros(1, 3, 4, 4)
    kind = lucidrains.learned.LearnedGaussianDiffusion
    made = lucidrains.made(torch.linspace(0.9, 0.1, 10), torch.zeros(1, 6, 4, 4), kind=kind)
    try:
        made.model_predictions(x, torch.zeros(1, dtype=torch.long), clip_x_start=True)
    except NameError as error:
        return f"LearnedGaussianDiffusion.model_predictions(clip_x_start=True): NameError: {error}"
    return "LearnedGaussianDiffusion.model_predictions(clip_x_start=True) works"


def rectangle():
    """DiTTransformer2DModel takes the side of the grid for the root of the number of tokens (M99)."""
    import torch

    made = verify.diffusers.diffusers().DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, num_layers=1, in_channels=3, sample_size=6, patch_size=2,
        num_embeds_ada_norm=10,
    )  # fmt: skip
    x = torch.zeros(2, 3, 4, 6)
    out = made(x, torch.tensor([3, 37]), torch.tensor([1, 2])).sample
    return f"DiTTransformer2DModel: {tuple(x.shape)} goes in, {tuple(out.shape)} comes out"


BESIDE = {"diffusers": rectangle, "denoising-diffusion-pytorch": crash_of_learned_variance}


def main(words):
    """Prints; returns the exit status."""
    projects = words or ["diffusers", *STRANGERS]
    for project in projects:
        if project != "diffusers" and project not in STRANGERS:
            print(f"{project} is not one of diffusers, {', '.join(STRANGERS)}", file=sys.stderr)
            return 2
        try:
            report = report_on(project)
        except (ImportError, ValueError) as error:
            print(f"{project} is not here: {error}", file=sys.stderr)
            if words:
                return 2
            continue
        if words:
            print(report)
        else:
            right = sum(f.passed for f in report.findings)
            print(f"{report.target}: {len(report.findings)} topics, {right} right; {report.summary}")
        if project in BESIDE:
            print(BESIDE[project]())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
