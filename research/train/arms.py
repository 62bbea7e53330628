"""Which networks a table needs: baseline, teacher, and the target with growing and with leave-one-out sets of links."""

from __future__ import annotations

from dataclasses import dataclass

from research.spec import Experiment, Named


@dataclass(frozen=True)
class Arm:
    """One network to train: a track with the links allowed. Stages shared with another arm are trained once."""

    track: str
    links: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For example "v2+sparse+distill"; the name of files and table entries."""
        return "+".join((self.track, *self.links))


def full(exp: Experiment) -> Arm:
    """The target with every link."""
    return Arm(exp.target, exp.squeeze.names)


def row_order(exp: Experiment) -> tuple[str, ...]:
    """The links in the order in which the table adds them."""
    return exp.rows or exp.squeeze.names


def cumulative(exp: Experiment) -> tuple[Arm, ...]:
    """The target with none, the first, the first two ... of its links, in the order of the table's rows."""
    order = row_order(exp)
    return tuple(Arm(exp.target, exp.squeeze.only(order[:n]).names) for n in range(len(order) + 1))


def without(exp: Experiment, link: str) -> Arm:
    """The target with every link but one. KeyError for an unknown link."""
    exp.squeeze[link]
    return Arm(exp.target, tuple(name for name in exp.squeeze.names if name != link))


def all_arms(exp: Experiment) -> tuple[Arm, ...]:
    """Every arm of the table, each once, in an order in which a teacher comes before its students."""
    teacher = exp.tracks[exp.target].teacher
    arms = [Arm(exp.baseline), *([Arm(teacher)] if teacher else []), *cumulative(exp)]
    arms += [without(exp, link) for link in exp.squeeze.names]
    return tuple(dict.fromkeys(arms))


def stage_links(exp: Experiment, arm: Arm, index: int) -> Named:
    """The links a stage of an arm trains with, in the order of `exp.squeeze`."""
    stage = exp.tracks[arm.track].stages[index]
    return exp.squeeze.only([name for name in stage.links if name in arm.links])


def stage_key(exp: Experiment, arm: Arm, index: int) -> str:
    """Folder of a stage: the links used up to it, so that arms share what they have in common."""
    stages = exp.tracks[arm.track].stages
    used = {name for i in range(index + 1) for name in stage_links(exp, arm, i).names}
    return (
        "+".join((arm.track, *(n for n in exp.squeeze.names if n in used))) + f".{index}-{stages[index].name}"
    )
