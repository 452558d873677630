"""What is different about wrong answers that no mistake of the bank explains: sentences in the letters of the law.

In this order, and the first that gives the answers to all questions is said:

    relation     the answer is minus, twice, the root of the right one; backwards along H; its mean over B        relations.py
    list         13 entries, 12 asked for; (0, 0) is a step to itself                                             lists.py
    argument     the law of something else: ε left out, the first t for the whole batch, ᾱ in bfloat16            arguments.py
    coefficient  of x, ε, z in an answer that is linear in them, as formulas of ᾱ_t and ᾱ_s                       coefficients.py
    direction    before ε̂ stands √(1-ᾱ_s+σ²)                                                                    directions.py
    level        the step from t = 500 lands on the level of t = 480                                              levels.py
    part         only the second half of C is wrong, and it is minus the right one

A wrong explanation is worse than none: nothing is said that does not reproduce the numbers.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.verify.core import coefficients, directions, levels, lists
from minidit.verify.core.arguments import Guess, guesses, letter
from minidit.verify.core.compare import difference, together
from minidit.verify.core.denoiser import Linear
from minidit.verify.core.finding import Answer, Answers, Reason, questions
from minidit.verify.core.forms import few, is_list
from minidit.verify.core.further import TABLES, letters_of
from minidit.verify.core.reference import AnyTopic, Kind
from minidit.verify.core.relations import RIGHT, Pair, argument_itself, factor_of_each, listed, relation, same
from minidit.verify.core.where import not_finite

Law = Callable[..., Any]  # the right answer to any arguments
SHARP = 1e-9  # how well an explanation must fit float64 answers


@dataclass(frozen=True)
class Case:
    """One answer beside the right one."""

    answer: Answer
    got: Any
    want: Any

    @property
    def args(self) -> Sequence[Any]:
        return self.answer.probe.args


def explain(
    topic: AnyTopic, answers: Answers, wants: Sequence[Any], law: Law, tolerance: float, it: str = RIGHT
) -> Found:  # fmt: skip
    """Sentences, and whether they say all there is; none where nothing simple is different.

    wants: the right answers, or the errors of refusals; law: the right answer to any arguments; it: what that is called.
    """
    if topic.allowed or not answers:
        return [], False
    once = [(a, w) for a, w in zip(answers, wants, strict=True) if not a.again]
    if any(a.error and not isinstance(w, Exception) for a, w in once):
        return [], False  # it raised: that is the news
    both = [(a, w) for a, w in once if not isinstance(w, Exception)]
    undo = (lambda a: 10.0 ** np.asarray(a)) if topic.measure is np.log10 else (lambda a: a)
    cases = [Case(a, undo(a.value), undo(w)) for a, w in both]
    tolerance = max(tolerance, SHARP)
    if words := in_another_order([(c.got, c.want) for c in cases], tolerance):
        return [Reason(words)], True
    try:
        leaves = _leaves(cases)
        wrong = {place: pairs for place, pairs in leaves.items() if any(not same(g, w, tolerance) for _, g, w in pairs)}
        out, whole = _explained(topic, cases, leaves, wrong, law, tolerance, it) if wrong else ([], True)
    except (ValueError, TypeError, OverflowError, IndexError, np.linalg.LinAlgError):
        return [], False
    if not cases:
        out, whole = [], False
    lax = [a.probe.name for a, w in once if isinstance(w, Exception) and not a.error]
    return out + [Reason(f"an answer where it should refuse: {', '.join(lax)}")] * bool(lax), whole and bool(out or lax)


Leaf = tuple[Case, Array, Array]
Found = tuple[list[Reason], bool]  # sentences, and whether they say all there is
Leaves = dict[str, list[Leaf]]  # place in the answer -> (case, got, want) for every question


def in_another_order(pairs: Sequence[tuple[Any, Any]], tolerance: float) -> str:
    """Whether the entries of every answer are the right ones, one in the place of another; "" where they are not."""
    if not pairs or any(not is_list(a) or len(a) != len(pairs[0][1]) or not 1 < len(a) < 5 for pair in pairs for a in pair):
        return ""
    _, *others = itertools.permutations(range(len(pairs[0][1])))
    if all(difference(got, want).error <= tolerance for got, want in pairs):
        return ""
    for order in others:
        if all(difference([got[k] for k in order], want).error <= tolerance for got, want in pairs):
            return f"its entries are the right ones in another order: {', '.join(f'[{k}]' for k in order)}"
    return ""


def _leaves(cases: Sequence[Case]) -> Leaves:
    """Raises ValueError for another form, and for what is no number."""
    out: Leaves = {}
    for case in cases:
        for place, got, want in together(case.got, case.want):
            if want.dtype.kind not in "fiubV" or got.dtype.kind not in "fiubV":
                raise ValueError("no numbers")
            out.setdefault(place, []).append((case, got, want))
    return out


def _explained(
    topic: AnyTopic, cases: Sequence[Case], leaves: Leaves, wrong: Leaves, law: Law, tolerance: float, it: str
) -> Found:  # fmt: skip
    of = ANSWER if len(leaves) == 1 else _which(leaves, wrong, topic)
    flat = [leaf for group in wrong.values() for leaf in group]
    if endless := [c for c, g, w in flat if not_finite(g, w)]:
        return [Reason(f"no finite number came, for example in {endless[0].answer.probe.name}")], False
    axes = listed(topic.gives, flat[0][2].ndim)
    pairs = [Pair(g.astype(np.float64), w.astype(np.float64), factors(topic, c.args)) for c, g, w in flat]
    args = [_beside(topic.parameters, c.args, place) for place, group in wrong.items() for c, _, _ in group]
    if words := argument_itself(pairs, args, tolerance) or relation(pairs, tolerance, axes, it):
        return [Reason(f"{of} is {words}", Kind.RELATION if of in (ANSWER, EVERY) else Kind.PART)], True
    shown = next((leaf for leaf in flat if not same(leaf[1], leaf[2], tolerance)), flat[0])
    off = [(g, w) for _, g, w in flat if not same(g, w, tolerance)]
    if len(leaves) == 1 and (odd := lists.in_words(off)):
        return [Reason("; ".join(map(str, odd)))], odd[-1].kind is not Kind.MEASURED
    if shown[1].shape != shown[2].shape:
        return [Reason(_shapes(shown[1], shown[2], of, tolerance))], True
    if words := _argument(topic, cases, law, tolerance, tables=False):
        return [Reason(words, Kind.ARGUMENT, topic.spec)], True
    all_points, pictures = _points(topic, wrong)
    read = coefficients.sentences(all_points, pictures, tolerance) if all_points else []
    found = [replace(r, text=f"{of}: {r.text}") if len(leaves) > 1 else r for r in read]
    if read and all(r.kind is Kind.COEFFICIENT for r in read):
        return found, True
    if words := directions.in_words(all_points, pictures, tolerance):
        return [Reason(words)], True
    wrongly = [c for c in cases if difference(c.got, c.want).error > tolerance]
    if found and (words := levels.in_words(topic.parameters, [(c.args, c.got) for c in wrongly], law, tolerance)):
        return [Reason(words)], False  # a mistake of the bank, or two, may say more about it
    if words := _argument(topic, cases, law, tolerance, tables=True):
        return [Reason(words, Kind.ARGUMENT, topic.spec)], True
    words = "" if found else _part(pairs, tolerance, axes)
    if not words and (multiple := factor_of_each(pairs, tolerance)):
        words = f"{of} is {multiple}"
    words = words or ("" if of in (ANSWER, EVERY) else f"{of} is wrong")
    return found or [Reason(words)] * bool(words), False


def _beside(names: Sequence[str], args: Sequence[Any], place: str) -> dict[str, Array]:
    """The arrays of a question by their letters; of dictionaries, the entry of the same name as this one of the answer."""
    out = {}
    for name, a in zip(names, args, strict=False):
        entry = a.get(place[2:-2]) if isinstance(a, dict) else a
        if isinstance(entry, np.ndarray) and entry.dtype.kind in "fiu":
            out[letter(name)] = entry
    return out


ANSWER, EVERY = "the answer", "every entry of the answer"


def _which(leaves: Leaves, wrong: Leaves, topic: AnyTopic) -> str:
    """Which entries of an answer are wrong, and how many are right."""
    right = len(leaves) - len(wrong)
    if not right:
        return EVERY
    called = {f"[{k}]": n for k, n in enumerate(listed(topic.gives, len(leaves)))}
    some = few(called.get(place, place) for place in wrong)
    return f"{some} of the answer (the other {right} {'is' if right == 1 else 'are'} right)"


def factors(topic: AnyTopic, args: Sequence[Any]) -> dict[str, float]:
    """The sizes and scalars of a question that a wrong factor may be made of."""
    out: dict[str, float] = {}
    axes = letters_of(topic)
    for name, a in zip(topic.parameters, args, strict=False):
        if isinstance(a, np.ndarray) and a.ndim == len(axes.get(name, ())) > 1:
            out |= {axis: float(n) for axis, n in zip(axes[name], a.shape, strict=True) if axis not in ("B", *TABLES)}
        if isinstance(a, (int, float, np.number)) and not isinstance(a, bool):
            out[letter(name)] = float(a)
        elif isinstance(a, np.ndarray) and a.ndim == 1 and a.dtype.kind == "f":
            out[f"the length of {letter(name)}"] = float(a.size)
        elif isinstance(a, np.ndarray) and a.ndim > 1 and "the batch" not in out:
            out |= {"the batch": float(len(a)), "the last axis": float(a.shape[-1]), "the number of entries": float(a.size)}
            out["the entries of one sample"] = float(a[0].size)
    return out


def _shapes(got: Array, want: Array, of: str, tolerance: float) -> str:
    """What a wrong shape says of itself."""
    for over in (axes for n in range(1, got.ndim + 1) for axes in itertools.combinations(range(got.ndim), n)):
        for words, f in (("mean", np.mean), ("sum", np.sum)):
            if same(np.asarray(f(got, axis=over)), want.astype(np.float64), tolerance):
                return f"{of} has shape {got.shape}, expected {want.shape}: its {words} would be right"
    if got.size == want.size:
        return f"{of} has shape {got.shape}, the numbers of {want.shape} in another arrangement"
    if got.ndim == want.ndim + 1 and got.shape[:2] == (want.shape[:1] or (0,)) * 2:
        return f"{of} has all pairs of the batch: shape {got.shape}, expected {want.shape}"
    return f"{of} has shape {got.shape}, expected {want.shape}"


def _argument(topic: AnyTopic, cases: Sequence[Case], law: Law, tolerance: float, *, tables: bool) -> str:
    """Which argument of the right law is another one. tables: whether something was done to all entries of a table."""
    wrong = [c for c in cases if difference(c.got, c.want).error > tolerance]
    order = [wrong[0], *(c for c in cases if c is not wrong[0])]
    rest = [{g.words: g for g in guesses(topic.parameters, c.args)} for c in order[1:]]
    for guess in guesses(topic.parameters, order[0].args):
        if guess.of_table == tables and _gives(order[0], guess, law, tolerance):
            others = [known.get(guess.words) for known in rest]
            if all(g is None or _gives(c, g, law, tolerance) for c, g in zip(order[1:], others, strict=True)):
                return guess.words
    return ""


def _gives(case: Case, guess: Guess, law: Law, tolerance: float) -> bool:
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = guess.after(law(*questions(guess.change(case.args))))
        return difference(case.got, answer).error <= tolerance
    except Exception:  # a changed question may have no answer
        return False


Points = tuple[list[coefficients.Point], list[str]]  # and the names of the pictures


def _points(topic: AnyTopic, wrong: Leaves) -> Points:
    """The coefficients of a linear answer at every question; none where it is not linear."""
    if len(wrong) > 1:
        return [], []
    (group,) = wrong.values()
    if any(isinstance(a, Linear) for a in group[0][0].args):
        return [], []
    all_points: list[coefficients.Point] = []
    for case, got, want in group:
        question = case.answer.probe.name
        found = coefficients.points(topic.parameters, case.args, got.astype(np.float64), want.astype(np.float64), question)
        if found is None:
            return [], []
        all_points += found
    case, _, want = group[0]
    return all_points, [topic.parameters[k] for k in coefficients.linear_in(topic.parameters, case.args, want)]


def _part(pairs: Sequence[Pair], tolerance: float, axes: Sequence[str]) -> str:
    """Whether only one half along an axis, or only one place of it, is wrong."""
    if len({p.want.ndim for p in pairs}) > 1:
        return ""
    names = axes or [f"axis {k}" for k in range(pairs[0].want.ndim)]
    for k, name in enumerate(names):
        for words, others in (("first", slice(1, None)), ("last", slice(None, -1))):
            ends = [(np.moveaxis(p.got, k, 0)[others], np.moveaxis(p.want, k, 0)[others]) for p in pairs if p.want.shape[k] > 2]
            if len(ends) == len(pairs) and all(same(g, w, tolerance) for g, w in ends):
                return f"only the {words} of {name} is wrong"
    for k, name in enumerate(names):
        if all(p.want.shape[k] % 2 == 0 and p.want.shape[k] > 0 for p in pairs):
            for cut, words in enumerate(("first", "second")):
                rest = [(_half(p.got, k, 1 - cut), _half(p.want, k, 1 - cut), p) for p in pairs]
                if all(same(g, w, tolerance, float(np.max(abs(p.want), initial=0.0))) for g, w, p in rest):
                    return f"only the {words} half of {name} is wrong" + _of_half(pairs, k, cut, tolerance)
    return ""


def _half(a: Array, axis: int, which: int) -> Array:
    half: Array = np.array_split(a, 2, axis=axis)[which]
    return half


def _of_half(pairs: Sequence[Pair], axis: int, which: int, tolerance: float) -> str:
    """What the wrong half is to the right one; it may be small beside the other."""
    pieces = [Pair(_half(p.got, axis, which), _half(p.want, axis, which), p.factors) for p in pairs]
    sizes = [np.max(abs(h.want), initial=0.0) / np.max(abs(p.want), initial=1e-300) for h, p in zip(pieces, pairs, strict=True)]
    words = relation(pieces, min(tolerance / max(min(sizes), 1e-6), 1e-6))
    return f": it is {words}" if words else ""
