"""The audit: every refusal before time is wasted, the lead over a model that never knew, and going on."""

from __future__ import annotations

import copy
import json

import pytest

from dimum_core import load_dataset, load_pipeline, unlearn
from dimum_core.attacks import ATTACKS, Audit, Outcome, audit, auditing, get_attack, report_card
from dimum_core.cli import main
from dimum_core.data.targets import find_target
from dimum_core.errors import CheckpointError, DataError, UnknownName
from dimum_core.judges import find_judge
from dimum_core.metrics import difference_of_proportions, wilson_interval
from dimum_core.models.history import history_of

FEW = {"samples": 2, "progress": False}


@pytest.fixture(scope="module")
def models():
    return {name: load_pipeline(name) for name in ("digits", "digits-without-3", "digits-without-7")}


@pytest.fixture
def two_attacks(monkeypatch):
    monkeypatch.setattr(auditing, "AUDITED", (("none", {}), ("old-row", {}), ("rounding", {"bits": 4})))


def outcome(attack: str, hits: int, had: tuple[str, ...] = ()) -> Outcome:
    return Outcome(attack, {}, had, "a model", 0, 1.0, wilson_interval(hits, 50), wilson_interval(50, 50))


def made(control: bool, hits: int) -> Audit:
    both = {"none": (1, 0), "relearning": (hits, 2), "few-shot": (50, 50)}
    had = {"few-shot": ("images of the target",)}
    return Audit("3", {
        name: {"audited": outcome(name, own, had.get(name, ()))} | ({"retrained": outcome(name, other)} if control else {})
        for name, (own, other) in both.items()
    })


def test_the_lead_is_over_the_model_that_never_knew_and_its_intervals_hold_together():
    found = made(True, 40)
    assert found.lead("relearning") == difference_of_proportions(40, 50, 2, 50, confidence=1 - 0.05 / 3)
    assert found.lead("few-shot").value == 0 and made(False, 40).lead("relearning") is None
    assert found.table.loc["relearning", ["target", "retrained", "lead"]].tolist() == pytest.approx([0.8, 0.04, 0.76])


def test_the_card_is_honest():
    """What is taught to both models is no memory; without the other model nothing is called one."""
    assert "**It is still in the weights**: 1 of 2 attacks" in report_card(made(True, 40))
    assert "No attack brought back more than it gives a model that never knew it" in report_card(made(True, 2))
    alone = report_card(made(False, 40))
    assert "an attack that teaches is no proof of memory" in alone and "still in the weights" not in alone
    assert "relearning brings back most: 80.0%" in alone, "not the attack that was shown the target"


def test_an_attack_without_a_control_is_named_and_not_passed_over():
    for hits, said in ((2, "No attack that was run on both models brought back more"), (40, "1 of 2 attacks give more")):
        found = made(True, hits)
        found.outcomes["completion"] = {"audited": outcome("completion", 48)}
        page = report_card(found)
        assert said in page
        assert "Without a control, since it cannot be run on the model that never knew it: completion 96.0%" in page
    del found.outcomes["relearning"], found.outcomes["few-shot"]
    assert "No attack that was run on both models" in report_card(found) and "was given" not in report_card(found)
    assert "ithout a control" not in report_card(made(True, 2))


def test_an_audit_goes_on_where_it_was_and_not_with_another(models, two_attacks, tmp_path, monkeypatch):
    pipe, data = models["digits"], load_dataset("digits")
    settings = FEW | {"retrained": models["digits-without-3"], "out": tmp_path}
    found = audit(pipe, "3", data, **settings)
    assert found.left_out == {"old-row": "the original model was not given"} and set(found.outcomes) == {"none", "rounding bits=4"}
    assert set(found.outcomes["none"]) == {"audited", "retrained"} and found.lead("none").value == 1
    monkeypatch.setattr(auditing, "attack", None)  # which would fail if anything were computed again
    assert audit(pipe, "3", data, **settings).as_dict() == found.as_dict()
    with pytest.raises(CheckpointError, match="holds an audit of another model"):
        audit(pipe, "3", data, **settings | {"seed": 1})
    lenient = copy.deepcopy(find_judge(pipe))
    lenient.register_to_config(threshold=float("inf"))
    with pytest.raises(CheckpointError, match="with other settings"):
        audit(pipe, "3", data, judge=lenient, **settings)


def test_a_record_of_other_settings_than_todays_is_made_again(models, tmp_path, monkeypatch):
    made, run = [], auditing.attack
    monkeypatch.setattr(auditing, "AUDITED", (("rounding", {}),))
    monkeypatch.setattr(auditing, "attack", lambda pipe, kind, means: made.append(kind.bits) or run(pipe, kind, means))
    for default in (8, 4, 4):
        monkeypatch.setattr(auditing, "get_attack", lambda name, default=default, **settings: get_attack(name, bits=default))
        found = audit(models["digits"], "3", load_dataset("digits"), out=tmp_path, **FEW)
        assert found.outcomes["rounding"]["audited"].settings == {"bits": default}
    assert made == [8, 4]


def test_what_cannot_be_audited_is_refused_before_anything_is_drawn(models, small_digits, monkeypatch):
    monkeypatch.setattr(auditing, "attack", None)
    pipe, never, other = models.values()
    with pytest.raises(UnknownName, match="no class 'cat'"):
        audit(pipe, "cat", **FEW)
    with pytest.raises(DataError, match="never shown 3, so there is nothing to audit"):
        audit(never, "3", **FEW)
    for seeing in (pipe, other):
        with pytest.raises(DataError, match="must never have been shown 3, and its history"):
            audit(pipe, "3", retrained=seeing, **FEW)
    with pytest.raises(DataError, match="The retrained model does not fit: digits has other classes"):
        audit(pipe, "3", retrained=load_pipeline("shapes"), **FEW)
    with pytest.raises(DataError, match="original's network has other weights than the audited one"):
        audit(pipe, "3", original=load_pipeline(small_digits[0]), **FEW)
    taught = unlearn(never, "finetune", target="7", data=load_dataset("digits"), steps=1, batch_size=4, progress=False)
    with pytest.raises(DataError, match="The original was never shown 3"):
        audit(pipe, "3", original=taught, **FEW)


def test_a_retrained_model_that_lacks_more_is_refused_before_the_attacks(models, monkeypatch):
    monkeypatch.setattr(auditing, "attack", None)
    neither = copy.deepcopy(models["digits-without-3"])
    sevens = load_dataset("digits").train.only("7")
    neither.history = history_of(neither).having_forgotten(find_target("7", neither.class_names), sevens)
    with pytest.raises(DataError, match="The retrained model was never shown 7 either.*lacks 3 alone"):
        audit(models["digits"], "3", retrained=neither, **FEW)
    with pytest.raises(TypeError):  # of two targets it is the right control, and attacked
        audit(models["digits"], ["3", "7"], retrained=neither, **FEW)


def test_an_audit_knows_the_whole_pipeline(prompted):
    before = auditing._identity(prompted)
    prompted.text_encoder.get_input_embeddings().weight.data.zero_()
    assert auditing._identity(prompted) != before
    before = auditing._identity(prompted)
    prompted.register_to_config(guidance_scale=9.0)
    assert auditing._identity(prompted) != before
    before = auditing._identity(prompted)
    prompted.scheduler = type(prompted.scheduler).from_config(prompted.scheduler.config)
    assert auditing._identity(prompted) == before
    prompted.scheduler = type(prompted.scheduler).from_config(prompted.scheduler.config, beta_schedule="squaredcos_cap_v2")
    assert auditing._identity(prompted) != before


def test_it_runs_every_attack_but_the_search_for_words_and_says_so(capsys):
    ours = {name for name, attack in ATTACKS.items() if attack.__module__.startswith("dimum_core.")}
    assert ours - {name for name, _ in auditing.AUDITED} == {"tokens"}
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "every attack but the search for words, which takes longer" in " ".join(capsys.readouterr().out.split())


def test_the_command_writes_its_page(two_attacks, tmp_path, capsys):
    call = ["audit", "digits", "--target", "3", "--samples", "2", "--minutes", "1e-9", "--out", str(tmp_path)]
    assert main(call) == 0
    page = capsys.readouterr().out
    assert page.startswith("# What came back of 3") and "rounding bits=4 (no time was left)" in page
    assert (tmp_path / "report.md").read_text("utf-8").strip() == page.strip()
    assert main([*call, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["attacks"]["none"]["audited"]["target"]["n"] == 2
    assert main(["audit", "digits", "--target", "cat"]) == 1
