"""Several targets in one call and one after another: chosen, forgotten, measured, attacked, saved."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from dimum_core import evaluate, load_dataset, load_pipeline, relearn, unlearn
from dimum_core.attacks import Means, auditing, get_attack, swap_embedding
from dimum_core.attacks.finetuning import images_of
from dimum_core.cli import main
from dimum_core.data import Dataset
from dimum_core.data.shapes import CLASS_NAMES
from dimum_core.data.targets import find_target
from dimum_core.errors import DataError, UnknownName
from dimum_core.judges import Judge, accuracies
from dimum_core.judges.classifier import PairVerdict
from dimum_core.models.checkpoints import build_pipeline
from dimum_core.models.conditions import conditions_of
from dimum_core.models.denoiser import build_denoiser
from dimum_core.models.history import History, history_of
from dimum_core.unlearning import METHODS
from dimum_core.unlearning.base import Step

NAMES = ("left", "top", "checks")
DIGITS = tuple("0123456789")
QUICK = {"steps": 2, "batch_size": 4, "progress": False}


@pytest.fixture
def small(tiny_preset):
    return build_pipeline(build_denoiser(tiny_preset, 3, 1).eval(), tiny_preset, NAMES)


@pytest.fixture
def tiny(tiny_data):
    return Dataset(tiny_data.select(torch.arange(30)), tiny_data.select(torch.arange(30, 60)))


# What several targets are -----------------------------------------------------------------------------------------------


def test_a_list_is_the_union_of_its_targets_in_the_order_of_their_labels():
    target = find_target(["7", 3, "3"], DIGITS)
    assert (target.name, target.labels, target.said, target.in_words) == ("3 and 7", (3, 7), ["3", "7"], "the classes 3 and 7")
    assert target.others.tolist() == [0, 1, 2, 4, 5, 6, 8, 9]
    assert find_target(["3"], DIGITS) == find_target("3", DIGITS)
    for several in ({"7", "3"}, np.array([3, 7]), np.array(["7", "3"]), (3, "7")):
        assert find_target(several, DIGITS) == target
    styles = find_target(["outline", "hatched"], CLASS_NAMES)
    assert styles.position == 0 and {CLASS_NAMES[i].split()[0] for i in styles.labels} == {"outline", "hatched"}


@pytest.mark.parametrize(("target", "names", "error", "said"), [
    ([], DIGITS, DataError, "no target in the list"), (["3", "ten"], DIGITS, UnknownName, "no class 'ten'"),
    (list(DIGITS), DIGITS, DataError, "all that there is: leave something to be kept"),
    (["outline", "star"], CLASS_NAMES, DataError, "all styles or all objects, not .*star .object.*: take one kind after the other"),
])
def test_what_is_no_list_of_targets_is_one_sentence(target, names, error, said):
    with pytest.raises(error, match=said):
        find_target(target, names)


def test_images_are_a_target_by_themselves(tiny_data):
    with pytest.raises(DataError, match="give them as one image set, and by themselves"):
        find_target(["top", tiny_data.select([0])], NAMES)


def test_each_target_has_its_turn_whatever_the_batch(small):
    conditions, others = conditions_of(small, ["left", "top"]), torch.full((5,), 2)
    assert conditions.as_target(others).tolist() == [0, 1, 0, 1, 0] and conditions.as_target(others, 1).tolist() == [1, 0, 1, 0, 1]
    one = [int(Step(small.unet, small.unet, conditions, {}, 1, (4, 4, 4), 0, i).as_target(others[:1])) for i in range(4)]
    assert sorted(one) == [0, 0, 1, 1]


def test_of_styles_everything_but_the_style_is_kept(prompted):
    conditions = conditions_of(prompted, ["outline", "hatched"])
    labels = torch.tensor([CLASS_NAMES.index("filled star")] * 2)
    moved = conditions.labels_of(conditions.as_target(labels * conditions.all_wordings))
    assert {CLASS_NAMES[label] for label in moved.tolist()} == {"outline star", "hatched star"}


def test_no_target_stands_in_for_another(prompted, small):
    for pipe, names in ((prompted, ["outline", "hatched"]), (small, ["left", "top"])):
        conditions, generator = conditions_of(pipe, names), torch.Generator().manual_seed(0)
        own = torch.tensor(conditions.forgotten.labels).repeat(20) * conditions.all_wordings
        for put in (conditions.instead(own, generator), conditions.anchored(own)):
            assert not conditions.forgotten.among(conditions.labels_of(put)).any()
        with pytest.raises(DataError, match=f"anchor '{names[1]}' is what is to be forgotten"):
            conditions.anchored(own, names[1])


# Forgotten at once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_takes_several_targets(method, small, tiny, prompted, shapes):
    by_words = METHODS[method].prompts_only
    pipe, data, target = (prompted, shapes, ["outline", "hatched"]) if by_words else (small, tiny, ["left", "top"])
    gone = unlearn(pipe, method, target=target, data=data, learning_rate=1e-3, **QUICK)
    assert gone.unlearning["target"] == target and set(gone.unlearning["forget_set"].labels.tolist()) == set(
        find_target(target, data.class_names).labels
    )
    losses = gone.unlearning["log"].get("loss")
    assert losses is None or losses.dropna().abs().lt(1e5).all()


def test_a_target_without_images_is_named(small, tiny):
    with pytest.raises(DataError, match="no forget images for the target 'top'"):
        unlearn(small, "random-label", target=["left", "top"], data=tiny.without("top"), **QUICK)


@pytest.fixture(scope="module")
def forgot():
    """Digits that forgot a 3 and a 7, in one call and one after the other."""
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    settings = {"data": data, "steps": 25, "learning_rate": 1e-3, "batch_size": 32, "progress": False}
    both = unlearn(pipe, "dimum", target=["3", "7"], **settings)
    first = unlearn(pipe, "dimum", target="3", **settings)
    return {"at once": both, "one after the other": unlearn(first, "dimum", target="7", **settings)}


@pytest.mark.parametrize("how", ["at once", "one after the other"])
def test_both_are_forgotten_and_the_first_does_not_come_back(how, forgot):
    measured = evaluate(forgot[how], target=["7", "3"], per_class=12, num_inference_steps=10, progress=False)
    assert measured["UA"] > 0.8 and measured["UA 3"] > 0.8 and measured["UA 7"] > 0.8 and measured["RA"] > 0.6
    assert measured.table.loc["UA", "n"] == 24 and measured.table.loc["UA 3", "n"] == 12
    assert measured.provenance["target"] == ["3", "7"] and json.dumps(measured.as_dict())


def test_the_attack_has_none_of_them_and_measures_each(forgot):
    data, quick = load_dataset("digits"), {"samples": 4, "num_inference_steps": 2, "progress": False, "steps": 1, "batch_size": 4}
    for auxiliary in (data.without("3"), data.without("7")):
        with pytest.raises(DataError, match=r"images of the target class 3 and 7.*without\(\['3', '7'\]\)"):
            relearn(forgot["at once"], auxiliary, **quick)
    curve = relearn(forgot["at once"], data.without(["3", "7"]), **quick).curve
    assert curve.columns[-2:].tolist() == ["accuracy on 3", "accuracy on 7"] and curve["accuracy on 7"].between(0, 1).all()
    with pytest.raises(DataError, match="images of the target class 3"):
        relearn(forgot["one after the other"], data.without("7"), **quick)


def test_a_folder_knows_them_all(forgot, tmp_path):
    forgot["at once"].save_pretrained(tmp_path)
    again = load_pipeline(tmp_path)
    assert again.history.last.target == find_target(["3", "7"], DIGITS) and again.unlearning["target"] == ["3", "7"]
    kept, names = again.history.leave_out(load_dataset("digits").train)
    assert names == ("3 and 7",) and not torch.isin(kept.labels, torch.tensor([3, 7])).any()
    assert again.history.last.target_among(tuple("0123456")).name == "3", "of other classes, those that are there"


# Measured ---------------------------------------------------------------------------------------------------------------


def test_the_ua_of_all_wants_none_of_them_and_the_ua_of_each_its_own():
    """Four samples of the 0, drawn as 0, 1, 2 and none of these, and four of the 1, drawn as 2, 2, 1, 1; and a 2."""
    target, labels = find_target([0, 1], ("0", "1", "2")), torch.tensor([0] * 4 + [1] * 4 + [2])
    rows = accuracies(torch.tensor([0, 1, 2, -1, 2, 2, 1, 1, 2]), labels, target)
    assert (rows["UA"].value, rows["UA 0"].value, rows["UA 1"].value, rows["RA"].value) == (0.5, 0.75, 0.5, 1.0)


def test_a_judge_of_styles_and_objects_sees_any_of_several_styles():
    target = find_target(["outline", "hatched"], CLASS_NAMES)
    styles = list(dict.fromkeys(name.split()[0] for name in CLASS_NAMES))
    seen = torch.arange(len(styles))
    none = torch.full_like(seen, -1)
    verdict = PairVerdict(none, none, none, none, words=(seen, none))
    assert [styles[i] for i in verdict.shows(target).nonzero().squeeze(1)] == [s for s in styles if s in ("outline", "hatched")]


# Attacked ---------------------------------------------------------------------------------------------------------------


def test_rows_and_images_of_all_of_them_are_the_attackers(small, tiny, tiny_preset):
    other = build_pipeline(build_denoiser(tiny_preset, 3, 1, 5).eval(), tiny_preset, NAMES)
    swapped = swap_embedding(small, other, ["left", "checks"]).unet.class_embedding.weight
    theirs, ours = other.unet.class_embedding.weight, small.unet.class_embedding.weight
    assert torch.equal(swapped[[0, 2]], theirs[[0, 2]]) and torch.equal(swapped[[1, 3]], ours[[1, 3]])
    assert images_of(["left", "checks"], tiny).labels[:6].tolist() == [0, 2, 0, 2, 0, 2]
    assert images_of("left", tiny).item_hashes.tolist() == tiny.train.only("left").item_hashes.tolist()
    means = Means(find_target(["left", "checks"], NAMES), tiny, Judge(8, 1, NAMES, (4,), (2,)), samples=4)
    trained = get_attack("trained-row", steps=1, count=4).run(small, means).pipeline.unet.class_embedding.weight
    assert (trained != ours).any(1).tolist() == [True, False, True, False]


def test_the_first_images_of_a_style_show_every_object(shapes):
    """Else an attacker with six of them would never have seen five of the objects that they are judged by."""
    shown = images_of("hatched", shapes)
    assert sorted(CLASS_NAMES[label] for label in shown.labels[:6]) == sorted(n for n in CLASS_NAMES if n.startswith("hatched "))
    assert sorted(shown.item_hashes.tolist()) == sorted(shapes.train.only("hatched").item_hashes.tolist())


def test_an_audit_knows_what_was_forgotten_before_and_each_of_several(small, tiny, monkeypatch):
    monkeypatch.setattr(auditing, "AUDITED", (("none", {}), ("relearning", {"steps": 1}), ("few-shot", {"steps": 1, "count": 4})))
    first = unlearn(small, "finetune", target="left", data=tiny, **QUICK)
    second = unlearn(first, "finetune", target="top", data=tiny, **QUICK)
    settings = {"judge": Judge(8, 1, NAMES, (4,), (2,)), "samples": 2, "progress": False}
    tried = {"none", "relearning steps=1", "few-shot steps=1 count=4"}
    assert set(auditing.audit(second, "top", tiny, **settings).outcomes) == tried
    found = auditing.audit(second, ["left", "top"], tiny, **settings)
    assert found.target == "left and top"
    assert set(found.outcomes["relearning steps=1"]["audited"].details) == {"accuracy on left", "accuracy on top"}
    ignorant = unlearn(small, "finetune", target="top", data=tiny, **QUICK)
    with pytest.raises(DataError, match="history has seen images of it: train one with --without left top"):
        auditing.audit(second, ["left", "top"], tiny, retrained=ignorant, **settings)


def test_a_model_that_was_never_shown_either_of_them_is_known_as_such():
    def history(*names):
        return History().having_forgotten(find_target(list(names), DIGITS), load_dataset("digits").train.only(list(names)))

    pipe = load_pipeline("digits")
    for pipe.history, target, never in (
        (history("3", "7"), "3", True), (history("3", "7"), ["3", "7"], True), (history("3"), ["3", "7"], False),
        (History(forgotten=(*history("3").forgotten, *history("7").forgotten)), ["3", "7"], True),
    ):
        assert auditing._never_shown(pipe, find_target(target, DIGITS)) == never


# In the shell -----------------------------------------------------------------------------------------------------------


def test_the_shell_takes_several_targets(tmp_path, capsys, few_drawings):
    gone, attacked = tmp_path / "gone", tmp_path / "attacked"
    assert main(f"unlearn digits --target 3 7 --method finetune --steps 1 --out {gone}".split()) == 0
    assert "forgot 3 and 7" in capsys.readouterr().out and load_pipeline(gone).unlearning["target"] == ["3", "7"]
    assert main(f"relearn {gone} --target 3 --target 7 --steps 1 --out {attacked}".split()) == 0
    assert "accuracy on 7" in (attacked / "curve.csv").read_text()
    capsys.readouterr()
    assert main(f"evaluate {attacked} --target 3 7 --count 1 --steps 1 --json".split()) == 0
    assert {"UA", "UA 3", "UA 7"} <= set(json.loads(capsys.readouterr().out)["metrics"])


def test_a_training_leaves_several_classes_out(tmp_path, tiny_preset, monkeypatch):
    from dimum_core.models import denoiser

    monkeypatch.setitem(denoiser.PRESETS, "tiny", tiny_preset)
    assert main(f"train tiny --steps 1 --without 3 7 --out {tmp_path}".split()) == 0
    pipe = load_pipeline(tmp_path)
    assert history_of(pipe).last.target == find_target(["3", "7"], DIGITS)
    assert json.loads((tmp_path / "card.json").read_text())["without"] == ["3", "7"]
    assert "without the classes 3 and 7" in (tmp_path / "README.md").read_text()
    (tmp_path / "history.json").unlink()
    assert history_of(load_pipeline(tmp_path)).last.target.labels == (3, 7), "a card says it, too"
    with pytest.raises(DataError, match="images of the target class 3 and 7"):
        relearn(pipe, load_dataset("digits"), target="8", steps=1, progress=False)
