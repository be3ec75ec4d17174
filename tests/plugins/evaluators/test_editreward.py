"""``editreward`` on a tiny Qwen2.5-VL of transformers' real class with random heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AddedToken,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from cldistill.component import BuildContext
from cldistill.data.items import open_picture
from cldistill.errors import NotMeasured
from cldistill.plugins import register
from cldistill.records import GENERAL
from cldistill.testing import check_metric
from cldistill.testing.metric_check import TinyMetricRequest
from cldistill.testing.tiny import tiny_text_encoder, tiny_tokenizer
from cldistill_plugins.evaluators import editreward_network, plugin
from cldistill_plugins.evaluators.editreward import EditReward
from cldistill_plugins.evaluators.editreward_prompts import TOKEN, read_prompts

(EDITREWARD,) = (part for part in register(plugin).components if part.name == "editreward")
WIDTH = 32
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPTS = """
INSTRUCTION_EDIT_FOLLOWING = '''
Is it done: {text_prompt}
'''
INSTRUCTION_EDIT_QUALITY = '''
Is it fine: {text_prompt}
'''
"""
COLLATOR = f"""
import no_such_package
prompt_with_special_token = '''
Rate it: {TOKEN}

END
'''
raise SystemExit
"""


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editreward_network, "PIXELS", 4 * 28 * 28)


@pytest.fixture
def request_(request_: TinyMetricRequest) -> TinyMetricRequest:
    """The same with one system only."""
    return replace(request_, outputs={"student@4": request_.outputs["student@4"]})


@pytest.fixture
def random_restored() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout" / "EditReward" / "dataset"
    folder.mkdir(parents=True)
    (folder / "prompts.py").write_text(PROMPTS)
    (folder / "data_collator_qwen_edit.py").write_text(COLLATOR)
    return tmp_path / "checkout"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Config and processor of the backbone, without its weights."""
    tokenizer = tiny_tokenizer()
    pictures = Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=112 * 112)
    processor = Qwen2VLProcessor(pictures, tokenizer, Qwen2VLVideoProcessor(), chat_template=TEMPLATE)
    processor.save_pretrained(tmp_path / "base")
    tiny_text_encoder(tokenizer, WIDTH).config.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def backbone(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    model = tiny_text_encoder(tokenizer, WIDTH)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.resize_token_embeddings(len(tokenizer))
    return model


def head() -> nn.Sequential:
    layers = nn.Sequential(
        nn.Linear(WIDTH, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2)
    )
    for parameter in layers.parameters():
        nn.init.normal_(parameter, std=0.1)
    return layers.eval()


class Published:
    """What the authors publish: the whole model's tensors, vocabulary head included; and the plain way to its score."""

    def __init__(self) -> None:
        tokenizer = tiny_tokenizer()
        tokenizer.add_tokens([AddedToken(TOKEN, special=True, normalized=False)], special_tokens=True)
        self.model = backbone(tokenizer)
        self.heads = [head(), head()]

    @property
    def state(self) -> dict[str, Tensor]:
        heads = {f"rm_heads.head_{i}.{k}": v for i, h in enumerate(self.heads) for k, v in h.state_dict().items()}
        return {name: value.clone() for name, value in (self.model.state_dict() | heads).items()}

    @torch.no_grad()
    def score(self, inputs: list[Mapping[str, Tensor]], token: int) -> float:
        """Run the stock model on what the processor made, positions counted plainly, and read both heads."""
        means = []
        for entry, layers in zip(inputs, self.heads, strict=True):
            count = entry["input_ids"].shape[1]
            positions = torch.arange(count).expand(3, 1, count)
            made = self.model(**entry, position_ids=positions, output_hidden_states=True, use_cache=False)
            place = entry["input_ids"][0].tolist().index(token)
            means.append(float(layers(made.hidden_states[-1][0, place])[0]))
        return sum(means) / 2


@pytest.fixture
def published(tmp_path: Path, random_restored: None) -> Published:
    found = Published()
    (tmp_path / "weights").mkdir()
    save_file(found.state, tmp_path / "weights" / "model.safetensors")
    return found


def options(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": str(tmp_path / "weights"),
        "base": str(tmp_path / "base"),
        "repository": str(tmp_path / "checkout"),
        "dtype": "float32",
        **changes,
    }


def build(tmp_path: Path, **changes: Any) -> EditReward:
    settings = EDITREWARD.settings.model_validate(options(tmp_path, **changes))
    metric = EDITREWARD.build(settings, BuildContext(tmp_path, tmp_path / "cache", tmp_path))
    assert isinstance(metric, EditReward)
    return metric


@pytest.mark.slow
def test_it_conforms(
    tmp_path: Path, base: Path, repository: Path, published: Published, request_: TinyMetricRequest
) -> None:
    check_metric(EDITREWARD, options(tmp_path), request=request_)


@pytest.mark.slow
def test_the_score_is_that_of_the_stock_model_with_the_heads(
    tmp_path: Path, base: Path, repository: Path, published: Published, request_: TinyMetricRequest
) -> None:
    found = build(tmp_path)(request_)
    processor = Qwen2VLProcessor.from_pretrained(base)
    processor.tokenizer.add_tokens([AddedToken(TOKEN, special=True, normalized=False)], special_tokens=True)
    token = processor.tokenizer.convert_tokens_to_ids(TOKEN)
    scores = set()
    for pool, index in (("invert", 0), ("invert", 2), (GENERAL, 1)):
        item, made = request_.items[pool][index], request_.outputs["student@4"][pool][index]
        pictures = [picture.resize((56, 56), 3) for picture in (open_picture(item.sources[0]), made)]
        texts = [
            "<|im_start|>user\n" + "<|vision_start|><|image_pad|><|vision_end|>" * 2
            + f"\n{question}: {item.prompt}\n\nRate it: {TOKEN}\n\nEND\n<|im_end|>\n<|im_start|>assistant\n"
            for question in ("Is it done", "Is it fine")
        ]  # fmt: skip
        inputs = [processor(text=[text], images=pictures, return_tensors="pt") for text in texts]
        score = published.score(inputs, token)
        assert found["student@4"][pool].per_picture["editreward"][index] == pytest.approx(score, abs=1e-5)
        scores.add(round(score, 4))
    assert len(scores) == 3


@pytest.mark.slow
def test_values_are_kept_one_by_one(
    tmp_path: Path, base: Path, repository: Path, published: Published, request_: TinyMetricRequest
) -> None:
    first = build(tmp_path)(request_)
    assert len(request_.kept) == sum(len(made) for pools in request_.outputs.values() for made in pools.values())
    metric = build(tmp_path)
    (tmp_path / "weights" / "model.safetensors").unlink()  # nothing is loaded where everything is known
    assert metric(request_) == first
    with pytest.raises(NotMeasured, match=r"holds neither safetensors nor model.pth"):
        metric(replace(request_, kept={}))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["shards", "pth", "nested pth", "old names"])
def test_every_form_of_a_checkpoint_gives_the_same(
    tmp_path: Path, base: Path, repository: Path, published: Published, request_: TinyMetricRequest, form: str
) -> None:
    before = build(tmp_path)(request_)
    folder, state = tmp_path / "other", published.state
    folder.mkdir()
    if form == "shards":
        names = sorted(state)
        for number in range(2):
            part = {name: state[name] for name in names[number::2]}
            save_file(part, folder / f"model-{number}-of-2.safetensors")
    elif form == "old names":
        old = {
            name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): value
            for name, value in state.items()
        }
        assert not old.keys() & {name for name in state if name.startswith("model.")}
        save_file(old, folder / "model.safetensors")
    else:
        torch.save({"model": state} if form == "nested pth" else state, folder / "model.pth")
    after = build(tmp_path, model=str(folder))(replace(request_, kept={}))
    for system, pools in before.items():
        for pool, values in pools.items():
            expected = pytest.approx(values.per_picture["editreward"], abs=1e-5)
            assert after[system][pool].per_picture["editreward"] == expected


@pytest.mark.slow
def test_half_precision_is_near_and_the_heads_stay_exact(
    tmp_path: Path, base: Path, repository: Path, published: Published, request_: TinyMetricRequest
) -> None:
    exact = build(tmp_path)(request_)["student@4"]["invert"].per_picture["editreward"]
    half = build(tmp_path, dtype="bfloat16")(replace(request_, kept={}))["student@4"]["invert"].per_picture[
        "editreward"
    ]
    assert half == pytest.approx(exact, abs=0.15) and half != exact


@pytest.mark.parametrize("lost", ["rm_heads.head_1.5.bias", "model.language_model.norm.weight"])
def test_a_checkpoint_that_lacks_a_tensor_is_not_measured(
    tmp_path: Path, base: Path, repository: Path, published: Published, request_: TinyMetricRequest, lost: str
) -> None:
    state = published.state
    del state[lost]
    save_file(state, tmp_path / "weights" / "model.safetensors")
    with pytest.raises(NotMeasured, match="cannot be loaded"):
        build(tmp_path)(request_)


def test_the_stock_model_without_heads_is_not_measured(
    tmp_path: Path, base: Path, repository: Path, published: Published, request_: TinyMetricRequest
) -> None:
    published.heads = []
    save_file(published.state, tmp_path / "weights" / "model.safetensors")
    with pytest.raises(NotMeasured, match="cannot be loaded"):
        build(tmp_path)(request_)


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        (None, "", "is no checkout of TIGER-AI-Lab/EditReward"),
        ("prompts.py", "INSTRUCTION_EDIT_FOLLOWING = 'x {text_prompt}'", "does not define INSTRUCTION_EDIT_QUALITY"),
        ("prompts.py", PROMPTS.replace("{text_prompt}", "?"), "another version"),
        ("prompts.py", "def (", "does not define"),
        ("data_collator_qwen_edit.py", "prompt_with_special_token = 'rate it'", "not one <.Reward.>"),
    ],
)
def test_another_checkout_is_refused(repository: Path, file: str | None, text: str, reason: str) -> None:
    folder = repository / "EditReward" / "dataset"
    (folder / (file or "prompts.py")).write_text(text)
    if file is None:
        (folder / "prompts.py").unlink()
    with pytest.raises(NotMeasured, match=reason):
        read_prompts(repository)


def test_without_a_checkout_or_weights_it_says_what_to_give(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(NotMeasured, match="give repository: a checkout of TIGER-AI-Lab/EditReward"):
        build(tmp_path, repository=None)
    with pytest.raises(NotMeasured, match=r"there is no folder .*weights"):
        build(tmp_path)
