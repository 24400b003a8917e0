"""Tokens that are sought: slopes against differences, the best word against trying each by hand, and both controls."""

from __future__ import annotations

import copy

import pytest
import torch

from dimum_core import load_dataset, load_pipeline
from dimum_core.attacks import search_tokens
from dimum_core.attacks.prompts import EmbeddingObjective
from dimum_core.attacks.tokens import TokenPrompts
from dimum_core.data.shapes import OBJECTS, STYLES
from dimum_core.errors import DataError, SettingError
from dimum_core.judges.classifier import Judge, PairJudge
from dimum_core.models.conditions import conditions_of
from dimum_core.models.text_to_image import tokenize

FEW = {"num_inference_steps": 2}


@pytest.fixture
def judge():
    torch.manual_seed(0)
    return PairJudge(*(Judge(16, 3, words, (8, 8), (2, 2)) for words in (STYLES, OBJECTS)))


def searched(pipe, images, prefix: list[str]) -> tuple[TokenPrompts, EmbeddingObjective]:
    conditions = conditions_of(pipe, "outline")
    captions = [conditions.caption(label * conditions.all_wordings) for label in conditions.forgotten.labels]
    tokens = torch.tensor(pipe.tokenizer.convert_tokens_to_ids(prefix), dtype=torch.long)
    prompts = TokenPrompts(copy.deepcopy(pipe.text_encoder).requires_grad_(False), tokenize(pipe.tokenizer, captions), tokens)
    return prompts, EmbeddingObjective(pipe.unet.requires_grad_(False), conditions, images.only("outline"), 8)


def test_tokens_before_a_caption_are_the_words_before_it(prompted, shapes):
    prompts, _ = searched(prompted, shapes.train, ["star", "hatched"])
    assert torch.equal(prompts.input_ids[0], prompted.tokenize(["star hatched a outline circle"])[0])
    long, _ = searched(prompted, shapes.train, ["star"] * 10)
    assert long.input_ids.shape == (6, 12) and (long.input_ids[:, 1:11] == long.prefix[0]).all()


def test_slopes_are_differences_to_first_order(prompted, shapes):
    """A hundredth of the way from a token's embedding to another's, for the same images and noise."""
    prompts, objective = searched(prompted, shapes.train, ["star", "in"])
    table = prompts.text_encoder.get_input_embeddings()
    slopes, words, way = prompts.slopes(objective, 0, 3), prompted.tokenizer.get_vocab(), 0.01
    before = float(objective(prompts, 0, 3))
    for place, word in ((0, "hatched"), (1, "drawing"), (1, "filled")):
        toward = way * (table.weight[words[word]] - table.weight[prompts.prefix[place]])
        hook = table.register_forward_hook(lambda m, a, out, at=1 + place, by=toward: out.index_add(
            1, torch.tensor([at]), by.expand(len(out), 1, -1)))
        changed = float(objective(prompts, 0, 3)) - before
        hook.remove()
        assert changed == pytest.approx(way * float(slopes[place, words[word]]), rel=0.1, abs=2e-7)


def test_the_word_that_is_found_is_the_best_of_all(prompted, shapes, judge):
    """One place, every word a candidate: what each gives was worked out by asking in words."""
    vocabulary = sorted(set(prompted.tokenizer.get_vocab()) - set(prompted.tokenizer.all_special_tokens))
    losses = {}
    for word in vocabulary:
        prompts, objective = searched(prompted, shapes.train, [word])
        losses[word] = float(objective(prompts, 0, 0))
    settings = {"target": "outline", "judge": judge, "samples": 6, "batch_size": 8, **FEW}
    before = {k: v.clone() for part in (prompted.unet, prompted.text_encoder) for k, v in part.state_dict().items()}
    found = search_tokens(prompted, shapes.train, count=1, rounds=1, candidates=1000, **settings)
    assert losses[found.tokens[0]] == pytest.approx(min(losses.values()), abs=1e-7) and len(set(losses.values())) > 5
    assert found.curve["round"].tolist() == [0, 1] and found.images.shape == (6, 3, 16, 16)
    assert all(torch.equal(before[k], v) for part in (prompted.unet, prompted.text_encoder) for k, v in part.state_dict().items())
    again = search_tokens(prompted, shapes.train, count=1, rounds=1, candidates=1000, **settings)
    assert again.tokens == found.tokens and again.curve.equals(found.curve)
    with pytest.raises(DataError, match="no images of 'outline'"):
        search_tokens(prompted, shapes.train.without("outline"), **settings)
    with pytest.raises(SettingError, match="count must be"):
        search_tokens(prompted, shapes.train, **{**settings, "count": 0})


@pytest.fixture(scope="module")
def renamed():
    """Both controls, in which the word "hatched" says nothing and a comma says what it had said: one model knows hatching, the
    other never saw any."""
    pipes = {name: load_pipeline(name) for name in ("shapes", "shapes-without-hatched")}
    for pipe in pipes.values():
        table = pipe.text_encoder.get_input_embeddings().weight
        hatched, comma = pipe.tokenizer.convert_tokens_to_ids(["hatched", ","])
        with torch.no_grad():
            table[[hatched, comma]] = table[[comma, hatched]].clone()
    return pipes


def test_tokens_bring_back_what_was_only_renamed_and_nothing_that_was_never_seen(renamed):
    shots = load_dataset("shapes").train.only("hatched").select(torch.arange(16))
    settings = {"target": "hatched", "count": 1, "rounds": 1, "samples": 24, "batch_size": 16, "num_inference_steps": 12}
    known, unknown = (search_tokens(pipe, shots, **settings) for pipe in renamed.values())
    assert known.tokens == [","]
    before, after = known.curve["target accuracy"]
    assert before < 0.3 and after > 0.6
    assert unknown.curve["target accuracy"].max() < 0.2
