"""What the kit says to somebody who knows Python and no diffusion: the reason, the numbers with their question, the way on."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidit as md
from minidit.cli import main
from minidit.verify.core.calls import by_name, lacking, passed
from minidit.verify.core.reference import Reference
from minidit.verify.elsewhere import CALLED, topics_meant
from minidit.verify.report import headline, line
from minidit.verify.topics import TOPICS

root = np.sqrt


def report(**targets):
    return md.verify.check(targets)


def finding(**targets):
    (f,) = report(**targets).findings
    return f


def noised(x, e, t, a):
    a = a[t].reshape(-1, 1, 1, 1)
    return root(a) * x + root(1 - a) * e


def ddim(x_t, eps, t, s, alpha_bar, eta, z, *, below=lambda table, s: table[s] if s >= 0 else 1.0, square=lambda v: -v,
         signal=root, fresh=1.0):  # fmt: skip
    a_t, a_s = alpha_bar[t], below(alpha_bar, s)
    sigma = eta * root((1 - a_s) / (1 - a_t) * (1 - a_t / a_s))
    x_0 = (x_t - root(1 - a_t) * eps) / signal(a_t)
    return root(a_s) * x_0 + root(1 - a_s + square(sigma**2)) * eps + fresh * sigma * z


# ------------------------------------------------------------------------------------------------ how it is called


def test_a_function_of_too_few_arguments_is_answered_with_the_reason_first_and_no_tolerance():
    def q_sample(x0, t, noise):
        return x0

    words = "it takes 3 arguments (x0, t, noise), the topic gives 4: x_0, eps, t, alpha_bar; it lacks alpha_bar"
    checked = report(q_sample=q_sample)
    rows = line(checked.findings[0]).splitlines()
    assert rows[0].endswith("no answer") and rows[1].strip() == words and "allowed" not in line(checked.findings[0])
    assert "smallest question" not in "".join(rows) and words in checked.summary
    assert checked.findings[0].verdict == "misfit" and md.verify.report.outcome(checked.findings[0]) == "raises"


def test_too_many_arguments_and_arguments_by_keyword_only_are_counted_too():
    assert headline(finding(silu=lambda a, b, c: a)) == ["it takes 3 arguments (a, b, c), the topic gives 1: x"]
    assert headline(finding(silu=lambda: 1)) == ["it takes 0 arguments, the topic gives 1: x; it lacks x"]
    words = "it takes 2 arguments (clean, noise) by keyword only, the topic gives 4: x_0, eps, t, alpha_bar"
    assert headline(finding(q_sample=lambda *, clean, noise: clean))[0].startswith(words)


def test_names_of_other_projects_go_by_name_where_they_stand_in_another_order():
    def q_sample(x_start, t, noise, alphas_cumprod=None):
        return noised(x_start, noise, t, alphas_cumprod)

    f = finding(q_sample=q_sample)
    assert f.passed and "passed by name (x_0 as x_start, eps as noise, alpha_bar as alphas_cumprod)" in line(f)
    assert finding(q_sample=lambda x_0, t, eps, ab: noised(x_0, eps, t, ab)).passed
    assert finding(q_sample=lambda x_0, t, eps, what: noised(x_0, eps, t, what)).passed  # what is left over is the table


def test_a_mistake_is_named_through_arguments_that_went_by_name():
    checked = report(q_sample=lambda noise, x0, t, ab: noised(x0, noise, t - 1, ab))
    assert checked.mistakes == ["M01b"] and "passed by name" in str(checked)


def test_what_is_right_by_position_stays_so_whatever_its_arguments_are_called():
    def ddim_invert_step(x_t, eps, t, s, alpha_bar):  # up from t to s, as another text has it
        return TOPICS["ddim_invert_step"](Reference(), x_t, eps, t, s, alpha_bar)

    assert finding(ddim_invert_step=ddim_invert_step).remarks == []
    f = finding(q_sample=lambda eps, x_0, alpha_bar, t: noised(eps, x_0, alpha_bar, t))
    assert f.passed is False  # these are the topic's own names, and mean what they say


@settings(max_examples=40, deadline=None)
@given(st.permutations(["x_t", "eps", "t", "s", "alpha_bar", "eta", "z"]), st.integers(0, 6))
def test_every_order_of_the_known_names_is_the_same_function(order, k):
    """Drawn: the order, and one argument under a name of its own."""
    renamed = [n if i != k else "q_" for i, n in enumerate(order)]
    right = TOPICS["ddim_step"]
    scope = {"ask": lambda **by: right(Reference(), *(by[n] for n in right.parameters))}
    exec(
        f"def mine({', '.join(renamed)}): return ask({', '.join(f'{n}={r}' for n, r in zip(order, renamed, strict=True))})", scope
    )
    assert finding(ddim_step=scope["mine"]).passed


def test_where_positions_are_unclear_it_is_said_what_was_passed_where():
    f = finding(x_0_from_eps=lambda foo, bar, baz, qux: foo[baz])
    words = "passed by position: x_t → foo, eps → bar, t → baz, alpha_bar → qux; rename the arguments to the topic's"
    first, second = (row.strip() for row in line(f).splitlines()[1:3])
    assert first.startswith("an error: IndexError") and second.startswith(words)
    assert passed(lambda x_t, noise, t, ab: 0, ("x_t", "eps", "t", "alpha_bar"), always=True) == ""
    assert "passed by position" not in line(finding(q_sample=lambda x, e, t, a: x))


def test_one_name_that_may_mean_two_arguments_means_neither():
    names = ("x_t", "eps", "t", "z")
    assert by_name(lambda t, noise, x_t, other: 0, names) is None
    assert by_name(lambda t, noise, x_t, z: 0, names).places == ["x_t", "noise", "t", "z"]
    assert lacking(lambda x_t, t: 0, names) == ["eps", "z"] and lacking(lambda x_t, tau: 0, names) == []


def test_a_step_without_eta_and_noise_is_judged_where_eta_is_0_and_refused():
    f = finding(ddim_step=lambda x_t, eps, t, s, alpha_bar: ddim(x_t, eps, t, s, alpha_bar, 0.0, 0.0))
    assert not f.passed and "; it lacks eta, z" in f.sentences[0]
    assert "where eta is 0, it is right; the 8 others, with s = -1 among them, need eta and z" in line(f)
    f = finding(ddim_step=lambda x_t, eps, t, s, alpha_bar: ddim(x_t, eps, t, s, alpha_bar, 0.0, 0.0, signal=lambda a: a))
    assert "where eta is 0, it equals D.7 with X94 X_0_WITHOUT_ROOT" in line(f)


def test_functions_on_tensors_go_by_their_names_too():
    torch = pytest.importorskip("torch")

    def q_sample(x0, t, noise, alpha_bar):
        a = alpha_bar[t].reshape(-1, 1, 1, 1)
        return torch.sqrt(a) * x0 + torch.sqrt(1 - a) * noise

    f = md.verify.check(md.verify.torch.functions({"q_sample": q_sample})).findings[0]
    assert f.passed and "passed by name" in line(f)
    for dtype in (torch.float32, torch.float64):
        assert md.verify.check(md.verify.torch.functions({"q_sample": q_sample}, dtype=dtype)).ok


# ------------------------------------------------------------------------------------------------ what is different


def test_the_structure_that_explains_a_mistake_is_the_headline_and_the_summary():
    checked = report(
        q_sample=lambda x_0, eps, t, alpha_bar: noised(x_0 * root(alpha_bar[t]).reshape(-1, 1, 1, 1), eps, t, alpha_bar)
    )
    words = "the coefficient of x_0 is the square of the right one: ᾱ_t for √ᾱ_t"
    assert line(checked.findings[0]).splitlines()[1].strip().startswith(words)
    assert checked.summary == f"in q_sample: {words}" and "no known mistake" not in str(checked)
    assert "(got 0.982349, expected 0.991135 at linear, t = 37)" in str(checked)


def test_noising_without_roots_has_a_name():
    checked = report(q_sample=lambda x_0, eps, t, alpha_bar: noised(x_0, eps, t, alpha_bar**2) * 0 + (
        (a := alpha_bar[t].reshape(-1, 1, 1, 1)) * x_0 + (1 - a) * eps))  # fmt: skip
    assert checked.mistakes == ["X340"]


def test_what_structure_does_not_explain_is_no_known_mistake_in_headline_and_summary():
    checked = report(q_sample=lambda x_0, eps, t, alpha_bar: np.sin(7 * noised(x_0, eps, t, alpha_bar)))
    assert headline(checked.findings[0]) == ["no known mistake explains this"]
    assert checked.summary == "no known mistake explains q_sample"


def test_the_sign_of_the_variance_in_the_direction_is_tried():
    f = finding(ddim_step=functools.partial(ddim, square=lambda v: v))
    assert f.sentences == ["the sign of σ² is reversed: before ε̂ stands √(1-ᾱ_s+σ²) for √(1-ᾱ_s-σ²)"] and f.whole
    f = finding(
        ddim_step=lambda *a: ddim(*a, square=lambda v: 0 * v) + (root(1 - alpha(a)) - sigma(a) - root(1 - alpha(a))) * a[1]
    )
    assert f.sentences == ["the root ends too early: before ε̂ stands √(1-ᾱ_s)-σ for √(1-ᾱ_s-σ²)"]


def alpha(args):
    return args[4][args[3]] if args[3] >= 0 else 1.0


def sigma(args):
    a_t, a_s = args[4][args[2]], alpha(args)
    return args[5] * root((1 - a_s) / (1 - a_t) * (1 - a_t / a_s))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_table_read_from_behind_for_the_data_is_named():
    checked = report(ddim_step=functools.partial(ddim, below=lambda table, s: table[s]))
    assert checked.mistakes == ["X341"] and "s = -1 means the data: ᾱ = 1" in str(checked)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_not_finite_enters_no_structural_claim(number):
    right = TOPICS["ddpm_step"].by(Reference())
    f = finding(
        ddpm_step=lambda x_t, eps, t, s, alpha_bar, z: right(x_t, eps, t, s, alpha_bar, z) if s >= 0 else number * (1 + 0 * x_t)
    )
    assert line(f).splitlines()[0].endswith("not finite")
    first, second = f.sentences
    assert first == "no finite number came, for example in t20-s-1"
    assert second.startswith("only the questions with s = -1 are wrong; s = -1 means the data")
    f = finding(posterior_log_variance=lambda alpha_bar: number * np.ones(len(alpha_bar)))  # nor is it the root of ln σ² < 0
    assert len(f.sentences) == 1 and f.sentences[0].startswith("no finite number came")


def test_every_printed_coefficient_carries_a_question_in_which_it_differs():
    wrong = functools.partial(ddim, signal=lambda a: a, fresh=0.0, square=lambda v: 0)
    f = finding(ddim_step=wrong)
    said = [r for r in f.sentences if r.startswith("the coefficient")]
    assert said and all(r.endswith(" at t500-s457-eta1.0)") for r in said)
    args = md.verify.question("ddim_step", "t500-s457-eta1.0")
    basis = [wrong(*[1.0 * (k == j) if j in (0, 1, 6) else a for j, a in enumerate(args)]) for k in (0, 1, 6)]
    for name, c in zip(("x_t", "ε", "z"), basis, strict=True):
        assert any(f"coefficient of {name} " in r and f"(got {float(c):.6g}, expected " in r for r in said)


def test_the_questions_that_are_right_tell_which_argument_the_mistake_hangs_on():
    f = finding(ddim_step=lambda *a: ddim(*a) + np.sin(a[0] * a[5]))
    assert "only the questions with η = 0.0 are right" in f.sentences


def test_a_forgotten_reshape_is_told_what_shape_is_missing():
    checked = report(q_sample=lambda x_0, eps, t, alpha_bar: root(alpha_bar[t]) * x_0 + root(1 - alpha_bar[t]) * eps)
    words = "t is one number per sample and must be shaped (B, 1, 1, 1) beside pictures: alpha_bar[t].reshape(-1, 1, 1, 1)"
    assert words in checked.summary and "one sample alone is answered rightly" in checked.summary
    f = finding(straight_sample=lambda x_0, eps, t: (1 - t) * x_0 + t * eps)  # whose shapes do not fit
    assert "must be shaped (B, 1, 1) beside pictures: t.reshape(-1, 1, 1)" in f.sentences[0] and "broadcast" in f.note
    f = finding(clip_static=lambda x: x / max(1, abs(x).max()))
    assert "shaped" not in line(f)


# ------------------------------------------------------------------------------------------------ the way on


def test_the_question_can_be_asked_again_from_what_the_report_prints():
    text = line(finding(q_sample=lambda x_0, t, eps, alpha_bar: x_0))
    command = next(row for row in text.splitlines() if "ask it again: " in row).partition("ask it again: ")[2]
    scope = {}
    exec(command, scope)
    assert scope["x_0"].shape == scope["eps"].shape == (3, 2, 2, 3) and len(scope["alpha_bar"]) == 1000


def test_functions_that_others_call_otherwise_are_answered_with_the_topic(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("import numpy as np\ndef add_noise(x): return x\ndef p_sample(x): return x\n")
    assert main(["verify", str(tmp_path / "mine.py")]) == 2
    err = capsys.readouterr().err
    assert "q_sample (for your add_noise)" in err and "ddpm_step (for your p_sample)" in err and "--list" in err
    assert topics_meant(["qSample", "layernorm", "ddim_stp"]) == {
        "qSample": "q_sample",
        "layernorm": "layer_norm",
        "ddim_stp": "ddim_step",
    }


def test_every_name_from_elsewhere_leads_to_one_topic():
    words = [w for names in CALLED.values() for w in names.split()]
    assert set(CALLED) <= set(TOPICS) and len(set(words)) == len(words)
    assert all(w == w.lower() and "_" not in w for w in words) and not set(words) & {t.replace("_", "") for t in TOPICS}


@pytest.mark.parametrize("word", ["q_sample", "D.1", "d.1"])
def test_a_topic_or_its_equation_shows_the_topic(word, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["verify", word]) == 0
    out = capsys.readouterr().out
    for words in ("def q_sample(x_0, eps, t, alpha_bar)", "√ᾱ_t x_0 + √(1-ᾱ_t) ε", "(B,C,H,W)", 'question("q_sample", "linear")'):
        assert words in out
    assert "count rungs from 1" in out


def test_a_file_of_the_name_of_a_topic_is_still_verified(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "silu.py").write_text("import numpy as np\ndef silu(x): return x / (1 + np.exp(-x))\n")
    assert main(["verify", "silu"]) == 0
    assert "1 topic, 1 right" in capsys.readouterr().out


def test_an_equation_without_a_topic_and_a_misspelt_topic_are_answered_in_one_line(capsys):
    assert main(["verify", "D.99"]) == 2
    assert capsys.readouterr().err == (
        "minidit: no topic asks about D.99; minidit verify --list shows the topics, minidit spec the equations\n"
    )
    assert main(["verify", "q_smple"]) == 2
    assert capsys.readouterr().err == "minidit: there is no module 'q_smple'; minidit verify q_sample shows that topic\n"


def test_the_list_says_once_how_timesteps_count(capsys):
    assert main(["verify", "--list"]) == 0
    assert capsys.readouterr().out.count("count rungs from 1") == 1


def test_the_table_of_all_mistakes_says_how_far_it_is(monkeypatch):
    from minidit.verify import table
    from minidit.verify.bank import steps

    monkeypatch.setattr(table, "DIALECTS", {})
    monkeypatch.setattr(table, "DEVIATIONS", {d.id: d for d in steps.BANK[:3]})
    monkeypatch.setattr(table, "TOPICS", {t: TOPICS[t] for t in ("ddpm_step", "ddim_step", "posterior_variance")})
    told = []
    made = table.bank_table(pairs=1, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == [1, 2, 3, 4, 5] and {total for _, total in told} == {5} and len(made.singles) == 3


def test_a_function_that_is_called_nearly_as_a_topic_is_not_passed_over_in_silence(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text("def guidance(u, c, w):\n    return u + w * (c - u)\n\n\ndef helper(x):\n    return x\n\n\n"
                                      "def alpha_bar(betas):\n    return (1 - betas).cumprod()\n")  # fmt: skip
    assert main(["verify", str(tmp_path / "mine.py")]) == 0
    error = capsys.readouterr().err
    assert error.count("note: ") == 1 and "note: guidance was not checked: if it is what guide means, call it guide" in error
