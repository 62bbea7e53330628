"""The program is what is compiled; floats are not part of it."""

import dataclasses as dc

import jax

from research.spec import override, split_floats
from research.squeeze import NM
from research.train.state import Hyper, Program
from tests.smoke import smoke

EXP = smoke()


def program(exp: object) -> Program:
    return Program(
        exp.tracks["v2"].net, split_floats(exp.squeeze)[0], split_floats(exp.optim)[0], exp.new_chip
    )


def test_floats_are_no_part_of_a_program_and_integers_are() -> None:
    same = override(override(EXP, "optim.lr", 9.0), "squeeze.distill.output", 3.0)
    assert program(same) == program(EXP)
    assert hash(program(same)) == hash(program(EXP))
    other = dc.replace(EXP, squeeze=EXP.squeeze.replace("sparse", NM(1, 4)))
    assert program(other) != program(EXP)
    assert program(override(EXP, "optim.batch", 4)) != program(EXP)


def test_every_hyper_is_a_leaf() -> None:
    hyper = Hyper(split_floats(EXP.squeeze)[1], split_floats(EXP.optim)[1], 4, 1.0, 0.0, 0)
    assert len(jax.tree.leaves(hyper)) == len(hyper.links) + len(hyper.optim) + 4
    assert len(hyper.optim) == 7
