"""The chain: views in order, everything else under its link's name, nothing lost and nothing shared."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.squeeze import (
    IDENTITY,
    NM,
    Distill,
    FakeQuant,
    Link,
    Setting,
    Transform,
    WidthGates,
    chain,
    check_order,
)
from research.squeeze.transform import ARCHITECTURE, LOSS, PRECISION, SPARSITY
from tests.squeeze.samples import KEY, NOW, context, setting, weights

PARAMS = {"a": jnp.asarray([1.0, 2.0])}


def affine(scale: float, shift: float) -> Transform:
    """A method that uses every field: two of them commute only by luck."""

    def view(params: Any, learned: Any, state: Any, step: jax.Array, key: jax.Array) -> Any:
        return {"a": params["a"] * scale + shift + learned["gain"] + state["seen"]}

    return Transform(
        init=lambda key, params: ({"gain": jax.random.normal(key)}, {"seen": jnp.asarray(shift)}),
        view=view,
        sites=lambda learned, state, step: {f"site{shift:g}": lambda x: x * scale},
        terms=lambda ctx: {"loss": ctx.learned["gain"] + 10.0 * ctx.state["seen"]},
        update=lambda state, ctx: {"seen": state["seen"] + ctx.learned["gain"] + ctx.step},
    )


A, B = affine(2.0, 1.0), affine(3.0, 4.0)
LEARNED = {"a": {"gain": jnp.asarray(0.5)}, "b": {"gain": jnp.asarray(0.25)}}
STATE = {"a": {"seen": jnp.asarray(1.0)}, "b": {"seen": jnp.asarray(2.0)}}


def test_views_compose_in_the_order_of_the_chain() -> None:
    first = chain(a=A, b=B).view(PARAMS, LEARNED, STATE, NOW, KEY)["a"]
    np.testing.assert_allclose(first, (np.array([1.0, 2.0]) * 2 + 2.5) * 3 + 6.25)
    other = chain(b=B, a=A).view(PARAMS, LEARNED, STATE, NOW, KEY)["a"]
    np.testing.assert_allclose(other, (np.array([1.0, 2.0]) * 3 + 6.25) * 2 + 2.5)


def test_learned_state_and_terms_stand_under_their_names() -> None:
    both = chain(a=A, b=B)
    learned, state = both.init(KEY, PARAMS)
    assert jax.tree.structure((learned, state)) == jax.tree.structure((LEARNED, STATE))
    assert (float(state["a"]["seen"]), float(state["b"]["seen"])) == (1.0, 4.0)
    assert float(learned["a"]["gain"]) != float(
        learned["b"]["gain"]
    )  # every link draws from a key of its own
    terms = both.terms(context(learned=LEARNED, state=STATE))
    assert {name: float(value) for name, value in terms.items()} == {"a/loss": 10.5, "b/loss": 20.25}
    after = both.update(STATE, context(learned=LEARNED, state=STATE, step=jnp.asarray(3)))
    assert jax.tree.map(float, after) == {"a": {"seen": 4.5}, "b": {"seen": 5.25}}


def test_a_link_sees_its_own_learned_and_state_only() -> None:
    seen = []

    def note(what: str) -> Any:
        return lambda *args: (seen.append((what, args)), {})[1]

    spy = IDENTITY._replace(sites=note("sites"), terms=note("terms"), update=note("update"))
    both = chain(a=A, b=spy)
    ctx = context(learned=LEARNED, state=STATE, frozen="frozen")
    both.sites(LEARNED, STATE, NOW)
    both.terms(ctx)
    both.update(STATE, ctx)
    assert [what for what, _ in seen] == ["sites", "terms", "update"]
    assert seen[0][1] == (LEARNED["b"], STATE["b"], NOW)
    mine = ctx._replace(learned=LEARNED["b"], state=STATE["b"])
    assert seen[1][1] == (mine,)
    assert seen[2][1] == (STATE["b"], mine)


def test_identity_is_neutral() -> None:
    assert IDENTITY.init(KEY, PARAMS) == ({}, {})
    assert IDENTITY.view(PARAMS, {}, {}, NOW, KEY) is PARAMS
    assert IDENTITY.sites({}, {}, NOW) == {}
    assert IDENTITY.terms(context()) == {}
    assert IDENTITY.update(STATE, context()) is STATE
    empty = chain()
    assert empty.init(KEY, PARAMS) == ({}, {})
    assert empty.view(PARAMS, {}, {}, NOW, KEY) is PARAMS
    learned, state = LEARNED | {"none": {}}, STATE | {"none": {}}
    with_it, without = chain(a=A, none=IDENTITY, b=B), chain(a=A, b=B)
    np.testing.assert_array_equal(
        with_it.view(PARAMS, learned, state, NOW, KEY)["a"],
        without.view(PARAMS, LEARNED, STATE, NOW, KEY)["a"],
    )
    ctx = context(learned=learned, state=state)
    assert with_it.terms(ctx) == without.terms(ctx)
    assert with_it.sites(learned, state, NOW).keys() == without.sites(LEARNED, STATE, NOW).keys()
    assert with_it.update(state, ctx) == without.update(STATE, ctx) | {"none": {}}


def test_a_chain_is_a_transform_and_may_be_chained() -> None:
    nested = chain(outer=chain(a=A, b=B))
    np.testing.assert_array_equal(
        nested.view(PARAMS, {"outer": LEARNED}, {"outer": STATE}, NOW, KEY)["a"],
        chain(a=A, b=B).view(PARAMS, LEARNED, STATE, NOW, KEY)["a"],
    )
    terms = nested.terms(context(learned={"outer": LEARNED}, state={"outer": STATE}))
    assert list(terms) == ["outer/a/loss", "outer/b/loss"]


def test_every_link_draws_from_its_own_key() -> None:
    noise = IDENTITY._replace(
        view=lambda params, learned, state, step, key: {"a": params["a"] + jax.random.normal(key, (2,))}
    )
    state = {"x": {}, "y": {}}
    one = chain(x=noise, y=IDENTITY).view(PARAMS, state, state, NOW, KEY)["a"] - PARAMS["a"]
    other = chain(x=IDENTITY, y=noise).view(PARAMS, state, state, NOW, KEY)["a"] - PARAMS["a"]
    assert not np.allclose(one, other)


def test_sites_are_joined_and_a_rule_claimed_twice_raises() -> None:
    both = chain(a=A, b=B).sites(LEARNED, STATE, NOW)
    assert list(both) == ["site1", "site4"]
    assert (both["site1"](1.0), both["site4"](1.0)) == (2.0, 3.0)
    with pytest.raises(ValueError, match="links 'b' and another both act on site rule 'site1'"):
        chain(a=A, b=A).sites(LEARNED, STATE, NOW)


@dataclass(frozen=True)
class Anything(Link):
    """A link of a kind that is only a number."""

    of: int = 0
    kind: ClassVar[int] = LOSS


def link(kind: int) -> Anything:
    """A link of one kind."""
    return type("Made", (Anything,), {"kind": kind})()


@given(st.lists(st.sampled_from([ARCHITECTURE, SPARSITY, PRECISION, LOSS]), max_size=5))
def test_views_go_architecture_sparsity_precision_with_losses_anywhere(kinds: list[int]) -> None:
    links = {f"link{i}": link(kind) for i, kind in enumerate(kinds)}
    views = [kind for kind in kinds if kind != LOSS]
    if views == sorted(views):
        check_order(links)
    else:
        with pytest.raises(ValueError, match=r"illegal chain: 'link\d' must come before 'link\d'"):
            check_order(links)


def test_an_illegal_order_is_explained() -> None:
    gates, sparse, distill, quant = WidthGates(1.0), NM(), Distill(), FakeQuant()
    check_order({"gates": gates, "distill": distill, "sparse": sparse, "quant": quant})
    with pytest.raises(ValueError, match="'gates' must come before 'sparse'"):
        check_order({"sparse": sparse, "distill": distill, "gates": gates})
    with pytest.raises(ValueError, match="'sparse' must come before 'quant'"):
        check_order({"gates": gates, "quant": quant, "sparse": sparse})


def test_what_a_link_does_unless_it_says_otherwise() -> None:
    plain = Anything()
    assert plain.check(setting()) is None
    assert plain.price("table", ()) == "table"
    assert not plain.taught
    with pytest.raises(ValueError, match="Anything has nothing to settle: take it out of the stage's settle"):
        plain.settle(setting(), {}, {})


def test_the_real_links_chain_without_meeting() -> None:
    params, _ = weights()
    where = setting()
    links = {"gates": WidthGates(1.0, lane=4), "sparse": NM(), "quant": FakeQuant(bits=4)}
    whole = chain(**{name: item.build(where) for name, item in links.items()})
    learned, state = whole.init(KEY, params)
    assert set(learned) == set(state) == set(links)
    expected = params
    for name, item in links.items():
        expected = item.build(where).view(expected, learned[name], state[name], NOW, KEY)
    found = whole.view(params, learned, state, NOW, KEY)
    assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))
    terms = whole.terms(context(raw=params, params=found, learned=learned, state=state))
    assert set(terms) == {"gates/budget", "sparse/decay"}
    assert set(whole.sites(learned, state, NOW)) == set(where.sites)


def test_a_setting_is_hashable_data() -> None:
    where = setting()
    assert where == setting()
    assert hash(where) == hash(setting())
    assert where != Setting(where.paths[1:], where.sites, where.groups, where.latency_ms, None)
