"""What people see of a training run: the images before it, its progress, and what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.cli.class_tables import show_classes, show_warnings
from toolkit.cli.console import bold, console, note, say, table, yellow
from toolkit.compare.classes import Classes

if TYPE_CHECKING:
    from pathlib import Path

    from toolkit.training.loop import Progress
    from toolkit.training.options import TrainingResult
    from toolkit.training.train import TrainingData

MOST_CLASSES = 12
ENDS = 5  # of a longer list, the largest and the smallest classes


def show_data(found: TrainingData) -> None:
    """Counts, balance, duplicates, mean and std, for people."""
    facts = found.facts
    train, test = facts["train"], facts["test"]
    size = "x".join(map(str, facts["shape"]))
    table(
        f"{facts['name']}: {train['images']:,} training and {test['images']:,} test images of {size}, "
        f"{len(facts['classes'])} classes",
        ("class", "training", "share", "test"),
        _rows(train["per_class"], test["per_class"]),
    )
    note(_balance(train["per_class"]))
    note(f"mean {_numbers(facts['mean'])}, std {_numbers(facts['std'])} of the training pixels, a channel each, 0 to 1")
    if train["duplicates"]:
        note(f"{train['duplicates']:,} training images repeat another one, pixel by pixel; they are kept")
    if facts["images_with_two_labels"]:
        say(yellow(f"{facts['images_with_two_labels']:,} images occur under two labels"))
    if found.dropped:
        say(
            yellow(f"{facts['test_images_also_in_train']:,} test images are also training images"),
            ": "
            f"{found.dropped:,} of {train['images']:,} training images are left out, so that the evaluation is honest",
        )
    for reason in found.skipped:
        note(f"left out: {reason}")
    for what in found.notes:
        say(yellow(what))


def _rows(train: dict[str, int], test: dict[str, int]) -> list[tuple[str, str, str, str]]:
    total = sum(train.values())

    def row(name: str) -> tuple[str, str, str, str]:
        return (name, f"{train[name]:,}", f"{100 * train[name] / total:.1f} %", f"{test[name]:,}")

    if len(train) <= MOST_CLASSES:
        return [row(name) for name in train]
    ranked = sorted(train, key=lambda name: (-train[name], name))
    between = ranked[ENDS:-ENDS]
    share = 100 * sum(train[name] for name in between) / total
    folded = (
        f"... {len(between)} more",
        f"{train[between[0]]:,} to {train[between[-1]]:,}",
        f"{share:.1f} %",
        f"{sum(test[name] for name in between):,}",
    )
    return [*map(row, ranked[:ENDS]), folded, *map(row, ranked[-ENDS:])]


def _balance(counts: dict[str, int]) -> str:
    most, least = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    if counts[most] == counts[least]:
        return "balanced: every class has as many training images"
    times = f"{counts[most] / counts[least]:.1f} times" if counts[least] else "and not one"
    share = 100 * counts[most] / sum(counts.values())
    return (
        f"the largest class, {most}, has {times} the images of the smallest, {least}; "
        f"answering {most} always would be right in {share:.1f} % of the training images"
    )


def _numbers(values: list[float]) -> str:
    return "/".join(f"{value:.3f}" for value in values)


def show_trained(trained: TrainingResult, folder: Path, following: str) -> None:
    """Where the model lies and how good it is, or how to go on.

    Args:
        following: the command that comes next.
    """
    accuracy = trained.accuracy
    if trained.interrupted or accuracy is None:
        why = "Another process ended; stopped" if trained.lost else "Interrupted"
        say(
            yellow(why),
            f" after {trained.epochs_done} epochs. {folder} holds epoch "
            f"{trained.best_epoch}, {trained.holdout_top1_percent:.2f} % on the held-out images. Go on with --resume.",
        )
        return
    classes = Classes.from_dict(accuracy["classes"])
    show_warnings(classes)
    low, high = accuracy["interval95_percent"]
    say(bold(f"{folder}"), f": top-1 {accuracy['top1_percent']:.2f} % ({low:.2f} to {high:.2f}) on "
        f"{accuracy['images']:,} test images, epoch {trained.best_epoch} of {trained.epochs_done}.")  # fmt: skip
    show_classes(folder.name, classes)
    say("training.png there is the learning curve, training.jsonl its numbers, confusion.png what was taken for what.")
    say("Next: ", bold(following))


def _left(p: Progress) -> float:
    """Seconds until the last step, as fast as so far."""
    return p.seconds * (p.steps - p.step) / max(p.step, 1)


class Bars:
    """A progress bar with loss, held-out top-1, images/s and time left; a line an epoch where there is no terminal."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.terminal = console().is_terminal
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}", markup=False),
            BarColumn(),
            TextColumn(
                "loss {task.fields[loss]:.3f}  held-out {task.fields[top1]}  {task.fields[speed]:,.0f} images/s"
            ),
            TimeRemainingColumn(),
            console=console(),
            disable=not self.terminal,
            transient=True,
        )
        self.task = self.bar.add_task("train", total=None, epoch="", loss=float("nan"), top1="-", speed=0.0)

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def __call__(self, p: Progress) -> None:
        if not self.bar.live.is_started:  # not before: the images are read under a bar of their own
            self.bar.start()
        shown: dict[str, Any] = {} if p.holdout_top1 is None else {"top1": f"{100 * p.holdout_top1:.2f} %"}
        self.bar.update(
            self.task, completed=p.step, total=p.steps, epoch=f"{p.epoch}/{p.epochs}", loss=p.loss,
            speed=p.images_per_s, **shown,
        )  # fmt: skip
        if p.holdout_top1 is not None and not self.terminal:
            note(f"epoch {p.epoch}/{p.epochs}: loss {p.loss:.3f}, held-out {100 * p.holdout_top1:.2f} %, "
                 f"{p.images_per_s:,.0f} images/s, {p.seconds:.0f} s, about {_left(p):.0f} s left")  # fmt: skip
