"""MERLOT Reserve written down a second time, from the specification, over published parameters; any dtype.

Slow and plain: loops over examples and sequences, one head at a time where that is easier to read.
"""

import math
from collections.abc import Mapping

import torch
from reserve_goldens import KINDS
from torch import Tensor

Parameters = Mapping[str, Tensor]


def factors(coordinates: Tensor) -> Tensor:
    axes = coordinates.shape[-1]
    angles = []
    for axis in range(axes):
        for power in torch.linspace(0, math.log2(5), 32 // (2 * axes), dtype=torch.float64):
            angles += [coordinates[:, axis] * float(2**power) * math.pi] * 2
    signs = torch.tensor([-1.0, 1.0] * 16, dtype=coordinates.dtype)
    stacked = torch.stack(angles, dim=-1)
    return stacked.sin() + signs * stacked.cos()


def norm(x: Tensor, p: Parameters, name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * p[f"{name}/scale"] + p[f"{name}/bias"]


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    scores = torch.einsum("qnd,knd->nqk", query, key) / math.sqrt(query.shape[-1])
    scores = scores.masked_fill(~mask, -1e10)
    return torch.einsum("nqk,knd->qnd", scores.softmax(-1), value)


def transformer(p: Parameters, name: str, x: Tensor, coordinates: Tensor, mask: Tensor) -> Tensor:
    """Encode one sequence (L, H)."""
    layers = len({key.split("/")[len(name.split("/"))] for key in p if key.startswith(f"{name}/layer_")})
    scale = factors(coordinates)[:, None]
    x = norm(x, p, f"{name}/pre_ln")
    for number in range(layers):
        at = f"{name}/layer_{number:02d}"
        normed = norm(x, p, f"{at}/pre_attn_ln")
        qkv = torch.einsum("lh,hnd->lnd", normed, p[f"{at}/attention_layer/qkv/kernel"])
        query, key, value = (qkv + p[f"{at}/attention_layer/qkv/bias"]).chunk(3, dim=1)
        query, key = (torch.cat([one[..., :32] * scale, one[..., 32:]], -1) for one in (query, key))
        context = attend(query, key, value, mask)
        x = x + torch.einsum("qnd,ndh->qh", context, p[f"{at}/attention_layer/attn_proj/kernel"])
        normed = norm(x, p, f"{at}/pre_mlp_ln")
        wide = normed @ p[f"{at}/mlp_layer/intermediate/kernel"] + p[f"{at}/mlp_layer/intermediate/bias"]
        x = x + (wide / (1 + (-1.702 * wide).exp())) @ p[f"{at}/mlp_layer/out/kernel"]
    return norm(x, p, f"{name}/final_ln")


def with_cls(p: Parameters, name: str, x: Tensor, coordinates: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    name = f"{name}/transformer"
    x = torch.cat([p[f"{name}/cls"][None], x])
    valid = torch.cat([torch.tensor([True]), valid])
    coordinates = torch.cat([torch.zeros(1, coordinates.shape[1], dtype=x.dtype), coordinates])
    states = transformer(p, name, x, coordinates, valid[:, None] & valid[None])
    return states[0] @ p[f"{name}/cls_proj/kernel"] + p[f"{name}/cls_proj/bias"], states[1:]


def pool(p: Parameters, name: str, group: Tensor) -> Tensor:
    def project(part: str, x: Tensor) -> Tensor:
        return torch.einsum("lh,hnd->lnd", x, p[f"{name}/{part}/kernel"]) + p[f"{name}/{part}/bias"]

    query = project("query", group.mean(0, keepdim=True))
    mask = torch.ones(1, len(group), dtype=torch.bool)
    context = attend(query, project("key", group), project("value", group), mask)
    return torch.einsum("nd,ndh->h", context[0], p[f"{name}/out/kernel"]) + p[f"{name}/out/bias"]


def centred(n: int) -> list[int]:
    return [*range(-(n // 2), 0), *range(1, n - n // 2 + 1)]


def places(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    grid = [
        [r / (max(rows, columns) + 1), c / (max(rows, columns) + 1)] for r in centred(rows) for c in centred(columns)
    ]
    return torch.tensor(grid, dtype=dtype)


def vision(p: Parameters, patches: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Encode one frame's patches (h * w, 768): CLS and pooled tokens."""
    rows, columns = grid
    x = patches @ p["vision_encoder/embedding/kernel"] + p["vision_encoder/embedding/bias"]
    valid = torch.ones(len(x), dtype=torch.bool)
    cls, states = with_cls(p, "vision_encoder", x, places(rows, columns, x.dtype), valid)
    corners = [r * columns + c for r in range(0, rows, 2) for c in range(0, columns, 2)]
    squares = [states[[k, k + 1, k + columns, k + columns + 1]] for k in corners]
    return cls, torch.stack([pool(p, "vision_encoder/seq_attnpool", square) for square in squares])


def audio(p: Parameters, clip: Tensor) -> tuple[Tensor, Tensor]:
    """Encode one sound (60, 65): CLS and its six tokens."""
    kernel = p["audio_encoder/embedding/kernel"]
    x = clip[0::2] @ kernel[0] + clip[1::2] @ kernel[1] + p["audio_encoder/embedding/bias"]
    times = torch.tensor(centred(30), dtype=x.dtype)[:, None] / 30
    cls, states = with_cls(p, "audio_encoder", x, times, torch.ones(30, dtype=torch.bool))
    return cls, torch.stack([pool(p, "audio_encoder/seq_attnpool", group) for group in states.split(5)])


def span(p: Parameters, tokens: Tensor) -> Tensor:
    x = p["token_encoder/Embed_0/embedding"][tokens]
    times = torch.arange(1, len(tokens) + 1, dtype=x.dtype)[:, None] / 16
    return with_cls(p, "span_encoder", x, times, tokens != 0)[0]


def joint(
    p: Parameters,
    tokens: Tensor,
    segments: list[int],
    frames: Tensor | None = None,
    grid: tuple[int, int] = (2, 2),
    sounds: Tensor | None = None,
    pointers: Tensor | None = None,
    sources: list[int] | None = None,
    length: int = 40,
    hide_first: bool = False,
) -> Tensor:
    """Run one joint sequence; the head's output at its text, (L, H). ``hide_first``: nothing sees the first frame."""
    embedded, coordinates, valid, source, spoken = [], [], [], [], 0
    for number, token in enumerate(tokens.tolist()):
        row = p["token_encoder/Embed_0/embedding"][token]
        if token == 5 and sounds is not None:
            assert pointers is not None
            row, spoken = sounds[max(int(pointers[number]), 0), spoken % 6], spoken + 1
        embedded.append(row)
        coordinates.append([0, 0, segments[number] / 16, (number + 1) / 1024])
        valid.append(token != 0)
        source.append(-1 if sources is None or segments[number] < 0 else sources[segments[number]])
    if frames is not None:
        for segment, frame in enumerate(frames):
            for row, place in zip(frame, places(*grid, frame.dtype).tolist(), strict=True):
                embedded.append(row)
                coordinates.append([*place, segment / 16, 0])
                valid.append(segment > 0 or not hide_first)
                source.append(-1 if sources is None else sources[segment])
    padding = length - len(embedded)
    x = torch.stack([*embedded, *[torch.zeros_like(embedded[0])] * padding])
    seen = torch.tensor([*valid, *[False] * padding])
    group = torch.tensor([*source, *[-1] * padding])
    mask = seen[:, None] & seen[None] & (group[:, None] == group[None])
    where = torch.tensor([*coordinates, *[[0, 0, 0, 0]] * padding], dtype=x.dtype)
    states = transformer(p, "joint_transformer", x, where, mask)[: len(tokens)]
    return states @ p["head/kernel"] + p["head/bias"]


def scaled(rows: list[Tensor] | Tensor, scale: Tensor) -> Tensor:
    rows = torch.stack(list(rows))
    lengths = (rows.square().sum(-1, keepdim=True) + 1e-5).sqrt()
    return rows / lengths * (scale.clamp(max=math.log(100)) / 2).exp()


def pretraining(
    p: Parameters, batch: Mapping[str, Tensor], grid: tuple[int, int], groups: int, spans_each: int, rate: float
) -> dict[str, Tensor]:
    """Return the rows of the three objectives of a batch, whose ``patches`` are (B, S, h * w, 768)."""
    examples, segments = batch["patches"].shape[:2]
    per_group, half = segments // groups, (grid[0] // 2, grid[1] // 2)
    matched, frame_cls, heard, sound_cls, other_cls, candidates = [], [], [], [], [], []
    for b in range(examples):
        frames = [vision(p, frame, grid) for frame in batch["patches"][b]]
        sounds = [audio(p, clip) for clip in batch["audio_clips"][b]]
        pooled, spoken = (torch.stack([one[1] for one in side]) for side in (frames, sounds))
        at_sound: dict[int, list[Tensor]] = {}
        at_span: dict[int, list[Tensor]] = {}
        sources: dict[int, int] = {}
        hits: dict[int, int] = {}
        for name in KINDS:
            for n in range(batch[name].shape[1]):
                tokens = batch[name][b, n]
                audio_pointer, text_pointer = batch[f"{name}_audio_ptr"][b, n], batch[f"{name}_text_ptr"][b, n]
                if name == "random_text":
                    states = joint(p, tokens, [0] * len(tokens))
                elif name == "audio_text_matching":
                    running = [int((tokens[: k + 1] == 6).sum()) for k in range(len(tokens))]
                    states = joint(p, tokens, running, sounds=spoken, pointers=audio_pointer)
                    matched += [states[k] for k in range(len(tokens)) if tokens[k] == 6]
                else:
                    where = [-1 if k < 0 else k // 3 % per_group for k in audio_pointer.tolist()]
                    videos = batch["video_src_index"][b, n * per_group : (n + 1) * per_group].tolist()
                    noise = n + groups * (name == "audio2text")
                    if batch["noise_split"][b, noise]:
                        cut = 1 + int(batch["noise_cut"][b, noise] * (per_group - 1))
                        videos = [v + 1000 * (k >= cut) for k, v in enumerate(videos)]
                    own = pooled[n * per_group : (n + 1) * per_group]
                    states = joint(p, tokens, where, own, half, spoken, audio_pointer, videos)
                for k, token in enumerate(tokens.tolist()):
                    if name == "text2audio" and token == 4:
                        at_sound.setdefault(int(audio_pointer[k]), []).append(states[k])
                    if name != "audio_text_matching" and token == 3:
                        at_span.setdefault(int(text_pointer[k]), []).append(states[k])
                        sources.setdefault(int(text_pointer[k]), KINDS.index(name) - (name == "random_text"))
                        hits[int(text_pointer[k])] = hits.get(int(text_pointer[k]), 0) + (name != "random_text")
        frame_cls += [one[0] for one in frames]
        order = sorted(range(len(sounds)), key=lambda k: (-len(at_sound.get(k, [])), k))
        told, others = order[: int(len(sounds) * rate)], order[int(len(sounds) * rate) :]
        heard += [sum(at_sound.get(k, []), torch.zeros_like(sounds[k][0])) for k in told]
        sound_cls += [sounds[k][0] for k in told]
        other_cls += [sounds[k][0] for k in others]
        for k, words in enumerate(batch["text_spans"][b]):
            if k in at_span and bool(words.any()):
                score = torch.tensor(1e6) + hits[k] * math.log(4) + batch["noise_gumbel"][b, k]
                candidates.append((-float(score), b, k, sum(at_span[k]), words, sources[k]))
    chosen = sorted(candidates, key=lambda one: one[:3])[: spans_each * examples]
    scales = p["contrastive_scales"]
    return {
        "imgs_to_audio_x": scaled(matched, scales[0]),
        "imgs_to_audio_y": scaled(frame_cls, scales[0]),
        "text_to_audio_x": scaled(heard, scales[1]),
        "text_to_audio_y": scaled(sound_cls, scales[1]),
        "text_to_audio_y_extra": scaled(other_cls, scales[1]),
        "stuff_to_span_x": scaled([one[3] for one in chosen], scales[2]),
        "stuff_to_span_y": scaled([span(p, one[4]) for one in chosen], scales[2]),
        "span_sources": torch.tensor([one[5] for one in chosen]),
    }


def contrast(x: Tensor, y: Tensor, extra: Tensor | None = None) -> Tensor:
    """The symmetric cross entropy, by the equation."""
    own = (x * y).sum(-1)
    keys = y if extra is None else torch.cat([y, extra])
    there = torch.logsumexp(x @ keys.T, dim=1) - own
    back = torch.logsumexp(y @ x.T, dim=1) - own
    return (there.mean() + back.mean()) / 2


def loss(rows: Mapping[str, Tensor]) -> Tensor:
    names = ("imgs_to_audio", "text_to_audio", "stuff_to_span")
    return sum(contrast(rows[f"{name}_x"], rows[f"{name}_y"], rows.get(f"{name}_y_extra")) for name in names)
