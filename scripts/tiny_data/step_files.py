"""Tiny files of the corpora whose videos are sequences of steps: COIN and CrossTask."""

from pathlib import Path

from mmpt.utils.files import atomic_open, write_json
from scripts.tiny_data.concepts import THINGS, VERBS, Segment, World, pick_ids
from scripts.tiny_data.retrieval_files import save_feature, write_lines

__all__ = ["write_coin", "write_crosstask"]

_PAUSE = 3


def _recipes(world: World, count: int, steps: int) -> list[list[tuple[str, str]]]:
    """Return ``count`` tasks of ``steps`` concepts that no other task has."""
    chosen = world.rng.choice(len(VERBS) * len(THINGS), (count, steps), replace=False)
    return [[(VERBS[number // len(THINGS)], THINGS[number % len(THINGS)]) for number in row] for row in chosen]


def write_coin(data: Path, world: World, train: int, test: int) -> None:
    """Write COIN.json: three tasks of three steps; label ids leave gaps, as no reader may rely on them."""
    recipes = _recipes(world, 3, 3)
    database = {}
    subsets = (("training", pick_ids("coin_tr", train, held_out=2)), ("testing", pick_ids("coin_te", test)))
    for subset, names in subsets:
        for position, name in enumerate(names):
            task = position % len(recipes)
            segments = world.timed(recipes[task], (4, 14), _PAUSE)
            seconds = segments[-1].end + _PAUSE
            save_feature(data / "feat" / "feat_coin_s3d", name, world.features(segments, seconds))
            database[name] = {
                "subset": subset,
                "class": f"Task{task}",
                "recipe_type": task,
                "duration": float(seconds),
                "annotation": [
                    {
                        "id": str(1 + 4 * task + step),
                        "label": segment.text,
                        "segment": [float(segment.start), float(segment.end)],
                    }
                    for step, segment in enumerate(segments)
                ],
            }
    write_json(data / "coin" / "COIN.json", {"database": database}, indent=None)


def write_crosstask(data: Path, world: World, videos: tuple[int, int, int], val: int) -> None:
    """Write CrossTask: two primary tasks and a related one.

    ``videos`` are the numbers of videos of the three tasks; ``val`` more of each primary task are in videos_val.csv.
    """
    release = data / "crosstask" / "crosstask_release"
    recipes = dict(zip(("16815", "23521", "9001"), _recipes(world, 3, 4), strict=True))
    listed: dict[str, list[str]] = {"videos.csv": [], "videos_val.csv": []}
    for number, (task, steps) in enumerate(recipes.items()):
        validation = pick_ids(f"ct{number}v", val) if number < 2 else []
        for name in (*pick_ids(f"ct{number}t", videos[number], held_out=1), *validation):
            segments = world.timed(steps, (3, 9), _PAUSE)
            seconds = segments[-1].end + _PAUSE
            save_feature(data / "feat" / "feat_crosstask_s3d", name, world.features(segments, seconds))
            _write_steps(release / "annotations" / f"{task}_{name}.csv", segments)
            line = f"{task},{name},https://www.youtube.com/watch?v={name}"
            listed["videos.csv"].append(line)
            if name in validation:
                listed["videos_val.csv"].append(line)
    for file, lines in listed.items():
        write_lines(release / file, lines)
    tasks = list(recipes)
    for file, kept in (("tasks_primary.txt", tasks[:2]), ("tasks_related.txt", tasks[2:])):
        with atomic_open(release / file) as stream:
            for task in kept:
                names = ",".join(f"{verb} {thing}" for verb, thing in recipes[task])
                stream.write(f"{task}\nTask {task}\nhttps://www.wikihow.com/{task}\n{len(recipes[task])}\n{names}\n\n")


def _write_steps(path: Path, segments: list[Segment]) -> None:
    """Write ``step,start,end`` lines, steps counted from 1."""
    write_lines(path, (f"{step},{one.start:.2f},{one.end:.2f}" for step, one in enumerate(segments, 1)))
