"""Running the study: point after point, each result kept as soon as it is there."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch import data, nn, zoo
from tinytorch.compression.sparsity import measure_sparsity
from tinytorch.compression.study.points import AIMS, RECIPE, Point, images, points
from tinytorch.compression.study.shipped import FOLDER, RESULTS, save
from tinytorch.kernels.machine import machine
from tinytorch.kernels.progress import progress_bar
from tinytorch.zoo.evaluation import accuracy
from tinytorch.zoo.training import Interrupted

RUN = "17_study"
COMMAND = "python -m tinytorch.compression study"


def study(only: Iterable[str] = (), seeds: int = 3, resume: bool = False, folder: Path = FOLDER) -> dict[str, Any]:
    """Measure rows of the study, and keep each number, and the models that ship, as soon as they are there.

    Parameters
    ----------
    only
        Names of `points`; without any, all. Other rows in the folder stay.
    seeds
        How many: 0, 1, ... What is not trained, or the same at any seed, is measured once.
    resume
        Go on: numbers that the folder has already are not measured again.
    folder
        Where `results.json` and the models are written.

    Returns
    -------
    dict
        The rows by name, in the form of `tinytorch.book.results`.

    Raises
    ------
    KeyError
        If there is no such point: lists the names.
    ValueError
        If there is no seed, or rows that stay come from another machine or recipe.
    DataError
        If the training images or the results are missing or damaged.
    Interrupted
        After Ctrl-C; the number that was being measured is lost, and no other.
    """
    table = points()
    if unknown := sorted(set(only) - table.keys()):
        raise KeyError(f"the study has no point {', '.join(unknown)}; there are: {', '.join(table)}")
    if seeds < 1:
        raise ValueError(f"the study takes at least one seed, got {seeds}")
    chosen = {name: point for name, point in table.items() if not only or name in only}
    found = _known(folder, kept=table.keys() if resume else table.keys() - chosen.keys())
    left = [
        (name, point, seed)
        for name, point in chosen.items()
        for seed in range(seeds if point.epochs else 1)
        if seed >= len(found.get(name, []))
    ]
    for split in sorted({point.images for _, point, _ in left if point.epochs}):
        images(split)  # missing images are an error now, not in an hour
    done = 0
    bar = progress_bar(left, desc="study", unit="model")
    try:
        for name, point, seed in bar:
            bar.set_postfix_str(f"{name}, seed {seed}")
            model = point.make(seed)
            value = percent(model)
            if point.ships and seed == 0:
                save(name, model, _card(name, point, model, value), folder)
            found[name] = [*found.get(name, []), value]
            _write(folder, found)
            done += 1
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped: {done} of {len(left)} models measured. Go on with the same, and --resume"
        ) from None
    finally:
        bar.close()
    return rows(found)


def percent(model: nn.Module) -> float:
    """Return the right answers among all test images, in percent."""
    return round(100 * accuracy(model, images("test")), 2)


def rows(found: dict[str, list[float]]) -> dict[str, Any]:
    """Return the rows of what was found at each seed: the mean, the least and the greatest."""
    table = points()
    return {name: _row(name, table[name], values) for name, values in found.items()}


def _row(name: str, point: Point, values: list[float]) -> dict[str, Any]:
    what = f"Right answers, {point.words}"
    if point.epochs:
        what += "; seed 0" if len(values) == 1 else f"; seeds 0 to {len(values) - 1}"
    if name in AIMS:
        before = zoo.read_card("reference_cnn")["rows"]["accuracy"]["value"]
        reached = "reached" if round(before - min(values), 2) <= AIMS[name] else "missed"
        what += f" (aim at most {AIMS[name]:g} points lost: {reached})"
    mean, low, high = (round(float(f(values)), 2) for f in (np.mean, min, max))
    return {"value": mean, "low": low, "high": high, "unit": "%", "what": what, "digits": 4}


def _known(folder: Path, kept: Iterable[str]) -> dict[str, list[float]]:
    """Return the numbers in the folder that stay."""
    path = folder / RESULTS.name
    if not path.exists():
        return {}
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))[RUN]
        found = {name: values for name, values in entry["values"].items() if name in kept}
        before = entry["machine"], entry["recipe"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise data.DataError(
            f"{path} is no result of this study: {error!r}; remove it, or name another --out"
        ) from None
    if found and before != (machine(), RECIPE):
        raise ValueError(
            f"rows in {path} come from another machine, other versions or another recipe: "
            "run all of the study anew, or name another --out"
        )
    return found


def _write(folder: Path, found: dict[str, list[float]]) -> None:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    ordered = {name: found[name] for name in points() if name in found}
    entry = {"command": COMMAND, "date": today, "machine": machine(), "recipe": RECIPE, "values": ordered}
    text = json.dumps({RUN: entry | {"rows": rows(ordered)}}, indent=1, ensure_ascii=False) + "\n"
    data.files.write(folder / RESULTS.name, text.encode())


def _card(name: str, point: Point, model: nn.Sequential, value: float) -> dict[str, Any]:
    return {
        "name": name,
        "what": point.words,
        "command": f"{COMMAND} --only {name}",
        "seed": 0,
        "recipe": {"optimizer": "AdamW", "epochs": point.epochs} | RECIPE,
        "data": data.files.source_of("fashion_mnist"),
        "sparsity": round(measure_sparsity(model).sparsity, 6),
        "rows": {"accuracy": {"value": value, "unit": "%", "what": "right answers on the 10,000 test images"}},
    }
