"""The validation curve: nothing of the training moves, its numbers, the best state, and what is refused."""

import numpy as np
import pytest
import torch
from helpers import TinyBackbone, block_scan, published_rules
from test_resume import CPU, Dropping
from test_updates import refused, table, tables

import fsseg
from fsseg import FssegError, LinEst, MaskedAverage, Ocp, Segmenter, Tpm
from fsseg.recipe.reading import parse_recipe
from fsseg.recipe.tables import TrainingTable
from fsseg.system.progress import Silent
from fsseg.training.episodes import EpisodeSampler, episode_rng
from fsseg.training.loop import Training, train_together
from fsseg.training.snapshots import Snapshots
from fsseg.training.validation import Measured, Validation, mean_dice, set_aside, validation_of

PLACE = {"seed": 5, "mode": "default", "device": CPU}
STEPS = 7


def sampler(*names):
    return EpisodeSampler([block_scan(name) for name in names], published_rules())


def options(**others):
    told = {"validation_scans": 1, "validate_every": 3, "validation_episodes": 4} | others
    return TrainingTable(steps=STEPS, learning_rate=0.05, **told)


def begin(folder=None, *, validated=True, tell=None, validation=None, backbone=Dropping, **others):
    chosen = options(**others)
    drawn_from, own = validation_of(sampler("a", "b", "c"), chosen, **PLACE)
    saver = None if folder is None else Snapshots(folder, 100, Silent())
    return Training(
        backbone(), MaskedAverage(), Tpm(), drawn_from, chosen, saver=saver, tell=tell,
        validation=(validation or own) if validated else None, **PLACE,
    )  # fmt: skip


def state(training):
    parts = (training.backbone, training.head)
    return torch.cat([v.flatten().double() for part in parts for v in part.state_dict().values()])


@pytest.fixture(scope="module")
def finished():
    [done] = train_together([begin()])
    return done


def test_the_training_is_what_it_is_without(finished):
    """With batch statistics, dropout and draws of a component's own, which validating must not move."""
    [without] = train_together([begin(validated=False)])
    assert torch.equal(state(finished), state(without))
    [losses] = finished.log.pending().values()
    [expected] = without.log.pending().values()
    assert len(losses) == STEPS and torch.equal(losses, expected)
    assert without.log.records() == []


def test_it_is_measured_every_so_many_steps_and_after_the_last():
    told = []
    [done] = train_together([begin(tell=told.append, backbone=TinyBackbone)])
    lines = done.log.records()
    assert [line["step"] for line in lines] == [3, 6, 7] and told == lines
    for line in lines:
        assert set(line) == {"step", "validation_ideal", "validation_estimated"}
        assert 0 < line["validation_estimated"] <= 1 and 0 < line["validation_ideal"] <= 1


def test_lines_stand_behind_the_records_before_them():
    from fsseg.training.log import LOG_EVERY, TrainingLog

    told = []
    log = TrainingLog(told.append)
    for step in range(LOG_EVERY):
        log.add(step, torch.zeros(3), score=None, learning_rate=0.1)
        log.tell(behind=1)
    log.add_line({"step": LOG_EVERY, "validation_ideal": 0.5})
    assert [("query" in record, record["step"]) for record in told] == [(True, 25), (False, 25)]
    assert log.records() == told


def test_the_numbers_are_those_of_a_plain_reference():
    """Whole segmenters, episode by episode, with sets of pixels for the Dice."""
    finished = begin(validated=False, backbone=TinyBackbone)
    chosen = options()
    of_training, of_validation = set_aside(sampler("a", "b", "c"), 1)
    validation = Validation(of_training, of_validation, chosen, **PLACE)
    parts = (finished.backbone.eval(), MaskedAverage(), finished.head.eval())
    measured = validation.measure(*parts)
    estimated, ideal = Segmenter(*parts, LinEst()), Segmenter(*parts, Ocp())
    fsseg.calibrate(parts[0], [estimated], of_training, 50, seed=5)
    scores = []
    for number in range(4):
        draw = of_validation.draw(episode_rng(5, 4, number), 1)
        episode = of_validation.make(draw)
        with torch.no_grad():
            found = (
                ideal(episode.support, episode.query, episode.target),
                estimated(episode.support, episode.query),
            )
        truth = set(np.flatnonzero(episode.target > 0))
        predicted = [set(np.flatnonzero(one.labels)) for one in found]
        scores.append([2 * len(truth & one) / (len(truth) + len(one)) for one in predicted])
    expected = np.mean(scores, axis=0)
    assert (measured.ideal, measured.estimated) == pytest.approx(expected, rel=1e-5)
    assert measured.ideal != pytest.approx(measured.estimated)


def test_the_dice_of_several_ways():
    """2 of 3 + 2 pixels, a way that is nowhere, and one that is missed."""
    target = torch.tensor([[[1, 1, 0, 3]]])
    labels = torch.tensor([[[1, 1, 1, 0]]])
    assert mean_dice(labels, target, 3).item() == pytest.approx((4 / 5 + 0) / 2)


def test_scans_that_are_set_aside_do_not_train():
    of_training, of_validation = set_aside(sampler("a", "b", "c"), 2)
    assert [scan.case for scan in of_training.scans] == ["a"]
    assert [scan.case for scan in of_validation.scans] == ["b", "c"]
    with pytest.raises(
        FssegError, match="validation_scans: is 3, .* from 3 training scans, expected one"
    ):
        set_aside(sampler("a", "b", "c"), 3)


class Scripted(Validation):
    """Measures what it is told to."""

    def measure(self, *parts):
        return Measured(0.0, self.scores.pop(0))


def scripted(*scores):
    validation = Scripted(*[sampler("a")] * 2, options(keep="best"), **PLACE)
    validation.scores = list(scores)
    return validation


@pytest.mark.parametrize("stopped", [0, 4])
def test_the_best_state_is_kept(stopped, tmp_path):
    """That of step 3, also of a training that is stopped after it and taken up; of two alike the first."""
    to_three = begin(validated=False)
    for _ in range(3):
        to_three.advance()
    scores = [0.5, 0.5, float("nan")]
    first = begin(tmp_path, validation=scripted(*scores), keep="best")
    for _ in range(stopped):
        first.advance()
    if stopped:
        first.saver.save(first)
        first = begin(tmp_path, validation=scripted(*scores[1:]), keep="best")
        assert first.step == stopped and first._validation.best == 0.5
    [done] = train_together([first])
    assert torch.equal(state(done), state(to_three))
    [last] = train_together([begin(validation=scripted(0.1, 0.2, 0.3), keep="best")])
    assert not torch.equal(state(last), state(to_three))


def test_a_validated_training_goes_on_with_the_same_bits(finished, tmp_path):
    first = begin(tmp_path)
    for _ in range(4):
        first.advance()
    first.saver.save(first)
    [second] = train_together([begin(tmp_path)])
    assert torch.equal(state(second), state(finished))
    assert second.log.records() == finished.log.records()


def test_what_is_refused():
    assert "keep: is 'best', and nothing is measured" in refused({"keep": "best"})
    assert "keep: expected 'last' or 'best'" in refused({"keep": "first"})
    assert "validate_every: expected greater than or equal to 1" in refused({"validate_every": 0})
    told = refused({"validation_scans": 1}, training={"validation_scans": 0, "keep": "best"})
    assert "[[variants]] number 1, training: keep: is 'best'" in told
    assert table(validation_scans=2, keep="best").keep == "best"
    written = tables({"validation_scans": 99})
    written["dataset"] = {"name": "abdomen_phantom", "count": 10, "size": 64}
    written["protocol"] = {"folds": "disjoint5"}
    recipe = parse_recipe(written)
    with pytest.raises(
        FssegError, match=r"validation_scans: is 99, and fold 0 has \d+ training scans"
    ):
        fsseg.run(recipe, name="never")
