"""An experiment as data: frozen dataclasses, a config file that builds one, typed overrides, JSON."""

from __future__ import annotations

import ast
import dataclasses as dc
import importlib
import importlib.util
import json
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from research.pytrees import nearest


@dc.dataclass(frozen=True)
class Named:
    """An ordered, immutable mapping of names to specs: `named(sparse=NM(), distill=Distill())`.

    The names are what overrides and table rows are called by.
    """

    items: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, name: str) -> Any:
        for key, value in self.items:
            if key == name:
                return value
        raise KeyError(f"no {name!r} here; {nearest(name, self.names)}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(key for key, _ in self.items)

    def only(self, names: Sequence[str]) -> Named:
        """The entries called `names`, in this order of ours. KeyError for a name that is not here."""
        for name in names:
            self[name]
        return Named(tuple((k, v) for k, v in self.items if k in names))

    def replace(self, name: str, value: Any) -> Named:
        """A copy with one entry replaced. KeyError for a name that is not here."""
        self[name]
        return Named(tuple((k, value if k == name else v) for k, v in self.items))


def named(**specs: Any) -> Named:
    """`Named` from keyword arguments, in their order."""
    return Named(tuple(specs.items()))


COMPUTE = ("float32", "bfloat16")
LOSSES = ("distance", "l1", "wing", "mse")
TAUGHT = "taught/"
"""How the keys of a batch begin that hold what a teacher saw."""


@dc.dataclass(frozen=True)
class Optim:
    """AdamW with warm-up and a cosine to zero per stage; floats may be edited without a retrace.

    `batch` images a step; `lr` peak for weights; `gate_lr` for what transforms learn; `dual_lr` for
    multipliers; `clip` global gradient norm; `warmup` share of a stage. `compute` is what networks compute in while
    they train, float32 or bfloat16 (for TPUs); parameters, statistics, losses and the optimiser stay float32.
    `loss` is what keypoints are held to (train.task); `axes` weighs the cross-entropy of a head of probabilities.
    """

    batch: int = 64
    lr: float = 2e-3
    weight_decay: float = 1e-4
    clip: float = 5.0
    warmup: float = 0.05
    gate_lr: float = 5e-2
    dual_lr: float = 1e-2
    compute: str = "float32"
    loss: str = "distance"
    axes: float = 0.01

    def __post_init__(self) -> None:
        for name, value, known in (("compute", self.compute, COMPUTE), ("loss", self.loss, LOSSES)):
            if value not in known:
                raise ValueError(f"optim.{name}={value!r} must be one of {', '.join(known)}")


@dc.dataclass(frozen=True)
class Stage:
    """`steps` of training with the links named; those in `settle` become a physical rewrite when it ends.

    The learning rate goes from `lr_start` to `lr_end` times the experiment's, along a cosine.
    """

    name: str
    steps: int
    links: tuple[str, ...] = ()
    settle: tuple[str, ...] = ()
    lr_start: float = 1.0
    lr_end: float = 0.0


@dc.dataclass(frozen=True)
class Track:
    """One network's life: its largest spec, its stages in order, the track that teaches it ("" for none)."""

    net: Any
    stages: tuple[Stage, ...]
    teacher: str = ""


@dc.dataclass(frozen=True)
class Experiment:
    """One runnable page. `tracks` holds the names `baseline` and `target`; `squeeze` the links of the target.

    `old_chip` runs the baseline only; every other figure is on `new_chip`. `claims` is the story's word for
    each link; `rows` orders the links in the table where that is not the order of `squeeze`. `save_every` steps
    a checkpoint is kept; `calibration_images` set the int8 ranges.
    """

    name: str
    data: Any
    tracks: Named
    squeeze: Named
    old_chip: Any
    new_chip: Any
    optim: Optim = Optim()
    baseline: str = "v1"
    target: str = "v2"
    claims: Named = Named()
    rows: tuple[str, ...] = ()
    seed: int = 0
    save_every: int = 100
    calibration_images: int = 512

    def smoke(self) -> Experiment:
        """The same experiment on the one tiny shape that every config shares: seconds instead of minutes."""

        def shrink(spec: Any) -> Any:
            return spec.smoke() if hasattr(spec, "smoke") else spec

        tracks = tuple(
            (name, dc.replace(t, net=shrink(t.net), stages=tuple(dc.replace(s, steps=4) for s in t.stages)))
            for name, t in self.tracks.items
        )
        return dc.replace(
            self,
            data=shrink(self.data),
            tracks=Named(tracks),
            squeeze=Named(tuple((name, shrink(link)) for name, link in self.squeeze.items)),
            optim=dc.replace(self.optim, batch=8),
            save_every=2,
            calibration_images=16,
        )


def load(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of a config file after `a.b=value` overrides.

    Raises FileNotFoundError, ValueError (no `config()`, or an override without "="), KeyError or TypeError
    (another wrong override).
    """
    exp = config_module(path).config()
    if not isinstance(exp, Experiment):
        raise ValueError(f"config() of {path} returned {type(exp).__name__}, not an Experiment")
    for text in overrides:
        exp = override(exp, *parse_override(text))
    return exp


def config_module(path: str | Path) -> types.ModuleType:
    """The module of a config file, under a name of its own. Raises FileNotFoundError or ValueError."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no config file {str(path)!r}")
    found = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if found is None or found.loader is None:
        raise ValueError(f"{str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[module.__name__] = module  # a config may define dataclasses, which look their module up
    found.loader.exec_module(module)
    if not hasattr(module, "config"):
        raise ValueError(f"{str(path)!r} defines no config() -> Experiment")
    return module


def parse_override(text: str) -> tuple[str, Any]:
    """`"a.b=1e-3"` -> `("a.b", 0.001)`; what is no Python literal stays a string. ValueError without "="."""
    key, eq, value = text.partition("=")
    if not eq or not key:
        raise ValueError(f"override {text!r} is not of the form field.field=value")
    try:
        return key.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        return key.strip(), value.strip()


def override(spec: Any, path: str, value: Any, _at: str = "") -> Any:
    """A copy of a nested spec with the field at a dotted path replaced, typed by the field's annotation.

    Tuples are entered by index or by the `name` of their entries. Raises KeyError (with a did-you-mean) for
    an unknown field and TypeError for a value of another type, or for a whole spec in place of a field.
    """
    head, _, rest = path.partition(".")
    here = f"{_at}{head}"
    if isinstance(spec, Named):
        if head not in spec.names:
            raise KeyError(f"override {here!r}: no such name; {nearest(head, spec.names)}")
        old = spec[head]
        return spec.replace(head, override(old, rest, value, here + ".") if rest else _like(value, old, here))
    if isinstance(spec, tuple):
        keys = [getattr(item, "name", str(i)) for i, item in enumerate(spec)]
        if head not in keys and not (head.isdecimal() and int(head) < len(spec)):
            raise KeyError(f"override {here!r}: no such entry; {nearest(head, keys)}")
        at = keys.index(head) if head in keys else int(head)
        old = spec[at]
        new = override(old, rest, value, here + ".") if rest else _like(value, old, here)
        return (*spec[:at], new, *spec[at + 1 :])
    if not dc.is_dataclass(spec):
        raise KeyError(f"override {here!r}: {_at.rstrip('.')} is a plain value and has no fields")
    fields = [f.name for f in dc.fields(spec)]
    if head not in fields:
        raise KeyError(f"override {here!r}: {type(spec).__name__} has no such field; {nearest(head, fields)}")
    old = getattr(spec, head)
    if rest:
        new = override(old, rest, value, here + ".")
    elif dc.is_dataclass(old):
        new = _like(value, old, here)
    else:
        new = _coerce(value, typing.get_type_hints(type(spec))[head], here)
    return _replaced(spec, {head: new})


def _replaced(spec: Any, values: dict[str, Any]) -> Any:
    return dc.replace(spec, **values)


def _like(value: Any, old: Any, path: str) -> Any:
    """`value` as the type of a plain `old`. TypeError for another type and where `old` is a whole spec."""
    if dc.is_dataclass(old):
        names = old.names if isinstance(old, Named) else [f.name for f in dc.fields(old)]
        raise TypeError(f"override {path!r}: name a field of it, such as {path}.{[*names, '...'][0]}")
    return _coerce(value, _type_of(old), path)


def _type_of(value: Any) -> Any:
    return types.GenericAlias(tuple, tuple(map(_type_of, value))) if isinstance(value, tuple) else type(value)


def _coerce(value: Any, hint: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        for option in typing.get_args(hint):
            try:
                return _coerce(value, option, path)
            except TypeError:
                continue
    elif origin is tuple and isinstance(value, (tuple, list)):
        inner = typing.get_args(hint)
        each = inner[:1] * len(value) if inner[-1:] == (Ellipsis,) else inner
        if len(each) == len(value):
            return tuple(_coerce(v, h, path) for v, h in zip(value, each, strict=True))
    elif hint is float and type(value) is int:
        return float(value)
    elif hint is type(None) and value is None:
        return None
    elif hint in (int, float, str, bool) and type(value) is hint:
        return value
    wanted = getattr(hint, "__name__", str(hint)) if origin is None else str(hint)
    raise TypeError(f"override {path!r}: {value!r} is not of type {wanted}")


def to_json(spec: Any) -> Any:
    """Spec -> plain JSON values; dataclasses carry their class as `"$type"`. TypeError for anything else."""
    if dc.is_dataclass(spec) and not isinstance(spec, type):
        kind = type(spec)
        fields = {f.name: to_json(getattr(spec, f.name)) for f in dc.fields(spec)}
        return {"$type": f"{kind.__module__}:{kind.__qualname__}", **fields}
    if isinstance(spec, (tuple, list)):
        return [to_json(v) for v in spec]
    if spec is None or isinstance(spec, (bool, int, float, str)):
        return spec
    raise TypeError(f"{spec!r} cannot be part of a spec: use dataclasses, tuples, numbers, strings")


def from_json(data: Any) -> Any:
    """The inverse of `to_json`. Builds dataclasses of the `research` package only; ValueError for others."""
    if isinstance(data, list):
        return tuple(from_json(v) for v in data)
    if isinstance(data, dict):
        kind = _spec_class(data.get("$type"))
        values = {k: from_json(v) for k, v in data.items() if k != "$type"}
        fields = [f.name for f in dc.fields(kind)]
        for key in values:
            if key not in fields:
                raise ValueError(f"{kind.__name__} has no field {key!r}; {nearest(key, fields)}")
        return kind(**values)
    return data


def _spec_class(name: Any) -> type:
    module, _, qualname = str(name).partition(":")
    try:
        kind = getattr(importlib.import_module(module), qualname) if module.startswith("research.") else None
    except (ImportError, AttributeError):
        kind = None
    if not (isinstance(kind, type) and dc.is_dataclass(kind) and kind.__module__ == module):
        raise ValueError(f"{name!r} is not a spec of this project")
    return kind


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """The dotted paths (with both values) at which two JSON values differ, for messages."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = list(dict.fromkeys([*a, *b]))
        return [d for k in keys for d in differences(a.get(k), b.get(k), f"{path}.{k}" if path else k)]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [
            d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{path}.{i}")
        ]
    if a == b:
        return []
    return [f"{path}: {_short(a)} -> {_short(b)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def split_floats(spec: Any) -> tuple[Any, tuple[float, ...]]:
    """A spec as (the same with every float 0.0, the floats in order): what is compiled, and its arguments."""
    floats: list[float] = []

    def take(value: float) -> float:
        floats.append(value)
        return 0.0

    return _map_floats(spec, take), tuple(floats)


def join_floats(static: Any, floats: Sequence[Any]) -> Any:
    """The inverse of `split_floats`; `floats` may be traced scalars."""
    values = iter(floats)
    return _map_floats(static, lambda _: next(values))


def _map_floats(spec: Any, fn: Any) -> Any:
    if isinstance(spec, float):
        return fn(spec)
    if isinstance(spec, tuple):
        return tuple(_map_floats(v, fn) for v in spec)
    if dc.is_dataclass(spec) and not isinstance(spec, type):
        return dc.replace(spec, **{f.name: _map_floats(getattr(spec, f.name), fn) for f in dc.fields(spec)})
    return spec
