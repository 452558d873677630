"""What the page of findings says of small projects holds for the installed versions: every disagreement has its name."""

import importlib
import importlib.metadata
import importlib.util

import pytest

from minidit.verify.topics.embeddings import position_embedding

pytest.importorskip("torch", reason="PyTorch is not installed (pip install 'minidit[peers]')")

pytestmark = pytest.mark.filterwarnings("default")  # theirs, not ours
FOUND = {  # project -> (package, the release that was looked at, its mistakes and conventions)
    "smalldiffusion": ("smalldiffusion", "0.5.0", {"M08", "M15", "M18", "M68b", "M68c", "C01"}),
    "k-diffusion": ("k_diffusion", "0.1.1.post1", set()),
    "denoising-diffusion-pytorch": (
        "denoising_diffusion_pytorch", "2.3.4", {"M25", "M38", "M40", "M44", "M54", "M75", "M76"}),
    "torchcfm": ("torchcfm", "1.0.7", {"M103"}),
    "flow-matching": ("flow_matching", "1.0.10", set()),
}  # fmt: skip


@pytest.fixture(params=FOUND)
def project(request):
    package, version, mistakes = FOUND[request.param]
    if importlib.util.find_spec(package) is None or importlib.util.find_spec("einops") is None:
        pytest.skip(f"{request.param} is not installed (pip install --no-deps {request.param} einops)")
    if importlib.metadata.version(request.param) != version:
        pytest.skip(f"{request.param} {importlib.metadata.version(request.param)}: the findings are of {version}")
    return request.param, mistakes


def test_every_disagreement_of_a_project_has_the_name_of_the_findings(project):
    name, mistakes = project
    report = importlib.import_module("tools.findings").report_on(name)
    assert set(report.mistakes) == mistakes, str(report)
    assert all(f.passed or f.candidates for f in report.findings), str(report)


@pytest.mark.parametrize(("name", "package"), [("edm", "torch_utils"), ("sit", "transport"), ("consistency_models", "cm")])
def test_a_checkout_of_a_project_without_releases_is_right_in_its_dialect(name, package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{name} is not here (a checkout of its repository on PYTHONPATH)")
    report = importlib.import_module("tools.findings").report_on(name)
    assert report.ok and report.dialect == name, str(report)


def test_stand_ins_leave_nothing_behind():
    strangers = importlib.import_module("tools.strangers")
    if importlib.util.find_spec("torchcfm") is None:
        pytest.skip("torchcfm is not installed (pip install --no-deps torchcfm)")
    importlib.import_module("tools.strangers.flows")
    import sys

    assert not [n for n, m in sys.modules.items() if isinstance(m, strangers.StandIn)]
    assert not [f for f in sys.meta_path if isinstance(f, strangers.StandIns)]


def test_the_table_of_places_of_smalldiffusion_is_ours():
    if importlib.util.find_spec("smalldiffusion") is None or importlib.util.find_spec("einops") is None:
        pytest.skip("smalldiffusion is not installed (pip install --no-deps smalldiffusion einops)")
    from minidit.verify.core.compare import difference
    from minidit.verify.core.reference import Reference

    places = importlib.import_module("tools.strangers.small").square_positions(16, 5)
    assert difference(places.numpy(), position_embedding(Reference(), 16, 5, 5)).error < 1e-7


def test_pytorch_still_does_what_the_findings_say_of_it():
    import torch

    if torch.__version__.split("+")[0] != "2.13.0":
        pytest.skip(f"PyTorch {torch.__version__}: the findings are of 2.13.0")
    z = torch.tensor(-8.0, dtype=torch.float64)
    assert 0.015 < 1 - torch.special.ndtr(z) / (torch.erfc(-z / 2**0.5) / 2) < 0.025
    p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    p.grad = torch.full_like(p, 5.0)
    torch.nn.utils.clip_grad_norm_([p], 1.0)
    assert 1.9e-7 < 1 - p.grad.item() < 2.1e-7
