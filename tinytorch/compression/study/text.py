"""The GPT with fewer weights: zeros that grow while it trains on, one model for each share of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tinytorch import data, nn, optim, zoo
from tinytorch.compression.pruner import MagnitudePruner
from tinytorch.compression.schedule import GradualSchedule
from tinytorch.compression.sparsity import measure_sparsity
from tinytorch.kernels.progress import progress_bar
from tinytorch.zoo import files
from tinytorch.zoo.evaluation import nats_per_token
from tinytorch.zoo.fitting import take_step
from tinytorch.zoo.recipes import recipe
from tinytorch.zoo.training import Interrupted

TEXT_LEVELS = (70, 90)  # percent of zeros
RECIPE: dict[str, Any] = {
    "optimizer": "AdamW", "steps": 600, "zeros_grow_until": 300, "warmup_steps": 20, "lr": 1e-3, "weight_decay": 0.0,
    "betas": [0.9, 0.99], "max_grad_norm": 1.0, "batches": "those of char_gpt, seed 1",
}  # fmt: skip
COMMAND = "python -m tinytorch.compression text --levels"
_FOLDER = Path(__file__).parent / "texts"


def load_text(level: int) -> nn.GPT:
    """Return the GPT with so many percent of its weights zero, in evaluation mode; the zeros are ordinary weights.

    Raises
    ------
    KeyError
        If none of this share ships.
    DataError
        If its file is missing or damaged.
    """
    model = zoo.char_gpt(np.random.default_rng(0))
    model.load_state_dict(files.read_state(_name(level), _FOLDER))
    model.eval()
    return model


def read_text_card(level: int) -> dict[str, Any]:
    """Return the card of such a model: how it was made, and what it reaches. Errors as `load_text` has them."""
    return files.read_card(_name(level), _FOLDER)


def train_text(level: int, folder: Path = _FOLDER) -> dict[str, Any]:
    """Prune the zoo's GPT while it trains on, keep it in a folder, and return its card.

    The smallest weights of the whole model become zero, ever more of them until half of the steps are done. It takes
    some minutes; Ctrl-C loses them, and nothing else.

    Raises
    ------
    KeyError
        If there is no such level.
    Interrupted
        After Ctrl-C.
    FloatingPointError
        If the loss is not finite.
    """
    name, of = _name(level), recipe("char_gpt")
    model, batch = zoo.load("char_gpt"), of.batches(1)
    schedule = GradualSchedule(0, RECIPE["zeros_grow_until"])
    pruner = MagnitudePruner(level / 100, schedule=schedule).prepare(model)
    optimizer = optim.AdamW(model.parameters(), RECIPE["lr"], tuple(RECIPE["betas"]), weight_decay=0.0)
    how = {name: RECIPE[name] for name in ("lr", "warmup_steps", "max_grad_norm")}
    model.train()
    try:
        for step in (bar := progress_bar(range(RECIPE["steps"]), desc=name, unit="step")):
            loss = take_step(optimizer, of.loss(model, batch(step)), RECIPE["steps"], **how)
            pruner.step()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped: {name} is not kept. Begin it anew with: {COMMAND} {level}") from None
    pruner.finalize()
    model.eval()
    known = data.files.card(of.dataset)
    card = {
        "name": name,
        "parameters": model.num_parameters(),
        "sparsity": round(measure_sparsity(model).sparsity, 6),
        "command": f"{COMMAND} {level}",
        "recipe": RECIPE,
        "data": {"title": known["title"], "licence": known["licence"]},
        "rows": {"loss": {"value": nats_per_token(model, data.shakespeare("held-out")), **of.metric}},
    }
    files.save_model(name, model.state_dict(), card, folder)
    return card


def _name(level: int) -> str:
    if level not in TEXT_LEVELS:
        raise KeyError(f"there is no GPT with {level} % of zeros; there are: {', '.join(map(str, TEXT_LEVELS))}")
    return f"gpt_{level}"
