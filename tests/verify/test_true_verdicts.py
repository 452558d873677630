"""A verdict is true: the kit owns its questions and answers, asks twice, declares what it allows, and says what came."""

import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidit as md
from minidit.cli import main
from minidit.verify.cases import functions_of
from minidit.verify.core.finding import ask
from minidit.verify.core.forms import owned
from minidit.verify.core.reference import Reference
from minidit.verify.report import line
from minidit.verify.topics import TOPICS, chains, layers, parameters, schedules


def q(x_0, eps, t, alpha_bar):
    a = np.asarray(alpha_bar)[np.asarray(t)].reshape(-1, *[1] * (np.ndim(x_0) - 1))
    return np.sqrt(a) * x_0 + np.sqrt(1 - a) * eps


def verdict(**targets):
    (finding,) = md.verify.check(targets).findings
    return finding


# ------------------------------------------------------------------------------------------------ whose arrays


def in_place(norm):
    def clip(gradients, limit):
        factor = min(1.0, limit / norm(gradients))
        for g in gradients.values():
            g *= factor
        return gradients

    return clip


def squares(gradients):
    return sum((g * g).sum() for g in gradients.values())


def test_a_wrong_clip_in_place_does_not_spoil_the_question_that_it_is_judged_by():
    finding = verdict(clip_gradients=in_place(squares))
    assert [d.id for d in finding.candidates[0]] == ["X15d"]


def test_a_right_clip_in_place_is_right_and_is_told_what_it_changes():
    finding = verdict(clip_gradients=in_place(lambda g: squares(g) ** 0.5))
    assert finding.verdict == "equal" and finding.remarks == ["it changes its argument gradients"]
    assert "changes its argument gradients" in line(finding)


def test_nothing_that_one_target_did_is_left_for_the_next():
    verdict(clip_gradients=in_place(lambda g: squares(g) ** 0.5))
    assert not verdict(clip_gradients=lambda gradients, limit: gradients).passed


def spoil(value):
    """Writes into every array of a question, however deep, and empties every dictionary and list."""
    if isinstance(value, np.ndarray):
        value[...] = 0
    elif isinstance(value, (list, tuple, dict)):
        for entry in list(value.values() if isinstance(value, dict) else value):
            spoil(entry)
        if not isinstance(value, tuple):
            value.clear()


@pytest.mark.parametrize("name", TOPICS)
def test_whatever_a_target_does_to_a_question_it_stays_what_it_was(name):
    before = [owned(p.args) for p in TOPICS[name].probes() if not callable(p.args[0])]
    ask(lambda *args: spoil(list(args)), TOPICS[name])
    after = [owned(p.args) for p in TOPICS[name].probes() if not callable(p.args[0])]
    np.testing.assert_equal(after, before)


def test_a_buffer_that_serves_every_answer_is_no_mistake():
    buffers = {}

    def reused(*args):
        out = buffers.setdefault(args[0].shape, np.empty(args[0].shape))
        out[...] = q(*args)
        return out

    assert verdict(q_sample=reused).verdict == "equal"


def test_nor_is_the_buffer_of_a_scheduler_that_serves_every_step():
    def scheduler(alpha_bar):
        inner, out = chains.ddim_scheduler(Reference(), alpha_bar), np.empty((1, 2, 2, 3))

        def step(x_t, eps, t, z):
            out[...] = inner.step(x_t, eps, t, z)
            return out

        return types.SimpleNamespace(timesteps=inner.timesteps, step=step)

    assert verdict(ddim_scheduler=scheduler).verdict == "equal"


# ------------------------------------------------------------------------------------------------ what came


def yielding(*args):
    yield from q(*args)


FORMS = {
    "an object": (lambda *a: types.SimpleNamespace(prev_sample=q(*a)),
                  "got an object of type SimpleNamespace, expected an array (3, 2, 2, 3)",
                  "its attribute prev_sample would be right"),
    "a wrong object": (lambda *a: types.SimpleNamespace(sample=a[0]), "got an object of type",
                       "none of its parts would be right"),
    "a tuple": (lambda *a: (q(*a), a[0]), "got a tuple of 2", "its first entry would be right"),
    "its second": (lambda *a: [a[0], q(*a)], "got a list of 2", "its second entry would be right"),
    "a dictionary": (lambda *a: {"x": q(*a)}, "got a dictionary of 1 (x)", "its entry 'x' would be right"),
    "nothing": (lambda *a: None, "got None, expected an array (3, 2, 2, 3)", "does the function return something?"),
    "a generator": (yielding, "got a generator, expected an array", "list(…) of it would be right"),
    "a text": (lambda *a: "done", "the text 'done'", ""),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_of_another_form_is_told_in_one_sentence_and_whether_a_part_of_it_is_right(form):
    function, came, part = FORMS[form]
    finding = verdict(q_sample=function)
    assert not finding.passed and not finding.candidates
    assert finding.worst.what.startswith(came) or came in finding.worst.what
    assert finding.note == part and len(line(finding).splitlines()[-2]) < 200
    if part.startswith("its") and form != "an object":
        assert finding.verdict == "wrapped" and "neighbours" not in line(finding)


def test_an_argument_changed_in_place_and_not_returned_is_told():
    def clip(gradients, limit):
        in_place(lambda g: squares(g) ** 0.5)(gradients, limit)

    assert verdict(clip_gradients=clip).note == "its argument gradients, changed in place, would be right"


@pytest.mark.parametrize("wrap", [
    lambda a: np.array(a.tolist(), dtype=object), lambda a: md.Tensor(a), lambda a: list(a), lambda a: a.tolist(),
    lambda a: np.asfortranarray(a), lambda a: memoryview(a).obj, lambda a: a.view(np.ma.MaskedArray),
])  # fmt: skip
def test_numbers_in_any_clothes_are_right(wrap):
    assert verdict(q_sample=lambda *a: wrap(q(*a))).verdict == "equal"


def test_arguments_go_by_their_names_where_the_names_agree():
    def keyword_only(*, x_0, eps, t, alpha_bar):
        return q(x_0, eps, t, alpha_bar)

    def another_order(alpha_bar, t, eps, x_0, scale=1.0):
        return scale * q(x_0, eps, t, alpha_bar)

    assert verdict(q_sample=keyword_only).passed and verdict(q_sample=another_order).passed
    finding = verdict(q_sample=lambda *, clean, noise: clean)
    words = "it takes 2 arguments (clean, noise) by keyword only, the topic gives 4: x_0, eps, t, alpha_bar"
    assert finding.sentences[0].startswith(words) and finding.verdict == "misfit"


# ------------------------------------------------------------------------------------------------ coarse answers


def half_table(betas):
    return np.cumprod(1 - betas).astype(np.float16)


def test_a_table_in_float16_is_not_right_until_somebody_declares_it():
    report = md.verify.check({"alpha_bar": half_table})
    (finding,) = report.findings
    assert finding.verdict == "undeclared" and not report.ok and "1 not declared" in str(report)
    assert finding.note.startswith("equals D.2 rounded to float16: declare")
    declared = md.verify.check({"alpha_bar": half_table}, precision="float16")
    assert declared.ok and "allowed 5e-03 in float16" in str(declared)


def test_the_exact_gelu_in_float16_is_named_though_float16_would_allow_it():
    exact = TOPICS["gelu"].by(Reference((md.verify.DEVIATIONS["M59"],)))
    finding = verdict(gelu=lambda x: exact(x).astype(np.float16))
    assert not finding.passed and [d.id for d in finding.candidates[0]] == ["M59"]


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_every_line_that_was_judged_coarser_than_float64_says_so(kind):
    finding = verdict(silu=lambda x: layers.silu(Reference(), x).astype(kind))
    assert f"in {finding.precision}: " in line(finding) and finding.precision == "float32"
    assert "in float" not in line(verdict(silu=lambda x: layers.silu(Reference(), x)))


# ------------------------------------------------------------------------------------------------ twice


def test_noise_of_a_generator_made_anew_in_every_call_is_no_draw():
    finding = verdict(noise=lambda shape: np.random.default_rng(0).standard_normal(shape))
    assert finding.verdict == "unsteady" and "the same noise twice" in finding.note
    once = np.random.default_rng(0)
    assert verdict(noise=lambda shape: once.standard_normal(shape)).passed


def test_noise_kept_by_its_shape_is_seen():
    kept = {}
    rng = np.random.default_rng(1)
    finding = verdict(noise=lambda shape: kept.setdefault(shape, rng.standard_normal(shape)))
    assert "the same noise twice" in finding.note
    finding = verdict(draw_timesteps=lambda B, T: np.random.default_rng(2).integers(0, T, B))
    assert "the same draw twice" in finding.note


def dropped(rng_of):
    def drop(y, p, num_classes, depth, train, seed):
        rng = rng_of(seed)
        return np.where(rng.random(len(y)) < p, num_classes, y) if train else y

    return drop


def test_a_dropout_that_ignores_its_seed_is_seen_either_way():
    stream = np.random.default_rng(0)
    assert verdict(label_dropout=dropped(np.random.default_rng)).verdict == "equal"
    assert "its seed does not decide" in verdict(label_dropout=dropped(lambda seed: stream)).note
    assert "another seed, the same draw" in verdict(label_dropout=dropped(lambda seed: np.random.default_rng(7))).note


def test_first_weights_of_another_seed_are_other_weights():
    weights = TOPICS["initial_weights"].by(Reference())
    finding = verdict(initial_weights=lambda *args: weights(*args[:-1], 0))
    assert "another seed, the same draw: seeds 0, 1 all give it" in finding.note
    assert verdict(initial_weights=lambda *args: weights(*args)).verdict == "equal"


def test_a_second_scheduler_that_starts_where_the_first_ended_is_seen():
    made = []

    def scheduler(alpha_bar):
        inner = chains.ddim_scheduler(Reference(), alpha_bar)
        late = bool(made)
        made.append(inner)
        step = lambda x, eps, t, z: inner.step(1.01 * x if late else x, eps, t, z)
        return types.SimpleNamespace(timesteps=inner.timesteps, step=step)

    finding = verdict(ddim_scheduler=scheduler)
    assert finding.verdict == "unsteady" and "a second object answers otherwise than the first" in finding.note


def test_two_answers_to_one_question_that_differ_are_one_sentence():
    calls = []

    def drifting(betas):
        calls.append(1)
        return np.cumprod(1 - betas) * (1.1 if len(calls) > len(TOPICS["alpha_bar"].probes()) else 1)

    finding = verdict(alpha_bar=drifting)
    assert finding.verdict == "unsteady" and finding.note.startswith("two answers to one question differ")
    assert not md.verify.check({"alpha_bar": drifting}).mistakes


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32))
def test_a_right_draw_is_never_accused(seed):
    rng = np.random.default_rng(seed)
    assert verdict(noise=lambda shape: rng.standard_normal(shape)).passed
    assert verdict(draw_timesteps=lambda B, T: rng.integers(0, T, B)).passed


# ------------------------------------------------------------------------------------------------ reasons


def test_a_wrong_step_is_not_said_to_match_anything():
    wrong = TOPICS["ddim_step"].by(Reference((md.verify.DEVIATIONS["X88"],)))
    assert md.verify.check({"ddim_step": wrong}).summary == "differs from minidit's conventions by X88"


def test_a_measured_number_is_called_by_its_unit():
    finding = verdict(cosine_alpha_bar=lambda T: 0.5 * schedules.cosine_alpha_bar(Reference(), T))
    assert finding.worst.what.startswith("log10 of the answer: got -")


def test_notes_to_developers_stay_out_of_reports_and_the_question_can_be_had_again():
    report = md.verify.check({"q_sample": lambda x_0, eps, t, alpha_bar: x_0})
    assert "one t for each sample" not in str(report)
    assert 'x_0, eps, t, alpha_bar = md.verify.question("q_sample", "linear")' in str(report)
    args = md.verify.question("q_sample", "linear")
    np.testing.assert_array_equal(args[0], TOPICS["q_sample"].probes()[0].args[0])
    args[0][...] = 0
    with pytest.raises(ValueError, match="q_sample has no question 'lineal', did you mean 'linear'"):
        md.verify.question("q_sample", "lineal")


@pytest.mark.parametrize("typed, answer", [
    ("M2", "did you mean M02?"), ("M999", "those with M are M01 to M99"), ("m01z", "did you mean M01"),
])  # fmt: skip
def test_an_id_that_is_none_is_told_the_nearest_by_its_number(capsys, typed, answer):
    assert main(["verify", typed]) == 2
    assert answer in capsys.readouterr().err


def test_functions_of_a_module_are_still_found_by_their_names():
    module = types.ModuleType("mine")
    module.q_sample = q
    assert functions_of(module) == {"q_sample": q} and parameters.__name__ in sys.modules
