"""What run.json says of a run."""

from typing import Any

from fsseg.evaluation.metrics import facts_of
from fsseg.recipe.protocols import protocol_hash
from fsseg.recipe.tables import Recipe
from fsseg.runs.data import RunData
from fsseg.runs.records import FORMAT


def about(data: RunData) -> dict[str, Any]:
    """What run.json says."""
    recipe = data.recipe
    metrics = {metric.name: facts_of(metric.build("metric")) for metric in recipe.metrics}
    scalings = {}
    if data.scaled_together:
        for fold in data.folds:
            scaling = data.of(fold).scaling(fold.queries[0])
            scalings[str(fold.index)] = scaling.measured
    return {
        "format": FORMAT,
        "dataset": data.dataset.name,
        "protocol": data.protocol.name,
        "uses_truth": data.protocol.uses_truth,
        "protocol_hash": protocol_hash(data.protocol, data.setup.scheme, data.classes),
        "options": options_in_words(recipe),
        "setting": recipe.episodes.setting,
        "support": data.setup.support,
        "fold_scheme": data.setup.scheme.name,
        "folds": [fold.index for fold in data.folds],
        "seeds": recipe.seeds,
        "classes": list(data.classes.values()),
        "metrics": metrics,
        "scaling": scalings,
        "data": {str(fold.index): data.of(fold).evaluation_key for fold in data.folds},
    }


def options_in_words(recipe: Recipe) -> list[str]:
    """What the recipe changes about the evaluation and about what training sees, in words for the head of a table."""
    protocol = recipe.protocol
    words = []
    if protocol.support:
        words.append(f"support {protocol.support}")
    words += [f"{key} {value}" for key, value in protocol.options.items()]
    if protocol.shots > 1:
        words.append(f"{protocol.shots} shots")
    if protocol.supports > 1:
        words.append(f"{protocol.supports} support scans")
    if recipe.episodes.setting == 2:
        words.append("setting 2")
    return words
