"""A captioner in this process, by transformers: models that read pictures, sounds or both, and text
(`AutoModelForMultimodalLM`: Qwen-VL, SmolVLM, LLaVA, Gemma 3n, Qwen2-Audio, Voxtral, Qwen-Omni).

The checkpoint's own processor and chat template make tokens of a question. Decoding is greedy, so
the same question has the same answer. Of an Omni model the thinker alone is loaded, which writes;
what speaks is left out.
"""

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from avdata import storage
from avdata.encoders import weights
from avdata.encoders.captioner import Answer, Question
from avdata.encoders.weights import DTYPES, Model, Release, Weights
from avdata.errors import RunError, UsageError

VERSION = 1
RELEASE = Release(
    name="captioner Qwen2.5-Omni-7B",
    size="22 GB",
    repository="Qwen/Qwen2.5-Omni-7B",
    folders=(".",),
)
THINKERS = {
    "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration",
}
SPEAKING = ("talker.", "token2wav.", "code2wav.")
SETTINGS = ("*.json", "*.jinja", "*.txt", "*.model")
"""Files beside the weights that an answer depends on: vocabulary, chat template, sizes."""


@dataclass(frozen=True, slots=True)
class MultimodalLM(Weights):
    """Configuration of one model of transformers that reads pictures or sounds."""

    max_tokens: int = 300
    """Of an answer; one that has not ended by then is none."""
    batch_size: int | None = None
    """Questions answered at once; None is 1 on a CPU, 4 on a GPU."""
    kind: Literal["transformers"] = "transformers"

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or (self.batch_size is not None and self.batch_size < 1):
            raise ValueError("max_tokens and batch_size must be 1 or more")

    @property
    def name(self) -> str:
        """What made a caption."""
        return self.path if self.revision else Path(self.path).name

    def identity(self) -> list[object]:
        """All that its answers depend on, as JSON; UsageError when weights are missing."""
        folder = weights.model_folder(self, RELEASE)
        files = weights.weight_files(folder, "model", lambda what: RELEASE.absent(what, self))
        beside = {file for pattern in SETTINGS for file in folder.glob(pattern)} - set(files)
        digest = weights.digest([*files, *sorted(beside)], [VERSION, self.dtype, self.max_tokens])
        return [self.kind, digest]

    def open(self, device: torch.device) -> "OpenMultimodalLM":
        """Loads it; UsageError without transformers or weights, and when these do not fit."""
        return OpenMultimodalLM(self, device)


class OpenMultimodalLM:
    """A `Captioner`: of the threads that ask, one at a time answers for all that wait."""

    def __init__(self, config: MultimodalLM, device: torch.device) -> None:
        self._config, self._device, self._dtype = config, device, DTYPES[config.dtype]
        self._batch_size = config.batch_size or (1 if device.type == "cpu" else 4)
        self._folder = weights.model_folder(config, RELEASE)
        self._model = _model(self._folder, self._dtype).to(device)
        self._processor = _processor(self._folder)
        settings = self._model.generation_config
        settings.do_sample, settings.num_beams = False, 1
        settings.temperature = settings.top_p = settings.top_k = None
        settings.eos_token_id = _ends(settings.eos_token_id, self._processor, self._folder)
        self._ends = torch.tensor(settings.eos_token_id)
        self._waiting = deque[tuple[Question, Future[Answer]]]()
        self._turn = threading.Lock()

    def close(self) -> None:
        """Nothing is held beyond its own life."""

    def ask(self, question: Question) -> Answer:
        """See `Captioner.ask`; UsageError for pictures or sounds that the model cannot read,
        RunError when memory does not suffice."""
        self._require_reads(question)
        mine: Future[Answer] = Future()
        self._waiting.append((question, mine))
        with self._turn:
            while not mine.done():
                self._answer_some()
        return mine.result()

    def _answer_some(self) -> None:
        count = min(self._batch_size, len(self._waiting))
        some = [self._waiting.popleft() for _ in range(count)]
        try:
            answers = self._answers([question for question, _ in some])
        except BaseException as error:
            # Other threads wait for these answers: whatever ends this one is theirs, too.
            for _, future in some:
                future.set_exception(error)
            raise
        for (_, future), answer in zip(some, answers, strict=True):
            future.set_result(answer)

    def _answers(self, questions: list[Question]) -> list[Answer]:
        asked = [[{"role": "user", "content": _content(one)}] for one in questions]
        given = self._processor.apply_chat_template(
            asked,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        ).to(self._device, self._dtype)
        try:
            with torch.inference_mode():
                found: Tensor = self._model.generate(
                    **given, max_new_tokens=self._config.max_tokens
                )
        except torch.OutOfMemoryError as error:
            raise RunError(
                f"{self._folder}: no memory for {len(questions)} questions at once; lower its "
                "batch_size, or frames or longer_side"
            ) from error
        said = found[:, given["input_ids"].shape[1] :].cpu()
        return [self._answer(tokens) for tokens in said]

    def _answer(self, tokens: Tensor) -> Answer:
        ends = torch.isin(tokens, self._ends).nonzero()
        if len(ends) == 0:
            return Answer(None, "cut_off", "max_tokens were not enough")
        text: str = self._processor.tokenizer.decode(
            tokens[: int(ends[0])], skip_special_tokens=True
        )
        return Answer(text)

    def _require_reads(self, question: Question) -> None:
        read = self._model.input_modalities
        wanted = {"image": question.frames is not None, "audio": question.samples is not None}
        for modality, given in wanted.items():
            if given and modality not in read:
                raise UsageError(
                    f"{self._folder}: this model reads {', '.join(read)} and no {modality}; "
                    "give a model that does"
                )
        extractor = getattr(self._processor, "feature_extractor", None)
        rate = getattr(extractor, "sampling_rate", question.sample_rate)
        if question.samples is not None and rate != question.sample_rate:
            raise UsageError(f"{self._folder}: it hears {rate} Hz; set sample_rate={rate}")


def _content(question: Question) -> list[dict[str, Any]]:
    from PIL import Image

    content: list[dict[str, Any]] = []
    if question.frames is not None:
        content += [{"type": "image", "image": Image.fromarray(one)} for one in question.frames]
    if question.samples is not None:
        content.append({"type": "audio", "audio": question.samples})
    return [*content, {"type": "text", "text": question.prompt}]


def _model(folder: Path, dtype: torch.dtype) -> Model:
    transformers = weights.library("transformers")
    kind = storage.read_json(folder / "config.json").get("model_type")
    found = getattr(transformers, THINKERS.get(str(kind), "AutoModelForMultimodalLM"))
    with weights.quiet(transformers), weights.loading(folder):
        model, info = found.from_pretrained(
            str(folder),
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    spoken = {name for name in info["unexpected_keys"] if name.startswith(SPEAKING)}
    unexpected = set(info["unexpected_keys"]) - (spoken if kind in THINKERS else set())
    weights.require_whole(folder, {**info, "unexpected_keys": unexpected})
    return model.eval().requires_grad_(False)


def _processor(folder: Path) -> Model:
    transformers = weights.library("transformers")
    with weights.loading(folder):
        processor = transformers.AutoProcessor.from_pretrained(str(folder), local_files_only=True)
    if getattr(processor, "chat_template", None) is None:
        raise UsageError(f"{folder}: no chat template; give a model that follows instructions")
    processor.tokenizer.padding_side = "left"  # Answers go on where questions end.
    if processor.tokenizer.pad_token is None:  # What pads is masked: any token will do.
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return processor


def _ends(which: int | list[int] | None, processor: Model, folder: Path) -> list[int]:
    """Tokens that end an answer, the model's and the tokenizer's."""
    ids = which if isinstance(which, list) else [which]
    found = {one for one in (*ids, processor.tokenizer.eos_token_id) if one is not None}
    if not found:
        raise UsageError(f"{folder}: says of no token that it ends an answer; fetch it again")
    return sorted(found)
